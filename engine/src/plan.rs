//! A compiled list: the graph, which record is at which node, and what a run of it must take care of.
//!
//! `gather` turns the user's list into a [`Listing`](crate::compile::Listing) and back into a plan; this file keeps
//! the plan and starts runs of it.
//!
//! A plan owns the *cohort* of the tasks that were compiled with it first; tasks of compiled batches in its list stay
//! in the cohorts of those (`members`). A run of a plan is a run of all these cohorts, so two plans that share tasks
//! never run at the same time.

use crate::attend::is_interrupted;
use crate::background::Client;
use crate::body::inside;
use crate::cohort::Cohort;
use crate::error::{Cause, Error, Failure, Mistake, TaskError};
use crate::events;
use crate::gather;
use crate::graph::Outline;
use crate::ranks::{OfPlan, Side};
use crate::resume::Ledger;
use crate::run::{Measured, Run, Timed};
use crate::shared::Shared;
use crate::task::chunk::{ChunkTable, Compact};
use crate::task::handle::bring_all;
use crate::task::list::{Each, Entry, Item};
use crate::task::output::Heard;
use crate::task::record::{Kept, Ref, state};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Runs that start open before one is tried alone again.
const OPEN_RUNS_MAX: u32 = 16;
/// In `open_runs`: how many are left; above it, how many it was.
const COUNT: u32 = 0xFFFF;

/// A compiled list and what a run of it needs.
pub(crate) struct Plan {
    pub(crate) shared: Arc<Shared>,
    /// Of the tasks that are in no compiled batch but this.
    pub(crate) cohort: Arc<Cohort>,
    /// Compiled batches in the list, in order.
    pub(crate) members: Vec<Owned>,
    /// For each cohort in the list what to add to a task's index to have its place in this list.
    pub(crate) bases: Vec<(u32, u32)>,
    pub(crate) graph: Outline,
    /// The graph of the list over all ranks, if it is spread and the batch measures.
    pub(crate) whole: Option<Outline>,
    /// Edges of the list over all ranks, if it is spread.
    pub(crate) edges: Option<usize>,
    /// Record of each node; [`Compact::NONE`] for joins.
    pub(crate) records: Box<[Compact]>,
    pub(crate) chunks: ChunkTable,
    /// Some task is attended to, or may be tried again: a run starts open.
    pub(crate) attended: bool,
    /// Some record is counted by itself, and must be let go.
    pub(crate) has_counted: bool,
    /// Producers, and how many arguments in this list take their value.
    pub(crate) consumed: Box<[(Compact, u32)]>,
    /// Nodes with an argument from outside of the list, and the producer. Nodes of other ranks are in `side`.
    pub(crate) externals: Box<[(u32, Ref)]>,
    /// Tasks of other lists, gates among them, of which tasks here take what they wrote.
    pub(crate) heard: Heard,
    /// Nodes that stand for tasks of earlier submissions, which they wait for.
    pub(crate) gates: Box<[(u32, Kept)]>,
    /// What of it concerns other ranks.
    pub(crate) side: Option<Box<Side>>,
    /// The client that submitted it, in background mode.
    pub(crate) client: Option<Arc<Client>>,
    /// Tasks that the latest run took from the journal.
    pub(crate) reused: AtomicUsize,
    /// Shares in this plan; see [`Owned`].
    pub(crate) owners: AtomicU32,
    /// Runs to come that are open to all workers from the start, because the last one had to be opened.
    pub(crate) open_runs: AtomicU32,
    /// Durations in the latest run, if the batch measures.
    pub(crate) measured: Mutex<Option<Measured>>,
    /// Its tasks are copies of another rank's, which keeps the journal.
    pub(crate) is_gift: bool,
    /// As far as somebody has looked.
    pub(crate) all_may_leave: OnceLock<bool>,
    /// Of the one call of a gang's member: that.
    pub(crate) member: OfPlan,
}

