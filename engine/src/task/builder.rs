//! A task in the user's hands: declare what it reads and writes, start it, ask how it went.

use super::chunk::space_of;
use super::handle::{Handle, Status, status, wait_for_end};
use super::output::{Stream, Which};
use super::record::Ref;
use super::why::why_waiting;
use crate::data::{Access, BadDatum, DataId, IntoDatum, SpaceRef};
use crate::error::{Error, Mistake, TaskError};
use crate::gather::each_input;
use crate::plan::Owned;
use std::marker::PhantomData;
use tarragon_transport::Place;

/// A function or closure with its arguments and declared reads and writes; part of a list, or started alone.
///
/// Made by [`Batch::function`](crate::Batch::function) and [`Batch::closure`](crate::Batch::closure). Declarations
/// are made before it is compiled or started; after that they are errors. A task is not `Clone`, its
/// [`result`](Self::result) handle is. A task that is dropped without being started never runs.
#[must_use = "a task does nothing until it is compiled and run, or started"]
#[derive(Debug)]
pub struct Task<T> {
    task: Ref,
    result: PhantomData<fn() -> T>,
}

/// What is done to a datum.
type MakeAccess = fn(u32) -> Access;

impl<T> Task<T> {
    /// Takes over the one handle that a new record starts with.
    pub(crate) fn adopt(task: Ref) -> Self {
        Self { task, result: PhantomData }
    }

    pub(crate) fn task(&self) -> Ref {
        self.task
    }

    // ── declarations, as a builder ──────────────────────────────────────────────────────────────────────────

    /// Declares that the body reads `datum`: a path, `(directory, name)`, or a [`DataId`].
    ///
    /// A mistake in it (an empty name, say) is reported by compile or start, with all others.
    #[inline(always)]
    pub fn reads(mut self, datum: impl IntoDatum) -> Self {
        self.access(datum, Access::read);
        self
    }

    /// Declares that the body writes `datum`. A datum that is read and written is declared with both.
    #[inline(always)]
    pub fn writes(mut self, datum: impl IntoDatum) -> Self {
        self.access(datum, Access::write);
        self
    }

