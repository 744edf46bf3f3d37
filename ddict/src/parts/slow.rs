//! What takes long: one thread of a server does it, one after the other, and looks now and then whether somebody has
//! died for whom something waits. What takes long of replicas has another thread, which waits for nobody: so servers
//! that wait for one another's replicas do not wait in a circle.

use super::copies::Span;
use super::message::{self, Question, Reply, Verb, WHOLE, Whole};
use super::replicas::{Around, Asked, Writes};
use super::serve::{
    Answer, Served, Server, answer, check_shard, forget_the_dead, is, lock, odd, refuse, respond, scan,
};
use crate::error::Error;
use crate::store::Store;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, Rank};

/// The longest sleep of the thread while it waits for others.
const NAP: Duration = Duration::from_millis(1);
/// How often it is asked who lives.
const LIVENESS: Duration = Duration::from_millis(100);
/// Looks without anything that waits before it sleeps until it is woken.
const IDLE_LOOKS_MAX: u32 = 20;

/// What a thread is to do.
pub(super) struct Order {
    pub(super) fabric: Arc<Fabric>,
    pub(super) source: Rank,
    pub(super) tag: u64,
    pub(super) task: Task,
}

pub(super) enum Task {
    /// Answers a question.
    Answer(Vec<u8>),
    /// Makes way for a write, and does it.
    Write(Arc<Served>, Asked),
    /// The rank has closed its last handle of a part.
    Leave(u128),
    /// Does something with all keys of a replica.
    Whole(u128, Whole),
    /// Looks from now on whether somebody has died.
    Look,
    /// Goes on without those that were lost, and takes over what was theirs.
    Inherit,
}

impl Server {
    /// Has the thread do something; starts it when there is none.
    pub(super) fn order(self: &Arc<Self>, order: Order) {
        self.hand(&self.orders, "tarragon-ddict", order);
    }

    /// The same for what is a replica's to do.
    pub(super) fn order_whole(self: &Arc<Self>, order: Order) {
        self.hand(&self.wholes, "tarragon-ddict-replicas", order);
    }

