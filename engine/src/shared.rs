//! What every task, handle and run of one batch shares: memory, names, cohorts, workers, sleepers.

use crate::attend::{Desk, Gpus, Office, Share, Totals};
use crate::background::Client;
use crate::clients::Listener;
use crate::cohort::Cohort;
use crate::compile::{Frontier, Listing};
use crate::data::Space;
use crate::error::Error;
use crate::events;
use crate::launch::Launching;
use crate::outputs::Outputs;
use crate::ranks::{Ranks, Setup};
use crate::resume::Book;
use crate::run::{Executor, Run};
use crate::schedule::InstanceId;
use crate::sync::Notice;
use crate::task::chunk::Arena;
use crate::task::record::Ref;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// The inside of a batch; lives until the last task, handle or compiled batch of it is gone.
pub(crate) struct Shared {
    pub(crate) arena: Arena,
    pub(crate) space: Space,
    pub(crate) cohorts: Arc<Cohorts>,
    pub(crate) executor: Executor,
    pub(crate) awaited: Awaited,
    pub(crate) scratch: Mutex<Scratch>,
    /// Measure every task's duration.
    pub(crate) timing: bool,
    /// Whose cpus it uses.
    pub(crate) share: Share,
    /// The GPUs that it may use.
    pub(crate) gpus: Gpus,
    /// What its tasks may use together.
    pub(crate) totals: Totals,
    /// The resources that the user named.
    pub(crate) resources: Resources,
    /// Where processes write.
    pub(crate) outputs: Arc<Outputs>,
    /// The environment and directory of this program when the batch was built.
    pub(crate) env: Arc<Vec<(OsString, OsString)>>,
    pub(crate) cwd: PathBuf,
    /// How jobs start, and where.
    pub(crate) launching: Arc<Launching>,
    /// Processes with several cpus are bound to them.
    pub(crate) binds: bool,
    /// The cpus of this machine that this program may use.
    cpu_ids: Vec<u32>,
    desk: OnceLock<Desk>,
    /// The file that is locked while it, or a process of it, may write what a journal tells of.
    pub(crate) lock: Option<PathBuf>,
    /// Of a rank that has no journal itself, the same while there is this.
    _locked: Option<File>,
    /// Its journal.
    pub(crate) book: Option<Arc<Book>>,
    /// The ranks that it is one of.
    pub(crate) ranks: Option<Arc<Ranks>>,
    /// What guests' batches are to be like.
    pub(crate) setup: Setup,
    /// SIGINT and SIGTERM cancel what runs.
    pub(crate) signals: bool,
    /// Submitted tasks queue up.
    pub(crate) background: bool,
    /// `Batch` values, as far as they have not gone.
    all_clients: Mutex<Vec<Weak<Client>>>,
    /// Clients that have neither closed nor gone.
    open_clients: Mutex<usize>,
    client_closed: Condvar,
    /// `Batch` values.
    pub(crate) clients: AtomicUsize,
    /// `Batch` values that bodies got from their contexts.
    pub(crate) inner_clients: AtomicUsize,
    /// Runs that have begun and not ended.
    runs: Mutex<usize>,
    /// The same runs, as far as they can be told to stop.
    pub(crate) active: Arc<ActiveRuns>,
    all_ended: Condvar,
    /// Where clients of other processes attach, once somebody has asked for a descriptor.
    listener: Mutex<Option<Arc<Listener>>>,
}

/// Runs of a batch that are under way.
#[derive(Default)]
pub(crate) struct ActiveRuns(Mutex<Vec<Weak<Run>>>);

