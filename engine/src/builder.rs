//! Options of a batch: how tasks run, what they may use, where their output goes.

use crate::attend::{Gpus, Share, Totals};
use crate::batch::{Batch, Workers};
use crate::body::install_panic_hook;
use crate::error::{Error, carried};
use crate::events;
use crate::function::Data;
use crate::journal::{Options, Sync};
use crate::launch::{Hosts, Launching};
use crate::machine::Machine;
use crate::outputs::Outputs;
use crate::ranks::{Ranks, Setup};
use crate::resume::Book;
use crate::run::{Executor, Pool, WORKERS_MAX};
use crate::schedule::UNITS;
use crate::shared::{Parts, Resources, Shared};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Options of a [`Batch`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    workers: Option<Workers>,
    timing: bool,
    cpus: Option<Cpus>,
    /// GPUs that it has for itself, or that are assumed.
    gpus: Option<Cpus>,
    memory: Option<u64>,
    resources: Vec<(String, f64)>,
    run_dir: Option<PathBuf>,
    keep_output: bool,
    unbound: bool,
    hosts: Vec<(String, u32)>,
    launcher: Option<PathBuf>,
    keeps_place: bool,
    foreground: bool,
    leaves_signals: bool,
    journal: Option<PathBuf>,
    journal_options: Options,
    /// Locked as long as what is built may write.
    lock: Option<PathBuf>,
    reach: Reach,
    survives_losses: bool,
    /// The names of errors that come from other ranks as what they are.
    errors: Vec<i64>,
}

/// Which ranks a batch uses.
#[derive(Clone, Default)]
enum Reach {
    /// Those that a launcher started together, if it did.
    #[default]
    Launch,
    /// This process alone.
    Alone,
    /// Copies of this program.
    #[cfg(not(loom))]
    Spawn(u32),
    /// Those of a world that the program has joined.
    #[cfg(not(loom))]
    World(Arc<tarragon_transport::World>),
    /// It runs parts for these.
    Of(Arc<Ranks>),
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reach::Launch => "Launch",
            Reach::Alone => "Alone",
            #[cfg(not(loom))]
            Reach::Spawn(_) => "Spawn",
            #[cfg(not(loom))]
            Reach::World(_) => "World",
            Reach::Of(_) => "Of",
        })
    }
}

/// When the records of a journal have to be on the disk, where a power failure does not reach them. However it is, the
/// end of the program alone, `kill -9` included, costs at most the last milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JournalSync {
    /// Each before anything that depends on the task begins.
    EachRecord,
    /// At most so much later; one second without it.
    Every(Duration),
    /// When the system likes.
    Never,
}

/// Cpus, or GPUs, that a batch has for itself.
#[derive(Clone, Copy, Debug)]
enum Cpus {
    OfMachine(u32),
    Assumed(u32),
}

impl Builder {
    /// How tasks run; without it on as many threads as the batch has cpus.
    pub fn workers(mut self, workers: Workers) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Notes when and where every task runs, for [`Compiled::summary`](crate::Compiled::summary) and
    /// [`Compiled::report`](crate::Compiled::report): about 60 ns per task, and some 10 bytes of a message per
    /// task that runs on another rank. Off without it.
    pub fn timing(mut self, on: bool) -> Self {
        self.timing = on;
        self
    }