impl Plan {
    #[inline(always)]
    pub(crate) fn record(&self, node: u32) -> Option<Ref> {
        match self.records[node as usize] {
            Compact::NONE => None,
            place => Some(self.chunks.resolve(place)),
        }
    }

    /// The node of a task. Cost: a look at each node before it.
    pub(crate) fn node_of(&self, task: Ref) -> Option<u32> {
        (0..self.records.len() as u32).find(|node| self.record(*node) == Some(task))
    }

    /// Every task, in execution order; then those of other ranks.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = Ref> + '_ {
        (0..self.records.len() as u32).filter_map(|node| self.record(node)).chain(self.away())
    }

    /// The tasks that run on other ranks.
    pub(crate) fn away(&self) -> impl Iterator<Item = Ref> + '_ {
        self.side.iter().flat_map(|side| side.away())
    }

    /// Whether all that workers of this rank run of it may run on another. Cost: a look at every node, once.
    pub(crate) fn all_may_leave(&self) -> bool {
        let here = || (0..self.records.len() as u32).filter_map(|node| self.record(node));
        *self.all_may_leave.get_or_init(|| here().all(|task| task.is_attended() || task.may_leave()))
    }

    /// Whether a node stands for a task on another rank.
    #[inline(always)]
    pub(crate) fn is_import(&self, node: u32) -> bool {
        self.side.as_ref().is_some_and(|side| node < side.imports())
    }

    /// Every task, in list order.
    pub(crate) fn list(&self) -> Vec<Ref> {
        self.indexed().into_iter().map(|(_, task)| task).collect()
    }

    /// Every task with its index, in list order.
    pub(crate) fn indexed(&self) -> Vec<(u32, Ref)> {
        let mut list: Vec<(u32, Ref)> = (0..self.records.len() as u32)
            .filter_map(|n| Some((self.graph.task(n), self.record(n)?)))
            .chain(self.away().filter_map(|task| Some((self.position(task)?, task))))
            .collect();
        list.sort_by_key(|(index, _)| *index);
        list
    }

    /// The graph of the list over all ranks, to look at a run; as far as it is kept.
    pub(crate) fn whole(&self) -> &Outline {
        self.whole.as_ref().unwrap_or(&self.graph)
    }

    /// By node of the whole graph when each ran, from the nodes of this rank and tasks of others by index.
    pub(crate) fn over_all_ranks(&self, own: &[Timed], others: &[(u32, Timed)]) -> Box<[Timed]> {
        let whole = self.whole();
        // Joins have no index, and no time.
        let mut by_index = vec![Timed::default(); whole.len() as usize];
        let own = (0..).zip(own).map(|(node, timed)| (self.graph.task(node), *timed));
        for (index, timed) in own.chain(others.iter().copied()) {
            if let Some(place) = by_index.get_mut(index as usize) {
                *place = timed;
            }
        }
        let of_node = |node| by_index.get(whole.task(node) as usize).copied().unwrap_or_default();
        (0..whole.len()).map(of_node).collect()
    }

    /// Every cohort that runs when this plan runs, its own first.
    pub(crate) fn cohorts(&self) -> Vec<&Cohort> {
        let mut all: Vec<&Cohort> = vec![&self.cohort];
        self.members.iter().for_each(|m| all.extend(m.plan().cohorts()));
        all
    }

    /// Keeps the plan from running until [`stop_reading`](Self::stop_reading); false if it runs now.
    pub(crate) fn try_start_reading(&self) -> bool {
        let cohorts = self.cohorts();
        match cohorts.iter().position(|c| !c.try_start_reading()) {
            None => true,
            Some(busy) => {
                cohorts[..busy].iter().for_each(|c| c.stop_reading());
                false
            }
        }
    }

    pub(crate) fn stop_reading(&self) {
        self.cohorts().iter().for_each(|c| c.stop_reading());
    }

    /// Tasks outside of the list whose results it takes, on any rank.
    pub(crate) fn taken_from_outside(&self) -> impl Iterator<Item = Ref> + '_ {
        let elsewhere = self.side.iter().flat_map(|side| side.producers());
        self.externals.iter().map(|(_, task)| *task).chain(elsewhere)
    }

    /// The cohorts of tasks outside of the list whose results it takes.
    fn producers(&self) -> Vec<&Cohort> {
        let mut all: Vec<&Cohort> = self.taken_from_outside().filter_map(Ref::cohort).collect();
        all.sort_by_key(|c| c.id);
        all.dedup_by_key(|c| c.id);
        all
    }

    /// Waits for results from outside, then hands the run to the workers.
    fn launch(&self, run: &Arc<Run>) {
        self.producers().iter().for_each(|c| c.start_reading());
        bring_all(self.externals.iter().map(|(_, producer)| *producer));
        for (node, producer) in &self.externals {
            if producer.cohort().is_some_and(|cohort| cohort.is_elsewhere(*producer)) {
                // Why there is none, if so, is told below.
                let _ = crate::task::handle::wait(*producer);
            }
            let status = producer.head().status.load(Ordering::Acquire) & !state::PARITY;
            if status != state::DONE {
                run.blame(*node, None, missing(*producer));
            }
        }
        self.heard.bring_first();
        for (place, uses) in &self.consumed {
            self.chunks.resolve(*place).head().uses.store(*uses, Ordering::Relaxed);
        }
        if let Some(side) = &self.side {
            side.begin(run);
        }
        self.shared.executor.execute(run);
        if let Some(side) = &self.side {
            side.go_on(run);
        }
    }

    /// The plan of a part of a list that another rank has compiled.
    #[expect(clippy::too_many_arguments, reason = "the fields that a part has")]
    pub(crate) fn of_part(
        shared: Arc<Shared>,
        cohort: Arc<Cohort>,
        graph: Outline,
        records: Vec<Compact>,
        chunks: ChunkTable,
        (attended, has_counted): (bool, bool),
        consumed: Box<[(Compact, u32)]>,
        side: Option<Side>,
    ) -> Self {
        Self {
            shared,
            bases: vec![(cohort.id, 0)],
            cohort,
            members: Vec::new(),
            graph,
            whole: None,
            edges: None,
            records: records.into(),
            chunks,
            attended,
            has_counted,
            consumed,
            externals: Box::default(),
            heard: Heard::default(),
            gates: Box::default(),
            is_gift: side.is_none(),
            all_may_leave: OnceLock::new(),
            member: OfPlan::default(),
            side: side.map(Box::new),
            client: None,
            reused: AtomicUsize::new(0),
            owners: AtomicU32::new(1),
            open_runs: AtomicU32::new(0),
            measured: Mutex::new(None),
        }
    }

    /// The first task in list order that failed in the latest run.
    pub(crate) fn first_failure(&self) -> Option<TaskError> {
        let failures: Vec<TaskError> = self.cohorts().iter().flat_map(|c| c.failures()).collect();
        failures.iter().find(|f| f.chain().len() == 1).or(failures.first()).cloned()
    }

    /// Whether this client submitted it.
    pub(crate) fn is_of(&self, client: &Arc<Client>) -> bool {
        self.client.as_ref().is_some_and(|c| Arc::ptr_eq(c, client))
    }

    /// Whether this thread is inside a body of one of its tasks.
    pub(crate) fn is_around_us(&self) -> bool {
        self.cohorts().iter().any(|c| inside::is_of_cohort(c.id, &self.shared))
    }

    /// The index of a task in this list, if it is in it.
    pub(crate) fn position(&self, task: Ref) -> Option<u32> {
        if !Arc::ptr_eq(task.shared(), &self.shared) {
            return None;
        }
        let id = task.head().cohort.load(Ordering::Acquire);
        self.bases.iter().find(|(cohort, _)| *cohort == id).map(|(_, base)| base + task.index())
    }

    /// The task that a node stands for, if it is a gate.
    pub(crate) fn gate(&self, node: u32) -> Option<Ref> {
        let at = self.gates.binary_search_by_key(&node, |(gate, _)| *gate).ok()?;
        Some(self.gates[at].1.0)
    }

    /// Called by whoever ended the last node.
    pub(crate) fn ended(&self) {
        self.producers().iter().for_each(|c| c.stop_reading());
        if self.may_start_alone() && !self.starts_alone() {
            self.open_runs.fetch_sub(1, Ordering::Relaxed);
        }
        self.cohorts().iter().rev().for_each(|c| c.end(|| self.tasks()));
    }
}

