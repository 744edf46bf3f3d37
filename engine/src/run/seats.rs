//! Who is awake: at most as many workers as the batch has threads, and nobody is woken without need.
//!
//! A *seat* is the right to be runnable. A worker takes one when it is woken and gives it up when it finds nothing to
//! do. `state` counts seats taken, among them workers that are *searching*, and holds the *limit*: how many seats may
//! be taken. It is the number of threads, less what tasks outside of the pool hold (processes, say): the office lowers
//! it for them, so that both together never use more cpus than there are.
//!
//! # Protocol
//! - Who publishes work calls [`claim`](Seats::claim): if nobody searches and a seat is free, it takes the seat for
//!   the worker it must then wake. If somebody searches, that worker will find the work.
//! - A worker that finds work stops searching; if it was the last searcher and there is more, it claims a seat for
//!   another worker, so a crowd wakes up one by one.
//! - A worker that leaves gives its seat up *first* and looks once more *afterwards*.
//! - Who raises the limit looks for work afterwards, and claims seats for it.
//! - A worker that finds more seats taken than the limit gives its own up between two nodes.
//! - Who waits for seats lowers the limit *first* and looks afterwards whether they are free; who gives one up does so
//!   *first* and looks afterwards whether somebody waits.
//!
//! Nothing is lost: the publisher stores the work, then reads `state`; the leaver changes `state`, then looks for
//! work. Between each pair stands a full fence, so at least one of them sees the other. (An asymmetric fence would
//! spare the publisher some nanoseconds for each share of up to 32 nodes, and cost every worker at work an interrupt
//! of 10 µs or more, on virtual machines, whenever another one leaves.)

use crate::sync::{AtomicU64, Ordering, fence};

const SEAT: u64 = 1;
const SEARCHER: u64 = 1 << 16;
const LIMIT: u32 = 32;

/// Workers one batch can have.
pub(crate) const WORKERS_MAX: usize = (1 << 15) - 1;

/// The seats of one pool.
pub(crate) struct Seats {
    state: AtomicU64,
    /// The limit while nobody outside of the pool holds cpus.
    max: u32,
}

fn taken(state: u64) -> u32 {
    (state & (SEARCHER - 1)) as u32
}

fn searching(state: u64) -> u32 {
    (state >> 16) as u32 & 0xFFFF
}

fn limit(state: u64) -> u32 {
    (state >> LIMIT) as u32
}

fn with_limit(state: u64, limit: u32) -> u64 {
    (state & ((1 << LIMIT) - 1)) | (u64::from(limit) << LIMIT)
}

impl Seats {
    pub(crate) fn new(max: u32) -> Self {
        Self { state: AtomicU64::new(with_limit(0, max)), max }
    }

