//! A task that is attended to, from being ready until it has ended.

use crate::ranks::Holding;
use crate::run::Run;
use crate::schedule::InstanceId;
use crate::task::record::Ref;
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// See the states in the module's page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Waiting,
    Standing,
    Running,
    Resting,
}

pub(super) struct Job {
    pub(super) run: Arc<Run>,
    pub(super) node: u32,
    pub(super) task: Ref,
    pub(super) instance: InstanceId,
    /// The attempt at hand, from 1.
    pub(super) attempt: u32,
    pub(super) stage: Stage,
    pub(super) cancelled: bool,
    /// A function's body.
    pub(super) body: Option<Arc<Body>>,
    /// How often the system had no room for it.
    pub(super) refused: u32,
    /// The number of its output files, once it has some.
    pub(super) output: Option<u64>,
    /// Its place among running jobs: its lane in a run's record.
    pub(super) lane: Option<u32>,
    /// When its body was called, by the run's clock.
    pub(super) began: u64,
    /// Of an MPI job with cpus of several ranks: the ranks, this one first, and how many of the job's are on each.
    pub(super) dealt: Vec<(u32, u32)>,
    /// It holds those of the others.
    pub(super) holding: Option<Holding>,
}

/// How often a process is started that the system has no room for; about half a minute in all.
const REFUSED_MAX: u32 = 10;
/// How long to wait the first time; twice as long each further time, up to `REFUSED_PAUSE_MAX`.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(5);

impl Job {
    /// Several ranks run it at once.
    pub(super) fn is_of_gang(&self) -> bool {
        self.task.gang() > 1
    }

    /// It is an MPI job.
    pub(super) fn is_mpi(&self) -> bool {
        self.task.is_mpi()
    }

    /// When to start the process again which the system refused with this error: where processes, memory or
    /// descriptors have run out, others will give some back. `None` for other errors, and after many times.
    pub(super) fn starts_again(&mut self, errno: i32) -> Option<Duration> {
        let errno = Errno::from_raw_os_error(errno);
        let passes = matches!(errno, Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE);
        if !passes || self.cancelled || self.refused == REFUSED_MAX {
            return None;
        }
        self.refused += 1;
        Some((REFUSED_PAUSE * (1 << (self.refused - 1))).min(REFUSED_PAUSE_MAX))
    }
}

const OPEN: u8 = 0;
const CONCLUDED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// One attempt of a function, as its thread and the office share it.
#[derive(Default)]
pub(super) struct Body {
    state: AtomicU8,
    /// The attempt's time is up: `Context::cancelled` says so.
    pub(super) over: Arc<AtomicBool>,
}

impl Body {
    /// The body has returned; false if it was given up before.
    pub(super) fn conclude(&self) -> bool {
        self.state.compare_exchange(OPEN, CONCLUDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The office waits no longer; false if the body has returned.
    pub(super) fn give_up(&self) -> bool {
        self.state.compare_exchange(OPEN, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
