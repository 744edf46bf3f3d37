//! Counting what is done: `task_done` and `join`, as in Python.
//!
//! What was put is counted by the rings' tickets, what is done by one word that only rises by single instructions. So
//! no death can leave the counts wrong. An item whose taker died before `task_done` stays undone.

use crate::error::Error;
use crate::layout::{Attached, DESTROYED, View};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tarragon_transport::doorbell::{NAP_MS, Woken};

impl Attached {
    pub(crate) fn task_done(&self) -> Result<(), Error> {
        let view = self.view();
        let done = &view.control.done.0;
        let mut before = done.load(Ordering::Acquire);
        loop {
            let (put, _) = view.counts();
            if before >= put {
                return Err(Error::NotTaken { put });
            }
            match done.compare_exchange(before, before + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if before + 1 == view.counts().0 => {
                    view.control.finished.ring_all();
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(now) => before = now,
            }
        }
    }

    /// Waits until all items are done.
    pub(crate) fn join(&self, until: Option<Instant>) -> Result<(), Error> {
        let view = self.view();
        loop {
            // The counts of a dead producer are right only after it is settled.
            if view.left() == 0 && (self.segment.recover(&view) == 0 || view.left() == 0) {
                return Ok(());
            }
            if view.state() == DESTROYED {
                return Err(Error::Destroyed);
            }
            let nap = Instant::now() + Duration::from_millis(NAP_MS);
            let end = until.map_or(nap, |until| until.min(nap));
            let woken =
                view.control.finished.wait(Some(end), || view.left() == 0 || view.state() == DESTROYED);
            if woken == Woken::Timeout && until.is_some_and(|until| Instant::now() >= until) {
                return Err(Error::Unfinished { left: view.left() });
            }
        }
    }
}

impl View<'_> {
    /// Items put and not done.
    fn left(&self) -> u64 {
        // Before the count of what was put, which only rises: so the difference is never too small.
        let done = self.control.done.0.load(Ordering::Acquire);
        self.counts().0.saturating_sub(done)
    }
}
