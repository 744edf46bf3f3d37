//! What of a part has run before, on a rank that is lost: its tasks are passed over, or fail, instead of running once
//! more (see `ranks::loss`).

use crate::error::{Cause, Failure};
use crate::task::record::Ref;
use std::sync::Arc;

/// By node how a part that was another rank's is run.
pub(crate) struct Past {
    nodes: Box<[How]>,
    lost: u32,
    host: String,
    why: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// As if it were new.
    Runs,
    /// It has run, and nobody needs what it gave.
    IsOver,
    /// Somebody needs what it gave, and it must not run again.
    IsSpoilt,
}

impl Past {
    /// Of a part of so many nodes, that was that rank's.
    pub(crate) fn new(nodes: usize, lost: u32, host: String, why: String) -> Self {
        Self { nodes: vec![How::Runs; nodes].into(), lost, host, why }
    }

    /// A node has run, and nobody needs what it gave.
    pub(crate) fn is_over(&mut self, node: u32) {
        self.set(node, How::IsOver);
    }

    /// What a node gave is needed, and it must not run again.
    pub(crate) fn is_spoilt(&mut self, node: u32) {
        self.set(node, How::IsSpoilt);
    }

    fn set(&mut self, node: u32, how: How) {
        if let Some(place) = self.nodes.get_mut(node as usize) {
            *place = how;
        }
    }

    /// Whether a node does not run.
    pub(crate) fn has(&self, node: u32) -> bool {
        self.nodes.get(node as usize).is_some_and(|how| *how != How::Runs)
    }

    /// Whether a node has run and nobody needs what it gave.
    pub(crate) fn has_ended(&self, node: u32) -> bool {
        self.nodes.get(node as usize) == Some(&How::IsOver)
    }

    /// What a task gave, which does not run again, is gone.
    pub(crate) fn failure(&self, task: Ref) -> Arc<Failure> {
        let why = format!(
            "{}; what the task had given there is gone, and it is not run again, since data that it reads or writes \
             may have changed: run the list again",
            self.why
        );
        let cause = Cause::RankLost { rank: self.lost, host: self.host.clone(), why };
        Failure::of(task.name(), task.index(), 1, self.lost, cause)
    }
}
