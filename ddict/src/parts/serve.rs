//! Answering for a part: the handlers of its server. What takes long is the thread's (`slow`).

use super::copies::{self, Given, Span};
use super::message::{
    self, Fault, LEAVE, QUESTION, Question, REPLICATE, REPLICATED, Replicated, Reply, Verb, WHOLE, Whole,
    WriteHead,
};
use super::placement::Placement;
use super::replicas::{Around, Asked, Writes};
use super::slow::{Order, Task};
use super::standby::{self, Standby};
use super::succession;
use super::waiting::Waiting;
use crate::error::Error;
use crate::store::{Change, Keep, Options, Store, Watch};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
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
    pub(super) parts: Mutex<HashMap<u128, Arc<Served>>>,
    /// Replicas of other ranks' parts, by uid of their segments.
    pub(super) standbys: Mutex<HashMap<u128, Arc<Standby>>>,
    /// To the thread for what takes long, once there is one.
    pub(super) orders: Mutex<Option<Sender<Order>>>,
    /// To the one for what takes long of replicas, which waits for nobody.
    pub(super) wholes: Mutex<Option<Sender<Order>>>,
    /// It hears of losses.
    pub(super) is_listening: AtomicBool,
    /// The thread looks now and then whether somebody has died for whom something waits.
    pub(super) is_looking: AtomicBool,
    waiting: Arc<Waiting>,
}

/// A part.
pub(super) struct Served {
    pub(super) store: Store,
    /// Processes that have it open, by rank.
    pub(super) users: Mutex<HashMap<Rank, u32>>,
    /// Copies of other parts' keys.
    pub(super) copies: Store,
    pub(super) span: OnceLock<Span>,
    /// Its memory, as others read it.
    pub(super) shown: OnceLock<Region>,
    /// Held while a key is written on behalf of others, and while a cell is set: see `store::copies`.
    pub(super) given: Mutex<Given>,
    /// By root, the last broadcast that was taken up.
    pub(super) told: Mutex<HashMap<u32, u64>>,
    /// Of its keys, where others keep them too.
    pub(super) writes: Option<Writes>,
    /// Replicas of other parts that lie here.
    pub(super) standbys: Vec<Arc<Standby>>,
    /// It was another rank's, which is lost. Its keys get no copies.
    pub(super) is_inherited: bool,
}

/// An answer: its head, then bytes.
pub(super) type Answer = Result<Vec<u8>, Error>;

/// Who has asked: the rank, and its request's tag.
pub(super) type Who = (Rank, u64);

/// What is to be done once no lock is held.
pub(super) enum Deed {
    Respond(Who, Vec<u8>),
    /// A write goes to the replica on a node, as this version.
    Replicate(u32, u64, Vec<u8>),
    /// A copy goes to a node, by the broadcast of this number.
    Copy(u32, u64, Vec<u8>),
    /// The thread is to make way for it.
    Order(Asked),
}

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
    install_replicas(fabric);
    succession::install(fabric);
}

/// Lets this rank have replicas, and hear of those of its own parts.
fn install_replicas(fabric: &Arc<Fabric>) {
    let server = fabric.state::<Server>();
    fabric.on(REPLICATE, move |fabric, message| {
        let Some((head, rest)) = message::head::<WriteHead>(message.payload) else { return };
        let standby = lock(&server.standbys).get(&head.part).cloned();
        standby::write(fabric, standby.as_deref(), message.source, &head, rest);
    });
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    fabric.on(REPLICATED, move |_, message| {
        let Some((done, _)) = message::head::<Replicated>(message.payload) else { return };
        let (Ok(part), Some(fabric)) = (server.part(done.part), weak.upgrade()) else { return };
        if let Some(writes) = &part.writes {
            let is_live = part.is_live(&fabric);
            let around = Around { part: &part, is_live: &is_live };
            let deeds = writes.done(&around, message.tag, done.node, done.fault);
            server.act(&fabric, &part, deeds);
        }
    });
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    fabric.on(WHOLE, move |_, message| {
        let (source, tag) = (message.source, message.tag);
        let Some(fabric) = weak.upgrade() else { return };
        match message::head::<(u128, Whole)>(message.payload) {
            Some(((part, whole), _)) => {
                server.order_whole(Order { fabric, source, tag, task: Task::Whole(part, whole) });
            }
            None => respond(&fabric, source, tag, Err(odd())),
        }
    });
}

