//! How tasks fail: the cause, the chain of tasks skipped because of it, and what the user sees of both.

use super::process::{How, ProcessFailure};
use crate::task::record::Ref;
use crate::task::{JobRank, Usage};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a body did not give a value.
#[derive(Debug)]
pub enum Cause {
    /// It returned `Err`.
    Error(Box<dyn StdError + Send + Sync>),
    /// It panicked.
    Panic {
        /// The panic's message.
        message: String,
        /// File, line and column.
        place: String,
    },
    /// A by-value argument could not be copied: its own serde form refused.
    Copy(postcard::Error),
    /// The value of another task was taken by the user before this one could read it.
    InputTaken(String),
    /// The value of another task is not there.
    InputMissing(String),
    /// The output of another task could not be read.
    Output(String, io::Error),
    /// It ran longer than its timeout.
    TimedOut(Duration),
    /// It was told to stop before it began.
    Cancelled,
    /// It is a process, and failed as such.
    Process(Box<ProcessFailure>),
    /// The rank that was to run it is lost.
    RankLost {
        /// Its number.
        rank: u32,
        /// Its machine.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// The process that was to run it is gone.
    BatchLost {
        /// The process.
        pid: u32,
        /// Its machine.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// A task it needs did not succeed.
    Upstream(Arc<Failure>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Error(e) => write!(f, "{e}"),
            Cause::Panic { message, place } => write!(f, "panicked at {place}: {message}"),
            Cause::Copy(e) => write!(f, "an argument taken by value could not be copied: {e}"),
            Cause::InputTaken(name) => {
                write!(f, "the result of task `{name}` was taken before this task read it")
            }
            Cause::InputMissing(name) => write!(f, "the result of task `{name}` is not there"),
            Cause::Output(name, e) => write!(f, "the output of task `{name}` could not be read: {e}"),
            Cause::TimedOut(timeout) => write!(f, "over its timeout of {timeout:?}"),
            Cause::Cancelled => write!(f, "it was cancelled"),
            Cause::Process(process) => write!(f, "{process}"),
            Cause::RankLost { rank, host, why } => write!(f, "rank {rank} on {host} is lost: {why}"),
            Cause::BatchLost { pid, host, why } => {
                write!(f, "the batch of process {pid} on {host} is gone: {why}")
            }
            Cause::Upstream(failure) => write!(f, "{failure}"),
        }
    }
}

/// A task that failed or was skipped, as its cohort keeps it.
#[derive(Debug)]
pub struct Failure {
    /// The task's name.
    pub(crate) name: String,
    /// Its index in its list.
    pub(crate) index: u32,
    /// How often it was tried; 0 if it never began.
    pub(crate) attempts: u32,
    /// The rank it ran on, or was to.
    pub(crate) rank: u32,
    /// Where it is in the list that runs, which may hold its own; `None` if that is another list.
    pub(crate) place: Option<u32>,
    /// The place of the task at the beginning of the chain; `None` if that is of another list.
    pub(crate) root: Option<u32>,
    /// What it comes from is of another list.
    pub(crate) is_entry: bool,
    /// What happened.
    pub(crate) cause: Cause,
}

impl Failure {
    /// Whether a process failed by itself, so that its output may tell why.
    pub(crate) fn is_of_process(&self) -> bool {
        matches!(&self.cause, Cause::Process(process) if !matches!(process.how, How::Cancelled))
    }

    pub(crate) fn new(task: Ref, cause: Cause, attempts: u32) -> Arc<Self> {
        let (name, index, rank) = (task.name(), task.index(), task.shared().rank());
        Self::of(name, index, attempts, rank, cause)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            u32::MAX => write!(f, "task `{}` ", self.name)?,
            index => write!(f, "task #{index} `{}` ", self.name)?,
        }
        match &self.cause {
            Cause::Upstream(_) => write!(f, "was skipped"),
            Cause::Cancelled => write!(f, "was cancelled"),
            cause if self.attempts > 1 => write!(f, "failed {} times, at last: {cause}", self.attempts),
            cause @ Cause::Panic { .. } => write!(f, "{cause}"),
            cause => write!(f, "failed: {cause}"),
        }
    }
}

impl Drop for Failure {
    /// A chain of skipped tasks can be long, so it is taken apart in a loop and needs no deep stack.
    fn drop(&mut self) {
        let mut next = self.take_upstream();
        while let Some(failure) = next {
            next = Arc::into_inner(failure).and_then(|mut f| f.take_upstream());
        }
    }
}

