//! The reference: every node in execution order, on one thread, without counters or atomics of its own.
//!
//! Execution order is a topological order, so nothing needs to be counted; failures are remembered only once there
//! is one.

use super::node::{Ran, Run};
use crate::body::inside;
use crate::graph::NEEDS;
use crate::task::chunk::Compact;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    /// Serial runs under way on this thread, one inside the other.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs everything, then ends the run.
pub(super) fn execute(run: &Arc<Run>) {
    DEPTH.set(DEPTH.get() + 1);
    inside::waits(|| walk(run));
    run.finish();
    DEPTH.set(DEPTH.get() - 1);
}

/// Whether this thread is inside a serial run.
pub(super) fn is_inside() -> bool {
    DEPTH.get() > 0
}

/// Runs every node.
pub(super) fn walk(run: &Run) {
    let plan = &*run.plan;
    for (node, place) in plan.records.iter().enumerate() {
        let node = node as u32;
        let ran = match run.blame_of(node) {
            None if *place == Compact::NONE => run.execute(node),
            None => run.execute_task(node, plan.chunks.resolve(*place)),
            Some(why) => Ran::Failed(run.skip(node, why)),
        };
        let failure = match ran {
            Ran::Done => None,
            Ran::Failed(failure) => Some(failure),
            Ran::Away => run.wait_for_attended(),
        };
        if let Some(failure) = failure {
            let needing = run.plan.graph.frozen().csr.targets(node).iter().filter(|t| *t & NEEDS != 0);
            needing.for_each(|t| run.blame(t & !NEEDS, Some(node), Arc::clone(&failure)));
        }
    }
}
