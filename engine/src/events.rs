//! What happens in a batch, as `tracing` events for whoever listens. Only what is rare is told: a task that succeeds
//! passes none of these.
//!
//! All events have the target `tarragon`. Without a subscriber each costs one load; where counting is more than that,
//! it is done only when somebody listens.

use crate::error::{Cause, Failure};
use crate::plan::Plan;
use crate::task::record::Ref;
use std::fmt::Display;
use std::time::Duration;
use tracing::{Level, debug, enabled, trace, warn};

pub(crate) fn batch_opened(workers: usize, cpus: u32) {
    debug!(target: "tarragon", workers, cpus, "batch opened");
}

pub(crate) fn batch_closed() {
    debug!(target: "tarragon", "batch closed");
}

pub(crate) fn run_started(plan: &Plan) {
    if enabled!(target: "tarragon", Level::DEBUG) {
        debug!(target: "tarragon", tasks = plan.tasks().count(), "run started");
    }
}

/// Failed are those that did not succeed, skipped ones among them.
pub(crate) fn run_ended(plan: &Plan, wall: Duration) {
    if enabled!(target: "tarragon", Level::DEBUG) {
        let failed: usize = plan.cohorts().iter().map(|cohort| cohort.failures_len()).sum();
        let tasks = plan.tasks().count();
        debug!(target: "tarragon", tasks, failed, wall_ms = wall.as_millis() as u64, "run ended");
    }
}

/// A task did not succeed.
#[cold]
pub(crate) fn not_done(failure: &Failure) {
    let (index, task) = (failure.index, failure.name.as_str());
    match &failure.cause {
        Cause::Upstream(_) => debug!(target: "tarragon", index, task, "task skipped"),
        Cause::Cancelled => debug!(target: "tarragon", index, task, "task cancelled before it began"),
        cause => warn!(target: "tarragon", index, task, attempts = failure.attempts, %cause, "task failed"),
    }
}

/// Attempt number `attempt` of a task failed, and another follows.
#[cold]
pub(crate) fn retried(task: Ref, attempt: u32, delay: Duration) {
    if enabled!(target: "tarragon", Level::WARN) {
        let (index, name, delay_ms) = (task.index(), task.name(), delay.as_millis() as u64);
        warn!(target: "tarragon", index, task = name, attempt, delay_ms, "task failed and is tried again");
    }
}

/// A function was asked to return, because its time is up.
#[cold]
pub(crate) fn over_time(task: Ref, attempt: u32) {
    if enabled!(target: "tarragon", Level::WARN) {
        warn!(target: "tarragon", index = task.index(), task = task.name(), attempt, "task is over its timeout");
    }
}

/// A function that was asked to return is left to itself.
#[cold]
pub(crate) fn given_up(task: Ref) {
    if enabled!(target: "tarragon", Level::WARN) {
        warn!(target: "tarragon", index = task.index(), task = task.name(), "body ignores its timeout and is given up");
    }
}

/// A run, or one task of it, is to stop.
#[cold]
pub(crate) fn cancelled(task: Option<Ref>) {
    if !enabled!(target: "tarragon", Level::DEBUG) {
        return;
    }
    match task {
        None => debug!(target: "tarragon", "run cancelled"),
        Some(task) => debug!(target: "tarragon", index = task.index(), task = task.name(), "task cancelled"),
    }
}

#[cold]
pub(crate) fn could_not_start(why: &dyn Display) {
    warn!(target: "tarragon", %why, "process could not start");
}

#[cold]
pub(crate) fn supervisor_started() {
    debug!(target: "tarragon", "supervisor started");
}

#[cold]
pub(crate) fn supervisor_lost() {
    warn!(target: "tarragon", "supervisor lost: its processes were killed");
}

pub(crate) fn flushed(tasks: usize) {
    trace!(target: "tarragon", tasks, "queue compiled and started");
}
