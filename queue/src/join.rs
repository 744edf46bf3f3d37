//! Counting what is done: `task_done` and `join`, as in Python.
//!
//! What was put is counted by the rings' tickets, what is done by one word that only rises by single instructions. So
//! no death can leave the counts wrong. An item whose taker died before `task_done` is over when that death is noticed,
//! see `tally`; `join` asks for deaths at each nap, and tells how many such items there were.

use crate::error::Error;
use crate::layout::{Attached, DESTROYED, View};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tarragon_transport::doorbell::{NAP_MS, Woken};

impl Attached {
    pub(crate) fn task_done(&self) -> Result<(), Error> {
        let view = self.view();
        let agent = self.segment.agent()?;
        loop {
            let done = view.control.done();
            let over = done + view.control.lost();
            let (put, _) = view.counts();
            if over >= put {
                return if view.control.forgive() { Ok(()) } else { Err(Error::NotTaken { put }) };
            }
            if view.raise_done(&agent, done) {
                if view.left() == 0 {
                    view.control.finished.ring_all();
                }
                return Ok(());
            }
        }
    }

    /// Waits until all items are done.
    pub(crate) fn join(&self, until: Option<Instant>) -> Result<(), Error> {
        let view = self.view();
        let told = view.control.reported.load(Ordering::Acquire);
        loop {
            // The counts of a dead producer are right only after it is settled.
            if view.left() == 0 && (self.segment.recover(&view) == 0 || view.left() == 0) {
                return view.tell_lost(told);
            }
            if view.state() == DESTROYED {
                return Err(Error::Destroyed);
            }
            let nap = Instant::now() + Duration::from_millis(NAP_MS);
            let end = until.map_or(nap, |until| until.min(nap));
            let woken =
                view.control.finished.wait(Some(end), || view.left() == 0 || view.state() == DESTROYED);
            if woken == Woken::Timeout && self.segment.recover(&view) > 0 {
                continue;
            }
            if woken == Woken::Timeout && until.is_some_and(|until| Instant::now() >= until) {
                return Err(Error::Unfinished { left: view.left() });
            }
        }
    }
}

impl View<'_> {
    /// Items put and not over.
    pub(crate) fn left(&self) -> u64 {
        // Before the count of what was put, which only rises: so the difference is never too small.
        let over = self.control.done() + self.control.lost();
        self.counts().0.saturating_sub(over)
    }

    /// Tells what was lost beyond `told`.
    pub(crate) fn tell_lost(&self, told: u64) -> Result<(), Error> {
        let lost = self.control.lost() + self.control.abandoned.load(Ordering::Acquire);
        self.control.reported.fetch_max(lost, Ordering::AcqRel);
        if lost > told { Err(Error::Abandoned { items: lost - told }) } else { Ok(()) }
    }
}
