//! One run of a plan, and what it means to run one of its nodes: call the body, publish how it ended, or skip it.

use super::measured::{Span, monotonic_ns};
use super::past::Past;
use super::retry;
use super::stop::Stop;
use crate::body::{Call, Verdict};
use crate::error::{Cause, Failure};
use crate::events;
use crate::function::arg::Moves;
use crate::plan::{Owned, Plan};
use crate::ranks::Side;
use crate::resume::Ledger;
use crate::task::record::{Ref, state};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

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
    pub(super) spans: Option<Box<[Span]>>,
    started: Instant,
    /// About the same moment by the monotonic clock, as the supervisor tells times, from which tasks are measured; 0
    /// unless the batch measures.
    pub(super) started_ns: u64,
    /// What of it is cancelled.
    pub(crate) stop: Arc<Stop>,
    /// What the journal says of its tasks, if the batch keeps one.
    pub(crate) ledger: Option<Ledger>,
    /// What of it has run on a rank that is lost.
    past: Option<Arc<Past>>,
    left: Mutex<Left>,
    /// How the node ended that a serial run waits for.
    pub(super) told: Mutex<Option<Option<Arc<Failure>>>>,
    pub(super) told_changed: Condvar,
    /// Where the pool has it.
    pub(super) slot: AtomicU32,
    this: Weak<Run>,
}

/// Why a node is skipped. What decides between two is known before the run: outside failures go first, then the node
/// that failed, then the one it is passed on by.
struct Blame {
    root: Option<u32>,
    from: Option<u32>,
    /// Of those from outside: which of the task's arguments it is.
    nth: u32,
    failure: Arc<Failure>,
}

/// How a node came out, as far as whoever ran it knows.
pub(crate) enum Ran {
    Done,
    /// What its dependents are to be blamed for.
    Failed(Arc<Failure>),
    /// Others attend to it; they will say how it ended.
    Away,
}

/// What is still inside the run's tasks.
#[derive(Default)]
struct Left {
    /// Bodies that were given up and have not returned.
    bodies: u32,
    finished: bool,
}

