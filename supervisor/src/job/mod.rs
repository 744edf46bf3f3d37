//! Jobs: an MPI program of several ranks, on this machine or on several, as one process of the engine's.
//!
//! # Shape
//! ```text
//!  engine ── supervisor ── leader ── launcher (mpirun, srun) ─┬─ guard ── rank 0
//!                             ▲                               ├─ guard ── rank 1
//!                             └──── a TCP connection each ────┴─ …
//! ```
//! For the supervisor a job is one process, the *leader*, so whatever holds for processes holds for jobs. The leader
//! has a launcher start one *guard* per rank in place of the program; each guard connects back to the leader, hears
//! what it is to run, runs it as its child, sends what that writes, and tells how it ended. Leader and guard are this
//! executable, which becomes them before its `main` (as it becomes the supervisor); so it has to be on every machine.
//!
//! A guard between launcher and program gives what launchers do not: output and exit code of each rank, whole;
//! programs, arguments, environment and directory as they were given, through no shell and no launcher's command line;
//! the same reading of a failure under each launcher; and an end on every machine, however the leader's went.
//!
//! # Who may die
//! | who | what follows |
//! |---|---|
//! | a rank fails | the leader has the others end (TERM, after the grace KILL): the first failure is the job's |
//! | a guard | its connection ends: its rank counts as lost, the others end |
//! | the launcher | the leader has all ranks end |
//! | the leader, also with the supervisor, the engine, its machine | guards see the connection end, and end what runs |
//!
//! A machine that is gone without a word is noticed by the connection's keepalive, after ten seconds.
//!
//! # Files
//! In the job's folder: `order`, which the engine writes; `R.out` and `R.err`, what rank R wrote; `launcher`, what the
//! launcher wrote; `table`, what became of each rank. The leader's own output is what all ranks wrote, line by line,
//! with `R: ` before each.
//!
//! # Trust
//! A leader listens on this machine's loopback, or if ranks are on others on all its addresses. Whoever connects must
//! know a secret that guards have in their environment.

mod channel;
mod devices;
mod guard;
mod leader;
mod listening;
mod order;
mod outputs;
mod table;

pub use devices::{Devices, Ids, VISIBLE};
pub use order::{Cpus, Executable, Order};
pub use table::{RankEnd, Table, Trouble};

pub(crate) use guard::run as guard;
pub(crate) use leader::run as lead;

/// The name (`argv[0]`) under which a program of ours is a leader; the job's folder follows.
pub(crate) const LEADER: &str = "tarragon-job";
/// The first argument of a program of ours that is a guard.
pub(crate) const GUARD: &str = "tarragon-rank";
/// The variable by which guards know their leader.
const VARIABLE: &str = "TARRAGON_JOB";
