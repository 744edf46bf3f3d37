//! Handles of results: wait for a task, copy, borrow or take its value.

use super::record::{Ref, state};
use super::why::why_waiting;
use crate::body::inside;
use crate::cohort::{Cohort, Progress};
use crate::error::{ErrorKind, TaskError};
use crate::function::{Data, copy_of};
use parking_lot::RwLockReadGuard;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How far a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Made, but not compiled or started.
    New,
    /// Submitted, and not compiled yet.
    Queued,
    /// Compiled, but not started.
    Compiled,
    /// Started; waits for other tasks or for a worker.
    Waiting,
    /// A worker is running its body.
    Running,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// A task whose data it reads did not succeed.
    Skipped,
}

/// How far a task is.
pub(crate) fn status(task: Ref) -> Status {
    let Some(cohort) = task.cohort() else {
        return if task.is_queued() { Status::Queued } else { Status::New };
    };
    match cohort.progress(task) {
        Progress::NotStarted if task.is_queued() => Status::Queued,
        Progress::NotStarted => Status::Compiled,
        Progress::Pending { running: false } => Status::Waiting,
        Progress::Pending { running: true } => Status::Running,
        Progress::Ended(state::FAILED) => Status::Failed,
        Progress::Ended(state::SKIPPED) => Status::Skipped,
        Progress::Ended(_) => Status::Done,
    }
}

/// Waits until a task has ended in the latest run of its cohort; an error if it did not succeed.
pub(crate) fn wait(task: Ref) -> Result<(), TaskError> {
    wait_until(task, None)
}

#[inline]
fn wait_until(task: Ref, deadline: Option<Instant>) -> Result<(), TaskError> {
    run_if_queued(task)?;
    let Some(cohort) = task.cohort() else {
        return Err(TaskError::about(task, ErrorKind::NotStarted, NOT_STARTED));
    };
    loop {
        match cohort.progress(task) {
            Progress::Ended(state::FAILED | state::SKIPPED) => {
                // A run that begins now clears the notes: then the task is pending again.
                if let Some(error) = cohort.failure(task.index()) {
                    return Err(error);
                }
            }
            Progress::Ended(state::ELSEWHERE) => {
                let is_here = || cohort.progress(task) != Progress::Ended(state::ELSEWHERE);
                bring(task, cohort, deadline, &is_here)?;
            }
            Progress::Ended(_) => return Ok(()),
            // Another thread has compiled what was submitted, and is about to start it.
            Progress::NotStarted if task.is_queued() => std::thread::sleep(STARTING),
            Progress::NotStarted => {
                if cohort.progress(task) == Progress::NotStarted {
                    return Err(TaskError::about(task, ErrorKind::NotStarted, NOT_STARTED));
                }
            }
            Progress::Pending { .. } if is_own(task, cohort) => {
                return Err(TaskError::about(task, ErrorKind::WaitsForItself, OWN));
            }
            Progress::Pending { .. } => {
                let is_over = || matches!(cohort.progress(task), Progress::Ended(_));
                bring(task, cohort, deadline, &is_over)?;
            }
        }
    }
}

/// Waits until `is_over`; if the task runs on another rank, has its value brought here meanwhile.
fn bring(
    task: Ref,
    cohort: &Cohort,
    deadline: Option<Instant>,
    is_over: &dyn Fn() -> bool,
) -> Result<(), TaskError> {
    cohort.request(std::iter::once(task));
    if task.shared().executor.wait(task.shared(), task, deadline, is_over) {
        return Ok(());
    }
    Err(TaskError::about(task, ErrorKind::TimedOut, "it has not ended in the time given"))
}

/// As [`wait`], but a value may stay where it is.
pub(crate) fn wait_for_end(task: Ref) -> Result<(), TaskError> {
    match task.cohort() {
        Some(cohort) if cohort.is_elsewhere(task) => Ok(()),
        _ => wait(task),
    }
}

/// A task that was submitted runs when somebody waits for it.
fn run_if_queued(task: Ref) -> Result<(), TaskError> {
    while task.cohort().is_none() && task.is_queued() {
        if let Err(error) = task.shared().flush_all() {
            return Err(TaskError::about(task, ErrorKind::NotStarted, &error));
        }
    }
    Ok(())
}

/// Whether the end of `task` cannot come while this thread waits for it: its body is below us on the stack, or nobody
/// else runs its list.
fn is_own(task: Ref, cohort: &Cohort) -> bool {
    let shared = task.shared();
    inside::any(|t| t == task) || shared.executor.is_serial() && inside::is_of_cohort(cohort.id, shared)
}

const OWN: &str = "a body that runs on top of it, or before it on the same thread, waits for it, so it would never \
                   end: pass its result as an argument";
