//! Runs a graph: serially in execution order, or on a pool of work-stealing workers.
//!
//! `seats` decides who is awake, `hoard` what a worker keeps for itself, `worker` is the loop, `pool` the threads,
//! `solo` how a run begins, `search` how a worker finds more, `give` how another rank does, `outside` how nodes end
//! that no worker runs, `past` what has run on a lost rank, `stop` and `retry` what is cancelled and tried again,
//! `measured` when nodes ran, `serial` the
//! reference that everything else must agree with, and `node` what it means to run one node.

mod give;
mod hoard;
pub(crate) mod measured;
mod node;
mod outside;
mod past;
mod pool;
pub(crate) mod retry;
mod search;
mod seats;
mod serial;
mod solo;
mod stop;
mod worker;

pub(crate) use measured::{Measured, Others, Timed};
pub(crate) use node::{Ran, Run};
pub(crate) use past::Past;
pub(crate) use pool::Pool;
pub(crate) use seats::WORKERS_MAX;
pub(crate) use stop::{Stop, Wanted};

use crate::attend::while_waiting;
use crate::body::inside;
use crate::clients::Connection;
use crate::shared::Shared;
use crate::task::record::Ref;
use std::sync::Arc;
use std::time::Instant;

/// How a batch runs its tasks.
pub(crate) enum Executor {
    /// On the thread that starts them, one after the other.
    Serial,
    /// On worker threads.
    Pool(Arc<Pool>),
    /// In another process, which tells how its tasks end.
    Remote(Arc<Connection>),
}

impl Executor {
    /// Runs, or hands over to the workers, a run that has begun.
    pub(crate) fn execute(&self, run: &Arc<Run>) {
        match self {
            Executor::Serial => serial::execute(run),
            Executor::Pool(pool) => pool.execute(run),
            Executor::Remote(_) => match run.plan.cohort.sent() {
                Some(sent) => sent.begin(run),
                None => run.finish(),
            },
        }
    }

    /// Waits until `is_over`, which the end of `task` makes true; false if the deadline comes first. A worker that
    /// waits inside a body runs other tasks meanwhile.
    pub(crate) fn wait(
        &self,
        shared: &Shared,
        task: Ref,
        deadline: Option<Instant>,
        is_over: &dyn Fn() -> bool,
    ) -> bool {
        if let Executor::Pool(pool) = self
            && let Some(over) = inside::waits(|| worker::help(pool, deadline, is_over))
        {
            return over;
        }
        while_waiting(|| shared.awaited.sleep(task, deadline, is_over))
    }

    /// As [`wait`](Self::wait), for something that is not the end of one task; `sleep` is called outside of bodies.
    pub(crate) fn wait_or(&self, is_over: &dyn Fn() -> bool, sleep: impl FnOnce()) {
        if let Executor::Pool(pool) = self
            && inside::waits(|| worker::help(pool, None, is_over)).is_some()
        {
            return;
        }
        while_waiting(sleep);
    }

    pub(crate) fn pool(&self) -> Option<&Arc<Pool>> {
        match self {
            Executor::Serial | Executor::Remote(_) => None,
            Executor::Pool(pool) => Some(pool),
        }
    }

    /// The process that runs the tasks, if it is another.
    pub(crate) fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Executor::Serial | Executor::Pool(_) => None,
            Executor::Remote(connection) => Some(connection),
        }
    }

    pub(crate) fn is_serial(&self) -> bool {
        matches!(self, Executor::Serial)
    }

    /// Whether this thread is one of the workers, inside a body.
    pub(crate) fn is_worker(&self) -> bool {
        match self {
            Executor::Serial => serial::is_inside(),
            Executor::Pool(pool) => worker::is_me(pool),
            Executor::Remote(_) => false,
        }
    }

    pub(crate) fn workers(&self) -> usize {
        match self {
            Executor::Serial => 1,
            Executor::Pool(pool) => pool.threads(),
            Executor::Remote(connection) => connection.workers(),
        }
    }
}