impl Failure {
    /// Of a task whose record need not be here.
    pub(crate) fn of(name: String, index: u32, attempts: u32, rank: u32, cause: Cause) -> Arc<Self> {
        let place = Some(index);
        let root = if let Cause::Upstream(from) = &cause { from.root } else { place };
        Arc::new(Self { name, index, attempts, rank, place, root, is_entry: false, cause })
    }

    /// The same, at a place in the list that runs.
    pub(crate) fn placed(self: Arc<Self>, place: Option<u32>) -> Arc<Self> {
        let mut this = self;
        if let Some(failure) = Arc::get_mut(&mut this) {
            failure.place = place;
            if !matches!(failure.cause, Cause::Upstream(_)) {
                failure.root = place;
            }
        }
        this
    }

    /// The same, at the end of a chain that began in another list; `is_entry` if it is the first one in this.
    pub(crate) fn begun_outside(self: Arc<Self>, is_entry: bool) -> Arc<Self> {
        let mut this = self;
        if let Some(failure) = Arc::get_mut(&mut this) {
            (failure.root, failure.is_entry) = (None, is_entry);
        }
        this
    }

    /// The one at the beginning of the chain.
    pub(crate) fn root(&self) -> &Self {
        let mut failure = self;
        while let Cause::Upstream(next) = &failure.cause {
            failure = next;
        }
        failure
    }

    fn take_upstream(&mut self) -> Option<Arc<Self>> {
        match std::mem::replace(&mut self.cause, Cause::InputMissing(String::new())) {
            Cause::Upstream(next) => Some(next),
            _ => None,
        }
    }
}

/// What kind of failure a [`TaskError`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The body returned `Err`, or its arguments could not be made.
    Failed,
    /// The body panicked.
    Panicked,
    /// A task whose data it reads did not succeed.
    Skipped,
    /// The result was taken before, and a result can be taken once.
    Taken,
    /// The task was never compiled, submitted or started, so waiting would never end.
    NotStarted,
    /// The task did not end in the time given.
    TimedOut,
    /// The result could not be copied or its output could not be read.
    Unreadable,
    /// A body waits for something that cannot come before it ends.
    WaitsForItself,
    /// The process ended with an exit code that the task does not accept.
    Exited,
    /// A signal ended the process.
    Signalled,
    /// The process could not be started.
    CouldNotStart,
    /// The task ran longer than its own timeout.
    OverTime,
    /// The process tree used more memory than the task declares.
    OverMemory,
    /// The task was cancelled.
    Cancelled,
    /// The task was under way, or was to run, where its supervisor, its rank or the process of its batch died.
    Lost,
}

/// Why a task has no result: which task, what happened, and the chain of causes.
///
/// `source()` walks the chain, from a skipped task to the one that failed and the user's own error. Cheap to clone.
#[derive(Clone)]
pub struct TaskError {
    kind: ErrorKind,
    failure: Arc<Failure>,
    stdout: Option<Arc<str>>,
}

impl TaskError {
    pub(crate) fn of(failure: Arc<Failure>) -> Self {
        let kind = match &failure.cause {
            Cause::Upstream(_) => ErrorKind::Skipped,
            Cause::Panic { .. } => ErrorKind::Panicked,
            Cause::InputTaken(_) => ErrorKind::Taken,
            Cause::TimedOut(_) => ErrorKind::OverTime,
            Cause::Cancelled => ErrorKind::Cancelled,
            Cause::Process(process) => process.kind(),
            Cause::RankLost { .. } | Cause::BatchLost { .. } => ErrorKind::Lost,
            _ => ErrorKind::Failed,
        };
        Self { kind, failure, stdout: None }
    }

    pub(crate) fn failure(&self) -> Arc<Failure> {
        Arc::clone(&self.failure)
    }

    pub(crate) fn about(task: Ref, kind: ErrorKind, what: &str) -> Self {
        let cause = Cause::Error(what.into());
        Self { kind, failure: Failure::new(task, cause, 0), stdout: None }
    }

    pub(crate) fn output(task: Ref, error: io::Error) -> Self {
        Self::about(task, ErrorKind::Unreadable, &format!("its output could not be read: {error}"))
    }