const STILL_NEEDED: &str =
    "other tasks of this run still need its result: take it after the run, or get() a copy";
/// Between two looks at a task that another thread is about to start: that takes microseconds.
const STARTING: Duration = Duration::from_micros(20);
const NOT_STARTED: &str = "nobody compiled and started it, so its result would never come";

/// The result of a task: wait for it, look at it, take it, or give it to another task as an argument.
///
/// Cheap to clone. While a handle or the [`Task`](crate::Task) itself lives, the value stays in memory (unless
/// taken); afterwards it goes as soon as no other task needs it.
#[derive(Debug)]
pub struct Handle<T> {
    task: Ref,
    result: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    pub(crate) fn new(task: Ref) -> Self {
        task.add_handle();
        Self { task, result: PhantomData }
    }

    pub(crate) fn task(&self) -> Ref {
        self.task
    }

    /// Waits until the task has ended.
    ///
    /// # Errors
    /// The task's own error if it did not succeed; [`ErrorKind::NotStarted`] at once if nobody started it.
    pub fn wait(&self) -> Result<(), TaskError> {
        wait(self.task)
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
    pub fn why_waiting(&self) -> Option<String> {
        why_waiting(self.task)
    }
}

impl<T: Data> Handle<T> {
    /// A copy of the value; waits until the task has ended. Numbers, strings and flat vectors are cloned, other
    /// types go through their serde form: use [`with`](Self::with) to look without a copy, [`take`](Self::take) to
    /// have the value itself.
    ///
    /// # Errors
    /// The task's own error if it did not succeed; [`ErrorKind::NotStarted`] at once if nobody started it;
    /// [`ErrorKind::Taken`] if the value was taken; [`ErrorKind::Unreadable`] if serde refuses the copy.
    #[inline]
    pub fn get(&self) -> Result<T, TaskError> {
        self.get_until(None)
    }

    /// As [`get`](Self::get), waiting at most `timeout`.
    ///
    /// # Errors
    /// As `get`, and [`ErrorKind::TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, TaskError> {
        // A time that the clock cannot name never comes.
        self.get_until(Instant::now().checked_add(timeout))
    }

    #[inline]
    fn get_until(&self, deadline: Option<Instant>) -> Result<T, TaskError> {
        let copy = look(self.task, deadline, |value: &T| copy_of(value))?;
        copy.map_err(|e| unreadable(self.task, &e))
    }
}

impl<T: Send + Sync + 'static> Handle<T> {
    /// Looks at the value in place, without a copy; waits until the task has ended. While `look` runs, the compiled
    /// batch cannot be run again, so do not start it inside.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn with<R>(&self, look_at: impl FnOnce(&T) -> R) -> Result<R, TaskError> {
        look(self.task, None, look_at)
    }

    /// The value itself; waits until the task has ended, and, if other tasks read the value, until their run has.
    ///
    /// # Errors
    /// As [`get`](Self::get); of two who take one result, one gets [`ErrorKind::Taken`].
    pub fn take(self) -> Result<T, TaskError> {
        in_place::take(self.task)
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self::new(self.task)
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.task.drop_handle();
    }
}

/// Waits for the task and calls `f` with its value, which stays as it is meanwhile.
#[inline]
fn look<T, R>(task: Ref, deadline: Option<Instant>, f: impl FnOnce(&T) -> R) -> Result<R, TaskError> {
    loop {
        wait_until(task, deadline)?;
        let cohort = task.cohort().expect("a task that has ended has a cohort");
        let _gate = cohort.reading();
        match cohort.progress(task) {
            Progress::Ended(state::DONE) => return Ok(f(in_place::borrow(task))),
            Progress::Ended(state::TAKEN | state::EMPTY) => return Err(gone(task)),
            // It failed in a run that began just now, or waits in it.
            _ => {}
        }
    }
}

/// The results of many tasks, in order: copies, as [`Handle::get`] makes them, for a few nanoseconds each. Waits until
/// all have ended.
///
/// ```
/// # use tarragon_engine::{Batch, results};
/// let batch = Batch::new()?;
/// let squares: Vec<_> = (0..4u64).map(|i| batch.function(|x: u64| x * x, (i,))).collect();
/// batch.compile(&squares)?.run()?;
/// assert_eq!(results(&squares)?, [0, 1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Handle::get`], for the first task in order that has no result.
pub fn results<'a, T, X>(tasks: impl IntoIterator<Item = &'a X>) -> Result<Vec<T>, TaskError>
where
    T: Data,
    X: HasResult<Value = T> + 'a,
{
    let tasks = tasks.into_iter().map(HasResult::record);
    let mut tasks = tasks.peekable();
    if tasks.peek().and_then(|task| task.cohort()).is_some_and(|cohort| cohort.elsewhere().is_some()) {
        let tasks: Vec<Ref> = tasks.collect();
        bring_all(tasks.iter().copied());
        return read(tasks.into_iter());
    }
    read(tasks)
}

