//! One list on several ranks: who has which tasks, what ranks tell one another, and how results come where they are
//! asked for.
//!
//! # Shape
//! The *home* rank (0) runs the user's program and compiles lists. A list that is spread over ranks is cut into pieces
//! (see `compile::split`); home keeps its own in the plan, and packs the others into *parts* (`part`), which it sends
//! once. The other ranks are *guests*: each makes of its part a plan like any other, whose tasks are real records, and
//! keeps it until home lets it go. So a rank runs its piece as any run of a plan: by the same workers, counters and
//! bodies. What a plan has to do with other ranks is its *side* (`side`):
//! - *imports*, its first nodes: each stands for a task on another rank, and ends when that rank says so;
//! - *exports* of its own nodes: who is told when one ends.
//!
//! No rank is asked which task may run: a notice goes straight from the rank of a source to the ranks of its targets,
//! one message for each such rank however many targets it has there, with the value in it if one of them takes it, and
//! with what the source has written if one takes that (`goods`).
//!
//! # Messages
//! | message | from → to | says |
//! |---|---|---|
//! | `Part` | home → guest | the tasks of a list, their edges, imports and exports |
//! | `Start` | home → guest | run number n of a list begins |
//! | `Notice` | rank → rank | in run n an import has ended: well, with or without value, or not |
//! | `End` | guest → home | run n of the part has ended, and which tasks did not succeed |
//! | `Fetch` | home → guest | wants what a task gave, as soon as it has ended |
//! | `Reply` | guest → home | that |
//! | `Read` | home → guest | wants what a task has written so far |
//! | `Written` | guest → home | that |
//! | `Cancel` | home → guest | cancels the run, or one task of it |
//! | `Drop` | home → guest | nobody wants the list or its results any more |
//! | `Lost` | guest → home | a rank is dead, or this one cannot go on, and why |
//! | `Stop` | home → guest | the world ends |
//! | `Times` | guest → home | when tasks of the part ran in run n, before its `End` |
//! | `Clock` | home → guest | wants to know what its clock says |
//! | `Now` | guest → home | that |
//! | `Free` | guest → home | bodies that were given up in run n have returned |
//! | `Steal`, `Gift`, `Wrote`, `Returned`, `Recall` | rank ↔ rank | see `steal` |
//! | `Look` | to itself | the listener wakes up |
//! | `Muster` | rank → rank | see `gang` |
//! | `Moved`, `Have` | home ↔ guest | see `loss` |
//! | `Give` | home → guest | sends what a task gave to the ranks where a run of another list takes it |
//! | `Reuse` | home → guest | what a journal says of tasks that the run which starts next need not do |
//! | `Record` | guest → home | in run n a task has succeeded: what a journal is to remember of it |
//! | `Recorded` | home → guest | a record is on the disk, if guests wait for that |
//!
//! Messages of one pair of ranks come in order, those of different pairs do not: a notice may come before the part that
//! it is for, or before its run has begun there. It waits in `early` until then.
//!
//! # Results of earlier lists
//! A list may take results of lists that have run before. Home waits for those before the run starts, and keeps them
//! from running again or being taken until it has ended. What tasks of other ranks take of them is imported there like
//! the end of any task; a value goes once to each rank that takes it, in each run: from home, if it is there only; else
//! straight from the rank that has it, which home tells to (`Give`). A task is rather placed where such a value is.
//! Results of earlier *submissions* that have not ended yet are gates at home: these end when the value is there, and
//! send it on. A failure goes the same way, and counts before all failures of the list itself (`outside`).
//!
//! # States of a task elsewhere, as home sees it
//! Its record at home has no body to run there. While the run is under way it counts as waiting, unless its value came:
//! because a task at home takes it (a notice), or because somebody asked (a reply). When its part has ended it counts
//! as done, elsewhere; whoever wants its value asks for it then, once. A task that failed is told of in `End`, and its
//! failure is noted as if it had run at home. `elsewhere` has the table.
//!
//! # Who may write what
//! - The record at home of a task elsewhere: handlers of messages, of which one runs at a time on a rank.
//! - `early`: handlers and who begins a run, under its lock; whether a run has begun is decided under the same lock.
//! - A guest's table of parts: its clerk, the one thread that unpacks, starts and drops them.
//!
//! # What goes elsewhere
//! Functions with arguments and results that serde can write, and processes; a guest has a batch for each kind of batch
//! at home, which runs them as any batch does. At home stay closures and tasks that take what one returned; tasks that
//! take what a task of another list has written, which is brought to home first, when the run begins or that task has
//! ended (`Plan::heard`); tasks that need more cpus or memory than every rank has, or a resource that the user
//! named; and lists of a batch that is serial. What stands for tasks of earlier submissions is at home, too. What a
//! task writes stays with it but for this.
//!
//! # Lists in lists
//! A list may hold compiled ones, whose tasks have cohorts and indices of their own, and may have pieces on other ranks
//! already, for when their list runs alone. It is cut as a whole, and what ranks tell one another names tasks by their
//! places in it: a guest knows no other index. Home alone knows cohorts: it translates places to tasks, and the indices
//! in failures that come from guests. A cohort is *bound* to the `Elsewhere` of the list in whose run it takes part, or
//! to none, when the run begins, and stays so until the next run: it says where its results are, also when that list is
//! gone. Who had asked for a value before another list's run began is heard when that is known to guests, as is whoever
//! watches a task.
//!
//! Where a task was placed it stays, as far as others know; a rank with nothing to do may run it all the same
//! (`steal`); a task that several ranks run at once is placed on the first of them (`gang`).
//!
//! # Bodies that were given up
//! A body that does not hear that it is cancelled or late keeps its task, on a guest as at home: the run ends without
//! it, and the list cannot start again until it has returned (`Free`).
//!
//! # Journals
//! If the batch keeps a journal, home alone has it, and decides what need not run (`resume`). `records` brings that to
//! guests, and what they did to home.
//!
//! # Times
//! If the batch measures, so do guests' batches: a guest tells when its tasks ran by its own clock (`times`), and home,
//! which knows the graph of all ranks (`Plan::whole`), shifts that by how far the clock is ahead of its own (`clock`).
//! Ranks of one machine have one clock. On others times are right, against those of home, to half the shortest round
//! trip of a few messages at the start of the run, and 15 millionths of what the run takes: about 10 µs for a run of a
//! fraction of a second over tcp. The report says how exact they are.
//!
//! # Deaths
//! Where the world survives losses, `loss` says what becomes of the list. Else a lost rank ends the world. Home's tasks
//! elsewhere that have not ended fail, and so does every later start of a list
//! that is spread; home then stops the guests. A guest that finds another dead tells home, and goes on until it is told
//! to stop; one that finds home dead stops.

