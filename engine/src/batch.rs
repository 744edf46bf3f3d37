//! The service a user starts with: makes tasks, names data, compiles lists.

use crate::background::Client;
use crate::builder::Builder;
use crate::clients::BatchDescriptor;
use crate::compiled::Compiled;
use crate::data::{DataFile, DataId, IntoDatum, Keys, SpaceRef, Submitted};
use crate::error::{CompileError, Error, Mistake};
use crate::function::args::Args;
use crate::function::outcome::{ClosureOutcome, Failure, Fallible, Outcome};
use crate::function::{Data, Function, Spec, Takes, thunk_code};
use crate::plan::Owned;
use crate::resume::JournalStatus;
use crate::shared::Shared;
use crate::task::command::PROCESS;
use crate::task::record::Ref;
use crate::task::{Command, Exit, Task, TaskList};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a batch runs its tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workers {
    /// One after the other in list order (or order of priority), on the thread that starts them: the reference.
    /// `start` returns when all have ended.
    Serial,
    /// On this many threads, which steal work from each other.
    Threads(usize),
}

/// The batch service: makes tasks and compiles lists of them. Cheap to clone; clones are clients of one service, in
/// any thread.
///
/// When the last clone goes, what was started is finished first. Tasks, handles and compiled batches outlive it; the
/// output of processes does not, unless it is kept ([`Builder::keep_output`]) or a task failed.
///
/// ```
/// use tarragon_engine::{Batch, tasks};
///
/// fn count(path: &std::path::Path) -> std::io::Result<usize> {
///     Ok(std::fs::read_to_string(path)?.lines().count())
/// }
///
/// let batch = Batch::new()?;
/// let path = std::path::PathBuf::from("Cargo.toml");
/// let lines = batch.function(count, (&path,)).reads(&path);
/// batch.compile(tasks![lines])?.run()?;
/// assert!(lines.result().get()? > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Batch {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// It came from a body's context: not a client that others wait for, since what it starts is waited for anyway.
    inner: bool,
}

impl Batch {
    /// A batch with the default options.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system refuses threads.
    pub fn new() -> Result<Self, Error> {
        Builder::default().build()
    }