/// Has the values of tasks that run on other ranks brought here, those of one list together; waits for none.
pub(crate) fn bring_all(tasks: impl Iterator<Item = Ref>) {
    let mut tasks = tasks.filter(|task| task.cohort().is_some_and(Cohort::may_be_elsewhere)).peekable();
    while let Some(first) = tasks.peek().copied() {
        let id = |task: &Ref| task.head().cohort.load(Ordering::Acquire);
        let of_list = std::iter::from_fn(|| tasks.next_if(|task| id(task) == id(&first)));
        if let Some(cohort) = first.cohort() {
            cohort.request(of_list);
        }
    }
}

fn read<T: Data>(tasks: impl Iterator<Item = Ref>) -> Result<Vec<T>, TaskError> {
    let mut values = Vec::with_capacity(tasks.size_hint().0);
    let mut open: Option<(&Cohort, RwLockReadGuard<'_, ()>)> = None;
    for task in tasks {
        // A value can be read at once while the gate of its cohort is open and its task is done.
        let ready = |cohort: &Cohort| {
            task.head().cohort.load(Ordering::Acquire) == cohort.id && cohort.progress_is(task, state::DONE)
        };
        if !open.as_ref().is_some_and(|(cohort, _)| ready(cohort)) {
            drop(open.take());
            wait(task)?;
            let cohort = task.cohort().expect("a task that has ended has a cohort");
            open = Some((cohort, cohort.reading()));
            if !ready(cohort) {
                // It was taken, or runs again: the slow way says which.
                open = None;
                let value = look(task, None, |value: &T| copy_of(value))?;
                values.push(value.map_err(|e| unreadable(task, &e))?);
                continue;
            }
        }
        let value = copy_of(in_place::borrow::<T>(task));
        values.push(value.map_err(|e| unreadable(task, &e))?);
    }
    Ok(values)
}

/// What [`results`] reads: tasks and handles.
pub trait HasResult {
    /// Type of the result.
    type Value;
    /// The task.
    #[doc(hidden)]
    fn record(&self) -> Ref;
}

impl<T> HasResult for Handle<T> {
    type Value = T;

    fn record(&self) -> Ref {
        self.task
    }
}

impl<T> HasResult for super::Task<T> {
    type Value = T;

    fn record(&self) -> Ref {
        self.task()
    }
}

fn unreadable(task: Ref, error: &postcard::Error) -> TaskError {
    TaskError::about(task, ErrorKind::Unreadable, &format!("its result could not be copied: {error}"))
}

fn gone(task: Ref) -> TaskError {
    TaskError::about(task, ErrorKind::Taken, "its result was taken before: a result can be taken once")
}

mod in_place {
    #![expect(unsafe_code, reason = "reads and moves typed values of records that a typed handle names")]
    use super::{ErrorKind, Progress, Ref, STILL_NEEDED, TaskError, gone, inside, state, wait};
    use std::sync::atomic::Ordering;

    /// The value; the caller holds the gate and has seen the task done.
    #[inline(always)]
    pub(super) fn borrow<'a, T>(task: Ref) -> &'a T {
        // SAFETY: handles are made with the type of the record's value; the gate keeps it in place.
        unsafe { &*task.value::<T>() }
    }

    pub(super) fn take<T>(task: Ref) -> Result<T, TaskError> {
        loop {
            wait(task)?;
            let cohort = task.cohort().expect("a task that has ended has a cohort");
            if task.head().uses.load(Ordering::Acquire) > 0 {
                if inside::is_of_cohort(cohort.id, task.shared()) {
                    return Err(TaskError::about(task, ErrorKind::WaitsForItself, STILL_NEEDED));
                }
                cohort.wait_idle();
            }
            let _gate = cohort.taking();
            if task.head().uses.load(Ordering::Acquire) > 0 {
                continue;
            }
            match cohort.progress(task) {
                Progress::Ended(state::DONE) => {
                    // SAFETY: the type is the handle's; no task of its own run has a use pending, no other run reads
                    // it, and the gate keeps users away.
                    let value = cohort.when_unread(|| unsafe { task.move_value::<T>(state::TAKEN) });
                    if let Some(value) = value {
                        return Ok(value);
                    }
                }
                Progress::Ended(state::TAKEN | state::EMPTY) => return Err(gone(task)),
                _ => {}
            }
        }
    }
}