impl ActiveRuns {
    pub(crate) fn now(&self) -> Vec<Arc<Run>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// What a batch is built with.
pub(crate) struct Parts {
    pub(crate) executor: Executor,
    pub(crate) timing: bool,
    pub(crate) share: Share,
    pub(crate) gpus: Gpus,
    pub(crate) totals: Totals,
    pub(crate) resources: Resources,
    pub(crate) outputs: Outputs,
    pub(crate) cpu_ids: Vec<u32>,
    pub(crate) binds: bool,
    pub(crate) launching: Launching,
    pub(crate) background: bool,
    pub(crate) signals: bool,
    pub(crate) lock: Option<PathBuf>,
    pub(crate) book: Option<Book>,
    pub(crate) ranks: Option<Arc<Ranks>>,
    pub(crate) setup: Setup,
}

/// The names of a batch's own resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources(pub(crate) Vec<String>);

impl Resources {
    pub(crate) fn index(&self, name: &str) -> Option<u32> {
        self.0.iter().position(|n| n == name).map(|i| i as u32)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.clone()
    }
}

/// Buffers of compile, reused from one list to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) listing: Listing,
    pub(crate) frontier: Frontier,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            arena: Arena::new(),
            space: Space::new(parts.executor.connection().map(|connection| connection.names().clone())),
            cohorts: Arc::default(),
            executor: parts.executor,
            awaited: Awaited::default(),
            scratch: Mutex::default(),
            timing: parts.timing,
            share: parts.share,
            gpus: parts.gpus,
            totals: parts.totals,
            resources: parts.resources,
            outputs: Arc::new(parts.outputs),
            env: Arc::new(tarragon_transport::environment().collect()),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            launching: Arc::new(parts.launching),
            binds: parts.binds,
            cpu_ids: parts.cpu_ids,
            desk: OnceLock::new(),
            _locked: parts.lock.as_deref().filter(|_| parts.book.is_none()).and_then(locked),
            lock: parts.lock,
            book: parts.book.map(Arc::new),
            ranks: parts.ranks,
            setup: parts.setup,
            background: parts.background,
            signals: parts.signals,
            all_clients: Mutex::default(),
            open_clients: Mutex::default(),
            client_closed: Condvar::new(),
            clients: AtomicUsize::new(0),
            inner_clients: AtomicUsize::new(0),
            runs: Mutex::default(),
            active: Arc::default(),
            all_ended: Condvar::new(),
            listener: Mutex::default(),
        }
    }

    /// The batch's place in the office, taken when the first task needs it.
    fn desk(&self) -> &Desk {
        self.desk.get_or_init(|| Desk::open(self))
    }

    /// Who attends to tasks that no worker runs by itself.
    pub(crate) fn office(&self) -> &Arc<Office> {
        &self.desk().office
    }

    /// The batch's number in the office.
    pub(crate) fn instance(&self) -> InstanceId {
        self.desk.get().expect("a batch with jobs has a place in the office").instance
    }

    /// GPUs that no task holds, in `UNITS`; none while somebody decides.
    #[cfg(not(loom))]
    pub(crate) fn free_gpus(&self) -> u64 {
        match self.desk.get() {
            _ if self.totals.gpus == 0 => 0,
            Some(desk) => desk.office.free_gpus(desk.instance),
            None => u64::from(self.totals.gpus) * crate::schedule::UNITS as u64,
        }
    }

    /// The rank of this process; 0 if it is alone.
    pub(crate) fn rank(&self) -> u32 {
        self.ranks.as_ref().map_or(0, |ranks| ranks.rank())
    }

    pub(crate) fn machine_cpus(&self) -> Vec<u32> {
        self.cpu_ids.clone()
    }

    // ── clients ─────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn add_client(&self, client: &Arc<Client>, counts: bool) {
        let mut all = self.all_clients.lock();
        all.retain(|client| client.strong_count() > 0);
        all.push(Arc::downgrade(client));
        drop(all);
        if counts {
            self.client_is_open();
        }
    }

    /// Others wait until a client is closed.
    pub(crate) fn client_is_open(&self) {
        *self.open_clients.lock() += 1;
    }

    /// A client closes, or goes without having done so.
    pub(crate) fn client_is_closed(&self) {
        let left = {
            let mut open = self.open_clients.lock();
            *open -= 1;
            *open
        };
        self.client_closed.notify_all();
        if let Some(connection) = self.executor.connection().filter(|_| left == 0) {
            connection.close();
        }
    }

    /// Where clients of other processes attach.
    pub(crate) fn listener(self: &Arc<Self>) -> Result<Arc<Listener>, Error> {
        let mut listener = self.listener.lock();
        if let Some(listener) = &*listener {
            return Ok(Arc::clone(listener));
        }
        Ok(Arc::clone(listener.insert(Listener::open(self)?)))
    }

    /// The same, if there is one.
    pub(crate) fn open_listener(&self) -> Option<Arc<Listener>> {
        self.listener.lock().clone()
    }

    fn clients_now(&self) -> Vec<Arc<Client>> {
        self.all_clients.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Runs what other clients have queued.
    pub(crate) fn flush_others(&self, but: &Arc<Client>) {
        let clients = self.clients_now();
        // What is wrong with their tasks they are told themselves.
        let others = clients.iter().filter(|c| !Arc::ptr_eq(c, but));
        others.for_each(|client| drop(client.flush_untold()));
    }

    /// Runs what all clients have queued.
    pub(crate) fn flush_all(&self) -> Result<(), String> {
        self.clients_now().iter().map(Client::flush_untold).fold(Ok(()), Result::and)
    }

    /// Waits until every client is closed.
    pub(crate) fn wait_for_clients(&self) {
        let is_over = || *self.open_clients.lock() == 0;
        self.executor.wait_or(&is_over, || {
            let mut open = self.open_clients.lock();
            while *open > 0 {
                self.client_closed.wait(&mut open);
            }
        });
    }

    pub(crate) fn run_begins(&self) {
        *self.runs.lock() += 1;
    }

    /// The run can be told to stop.
    pub(crate) fn run_is_active(&self, run: &Arc<Run>) {
        self.active.0.lock().push(Arc::downgrade(run));
    }

    /// The run has ended.
    pub(crate) fn run_is_over(&self, run: &Weak<Run>) {
        self.active.0.lock().retain(|other| !other.ptr_eq(run));
    }

    /// Runs under way.
    pub(crate) fn active_runs(&self) -> Vec<Arc<Run>> {
        self.active.now()
    }

    pub(crate) fn run_ended(&self) {
        let mut runs = self.runs.lock();
        *runs -= 1;
        if *runs == 0 {
            self.all_ended.notify_all();
            self.close(&runs);
        }
    }

    /// Closes the arena when no client is left and no run is under way.
    pub(crate) fn close_if_unused(&self) {
        let runs = self.runs.lock();
        if *runs == 0 {
            self.close(&runs);
        }
    }

    /// Waits until every run that has begun has ended.
    pub(crate) fn wait_for_all(&self) {
        let is_over = || *self.runs.lock() == 0;
        self.executor.wait_or(&is_over, || {
            let mut runs = self.runs.lock();
            while *runs > 0 {
                self.all_ended.wait(&mut runs);
            }
        });
    }
}