impl Server {
    fn question(self: &Arc<Self>, fabric: &Arc<Fabric>, message: &Message<'_>) {
        let (source, tag) = (message.source, message.tag);
        let Some((question, rest)) = message::head::<Question>(message.payload) else {
            return respond(fabric, source, tag, Err(odd()));
        };
        if fabric.is_disturbed()
            && let Some(fault) = self.not_yet(question.part)
        {
            return drop(fabric.respond_to(source, tag, &message::bytes(&Err::<Reply, _>(fault))));
        }
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
        if question.verb.is_write() || matches!(question.verb, Verb::Broadcast { .. }) {
            return self.write(fabric, (source, tag), question, rest);
        }
        if question.verb.is_quick() {
            return respond(fabric, source, tag, self.quick(&question, rest));
        }
        let task = Task::Answer(message.payload.to_vec());
        self.order(Order { fabric: Arc::clone(fabric), source, tag, task });
    }

    pub(super) fn part(&self, uid: u128) -> Result<Arc<Served>, Error> {
        let part = lock(&self.parts).get(&uid).cloned();
        part.ok_or_else(|| Error::Gone { name: String::new() })
    }

    // ── a key ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Does a write, or begins to. One to a key that has copies is the thread's, since these must go first; while
    /// `given` is held no key gets any.
    fn write(self: &Arc<Self>, fabric: &Arc<Fabric>, who: Who, question: Question, rest: &[u8]) {
        let part = match self.part(question.part) {
            Ok(part) => part,
            Err(error) => return respond(fabric, who.0, who.1, Err(error)),
        };
        if let Some(writes) = &part.writes {
            let is_live = part.is_live(fabric);
            let around = Around { part: &part, is_live: &is_live };
            let deeds = writes.begin(&around, Asked { who, question, rest: rest.to_vec() });
            return self.act(fabric, &part, deeds);
        }
        let Some((key, value)) = rest.split_at_checked(question.key as usize) else {
            return respond(fabric, who.0, who.1, Err(odd()));
        };
        let mut deeds = Vec::new();
        if let Ok(mut given) = part.given.try_lock() {
            if let Verb::Broadcast { checkpoint, keep } = question.verb {
                if !part.is_giving_up(&given, key) {
                    let begun =
                        part.broadcast_in(&mut given, (checkpoint, keep), key, value, who, &mut deeds);
                    deeds.extend(begun.err().map(|error| refused(who, &error)));
                    drop(given);
                    return self.act(fabric, &part, deeds);
                }
            } else if !part.has_copies(key) {
                return respond(fabric, who.0, who.1, self.quick(&question, rest));
            }
        }
        self.act(fabric, &part, vec![Deed::Order(Asked { who, question, rest: rest.to_vec() })]);
    }

    /// Does what was found to be done. No lock is held.
    pub(super) fn act(self: &Arc<Self>, fabric: &Arc<Fabric>, part: &Arc<Served>, deeds: Vec<Deed>) {
        let rank = |node: u32| part.span.get().map_or(Rank(u32::MAX), |span| span.homes[node as usize].rank);
        let mut is_awaited = false;
        for deed in deeds {
            // Who cannot be told is dead, or has left.
            match deed {
                Deed::Respond(who, bytes) => drop(fabric.respond_to(who.0, who.1, &bytes)),
                Deed::Replicate(node, version, bytes) => {
                    is_awaited = true;
                    let _ = fabric.send_owned(rank(node), REPLICATE, version, bytes);
                }
                Deed::Copy(node, number, bytes) => {
                    is_awaited = true;
                    let _ = fabric.send_owned(rank(node), message::COPY, number, bytes);
                }
                Deed::Order(asked) => {
                    let (source, tag) = asked.who;
                    let task = Task::Write(Arc::clone(part), asked);
                    self.order(Order { fabric: Arc::clone(fabric), source, tag, task });
                }
            }
        }
        if is_awaited {
            self.look_from_now_on(fabric);
        }
    }

