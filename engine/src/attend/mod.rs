//! Tasks that no worker runs by itself: processes, and functions with a timeout, cpus, memory or other resources; and
//! every further attempt of a task that failed.
//!
//! ```text
//!   worker, user ──ready──▶ Office ──fill──▶ schedule::Desk        who may start?
//!                             │  ▲
//!         supervisor ◀──start─┤  ├──ended── supervisor              processes: a small process that watches them
//!             bodies ◀──call──┘  └──returned── bodies               functions: threads of their own
//!                             └──end_outside──▶ run                 what depends on it becomes ready
//! ```
//!
//! One *office* serves all batches of this program, so they draw on one ledger of cpus; it goes with the last of them.
//!
//! # Who may write what
//! - `inbox`: anybody pushes what happened.
//! - The *state* (the desk, jobs, timers, the supervisor's client) belongs to whoever *drives*: takes its lock, takes
//!   in the inbox, decides, sends. Whoever pushes tries to drive; if somebody else does, that one sees the push,
//!   because it looks at the inbox again after it has let go of the lock. So a user's thread that starts a process has
//!   it started before `start` returns, with no other thread in between.
//! - A driver that is no thread of the office goes home after a few rounds, and wakes the office's thread if there is
//!   more.
//! - Nodes are ended (`Run::end_outside`) outside of the lock, so that what becomes ready may come back in. Whoever
//!   does so reads `ends`, so that a batch that goes can wait until nobody here has a share in it.
//! - The office's thread reads the supervisor's events and keeps the timers; it sleeps in `poll` otherwise.
//!
//! # States of a job
//! `Waiting` for resources → (`Standing` with the supervisor →) `Running` → ended; or after a failure that is worth
//! another attempt `Resting` until its back-off is over → `Waiting`. A function's body is `open` until either it
//! returns (`concluded`) or its time is up (`given up`): one compare-and-swap decides which, so it ends once.
//!
//! # Who may die
//! - A process: the supervisor tells how. Its tree goes with it.
//! - Nobody, but the system has no room for a process (pids, memory, descriptors): it is started again later, for about
//!   half a minute, before that counts as an attempt that failed.
//! - The supervisor: its socket ends; the trees it watched are killed by us, their tasks fail as lost (and are tried
//!   again if they have retries); the next process starts a new supervisor.
//! - This program: the supervisor sees its socket end and kills all trees within a second.

mod bodies;
mod give;
mod gpus;
mod halt;
mod job;
mod launch;
mod ledger;
mod muster;
mod office;
mod outcome;
mod process;
mod signals;
mod state;
mod timers;
mod why;

pub(crate) use gpus::Gpus;
pub(crate) use ledger::{Share, Totals};
pub(crate) use office::{Desk, Office, bind_body, while_waiting};
pub(crate) use signals::is_interrupted;
