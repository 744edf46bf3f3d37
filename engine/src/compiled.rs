//! A compiled batch: a list of tasks with its graph, to be run once or many times.

use crate::counts::{Counts, Watch, count};
use crate::error::{Error, TaskError};
use crate::gather;
use crate::graph::{Edge, Graph};
use crate::plan::Owned;
use crate::ranks::Traffic;
use crate::report::{Report, fill::record_of};
use crate::summary::Summary;
use crate::task::Status;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Tasks compiled together. Has the interface of a task: start it, wait for it, put it into another list (where it
/// stands for its tasks); and it can be run again and again without compiling.
///
/// ```
/// use tarragon_engine::{Batch, tasks};
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
/// fn add(a: u64, b: u64) -> u64 {
///     a + b
/// }
///
/// let batch = Batch::new()?;
/// let a = batch.function(square, (3u64,));
/// let b = batch.function(square, (4u64,));
/// let c = batch.function(add, (a.result(), b.result()));
/// let compiled = batch.compile(tasks![a, b, c])?;
/// compiled.run()?;
/// assert_eq!(c.result().get()?, 25);
/// compiled.run()?; // the same graph again
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a compiled batch does nothing until it is started or run"]
pub struct Compiled {
    owned: Owned,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("tasks", &self.len()).finish_non_exhaustive()
    }
}

impl Compiled {
    pub(crate) fn new(owned: Owned) -> Self {
        Self { owned }
    }

    pub(crate) fn owned(&self) -> &Owned {
        &self.owned
    }

    /// Starts a run and returns at once. Results of an earlier run are replaced as the tasks run.
    ///
    /// Blocks only while other threads copy results of these tasks.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if it, or a compiled batch it shares tasks with, is running.
    pub fn start(&self) -> Result<(), Error> {
        self.owned.start(false)
    }

    /// Waits until the run has ended.
    ///
    /// # Errors
    /// [`Error::Task`] for the first task in list order that failed (each task's own outcome is in its handles, all of
    /// them in [`failures`](Self::failures)); [`Error::NotStarted`] at once if it was never started;
    /// [`Error::WaitsForItself`] if one of its own bodies asks.
    pub fn wait(&self) -> Result<(), Error> {
        let plan = self.owned.plan();
        if plan.cohorts().iter().any(|c| !c.has_run()) {
            return Err(Error::NotStarted);
        }
        if plan.is_around_us() {
            return Err(Error::WaitsForItself);
        }
        let is_over = || plan.cohorts().iter().all(|c| !c.is_running());
        plan.shared.executor.wait_or(&is_over, || {
            plan.cohorts().iter().for_each(|c| c.wait_idle());
        });
        plan.first_failure().map_or(Ok(()), |f| Err(Error::Task(f)))
    }

    /// Starts a run and waits for it.
    ///
    /// # Errors
    /// Those of [`start`](Self::start) and [`wait`](Self::wait).
    pub fn run(&self) -> Result<(), Error> {
        self.start()?;
        self.wait()
    }

