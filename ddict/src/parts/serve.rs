//! Answering for a part: the handlers of its server, and a thread for what takes long.

use super::copies::{self, Answers, Given, Span};
use super::message::{self, Fault, LEAVE, QUESTION, Question, Reply, Verb};
use super::waiting::Waiting;
use crate::error::Error;
use crate::store::{Change, Keep, Options, Store, Watch};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tarragon_transport::segment::SegmentName;
use tarragon_transport::{Fabric, FabricError, Message, PeerState, Rank, Region, RemoteKey};

/// Values go with a page of keys up to about so many bytes together.
const PAGE_BYTES: usize = 1 << 18;

/// The parts that this rank answers for.
#[derive(Default)]
pub(super) struct Server {
    /// By uid of their segments.
    parts: Mutex<HashMap<u128, Arc<Served>>>,
    /// To the thread for what takes long, once there is one.
    orders: Mutex<Option<Sender<Order>>>,
    waiting: Arc<Waiting>,
    pub(super) answers: Answers,
}

/// A part.
pub(super) struct Served {
    pub(super) store: Store,
    /// Processes that have it open, by rank.
    users: Mutex<HashMap<Rank, u32>>,
    /// Copies of other parts' keys.
    pub(super) copies: Store,
    pub(super) span: OnceLock<Span>,
    /// Its memory, as others read it.
    shown: OnceLock<Region>,
    /// Held while a key is written on behalf of others, and while a cell is set: see `store::copies`.
    pub(super) given: Mutex<Given>,
    /// By root, the last broadcast that was taken up.
    pub(super) told: Mutex<HashMap<u32, u64>>,
}

/// What the thread is to do.
struct Order {
    fabric: Arc<Fabric>,
    source: Rank,
    tag: u64,
    task: Task,
}

enum Task {
    Answer(Vec<u8>),
    Leave(u128),
}

/// An answer: its head, then bytes.
type Answer = Result<Vec<u8>, Error>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets this rank answer for parts.
pub(super) fn install(fabric: &Arc<Fabric>) {
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    fabric.on(QUESTION, move |_, message| {
        if let Some(fabric) = weak.upgrade() {
            server.question(&fabric, message);
        }
    });
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    fabric.on(LEAVE, move |_, message| {
        if let (Some(fabric), Ok(part)) = (weak.upgrade(), message.payload.try_into()) {
            let task = Task::Leave(u128::from_le_bytes(part));
            server.order(Order { fabric, source: message.source, tag: message.tag, task });
        }
    });
    copies::install(fabric);
}

impl Server {
    fn question(self: &Arc<Self>, fabric: &Arc<Fabric>, message: &Message<'_>) {
        let (source, tag) = (message.source, message.tag);
        let Some((question, rest)) = message::head::<Question>(message.payload) else {
            return respond(fabric, source, tag, Err(odd()));
        };
        if let Verb::Wait { seen, ms } = question.verb {
            return match self.part(question.part) {
                Ok(part) => {
                    let deadline = ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
                    let key = rest.get(..question.key as usize).unwrap_or(rest);
                    self.waiting.add(fabric, part, key, Watch(seen), deadline, (source, tag));
                }
                Err(error) => respond(fabric, source, tag, Err(error)),
            };
        }
        if let Some(answer) = self.at_once(&question, rest) {
            return respond(fabric, source, tag, answer);
        }
        let task = Task::Answer(message.payload.to_vec());
        self.order(Order { fabric: Arc::clone(fabric), source, tag, task });
    }

    pub(super) fn part(&self, uid: u128) -> Result<Arc<Served>, Error> {
        let part = lock(&self.parts).get(&uid).cloned();
        part.ok_or_else(|| Error::Gone { name: String::new() })
    }

