//! What the engine may ask for. How it travels is left to `wire`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// One request to the supervisor.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// Start this process now.
    Start(Spawn<'a>),
    /// Start this process as soon as a running one with the same [`hold`](Spawn::hold) has ended, in order of
    /// arrival. With none running it comes back as [`Event::Bounced`](crate::Event::Bounced).
    Stand(Spawn<'a>),
    /// End the tree of a process: TERM at once, KILL after `grace` until nothing is left. A standing process is
    /// dropped; one that has ended is no error, and nothing happens.
    Kill {
        /// The process.
        id: u64,
        /// How long the tree may take between TERM and KILL.
        grace: Duration,
        /// What [`Ended::why`](crate::Ended::why) will say.
        why: Why,
    },
    /// Keep a shared lock (`flock`) on this file, made when it is not there, until the supervisor ends, which is when
    /// all trees are gone: who gets the exclusive lock knows that none of them writes any more, even if the engine was
    /// killed. Where it cannot be had, nothing happens.
    Lock {
        /// The file, an absolute path.
        path: &'a Path,
    },
    /// Forget an environment block. Processes that stand with it start with no environment but their own.
    Forget {
        /// The block.
        base: u32,
    },
}

/// A process to start.
#[derive(Clone, Debug)]
pub struct Spawn<'a> {
    /// The engine's number for it, which no running or standing process may have.
    pub id: u64,
    /// The kind of resources it holds while it runs: what a standing process of the same hold can take over.
    pub hold: u32,
    /// The executable, an absolute path; there is no search along `PATH`.
    pub program: &'a Path,
    /// All arguments, the program's name (`argv[0]`) first.
    pub args: &'a [OsString],
    /// The environment block it starts from; one that is not defined is empty.
    pub base: u32,
    /// Changes to the block, in order; `None` removes a name.
    pub env: &'a [(OsString, Option<OsString>)],
    /// Its working directory; the root directory if none is given.
    pub cwd: Option<&'a Path>,
    /// Its standard input. This path and those of the outputs, if relative, start at `cwd`.
    pub stdin: Input<'a>,
    /// The file for its standard output: made if it is not there, emptied, and appended to.
    pub stdout: &'a Path,
    /// The file for its standard error, treated likewise.
    pub stderr: Output<'a>,
    /// How long it may run; then its tree is killed.
    pub timeout: Option<Duration>,
    /// How long its tree may take between TERM and KILL, when its time is up or when it has left processes behind
    /// (then at most one second).
    pub grace: Duration,
    /// The CPUs it may run on. A standing process takes over those of the one it follows, if that had some.
    pub affinity: Option<&'a [u32]>,
    /// How many bytes of memory its tree may use; beyond, it is killed at once.
    pub memory_bytes: Option<u64>,
}

impl<'a> Spawn<'a> {
    /// A process without limits, with environment block 0, no input, and both outputs in one file. Its tree may take
    /// two seconds between TERM and KILL.
    pub fn new(id: u64, program: &'a Path, args: &'a [OsString], stdout: &'a Path) -> Spawn<'a> {
        Spawn {
            id,
            hold: 0,
            program,
            args,
            base: 0,
            env: &[],
            cwd: None,
            stdin: Input::Null,
            stdout,
            stderr: Output::SameAsStdout,
            timeout: None,
            grace: Duration::from_secs(2),
            affinity: None,
            memory_bytes: None,
        }
    }
}

/// Where standard input comes from.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Nowhere: `/dev/null`.
    Null,
    /// From a file.
    File(&'a Path),
}

/// Where standard error goes.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// To a file of its own.
    File(&'a Path),
    /// Where standard output goes, in the order of writing.
    SameAsStdout,
}

/// What made the supervisor kill a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Its time was up.
    TimedOut,
    /// It used more memory than it may.
    OverMemory,
    /// The engine did not want it any more.
    Cancelled,
}
