//! Background mode: tasks that are submitted queue up, and run in batches when somebody needs something of them; each
//! client sees its own tasks in the order in which a sequential program would run them.
//!
//! # A client
//! Each [`Batch`](crate::Batch) value is a client, with a *queue* of tasks not yet compiled and a *frontier*: for each
//! datum the last task that wrote it and those that have read it since, as far as they have not ended (or failed).
//! *Flushing* compiles the queue and starts it. Tasks of the frontier that the new list depends on stand at its head as
//! *gates*: joins that end when those tasks end, so the new list begins at once and waits for no more than it must.
//!
//! # What flushes
//! Somebody waits for a queued task, or reads a file that one writes; [`fence`](crate::Batch::fence), `close`, `join`,
//! or the client going away; the queue being [`WINDOW`] long; [`IDLE`] without a further task (the office's thread
//! looks).
//!
//! # Bounds
//! A queue holds at most [`WINDOW`] tasks, and a client has at most [`PENDING_MAX`] tasks that have not ended; then
//! submitting waits. Rows of the frontier go when their tasks have ended well and the table has doubled since it was
//! last looked through, so a stream of any length needs no more memory than what is under way.
//!
//! # Who may write what
//! `queue` is held for moments. `frontier` is held by whoever flushes, from taking the queue until the list is compiled
//! and noted, so batches of one client are compiled in the order of its tasks; in which order they start does not
//! matter, since gates wait for tasks that have not started, too; only of a batch whose tasks run in another process
//! `frontier` is held until the list is there. Lists of different clients have no order.

use crate::cohort::Progress;
use crate::data::Access;
use crate::error::{Error, TaskError};
use crate::events;
use crate::gather::{self, Gate, each_input};
use crate::plan::Owned;
use crate::shared::Shared;
use crate::task::list::{Entry, Item, TaskList};
use crate::task::record::{Kept, Ref, state};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Tasks in a queue at most.
pub(crate) const WINDOW: usize = 1024;
/// How long a queue waits for more.
pub(crate) const IDLE: Duration = Duration::from_millis(5);
/// Tasks of a client that have not ended, at most.
const PENDING_MAX: usize = 64 * WINDOW;
/// Readers of a datum above which those that have ended are looked for.
const READERS_MIN: usize = 64;

/// What waits in a queue.
enum Queued {
    Task(Kept),
    Compiled(Owned),
}

/// One `Batch` value.
pub(crate) struct Client {
    /// No other of this process has it.
    pub(crate) number: u32,
    shared: Weak<Shared>,
    queue: Mutex<Vec<Queued>>,
    /// When the queue got its latest task.
    latest: Mutex<Instant>,
    /// The office was asked to look at the queue.
    is_watched: AtomicBool,
    frontier: Mutex<Frontier>,
    pending: AtomicUsize,
    /// The first task that failed since the last fence, and how many threads wait for fewer pending tasks.
    ended: Mutex<Option<TaskError>>,
    changed: Condvar,
    closed: AtomicBool,
    /// Why a queue could not run that nobody flushed who could be told; the next call of the client is.
    untold: Mutex<Option<Error>>,
}

/// A task as the frontier knows it.
#[derive(Clone)]
struct Last {
    task: Kept,
    /// Counts submissions, so that gates stand in their order.
    order: u64,
}

#[derive(Default)]
struct Row {
    writer: Option<Last>,
    readers: Vec<Last>,
    /// Readers when those that have ended were last looked for.
    readers_seen: usize,
}

#[derive(Default)]
struct Frontier {
    rows: HashMap<u32, Row>,
    /// Rows when it was last looked through.
    rows_seen: usize,
    order: u64,
}

/// Whether later tasks must know of it: it has not ended.
fn is_pending(task: Ref) -> bool {
    task.cohort().is_some_and(|c| !matches!(c.progress(task), Progress::Ended(_)))
}

/// Whether later readers must know of it: it has not ended well.
fn matters(task: Ref) -> bool {
    let ended = |c: &crate::cohort::Cohort| c.progress(task);
    task.cohort().is_some_and(|c| match ended(c) {
        Progress::Ended(status) => matches!(status, state::FAILED | state::SKIPPED),
        _ => true,
    })
}

