//! One run of a plan, and what it means to run one of its nodes: call the body, publish how it ended, or skip it.

use crate::body::{Call, Verdict};
use crate::error::{Cause, Failure};
use crate::plan::{Owned, Plan};
use crate::task::record::{Ref, state};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One run of a plan.
pub(crate) struct Run {
    pub(crate) plan: Arc<Plan>,
    /// Keeps the plan's tasks until the run has ended.
    owner: Mutex<Option<Owned>>,
    /// No other run will follow.
    once: bool,
    /// The parity of all tasks, if they are of one cohort.
    parity: Option<u8>,
    /// Some node was blamed for something, so nodes must be looked up before they run.
    blamed: AtomicBool,
    /// Nodes that must be skipped, and why: of several reasons the one that a serial run would meet first.
    blames: Mutex<HashMap<u32, Blame>>,
    /// Place of the next root nobody has taken.
    pub(super) cursor: AtomicU32,
    /// Nodes that have ended, as far as workers have reported.
    pub(super) ended: AtomicU32,
    durations: Option<Box<[AtomicU64]>>,
    started: Instant,
}

/// Why a node is skipped. What decides between two is known before the run: outside failures go first, then the node
/// that failed, then the one it is passed on by.
struct Blame {
    root: Option<u32>,
    from: Option<u32>,
    failure: Arc<Failure>,
}

/// How long each node of a run took, in nanoseconds, and the run as a whole.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) nodes: Box<[u64]>,
    pub(crate) wall: Duration,
}

impl Run {
    pub(crate) fn new(owned: Owned, once: bool) -> Self {
        let plan = Arc::clone(owned.plan());
        let n = plan.graph.len();
        let durations = plan.shared.timing.then(|| (0..n).map(|_| AtomicU64::new(0)).collect());
        Self {
            once,
            parity: plan.members.is_empty().then(|| plan.cohort.parity()),
            blamed: AtomicBool::new(false),
            blames: Mutex::default(),
            cursor: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            durations,
            started: Instant::now(),
            owner: Mutex::new(Some(owned)),
            plan,
        }
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> u32 {
        self.plan.graph.len()
    }

    /// The node must be skipped because of `failure`, which came `from` a node, or from outside of the list.
    pub(crate) fn blame(&self, node: u32, from: Option<u32>, failure: Arc<Failure>) {
        let mut blames = self.blames.lock();
        let root = from.and_then(|from| blames.get(&from).map_or(Some(from), |why| why.root));
        match blames.get_mut(&node) {
            Some(first) if (first.root, first.from) <= (root, from) => {}
            Some(later) => *later = Blame { root, from, failure },
            None => drop(blames.insert(node, Blame { root, from, failure })),
        }
        drop(blames);
        self.blamed.store(true, Ordering::Release);
    }

    /// Why a node must be skipped, if it must. Roots are asked this; others carry poison in their counters.
    #[inline(always)]
    pub(super) fn blame_of(&self, node: u32) -> Option<Arc<Failure>> {
        if !self.blamed.load(Ordering::Relaxed) {
            return None;
        }
        self.blames.lock().get(&node).map(|why| Arc::clone(&why.failure))
    }

    /// Nodes that must be skipped.
    pub(super) fn blamed_nodes(&self) -> Vec<u32> {
        if !self.blamed.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.blames.lock().keys().copied().collect()
    }

    /// A root as a worker takes it: marked if it is to be skipped.
    #[inline]
    pub(super) fn root(&self, node: u32) -> u32 {
        if self.blame_of(node).is_some() { node | super::worker::POISONED } else { node }
    }

    /// Runs a node's body; what its dependents are to be blamed for, if it did not succeed.
    #[inline(always)]
    pub(super) fn execute(&self, node: u32) -> Option<Arc<Failure>> {
        self.execute_task(node, self.plan.record(node)?)
    }

    /// As [`execute`](Self::execute), for a node whose record is at hand.
    #[inline(always)]
    pub(super) fn execute_task(&self, node: u32, task: Ref) -> Option<Arc<Failure>> {
        let head = task.head();
        let keeps_value = !task.is_plain() && head.code.value_needs_drop;
        if keeps_value {
            task.drop_value_if_done();
        }
        let parity = self.parity(task);
        head.status.store(state::RUNNING | parity, Ordering::Relaxed);
        let call = Call { shared: &self.plan.shared, once: self.once };
        let verdict = match &self.durations {
            None => task.call(&call),
            Some(durations) => {
                let before = Instant::now();
                let verdict = task.call(&call);
                durations[node as usize].store(before.elapsed().as_nanos() as u64, Ordering::Relaxed);
                verdict
            }
        };
        match verdict {
            Verdict::Done => {
                head.status.store(state::DONE | parity, Ordering::Release);
                if keeps_value && task.handles() == 0 && head.uses.load(Ordering::Acquire) == 0 {
                    task.drop_value_if_done();
                }
                self.plan.shared.awaited.ended(task);
                None
            }
            Verdict::Failed(cause) => Some(self.failed(task, *cause, parity, state::FAILED)),
        }
    }

    /// Passes over a node that needs something that failed.
    #[cold]
    pub(super) fn skip(&self, node: u32, why: Arc<Failure>) -> Arc<Failure> {
        let Some(task) = self.plan.record(node) else { return why };
        if task.head().code.value_needs_drop {
            task.drop_value_if_done();
        }
        task.pass();
        self.failed(task, Cause::Upstream(why), self.parity(task), state::SKIPPED)
    }

    #[cold]
    fn failed(&self, task: Ref, cause: Cause, parity: u8, status: u8) -> Arc<Failure> {
        let index = task.index();
        let failure = Arc::new(Failure { name: task.name(), index, cause });
        let cohort = task.cohort().expect("a task that runs has a cohort");
        cohort.note_failure(index, Arc::clone(&failure));
        task.head().status.store(status | parity, Ordering::Release);
        self.plan.shared.awaited.ended(task);
        failure
    }

    /// The parity of the task's cohort in this run.
    #[inline(always)]
    fn parity(&self, task: Ref) -> u8 {
        match self.parity {
            Some(parity) => parity,
            None => task.cohort().expect("a task that runs has a cohort").parity(),
        }
    }

    /// All nodes have ended; called once, by whoever found that out. Afterwards the plan may run again.
    pub(super) fn finish(&self) {
        if let Some(durations) = &self.durations {
            let nodes = durations.iter().map(|d| d.load(Ordering::Relaxed)).collect();
            *self.plan.measured.lock() = Some(Measured { nodes, wall: self.started.elapsed() });
        }
        let last = self.owner.lock().take().and_then(Owned::let_go);
        self.plan.ended();
        // Nobody else owns the plan, so nobody can start it again: its tasks can go.
        drop(last);
        self.plan.shared.run_ended();
    }
}