    /// Cpus that this batch has for itself, out of those that affinity, cgroup and Slurm grant this program. Without
    /// it the batch shares those that no batch has for itself.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = Some(Cpus::OfMachine(cpus));
        self
    }

    /// As [`cpus`](Self::cpus), but believes that there are so many, beside those of other batches: for processes that
    /// wait more than they compute.
    pub fn assume_cpus(mut self, cpus: u32) -> Self {
        self.cpus = Some(Cpus::Assumed(cpus));
        self
    }

    /// Memory that tasks which declare some may use together, in bytes; without it what cgroup and Slurm grant, or what
    /// the machine has.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// GPUs that this batch has for itself, out of those that this program may use; 0 for none. Without it the batch
    /// shares those that no batch has for itself.
    ///
    /// They are NVIDIA's, and those that `CUDA_VISIBLE_DEVICES` names, if it is set; else those that Slurm has granted,
    /// in one of its jobs; else those that the driver knows. Of ranks of one node that see the same ones, each has some
    /// for itself, as of cpus; where there are more ranks than GPUs, some have none.
    pub fn gpus(mut self, gpus: u32) -> Self {
        self.gpus = Some(Cpus::OfMachine(gpus));
        self
    }

    /// As [`gpus`](Self::gpus), but believes that there are so many, numbered from 0, beside those of other batches
    /// and on each of the ranks.
    pub fn assume_gpus(mut self, gpus: u32) -> Self {
        self.gpus = Some(Cpus::Assumed(gpus));
        self
    }

    /// A resource of the user's own (licences, say), and how much of it tasks may hold together.
    pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Self {
        self.resources.push((name.into(), amount));
        self
    }

    /// Where the output of processes goes: a new directory below this one. Without it below `$TMPDIR`, or `/tmp`.
    pub fn run_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.run_dir = Some(directory.as_ref().to_path_buf());
        self
    }

    /// Keeps the output of processes when the batch goes. Without it it goes with the batch, unless a task failed.
    pub fn keep_output(mut self, keep: bool) -> Self {
        self.keep_output = keep;
        self
    }

    /// Whether a process with more than one cpu is bound to the cpus it holds. It is, without this.
    pub fn bind(mut self, bind: bool) -> Self {
        self.unbound = !bind;
        self
    }

    /// Other machines that [jobs](Batch::job) may use, and how many cpus of each: names that `mpirun` reaches without a
    /// password. This program and what jobs run has to be there at the same paths. Without it, in an allocation of
    /// Slurm its nodes. One of several ranks has its own machine only.
    ///
    /// A name that does not resolve is a mistake that compile reports.
    pub fn hosts<N: Into<String>>(mut self, hosts: impl IntoIterator<Item = (N, u32)>) -> Self {
        self.hosts.extend(hosts.into_iter().map(|(name, cpus)| (name.into(), cpus)));
        self
    }

    /// What starts [jobs](Batch::job): a path, or a name that is looked for along `PATH`, of Open MPI's `mpirun`, of
    /// MPICH's (Hydra's) `mpiexec` or of `srun`. Without it `srun` in an allocation of Slurm, and else `mpirun` or
    /// `mpiexec`. It has to be of the MPI that the program was built with: else each rank takes itself for rank 0.
    pub fn launcher(mut self, launcher: impl AsRef<Path>) -> Self {
        self.launcher = Some(launcher.as_ref().to_path_buf());
        self
    }

    /// Whether [`Batch::submit`] queues tasks that then run in the background. It does, without this.
    pub fn background(mut self, on: bool) -> Self {
        self.foreground = !on;
        self
    }

    /// Whether SIGINT and SIGTERM are taken once this batch starts processes, if they have their default action: the
    /// first cancels all that runs and lets nothing start any more, so that the program can report; the second (or the
    /// first, when nothing runs) ends the program at once. They are taken, without this.
    ///
    /// A program with a dictionary or a queue, whatever is said here, removes those that nobody else uses before a
    /// signal with its default action ends it: see the crate `tarragon_transport`, `signals`.
    pub fn signals(mut self, take: bool) -> Self {
        self.leaves_signals = !take;
        self
    }

    /// Keeps a journal in this file: what each task did that succeeded, so that a run that is killed can be
    /// [resumed](Self::resume). The output of processes stays in a directory beside it (its name and `.out`).
    ///
    /// A file that exists is an error, unless the batch resumes.
    ///
    /// On several ranks rank 0 keeps it. What a task reads and writes is looked at on the node where it runs, and on
    /// that of rank 0 when the list is resumed: files that other nodes do not see are not found, and made again.
    pub fn journal(mut self, path: impl AsRef<Path>) -> Self {
        self.journal = Some(path.as_ref().to_path_buf());
        self
    }

    /// Goes on where the journal stops, if there is one: tasks whose recorded inputs and outputs are there unchanged do
    /// not run again, and give their recorded results. Closures, and functions with results beyond 64 KiB or of which a
    /// task that runs needs more than that, run again.
    pub fn resume(mut self, on: bool) -> Self {
        self.journal_options.resume = on;
        self
    }

    /// When the records of the journal have to be on the disk; without it at most a second later.
    pub fn journal_sync(mut self, sync: JournalSync) -> Self {
        self.journal_options.sync = match sync {
            JournalSync::EachRecord => Sync::EachRecord,
            JournalSync::Every(time) => Sync::Every(time),
            JournalSync::Never => Sync::Never,
        };
        self
    }

    /// Compares files by their contents instead of by size and modification time, which costs reading all of them.
    pub fn content_hash(mut self, on: bool) -> Self {
        self.journal_options.content_hash = on;
        self
    }

    /// Runs lists on the ranks of this world, of which this must be rank 0; the others call
    /// [`serve`](crate::serve). When rank 0 [leaves](tarragon_transport::World::leave) the world, they return from it.
    #[cfg(not(loom))]
    pub fn world(mut self, world: &Arc<tarragon_transport::World>) -> Self {
        self.reach = Reach::World(Arc::clone(world));
        self
    }

    /// Runs lists on `ranks` ranks of this machine: this program, and copies of it that it starts with the same
    /// arguments. All that comes before is done by each of them anew; in a copy [`build`](Self::build) runs what is
    /// sent to it and never returns. They end when this program does. A later batch of the program uses the same ranks.
    /// Where a launcher has started this program as several ranks, it is those that are used.
    #[cfg(not(loom))]
    pub fn spawn(mut self, ranks: u32) -> Self {
        self.reach = Reach::Spawn(ranks);
        self
    }

    /// The other ranks go on when one is lost: its process was killed, its machine went down, or it gave no sign of
    /// life
    /// for ten seconds (`TARRAGON_LOSS_LIMIT_MS` says how many milliseconds instead; `TARRAGON_SURVIVE_LOSSES=1` is
    /// the same as calling this). What it ran runs on others, as does what it had run as far as something needs what
    /// went with it; a body may run more than once. A task that has ended does not run again if a later one of the list
    /// writes what it reads, or accesses what it writes: what takes its result then fails with
    /// [`Cause::RankLost`](crate::Cause). Results that are on the lost rank after a run are errors. Rank 0 cannot be
    /// spared.
    ///
    /// Counts for the first batch of the program that has ranks, on rank 0; with [`world`](Self::world) it is the
    /// program that says so when it joins the world. Launchers end all ranks when one ends unless they are told not to:
    /// `srun --no-kill --kill-on-bad-exit=0`, or `mpirun --enable-recovery` of Open MPI for ranks that are killed.
    #[cfg(not(loom))]
    pub fn survive_losses(mut self, on: bool) -> Self {
        self.survives_losses = on;
        self
    }

    /// Whether a rank with nothing to do runs ready tasks of other ranks, with their arguments sent to it and their
    /// results back. On without it. Of functions whose rank the user did not choose ([`Task::at_rank`](crate::Task)),
    /// where that takes less time than waiting, as far as a rank has seen; and processes that wait for cpus, whose
    /// output comes back when they have ended. Lists of a batch with a journal run where they were placed.
    pub fn work_stealing(mut self, on: bool) -> Self {
        self.keeps_place = !on;
        self
    }

    /// Errors of this type that bodies return come from other ranks as what they are:
    /// [`TaskError::downcast_ref`](crate::TaskError::downcast_ref) finds them wherever the task ran. Of other types,
    /// but for errors of the system, only what they and their sources say does.
    ///
    /// ```
    /// # use tarragon_engine::{Batch, tasks};
    /// #[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
    /// #[error("no convergence after {0} steps")]
    /// struct Diverged(u32);
    ///
    /// fn solve(steps: u32) -> Result<f64, Diverged> {
    ///     Err(Diverged(steps))
    /// }
    ///
    /// let batch = Batch::builder().error::<Diverged>().build()?;
    /// let task = batch.try_function(solve, (100u32,));
    /// batch.compile(tasks![task])?.run().expect_err("the task fails");
    /// let error = task.result().get().expect_err("the task fails");
    /// assert_eq!(error.downcast_ref::<Diverged>().expect("the body's own error").0, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn error<E: std::error::Error + Data>(mut self) -> Self {
        self.errors.push(carried::name(carried::row::<E>));
        self
    }

    /// For a rank that runs parts of lists of others.
    #[cfg(not(loom))]
    pub(crate) fn errors(mut self, names: &[i64]) -> Self {
        self.errors = names.to_vec();
        self
    }

    /// Runs lists in this process alone, also where a launcher has started several.
    pub fn alone(mut self) -> Self {
        self.reach = Reach::Alone;
        self
    }

    /// For a rank that runs parts of lists of others.
    #[cfg(not(loom))]
    pub(crate) fn of_ranks(mut self, ranks: &Arc<Ranks>) -> Self {
        self.reach = Reach::Of(Arc::clone(ranks));
        self
    }

    /// For a rank that runs parts of lists of a batch with a journal.
    #[cfg(not(loom))]
    pub(crate) fn lock(mut self, path: &Path) -> Self {
        self.lock = Some(path.to_path_buf());
        self
    }

    /// What batches of guests are to be like.
    fn setup(&self, run_dir: Option<&Path>, keeps_output: bool, lock: Option<PathBuf>) -> Setup {
        Setup {
            workers: match self.workers {
                Some(Workers::Threads(threads)) => threads as u32,
                _ => 0,
            },
            assumed_cpus: match self.cpus {
                Some(Cpus::Assumed(cpus)) => cpus,
                _ => 0,
            },
            assumed_gpus: match self.gpus {
                Some(Cpus::Assumed(gpus)) => gpus,
                _ => 0,
            },
            // Other ranks may be in another directory by now.
            run_dir: run_dir.and_then(|path| std::path::absolute(path).ok()),
            keeps_output,
            is_unbound: self.unbound,
            measures: self.timing,
            keeps_place: self.keeps_place,
            launcher: self.launcher.clone(),
            lock,
            errors: self.errors.clone(),
        }
    }

    /// Starts the service.
    ///
    /// In a rank that `mpirun` or `srun` (see `World::from_environment`) has started, rank 0 goes on with the program,
    /// and lists run on all ranks; on the others this call runs what is sent to them until rank 0 ends, and never
    /// returns. See [`alone`](Self::alone).
    ///
    /// # Errors
    /// [`Error::World`], [`Error::NotHome`];
    /// [`Error::NoWorkers`] for zero threads, [`Error::TooManyWorkers`], [`Error::Threads`] if the system refuses
    /// them; [`Error::NotEnoughCpus`], [`Error::NotEnoughGpus`], [`Error::BadResource`].
    pub fn build(self) -> Result<Batch, Error> {
        install_panic_hook();
        carried::learn(&self.errors);
        let ranks = self.reach.ranks(self.survives_losses)?;
        let machine = Machine::look();
        let granted = ranks.as_ref().map_or(machine.cpus_granted, |ranks| ranks.cpus()).max(1);
        let share = match self.cpus {
            None => Share::common(granted)?,
            Some(Cpus::OfMachine(cpus)) => Share::reserve(cpus, granted)?,
            Some(Cpus::Assumed(0)) => return Err(Error::NotEnoughCpus { asked: 0, left: granted, granted }),
            Some(Cpus::Assumed(cpus)) => Share::assume(cpus),
        };
        let (_, cpus) = share.account();
        let gpus = self.own_gpus(&machine, ranks.as_deref())?;
        let mut named = Vec::new();
        for (resource, amount) in &self.resources {
            if !(*amount > 0.0 && amount.is_finite()) {
                let (resource, amount) = (resource.clone(), amount.to_string());
                return Err(Error::BadResource { resource, amount });
            }
            named.push((amount * UNITS).floor() as u64);
        }
        if self.memory == Some(0) {
            return Err(Error::BadResource { resource: "memory".to_string(), amount: "0".to_string() });
        }
        let is_one_of_several = ranks.as_ref().is_some_and(|ranks| ranks.size() > 1);
        let variable = |name: &str| std::env::var(name).ok();
        let hosts = Hosts::look(&self.hosts, is_one_of_several, &crate::machine::host_name(), &variable);
        let sharers = ranks.as_ref().map_or(1, |ranks| ranks.sharers());
        let memory = self.memory.unwrap_or(machine.memory_bytes / u64::from(sharers));
        let threads = match self.cpus {
            Some(Cpus::OfMachine(cpus)) => cpus,
            _ => granted,
        };
        let executor =
            executor(self.workers.unwrap_or(Workers::Threads((threads as usize).min(WORKERS_MAX))))?;
        let book = self.journal.as_ref().map(|path| Book::open(path, self.journal_options)).transpose();
        let book = book?;
        let run_dir = self.run_dir.clone().or_else(|| self.journal.as_deref().map(Book::outputs));
        let keep_output = self.keep_output || book.is_some();
        let setup = self.setup(run_dir.as_deref(), keep_output, book.as_ref().map(Book::lock));
        let shared = Shared::new(Parts {
            executor,
            timing: self.timing,
            share,
            totals: Totals { cpus, memory, gpus: gpus.count(), gpus_why: machine.gpus_why, named },
            gpus,
            resources: Resources(self.resources.into_iter().map(|(name, _)| name).collect()),
            outputs: Outputs::new(run_dir, keep_output),
            cpu_ids: machine.cpus,
            binds: !self.unbound,
            launching: Launching::new(hosts, self.launcher),
            background: !self.foreground,
            signals: !self.leaves_signals,
            lock: self.lock.or_else(|| setup.lock.clone()),
            book,
            ranks,
            setup,
        });
        if let (Some(ranks), Some(pool)) = (&shared.ranks, shared.executor.pool()) {
            pool.is_of_ranks(ranks);
        }
        events::batch_opened(shared.executor.workers(), cpus);
        Ok(Batch::inside(&Arc::new(shared)))
    }
}