    pub(super) fn quick(&self, question: &Question, rest: &[u8]) -> Answer {
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
}

impl Served {
    /// A part that `source` has open, with room for copies.
    pub(super) fn make(options: &Options, nodes: u32, source: Rank) -> Result<Self, Error> {
        let plain =
            Options { shards: 1, wait_for_keys: false, working_set: 1, replicas: 1, ..options.clone() };
        let replica = |_| Standby::make(options).map(Arc::new);
        let writes = || Writes::new(Placement::new(nodes, options.replicas));
        Ok(Self {
            writes: (options.replicas > 1).then(writes),
            is_inherited: false,
            standbys: (1..options.replicas).map(replica).collect::<Result<_, Error>>()?,
            store: Store::create(options)?,
            users: Mutex::new(HashMap::from([(source, 1)])),
            copies: Store::create(&plain)?,
            span: OnceLock::new(),
            shown: OnceLock::new(),
            given: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// The node it is the part of.
    pub(super) fn node(&self) -> u32 {
        self.span.get().map_or(0, |span| span.here)
    }

    /// Whether the server of a node lives.
    pub(super) fn is_live<'a>(&'a self, fabric: &'a Fabric) -> impl Fn(u32) -> bool + 'a {
        move |node| {
            let home = self.span.get().and_then(|span| span.homes.get(node as usize));
            home.is_some_and(|home| match fabric.peer(home.rank) {
                // Others must come to know it, too: see `replicas`.
                PeerState::Dead if fabric.survives_losses() => fabric.lost_in(home.rank).is_none(),
                state => state == PeerState::Here,
            })
        }
    }

    /// Capacity, committed and allocated bytes, and those that replicas of other parts have here.
    pub(super) fn usage(&self) -> [u64; 4] {
        let usage = self.store.usage();
        let replicas = self.standbys.iter().map(|it| it.store.usage().allocated).sum();
        [usage.capacity, usage.committed, usage.allocated, replicas]
    }

    /// The segment of its replica on a node; 0 if it has none there.
    pub(super) fn replica_on(&self, node: u32) -> u128 {
        let name = self.span.get().and_then(|span| {
            let replicas = &span.homes.get(node as usize)?.replicas;
            let placement = Placement::new(span.homes.len() as u32, replicas.len() as u32 + 1);
            replicas.get(placement.replica_of(span.here, node)?)
        });
        name.map_or(0, |name| name.uid)
    }

    /// The error of another node.
    pub(super) fn fault_of(&self, node: u32, fault: Fault, key: &[u8]) -> Error {
        let home = self.span.get().and_then(|span| span.homes.get(node as usize));
        let who = home.map_or((Rank(0), ""), |home| (home.rank, &home.host));
        fault.error(&self.store.name().file, who, key)
    }

    /// Lets others read its memory, until it goes.
    pub(super) fn show(&self, fabric: &Fabric) -> Result<RemoteKey, Error> {
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
pub(super) fn forget_the_dead(fabric: &Fabric, part: &Served) {
    lock(&part.users).retain(|rank, count| *count > 0 && fabric.peer(*rank) == PeerState::Here);
}

/// Who has asked and is gone needs no answer.
pub(super) fn respond(fabric: &Fabric, source: Rank, tag: u64, answer: Answer) {
    let bytes = answer.unwrap_or_else(|error| error_bytes(&error));
    let _ = fabric.respond_to(source, tag, &bytes);
}

fn error_bytes(error: &Error) -> Vec<u8> {
    message::bytes(&Err::<Reply, _>(Fault::of(error)))
}

/// The answer that it cannot be done.
pub(super) fn refused(who: Who, error: &Error) -> Deed {
    Deed::Respond(who, error_bytes(error))
}

/// Says why nothing was done.
pub(super) fn refuse(fabric: &Fabric, source: Rank, tag: u64, why: String) {
    let _ = fabric.respond_to(source, tag, &message::bytes(&Err::<Reply, _>(Fault::Other(why))));
}

pub(super) fn answer(reply: Reply, bytes: &[u8]) -> Vec<u8> {
    let mut all = message::bytes(&Ok::<_, Fault>(reply));
    all.extend_from_slice(bytes);
    all
}

pub(super) fn with_value(bytes: &[u8]) -> Vec<u8> {
    answer(Reply::Value(Keep::Default), bytes)
}

pub(super) fn nothing() -> Vec<u8> {
    answer(Reply::Nothing, &[])
}

pub(super) fn is(is: bool) -> Vec<u8> {
    answer(Reply::Is(is), &[])
}

/// A question that is none.
pub(super) fn odd() -> Error {
    Error::Damaged { what: "a question of another rank", offset: 0 }
}

pub(super) fn check_shard(store: &Store, shard: u32) -> Result<(), Error> {
    let shards = store.options().shards;
    if shard < shards { Ok(()) } else { Err(Error::NoShard { shard, shards }) }
}

pub(super) fn scan(store: &Store, shard: u32, checkpoint: u32, cursor: u64, values: bool) -> Answer {
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

/// What is answered if the value is not the expected one.
pub(super) fn compare(found: Option<&[u8]>, expected: Option<&[u8]>) -> Option<Vec<u8>> {
    (found != expected).then(|| found.map_or_else(nothing, with_value))
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
        other = compare(found, expected);
        if other.is_some() {
            return Change::Leave;
        }
        match (new, found) {
            (true, _) => Change::Write(new_bytes.to_vec()),
            (false, Some(_)) => Change::Remove,
            (false, None) => Change::Leave,
        }
    })?;
    Ok(other.unwrap_or_else(|| is(true)))
}

/// The names of a part that was made, of its copies, and of its replicas of other parts.
pub(super) fn made(reply: Reply) -> Option<(SegmentName, SegmentName, Vec<SegmentName>)> {
    if let Reply::Made(name, copies, replicas) = reply { Some((name, copies, replicas)) } else { None }
}
