//! What is known of a run once it has ended. Filling it is left to whoever ran the tasks.

/// One run of a list. Text in it may hold anything: names and messages come from users and their programs.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunRecord {
    /// What the user calls the run.
    pub(crate) name: String,
    /// When it started: milliseconds since 1970, UTC.
    pub(crate) started_unix_ms: u64,
    /// From its start to the end of its last task.
    pub(crate) wall_ns: u64,
    /// Who ran tasks, one at a time each: `worker 0`, `process slot 3`.
    pub(crate) lanes: Vec<String>,
    /// By rank the end of its lanes, which stand together; empty if it ran on one rank.
    pub(crate) rank_ends: Vec<u32>,
    /// How far times of two ranks may be wrong against each other.
    pub(crate) within_ns: u64,
    /// The tasks, in list order.
    pub(crate) tasks: Vec<TaskRecord>,
    /// Which task waits for which, as (earlier, later) positions in `tasks`. Every edge goes forward in the list; one
    /// that does not, or names no task, is left out of what is shown.
    pub(crate) edges: Vec<(u32, u32)>,
    /// Where it ran, in words.
    pub(crate) machine: String,
}

/// One task of a run.
#[derive(Clone, Debug)]
pub(crate) struct TaskRecord {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) ending: Ending,
    /// Position in `lanes` of who ran it last.
    pub(crate) lane: u32,
    /// Nanoseconds since the run's start; start and end are both 0 for a task that never ran.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// How often it was started.
    pub(crate) attempts: u32,
    /// Why it failed, or what it ran. The first line says the most.
    pub(crate) detail: String,
    /// CPU time; 0 where nobody measured.
    pub(crate) cpu_ns: u64,
    /// Peak resident memory in bytes; 0 where nobody measured.
    pub(crate) max_rss_bytes: u64,
}

/// What a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Function,
    Closure,
    Process,
}

/// How a task ended. The order is the one in which counts are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Done,
    Failed,
    Skipped,
    Cancelled,
    /// It did not run: its result of an earlier run was taken.
    Reused,
}

impl RunRecord {
    /// The rank of a lane; `None` if all are of one, or there is no such lane.
    pub(crate) fn rank_of(&self, lane: u32) -> Option<usize> {
        let rank = self.rank_ends.partition_point(|end| *end <= lane);
        (rank < self.rank_ends.len()).then_some(rank)
    }

    /// The edges that go forward between tasks of the list.
    pub(crate) fn forward_edges(&self) -> impl Iterator<Item = (u32, u32)> {
        let tasks = self.tasks.len();
        self.edges.iter().copied().filter(move |(from, to)| from < to && (*to as usize) < tasks)
    }
}

impl TaskRecord {
    pub(crate) fn ran(&self) -> bool {
        (self.start_ns, self.end_ns) != (0, 0)
    }

    pub(crate) fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Function, Self::Closure, Self::Process];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Closure => "closure",
            Self::Process => "process",
        }
    }
}

impl Ending {
    pub(crate) const ALL: [Self; 5] =
        [Self::Done, Self::Failed, Self::Skipped, Self::Cancelled, Self::Reused];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Reused => "reused",
        }
    }
}
