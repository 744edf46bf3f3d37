//! The office: takes in what happened, has somebody drive it, and keeps the thread that listens to the supervisor.

use super::bodies::Bodies;
use super::state::{Finished, State};
use crate::background::Client;
use crate::error::Cause;
use crate::ranks::Holding;
use crate::run::Run;
use crate::schedule::{InstanceId, JobId};
use crate::shared::Shared;
use crate::task::record::Ref;
use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tarragon_supervisor::Events;
use tarragon_transport::signals::{Attendance, Ending, attend};

/// Rounds that a thread which is not the office's drives at most, so that its own work goes on.
const ROUNDS_MAX: u32 = 3;

/// When to look at a queue again for which the system has no thread.
const IDLE_WITHOUT_THREADS: Duration = Duration::from_millis(100);

/// What happened.
pub(super) enum Event {
    /// These nodes of a run are ready.
    Ready(Arc<Run>, Vec<(u32, Ref)>),
    /// The first attempt of a node failed; another is due after this time.
    Again(Arc<Run>, u32, Ref, Duration),
    Returned(JobId, super::bodies::Returned),
    /// All members of the gang of this attempt are there.
    Assembled(JobId, u32),
    /// Other ranks hold cpus for this job, or will not.
    Mustered(JobId, Result<Holding, Cause>),
    /// A process that succeeded is recorded.
    Concluded(JobId),
    Supervisor(Vec<tarragon_supervisor::Event>),
    SupervisorGone,
    /// A run, or one task of it, is to stop.
    Cancel(Arc<Run>, Option<Ref>),
    /// Seats were given up: look again.
    Seats,
    /// A body waits for something, and needs no cpus meanwhile; or goes on.
    Waits(JobId, bool),
    Closed(InstanceId),
    /// The queue of a client is to be looked at, at this time.
    Watch(Weak<Client>, Instant),
    /// SIGINT, or SIGTERM, came.
    Signal(Ending),
}

/// See the module's page.
pub(crate) struct Office {
    inbox: Mutex<Vec<Event>>,
    state: Mutex<State>,
    bodies: Arc<Bodies>,
    this: Weak<Office>,
    /// Read by whoever ends nodes, and so may hold the last share of a run.
    ends: RwLock<()>,
    bell: OwnedFd,
    /// The supervisor's events, on their way to the thread.
    pub(super) listen_to: Mutex<Option<Events>>,
    closing: AtomicBool,
    /// Some batch did not ask to leave signals alone.
    pub(super) takes_signals: AtomicBool,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The office of this program, while a batch has it.
static OFFICE: Mutex<Weak<Office>> = Mutex::new(Weak::new());

impl Office {
    /// The office, opened when there is none.
    ///
    /// # Panics
    /// If the system has no descriptor or thread left for it.
    pub(crate) fn open() -> Arc<Self> {
        let mut place = OFFICE.lock();
        if let Some(office) = place.upgrade() {
            return office;
        }
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bodies = Arc::<Bodies>::default();
        let office = Arc::new_cyclic(|this| Self {
            inbox: Mutex::default(),
            state: Mutex::new(State::new(this, &bodies)),
            bodies,
            this: this.clone(),
            ends: RwLock::default(),
            bell: bell.expect("a descriptor for the office's bell"),
            listen_to: Mutex::default(),
            closing: AtomicBool::new(false),
            takes_signals: AtomicBool::new(false),
            thread: Mutex::default(),
        });
        let weak = Arc::downgrade(&office);
        let bell = office.bell.try_clone().expect("a descriptor for the office's bell");
        let thread = std::thread::Builder::new().name("tarragon-office".to_string());
        let thread = thread.spawn(move || listen(&weak, &bell)).expect("a thread for the office");
        *office.thread.lock() = Some(thread);
        *place = Arc::downgrade(&office);
        office
    }

    // ── what happens ────────────────────────────────────────────────────────────────────────────────────────

    /// A node is ready whose task is attended to.
    pub(crate) fn ready(&self, run: &Arc<Run>, node: u32, task: Ref) {
        self.push(Event::Ready(Arc::clone(run), vec![(node, task)]));
    }

    /// As [`ready`](Self::ready), for several.
    pub(crate) fn ready_all(&self, run: &Arc<Run>, nodes: Vec<(u32, Ref)>) {
        if !nodes.is_empty() {
            self.push(Event::Ready(Arc::clone(run), nodes));
        }
    }

    /// The first attempt of a task that a worker called has failed; another follows after `delay`.
    pub(crate) fn again(&self, run: &Arc<Run>, node: u32, task: Ref, delay: Duration) {
        self.push(Event::Again(Arc::clone(run), node, task, delay));
    }

