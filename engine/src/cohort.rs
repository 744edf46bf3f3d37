//! Tasks that were compiled together: whether they run, which run wrote their statuses, what failed, what they wrote
//! to their outputs.
//!
//! # States
//! `Idle` (never run) → `Running` → `Ended` → `Running` …; each run flips the *parity* under which tasks write their
//! statuses (see `task::record`), so a task counts as ended only in the latest run.
//!
//! # Who may write what
//! - `life` (a mutex) decides who may run; a run begins by taking the gate for writing, so that no user is reading a
//!   value which the run will replace.
//! - `gate` for reading: users who copy or look at values; for writing: a run that begins, a user who takes a value.
//! - A value whose last handle goes while the cohort runs is dropped by the worker that ends the task or its last
//!   consumer; should both look away at the same moment, the end of the run sweeps it (`orphans`).
//!
//! - `elsewhere`: who compiles its list, before any run; then who begins a run, be it of that list or of one that holds
//!   it. `sent`: who begins a run.
//!
//! A cohort lives as long as its compiled batch, a run of it, or any chunk of memory with a task of it.

use crate::body::inside;
use crate::clients::Sent;
use crate::error::{Error, Failure, TaskError};
use crate::journal::Identity;
use crate::ranks::Elsewhere;
use crate::run::Run;
use crate::shared::Cohorts;
use crate::task::output::Output;
use crate::task::record::{Ref, state};
use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

/// State shared by tasks compiled in one list.
pub(crate) struct Cohort {
    pub(crate) id: u32,
    /// Where it is found by id.
    table: Arc<Cohorts>,
    parity: AtomicU8,
    gate: RwLock<()>,
    life: Mutex<Life>,
    changed: Condvar,
    /// Its tasks run once and never again, so that their values stay as they are.
    once: AtomicBool,
    /// Which tasks of a journal its tasks are in the latest run, by index, and whether that is known.
    identities: Mutex<Arc<[(Identity, bool)]>>,
    notes: Mutex<Notes>,
    /// Where its tasks are that run on other ranks in the latest run, be it of its own list or of one that holds it.
    elsewhere: RwLock<Option<Arc<Elsewhere>>>,
    may_be_elsewhere: AtomicBool,
    /// The list of the latest run, of a batch whose tasks run in another process.
    sent: RwLock<Option<Arc<Sent>>>,
}

#[derive(Default)]
struct Life {
    running: bool,
    /// All tasks of the run have ended, but a body that was given up is still inside one.
    settled: bool,
    /// The run that is under way.
    run: Weak<Run>,
    runs: u64,
    /// Runs of other cohorts that read our values.
    readers: u32,
    /// Threads that drop a value of ours at this moment.
    droppers: u32,
    /// A value may have been left behind by its last handle.
    orphans: bool,
}

impl Life {
    /// Whether users still wait for the run.
    fn is_pending(&self) -> bool {
        self.running && !self.settled
    }

    fn may_begin(&self) -> Result<(), Error> {
        match (self.running, self.settled) {
            (false, _) => Ok(()),
            (true, false) => Err(Error::AlreadyRunning),
            (true, true) => Err(Error::BodyStillRuns),
        }
    }
}

#[derive(Default)]
struct Notes {
    failures: HashMap<u32, Arc<Failure>>,
    outputs: HashMap<u32, Output>,
}

/// How far a task is, as its cohort knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Nobody started the cohort.
    NotStarted,
    /// Waiting or running.
    Pending { running: bool },
    /// Ended in the latest run, with this status.
    Ended(u8),
}

impl Cohort {
    pub(crate) fn new(id: u32, table: Arc<Cohorts>) -> Self {
        Self {
            id,
            table,
            parity: AtomicU8::new(0),
            gate: RwLock::new(()),
            life: Mutex::default(),
            changed: Condvar::new(),
            once: AtomicBool::new(false),
            identities: Mutex::new(Arc::from([])),
            notes: Mutex::default(),
            elsewhere: RwLock::default(),
            may_be_elsewhere: AtomicBool::new(false),
            sent: RwLock::default(),
        }
    }

    /// The list of the run that begins has gone to another process, or to none.
    pub(crate) fn bind_sent(&self, sent: Option<Arc<Sent>>) {
        let before = std::mem::replace(&mut *self.sent.write(), sent);
        // It may be the last share, and then the other process is told.
        drop(before);
    }

    pub(crate) fn sent(&self) -> Option<Arc<Sent>> {
        self.sent.read().clone()
    }

    /// Some of its tasks run on other ranks, or none: said when its list is compiled, and when a run begins.
    pub(crate) fn bind(&self, elsewhere: Option<Arc<Elsewhere>>) {
        if elsewhere.is_none() && !self.may_be_elsewhere.load(Ordering::Acquire) {
            return;
        }
        self.may_be_elsewhere.store(elsewhere.is_some(), Ordering::Release);
        let before = std::mem::replace(&mut *self.elsewhere.write(), elsewhere);
        // It may be the last share, and then ranks are told.
        drop(before);
    }