impl Shared {
    /// Waits until the office holds no run of this batch that has ended, so that whoever drops the last of its parts
    /// drops all of it.
    pub(crate) fn let_go(&self) {
        if let Some(desk) = self.desk.get() {
            desk.office.let_go();
        }
    }
}

/// A file that is locked, shared with others, until it is closed. Where none can be made or locked, no process writes
/// either, or nobody else can look.
fn locked(path: &Path) -> Option<File> {
    if let Some(folder) = path.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    let file = File::options().create(true).append(true).open(path).ok()?;
    file.try_lock_shared().ok()?;
    Some(file)
}

impl Drop for Shared {
    /// Output goes now, and not when the office has heard that the batch is closed: the program may end before.
    fn drop(&mut self) {
        events::batch_closed();
        self.outputs.remove();
        if let Some(connection) = self.executor.connection() {
            connection.hang_up();
        }
    }
}

/// Entries of the first segment; each further one is twice as long.
const SEGMENT_MIN: usize = 32;
const SEGMENTS: usize = 27;

/// Cohorts by id. An id fits in a record where a pointer would not, and is found without a lock.
#[derive(Default)]
pub(crate) struct Cohorts {
    segments: [OnceLock<Box<[AtomicPtr<Cohort>]>>; SEGMENTS],
    ids: Mutex<Ids>,
}

#[derive(Default)]
struct Ids {
    free: Vec<u32>,
    next: u32,
}

impl Cohorts {
    fn place(&self, id: u32) -> &AtomicPtr<Cohort> {
        let i = id as usize - 1 + SEGMENT_MIN;
        let segment = i.ilog2() - SEGMENT_MIN.ilog2();
        let len = SEGMENT_MIN << segment;
        let cells = self.segments[segment as usize]
            .get_or_init(|| (0..len).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect());
        &cells[i - len]
    }

    /// A new cohort.
    pub(crate) fn add(self: &Arc<Self>) -> Arc<Cohort> {
        let id = {
            let mut ids = self.ids.lock();
            ids.free.pop().unwrap_or_else(|| {
                ids.next += 1;
                ids.next
            })
        };
        let cohort = Arc::new(Cohort::new(id, Arc::clone(self)));
        self.place(id).store(Arc::as_ptr(&cohort).cast_mut(), Ordering::Release);
        cohort
    }

    /// Called by a cohort that goes.
    pub(crate) fn remove(&self, id: u32) {
        self.place(id).store(std::ptr::null_mut(), Ordering::Release);
        self.ids.lock().free.push(id);
    }
}

mod cohorts {
    #![expect(unsafe_code, reason = "cohorts are found by id, and kept alive by the chunks of their records")]
    use super::{Cohort, Cohorts, Ordering};

    impl Cohorts {
        /// The cohort of a record whose chunk the caller keeps.
        #[inline]
        pub(crate) fn get(&self, id: u32) -> &Cohort {
            let cohort = self.place(id).load(Ordering::Acquire);
            assert!(!cohort.is_null(), "a record names a cohort that is gone");
            // SAFETY: every chunk with a record of the cohort keeps it, and the caller keeps such a chunk.
            unsafe { &*cohort }
        }
    }
}

mod closing {
    #![expect(unsafe_code, reason = "closes what threads fill, when there is no such thread")]
    use super::{Ordering, Shared};