    fn hand(self: &Arc<Self>, thread: &Mutex<Option<Sender<Order>>>, name: &str, order: Order) {
        let (fabric, source, tag) = (Arc::clone(&order.fabric), order.source, order.tag);
        let mut orders = lock(thread);
        if orders.is_none() {
            let (sender, receiver) = channel();
            let server = Arc::downgrade(self);
            let work = move || work(&server, &receiver);
            if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
                drop(orders);
                return refuse(&fabric, source, tag, format!("it has no thread for it: {error}"));
            }
            *orders = Some(sender);
        }
        if let Some(sender) = &*orders {
            // The thread goes with the server alone.
            let _ = sender.send(order);
        }
    }

    /// Has the thread look for the dead, as long as something waits for others.
    pub(super) fn look_from_now_on(self: &Arc<Self>, fabric: &Arc<Fabric>) {
        // The thread takes it back before it looks for the last time.
        if !self.is_looking.swap(true, Ordering::SeqCst) {
            let (source, tag) = (fabric.rank(), 0);
            self.order(Order { fabric: Arc::clone(fabric), source, tag, task: Task::Look });
        }
    }

    /// Goes on without those that have died.
    pub(super) fn look(self: &Arc<Self>, fabric: &Arc<Fabric>, part: &Arc<Served>) {
        let deeds = {
            let is_live = part.is_live(fabric);
            let around = Around { part, is_live: &is_live };
            let mut deeds = part.look_after_copies(&is_live);
            deeds.extend(part.writes.iter().flat_map(|writes| writes.look(&around)));
            deeds
        };
        self.act(fabric, part, deeds);
    }

    /// The same for all parts; whether something waits.
    fn look_at_all(self: &Arc<Self>, fabric: &Arc<Fabric>) -> bool {
        fabric.check_peers();
        let parts: Vec<Arc<Served>> = lock(&self.parts).values().cloned().collect();
        parts.iter().for_each(|part| self.look(fabric, part));
        let is_waiting = |part: &Arc<Served>| {
            part.is_spreading() || part.writes.as_ref().is_some_and(Writes::is_under_way)
        };
        parts.iter().any(is_waiting)
    }

    // ── a write ─────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes way for a write, and does it.
    fn write_slowly(self: &Arc<Self>, fabric: &Arc<Fabric>, part: &Arc<Served>, asked: Asked) {
        let key = asked.rest.get(..asked.question.key as usize).unwrap_or_default();
        let Some(writes) = &part.writes else {
            let answer = self.write_alone(fabric, part, &asked);
            return if let Some(answer) = answer {
                respond(fabric, asked.who.0, asked.who.1, answer)
            };
        };
        let is_broadcast = matches!(asked.question.verb, Verb::Broadcast { .. });
        let make_way = || {
            while !is_broadcast && part.has_copies(key) {
                self.give_up(fabric, part, part.store.cell_of(key)?, || ())?;
            }
            match asked.question.verb.checkpoint() {
                Some(checkpoint) if part.store.check_write(checkpoint)? => {
                    self.advance(fabric, part, checkpoint).map(drop)
                }
                _ => Ok(()),
            }
        };
        if let Err(error) = make_way() {
            return respond(fabric, asked.who.0, asked.who.1, Err(error));
        }
        let is_live = part.is_live(fabric);
        let deeds = writes.begin(&Around { part, is_live: &is_live }, asked);
        self.act(fabric, part, deeds);
    }

    /// The same where nobody else keeps the key; no answer: it comes when all nodes have it.
    fn write_alone(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        asked: &Asked,
    ) -> Option<Answer> {
        let Some((key, value)) = asked.rest.split_at_checked(asked.question.key as usize) else {
            return Some(Err(odd()));
        };
        if let Verb::Broadcast { checkpoint, keep } = asked.question.verb {
            let mut deeds = Vec::new();
            let begun = part.broadcast((checkpoint, keep), key, value, asked.who, &mut deeds);
            self.act(fabric, part, deeds);
            return begun.err().map(Err);
        }
        let cell = match part.store.cell_of(key) {
            Ok(cell) => cell,
            Err(error) => return Some(Err(error)),
        };
        let done = self.give_up(fabric, part, cell, || self.quick(&asked.question, &asked.rest));
        Some(done.and_then(|answer| answer))
    }

    // ── all keys, where others keep them too ────────────────────────────────────────────────────────────────

    /// Does something while no write is under way.
    fn closed<R>(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        act: impl FnOnce() -> Result<R, Error>,
    ) -> Result<R, Error> {
        let Some(writes) = &part.writes else { return act() };
        writes.close();
        let mut looked = Instant::now();
        while !writes.is_drained_within(NAP) {
            fabric.progress();
            if looked.elapsed() >= LIVENESS {
                fabric.check_peers();
                self.look(fabric, part);
                looked = Instant::now();
            }
        }
        let done = act();
        let is_live = part.is_live(fabric);
        let deeds = writes.reopen(&Around { part, is_live: &is_live });
        self.act(fabric, part, deeds);
        done
    }

    /// Has all replicas of a part do something; those that die meanwhile need not.
    fn tell_replicas(&self, fabric: &Arc<Fabric>, part: &Served, whole: &Whole) -> Result<(), Error> {
        let (Some(writes), Some(span)) = (&part.writes, part.span.get()) else { return Ok(()) };
        let ask = |node: u32| {
            let rank = span.homes[node as usize].rank;
            let request = fabric.request(rank, WHOLE, &message::bytes(&(part.replica_on(node), whole)));
            (node, request)
        };
        let asked: Vec<_> = writes.standbys(span.here).into_iter().map(ask).collect();
        let mut all = Ok(());
        for (node, request) in asked {
            let Ok(Some(bytes)) = request.and_then(|request| request.wait(Duration::MAX)) else { continue };
            let told = match message::head::<Result<Reply, message::Fault>>(&bytes) {
                Some((Ok(_), _)) => Ok(()),
                Some((Err(fault), _)) => Err(part.fault_of(node, fault, &[])),
                None => Err(odd()),
            };
            all = all.and(told);
        }
        all
    }

    /// Goes on to a checkpoint; a key that must be written anew first.
    fn advance(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        checkpoint: u32,
    ) -> Result<Option<Vec<u8>>, Error> {
        if part.writes.is_some() && !part.store.check_write(checkpoint)? {
            return Ok(None);
        }
        self.closed(fabric, part, || {
            let missing = part.store.try_advance(checkpoint)?;
            if missing.is_none() {
                self.tell_replicas(fabric, part, &Whole::Follow { checkpoint })?;
            }
            Ok(missing)
        })
    }

    fn clear(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        checkpoint: u32,
    ) -> Result<(), Error> {
        self.closed(fabric, part, || {
            self.give_all_up(fabric, part, || {
                part.store.check_write(checkpoint)?;
                self.tell_replicas(fabric, part, &Whole::Clear { checkpoint })?;
                part.store.clear(checkpoint)
            })
        })
    }

    fn freeze(self: &Arc<Self>, fabric: &Arc<Fabric>, part: &Arc<Served>, frozen: bool) -> Result<(), Error> {
        self.closed(fabric, part, || {
            self.tell_replicas(fabric, part, &Whole::Freeze(frozen))?;
            part.store.freeze(frozen)
        })
    }

    // ── a part ──────────────────────────────────────────────────────────────────────────────────────────────

    fn slow(self: &Arc<Self>, fabric: &Arc<Fabric>, source: Rank, bytes: &[u8]) -> Answer {
        let (question, rest) = message::head::<Question>(bytes).ok_or_else(odd)?;
        if let Verb::Make(options, nodes) = &question.verb {
            return Ok(answer(self.make(Served::make(options, *nodes, source)?), &[]));
        }
        let part = self.part(question.part)?;
        let store = &part.store;
        let done = |()| is(true);
        rest.split_at_checked(question.key as usize).ok_or_else(odd)?;
        match question.verb {
            Verb::GiveUp { cell } => self.give_up(fabric, &part, cell, || ()).map(done),
            Verb::Know { homes, here } => {
                let _known_already = part.span.set(Span { homes, here });
                Ok(is(true))
            }
            Verb::Scan { shard, checkpoint, cursor, values } => {
                scan(store, shard, checkpoint, cursor, values)
            }
            Verb::Figures { shard, checkpoint } => {
                check_shard(store, shard)?;
                Ok(answer(Reply::Figures(store.figures(shard, checkpoint)?), &[]))
            }
            Verb::Len { checkpoint } => Ok(answer(Reply::Count(store.len(checkpoint)?), &[])),
            Verb::Usage => Ok(answer(Reply::Usage(part.usage()), &[])),
            Verb::Hits { shards } => Ok(answer(Reply::Hits(part.copies.hits_elsewhere(shards)), &[])),
            Verb::Show => Ok(answer(Reply::Shown(part.show(fabric)?), &[])),
            Verb::Checkpoints => {
                let (newest, oldest) = store.checkpoints();
                Ok(answer(Reply::Checkpoints(newest, oldest), &[]))
            }
            Verb::Clear { checkpoint } => self.clear(fabric, &part, checkpoint).map(done),
            Verb::Freeze(frozen) => self.freeze(fabric, &part, frozen).map(done),
            Verb::Destroy => {
                self.forget(question.part);
                Ok(is(true))
            }
            Verb::Recover => Ok(answer(Reply::Count(store.recover() as u64), &[])),
            Verb::Advance { checkpoint } => match self.advance(fabric, &part, checkpoint)? {
                None => Ok(is(true)),
                Some(key) => Ok(answer(Reply::Missing(key), &[])),
            },
            Verb::Enter => {
                forget_the_dead(fabric, &part);
                *lock(&part.users).entry(source).or_default() += 1;
                Ok(is(true))
            }
            _ => Err(odd()),
        }
    }

    /// Answers for a part from now on; its names.
    fn make(&self, part: Served) -> Reply {
        let names = [&part.store, &part.copies].map(|store| store.name().clone());
        let [name, copies] = names;
        let replicas: Vec<_> = part.standbys.iter().map(|it| it.store.name().clone()).collect();
        let mut standbys = lock(&self.standbys);
        standbys.extend(part.standbys.iter().map(|it| (it.store.name().uid, Arc::clone(it))));
        lock(&self.parts).insert(name.uid, Arc::new(part));
        Reply::Made(name, copies, replicas)
    }

    /// Destroys a part, with all that lies beside it.
    fn forget(&self, uid: u128) {
        if let Some(part) = self.drop_part(uid) {
            let replicas = part.standbys.iter().map(|standby| &standby.store);
            [&part.store, &part.copies].into_iter().chain(replicas).for_each(Store::destroy);
        }
    }

    /// Answers no more for a part, nor for the replicas beside it.
    fn drop_part(&self, uid: u128) -> Option<Arc<Served>> {
        let part = lock(&self.parts).remove(&uid)?;
        let mut standbys = lock(&self.standbys);
        for standby in &part.standbys {
            let uid = standby.store.name().uid;
            standbys.remove(&uid);
            // What was taken over lasts as long as what lay there before.
            lock(&self.parts).remove(&uid);
        }
        Some(part)
    }

    fn leave(&self, fabric: &Fabric, uid: u128, rank: Rank) {
        let Ok(part) = self.part(uid) else { return };
        if let Some(count) = lock(&part.users).get_mut(&rank) {
            *count = count.saturating_sub(1);
        }
        forget_the_dead(fabric, &part);
        let is_over = lock(&part.users).is_empty();
        if is_over {
            self.drop_part(uid);
        }
    }

    fn whole(&self, uid: u128, whole: &Whole) -> Answer {
        let standby = lock(&self.standbys).get(&uid).cloned();
        let standby = standby.ok_or_else(|| Error::Gone { name: String::new() })?;
        standby.take_whole(whole).map(|()| is(true))
    }

    fn follow(self: &Arc<Self>, order: Order) {
        let Order { fabric, source, tag, task } = order;
        match task {
            Task::Answer(bytes) => respond(&fabric, source, tag, self.slow(&fabric, source, &bytes)),
            Task::Write(part, asked) => self.write_slowly(&fabric, &part, asked),
            Task::Leave(part) => self.leave(&fabric, part, source),
            Task::Whole(part, whole) => respond(&fabric, source, tag, self.whole(part, &whole)),
            Task::Look => {}
            Task::Inherit => {
                self.look_at_all(&fabric);
                self.inherit(&fabric);
            }
        }
    }
}