impl Client {
    /// A client; others wait for its end if it `counts`.
    pub(crate) fn new(shared: &Arc<Shared>, counts: bool) -> Arc<Self> {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let client = Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            shared: Arc::downgrade(shared),
            queue: Mutex::default(),
            latest: Mutex::new(Instant::now()),
            is_watched: AtomicBool::new(false),
            frontier: Mutex::default(),
            pending: AtomicUsize::new(0),
            ended: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            untold: Mutex::default(),
        });
        shared.add_client(&client, counts);
        client
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Queues a list.
    pub(crate) fn submit(self: &Arc<Self>, shared: &Arc<Shared>, list: &dyn TaskList) -> Result<(), Error> {
        let (entries, others) = self.take_in(shared, list)?;
        if others {
            // Tasks that wait in another client's queue come first.
            shared.flush_others(self);
        }
        let len = {
            let mut queue = self.queue.lock();
            queue.extend(entries);
            queue.len()
        };
        *self.latest.lock() = Instant::now();
        if len >= WINDOW {
            self.flush()?;
            self.wait_for_room(shared);
        } else if !self.is_watched.swap(true, Ordering::AcqRel) {
            shared.office().watch(self, Instant::now() + IDLE);
        }
        Ok(())
    }

    /// Compiles and starts a list behind all that was submitted before. What is wrong with it nobody else is told:
    /// whoever flushes waits for the frontier first.
    pub(crate) fn submit_now(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        list: &dyn TaskList,
    ) -> Result<(), Error> {
        let (entries, _) = self.take_in(shared, list)?;
        let frontier = self.frontier.lock();
        self.queue.lock().extend(entries);
        self.flush_from(frontier)?;
        self.wait_for_room(shared);
        Ok(())
    }

    /// What of a list is to be queued; and whether its tasks take results of tasks that are queued.
    fn take_in(&self, shared: &Arc<Shared>, list: &dyn TaskList) -> Result<(Vec<Queued>, bool), Error> {
        self.check_open()?;
        self.tell()?;
        if !shared.background {
            return Err(Error::NoBackground);
        }
        let mut entries = Vec::new();
        let mut others = false;
        let mut mistakes = Vec::new();
        list.each(&mut |entry| {
            match entry.0 {
                Item::Task(task) => {
                    gather::check_task(shared, entries.len() as u32, task, &mut mistakes);
                    entries.push(Queued::Task(Kept::new(task)));
                }
                Item::Compiled(owned) => entries.push(Queued::Compiled(owned.clone())),
            };
        });
        if !mistakes.is_empty() {
            return Err(Error::Compile(crate::error::CompileError { mistakes }));
        }
        let tasks = || entries.iter().filter_map(|e| if let Queued::Task(t) = e { Some(t.0) } else { None });
        if let Some(task) = tasks().find(|t| t.cohort().is_some() || t.is_queued()) {
            return Err(Error::AlreadyStarted(task.name()));
        }
        for (queued, task) in tasks().enumerate() {
            if !task.queue() {
                tasks().take(queued).for_each(Ref::unqueue);
                return Err(Error::AlreadyStarted(task.name()));
            }
            each_input(task, &mut |input| others |= input.task.is_queued());
        }
        Ok((entries, others))
    }

    /// The office looks at the queue; when to look again, if it is to.
    pub(crate) fn look(self: &Arc<Self>) -> Option<Instant> {
        let due = *self.latest.lock() + IDLE;
        if due > Instant::now() && !self.queue.lock().is_empty() {
            return Some(due);
        }
        self.is_watched.store(false, Ordering::Release);
        let _ = self.flush_untold();
        None
    }

    /// An error that came while nobody could be told.
    fn tell(&self) -> Result<(), Error> {
        self.untold.lock().take().map_or(Ok(()), Err)
    }

    /// As [`flush`](Self::flush), by somebody who is not the client: its next call is told what went wrong, and the
    /// caller in words.
    pub(crate) fn flush_untold(self: &Arc<Self>) -> Result<(), String> {
        self.flush_with(self.frontier.lock(), |error| {
            let words = error.to_string();
            self.untold.lock().get_or_insert(error);
            words
        })
    }

    /// Compiles and starts what is queued.
    pub(crate) fn flush(self: &Arc<Self>) -> Result<(), Error> {
        self.flush_from(self.frontier.lock())
    }

    fn flush_from(self: &Arc<Self>, frontier: MutexGuard<'_, Frontier>) -> Result<(), Error> {
        self.flush_with(frontier, |error| error)
    }

    /// The same; `tell` is given an error before anybody can see that the tasks are queued no more.
    fn flush_with<E>(
        self: &Arc<Self>,
        mut frontier: MutexGuard<'_, Frontier>,
        tell: impl Fn(Error) -> E,
    ) -> Result<(), E> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let queue = std::mem::take(&mut *self.queue.lock());
        if queue.is_empty() {
            return Ok(());
        }
        let gates = frontier.gates(&shared, &queue);
        let each = |see: &mut dyn FnMut(Entry<'_>)| {
            for entry in &queue {
                match entry {
                    Queued::Task(task) => see(Entry(Item::Task(task.0))),
                    Queued::Compiled(owned) => see(Entry(Item::Compiled(owned))),
                }
            }
        };
        let plan = gather::compile_after(&shared, &each, queue.len(), Some(gates));
        let tasks = || queue.iter().filter_map(|e| if let Queued::Task(t) = e { Some(t.0) } else { None });
        let mut plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                let told = tell(error);
                tasks().for_each(Ref::unqueue);
                return Err(told);
            }
        };
        plan.client = Some(Arc::clone(self));
        if plan.members.is_empty() {
            // Later lists may depend on it before it has started.
            plan.cohort.set_once();
        }
        let list = plan.list();
        self.pending.fetch_add(list.len(), Ordering::AcqRel);
        for task in &list {
            frontier.add(*task);
        }
        frontier.sweep();
        // In another process the lists of a client are ordered as they come.
        let keeps_order = shared.executor.connection().map(|_| frontier);
        events::flushed(list.len());
        let owned = Owned::new(plan);
        let started = owned.start(true).map_err(tell);
        drop(keeps_order);
        if started.is_err() {
            // They will never end, so nothing may wait for them.
            self.frontier.lock().forget(&list);
            let _ended = self.ended.lock();
            self.pending.fetch_sub(list.len(), Ordering::AcqRel);
            self.changed.notify_all();
        }
        tasks().for_each(Ref::unqueue);
        started
    }

    /// A run of this client has ended.
    pub(crate) fn run_ended(&self, tasks: usize, failed: Option<TaskError>) {
        let mut first = self.ended.lock();
        if first.is_none() {
            *first = failed;
        }
        self.pending.fetch_sub(tasks, Ordering::AcqRel);
        self.changed.notify_all();
    }

    fn wait_for_room(&self, shared: &Shared) {
        self.wait_for_fewer_than(shared, PENDING_MAX);
    }

    fn wait_for_fewer_than(&self, shared: &Shared, bound: usize) {
        let is_over = || self.pending.load(Ordering::Acquire) < bound;
        if is_over() {
            return;
        }
        shared.executor.wait_or(&is_over, || {
            let mut ended = self.ended.lock();
            while !is_over() {
                self.changed.wait(&mut ended);
            }
        });
    }

    /// Runs what is queued, waits until all has ended, and forgets what it did; an error for the first that failed.
    pub(crate) fn fence(self: &Arc<Self>, shared: &Shared) -> Result<(), Error> {
        self.flush()?;
        if shared.active_runs().iter().any(|run| run.plan.is_of(self) && run.plan.is_around_us()) {
            return Err(Error::WaitsForItself);
        }
        self.wait_for_fewer_than(shared, 1);
        self.forget();
        if let Some(connection) = shared.executor.connection() {
            connection.forget(self.number);
        }
        self.tell()?;
        match self.ended.lock().take() {
            Some(error) => Err(Error::Task(error)),
            None => Ok(()),
        }
    }

    /// What is submitted from now on depends on nothing that was.
    pub(crate) fn forget(&self) {
        self.frontier.lock().rows.clear();
    }

    /// Runs what is queued; nothing more may come. Also says whether this closed it, or it was closed before.
    pub(crate) fn close(self: &Arc<Self>) -> (bool, Result<(), Error>) {
        let flushed = self.flush();
        let first = !self.closed.swap(true, Ordering::AcqRel);
        (first, flushed.and_then(|()| self.tell()))
    }

    /// The task that wrote a datum last, if that matters to who reads it now.
    pub(crate) fn writer_of(&self, shared: &Shared, datum: u32) -> Option<Kept> {
        let frontier = self.frontier.lock();
        let related = frontier.related(shared, &[datum]);
        let writers = related.filter_map(|row| row.1.writer.as_ref()).filter(|last| matters(last.task.0));
        writers.max_by_key(|last| last.order).map(|last| last.task.clone())
    }
}