mod away;
mod clerk;
mod clock;
mod elsewhere;
mod gang;
mod goods;
mod loss;
mod message;
mod outside;
mod pack;
mod part;
mod reading;
mod records;
mod seats;
mod serve;
mod share;
mod side;
mod steal;
mod times;
mod told;
mod unpack;

pub(crate) use elsewhere::Elsewhere;
pub(crate) use gang::{Far, Holding, OfPlan, Role, join as join_gang};
pub use gang::{Gang, GangError};
pub(crate) use pack::{Places, Unwritten, spread};
pub(crate) use part::{Limited, Setup};
pub(crate) use records::Recorder;
pub use serve::serve;
pub(crate) use serve::{of_environment, of_spawn};
pub(crate) use side::Side;
pub(crate) use told::Told;

use crate::error::Error;
use crate::plan::Plan;
use crate::run::WORKERS_MAX;
use crate::run::measured::monotonic_ns;
use clerk::Order;
use clock::{Clocks, Offset};
use gang::Gangs;
use message::Kind;
use parking_lot::{Mutex, RwLock};
use share::{Have, look};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};
use steal::Stealing;
use tarragon_transport::{Change, FabricError, Message, PeerState, Rank, World};

/// How long the thread that receives sleeps at most: how late it may see that a rank has died of which no message told.
const NAP: Duration = Duration::from_secs(1);

