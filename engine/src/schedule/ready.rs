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
