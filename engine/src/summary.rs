//! How good a run was: work, critical path, what was possible and what was reached.

use crate::plan::Plan;
use crate::run::{Measured, Timed};
use std::fmt;
use std::time::Duration;

/// Figures of one run. Displays as a few lines of text.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Tasks in the list.
    pub tasks: usize,
    /// Workers of the batch, on all ranks.
    pub workers: usize,
    /// Ranks that they are on.
    pub ranks: usize,
    /// T1: the sum of all bodies' durations, by the wall clock: with more workers than free CPUs it counts the time
    /// that bodies wait for a CPU, too.
    pub work: Duration,
    /// T∞: the longest sum of durations along any path of the graph.
    pub critical_path: Duration,
    /// Names of the tasks on that path, in order.
    pub critical_tasks: Vec<String>,
    /// From start to the end of the last task.
    pub wall: Duration,
}

impl Summary {
    pub(crate) fn new(plan: &Plan, measured: &Measured) -> Self {
        let nanoseconds = |n: u64| Duration::from_nanos(n);
        let (longest, path) =
            plan.whole().frozen().csr.critical_path(|node| measured.nodes[node as usize].took() as f64);
        let list = plan.indexed();
        let others = measured.others.as_ref().map_or(&[][..], |others| &others.workers);
        let name = |node: &u32| {
            let index = plan.whole().task(*node);
            let at = list.binary_search_by_key(&index, |(index, _)| *index).ok()?;
            Some(list[at].1.name())
        };
        Self {
            tasks: list.len(),
            workers: plan.shared.executor.workers() + others.iter().map(|n| *n as usize).sum::<usize>(),
            ranks: others.len() + 1,
            work: nanoseconds(measured.nodes.iter().map(Timed::took).fold(0, u64::saturating_add)),
            critical_path: nanoseconds(longest as u64),
            critical_tasks: path.iter().filter_map(name).collect(),
            wall: measured.wall,
        }
    }

    /// T1 divided by the time it took.
    pub fn speed_up(&self) -> f64 {
        self.work.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// The speed-up no schedule can exceed: the workers, or T1 divided by the critical path if that is less.
    pub fn bound(&self) -> f64 {
        let parallelism = self.work.as_secs_f64() / self.critical_path.as_secs_f64().max(1e-9);
        parallelism.min(self.workers as f64)
    }

    /// The part of the bound that was reached, 0 to 1 (timer noise can exceed it a little).
    pub fn achieved(&self) -> f64 {
        self.speed_up() / self.bound().max(1e-9)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tasks          {}", self.tasks)?;
        writeln!(f, "T1 (work)      {:.3?}", self.work)?;
        let n = self.critical_tasks.len();
        writeln!(f, "critical path  {:.3?} over {n} tasks", self.critical_path)?;
        write!(f, "wall time      {:.3?} on {} workers", self.wall, self.workers)?;
        writeln!(f, "{}", if self.ranks > 1 { format!(" of {} ranks", self.ranks) } else { String::new() })?;
        let (up, bound) = (self.speed_up(), self.bound());
        write!(f, "speed-up       {up:.2} of at most {bound:.2} ({:.0} %)", 100.0 * self.achieved())
    }
}