/// A thread: one order after the other, until the server is gone.
fn work(server: &Weak<Server>, orders: &Receiver<Order>) {
    let mut looks = Looks { fabric: Weak::new(), idle: IDLE_LOOKS_MAX, last: Instant::now() };
    loop {
        let order = if looks.is_idle() {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            orders.recv_timeout(LIVENESS)
        };
        let Some(server) = server.upgrade() else { return };
        match order {
            Ok(order) => {
                if matches!(order.task, Task::Look) {
                    looks = Looks { fabric: Arc::downgrade(&order.fabric), idle: 0, last: Instant::now() };
                }
                server.follow(order);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        looks.look(&server);
    }
}

/// How long the thread has looked for the dead in vain.
struct Looks {
    fabric: Weak<Fabric>,
    idle: u32,
    last: Instant,
}

impl Looks {
    fn is_idle(&self) -> bool {
        self.idle >= IDLE_LOOKS_MAX
    }

    fn look(&mut self, server: &Arc<Server>) {
        if self.is_idle() || self.last.elapsed() < LIVENESS {
            return;
        }
        self.last = Instant::now();
        let Some(fabric) = self.fabric.upgrade() else { return self.idle = IDLE_LOOKS_MAX };
        self.idle = if server.look_at_all(&fabric) { 0 } else { self.idle + 1 };
        if self.is_idle() {
            // Who begins something from now on wakes the thread; what has begun before is looked at once more.
            server.is_looking.store(false, Ordering::SeqCst);
            if server.look_at_all(&fabric) && !server.is_looking.swap(true, Ordering::SeqCst) {
                self.idle = 0;
            }
        }
    }
}