/// Why a result from outside of the list is not there.
pub(crate) fn missing(producer: Ref) -> Arc<Failure> {
    let (name, index) = (producer.name(), producer.index());
    if let Some(error) = producer.cohort().and_then(|c| c.failure(index)) {
        return error.failure();
    }
    let cause = match producer.head().status.load(Ordering::Acquire) & !state::PARITY {
        state::TAKEN => Cause::InputTaken(name.clone()),
        _ => Cause::InputMissing(name.clone()),
    };
    Failure::of(name, index, 0, producer.shared().rank(), cause)
}

impl Plan {
    /// Whether a run begins on one worker alone: until one had to be opened, and again every few runs.
    pub(crate) fn starts_alone(&self) -> bool {
        self.may_start_alone() && self.open_runs.load(Ordering::Relaxed) & COUNT == 0
    }

    fn may_start_alone(&self) -> bool {
        !self.attended && self.side.is_none()
    }

    /// A run had to be opened to other workers: the next ones start open, twice as many as the last time.
    pub(crate) fn was_opened(&self) {
        let runs = self.open_runs.load(Ordering::Relaxed) >> 16;
        let runs = (runs * 2).clamp(1, OPEN_RUNS_MAX);
        // This run counts, too: `ended` takes one off.
        self.open_runs.store((runs << 16) | (runs + 1), Ordering::Relaxed);
    }