    pub(crate) fn elsewhere(&self) -> Option<Arc<Elsewhere>> {
        if !self.may_be_elsewhere.load(Ordering::Acquire) {
            return None;
        }
        self.elsewhere.read().clone()
    }

    /// Whether values of its tasks may have to be asked for.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        self.may_be_elsewhere.load(Ordering::Acquire) && self.has_run()
    }

    /// Whether a task is done on another rank, and its value has not come here.
    pub(crate) fn is_elsewhere(&self, task: Ref) -> bool {
        self.progress(task) == Progress::Ended(state::ELSEWHERE)
    }

    pub(crate) fn parity(&self) -> u8 {
        self.parity.load(Ordering::Relaxed)
    }

    /// A run begins: flips the parity. Followed by [`forget`](Self::forget) or [`never_mind`](Self::never_mind).
    ///
    /// Blocks while users copy values, and while other batches that read our results run.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        loop {
            self.life.lock().may_begin()?;
            let gate = self.gate.write();
            let mut life = self.life.lock();
            life.may_begin()?;
            if life.readers > 0 && inside::any(|_| true) {
                return Err(Error::BeingRead);
            }
            if life.readers + life.droppers > 0 {
                drop(gate);
                self.changed.wait(&mut life);
                continue;
            }
            life.running = true;
            life.settled = false;
            life.runs += 1;
            self.parity.fetch_xor(state::PARITY, Ordering::Release);
            return Ok(());
        }
    }

    /// The run that has begun.
    pub(crate) fn runs(&self, run: &Arc<Run>) {
        self.life.lock().run = Arc::downgrade(run);
    }

    /// Its tasks will not run again after the run that begins.
    pub(crate) fn set_once(&self) {
        self.once.store(true, Ordering::Release);
    }

    pub(crate) fn runs_once(&self) -> bool {
        self.once.load(Ordering::Acquire)
    }

    /// Which tasks of a journal its tasks are in the run that begins, in list order behind the gates.
    pub(crate) fn set_identities(&self, gates: usize, all: &[(Identity, bool)]) {
        let unknown = std::iter::repeat_n((Identity(0), true), gates);
        *self.identities.lock() = unknown.chain(all.iter().copied()).collect();
    }

    /// Which task of a journal the task with this index is.
    pub(crate) fn identity(&self, index: u32) -> Option<Identity> {
        let (identity, is_unknown) = *self.identities.lock().get(index as usize)?;
        (!is_unknown).then_some(identity)
    }

    /// The run under way, if there is one.
    pub(crate) fn run(&self) -> Option<Arc<Run>> {
        let life = self.life.lock();
        if life.is_pending() { life.run.upgrade() } else { None }
    }

    /// All tasks of the run have ended, but a body that was given up keeps it from being over.
    pub(crate) fn settle(&self) {
        self.life.lock().settled = true;
        self.changed.notify_all();
    }

    /// Forgets what the last run noted; nothing of this run has run yet.
    pub(crate) fn forget(&self) {
        if self.life.lock().runs > 1 {
            *self.notes.lock() = Notes::default();
        }
    }

    /// Takes back a [`begin`](Self::begin) before anything ran.
    pub(crate) fn never_mind(&self) {
        let mut life = self.life.lock();
        self.parity.fetch_xor(state::PARITY, Ordering::Release);
        life.running = false;
        life.runs -= 1;
        self.changed.notify_all();
    }

    /// The run has ended; `tasks` are looked through only if a value may have been left behind.
    pub(crate) fn end<I: Iterator<Item = Ref>>(&self, tasks: impl Fn() -> I) {
        loop {
            let mut life = self.life.lock();
            if !life.orphans {
                life.running = false;
                self.changed.notify_all();
                return;
            }
            life.orphans = false;
            drop(life);
            // Dropping a value runs the user's code, so no lock is held; the run is not over yet, so none begins.
            // Tasks of other cohorts may run again already.
            let own = |t: &Ref| t.head().cohort.load(Ordering::Relaxed) == self.id;
            tasks().filter(|t| own(t) && t.handles() == 0).for_each(|t| {
                t.drop_value_if_done();
            });
        }
    }

    /// Waits until no run is active.
    pub(crate) fn wait_idle(&self) {
        let mut life = self.life.lock();
        while life.is_pending() {
            self.changed.wait(&mut life);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life.lock().is_pending()
    }

    pub(crate) fn has_run(&self) -> bool {
        self.life.lock().runs > 0
    }

    /// Waits for the end of a run, if one is active, and keeps the next from beginning until
    /// [`stop_reading`](Self::stop_reading).
    pub(crate) fn start_reading(&self) {
        let mut life = self.life.lock();
        while life.is_pending() {
            self.changed.wait(&mut life);
        }
        life.readers += 1;
    }

    /// As [`start_reading`](Self::start_reading), but false instead of waiting.
    pub(crate) fn try_start_reading(&self) -> bool {
        let mut life = self.life.lock();
        if !life.is_pending() {
            life.readers += 1;
        }
        !life.is_pending()
    }

    pub(crate) fn stop_reading(&self) {
        self.life.lock().readers -= 1;
        self.changed.notify_all();
    }

    /// Calls `f` while no other cohort's run reads our values; `f` is short and calls nothing of the user's.
    pub(crate) fn when_unread<R>(&self, f: impl FnOnce() -> R) -> R {
        let mut life = self.life.lock();
        while life.readers > 0 {
            self.changed.wait(&mut life);
        }
        f()
    }

    /// Calls `f` while no value of ours is taken, whether or not a run is under way; `f` is short.
    pub(crate) fn keeping<R>(&self, f: impl FnOnce() -> R) -> R {
        self.life.lock().readers += 1;
        let given = f();
        self.stop_reading();
        given
    }

    /// Keeps values as they are while the guard lives.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read_recursive()
    }

    /// Keeps other readers away while the guard lives.
    pub(crate) fn taking(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write()
    }

    /// How far a task of this cohort is.
    #[inline]
    pub(crate) fn progress(&self, task: Ref) -> Progress {
        let status = task.head().status.load(Ordering::Acquire);
        let kind = status & !state::PARITY;
        if kind > state::RUNNING && (status & state::PARITY) == self.parity.load(Ordering::Acquire) {
            return Progress::Ended(kind);
        }
        self.progress_in(&self.life.lock(), task)
    }

    /// Whether a task of this cohort has this status in the latest run.
    #[inline(always)]
    pub(crate) fn progress_is(&self, task: Ref, kind: u8) -> bool {
        task.head().status.load(Ordering::Acquire) == kind | self.parity.load(Ordering::Relaxed)
    }

    fn progress_in(&self, life: &Life, task: Ref) -> Progress {
        if life.runs == 0 {
            return Progress::NotStarted;
        }
        let status = task.head().status.load(Ordering::Acquire);
        let kind = status & !state::PARITY;
        if kind < state::RUNNING || (status & state::PARITY) != self.parity.load(Ordering::Acquire) {
            let is_away = || self.elsewhere().is_some_and(|elsewhere| elsewhere.has(task));
            if !life.running && is_away() {
                return Progress::Ended(state::ELSEWHERE);
            }
            return Progress::Pending { running: false };
        }
        if kind == state::RUNNING { Progress::Pending { running: true } } else { Progress::Ended(kind) }
    }

    /// The last handle of a task is gone: drop its value if nobody will look at it again.
    pub(crate) fn value_unwanted(&self, task: Ref) {
        let mut life = self.life.lock();
        let ended = matches!(self.progress_in(&life, task), Progress::Ended(_));
        if life.running && !(ended && task.head().uses.load(Ordering::Acquire) == 0) {
            life.orphans = true;
            return;
        }
        // Who reads the value for another process took a handle before it asked to read.
        if task.handles() > 0 || !task.claim_value() {
            return;
        }
        // Dropping a value runs the user's code, so no lock is held; the next run waits for us.
        life.droppers += 1;
        drop(life);
        task.drop_claimed();
        self.life.lock().droppers -= 1;
        self.changed.notify_all();
    }

    /// Notes why a task did not succeed.
    pub(crate) fn note_failure(&self, index: u32, failure: Arc<Failure>) {
        self.notes.lock().failures.insert(index, failure);
    }

    /// As [`failure`](Self::failure), without what the task wrote.
    pub(crate) fn failure_of(&self, index: u32) -> Option<Arc<Failure>> {
        self.notes.lock().failures.get(&index).cloned()
    }

    /// Why a task did not succeed.
    pub(crate) fn failure(&self, index: u32) -> Option<TaskError> {
        let mut notes = self.notes.lock();
        let failure = Arc::clone(notes.failures.get(&index)?);
        let stdout = notes.outputs.get_mut(&index).and_then(Output::text);
        Some(TaskError::of(failure).with_stdout(stdout))
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.notes.lock().failures.is_empty()
    }

    /// How many tasks did not succeed.
    pub(crate) fn failures_len(&self) -> usize {
        self.notes.lock().failures.len()
    }

    /// Every task that did not succeed, by index.
    pub(crate) fn failures(&self) -> Vec<TaskError> {
        let mut all: Vec<TaskError> =
            self.notes.lock().failures.values().map(|f| TaskError::of(Arc::clone(f))).collect();
        all.sort_by_key(TaskError::index);
        all
    }

    pub(crate) fn keep_output(&self, index: u32, output: Output) {
        if !output.is_empty() {
            self.notes.lock().outputs.insert(index, output);
        }
    }

    pub(crate) fn with_output<R>(&self, index: u32, f: impl FnOnce(&mut Output) -> R) -> Option<R> {
        self.notes.lock().outputs.get_mut(&index).map(f)
    }
}

impl Drop for Cohort {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}
