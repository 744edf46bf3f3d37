//! What can go wrong, in three kinds: mistakes in a list ([`CompileError`], all of them at once), what we could not do
//! ([`Error`]), and how a task failed ([`TaskError`], data that the user asks for).

use crate::task::record::Ref;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What the engine could not do. `Debug` shows the message, so that `fn main() -> Result<(), Error>` prints it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of tasks has mistakes; nothing was run.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A batch of no workers was asked for.
    #[error(
        "a batch needs at least one worker thread; give `Workers::Threads(1)` or more, or leave the default"
    )]
    NoWorkers,
    /// More workers than the engine supports.
    #[error("{asked} worker threads asked for, at most {max} are possible")]
    TooManyWorkers {
        /// Threads asked for.
        asked: usize,
        /// The bound.
        max: usize,
    },
    /// The system refused threads.
    #[error("cannot start {threads} worker threads")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The compiled batch, or one it shares tasks with, is running.
    #[error("this compiled batch is already running: wait for it before starting it again")]
    AlreadyRunning,
    /// A task was started that already belongs to a compiled batch or was started before.
    #[error(
        "task `{0}` was started or compiled before: a task runs once, or again as part of its compiled batch"
    )]
    AlreadyStarted(String),
    /// The compiled batch was never started, so waiting for it would never end.
    #[error("this compiled batch was never started: call `start` or `run`")]
    NotStarted,
    /// A compiled batch was to run for the only time, but others can run its tasks, too.
    #[error(
        "other lists share tasks with this compiled batch, so it cannot run for the only time: use `run`"
    )]
    Shared,
    /// A body waits for the list that it is part of.
    #[error(
        "a body waits for the compiled batch that it is part of, which would never end: wait for single tasks"
    )]
    WaitsForItself,
    /// A body starts a batch whose results its own run reads.
    #[error(
        "this compiled batch cannot start again before the run ends that reads its results, which is our own"
    )]
    BeingRead,
    /// A declaration came too late.
    #[error("task `{0}` is compiled: its reads, writes and options can no longer change")]
    Sealed(String),
    /// A task or compiled batch failed, and the caller asked for success.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Every mistake found in a list of tasks.
#[derive(Debug, Clone)]
pub struct CompileError {
    /// What tasks declare first, then what they take from each other; never empty.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.mistakes.len();
        write!(f, "the task list has {n} mistake{}", if n == 1 { "" } else { "s" })?;
        self.mistakes.iter().try_for_each(|m| write!(f, "\n  {m}"))
    }
}

impl StdError for CompileError {}

/// One mistake in a list of tasks.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// An argument is the result of a task further down the list.
    #[error(
        "task #{task} `{name}` takes the result of task #{producer} `{producer_name}`, which comes later in the list: \
         move the producer before it"
    )]
    LaterInput {
        /// Index of the consumer.
        task: u32,
        /// Its name.
        name: String,
        /// Index of the producer.
        producer: u32,
        /// Its name.
        producer_name: String,
    },
    /// An argument is the result of a task that is in no list.
    #[error(
        "task #{task} `{name}` takes the result of `{producer_name}`, which is neither in the list nor started: \
         add it to the list before this task"
    )]
    UnlistedInput {
        /// Index of the consumer.
        task: u32,
        /// Its name.
        name: String,
        /// Name of the producer.
        producer_name: String,
    },
    /// An argument is the result of a task of another `Batch`.
    #[error(
        "task #{task} `{name}` takes the result of `{producer_name}`, which belongs to another batch: get() it there \
         and pass the value"
    )]
    ForeignInput {
        /// Index of the consumer.
        task: u32,
        /// Its name.
        name: String,
        /// Name of the producer.
        producer_name: String,
    },
    /// A task of another `Batch` is in the list.
    #[error("task #{task} `{name}` belongs to another batch: make it with the batch that compiles it")]
    ForeignTask {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
    },
    /// A datum made by another `Batch`.
    #[error(
        "task `{name}` declares {datum}, made by another batch: make the datum with the batch of the task"
    )]
    ForeignDatum {
        /// The task's name.
        name: String,
        /// The datum.
        datum: String,
    },
    /// A task is in the list twice, or was compiled or started before.
    #[error(
        "task #{task} `{name}` was already compiled or started: list the compiled batch it is in, or make a new task"
    )]
    Relisted {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
    },
    /// A task or compiled batch is in the list more than once (a compiled batch inside itself, for example).
    #[error(
        "task #{task} `{name}` is in the list twice, first as #{first}: a task runs once per run of its list"
    )]
    Twice {
        /// The later index.
        task: u32,
        /// The earlier one.
        first: u32,
        /// Its name.
        name: String,
    },
    /// A datum without a name.
    #[error("task `{name}` declares a datum with an empty name: give it a name or a path")]
    EmptyDatum {
        /// The task's name.
        name: String,
    },
    /// A relative path, and no current directory to make it absolute.
    #[error("task `{name}` declares the relative path {path:?}, but there is no current directory: {why}")]
    NoCurrentDirectory {
        /// The task's name.
        name: String,
        /// The path.
        path: std::path::PathBuf,
        /// What the system said.
        why: String,
    },
    /// More tasks than one list can hold.
    #[error("the list has {tasks} tasks, at most {max} fit in one: compile it in parts")]
    TooManyTasks {
        /// Tasks in the list.
        tasks: usize,
        /// The bound.
        max: usize,
    },
    /// More edges than one graph can hold.
    #[error(
        "the tasks have more than {max} dependences: compile the list in parts, or declare fewer accesses"
    )]
    TooManyEdges {
        /// The bound.
        max: u32,
    },
    /// A cost that is no positive number.
    #[error("task `{name}` has a cost of {cost}: give a positive, finite number")]
    BadCost {
        /// The task's name.
        name: String,
        /// As written.
        cost: String,
    },
}

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
    /// What happened.
    pub(crate) cause: Cause,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            u32::MAX => write!(f, "task `{}` ", self.name)?,
            index => write!(f, "task #{index} `{}` ", self.name)?,
        }
        match &self.cause {
            Cause::Upstream(_) => write!(f, "was skipped"),
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
            _ => ErrorKind::Failed,
        };
        Self { kind, failure, stdout: None }
    }

    pub(crate) fn failure(&self) -> Arc<Failure> {
        Arc::clone(&self.failure)
    }

    pub(crate) fn about(task: Ref, kind: ErrorKind, what: &str) -> Self {
        let cause = Cause::Error(what.into());
        Self {
            kind,
            failure: Arc::new(Failure { name: task.name(), index: task.index(), cause }),
            stdout: None,
        }
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
        let mut failure = &self.failure;
        while let Cause::Upstream(next) = &failure.cause {
            failure = next;
        }
        failure
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
