//! Nodes that end elsewhere than on a worker: processes, tasks with limits, joins for earlier submissions. Whoever sees
//! such an end calls [`Run::end_outside`], which does what a worker does after a body.

use super::node::{Run, failure_of};
use super::pool::{Piece, Pool};
use super::worker::POISONED;
use crate::attend::{Office, while_waiting};
use crate::cohort::{Cohort, Progress};
use crate::error::{Cause, Failure};
use crate::events;
use crate::graph::NEEDS;
use crate::schedule::Arrival;
use crate::task::output;
use crate::task::record::{Ref, state};
use crossbeam_deque::{Steal, Worker as Deque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Run {
    /// A node that was attended to has ended; what depends on it becomes ready.
    pub(crate) fn end_outside(self: &Arc<Self>, node: u32, failure: Option<Arc<Failure>>) {
        let Some(pool) = self.plan.shared.executor.pool() else {
            return self.tell_serial(failure);
        };
        self.export(node, failure.as_ref());
        let graph = self.plan.graph.frozen();
        let mut attended = Vec::new();
        let mut ready = 0;
        for target in graph.csr.targets(node) {
            let to = target & !NEEDS;
            if let Some(failure) = &failure
                && target & NEEDS != 0
            {
                self.blame(to, Some(node), Arc::clone(failure));
                graph.ready.poison(to);
            }
            let piece = match graph.ready.arrive(to, || graph.csr.in_degree(to)) {
                Arrival::Early => continue,
                Arrival::Ready => to,
                Arrival::Poisoned => to | POISONED,
            };
            match self.attended(piece) {
                Some(task) => attended.push((to, task)),
                None => {
                    ready += 1;
                    pool.outside.push(Piece { run: self.slot.load(Ordering::Acquire), node: piece });
                }
            }
        }
        if !attended.is_empty() {
            self.plan.shared.office().ready_all(self, attended);
        }
        pool.look_after(ready);
        self.one_ended(pool);
    }

    /// A node has ended, or a part on another rank.
    fn one_ended(&self, pool: &Pool) {
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == self.total() {
            pool.retire(self.slot.load(Ordering::Acquire));
            self.finish();
        }
    }

    /// All that another rank had to run had ended, but is lost. False if the run is over.
    pub(crate) fn part_reopens(&self) -> bool {
        let total = self.total();
        let less = |ended: u32| (ended < total).then(|| ended.wrapping_sub(1));
        self.ended.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// All that another rank had to run has ended.
    pub(crate) fn part_ended(&self) {
        if let Some(pool) = self.plan.shared.executor.pool() {
            self.one_ended(pool);
        }
    }

    /// Cancels one task, or all that is left.
    pub(crate) fn cancel(self: &Arc<Self>, task: Option<Ref>) {
        events::cancelled(task);
        if self.plan.shared.executor.connection().is_some() {
            return self.plan.cohort.sent().iter().for_each(|sent| sent.cancel(task));
        }
        match task {
            None => self.stop.all(),
            Some(task) => self.stop.task(task),
        }
        if self.plan.attended {
            self.plan.shared.office().cancel(self, task);
        }
        if let Some(side) = &self.plan.side {
            side.cancel(self, task);
        }
    }

    /// The task of a node that is attended to and need not be skipped.
    pub(super) fn attended(&self, node: u32) -> Option<Ref> {
        if node & POISONED != 0 {
            return None;
        }
        let may_be = |task: &Ref| task.is_attended() && !self.stop.is_told(*task) && !self.has_past(node);
        self.plan.record(node).filter(may_be)
    }

    /// Has the gates of the list opened when the tasks end for which they stand.
    pub(super) fn watch_gates(self: &Arc<Self>) {
        for (node, task) in &self.plan.gates {
            let task = task.0;
            // What is done elsewhere is brought here first.
            let is_here = |progress| matches!(progress, Progress::Ended(kind) if kind != state::ELSEWHERE);
            let is_over = || task.cohort().is_some_and(|cohort| is_here(cohort.progress(task)));
            if !self.plan.shared.awaited.watch(task, self, *node, is_over) {
                self.open_gate(*node);
            } else if let Some(cohort) = task.cohort() {
                // On another rank nobody would say that it has ended before its list has.
                cohort.request(std::iter::once(task));
            }
        }
    }

    /// The task for which a gate stands has ended.
    pub(crate) fn open_gate(self: &Arc<Self>, node: u32) {
        let failure = self.plan.gate(node).and_then(failure_of);
        if failure.is_none() && self.hears(node) {
            return self.open_gate_later(node);
        }
        self.end_outside(node, failure);
    }

    /// What the task for which a gate stands has written is taken here, and is on another rank.
    fn hears(&self, node: u32) -> bool {
        let is_of = |task: Ref| !self.plan.heard.of_gate(task).is_empty();
        let is_away = |task: Ref| {
            let elsewhere = task.cohort().and_then(Cohort::elsewhere);
            elsewhere.is_some_and(|elsewhere| elsewhere.has(task))
        };
        self.plan.gate(node).is_some_and(|task| is_of(task) && is_away(task))
    }

    /// This thread may be the one that receives the answer.
    #[cold]
    fn open_gate_later(self: &Arc<Self>, node: u32) {
        let run = Arc::clone(self);
        let bring = move || {
            if let Some(task) = run.plan.gate(node) {
                output::bring(run.plan.heard.of_gate(task));
            }
            run.end_outside(node, None);
        };
        let thread = std::thread::Builder::new().name("tarragon-bring".to_string());
        if let (Err(error), Some(task)) = (thread.spawn(bring), self.plan.gate(node)) {
            self.end_outside(node, Some(Failure::new(task, Cause::Output(task.name(), error), 1)));
        }
    }

    /// Hands over the roots that are attended to, in list order and without a worker in between; the others are for
    /// workers to find. Returns how many those are.
    pub(super) fn attend_roots(self: &Arc<Self>, pool: &Pool) -> u32 {
        let roots = self.plan.graph.frozen().csr.roots();
        let slot = self.slot.load(Ordering::Acquire);
        let (mut attended, mut others) = (Vec::with_capacity(roots.len() as usize), 0);
        for i in 0..roots.len() {
            let node = self.root(roots.get(i));
            match self.attended(node) {
                Some(task) => attended.push((node, task)),
                None if self.plan.gate(node).is_some() || self.plan.is_import(node) => {}
                None => {
                    others += 1;
                    pool.outside.push(Piece { run: slot, node });
                }
            }
        }
        self.plan.shared.office().ready_all(self, attended);
        others
    }

    /// The serial walk waits for a node that is attended to.
    pub(super) fn wait_for_attended(&self) -> Option<Arc<Failure>> {
        while_waiting(|| {
            let mut told = self.told.lock();
            loop {
                match told.take() {
                    Some(failure) => return failure,
                    None => self.told_changed.wait(&mut told),
                }
            }
        })
    }

    fn tell_serial(&self, failure: Option<Arc<Failure>>) {
        *self.told.lock() = Some(failure);
        self.told_changed.notify_one();
    }
}

impl Pool {
    /// Says who attends to tasks, so that workers can tell it of cpus they no longer need.
    pub(crate) fn attended_by(&self, office: &Arc<Office>) {
        let _ = self.office.set(Arc::downgrade(office));
    }

    /// A worker gave up its seat while somebody outside may wait for it.
    pub(super) fn seats_changed(&self) {
        if let Some(office) = self.office.get().and_then(std::sync::Weak::upgrade) {
            office.seats_changed();
        }
    }

    /// `work` pieces came from outside: wakes workers for them.
    pub(super) fn look_after(self: &Arc<Self>, work: u32) {
        if work > 0 {
            (0..self.seats.claim_many(work)).for_each(|_| self.wake());
        }
    }

    /// A piece that came from outside, and some more into `deque`.
    pub(super) fn take_outside(&self, deque: &Deque<Piece>) -> Option<Piece> {
        loop {
            match self.outside.steal_batch_and_pop(deque) {
                Steal::Success(piece) => return Some(piece),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    // ── cpus for others ─────────────────────────────────────────────────────────────────────────────────────

    /// Takes cpus from the workers if `limit` of them are enough: at most so many are awake then.
    pub(crate) fn try_limit(&self, limit: u32) -> bool {
        self.seats.try_limit(limit.min(self.threads() as u32))
    }

    /// Sets how many workers may be awake, and wakes some if there is work for them. True if whoever waits for their
    /// cpus should look once more.
    pub(crate) fn set_limit(self: &Arc<Self>, limit: u32) -> bool {
        let is_free = self.seats.set_limit(limit);
        if limit > 0 && self.is_work() && self.seats.claim() {
            self.wake();
        }
        is_free
    }

    /// Whether workers have work and none of them is awake.
    pub(crate) fn is_starved(&self) -> bool {
        self.seats.awake() == 0 && self.is_work()
    }

    /// Whether there is work for workers.
    pub(crate) fn has_work(&self) -> bool {
        self.seats.awake() > 0 || self.is_work()
    }
}
