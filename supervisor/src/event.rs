//! What the supervisor tells. How it travels is left to `wire`.

use std::process::ExitStatus;
use std::time::Duration;

use crate::request::Why;

/// Something that happened to a process. For each process that was sent there is exactly one of `CouldNotStart`,
/// `Bounced`, `Dropped`, or `Started` followed by `Ended`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It runs.
    Started {
        /// The engine's number for it.
        id: u64,
        /// Its process id, which is its process group, too.
        pid: u32,
        /// When the supervisor began to start it, in nanoseconds of the monotonic clock.
        at_ns: u64,
        /// The process it took over from; none for one that did not stand.
        follows: Option<u64>,
    },
    /// It does not run and will not.
    CouldNotStart {
        /// The engine's number for it.
        id: u64,
        /// What failed.
        step: Step,
        /// The error number of the system.
        errno: i32,
        /// The process it would have taken over from; none for one that did not stand.
        follows: Option<u64>,
    },
    /// It ran, and it and its tree are gone.
    Ended(Ended),
    /// It cannot stand: no process of its hold is running, so none would wake it.
    Bounced {
        /// The engine's number for it.
        id: u64,
    },
    /// It was killed while it stood.
    Dropped {
        /// The engine's number for it.
        id: u64,
    },
}

impl Event {
    /// The engine's number for the process that this is about.
    pub fn id(&self) -> u64 {
        match self {
            Event::Started { id, .. }
            | Event::CouldNotStart { id, .. }
            | Event::Bounced { id }
            | Event::Dropped { id } => *id,
            Event::Ended(ended) => ended.id,
        }
    }
}

/// What can fail when a process starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Its CPUs are not to be had.
    Affinity,
    /// Its working directory cannot be opened or entered.
    Cwd,
    /// The file for its input cannot be opened.
    Stdin,
    /// The file for its output cannot be opened.
    Stdout,
    /// The file for its error output cannot be opened.
    Stderr,
    /// The program cannot be executed.
    Program,
    /// The system has no room for another process, or the number is in use.
    Spawn,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The engine's number for it.
    pub id: u64,
    /// The status of its main process: see [`std::os::unix::process::ExitStatusExt`] for signals and core dumps.
    pub status: ExitStatus,
    /// What made the supervisor kill it; none if it ended by itself.
    pub why: Option<Why>,
    /// The largest resident memory, in bytes, that its main process or one it waited for had.
    pub max_rss_bytes: u64,
    /// The processor time of its main process and those it waited for.
    pub user: Duration,
    /// The time that the system worked for these.
    pub system: Duration,
    /// When the supervisor began to start it, in nanoseconds of the monotonic clock.
    pub started_ns: u64,
    /// When the supervisor saw the end of its main process, on the same clock.
    pub ended_ns: u64,
    /// How many processes of its tree outlived the main process and were killed. A process that left both the group
    /// and its parents, as a daemon does, is found and killed within moments, too, but may not be counted.
    pub leftovers: u32,
    /// The standing process that has taken over its resources.
    pub taken_over_by: Option<u64>,
}
