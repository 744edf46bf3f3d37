//! Memory limits: trees that use too much are killed at once. Where a tree has a cgroup, the kernel keeps the limit,
//! and is asked whether it had to; else the resident memory of its processes is added up, which counts pages that they
//! share more than once.

use std::time::Duration;

use super::{NEVER, Server, now_ns};
use crate::proc::Scan;
use crate::request::Why;

/// The pause between two looks.
const PAUSE_NS: u64 = 50_000_000;
/// The pause after a look, in units of its cost.
const PAUSE_COSTS: u64 = 10;

/// When to look at memory.
pub(super) struct Clock {
    due_ns: u64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { due_ns: NEVER }
    }
}

impl Clock {
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Notes that a process with a limit has started.
    pub(super) fn wake(&mut self, now: u64) {
        self.due_ns = self.due_ns.min(now + PAUSE_NS);
    }
}

impl Server {
    /// Kills the trees that use more than they may.
    pub(super) fn sample_memory(&mut self) {
        let began_ns = now_ns();
        let limited = self.tasks.iter().filter(|(_, task)| task.ending.is_none());
        let limited = limited.filter_map(|(id, task)| Some((id, task.memory_bytes?, task.group.as_ref())));
        let (grouped, sampled): (Vec<_>, Vec<_>) = limited.partition(|(_, _, group)| group.is_some());
        self.sampling.due_ns = NEVER;
        if grouped.is_empty() && sampled.is_empty() {
            return;
        }
        let mut over: Vec<u64> = Vec::new();
        over.extend(
            grouped.iter().filter(|(_, _, group)| group.is_some_and(|it| it.was_over())).map(|it| it.0),
        );
        if !sampled.is_empty() {
            let scan = Scan::take();
            let orphans = self.orphans(&scan);
            let page = rustix::param::page_size() as u64;
            for (id, limit, _) in sampled {
                let tree = self.tree(&scan, &orphans, id);
                let pages: u64 = tree.iter().map(|process| process.resident_pages()).sum();
                over.extend((pages * page > limit).then_some(id));
            }
        }
        for id in over {
            self.kill(id, Duration::ZERO, Why::OverMemory);
        }
        let now = now_ns();
        self.sampling.due_ns = now + PAUSE_NS.max(PAUSE_COSTS * (now - began_ns));
    }
}