    /// Options for a batch.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One more client.
    pub(crate) fn inside(shared: &Arc<Shared>) -> Self {
        shared.clients.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), client: Client::new(shared, true), inner: false }
    }

    /// The batch as a body sees it.
    pub(crate) fn of_body(shared: &Arc<Shared>) -> Self {
        shared.inner_clients.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), client: Client::new(shared, false), inner: true }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    // ── tasks ───────────────────────────────────────────────────────────────────────────────────────────────

    /// A task that calls `function` with `args`, a tuple of at most 12.
    ///
    /// `function` is a `fn` or a closure that captures nothing; it may take [`&Context`](crate::Context) first, and
    /// may return a value or a `Result`, whose `Err` fails the task. Each argument is
    /// - a value of the parameter's type, or one that can be borrowed as it (`String` for `&str`, `Vec<T>` for
    ///   `&[T]`, `PathBuf` for `&Path`);
    /// - a reference to copy from (`&path` for `PathBuf` or `&Path`);
    /// - the `result()` or `stdout()` of another task, or a `Vec`, `Option`, array or tuple of them; that task runs
    ///   first. A parameter by reference sees the result in place; one by value gets a copy, or the result itself if
    ///   nobody else can want it.
    ///
    /// Where the compiler cannot guess: a generic function needs a turbofish; closures need parameter types; an empty
    /// `vec![]` or `None` needs a type; plain values beside handles in a tuple are wrapped in
    /// [`value`](crate::value); a `Result` whose error is itself serialisable goes to
    /// [`try_function`](Self::try_function). Functions with `impl Trait` parameters cannot be passed.
    ///
    /// Cost: about 20 ns and 48 bytes beside arguments and result.
    #[inline]
    pub fn function<F, P, A, How, R, UseTryFunction>(&self, function: F, args: A) -> Task<R::Value>
    where
        F: Function<P, Return = R>,
        P: Takes<A>,
        A: Args<P, How, F, R>,
        R: Outcome<UseTryFunction>,
        R::Value: Data,
        R::Failure: Failure,
    {
        let code = Spec::<F, P, A, How, R, UseTryFunction>::CODE;
        Task::adopt(Ref::create::<R::Value, F, A::Slots>(&self.shared, code, function, args.keep()))
    }

    /// As [`function`](Self::function), for functions that return a `Result`, where `function` cannot tell whether
    /// the `Result` itself is the value.
    pub fn try_function<F, P, A, How, T, E>(&self, function: F, args: A) -> Task<T>
    where
        F: Function<P, Return = Result<T, E>>,
        P: Takes<A>,
        A: Args<P, How, F, Result<T, E>>,
        T: Data,
        E: Failure,
    {
        let code = Spec::<F, P, A, How, Result<T, E>, Fallible>::CODE;
        Task::adopt(Ref::create::<T, F, A::Slots>(&self.shared, code, function, args.keep()))
    }

    /// A task that calls a closure without arguments, which may capture; it stays in this process, so neither what it
    /// captures nor what it returns needs serde. It can be run again with its compiled batch, so it is `FnMut`.
    ///
    /// Does not take closures that return a `Result`: use [`try_closure`](Self::try_closure), so that an `Err` fails
    /// the task.
    pub fn closure<F, R, UseTryClosure>(&self, closure: F) -> Task<R::Value>
    where
        F: FnMut() -> R + Send + Sync + 'static,
        R: ClosureOutcome<UseTryClosure>,
        R::Value: Send + Sync + 'static,
        R::Failure: Failure,
    {
        Task::adopt(Ref::create::<R::Value, F, ()>(
            &self.shared,
            thunk_code::<F, R, UseTryClosure>(),
            closure,
            (),
        ))
    }

    /// As [`closure`](Self::closure), for closures that return a `Result`, whose `Err` fails the task.
    pub fn try_closure<F, T, E>(&self, closure: F) -> Task<T>
    where
        F: FnMut() -> Result<T, E> + Send + Sync + 'static,
        T: Send + Sync + 'static,
        E: Failure,
    {
        let code = thunk_code::<F, Result<T, E>, Fallible>();
        Task::adopt(Ref::create::<T, F, ()>(&self.shared, code, closure, ()))
    }

    /// A task that runs a program, directly and without a shell: a path, or a name that is looked for along `PATH`.
    ///
    /// Arguments, environment, directory and input are added to the task: [`Task::arg`], [`Task::env`], [`Task::cwd`],
    /// [`Task::stdin`]. Its output goes to files, readable while it runs through [`Task::stdout`] and
    /// [`Task::stderr`]. It succeeds with exit code 0, or one that it accepts ([`Task::accept_exit`]); then its result
    /// is how it exited and what it used. What it leaves running when it ends is ended, too.
    ///
    /// It holds one cpu of the batch while it runs, unless it says otherwise ([`Task::cpus`]).
    ///
    /// ```
    /// use tarragon_engine::{Batch, tasks};
    ///
    /// let batch = Batch::new()?;
    /// let words = batch.process("printf").arg("%s\\n").args(["pear", "apple"]);
    /// let sorted = batch.process("sort").stdin(words.stdout());
    /// batch.compile(tasks![words, sorted])?.run()?;
    /// assert_eq!(sorted.stdout().get()?, "apple\npear\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn process(&self, program: impl AsRef<Path>) -> Task<Exit> {
        let program = program.as_ref();
        let command = Box::new(Command::new(program));
        let task = Task::adopt(Ref::create::<Exit, (), Box<Command>>(&self.shared, &PROCESS, (), command));
        let name = program.file_name().unwrap_or(program.as_os_str());
        task.name(name.to_string_lossy())
    }

    /// A task that runs an MPI program as `ranks` ranks, by `srun` inside an allocation of Slurm and by `mpirun` (or
    /// `mpiexec`) else: see [`Builder::launcher`](crate::Builder::launcher). For the rest it is as a
    /// [`process`](Self::process), in each rank.
    ///
    /// Each rank holds one cpu, or as many as [`Task::cpus`] says, and is bound to them; so ranks of all jobs together
    /// are never more than there are cpus. On one host, this machine, they are the batch's; further ones are those of
    /// the allocation, or of [`Builder::hosts`](crate::Builder::hosts). A job starts when there is room for all its
    /// ranks; one for which there will never be is a mistake that compile reports.
    ///
    /// Of a program that is several ranks itself each rank has its own cpus, and a job is placed on one of them as any
    /// task is. Where it needs more than that one has it takes cpus of the ranks behind that one, too, on whichever
    /// machines they are; with [`Task::at_rank`] those behind the one that is chosen. One with [`Task::gpus`] does not.
    ///
    /// The first rank that fails ends the others, under each launcher, and the job's error names it. Its output has the
    /// lines of all ranks, with `RANK: ` before each; see [`Task::rank_stdout`] for a rank's own, [`Task::job_ranks`]
    /// for exit codes and hosts, [`Task::and`] for several executables under one launch.
    ///
    /// ```no_run
    /// use tarragon_engine::{Batch, tasks};
    ///
    /// let batch = Batch::new()?;
    /// let solve = batch.job("./solver", 4).arg("input.dat").writes("field.h5");
    /// let plot = batch.process("./plot").arg("field.h5").reads("field.h5");
    /// batch.compile(tasks![solve, plot])?.run()?;
    /// println!("rank 3 was on {} and said {}", solve.job_ranks()[3].host, solve.rank_stdout(3).get()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn job(&self, program: impl AsRef<Path>, ranks: u32) -> Task<Exit> {
        self.process(program).make_job(ranks)
    }

    // ── data ────────────────────────────────────────────────────────────────────────────────────────────────

    /// A datum by name: anything tasks share that is no file. Equal names are one datum; never equal to a file.
    ///
    /// An empty name is reported when a list with it is compiled.
    pub fn datum(&self, name: &str) -> DataId {
        self.shared.space.named(name)
    }

    /// A file or directory as a datum: absolute and lexically normalised. A directory conflicts with all below it.
    ///
    /// Reading it through what comes back sees what submitted tasks write: it runs them first. See [`DataFile`].
    ///
    /// # Errors
    /// [`Error::Compile`] for an empty path, or a relative one without a current directory.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<DataFile, Error> {
        let path = path.as_ref();
        let id = path.into_datum(&SpaceRef(&self.shared)).map_err(|_| {
            let name = "batch.file".to_string();
            Error::Compile(CompileError { mistakes: vec![Mistake::EmptyDatum { name }] })
        })?;
        Ok(DataFile::new(id, path, &self.shared, &self.client))
    }

    /// What this client has submitted, for handles of data that lie elsewhere (a dictionary's, say): reading through
    /// them can come after those who write.
    pub fn submitted(&self) -> Submitted {
        Submitted::new(&self.shared, &self.client)
    }

    /// The keys of a namespace: data named by integers or bytes.
    pub fn keys(&self, namespace: &str) -> Keys {
        self.shared.space.keys(namespace)
    }

    // ── lists ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Compiles a list into a graph: list order is the sequential program, and two tasks keep that order if one
    /// takes the other's result, or both access one datum and one of them writes it.
    ///
    /// Nothing runs before every mistake in the list has been looked for.
    ///
    /// # Errors
    /// [`Error::Compile`] with all mistakes found; [`Error::AlreadyRunning`] if a compiled batch in the list runs.
    pub fn compile(&self, list: impl TaskList) -> Result<Compiled, Error> {
        self.client.check_open()?;
        let owned = Owned::compile(&self.shared, &|see| list.each(see), list.size_hint())?;
        Ok(Compiled::new(owned))
    }

    // ── background ──────────────────────────────────────────────────────────────────────────────────────────

    /// Submits tasks, in the order in which a sequential program would run them, after all that this client submitted
    /// before. They run in the background: soon, when there are many of them, or when somebody waits for one, reads a
    /// [`file`](Self::file) that one writes, or calls [`fence`](Self::fence).
    ///
    /// Each `Batch` value (each clone) is a client of its own; between clients there is no order, but that a task whose
    /// result is an argument runs first. The tasks run even when what was submitted is dropped.
    ///
    /// Blocks while this client has 65 536 tasks that have not ended.
    ///
    /// ```
    /// use tarragon_engine::Batch;
    ///
    /// let batch = Batch::new()?;
    /// let total = batch.keys("total").at(0);
    /// for i in 0..10u64 {
    ///     let task = batch.function(|i: u64| i * i, (i,)).reads(total).writes(total);
    ///     batch.submit(&task)?;
    /// }
    /// batch.fence()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`], [`Error::Compile`] with what is wrong with the tasks, [`Error::Closed`] after
    /// [`close`](Self::close), [`Error::NoBackground`].
    pub fn submit(&self, list: impl TaskList) -> Result<(), Error> {
        self.client.submit(&self.shared, &list)
    }

    /// Runs what this client has submitted and waits until all of it has ended. What is submitted afterwards depends on
    /// none of it.
    ///
    /// # Errors
    /// [`Error::Task`] for the first task that failed since the last fence; [`Error::WaitsForItself`] inside a body
    /// that it would wait for.
    pub fn fence(&self) -> Result<(), Error> {
        self.client.fence(&self.shared)
    }

    /// This client submits and compiles no more; what it has submitted runs. Others are not touched.
    ///
    /// # Errors
    /// What was wrong with tasks that were still queued.
    pub fn close(&self) -> Result<(), Error> {
        let (first, told) = self.client.close();
        if first && !self.inner {
            self.shared.client_is_closed();
        }
        told
    }

    /// Closes this client, waits until every other one is closed or gone and all work has ended, and removes the output
    /// of processes, unless it is to be kept or a task failed.
    ///
    /// Clients in [other processes](Self::descriptor) count; one that dies is closed by that. Of a batch that is such a
    /// client the others are those in this process, and the work what it has started.
    ///
    /// # Errors
    /// As [`close`](Self::close); [`Error::Task`] for the first task that this client submitted and that failed since
    /// the last fence; [`Error::WaitsForItself`] inside a body.
    pub fn join(self) -> Result<(), Error> {
        self.close()?;
        if self.inner || self.shared.executor.is_worker() {
            return Err(Error::WaitsForItself);
        }
        self.shared.wait_for_clients();
        if let Some(listener) = self.shared.open_listener() {
            listener.close();
            // One may have attached in between.
            self.shared.wait_for_clients();
        }
        self.shared.wait_for_all();
        if let Some(listener) = self.shared.open_listener() {
            listener.part("it is joined", true);
        }
        let fenced = self.client.fence(&self.shared);
        self.shared.outputs.remove();
        if let Some(book) = &self.shared.book {
            book.close().map_err(|error| Error::Journal(error.to_string()))?;
        }
        fenced
    }

    /// How it is with the journal; `None` without one.
    pub fn journal(&self) -> Option<JournalStatus> {
        self.shared.book.as_ref().map(|book| book.status())
    }

    /// Returns when the journal's records are in its file, and on the disk unless it was asked not to. Nothing without
    /// a journal.
    ///
    /// # Errors
    /// [`Error::Journal`] if they cannot be written now.
    pub fn flush_journal(&self) -> Result<(), Error> {
        self.shared.book.as_ref().map_or(Ok(()), |book| book.flush())
    }

    /// Cancels all that runs: tasks that have not begun are skipped, processes are ended (TERM, after their grace KILL,
    /// with all they have started), functions are asked through [`Context::cancelled`](crate::Context::cancelled).
    /// Does not wait for them.
    pub fn cancel(&self) {
        self.shared.active_runs().iter().for_each(|run| run.cancel(None));
    }

    /// The ranks that its lists run on; `None` if that is this process alone.
    #[cfg(not(loom))]
    pub fn world(&self) -> Option<&Arc<tarragon_transport::World>> {
        self.shared.ranks.as_ref().map(|ranks| ranks.world())
    }

    /// What other processes of this node attach to the batch with: a line of text, or plain data for a task's argument,
    /// a queue, a dictionary. See [`BatchDescriptor::attach`]. Of a batch that is itself a client it leads to the same
    /// batch as its own.
    ///
    /// The first call costs a thread, which sleeps until somebody attaches.
    ///
    /// # Errors
    /// [`Error::Attach`], [`Error::Threads`] if the system refuses a socket or a thread.
    pub fn descriptor(&self) -> Result<BatchDescriptor, Error> {
        match self.shared.executor.connection() {
            Some(connection) => Ok(connection.descriptor().clone()),
            None => self.shared.listener().map(|listener| listener.descriptor().clone()),
        }
    }

    /// Number of workers of this rank.
    pub fn workers(&self) -> usize {
        self.shared.executor.workers()
    }
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        if self.inner { Self::of_body(&self.shared) } else { Self::inside(&self.shared) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // What is wrong with the last tasks has nobody to be told to.
        if self.client.close().0 && !self.inner {
            self.shared.client_is_closed();
        }
        if self.inner {
            self.shared.inner_clients.fetch_sub(1, Ordering::AcqRel);
            self.shared.close_if_unused();
        } else if self.shared.clients.fetch_sub(1, Ordering::AcqRel) == 1 {
            let listener = self.shared.open_listener();
            listener.iter().for_each(|listener| listener.close());
            let waits = !self.shared.executor.is_worker();
            if waits {
                self.shared.wait_for_all();
            }
            listener.iter().for_each(|listener| listener.part("it is dropped", waits));
            if waits {
                self.shared.let_go();
                // Not left to whoever drops the last part of the batch: that may be a worker, and the program may end
                // before.
                self.shared.outputs.remove();
            }
            self.shared.close_if_unused();
        }
    }
}
