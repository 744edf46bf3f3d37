//! Moments at which the office must act, soonest first.

use crate::schedule::JobId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// The time of a function's attempt is up.
    Timeout(JobId, u32),
    /// A function that was asked to return has not done so.
    Grace(JobId, u32),
    /// A back-off is over.
    Rested(JobId),
}

#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, Due)>>);

impl Timers {
    /// A time that the clock cannot name never comes.
    pub(super) fn add(&mut self, now: Instant, after: Duration, due: Due) {
        self.0.extend(now.checked_add(after).map(|at| Reverse((at, due))));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// One that is due at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, due))| due)
    }
}