    /// Runs it for the only time and waits: argument values that bodies take by value move into them instead of being
    /// copied. (Results of other tasks move in every run, once nobody else can want them.)
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::Shared`] if another list has its tasks, too.
    pub fn run_once(self) -> Result<(), Error> {
        let plan = self.owned.plan();
        if plan.owners.load(std::sync::atomic::Ordering::Acquire) != 1 || !plan.members.is_empty() {
            return Err(Error::Shared);
        }
        self.owned.start(true)?;
        self.wait()
    }

    /// Cancels the run under way, if there is one: tasks that have not begun are skipped, processes are ended (TERM,
    /// after their grace KILL, with all they have started), functions are asked through
    /// [`Context::cancelled`](crate::Context::cancelled). Does not wait for them.
    pub fn cancel(&self) {
        let plan = self.owned.plan();
        // Its own cohort runs in this plan alone, unless it is part of a larger one.
        plan.cohorts().iter().filter_map(|c| Some((c.run()?, c.id))).for_each(|(run, cohort)| {
            if Arc::ptr_eq(&run.plan, plan) {
                return run.cancel(None);
            }
            let own = |t: &crate::task::record::Ref| t.head().cohort.load(Ordering::Relaxed) == cohort;
            plan.tasks().filter(own).for_each(|task| run.cancel(Some(task)));
        });
    }

    /// How far it is: [`Status::Compiled`] before the first run, `Running` until the run has ended, then `Done`, or
    /// `Failed` if any task did not succeed.
    pub fn status(&self) -> Status {
        let cohorts = self.owned.plan().cohorts();
        if cohorts.iter().any(|c| c.is_running()) {
            Status::Running
        } else if cohorts.iter().any(|c| !c.has_run()) {
            Status::Compiled
        } else if cohorts.iter().any(|c| c.has_failures()) {
            Status::Failed
        } else {
            Status::Done
        }
    }

    /// How many tasks have come how far in the latest run.
    ///
    /// Cost: a look at every task, 1 to 5 ns each; who runs them does not wait.
    pub fn progress(&self) -> Counts {
        count(&self.owned)
    }

    /// A way to ask for its [`progress`](Self::progress) from another thread.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.owned)
    }

    /// Every task that failed or was skipped in the latest run, in list order; empty if all succeeded.
    pub fn failures(&self) -> Vec<TaskError> {
        self.owned.plan().cohorts().iter().flat_map(|c| c.failures()).collect()
    }

    /// How many tasks of the latest run did not run, because the journal says that their work is done; 0 without a
    /// journal.
    pub fn reused(&self) -> usize {
        self.owned.plan().reused.load(Ordering::Relaxed)
    }

    /// What ranks sent one another for it; `None` if all of it runs on this one.
    pub fn traffic(&self) -> Option<Traffic> {
        self.owned.plan().side.as_ref().and_then(|side| side.traffic())
    }

    /// Number of tasks.
    pub fn len(&self) -> usize {
        self.owned.plan().tasks().count()
    }

    /// Whether the list was empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of edges that running uses, on all ranks: fewer than conflicts, with the same order.
    pub fn edges(&self) -> usize {
        let plan = self.owned.plan();
        plan.edges.unwrap_or_else(|| plan.graph.frozen().csr.edges())
    }

    /// The graph, to look at and to draw. Made anew at each call; waits for the end of a run under way.
    ///
    /// # Panics
    /// If one of its own bodies asks: it would wait for itself.
    pub fn graph(&self) -> Graph {
        let plan = self.owned.plan();
        self.start_reading();
        let listing = gather::listing_of(plan);
        plan.stop_reading();
        let space = &plan.shared.space;
        let mut names = std::collections::HashMap::new();
        let edges = crate::compile::explain(&listing).into_iter().map(|(from, to, hazard, datum)| {
            let datum =
                (datum != 0).then(|| names.entry(datum).or_insert_with(|| space.name_of(datum)).clone());
            Edge { from, to, hazard, datum }
        });
        let edges = edges.collect();
        Graph { names: plan.list().into_iter().map(|t| t.name()).collect(), edges }
    }

    /// The latest run to look at: as a table, as a page with its timeline and graph, as a trace. `None` unless the
    /// batch measures ([`Builder::timing`](crate::Builder::timing)) and a run has ended; waits for the end of a run
    /// under way. Tasks that also ran as part of another list are shown as they ended last.
    ///
    /// Of a list on several ranks it shows all tasks, on the lanes of their ranks. Ranks of one machine have one clock;
    /// those of others are compared when the run starts, and the report says how exactly they are known: about half a
    /// message's round trip, and 15 millionths of what the run takes.
    ///
    /// Cost: about as much as compiling, and as much memory.
    ///
    /// # Panics
    /// If one of its own bodies asks: it would wait for itself.
    pub fn report(&self) -> Option<Report> {
        let plan = self.owned.plan();
        self.start_reading();
        let measured = plan.measured.lock().clone();
        let record = measured.map(|measured| record_of(plan, &measured));
        plan.stop_reading();
        record.map(Report::new)
    }

    /// Waits for the end of a run under way, and keeps the next from beginning until the plan's `stop_reading`.
    fn start_reading(&self) {
        let plan = self.owned.plan();
        assert!(!plan.is_around_us(), "a body looks at the whole of the compiled batch that it is part of");
        while !plan.try_start_reading() {
            let is_over = || plan.cohorts().iter().all(|c| !c.is_running());
            plan.shared.executor.wait_or(&is_over, || plan.cohorts().iter().for_each(|c| c.wait_idle()));
        }
    }

    /// T1, critical path, achieved speed of the latest run, over all ranks; `None` unless the batch measures
    /// ([`Builder::timing`](crate::Builder::timing)) and a run has ended.
    pub fn summary(&self) -> Option<Summary> {
        let plan = self.owned.plan();
        let measured = plan.measured.lock().clone()?;
        Some(Summary::new(plan, &measured))
    }
}