impl Builder {
    fn own_gpus(&self, machine: &Machine, ranks: Option<&Ranks>) -> Result<Gpus, Error> {
        let granted = || ranks.map_or_else(|| machine.gpus.clone(), Ranks::gpus);
        match self.gpus {
            None => Ok(Gpus::common(&granted())),
            Some(Cpus::OfMachine(gpus)) => Gpus::reserve(gpus, &granted(), &machine.gpus_why),
            Some(Cpus::Assumed(gpus)) => Ok(Gpus::assume(gpus)),
        }
    }
}

impl Reach {
    /// The ranks; `None` if this process is alone.
    #[cfg(not(loom))]
    fn ranks(&self, survives_losses: bool) -> Result<Option<Arc<Ranks>>, Error> {
        let losses = tarragon_transport::Losses::from_environment();
        let losses = if survives_losses { losses.survived() } else { losses };
        let ranks = match self {
            Reach::Launch => crate::ranks::of_environment(losses)?,
            Reach::Alone => None,
            Reach::Spawn(size) => Some(crate::ranks::of_spawn(*size, losses)?),
            Reach::World(world) if world.rank().0 != 0 => return Err(Error::NotHome(world.rank().0)),
            Reach::World(world) => Some(Ranks::of(world)?),
            Reach::Of(ranks) => Some(Arc::clone(ranks)),
        };
        Ok(ranks)
    }

    #[cfg(loom)]
    fn ranks(&self, _: bool) -> Result<Option<Arc<Ranks>>, Error> {
        Ok(None)
    }
}

fn executor(workers: Workers) -> Result<Executor, Error> {
    match workers {
        Workers::Serial => Ok(Executor::Serial),
        Workers::Threads(0) => Err(Error::NoWorkers),
        Workers::Threads(asked) if asked > WORKERS_MAX => {
            Err(Error::TooManyWorkers { asked, max: WORKERS_MAX })
        }
        Workers::Threads(n) => Ok(Executor::Pool(Pool::new(n)?)),
    }
}