/// What ranks sent one another for a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Notices that tasks have ended, in the latest run: one for each rank that waits for a task of another.
    pub notices: u64,
    /// Their bytes, values among them; but for results of earlier lists that another rank sends for this one, only
    /// those of the message that tells it to.
    pub notice_bytes: u64,
    /// Bytes of the parts that the other ranks got when the list was compiled.
    pub part_bytes: u64,
    /// Tasks in these parts.
    pub tasks_elsewhere: u64,
    /// Tasks that ran on another rank than where they were placed, in the latest run.
    pub tasks_stolen: u64,
    /// Tasks that were begun once more on another rank in the latest run, since theirs was lost.
    pub tasks_rerun: u64,
}

/// How long workers may not have looked for messages before the listener does.
const PAUSE: Duration = Duration::from_millis(1);

/// The ranks of a world, as the engine of this rank uses them.
pub(crate) struct Ranks {
    world: Arc<World>,
    /// Lists that this rank has a piece of, by number.
    lists: RwLock<HashMap<u64, Weak<Plan>>>,
    /// At home: tasks of a list that run elsewhere.
    elsewheres: RwLock<HashMap<u64, Weak<Elsewhere>>>,
    /// Notices that came before their run has begun here.
    early: Mutex<HashMap<u64, Vec<Vec<u8>>>>,
    /// To the clerk.
    orders: Sender<Order>,
    /// The clerk's end, until there is one.
    desk: Mutex<Option<Receiver<Order>>>,
    next: AtomicU64,
    /// The first rank that was found dead or could not go on, and what is known of that, if it ends the world.
    lost: OnceLock<(Rank, String)>,
    is_stopped: AtomicBool,
    /// Of membership, for the listener, where losses are survived; and that there is something for it to do.
    changes: Mutex<Vec<Change>>,
    has_changes: AtomicBool,
    /// What ranks have.
    have: OnceLock<Have>,
    /// At home: what the clocks of others say.
    clocks: Clocks,
    /// A worker has looked for messages since the listener last asked.
    is_looked: AtomicBool,
    /// The thread that receives when no worker does.
    listener: OnceLock<Thread>,
    stealing: Stealing,
    gangs: Gangs,
}

/// Those of each world, once, until this rank leaves it: the other ranks wait for lists as long.
static ALL: Mutex<Vec<Arc<Ranks>>> = Mutex::new(Vec::new());

impl Ranks {
    /// The ranks of a world; the first call on each rank waits for that of all others.
    pub(crate) fn of(world: &Arc<World>) -> Result<Arc<Ranks>, Error> {
        let mut all = ALL.lock();
        if let Some(ranks) = all.iter().find(|ranks| Arc::ptr_eq(&ranks.world, world)) {
            return Ok(Arc::clone(ranks));
        }
        let ranks = Self::join(world)?;
        all.push(Arc::clone(&ranks));
        Ok(ranks)
    }

    fn join(world: &Arc<World>) -> Result<Arc<Ranks>, Error> {
        let (orders, desk) = channel();
        let ranks = Arc::new(Ranks {
            world: Arc::clone(world),
            lists: RwLock::default(),
            elsewheres: RwLock::default(),
            early: Mutex::default(),
            orders,
            desk: Mutex::new(Some(desk)),
            next: AtomicU64::new(1),
            lost: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            changes: Mutex::default(),
            has_changes: AtomicBool::new(false),
            have: OnceLock::new(),
            clocks: Clocks::new(world.size()),
            is_looked: AtomicBool::new(false),
            listener: OnceLock::new(),
            stealing: Stealing::new(),
            gangs: Gangs::default(),
        });
        for kind in Kind::ALL {
            let this = Arc::downgrade(&ranks);
            world.on(kind.handler(), move |_, message| {
                if let Some(ranks) = this.upgrade() {
                    ranks.receive(kind, message);
                }
            });
        }
        // Whoever has heard of all knows that they can receive.
        let have = look(world)?;
        ranks.watch_membership();
        ranks.have.get_or_init(|| have);
        if ranks.is_home() {
            ranks.start_listener()?;
        }
        let farewell = Arc::downgrade(&ranks);
        world.before_leaving(move |_| {
            if let Some(ranks) = farewell.upgrade() {
                ranks.stop();
                ALL.lock().retain(|other| !Arc::ptr_eq(other, &ranks));
            }
        });
        Ok(ranks)
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub(crate) fn rank(&self) -> u32 {
        self.world.rank().0
    }

    pub(crate) fn size(&self) -> u32 {
        self.world.size()
    }

    /// Cpus of this node that are for this rank.
    pub(crate) fn cpus(&self) -> u32 {
        self.have.get().map_or(1, |have| have.cpus)
    }

    /// By rank its node.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        self.world.ranks().map(|rank| self.world.fabric().node_of(rank).unwrap_or(0)).collect()
    }