    impl Shared {
        /// The caller holds the lock on the number of runs, which is 0.
        pub(super) fn close(&self, _no_runs: &usize) {
            let clients = self.clients.load(Ordering::Acquire) + self.inner_clients.load(Ordering::Acquire);
            if clients == 0 {
                // SAFETY: tasks are made by clients. There is none; another can only come from a client, or from a
                // body, and no run can begin while the caller holds the lock.
                unsafe { self.arena.close() };
            }
        }
    }
}

/// Nobody is to be told of a task's end.
const NOBODY: usize = 0;
const SOMEBODY: usize = 1;

/// Who is to be told when single tasks end: users who sleep, and gates of later submissions.
///
/// A worker that ends a task reads the notice, and if there is one, the task's own flag; who wants to be told
/// registers in the table, sets the flag, puts up the notice and looks at the task again, with the table locked until
/// it sleeps; so the worker that sees both, and locks the table, tells it.
#[derive(Default)]
pub(crate) struct Awaited {
    /// [`NOBODY`] or [`SOMEBODY`].
    notice: Notice,
    table: Mutex<HashMap<Ref, Waiters>>,
    changed: Condvar,
}

/// Who waits for one task.
#[derive(Default)]
struct Waiters {
    asleep: u32,
    gates: Vec<(Arc<Run>, u32)>,
    calls: Vec<Call>,
}

impl Waiters {
    fn is_empty(&self) -> bool {
        self.asleep == 0 && self.gates.is_empty() && self.calls.is_empty()
    }
}

/// What is to be done when a task has ended.
type Call = Box<dyn FnOnce() + Send>;

impl Awaited {
    /// Called by whoever has just published the end of `task`.
    #[inline(always)]
    pub(crate) fn ended(&self, task: Ref) {
        if self.notice.read() != NOBODY && task.is_watched() {
            self.tell(task);
        }
    }

    #[cold]
    fn tell(&self, task: Ref) {
        let mut table = self.table.lock();
        let Some(waiters) = table.get_mut(&task) else { return };
        let gates = std::mem::take(&mut waiters.gates);
        let calls = std::mem::take(&mut waiters.calls);
        if waiters.asleep > 0 {
            self.changed.notify_all();
        } else {
            self.leave(&mut table, task);
        }
        drop(table);
        gates.into_iter().for_each(|(run, node)| run.open_gate(node));
        calls.into_iter().for_each(|call| call());
    }

    /// Has `call` called when `task` ends, at once if it has.
    pub(crate) fn when_ended(&self, task: Ref, is_over: impl Fn() -> bool, call: Call) {
        {
            let mut table = self.table.lock();
            table.entry(task).or_default().calls.push(call);
            task.watch(true);
            self.notice.announce(SOMEBODY);
        }
        if is_over() {
            self.tell(task);
        }
    }

    /// A run was taken back: tasks that seemed to wait for it have ended, in the run before.
    pub(crate) fn look_again(&self) {
        let _table = self.table.lock();
        self.changed.notify_all();
    }

    /// Has the gate of a run opened when `task` ends; false if it has ended.
    pub(crate) fn watch(&self, task: Ref, run: &Arc<Run>, node: u32, is_over: impl Fn() -> bool) -> bool {
        let mut table = self.table.lock();
        table.entry(task).or_default().gates.push((Arc::clone(run), node));
        task.watch(true);
        self.notice.announce(SOMEBODY);
        if !is_over() {
            return true;
        }
        if let Some(waiters) = table.get_mut(&task) {
            waiters.gates.retain(|(other, n)| !(Arc::ptr_eq(other, run) && *n == node));
            if waiters.is_empty() {
                self.leave(&mut table, task);
            }
        }
        false
    }

    /// Nobody waits for the task any more.
    fn leave(&self, table: &mut HashMap<Ref, Waiters>, task: Ref) {
        table.remove(&task);
        task.watch(false);
        if table.is_empty() {
            self.notice.withdraw(NOBODY);
        }
    }

    /// Sleeps until `is_over`, which becomes true before [`ended`](Self::ended) is called for `task`, or until
    /// `deadline`; false if the deadline came first.
    pub(crate) fn sleep(
        &self,
        task: Ref,
        deadline: Option<std::time::Instant>,
        is_over: impl Fn() -> bool,
    ) -> bool {
        let mut table = self.table.lock();
        table.entry(task).or_default().asleep += 1;
        task.watch(true);
        self.notice.announce(SOMEBODY);
        let mut over = is_over();
        while !over {
            let late = match deadline {
                Some(deadline) => self.changed.wait_until(&mut table, deadline).timed_out(),
                None => {
                    self.changed.wait(&mut table);
                    false
                }
            };
            over = is_over();
            if late {
                break;
            }
        }
        if let Some(waiters) = table.get_mut(&task) {
            waiters.asleep -= 1;
            if waiters.is_empty() {
                self.leave(&mut table, task);
            }
        }
        over
    }
}