    /// What a run was told to stop may be here.
    pub(crate) fn cancel(&self, run: &Arc<Run>, task: Option<Ref>) {
        self.push(Event::Cancel(Arc::clone(run), task));
    }

    /// A worker gave up a seat.
    pub(crate) fn seats_changed(&self) {
        self.push(Event::Seats);
    }

    /// The queue of a client is to be looked at, at this time.
    pub(crate) fn watch(&self, client: &Arc<Client>, at: Instant) {
        self.push(Event::Watch(Arc::downgrade(client), at));
    }

    /// A batch is gone; none of its runs is left.
    pub(crate) fn closed(&self, instance: InstanceId) {
        self.push(Event::Closed(instance));
    }

    /// Why the job of a node waits; `Some(None)` if it runs, `None` if it is not here.
    pub(crate) fn why_waiting(&self, run: &Arc<Run>, node: u32) -> Option<Option<String>> {
        self.with_state(|state| state.why_waiting(run, node))
    }

    /// GPUs of a batch that no task holds, in `UNITS`; none while somebody decides.
    #[cfg(not(loom))]
    pub(crate) fn free_gpus(&self, instance: InstanceId) -> u64 {
        self.try_with_state(|state| state.desk.free_gpus(instance)).unwrap_or(0)
    }

    pub(super) fn push(&self, event: Event) {
        self.inbox.lock().push(event);
        self.drive(false);
    }

    /// Looks at the state without driving. Who pushed meanwhile has counted on us, so what is there is taken in.
    fn with_state<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let result = act(&mut self.state.lock());
        if !self.inbox.lock().is_empty() {
            self.drive(false);
        }
        result
    }

    /// As [`with_state`](Self::with_state), unless somebody has it, maybe this thread.
    pub(super) fn try_with_state<R>(&self, act: impl FnOnce(&mut State) -> R) -> Option<R> {
        let result = act(&mut *self.state.try_lock()?);
        if !self.inbox.lock().is_empty() {
            self.drive(false);
        }
        Some(result)
    }

    /// Drives, if nobody else does, until nothing is left to take in.
    fn drive(&self, is_thread: bool) {
        let mut rounds = 0;
        loop {
            let Some(mut state) = self.state.try_lock() else { return };
            let before = state.deadline();
            let finished = self.round(&mut state);
            let stopped = std::mem::take(&mut state.stopped);
            let let_go = std::mem::take(&mut state.let_go);
            let clients = if is_thread { state.due_clients(Instant::now()) } else { Vec::new() };
            let sooner = state.deadline() != before && !is_thread;
            self.end(state, finished);
            stopped.into_iter().for_each(|(run, task)| stop_gangs(&run, task));
            drop(let_go);
            if is_thread {
                self.with_state(State::look_at_the_end);
            }
            clients.into_iter().for_each(|client| self.look_at(client));
            rounds += 1;
            let is_more = !self.inbox.lock().is_empty();
            if sooner || is_more && !is_thread && rounds >= ROUNDS_MAX {
                self.ring();
            }
            if !is_more || !is_thread && rounds >= ROUNDS_MAX {
                return;
            }
        }
    }

    /// Has a thread look at the queue of a client: what it runs may take long, and may need the office.
    fn look_at(&self, client: Arc<Client>) {
        let bodies = Arc::clone(&self.bodies);
        if bodies.look(&self.this, &client).is_err() {
            self.watch(&client, Instant::now() + IDLE_WITHOUT_THREADS);
        }
    }

    /// Ends nodes, outside of the lock.
    fn end(&self, state: MutexGuard<'_, State>, finished: Vec<Finished>) {
        // Ending one may make others ready, and so lead here again.
        let ends = self.ends.read_recursive();
        let outer = ENDS.replace(true);
        drop(state);
        let ranks = finished.first().and_then(|(run, ..)| run.plan.shared.ranks.clone());
        finished.into_iter().for_each(|(run, node, failure)| run.end_outside(node, failure));
        ENDS.set(outer);
        drop(ends);
        if let Some(ranks) = ranks {
            // Cpus may be free for which there is nothing here.
            ranks.steal();
        }
    }

    /// Waits until nobody here holds a share of a run that has ended.
    pub(crate) fn let_go(&self) {
        // Who ends nodes at this moment cannot wait for itself.
        if !ENDS.get() {
            self.with_state(|_| ());
            drop(self.ends.write());
        }
    }

    fn round(&self, state: &mut State) -> Vec<Finished> {
        loop {
            let events = std::mem::take(&mut *self.inbox.lock());
            let nothing_new = events.is_empty();
            events.into_iter().for_each(|event| state.take_in(event));
            state.look_at_the_clock(Instant::now());
            if nothing_new {
                break;
            }
        }
        state.decide(self);
        state.finished()
    }