    /// Ranks that share this node.
    pub(crate) fn sharers(&self) -> u32 {
        self.have.get().map_or(1, |have| have.sharers)
    }

    /// Cpus, bytes of memory and GPUs that every rank has at least.
    pub(crate) fn least(&self) -> (u32, u64, u32) {
        let least = |all: &[u32]| all.iter().copied().min();
        self.have.get().map_or((1, 0, 0), |have| {
            (least(&have.all_cpus).unwrap_or(1), have.least_memory, least(&have.all_gpus).unwrap_or(0))
        })
    }

    /// Workers that a guest has for a batch.
    fn workers_of(&self, rank: u32, setup: &Setup) -> u32 {
        let cpus = self.have.get().and_then(|have| have.all_cpus.get(rank as usize));
        match setup.workers {
            0 => cpus.map_or(1, |cpus| (*cpus).clamp(1, WORKERS_MAX as u32)),
            workers => workers,
        }
    }

    pub(crate) fn is_home(&self) -> bool {
        self.rank() == 0
    }

    /// An error once a rank is lost.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.lost.get() {
            None => Ok(()),
            Some((rank, why)) => {
                let host = self.host(*rank);
                Err(Error::RankLost { rank: rank.0, host, why: why.clone() })
            }
        }
    }

    fn host(&self, rank: Rank) -> String {
        self.world.host(rank).unwrap_or("an unknown host").to_string()
    }

    /// At home: the thread that receives while all others are at work.
    fn start_listener(self: &Arc<Self>) -> Result<(), Error> {
        let ranks = Arc::downgrade(self);
        let listener = std::thread::Builder::new().name("tarragon-ranks".to_string());
        let listen = move || {
            if let Some(ranks) = ranks.upgrade() {
                ranks.listener.get_or_init(std::thread::current);
                let mut last = Instant::now();
                while !ranks.is_stopped.load(Ordering::Acquire) {
                    ranks.listen(&mut last);
                }
            }
        };
        listener.spawn(listen).map_err(|e| Error::Threads { threads: 1, source: Box::new(e) })?;
        Ok(())
    }

    /// A worker with nothing to do looks at what has come; how many messages there were.
    #[inline]
    pub(crate) fn receive_some(&self) -> usize {
        if !self.is_looked.load(Ordering::Relaxed) {
            self.is_looked.store(true, Ordering::Relaxed);
        }
        self.world.progress()
    }

    /// Whether workers with nothing to do should look for messages for a while.
    pub(crate) fn spins(&self) -> bool {
        self.have.get().is_some_and(|have| have.is_whole)
    }

    /// No worker looks for messages any more.
    pub(crate) fn stand_back(&self) {
        self.is_looked.store(false, Ordering::Relaxed);
        if let Some(listener) = self.listener.get() {
            listener.unpark();
        }
    }

    /// Receives what comes, unless workers do that; looks now and then whether all ranks are there. Returns now and
    /// then.
    fn listen(self: &Arc<Self>, last: &mut Instant) {
        if self.is_looked.swap(false, Ordering::Relaxed) {
            std::thread::park_timeout(PAUSE);
        } else {
            self.world.wait(self.until_due().unwrap_or(NAP));
        }
        self.act_on_changes();
        self.steal_when_due();
        if last.elapsed() >= NAP {
            *last = Instant::now();
            let survives = self.survives();
            if !survives && let Some(rank) = self.world.fabric().check_peers().first() {
                self.lose(*rank, "its process has ended");
            }
            // A guest leaves when it is told to, or cannot go on. Of others that are gone membership tells.
            let gone = |rank: &Rank| match self.world.peer(*rank) {
                PeerState::Here => false,
                PeerState::Left => true,
                _ => !survives,
            };
            if self.is_home()
                && !self.is_stopped.load(Ordering::Acquire)
                && let Some(rank) = self.world.ranks().skip(1).find(gone)
            {
                self.lose(rank, "its process has left");
            }
        }
    }

    /// A rank is dead, or cannot go on.
    fn lose(&self, rank: Rank, why: &str) {
        if self.lost.set((rank, why.to_string())).is_err() {
            return;
        }
        tracing::error!(target: "tarragon", rank = rank.0, why, "a rank is lost");
        if !self.is_home() {
            // Home says who ends, and when: else it could take those for lost that end because of this one.
            let _ = self.send(Rank(0), Kind::Lost, u64::from(rank.0), why.as_bytes());
            return;
        }
        let lists: Vec<_> = self.elsewheres.read().values().filter_map(Weak::upgrade).collect();
        lists.iter().for_each(|list| list.lose());
        self.lose_gifts();
        self.stop();
    }

    /// This rank leaves; home tells the guests that the world ends.
    fn stop(&self) {
        if !self.is_stopped.swap(true, Ordering::AcqRel) && self.is_home() {
            for rank in self.world.ranks().skip(1) {
                // Who is gone needs not be told.
                let _ = self.send(rank, Kind::Stop, 0, &[]);
            }
            // If it has parts itself.
            let _ = self.orders.send(Order::Stop);
        }
    }

    fn send(&self, to: Rank, kind: Kind, list: u64, bytes: &[u8]) -> Result<(), FabricError> {
        self.world.send(to, kind.handler(), list, bytes)
    }

    /// As `send`; a rank that cannot be told is lost, unless the world ends.
    fn tell(&self, to: Rank, kind: Kind, list: u64, bytes: &[u8]) {
        if self.is_stopped.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.send(to, kind, list, bytes) {
            self.was_not_told(to, &error);
        }
    }

    /// As [`tell`](Self::tell), of bytes that may be many.
    fn tell_owned(&self, to: Rank, kind: Kind, list: u64, bytes: Vec<u8>) {
        if self.is_stopped.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.world.fabric().send_owned(to, kind.handler(), list, bytes) {
            self.was_not_told(to, &error);
        }
    }

    /// Finds out what the clock of a rank says, while other things go on.
    fn ask_clock(&self, rank: Rank) {
        let now = monotonic_ns();
        if self.clocks.ask(rank.0, now) {
            self.tell(rank, Kind::Clock, 0, &message::bytes(&now));
        }
    }

    /// How far the clock of a rank has been ahead since some time.
    fn clock_of(&self, rank: Rank, since_ns: u64) -> Option<Offset> {
        self.clocks.of(rank.0, since_ns, monotonic_ns())
    }

    /// A clock has said what it is asked.
    fn clock_told(&self, rank: Rank, bytes: &[u8]) {
        let now = monotonic_ns();
        let Some(((asked, there), _)) = message::head::<(u64, u64)>(bytes) else { return };
        if self.clocks.told(rank.0, asked, there, now) {
            self.tell(rank, Kind::Clock, 0, &message::bytes(&now));
        }
    }

    /// A number for a new list.
    fn next_list(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn receive(self: &Arc<Self>, kind: Kind, message: &Message<'_>) {
        let (list, bytes) = (message.tag, message.payload);
        let order = match kind {
            Kind::Notice => return self.notice(list, bytes),
            Kind::End
            | Kind::Reply
            | Kind::Written
            | Kind::Times
            | Kind::Free
            | Kind::Record
            | Kind::Have => {
                if let Some(elsewhere) = self.elsewhere(list) {
                    elsewhere.receive(kind, message);
                }
                return;
            }
            Kind::Lost => return self.lose(Rank(list as u32), &String::from_utf8_lossy(bytes)),
            Kind::Clock => {
                let Some((asked, _)) = message::head::<u64>(bytes) else { return };
                let says = message::bytes(&(asked, monotonic_ns()));
                return self.tell(message.source, Kind::Now, 0, &says);
            }
            Kind::Now => return self.clock_told(message.source, bytes),
            Kind::Steal => return self.asked_for_work(message.source, bytes),
            Kind::Gift => return self.gift(message.source, list, bytes),
            // The listener looks at all there is to do when it is awake.
            Kind::Look => return,
            Kind::Returned => return self.returned(message.source, list, bytes),
            Kind::Wrote => return self.wrote_elsewhere(message.source, list, bytes),
            Kind::Recall => {
                let Some((place, _)) = message::head::<Option<u32>>(bytes) else { return };
                // A guest may still have the gift before it.
                match self.is_home() {
                    true => return self.recalled(message.source, list, place),
                    false => Order::Recall { from: message.source, number: list, place },
                }
            }
            Kind::Muster => Order::Muster { number: list, bytes: bytes.to_vec() },
            Kind::Moved => Order::Moved { list, bytes: bytes.to_vec() },
            Kind::Part => Order::Part { list, bytes: bytes.to_vec() },
            Kind::Start => Order::Start { list, bytes: bytes.to_vec() },
            Kind::Fetch => Order::Fetch { list, bytes: bytes.to_vec() },
            Kind::Read => Order::Read { list, bytes: bytes.to_vec() },
            Kind::Give => Order::Give { list, bytes: bytes.to_vec() },
            Kind::Reuse => Order::Reuse { list, bytes: bytes.to_vec() },
            Kind::Recorded => return self.recorded(list, bytes),
            Kind::Cancel => Order::Cancel { list, bytes: bytes.to_vec() },
            Kind::Drop => Order::Drop { list },
            Kind::Stop => {
                self.is_stopped.store(true, Ordering::Release);
                Order::Stop
            }
        };
        // Without a clerk nobody serves any more.
        let _ = self.orders.send(order);
    }

    /// An import of a list has ended somewhere.
    fn notice(&self, list: u64, bytes: &[u8]) {
        // Let go after the lock: it may be the last one.
        let plan;
        let run = {
            // Whether the list is known here is asked under the lock as well: who begins its run looks there once.
            let mut early = self.early.lock();
            plan = self.plan_of(list);
            let run = plan.as_ref().and_then(|plan| plan.side.as_ref()?.run_of(bytes));
            if run.is_none() {
                early.entry(list).or_default().push(bytes.to_vec());
            }
            run
        };
        if let Some((run, side)) = run.zip(plan.as_ref().and_then(|plan| plan.side.as_ref())) {
            side.notice(&run, bytes);
        }
    }

    /// From now on messages for this list find it, and guests know of it. No lock of the batch is held meanwhile:
    /// who waits for room at a guest receives.
    pub(crate) fn register(&self, plan: &Arc<Plan>) {
        if let Some(side) = &plan.side {
            self.lists.write().insert(side.list(), Arc::downgrade(plan));
            if let Some(elsewhere) = side.elsewhere() {
                self.elsewheres.write().insert(side.list(), Arc::downgrade(elsewhere));
                elsewhere.send_parts();
            }
        }
    }

    /// The plan of what this rank has of a list.
    fn plan_of(&self, list: u64) -> Option<Arc<Plan>> {
        self.lists.read().get(&list).and_then(Weak::upgrade)
    }

    fn forget(&self, list: u64) {
        self.lists.write().remove(&list);
        self.early.lock().remove(&list);
    }
}
