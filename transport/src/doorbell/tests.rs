//! Tests of the doorbell: by threads here, by processes in the queue's tests, by loom for every interleaving.

use super::*;

#[cfg(not(loom))]
mod threads {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_wait_ends_at_its_time() {
        prepare();
        let until = Instant::now() + Duration::from_millis(20);
        let woken = Doorbell::default().wait(Some(until), || false);
        assert_eq!(woken, Woken::Timeout);
        assert!(Instant::now() >= until, "it slept as long as it should");
    }

    #[test]
    fn what_is_there_is_seen_without_sleeping() {
        assert_eq!(Doorbell::default().wait(None, || true), Woken::Spun);
    }

    #[test]
    fn a_ring_without_sleepers_wakes_nobody() {
        let bell = Doorbell::default();
        bell.ring();
        assert_eq!(bell.rings(), 0);
    }

    #[test]
    fn every_ping_is_answered() {
        prepare();
        let bells = Arc::new((Doorbell::default(), Doorbell::default(), AtomicU64::new(0)));
        let other = Arc::clone(&bells);
        let answerer = std::thread::spawn(move || {
            for round in 0..2000 {
                other.0.sleep(None, || other.2.load(Ordering::Acquire) == 2 * round + 1);
                other.2.store(2 * round + 2, Ordering::Release);
                other.1.ring();
            }
        });
        for round in 0..2000 {
            bells.2.store(2 * round + 1, Ordering::Release);
            bells.0.ring();
            bells.1.sleep(None, || bells.2.load(Ordering::Acquire) == 2 * round + 2);
        }
        answerer.join().expect("the answerer ends");
    }

    #[test]
    fn one_sleeper_is_woken_by_any_of_its_doorbells() {
        prepare();
        for which in 0..3 {
            let bells = Arc::new([Doorbell::default(), Doorbell::default(), Doorbell::default()]);
            let count = Arc::new(AtomicU64::new(0));
            let (ringers_bells, ringers_count) = (Arc::clone(&bells), Arc::clone(&count));
            let ringer = std::thread::spawn(move || {
                while ringers_bells[which].state.load(Ordering::Relaxed) & ASLEEP == 0 {
                    std::thread::yield_now();
                }
                ringers_count.store(1, Ordering::Release);
                ringers_bells[which].ring();
            });
            let refs: Vec<&Doorbell> = bells.iter().collect();
            assert_eq!(wait_any(&refs, None, || count.load(Ordering::Acquire) == 1), Woken::Rung);
            ringer.join().expect("the ringer ends");
        }
    }

    #[test]
    fn sleepers_who_wait_for_different_things_are_woken_together() {
        prepare();
        let shared = Arc::new((Doorbell::default(), AtomicU64::new(0)));
        let sleepers: Vec<_> = (1..=3)
            .map(|round| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    shared.0.sleep(None, || shared.1.load(Ordering::Acquire) >= round);
                })
            })
            .collect();
        for round in 1..=3 {
            shared.1.store(round, Ordering::Release);
            shared.0.ring_sleepers();
        }
        sleepers.into_iter().for_each(|sleeper| sleeper.join().expect("each has its turn"));
    }

    #[test]
    fn all_sleepers_get_what_one_sleeper_leaves() {
        prepare();
        let shared = Arc::new((Doorbell::default(), AtomicU64::new(0)));
        let take = |shared: &(Doorbell, AtomicU64)| {
            let counted = |n: u64| n.checked_sub(1);
            shared.1.fetch_update(Ordering::AcqRel, Ordering::Acquire, counted).is_ok()
        };
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    shared.0.sleep(None, || take(&shared));
                    if shared.1.load(Ordering::Acquire) > 0 {
                        shared.0.ring();
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            shared.1.fetch_add(1, Ordering::AcqRel);
            shared.0.ring();
        }
        takers.into_iter().for_each(|taker| taker.join().expect("each taker gets one"));
    }
}

#[cfg(loom)]
mod models {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_a_ring_is_not_missed() {
        loom::model(|| {
            let shared = Arc::new((Doorbell::default(), AtomicU32::new(0)));
            let ringer = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    shared.1.store(1, Ordering::Release);
                    shared.0.ring();
                })
            };
            shared.0.sleep(None, || shared.1.load(Ordering::Acquire) == 1);
            ringer.join().expect("the ringer ends");
        });
    }

    /// Neither passes the ring on, and neither stays asleep.
    #[test]
    fn loom_one_ring_wakes_two_sleepers() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let shared = Arc::new((Doorbell::default(), AtomicU32::new(0)));
            let sleeper = |shared: Arc<(Doorbell, AtomicU32)>| {
                move || drop(shared.0.sleep(None, || shared.1.load(Ordering::Acquire) > 0))
            };
            let first = loom::thread::spawn(sleeper(Arc::clone(&shared)));
            let second = loom::thread::spawn(sleeper(Arc::clone(&shared)));
            shared.1.store(1, Ordering::Release);
            shared.0.ring_sleepers();
            first.join().expect("the first ends");
            second.join().expect("the second ends");
        });
    }

    #[test]
    fn loom_two_sleepers_get_two_rings() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let shared = Arc::new((Doorbell::default(), AtomicU32::new(0), AtomicU32::new(0)));
            let sleeper = |shared: Arc<(Doorbell, AtomicU32, AtomicU32)>| {
                move || {
                    shared.0.sleep(None, || shared.1.load(Ordering::Acquire) > 0);
                    shared.2.fetch_add(1, Ordering::AcqRel);
                    shared.0.ring();
                }
            };
            let first = loom::thread::spawn(sleeper(Arc::clone(&shared)));
            let second = loom::thread::spawn(sleeper(Arc::clone(&shared)));
            shared.1.store(1, Ordering::Release);
            shared.0.ring();
            first.join().expect("the first ends");
            second.join().expect("the second ends");
        });
    }
}
