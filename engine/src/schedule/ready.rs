//! The ready counters: how many sources each node still waits for.
//!
//! # Protocol
//! - At rest every counter holds its node's in-degree; the worker that finds the last arrival stores it there again,
//!   so a graph can be run again without a pass over the counters.
//! - A worker that ends a node *arrives* once at each target. Arrivals of one node are ordered by the counter: each
//!   is a read-modify-write (acquire and release), but the last one may be a plain load that reads 1, since nobody
//!   else will touch the counter in this run; its acquire pairs with the releases before it.
//! - If the source failed and the edge says that the target needs it, the worker first sets [`POISON`]. Poison is
//!   seen by the last arrival, whoever makes it, because it is a bit of the counter itself: a healthy run never looks
//!   for failures.
//!
//! Nothing is lost: every edge arrives exactly once per run, and exactly one arrival finds 1 (or 1 with poison).

use crate::sync::{AtomicU32, Ordering};

/// Set in a counter when a source that the node needs has not succeeded.
const POISON: u32 = 1 << 31;

/// What an arrival found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// Others are still to come.
    Early,
    /// It was the last; the node can run.
    Ready,
    /// It was the last; a source failed, so the node is skipped.
    Poisoned,
}

/// One counter per node.
pub(crate) struct Ready {
    counters: Box<[AtomicU32]>,
}

impl Ready {
    pub(crate) fn new(in_degrees: impl Iterator<Item = u32>) -> Self {
        Self { counters: in_degrees.map(AtomicU32::new).collect() }
    }

    /// One source of `node` has ended.
    #[inline(always)]
    pub(crate) fn arrive(&self, node: u32, in_degree: impl FnOnce() -> u32) -> Arrival {
        let counter = &self.counters[node as usize];
        let before = match counter.load(Ordering::Acquire) {
            1 => 1,
            _ => counter.fetch_sub(1, Ordering::AcqRel),
        };
        let arrival = match before {
            1 => Arrival::Ready,
            more if more == 1 | POISON => Arrival::Poisoned,
            _ => return Arrival::Early,
        };
        counter.store(in_degree(), Ordering::Relaxed);
        arrival
    }

    /// A source that `node` needs has failed or was skipped; to be followed by [`arrive`](Self::arrive).
    pub(crate) fn poison(&self, node: u32) {
        self.counters[node as usize].fetch_or(POISON, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use crate::sync::AtomicBool;
    use loom::sync::Arc;

    /// Three sources end on three threads: one of them finds the node ready, sees what all of them wrote, and leaves
    /// the counter as it was at rest.
    #[test]
    fn loom_the_last_arrival_sees_all_sources() {
        loom::model(|| {
            let ready = Arc::new(Ready::new([3].into_iter()));
            let data = Arc::new([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)]);
            let end = |i: usize, ready: &Ready, data: &[AtomicU32; 3]| {
                data[i].store(1, Ordering::Relaxed);
                if ready.arrive(0, || 3) != Arrival::Ready {
                    return false;
                }
                assert!(data.iter().all(|d| d.load(Ordering::Relaxed) == 1), "a source's write is missing");
                true
            };
            let threads: Vec<_> = (1..3)
                .map(|i| {
                    let (ready, data) = (Arc::clone(&ready), Arc::clone(&data));
                    loom::thread::spawn(move || end(i, &ready, &data))
                })
                .collect();
            let mut found = u32::from(end(0, &ready, &data));
            for thread in threads {
                found += u32::from(thread.join().expect("a source ends"));
            }
            assert_eq!(found, 1, "exactly one arrival is the last");
            assert_eq!(ready.counters[0].load(Ordering::Relaxed), 3, "the counter is at rest again");
        });
    }

    /// One of two sources fails: whoever is last sees it, and the poison does not outlive the run.
    #[test]
    fn loom_poison_reaches_the_last_arrival() {
        loom::model(|| {
            let ready = Arc::new(Ready::new([2].into_iter()));
            let skipped = Arc::new(AtomicBool::new(false));
            let see = |arrival: Arrival, skipped: &AtomicBool| match arrival {
                Arrival::Early => {}
                Arrival::Ready => panic!("the failure of a source was lost"),
                Arrival::Poisoned => skipped.store(true, Ordering::Relaxed),
            };
            let other = {
                let (ready, skipped) = (Arc::clone(&ready), Arc::clone(&skipped));
                loom::thread::spawn(move || {
                    ready.poison(0);
                    see(ready.arrive(0, || 2), &skipped);
                })
            };
            see(ready.arrive(0, || 2), &skipped);
            other.join().expect("a source ends");
            assert!(skipped.load(Ordering::Relaxed));
            assert_eq!(ready.counters[0].load(Ordering::Relaxed), 2, "the counter is at rest again");
        });
    }
}