impl Run {
    pub(crate) fn new(owned: Owned, once: bool, ledger: Option<Ledger>) -> Arc<Self> {
        let plan = Arc::clone(owned.plan());
        let n = plan.graph.len();
        let spans: Option<Box<[Span]>> =
            plan.shared.timing.then(|| (0..n).map(|_| Span::default()).collect());
        Arc::new_cyclic(|this| Self {
            once,
            parity: plan.members.is_empty().then(|| plan.cohort.parity()),
            blamed: AtomicBool::new(false),
            blames: Mutex::default(),
            cursor: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            started: Instant::now(),
            started_ns: spans.as_ref().map_or(0, |_| monotonic_ns()),
            spans,
            stop: Arc::default(),
            ledger,
            past: plan.side.as_ref().and_then(|side| side.past()),
            left: Mutex::default(),
            told: Mutex::default(),
            told_changed: Condvar::new(),
            slot: AtomicU32::new(u32::MAX),
            this: this.clone(),
            owner: Mutex::new(Some(owned)),
            plan,
        })
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> u32 {
        self.plan.graph.len()
    }

    /// Nodes, and parts on other ranks, that have to end.
    pub(super) fn total(&self) -> u32 {
        self.len() + self.plan.side.as_ref().map_or(0, |side| side.parts())
    }

    /// The node must be skipped because of `failure`, which came `from` a node, or from outside of the list.
    pub(crate) fn blame(&self, node: u32, from: Option<u32>, failure: Arc<Failure>) {
        let mut blames = self.blames.lock();
        // Nodes of several ranks are compared by where their tasks are in the list.
        let outside = |side: &Side, from| side.outside_place(node, from);
        let (root, from, nth) = match (self.plan.side.as_deref(), from) {
            (Some(side), Some(from)) => match outside(side, from) {
                Some(nth) => (None, None, nth),
                None => (failure.root, failure.place, 0),
            },
            (_, from) => {
                let root = from.and_then(|from| blames.get(&from).map_or(Some(from), |why| why.root));
                (root, from, 0)
            }
        };
        let blame = Blame { root, from, nth, failure };
        match blames.get_mut(&node) {
            Some(first) if (first.root, first.from, first.nth) <= (root, from, nth) => {}
            Some(later) => *later = blame,
            None => drop(blames.insert(node, blame)),
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

    /// Runs a node.
    #[inline(always)]
    pub(super) fn execute(&self, node: u32) -> Ran {
        match self.plan.record(node) {
            Some(task) => self.execute_task(node, task),
            None => self.join(node),
        }
    }

    /// As [`execute`](Self::execute), for a node whose record is at hand.
    #[inline(always)]
    pub(super) fn execute_task(&self, node: u32, task: Ref) -> Ran {
        if self.stop.is_told(task) {
            return self.stopped(task);
        }
        if (self.ledger.is_some() || self.past.is_some())
            && let Some(ran) = self.is_over_before(node, task)
        {
            return ran;
        }
        if task.is_attended() {
            return self.attend(node, task);
        }
        let verdict = match &self.spans {
            None => self.call_body(task),
            Some(_) => self.call_and_note(node, task),
        };
        match verdict {
            Verdict::Done => {
                self.done(node, task);
                Ran::Done
            }
            Verdict::Failed(cause) => self.failed_attempt(node, task, *cause),
        }
    }

    #[inline(always)]
    fn call_body(&self, task: Ref) -> Verdict {
        self.begin(task);
        task.call(&self.call(task, None))
    }

    /// Apart, so that a run that is not measured keeps no time at hand while a body runs: it looks once whether it is.
    #[cold]
    #[inline(never)]
    fn call_and_note(&self, node: u32, task: Ref) -> Verdict {
        let began = self.clock();
        let verdict = self.call_body(task);
        self.note_time(node, began, super::worker::lane);
        verdict
    }

    /// What the body of a task is called with.
    #[inline(always)]
    pub(crate) fn call<'a>(&'a self, task: Ref, attempt: Option<&'a Arc<AtomicBool>>) -> Call<'a> {
        let moves = match (task.keeps_arguments(), self.once) {
            (true, _) => Moves::Nothing,
            (false, true) => Moves::All,
            (false, false) => Moves::Results,
        };
        Call { shared: &self.plan.shared, moves, stop: &self.stop, attempt, gang: None, gpus: &[] }
    }

    /// The task begins: what an earlier run left goes.
    #[inline(always)]
    pub(crate) fn begin(&self, task: Ref) {
        let head = task.head();
        if !task.is_plain() && head.code.value_needs_drop {
            task.drop_value_if_done();
        }
        head.status.store(state::RUNNING | self.parity(task), Ordering::Relaxed);
    }

    /// The task succeeded; its value is in place.
    #[inline(always)]
    pub(crate) fn done(&self, node: u32, task: Ref) {
        if let Some(ledger) = &self.ledger {
            ledger.record(node, task, 0);
        }
        if task.keeps_arguments() {
            task.pass();
        }
        self.publish(task);
    }

    /// What a task gave is in place.
    #[inline(always)]
    fn publish(&self, task: Ref) {
        let head = task.head();
        head.status.store(state::DONE | self.parity(task), Ordering::Release);
        let keeps_value = !task.is_plain() && head.code.value_needs_drop;
        if keeps_value && task.handles() == 0 && head.uses.load(Ordering::Acquire) == 0 {
            task.drop_value_if_done();
        }
        self.plan.shared.awaited.ended(task);
    }

    /// How the task of a node came out, if it has run before and need not, or must not, run again.
    #[cold]
    fn is_over_before(&self, node: u32, task: Ref) -> Option<Ran> {
        let Some(past) = self.past.as_ref().filter(|past| past.has(node)) else {
            return self.reuse(node, task).then_some(Ran::Done);
        };
        self.begin(task);
        task.pass();
        if !past.has_ended(node) {
            return Some(Ran::Failed(self.failed(task, past.failure(task), state::FAILED)));
        }
        task.head().status.store(state::EMPTY | self.parity(task), Ordering::Release);
        self.plan.shared.awaited.ended(task);
        Some(Ran::Done)
    }

    /// Whether a node does not run, since it has before.
    pub(super) fn has_past(&self, node: u32) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.is_reused(node))
            || self.past.as_ref().is_some_and(|past| past.has(node))
    }

    /// Puts in place what the task of a node gave in an earlier run; false if it must run.
    fn reuse(&self, node: u32, task: Ref) -> bool {
        let Some(ledger) = self.ledger.as_ref().filter(|ledger| ledger.is_reused(node)) else { return false };
        self.begin(task);
        if !ledger.put(node, task) {
            return false;
        }
        task.pass();
        self.publish(task);
        true
    }

    /// A join has nothing to run, unless it stands for tasks of an earlier submission.
    fn join(&self, node: u32) -> Ran {
        match self.plan.gate(node) {
            None if self.plan.is_import(node) => Ran::Away,
            None => Ran::Done,
            Some(_) if !self.plan.shared.executor.is_serial() => Ran::Away,
            // Another thread may be about to run it.
            Some(task) => match crate::task::handle::wait(task) {
                Ok(()) => Ran::Done,
                Err(error) => Ran::Failed(error.failure()),
            },
        }
    }

    /// The run, to be kept.
    pub(super) fn this(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }

    /// Tells other ranks that a node has ended, if one of them waits for it.
    #[inline(always)]
    pub(super) fn export(&self, node: u32, failure: Option<&Arc<Failure>>) {
        if let Some(side) = &self.plan.side {
            side.export(node, &self.plan, failure);
        }
    }

    /// Whether a ready node may run on another rank: nobody has chosen its place. Those that are attended to are asked
    /// for apart from others.
    pub(crate) fn may_leave(&self, node: u32, is_attended: bool) -> bool {
        let may =
            |task: Ref| task.is_attended() == is_attended && task.may_leave() && !self.stop.is_told(task);
        self.plan.record(node).is_some_and(may)
    }

    /// All nodes have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) == self.total()
    }