    /// Has the thread do something; starts it when there is none.
    fn order(self: &Arc<Self>, order: Order) {
        let (fabric, source, tag) = (Arc::clone(&order.fabric), order.source, order.tag);
        let mut orders = lock(&self.orders);
        if orders.is_none() {
            let (sender, receiver) = channel();
            let server = Arc::downgrade(self);
            let work = move || work(&server, &receiver);
            if let Err(error) = std::thread::Builder::new().name("tarragon-ddict".to_owned()).spawn(work) {
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

    // ── a key ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Answers what a handler may do; `None`: it takes longer. A write to a key that has copies does, since these must
    /// go first; while `given` is held no key gets any.
    fn at_once(&self, question: &Question, rest: &[u8]) -> Option<Answer> {
        if !question.verb.is_quick() {
            return None;
        }
        let part = self.part(question.part).ok().filter(|_| question.verb.is_write());
        let Some((part, key)) = part.zip(rest.get(..question.key as usize)) else {
            return Some(self.quick(question, rest));
        };
        let _given = part.given.try_lock().ok()?;
        let has_copies = part.store.cell_of(key).is_ok_and(|cell| part.store.has_copies(cell));
        (!has_copies).then(|| self.quick(question, rest))
    }

    fn quick(&self, question: &Question, rest: &[u8]) -> Answer {
        let part = self.part(question.part)?;
        let (key, value) = rest.split_at_checked(question.key as usize).ok_or_else(odd)?;
        let store = &part.store;
        match &question.verb {
            Verb::Get { checkpoint, verified: false } => {
                Ok(store.get(key, *checkpoint, with_value)?.unwrap_or_else(nothing))
            }
            Verb::Find { checkpoint } => {
                let found = store.pin_spot(key, *checkpoint)?;
                Ok(found.map_or_else(nothing, |(value, spot)| answer(Reply::Found(spot), &value)))
            }
            Verb::Get { checkpoint, verified: true } => {
                let value = store.pin_verified(key, *checkpoint)?;
                Ok(value.map_or_else(nothing, |value| with_value(&value)))
            }
            Verb::Peek { checkpoint } => {
                let found = store.peek(key, *checkpoint)?;
                Ok(found.map_or_else(nothing, |(value, keep)| answer(Reply::Value(keep), &value)))
            }
            Verb::Contains { checkpoint } => Ok(is(store.contains(key, *checkpoint)?)),
            Verb::Put { checkpoint, when, keep } => {
                Ok(is(store.put(key, *checkpoint, value, *when, *keep)?))
            }
            Verb::Remove { checkpoint } => {
                Ok(store.remove(key, *checkpoint, with_value)?.unwrap_or_else(nothing))
            }
            Verb::Exchange { checkpoint, expected, new } => {
                exchange(store, key, *checkpoint, (*expected, *new), value)
            }
            Verb::Watch => Ok(answer(Reply::Watch(store.watch(key).0), &[])),
            _ => Err(odd()),
        }
    }

    // ── a part ──────────────────────────────────────────────────────────────────────────────────────────────

    fn slow(&self, fabric: &Fabric, source: Rank, bytes: &[u8]) -> Answer {
        let (question, rest) = message::head::<Question>(bytes).ok_or_else(odd)?;
        if let Verb::Make(options) = &question.verb {
            let part = Served::make(options, source)?;
            let names = [&part.store, &part.copies].map(|store| store.name().clone());
            let [name, copies] = names;
            lock(&self.parts).insert(name.uid, Arc::new(part));
            return Ok(answer(Reply::Made(name, copies), &[]));
        }
        let part = self.part(question.part)?;
        let store = &part.store;
        let done = |()| is(true);
        let (key, value) = rest.split_at_checked(question.key as usize).ok_or_else(odd)?;
        match question.verb {
            Verb::Broadcast { checkpoint, keep } => {
                self.broadcast(fabric, &part, (checkpoint, keep), key, value).map(done)
            }
            Verb::GiveUp { cell } => self.give_up(fabric, &part, cell).map(done),
            ref verb if verb.is_write() => {
                self.give_up(fabric, &part, store.cell_of(key)?)?;
                self.quick(&question, rest)
            }
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
            Verb::Usage => {
                let usage = store.usage();
                Ok(answer(Reply::Usage([usage.capacity, usage.committed, usage.allocated]), &[]))
            }
            Verb::Hits { shards } => Ok(answer(Reply::Hits(part.copies.hits_elsewhere(shards)), &[])),
            Verb::Show => Ok(answer(Reply::Shown(part.show(fabric)?), &[])),
            Verb::Checkpoints => {
                let (newest, oldest) = store.checkpoints();
                Ok(answer(Reply::Checkpoints(newest, oldest), &[]))
            }
            Verb::Clear { checkpoint } => {
                self.give_all_up(fabric, &part)?;
                store.clear(checkpoint).map(done)
            }
            Verb::Freeze(frozen) => store.freeze(frozen).map(done),
            Verb::Destroy => {
                store.destroy();
                part.copies.destroy();
                lock(&self.parts).remove(&question.part);
                Ok(is(true))
            }
            Verb::Recover => Ok(answer(Reply::Count(store.recover() as u64), &[])),
            Verb::Advance { checkpoint } => match store.try_advance(checkpoint)? {
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

    fn leave(&self, fabric: &Fabric, uid: u128, rank: Rank) {
        let Ok(part) = self.part(uid) else { return };
        if let Some(count) = lock(&part.users).get_mut(&rank) {
            *count = count.saturating_sub(1);
        }
        forget_the_dead(fabric, &part);
        let mut parts = lock(&self.parts);
        if lock(&part.users).is_empty() {
            parts.remove(&uid);
        }
    }
}

impl Served {
    /// A part that `source` has open, with room for copies.
    fn make(options: &Options, source: Rank) -> Result<Self, Error> {
        let plain = Options { shards: 1, wait_for_keys: false, working_set: 1, ..options.clone() };
        Ok(Self {
            store: Store::create(options)?,
            users: Mutex::new(HashMap::from([(source, 1)])),
            copies: Store::create(&plain)?,
            span: OnceLock::new(),
            shown: OnceLock::new(),
            given: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// Lets others read its memory, until it goes.
    fn show(&self, fabric: &Fabric) -> Result<RemoteKey, Error> {
        if let Some(shown) = self.shown.get() {
            return Ok(shown.key().clone());
        }
        let cannot = |why: FabricError| Error::Far {
            rank: fabric.rank().0,
            host: String::new(),
            what: format!("its memory cannot be read by others: {why}"),
        };
        let region = fabric.show(self.store.segment()).map_err(cannot)?;
        Ok(self.shown.get_or_init(|| region).key().clone())
    }
}

/// Processes that are gone have nothing open.
fn forget_the_dead(fabric: &Fabric, part: &Served) {
    lock(&part.users).retain(|rank, count| *count > 0 && fabric.peer(*rank) == PeerState::Here);
}

/// The thread: one order after the other, until the server is gone.
fn work(server: &std::sync::Weak<Server>, orders: &Receiver<Order>) {
    while let Ok(Order { fabric, source, tag, task }) = orders.recv() {
        let Some(server) = server.upgrade() else { return };
        match task {
            Task::Answer(bytes) => respond(&fabric, source, tag, server.slow(&fabric, source, &bytes)),
            Task::Leave(part) => server.leave(&fabric, part, source),
        }
    }
}

/// Who has asked and is gone needs no answer.
pub(super) fn respond(fabric: &Fabric, source: Rank, tag: u64, answer: Answer) {
    let bytes = answer.unwrap_or_else(|error| message::bytes(&Err::<Reply, _>(Fault::of(&error))));
    let _ = fabric.respond_to(source, tag, &bytes);
}

/// Says why nothing was done.
pub(super) fn refuse(fabric: &Fabric, source: Rank, tag: u64, why: String) {
    let _ = fabric.respond_to(source, tag, &message::bytes(&Err::<Reply, _>(Fault::Other(why))));
}

fn answer(reply: Reply, bytes: &[u8]) -> Vec<u8> {
    let mut all = message::bytes(&Ok::<_, Fault>(reply));
    all.extend_from_slice(bytes);
    all
}

fn with_value(bytes: &[u8]) -> Vec<u8> {
    answer(Reply::Value(Keep::Default), bytes)
}

fn nothing() -> Vec<u8> {
    answer(Reply::Nothing, &[])
}

pub(super) fn is(is: bool) -> Vec<u8> {
    answer(Reply::Is(is), &[])
}

/// A question that is none.
fn odd() -> Error {
    Error::Damaged { what: "a question of another rank", offset: 0 }
}

fn check_shard(store: &Store, shard: u32) -> Result<(), Error> {
    let shards = store.options().shards;
    if shard < shards { Ok(()) } else { Err(Error::NoShard { shard, shards }) }
}

fn scan(store: &Store, shard: u32, checkpoint: u32, cursor: u64, values: bool) -> Answer {
    check_shard(store, shard)?;
    let mut keys = Vec::new();
    let next = store.scan(shard, checkpoint, cursor, false, &mut |key, _| {
        keys.push(Box::<[u8]>::from(key));
        ControlFlow::Continue(())
    })?;
    let mut page = Vec::new();
    for key in keys {
        let value = if values && page.len() < PAGE_BYTES { store.peek(&key, checkpoint)? } else { None };
        let value = value.as_ref().filter(|(value, _)| value.len() < PAGE_BYTES);
        message::add_key(&mut page, &key, value.map(|(value, keep)| (&**value, *keep)));
    }
    Ok(answer(Reply::Page(next), &page))
}

fn exchange(
    store: &Store,
    key: &[u8],
    checkpoint: u32,
    (expected, new): (Option<u64>, bool),
    both: &[u8],
) -> Answer {
    let (old, new_bytes) = both.split_at_checked(expected.unwrap_or(0) as usize).ok_or_else(odd)?;
    let expected = expected.map(|_| old);
    let mut other = None;
    store.update(key, checkpoint, &mut |found| {
        if found != expected {
            other = Some(found.map_or_else(nothing, with_value));
            return Change::Leave;
        }
        other = None;
        match (new, found) {
            (true, _) => Change::Write(new_bytes.to_vec()),
            (false, Some(_)) => Change::Remove,
            (false, None) => Change::Leave,
        }
    })?;
    Ok(other.unwrap_or_else(|| is(true)))
}

/// The names of a part that was made, and of its copies.
pub(super) fn made(reply: Reply) -> Option<(SegmentName, SegmentName)> {
    if let Reply::Made(name, copies) = reply { Some((name, copies)) } else { None }
}