    /// A run stayed on one worker to its end.
    pub(crate) fn was_alone(&self) {
        self.open_runs.store(0, Ordering::Relaxed);
    }

    /// Nobody can start the plan any more, so the tasks of its cohort never run again. Execution order is a
    /// topological order, so that a record's own hold is gone before its consumers let go of it.
    fn abandon(&self) {
        if !self.has_counted {
            return;
        }
        let own =
            |t: &Ref| self.members.is_empty() || t.head().cohort.load(Ordering::Relaxed) == self.cohort.id;
        self.tasks().filter(|t| !t.is_plain() && own(t)).for_each(Ref::abandon);
    }
}

/// A share in a plan: who has one may start it. When the last goes, the plan's tasks go, too, unless a handle keeps
/// them. Workers that have just ended a run may keep the plan's arrays a moment longer, but touch no task.
pub(crate) struct Owned(Option<Arc<Plan>>);

impl Owned {
    /// The first share of a new plan.
    pub(crate) fn new(plan: Plan) -> Self {
        let plan = Arc::new(plan);
        if let Some(side) = &plan.side {
            side.register(&plan);
        }
        Self(Some(plan))
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        self.0.as_ref().expect("a share is only emptied when it goes")
    }

    /// Gives the share up; the last one comes back, to be dropped when the caller is done with the tasks.
    pub(crate) fn let_go(mut self) -> Option<LastShare> {
        let plan = self.0.take()?;
        (plan.owners.fetch_sub(1, Ordering::AcqRel) == 1).then(|| LastShare(plan))
    }

    /// Compiles a list.
    pub(crate) fn compile(shared: &Arc<Shared>, each: Each<'_>, size_hint: usize) -> Result<Self, Error> {
        gather::compile(shared, each, size_hint).map(Self::new)
    }