    /// A task has succeeded on another rank, which it was sent to; an error if the bytes are no value of it.
    pub(crate) fn done_elsewhere(&self, node: u32, task: Ref, value: &[u8]) -> Result<(), ()> {
        // What serde does for the user's type is the user's code.
        if !catch_unwind(AssertUnwindSafe(|| task.unpack_value(value))).unwrap_or(false) {
            return Err(());
        }
        if !task.keeps_arguments() {
            task.pass();
        }
        self.done(node, task);
        Ok(())
    }

    /// A task did not succeed on another rank.
    #[cold]
    pub(crate) fn failed_elsewhere(&self, task: Ref, failure: Arc<Failure>, skipped: bool) {
        if task.has_ended(self.parity(task)) {
            return;
        }
        self.failed(task, failure, if skipped { state::SKIPPED } else { state::FAILED });
    }

    /// A task of a list that another process runs has ended there: with this value or without any, or not well.
    pub(crate) fn ended_there(&self, task: Ref, how: Result<Option<&[u8]>, (Arc<Failure>, bool)>) {
        self.begin(task);
        task.pass();
        let (failure, skipped) = match how {
            // What serde does for the user's type is the user's code.
            Ok(Some(value))
                if catch_unwind(AssertUnwindSafe(|| task.unpack_value(value))).unwrap_or(false) =>
            {
                return self.publish(task);
            }
            Ok(Some(_)) => {
                let what = "its result came from the batch's program as bytes that are no value of it";
                (Failure::new(task, Cause::Error(what.into()), 1), false)
            }
            Ok(None) => {
                task.head().status.store(state::EMPTY | self.parity(task), Ordering::Release);
                return self.plan.shared.awaited.ended(task);
            }
            Err(failed) => failed,
        };
        self.failed(task, failure, if skipped { state::SKIPPED } else { state::FAILED });
    }

    /// A task that is attended to goes to those who do that.
    #[cold]
    fn attend(&self, node: u32, task: Ref) -> Ran {
        let run = self.this.upgrade().expect("a run that is under way");
        self.plan.shared.office().ready(&run, node, task);
        Ran::Away
    }

    /// A body that a worker called failed: it is tried again later, or that is the end of it.
    #[cold]
    fn failed_attempt(&self, node: u32, task: Ref, cause: Cause) -> Ran {
        if task.keeps_arguments() && !self.stop.is_told(task) {
            let failure = Failure::new(task, cause, 1);
            if let Some(delay) = retry::delay(task, 1, &failure) {
                let run = self.this.upgrade().expect("a run that is under way");
                self.plan.shared.office().again(&run, node, task, delay);
                return Ran::Away;
            }
            return Ran::Failed(self.fail(task, failure));
        }
        Ran::Failed(self.fail(task, Failure::new(task, cause, 1)))
    }

