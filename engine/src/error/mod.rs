//! What can go wrong, in three kinds: mistakes in a list ([`CompileError`], all of them at once), what we could not do
//! ([`Error`]), and how a task failed ([`TaskError`], data that the user asks for).

pub(crate) mod carried;
mod failure;
mod job;
mod mistake;
mod process;

pub use failure::{Cause, ErrorKind, Failure, TaskError};
pub(crate) use job::JobFailure;
pub use mistake::Mistake;
pub(crate) use process::How;
pub use process::ProcessFailure;

use crate::clients::AttachError;
use std::error::Error as StdError;
use std::fmt;

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
    /// A body of the compiled batch ignored its timeout and has not returned.
    #[error(
        "a body of this compiled batch ignored its timeout and still runs, so it cannot start again: let bodies with a \
         timeout ask `Context::cancelled`"
    )]
    BodyStillRuns,
    /// More cpus than are left to this program.
    #[error("{asked} cpus asked for one batch, but of {granted} that this program may use {left} are left")]
    NotEnoughCpus {
        /// Cpus asked for.
        asked: u32,
        /// Cpus that no other batch has for itself.
        left: u32,
        /// Cpus this program may use.
        granted: u32,
    },
    /// More GPUs than are left to this program.
    #[error(
        "{asked} gpus asked for one batch, but of {granted} that this program may use ({why}) {left} are left; \
         `Builder::assume_gpus` has a batch believe that there are more"
    )]
    NotEnoughGpus {
        /// GPUs asked for.
        asked: u32,
        /// GPUs that no other batch has for itself.
        left: u32,
        /// GPUs this program may use.
        granted: u32,
        /// Which source says so.
        why: String,
    },
    /// An amount of a resource of a batch that is no positive number.
    #[error("a batch cannot have {amount} of {resource}: give a positive, finite amount")]
    BadResource {
        /// The resource.
        resource: String,
        /// As written.
        amount: String,
    },
    /// The client was closed.
    #[error("this client of the batch is closed: submit before `close`, or by another clone of the batch")]
    Closed,
    /// Tasks were submitted to a batch that does not queue them.
    #[error(
        "this batch was built with `background(false)`: compile and start the list instead of submitting it"
    )]
    NoBackground,
    /// A file that a task wrote could not be read, or one that was asked for could not be written.
    #[error("cannot {verb} {path}")]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A signal told the program to stop.
    #[error("interrupted by a signal: nothing starts any more")]
    Interrupted,
    /// The journal cannot be opened, read or written.
    #[error("{0}")]
    Journal(String),
    /// The journal is of another list of tasks.
    #[error(
        "none of the {tasks} tasks in the journal {} is in this list: give the journal of this list, or another path \
         for a new one", path.display()
    )]
    OtherJournal {
        /// The journal.
        path: std::path::PathBuf,
        /// Tasks in it.
        tasks: usize,
    },
    /// Tasks that must run again read what is no longer there.
    #[error("cannot resume: {}", gone(tasks))]
    CannotResume {
        /// Names of tasks, and of what they read.
        tasks: Vec<(String, String)>,
    },
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
    /// The ranks of this program could not come together.
    #[error("the ranks of this program cannot work together: {0}")]
    World(#[source] Box<dyn StdError + Send + Sync>),
    /// A rank died.
    #[error(
        "rank {rank} on {host} is lost ({why}), and with it the lists that ran there: start the program again"
    )]
    RankLost {
        /// Its number.
        rank: u32,
        /// Its machine.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// A rank was to serve that cannot.
    #[error("rank 0 runs the program and does not serve, and other ranks serve once")]
    ServesNot,
    /// A batch over ranks was asked for on a rank that is not the first.
    #[error(
        "rank {0} cannot start lists on other ranks: call `serve` there, or build the batch with `alone()`"
    )]
    NotHome(u32),
    /// This process cannot become a client of a batch of another.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The process with the batch is gone, or has let its clients go.
    #[error("the batch of process {pid} on {host} is gone ({why}): what it had not finished is lost")]
    BatchLost {
        /// The process.
        pid: u32,
        /// Its machine.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// The process with the batch cannot start a list of this client.
    #[error("the batch of process {pid} cannot start the list: {why}")]
    BatchRefused {
        /// The process.
        pid: u32,
        /// What it says.
        why: String,
    },
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

fn gone(tasks: &[(String, String)]) -> String {
    let (task, datum) = &tasks[0];
    let more = if tasks.len() > 1 { format!(" (and {} more)", tasks.len() - 1) } else { String::new() };
    format!(
        "task `{task}` must run again and reads {datum}, which a later task of the killed run has overwritten{more}: \
         put it back as it was, and start with a new journal"
    )
}