    /// A plan of one task.
    pub(crate) fn of_one(task: Ref) -> Result<Self, Error> {
        let each = |see: &mut dyn FnMut(Entry<'_>)| see(Entry(Item::Task(task)));
        match Self::compile(task.shared(), &each, 1) {
            Err(Error::Compile(e)) if matches!(e.mistakes[..], [Mistake::Relisted { .. }]) => {
                Err(Error::AlreadyStarted(task.name()))
            }
            other => other,
        }
    }

    /// Starts a run; `once` says that no other will follow, so arguments may move.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if this plan, or one it shares tasks with, runs.
    pub(crate) fn start(&self, once: bool) -> Result<(), Error> {
        if is_interrupted() {
            return Err(Error::Interrupted);
        }
        let plan = self.plan();
        let mut cohorts = plan.cohorts();
        let turn = plan.shared.executor.connection().map(|connection| connection.turn());
        plan.side.as_ref().map_or(Ok(()), |side| side.check())?;
        cohorts.iter().filter_map(|c| c.elsewhere()).try_for_each(|elsewhere| elsewhere.check())?;
        // In the order in which `launch` waits for producers, so that no two wait for each other.
        cohorts.sort_by_key(|c| c.id);
        for (i, cohort) in cohorts.iter().enumerate() {
            if let Err(error) = cohort.begin() {
                cohorts[..i].iter().for_each(|c| c.never_mind());
                plan.shared.awaited.look_again();
                return Err(error);
            }
        }
        if let Some(turn) = turn
            && let Err(error) = turn.offer(plan)
        {
            cohorts.iter().for_each(|c| c.never_mind());
            plan.shared.awaited.look_again();
            return Err(error);
        }
        let ledger = match plan
            .shared
            .book
            .as_ref()
            .filter(|_| !plan.is_gift && plan.side.as_ref().is_none_or(|side| side.keeps_journal()))
            .map(|book| book.begin(plan))
            .transpose()
        {
            Ok(ledger) => ledger.or_else(|| plan.side.as_ref()?.take_ledger()),
            Err(error) => {
                cohorts.iter().for_each(|c| c.never_mind());
                plan.shared.awaited.look_again();
                return Err(error);
            }
        };
        plan.reused.store(ledger.as_ref().map_or(0, Ledger::reused), Ordering::Relaxed);
        let elsewhere = plan.side.as_ref().and_then(|side| side.elsewhere());
        cohorts.iter().for_each(|c| c.bind(elsewhere.map(Arc::clone)));
        let run = Run::new(self.clone(), once, ledger);
        cohorts.iter().for_each(|c| c.runs(&run));
        if once && plan.members.is_empty() {
            plan.cohort.set_once();
        }
        cohorts.iter().for_each(|c| c.forget());
        plan.shared.run_begins();
        plan.shared.run_is_active(&run);
        events::run_started(plan);
        let is_elsewhere = |task: Ref| task.cohort().is_some_and(|cohort| cohort.is_elsewhere(task));
        if plan.producers().iter().any(|c| c.is_running())
            || plan.externals.iter().any(|(_, task)| is_elsewhere(*task))
        {
            // The results it takes are not there yet. Waiting for them is a thread's work, and rare.
            let waiting = Arc::clone(&run);
            let waiter = std::thread::Builder::new().name("tarragon-start".to_string());
            if waiter.spawn(move || waiting.plan.launch(&waiting)).is_ok() {
                return Ok(());
            }
            // The system gives no thread: wait for them here.
        }
        plan.launch(&run);
        Ok(())
    }
}

impl Clone for Owned {
    fn clone(&self) -> Self {
        self.plan().owners.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(plan) = self.0.take()
            && plan.owners.fetch_sub(1, Ordering::AcqRel) == 1
        {
            drop(LastShare(plan));
        }
    }
}

/// The last share of a plan: dropping it drops the tasks.
pub(crate) struct LastShare(Arc<Plan>);

impl Drop for LastShare {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