    /// The task failed for good.
    #[cold]
    pub(crate) fn fail(&self, task: Ref, failure: Arc<Failure>) -> Arc<Failure> {
        if task.keeps_arguments() {
            task.pass();
        }
        self.failed(task, failure, state::FAILED)
    }

    /// The task failed for good, and its body still runs with its arguments.
    #[cold]
    pub(crate) fn fail_inside(&self, task: Ref, failure: Arc<Failure>) -> Arc<Failure> {
        self.failed(task, failure, state::FAILED)
    }

    /// The task was told to stop before it began.
    #[cold]
    pub(crate) fn stopped(&self, task: Ref) -> Ran {
        if task.head().code.value_needs_drop {
            task.drop_value_if_done();
        }
        task.pass();
        Ran::Failed(self.failed(task, Failure::new(task, Cause::Cancelled, 0), state::SKIPPED))
    }

    /// Passes over a node that needs something that failed.
    #[cold]
    pub(super) fn skip(&self, node: u32, why: Arc<Failure>) -> Arc<Failure> {
        let Some(task) = self.plan.record(node) else { return why };
        if task.head().code.value_needs_drop {
            task.drop_value_if_done();
        }
        task.pass();
        let outside =
            self.blames.lock().get(&node).filter(|why| why.root.is_none()).map(|why| why.from.is_none());
        let failure = Failure::new(task, Cause::Upstream(why), 0);
        let failure = match outside {
            Some(is_entry) => failure.begun_outside(is_entry),
            None => failure,
        };
        self.failed(task, failure, state::SKIPPED)
    }

    #[cold]
    fn failed(&self, task: Ref, failure: Arc<Failure>, status: u8) -> Arc<Failure> {
        if status == state::FAILED && failure.is_of_process() {
            self.plan.shared.outputs.task_failed();
        }
        let nests = self.plan.side.is_some() && !self.plan.members.is_empty();
        let failure = if nests { failure.placed(self.plan.position(task)) } else { failure };
        events::not_done(&failure);
        let cohort = task.cohort().expect("a task that runs has a cohort");
        cohort.note_failure(task.index(), Arc::clone(&failure));
        task.head().status.store(status | self.parity(task), Ordering::Release);
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

    /// All nodes have ended; called once, by whoever found that out. Afterwards the plan may run again, unless a body
    /// that was given up is still inside its task.
    pub(crate) fn finish(&self) {
        if let Some(client) = &self.plan.client {
            client.run_ended(self.plan.tasks().count(), self.plan.first_failure());
        }
        self.keep_times();
        if let Some(side) = &self.plan.side {
            side.lets_go(&self.plan);
        }
        events::run_ended(&self.plan, self.started.elapsed());
        let is_held = {
            let mut left = self.left.lock();
            left.finished = true;
            left.bodies > 0
        };
        if is_held {
            self.plan.cohorts().iter().for_each(|c| c.settle());
        } else {
            self.release();
        }
        self.plan.shared.run_is_over(&self.this);
        self.plan.shared.run_ended();
        if let Some(side) = &self.plan.side {
            side.ended(&self.plan, is_held);
            self.plan.shared.awaited.look_again();
        }
    }

    /// A body was given up: it goes on by itself, and what it uses must stay.
    pub(crate) fn give_up(&self) {
        self.left.lock().bodies += 1;
    }

    /// A body that was given up has returned.
    pub(crate) fn came_back(&self) {
        let mut left = self.left.lock();
        left.bodies -= 1;
        if left.bodies == 0 && left.finished {
            drop(left);
            self.release();
            if let Some(side) = &self.plan.side {
                side.freed();
            }
        }
    }

    /// Nothing of this run is under way any more.
    fn release(&self) {
        let last = self.owner.lock().take().and_then(Owned::let_go);
        self.plan.ended();
        // Nobody else owns the plan, so nobody can start it again: its tasks can go.
        drop(last);
    }
}

/// Why a task of an earlier submission has not succeeded, if it has not.
pub(super) fn failure_of(task: Ref) -> Option<Arc<Failure>> {
    Some(task.cohort()?.failure(task.index())?.failure())
}