impl Frontier {
    /// Rows of these data, and of directories above and files below them.
    fn related<'a>(&'a self, shared: &Shared, data: &[u32]) -> Box<dyn Iterator<Item = (u32, &'a Row)> + 'a> {
        let Some(parents) = shared.space.parents() else {
            let mut data = data.to_vec();
            data.sort_unstable();
            data.dedup();
            return Box::new(data.into_iter().filter_map(|d| Some((d, self.rows.get(&d)?))));
        };
        let chain = |datum: u32, parents: &[u32]| {
            let up = |d: &u32| parents.get(*d as usize).copied().filter(|p| *p != 0);
            std::iter::successors(Some(datum), up).collect::<Vec<u32>>()
        };
        let asked: std::collections::HashSet<u32> = data.iter().copied().collect();
        let above: std::collections::HashSet<u32> = data.iter().flat_map(|d| chain(*d, &parents)).collect();
        let is_related =
            move |d: u32| above.contains(&d) || chain(d, &parents).iter().any(|up| asked.contains(up));
        Box::new(self.rows.iter().map(|(d, row)| (*d, row)).filter(move |(d, _)| is_related(*d)))
    }

    /// Earlier tasks that the queue depends on, each with the accesses for which it does, in their order.
    fn gates(&self, shared: &Shared, queue: &[Queued]) -> Vec<Gate> {
        let mut data = Vec::new();
        let mut found: HashMap<Ref, (u64, Gate)> = HashMap::new();
        let mut gate = |last: &Last, access: Option<Access>| {
            let new = || (last.order, Gate { task: last.task.clone(), accesses: Vec::new() });
            let (order, gate) = found.entry(last.task.0).or_insert_with(new);
            // Whose result is an argument has a place among the others as soon as it has accesses.
            *order = last.order.max(*order);
            gate.accesses.extend(access);
        };
        let mut look = |task: Ref| {
            data.extend(task.accesses().iter().map(|a| a.datum()));
            each_input(task, &mut |input| {
                let of_one_run = input.task.cohort().is_some_and(|c| c.runs_once());
                if of_one_run && is_pending(input.task) {
                    gate(&Last { task: Kept::new(input.task), order: 0 }, None);
                }
            });
        };
        for entry in queue {
            match entry {
                Queued::Task(task) => look(task.0),
                Queued::Compiled(owned) => owned.plan().tasks().for_each(&mut look),
            }
        }
        for (datum, row) in self.related(shared, &data) {
            let writer = row.writer.iter().filter(|last| matters(last.task.0));
            writer.for_each(|last| gate(last, Some(Access::write(datum))));
            let readers = row.readers.iter().filter(|last| is_pending(last.task.0));
            readers.for_each(|last| gate(last, Some(Access::read(datum))));
        }
        let mut gates: Vec<(u64, Gate)> = found.into_values().collect();
        gates.sort_by_key(|(order, _)| *order);
        gates
            .into_iter()
            .map(|(_, mut gate)| {
                gate.accesses.sort_by_key(|a| a.writes());
                gate
            })
            .collect()
    }

    /// A task is compiled: later ones depend on it.
    fn add(&mut self, task: Ref) {
        self.order += 1;
        let last = Last { task: Kept::new(task), order: self.order };
        for access in task.accesses() {
            let row = self.rows.entry(access.datum()).or_default();
            if access.writes() {
                *row = Row { writer: Some(last.clone()), ..Row::default() };
                continue;
            }
            if row.readers.len() >= READERS_MIN.max(2 * row.readers_seen) {
                row.readers.retain(|reader| is_pending(reader.task.0));
                row.readers_seen = row.readers.len();
            }
            row.readers.push(last.clone());
        }
    }

    /// Drops tasks that could not be started.
    fn forget(&mut self, tasks: &[Ref]) {
        let tasks: std::collections::HashSet<Ref> = tasks.iter().copied().collect();
        for row in self.rows.values_mut() {
            row.writer.take_if(|writer| tasks.contains(&writer.task.0));
            row.readers.retain(|reader| !tasks.contains(&reader.task.0));
        }
    }

    /// Drops what no later task depends on, when there is twice as much as the last time.
    fn sweep(&mut self) {
        if self.rows.len() < (2 * self.rows_seen).max(WINDOW) {
            return;
        }
        self.rows.retain(|_, row| {
            row.readers.retain(|reader| is_pending(reader.task.0));
            row.readers_seen = row.readers.len();
            if row.writer.as_ref().is_some_and(|w| !matters(w.task.0)) {
                row.writer = None;
            }
            row.writer.is_some() || !row.readers.is_empty()
        });
        self.rows.shrink_to(2 * self.rows.len());
        self.rows_seen = self.rows.len();
    }
}