    /// Wakes the office's thread.
    pub(super) fn ring(&self) {
        // The counter of an eventfd cannot fill up here, and if it were full the thread would be awake.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// The bodies of a task on other ranks are told to stop as well.
fn stop_gangs(run: &Arc<Run>, task: Ref) {
    if let Some(ranks) = &run.plan.shared.ranks {
        ranks.stop_gangs(run, task);
    }
}

/// The office's thread: until the office is gone, sleeps until the supervisor tells something, a timer is due or the
/// bell rings.
fn listen(office: &Weak<Office>, bell: &OwnedFd) {
    let mut events: Option<Events> = None;
    let mut signals: Option<Attendance> = None;
    loop {
        let Some(this) = office.upgrade() else { return };
        if this.closing.load(Ordering::Acquire) {
            return;
        }
        if let Some(new) = this.listen_to.lock().take() {
            events = Some(new);
            if signals.is_none() && this.takes_signals.load(Ordering::Acquire) {
                // Without it a signal ends the program, and then the supervisor what that ran.
                signals = attend().ok();
            }
        }
        let deadline = this.with_state(|state| state.deadline());
        drop(this);
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|t| Timespec::try_from(t).expect("a time that fits"));
        let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
        fds.extend(events.as_ref().map(|e| PollFd::new(e, PollFlags::IN)));
        fds.extend(signals.as_ref().map(|s| PollFd::new(s, PollFlags::IN)));
        // An interrupted poll looks again; there is no other error with valid descriptors.
        let _ = poll(&mut fds, timeout.as_ref());
        let told = events.is_some() && fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        let _ = rustix::io::read(bell, &mut [0u8; 8]);
        let mut batch = Vec::new();
        let alive = !told || events.as_mut().is_some_and(|e| matches!(e.read(&mut batch), Ok(true)));
        let Some(this) = office.upgrade() else { return };
        let came = signals.as_ref().map(Attendance::came).unwrap_or_default();
        this.inbox.lock().extend(came.into_iter().map(Event::Signal));
        if !batch.is_empty() {
            this.inbox.lock().push(Event::Supervisor(batch));
        }
        if !alive {
            events = None;
            this.inbox.lock().push(Event::SupervisorGone);
        }
        this.drive(true);
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.ring();
        let thread = self.thread.lock().take();
        // The last batch may go on the office's own thread.
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// A batch's place in the office; it is given up when the batch goes.
pub(crate) struct Desk {
    pub(crate) office: Arc<Office>,
    pub(crate) instance: InstanceId,
}

impl Desk {
    /// The batch gets a place.
    pub(crate) fn open(shared: &Shared) -> Self {
        let office = Office::open();
        office.takes_signals.fetch_or(shared.signals, Ordering::AcqRel);
        let instance = office.with_state(|state| state.open(shared));
        if let Some(pool) = shared.executor.pool() {
            pool.attended_by(&office);
        }
        Self { office, instance }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.office.closed(self.instance);
    }
}

thread_local! {
    /// The job whose body this thread is inside of.
    static HELD: std::cell::RefCell<Option<(Weak<Office>, JobId)>> = const { std::cell::RefCell::new(None) };
    /// Whether this thread ends nodes.
    static ENDS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// While it lives, this thread is inside the body of a job.
pub(super) struct Held;

impl Held {
    pub(super) fn new(office: &Weak<Office>, job: JobId, _cpus: u32) -> Self {
        HELD.set(Some((office.clone(), job)));
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(None);
    }
}

/// Sleeps inside a body: its cpus are for others meanwhile.
pub(crate) fn while_waiting<R>(sleep: impl FnOnce() -> R) -> R {
    let Some((office, job)) = HELD.with_borrow(Clone::clone) else { return sleep() };
    let Some(office) = office.upgrade() else { return sleep() };
    office.push(Event::Waits(job, true));
    let result = sleep();
    office.push(Event::Waits(job, false));
    result
}

/// Numbers of cpus of this machine for what the body at hand has others run, that nobody else is bound to while it
/// runs; none if there are too few, or its batch does not bind.
pub(crate) fn bind_body(cpus: u32) -> Vec<u32> {
    let held = HELD.with_borrow(Clone::clone);
    let office = held.and_then(|(office, job)| Some((office.upgrade()?, job)));
    office.map_or_else(Vec::new, |(office, job)| office.with_state(|state| state.bind_body(job, cpus)))
}

#[cfg(test)]
mod tests {
    use super::{Event, Office};

    #[test]
    fn what_is_pushed_while_somebody_looks_is_taken_in() {
        let office = Office::open();
        office.with_state(|_| office.push(Event::Seats));
        assert!(office.inbox.lock().is_empty(), "nobody would look at it before something else happens");
    }
}