    /// Names the task in errors, graphs and reports; without one it has the path of its function.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.set(|extra| extra.name = Some(name.into().into_boxed_str()));
        self
    }

    /// Of two ready tasks the one with the higher priority starts first; 0 without. Stronger than
    /// [`cost`](Self::cost).
    pub fn priority(mut self, priority: i32) -> Self {
        self.set(|extra| extra.priority = priority);
        self
    }

    /// The rank that must run it, for a body that uses what only that rank has; without this the engine chooses. A rank
    /// that does not exist, or that cannot run it, is a mistake that compile reports.
    pub fn at_rank(mut self, rank: u32) -> Self {
        self.set(|extra| extra.rank = Some(rank));
        self
    }

    /// Runs it on the node where a datum lies, a dictionary's key say (`.near(&dict.key(&k)?)`), on whichever rank
    /// there has least to do; also when that node has more to do than others. Nothing if the datum lies on no node of
    /// this batch's ranks, or the task cannot run there.
    pub fn near(mut self, place: &Place) -> Self {
        self.set(|extra| extra.near = place.home.map(|rank| rank.0));
        self
    }

    /// How long the body takes relative to others, in any unit that the whole list shares; 1 without. Tasks on the
    /// most costly path to the end start first.
    pub fn cost(mut self, cost: f32) -> Self {
        let name = self.task.name();
        self.set(|extra| {
            extra.cost = cost;
            if !(cost.is_finite() && cost > 0.0) {
                extra.mistakes.push(Mistake::BadCost { name, cost: cost.to_string() });
            }
        });
        self
    }

    // ── declarations, later ─────────────────────────────────────────────────────────────────────────────────

    /// Declares a read later than the builder does.
    ///
    /// # Errors
    /// [`Error::Sealed`] once the task is compiled or started.
    pub fn read(&mut self, datum: impl IntoDatum) -> Result<&mut Self, Error> {
        self.open()?;
        self.access(datum, Access::read);
        Ok(self)
    }

    /// Declares a write later than the builder does.
    ///
    /// # Errors
    /// [`Error::Sealed`] once the task is compiled or started.
    pub fn write(&mut self, datum: impl IntoDatum) -> Result<&mut Self, Error> {
        self.open()?;
        self.access(datum, Access::write);
        Ok(self)
    }

    fn open(&self) -> Result<(), Error> {
        if self.task.cohort().is_some() || self.task.is_queued() {
            Err(Error::Sealed(self.task.name()))
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    fn access(&mut self, datum: impl IntoDatum, make: MakeAccess) {
        match datum.into_datum(&SpaceRef(self.task.shared())) {
            Ok(datum) if datum.id != 0 && datum.space == space_of(self.task.0) => {
                self.declare(make(datum.id))
            }
            other => self.bad_access(other),
        }
    }

    #[cold]
    fn bad_access(&mut self, datum: Result<DataId, BadDatum>) {
        let name = self.task.name();
        let mistake = match datum {
            Ok(DataId { id: 0, .. }) | Err(BadDatum::Empty) => Mistake::EmptyDatum { name },
            Ok(datum) => Mistake::ForeignDatum { name, datum: format!("datum {}", datum.id) },
            Err(BadDatum::NoCurrentDirectory(path, why)) => Mistake::NoCurrentDirectory { name, path, why },
        };
        self.set(|extra| extra.mistakes.push(mistake));
    }

    // ── running it alone ────────────────────────────────────────────────────────────────────────────────────

    /// Starts this task alone and returns at once; it has no order with other submissions, except that it waits for
    /// tasks whose results it takes.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] if it was started or compiled before; [`Error::Compile`] if it is not right.
    pub fn start(&self) -> Result<(), Error> {
        if self.task.cohort().is_some() || self.task.is_queued() {
            return Err(Error::AlreadyStarted(self.task.name()));
        }
        Owned::of_one(self.task)?.start(true)
    }

    /// Starts this task alone and waits for it.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`Error::Task`] if the task failed.
    pub fn run(&self) -> Result<(), Error> {
        self.start()?;
        self.wait().map_err(Error::Task)
    }

    /// Waits until the task has ended, started alone or as part of a compiled batch.
    ///
    /// # Errors
    /// The task's own error if it did not succeed; [`ErrorKind::NotStarted`](crate::ErrorKind) at once if nobody
    /// started it.
    pub fn wait(&self) -> Result<(), TaskError> {
        wait_for_end(self.task)
    }

    /// How far the task is.
    pub fn status(&self) -> Status {
        status(self.task)
    }

    /// Why the task waits, in a sentence for people: for which tasks (of more than a few so many are named), for a
    /// worker, for cpus or other resources, until its next attempt, or for somebody to start it. `None` if it does not
    /// wait: it runs, or has ended.
    ///
    /// Cost: a look at each task before it in its list. The words may change with any version.
    ///
    /// ```
    /// # use tarragon_engine::Batch;
    /// let batch = Batch::new()?;
    /// let task = batch.function(|| 1u8, ());
    /// assert!(task.why_waiting().expect("it waits").starts_with("nobody has started it"));
    /// task.run()?;
    /// assert_eq!(task.why_waiting(), None);
    /// # Ok::<(), tarragon_engine::Error>(())
    /// ```
    pub fn why_waiting(&self) -> Option<String> {
        why_waiting(self.task)
    }

    /// Cancels the task in the run under way, if there is one: if it has not begun it is skipped; a process is ended
    /// (TERM, after its grace KILL, with all it has started), a function is asked through
    /// [`Context::cancelled`](crate::Context::cancelled). Tasks that need what it makes are skipped. Does not wait.
    pub fn cancel(&self) {
        if let Some(run) = self.task.cohort().and_then(crate::cohort::Cohort::run) {
            run.cancel(Some(self.task));
        }
    }

    // ── what comes out ──────────────────────────────────────────────────────────────────────────────────────

    /// A handle of the result: to get it, or to pass it to another task.
    #[inline]
    pub fn result(&self) -> Handle<T> {
        Handle::new(self.task)
    }

    /// What the body writes to its context's `out()`.
    pub fn stdout(&self) -> Stream {
        Stream::new(self.task, Which::Out)
    }

    /// What the body writes to its context's `err()`.
    pub fn stderr(&self) -> Stream {
        Stream::new(self.task, Which::Err)
    }

    /// The call as bytes that another process of the same executable can run with
    /// [`wire::run`](crate::wire::run). Handles among the arguments are sent as the values they stand for.
    ///
    /// # Errors
    /// [`WireError::Closure`](crate::wire::WireError::Closure) for closures, which stay in this process;
    /// `WireError::Input` if an argument's task has not succeeded; `WireError::Spent` if the task was started alone or
    /// its compiled batch is gone.
    pub fn encode(&mut self) -> Result<Vec<u8>, crate::wire::WireError> {
        // No run of the task may begin meanwhile, and none that replaces or drops a value it takes: each producer gets
        // a handle first, and then its cohort a reader.
        let _task = Reading::of(self.task)?;
        if self.task.are_arguments_gone() {
            return Err(crate::wire::WireError::Spent(self.task.name()));
        }
        let mut producers = Vec::new();
        each_input(self.task, &mut |input| producers.push(Handle::<()>::new(input.task)));
        let mut readings: Vec<Reading> = Vec::new();
        for producer in &producers {
            readings.push(Reading::of(producer.task())?);
        }
        declare::encode(self.task)
    }

    #[inline(always)]
    fn declare(&mut self, access: Access) {
        declare::access(self, access);
    }

    /// Changes what few tasks have. The caller owns the task, and it is not compiled.
    pub(crate) fn with_extra<R>(&mut self, change: impl FnOnce(&mut super::extra::Extra) -> R) -> R {
        change(declare::extra(self))
    }

    pub(super) fn set(&mut self, change: impl FnOnce(&mut super::extra::Extra)) {
        change(declare::extra(self));
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.task.drop_handle();
    }
}

/// While it lives, no run of the task's cohort begins.
struct Reading(Option<Ref>);

impl Reading {
    fn of(task: Ref) -> Result<Self, crate::wire::WireError> {
        match task.cohort() {
            None => Ok(Self(None)),
            Some(cohort) if cohort.try_start_reading() => Ok(Self(Some(task))),
            Some(_) => Err(crate::wire::WireError::Running(task.name())),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(cohort) = self.0.and_then(Ref::cohort) {
            cohort.stop_reading();
        }
    }
}

mod declare {
    #![expect(unsafe_code, reason = "a task that is borrowed mutably and not compiled owns its declarations")]
    use super::{Access, Ref, Task};
    use crate::task::extra::Extra;
    use crate::wire::WireError;

    #[inline(always)]
    pub(super) fn access<T>(task: &mut Task<T>, access: Access) {
        // SAFETY: `reads` and `writes` own the task, `read` and `write` borrow it mutably and saw that it is not
        // compiled; a builder's task cannot be compiled, since compile borrows it.
        unsafe { task.task.declare(access) }
    }

    pub(super) fn extra<T>(task: &mut Task<T>) -> &mut Extra {
        // SAFETY: as above; the borrow of the task keeps the extra from changing meanwhile.
        unsafe { task.task.extra_mut() }
    }

    pub(super) fn encode(task: Ref) -> Result<Vec<u8>, WireError> {
        let encode = task.head().code.encode.ok_or_else(|| WireError::Closure(task.name()))?;
        // SAFETY: the record is of the code's types.
        unsafe { encode(task) }
    }
}