    /// After publishing work: true if the caller must wake a worker, for whom a seat is taken now.
    #[inline]
    pub(crate) fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        self.take(1) == 1
    }

    /// After publishing `work` pieces of work at once: how many workers the caller must wake.
    pub(crate) fn claim_many(&self, work: u32) -> u32 {
        fence(Ordering::SeqCst);
        self.take(work)
    }

    /// Takes seats for up to `work` new searchers; those who search already count.
    fn take(&self, work: u32) -> u32 {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let free = limit(state).saturating_sub(taken(state));
            let seats = work.saturating_sub(searching(state)).min(free);
            if seats == 0 {
                return 0;
            }
            let next = state + u64::from(seats) * (SEAT + SEARCHER);
            match self.state.compare_exchange_weak(state, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return seats,
                Err(now) => state = now,
            }
        }
    }

    /// A searcher has found work; true if it was the last one.
    pub(crate) fn found(&self) -> bool {
        searching(self.state.fetch_sub(SEARCHER, Ordering::SeqCst)) == 1
    }

    /// A worker with a seat has run dry and searches.
    pub(crate) fn search(&self) {
        self.state.fetch_add(SEARCHER, Ordering::SeqCst);
    }

    /// A searcher gives up its seat; false if it must stay (and search) because work came in between.
    pub(crate) fn leave(&self, is_work: impl FnOnce() -> bool) -> bool {
        self.state.fetch_sub(SEAT + SEARCHER, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        !(is_work() && self.take(1) == 1)
    }

    // ── cpus for others ─────────────────────────────────────────────────────────────────────────────────────

    /// Lowers (or raises) the limit if no more seats than that are taken.
    pub(crate) fn try_limit(&self, to: u32) -> bool {
        let set = |state| (taken(state) <= to).then(|| with_limit(state, to));
        self.state.fetch_update(Ordering::SeqCst, Ordering::Relaxed, set).is_ok()
    }

    /// Sets the limit, whatever is taken: workers beyond it will give up their seats. Whoever raises it claims seats
    /// for work that waits. True if it was lowered and no more seats are taken: who gave one up before did not see that
    /// it is waited for, so nobody says so any more.
    pub(crate) fn set_limit(&self, to: u32) -> bool {
        let to = to.min(self.max);
        let set = |state| Some(with_limit(state, to));
        let before = self.state.fetch_update(Ordering::SeqCst, Ordering::Relaxed, set);
        before.is_ok_and(|before| to < limit(before) && taken(before) <= to)
    }

    /// Whether more seats are taken than the limit says.
    #[inline(always)]
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        taken(state) > limit(state)
    }

    /// Whether somebody outside of the pool holds cpus, or waits for some.
    pub(crate) fn are_limited(&self) -> bool {
        limit(self.state.load(Ordering::SeqCst)) < self.max
    }

    /// A worker gives up its seat if the limit asks for it; true if it did.
    pub(crate) fn give_way(&self) -> bool {
        let set = |state| (taken(state) > limit(state)).then(|| state - SEAT);
        self.state.fetch_update(Ordering::SeqCst, Ordering::Relaxed, set).is_ok()
    }

    /// A worker that waits inside a body gives up its seat for as long as it sleeps.
    pub(crate) fn lend(&self) {
        self.state.fetch_sub(SEAT, Ordering::SeqCst);
    }

    /// The worker goes on, whatever the limit is: its body has begun.
    pub(crate) fn take_back(&self) {
        self.state.fetch_add(SEAT, Ordering::SeqCst);
    }

    /// Seats that are free, or whose workers search.
    pub(crate) fn idle(&self) -> u32 {
        let state = self.state.load(Ordering::Relaxed);
        (limit(state) + searching(state)).saturating_sub(taken(state))
    }

    /// Seats taken: workers that may be runnable.
    pub(crate) fn awake(&self) -> u32 {
        taken(self.state.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(loom))]
    #[test]
    fn seats_are_bounded_and_searchers_count() {
        let seats = Seats::new(2);
        assert!(seats.claim(), "a seat is free");
        assert!(!seats.claim(), "somebody searches");
        assert!(seats.found(), "it was the only searcher");
        assert!(seats.claim(), "the other seat");
        assert!(seats.found());
        assert!(!seats.claim(), "no seat is left");
        assert_eq!(seats.claim_many(5), 0);
        seats.search();
        assert!(seats.leave(|| false));
        assert_eq!(seats.awake(), 1);
        assert_eq!(seats.claim_many(5), 1);
    }

    /// One publisher, one worker that leaves: the work is either seen by the leaver, or the publisher wakes someone.
    #[cfg(loom)]
    #[test]
    fn loom_no_wakeup_is_lost() {
        use crate::sync::AtomicBool;
        use loom::sync::Arc;
        loom::model(|| {
            let seats = Arc::new(Seats::new(1));
            let work = Arc::new(AtomicBool::new(false));
            assert_eq!(seats.claim_many(1), 1);
            let leaver = {
                let (seats, work) = (Arc::clone(&seats), Arc::clone(&work));
                loom::thread::spawn(move || !seats.leave(|| work.load(Ordering::Relaxed)))
            };
            work.store(true, Ordering::Relaxed);
            let woke = seats.claim();
            let stayed = leaver.join().expect("the leaver ends");
            assert!(woke || stayed, "nobody runs the work");
            assert_eq!(seats.awake(), 1);
        });
    }

    /// Cpus go to somebody outside while work is published: both never hold more than there are, and the work is either
    /// claimed for or found by whoever raises the limit again.
    #[cfg(loom)]
    #[test]
    fn loom_the_limit_holds_against_claims() {
        use crate::sync::AtomicBool;
        use loom::sync::Arc;
        loom::model(|| {
            let seats = Arc::new(Seats::new(1));
            let work = Arc::new(AtomicBool::new(false));
            let outside = {
                let (seats, work) = (Arc::clone(&seats), Arc::clone(&work));
                loom::thread::spawn(move || {
                    if !seats.try_limit(0) {
                        return false;
                    }
                    assert_eq!(seats.awake(), 0, "a worker is awake on a cpu that is not the pool's");
                    seats.set_limit(1);
                    fence(Ordering::SeqCst);
                    work.load(Ordering::Relaxed) && seats.take(1) == 1
                })
            };
            work.store(true, Ordering::Relaxed);
            let woke = seats.claim();
            let woke_later = outside.join().expect("it gives the cpu back");
            assert!(woke || woke_later, "nobody runs the work");
            assert_eq!(seats.awake(), 1);
        });
    }

    /// A worker leaves while somebody outside finds no cpu free and lowers the limit: one of them sees the other.
    #[cfg(loom)]
    #[test]
    fn loom_who_waits_for_a_seat_hears_of_it() {
        use loom::sync::Arc;
        loom::model(|| {
            let seats = Arc::new(Seats::new(1));
            assert_eq!(seats.claim_many(1), 1);
            let leaver = {
                let seats = Arc::clone(&seats);
                loom::thread::spawn(move || seats.leave(|| false) && seats.are_limited())
            };
            let has = seats.try_limit(0) || seats.set_limit(0) && seats.try_limit(0);
            let is_told = leaver.join().expect("the leaver ends");
            assert!(has || is_told, "the seat is free, and nobody takes it");
        });
    }

    /// Two publishers and one leaver on two seats: never more seats than there are, never all asleep.
    #[cfg(loom)]
    #[test]
    fn loom_seats_never_exceed_the_bound() {
        use crate::sync::AtomicU32;
        use loom::sync::Arc;
        loom::model(|| {
            let seats = Arc::new(Seats::new(2));
            let work = Arc::new(AtomicU32::new(0));
            assert_eq!(seats.claim_many(1), 1);
            let publish = |seats: &Seats, work: &AtomicU32| {
                work.fetch_add(1, Ordering::Relaxed);
                let _ = seats.claim();
                assert!(seats.awake() <= 2);
            };
            let other = {
                let (seats, work) = (Arc::clone(&seats), Arc::clone(&work));
                loom::thread::spawn(move || publish(&seats, &work))
            };
            publish(&seats, &work);
            let _ = seats.leave(|| work.load(Ordering::Relaxed) > 0);
            other.join().expect("the publisher ends");
            assert!(seats.awake() >= 1, "work is there and everybody sleeps");
            assert!(seats.awake() <= 2);
        });
    }
}
