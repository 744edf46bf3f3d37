//! At home: the part of a list that one rank has, and how what its tasks gave comes into their records here.

use super::seats::Holder;
use crate::error::Failure;
use crate::task::output::Output;
use crate::task::record::{Ref, state};
use parking_lot::RwLock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tarragon_transport::Rank;

/// The part of one seat: its tasks in order.
pub(super) struct Away {
    /// The rank that it was cut for.
    pub(super) seat: u16,
    holder: RwLock<Holder>,
    /// Where they are in the list.
    pub(super) places: Box<[u32]>,
    /// Kept by the plan.
    pub(super) tasks: Box<[Ref]>,
}

impl Away {
    pub(super) fn new(rank: Rank, list: u64, places: &[u32], tasks: impl Iterator<Item = Ref>) -> Self {
        let holder = RwLock::new(Holder { rank: rank.0, list });
        Self { seat: rank.0 as u16, holder, places: places.into(), tasks: tasks.collect() }
    }

    /// Who has it.
    pub(super) fn holder(&self) -> Holder {
        *self.holder.read()
    }

    pub(super) fn rank(&self) -> Rank {
        Rank(self.holder().rank)
    }

    /// It goes to another rank.
    pub(super) fn goes_to(&self, holder: Holder) {
        *self.holder.write() = holder;
    }
}

/// Puts a value that came from elsewhere in place; false if the bytes are none. Nothing if the task has ended.
pub(super) fn arrive(task: Ref, parity: u8, value: &[u8]) -> bool {
    if task.has_ended(parity) {
        return true;
    }
    task.drop_value_if_done();
    // What serde does for the user's type is the user's code.
    if !catch_unwind(AssertUnwindSafe(|| task.unpack_value(value))).unwrap_or(false) {
        return false;
    }
    let head = task.head();
    head.status.store(state::DONE | parity, Ordering::Release);
    if head.code.value_needs_drop && task.handles() == 0 && head.uses.load(Ordering::Acquire) == 0 {
        task.drop_value_if_done();
    }
    task.shared().awaited.ended(task);
    true
}

/// What a task wrote that did not succeed is told with its error.
pub(super) fn keep_output(task: Ref, wrote: &str) {
    if let Some(cohort) = task.cohort().filter(|_| !wrote.is_empty()) {
        cohort.keep_output(task.index(), Output::of_text(wrote));
    }
}

/// A task elsewhere did not succeed, which is found out when its run may be over.
pub(super) fn fail(task: Ref, parity: u8, failure: Arc<Failure>, skipped: bool) {
    if task.has_ended(parity) {
        return;
    }
    if let Some(cohort) = task.cohort() {
        cohort.note_failure(task.index(), failure);
    }
    end(task, parity, if skipped { state::SKIPPED } else { state::FAILED });
}

pub(super) fn end(task: Ref, parity: u8, kind: u8) {
    if !task.has_ended(parity) {
        task.head().status.store(kind | parity, Ordering::Release);
        task.shared().awaited.ended(task);
    }
}