    pub(crate) fn with_stdout(mut self, text: Option<String>) -> Self {
        self.stdout = text.map(Into::into);
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Name of the task.
    pub fn task(&self) -> &str {
        &self.failure.name
    }

    /// The rank that ran the task, or was to; 0 for a batch of one process.
    pub fn rank(&self) -> u32 {
        self.failure.rank
    }

    /// Index of the task in the list it was compiled in; `u32::MAX` if it was in none.
    pub fn index(&self) -> u32 {
        self.failure.index
    }

    /// What the task wrote to its context's output before it failed, if anything.
    pub fn stdout(&self) -> Option<&str> {
        self.stdout.as_deref()
    }

    /// Where the body panicked: file, line and column.
    pub fn place(&self) -> Option<&str> {
        match &self.root().cause {
            Cause::Panic { place, .. } => Some(place),
            _ => None,
        }
    }

    /// The user's own error, wherever in the chain of causes it is.
    ///
    /// ```
    /// # use tarragon_engine::{Batch, tasks};
    /// fn fails() -> Result<u8, std::io::Error> {
    ///     Err(std::io::ErrorKind::NotFound.into())
    /// }
    /// let batch = Batch::new()?;
    /// let task = batch.function(fails, ());
    /// batch.compile(tasks![task])?.run().expect_err("the task fails");
    /// let error = task.result().get().expect_err("the task fails");
    /// let own = error.downcast_ref::<std::io::Error>().expect("the body's own error");
    /// assert_eq!(own.kind(), std::io::ErrorKind::NotFound);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match &self.root().cause {
            Cause::Error(error) => error.downcast_ref(),
            _ => None,
        }
    }

    fn process(&self) -> Option<&ProcessFailure> {
        match &self.root().cause {
            Cause::Process(process) => Some(process),
            _ => None,
        }
    }

    /// What became of each rank of the job that failed; nothing if it was no job, or was ended as a whole.
    pub fn job_ranks(&self) -> &[JobRank] {
        match self.process().map(|process| &process.how) {
            Some(How::Job(job)) => &job.ranks,
            _ => &[],
        }
    }

    /// The exit code of the process that failed, if it exited; of a job that of the rank that failed first.
    pub fn exit_code(&self) -> Option<i32> {
        match self.process()?.how {
            How::Exited(code) => Some(code),
            How::Job(ref job) => job.code(),
            _ => None,
        }
    }

    /// The signal that ended the process that failed (or the first rank of a job that failed), and whether it left a
    /// core file.
    pub fn signal(&self) -> Option<(i32, bool)> {
        match self.process()?.how {
            How::Signal { signal, core } => Some((signal, core)),
            How::Job(ref job) => job.signal().map(|signal| (signal, false)),
            _ => None,
        }
    }

    /// The last lines that the process that failed wrote to its standard error, or else to its standard output.
    pub fn last_lines(&self) -> Option<&str> {
        self.process().map(|process| process.tail.as_str()).filter(|tail| !tail.is_empty())
    }

    /// What the process that failed used.
    pub fn usage(&self) -> Option<Usage> {
        self.process().map(|process| process.usage)
    }

    /// How often the task that failed was tried; 0 if it never began.
    pub fn attempts(&self) -> u32 {
        self.root().attempts
    }

    /// How often this task was tried itself, whichever failed.
    pub(crate) fn own_attempts(&self) -> u32 {
        self.failure.attempts
    }

    /// What this task used itself, if it is a process that failed.
    pub(crate) fn own_usage(&self) -> Option<Usage> {
        match &self.failure.cause {
            Cause::Process(process) => Some(process.usage),
            _ => None,
        }
    }

    /// Why, without saying again which task it is; of a skipped task what failed before it.
    pub(crate) fn reason(&self) -> String {
        match &self.failure.cause {
            Cause::Upstream(_) => format!("skipped because {}", self.root()),
            cause => cause.to_string(),
        }
    }

    /// The tasks from this one to the one that failed, by name.
    pub fn chain(&self) -> Vec<&str> {
        let mut names = vec![self.failure.name.as_str()];
        let mut failure = &self.failure;
        while let Cause::Upstream(next) = &failure.cause {
            names.push(&next.name);
            failure = next;
        }
        names
    }

    fn root(&self) -> &Failure {
        self.failure.root()
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure)?;
        let mut failure = &self.failure;
        while let Cause::Upstream(next) = &failure.cause {
            write!(f, " because {next}")?;
            failure = next;
        }
        Ok(())
    }
}

impl StdError for TaskError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.failure.source()
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause {
            Cause::Error(e) => Some(&**e),
            Cause::Copy(e) => Some(e),
            Cause::Output(_, e) => Some(e),
            Cause::Upstream(f) => Some(&**f),
            _ => None,
        }
    }
}
