//! The home's side of a dictionary whose keys several nodes keep: the order of writes, and who has taken them.
//!
//! # Who writes
//! The server of a part's home alone. Every process, of its node too, asks it by a message, so that a put takes a round
//! trip to the home and from there one to the replicas; nothing is asked for a read, which finds in the home's memory
//! what it always did. Handlers do all of it: none of them waits.
//!
//! # A write
//! 1. Writes of one key stand in a *line*. Whose turn it is, is looked at: what it would change, by what the home has.
//!    If that is nothing (a `put_if_absent` of what is there), it is answered. Else it gets a *version*, higher than
//!    all before.
//! 2. It is sent to all replicas (`standby`), which do it and say so.
//! 3. When all that live have, the home does it: from now on readers see it, those who wait for the key are woken, who
//!    asked is answered, and the line moves on.
//!
//! So what anybody has read, or was told to be written, all replicas have; what a replica has and the home has not was
//! never seen. If the home cannot do what the replicas did, or one of these cannot (memory), those that have done it
//! are told to put the key's entry to what the home has (`Change::Withdraw`), as a version of its own, and the error is
//! answered when they have. A replica that cannot even do that is given up, as if it were lost.
//!
//! # Why reads ask the home
//! A replica has writes that may still be taken back, or whose home may not show them yet: who read them there could
//! see a value go back. It never has an older value than one that was acknowledged, but that is not enough.
//!
//! # What concerns all keys
//! A new checkpoint, `clear` and `freeze` are done by the server's thread. It *closes* the lines: what is under way
//! ends, what comes waits; then the replicas do it, and the home, and the lines open again. A checkpoint comes to the
//! home first, since it alone knows whether keys are missing (`wait_for_keys`).
//!
//! # Copies
//! A write to a key that has copies (`copies`) is the thread's first, which has them given up. A broadcast is a write
//! like others, which gives the key copies when the home does it.
//!
//! # Deaths
//! | who | what follows |
//! |---|---|
//! | who asked | the write is done or not; nobody waits for it |
//! | a replica's server | the home goes on without it: later writes are on fewer nodes; what waits for it is done |
//! | the home's server | where losses are survived the next who keeps the part takes it over (`succession`); else its
//!   keys are out of reach; replicas have all that was acknowledged, and what was under way |
//!
//! Where losses are survived, dead is who rank 0 has declared lost: a home that goes on without a replica because it
//! alone cannot reach it could be the one that is given up, with writes that the other lacks.

use super::message::{self, Change, Fault, Question, Verb, WriteHead};
use super::past::Past;
use super::placement::Placement;
use super::serve::{Deed, Served, Who, compare, is, lock, nothing, odd, refused, with_value};
use crate::error::Error;
use crate::store::{Exact, Keep, When};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A question, and who waits for its answer.
pub(super) struct Asked {
    pub(super) who: Who,
    pub(super) question: Question,
    /// What follows the head.
    pub(super) rest: Vec<u8>,
}

impl Asked {
    fn key(&self) -> &[u8] {
        &self.rest[..self.question.key as usize]
    }
}

/// The writes of a part that has replicas.
pub(super) struct Writes {
    state: Mutex<State>,
    /// Nothing is under way any more.
    drained: Condvar,
}

struct State {
    placement: Placement,
    /// That of whoever took the part over; 0: nobody has.
    epoch: u32,
    /// The next version.
    next: u64,
    /// By key.
    lines: HashMap<Box<[u8]>, Line>,
    /// The keys of the versions that are under way.
    open: BTreeMap<u64, Box<[u8]>>,
    past: Past,
    /// New writes wait here as long as the lines are closed.
    outside: Option<VecDeque<Asked>>,
}

/// Who wants to write a key.
#[derive(Default)]
struct Line {
    now: Option<Write>,
    waiting: VecDeque<Asked>,
}

/// What is under way.
struct Write {
    asked: Asked,
    sought: Sought,
    version: u64,
    /// Nodes that have not answered.
    missing: BTreeSet<u32>,
    /// Nodes that have done it.
    done: BTreeSet<u32>,
    /// Nodes that could not.
    failed: BTreeSet<u32>,
    /// Why it cannot be done.
    fault: Option<Fault>,
    /// It is being taken back.
    is_back: bool,
}

/// What a write changes.
struct Sought {
    checkpoint: u32,
    change: Change,
    /// Where in what follows the head the value stands.
    value: Range<usize>,
    /// The key gets copies.
    is_copied: bool,
}

/// A part with its nodes, while its writes are looked at.
pub(super) struct Around<'a> {
    pub(super) part: &'a Served,
    /// Whether a node's server lives.
    pub(super) is_live: &'a dyn Fn(u32) -> bool,
}

impl Writes {
    pub(super) fn new(placement: Placement) -> Self {
        Self::inherited(placement, 0, 1, Past::default())
    }

    /// Those of a part that was taken over, with the next version and what was answered before.
    pub(super) fn inherited(placement: Placement, epoch: u32, next: u64, past: Past) -> Self {
        let (lines, open) = (HashMap::new(), BTreeMap::new());
        let state = State { placement, epoch, next, lines, open, past, outside: None };
        Self { state: Mutex::new(state), drained: Condvar::new() }
    }

    /// Somebody wants to write.
    pub(super) fn begin(&self, around: &Around<'_>, asked: Asked) -> Vec<Deed> {
        let mut deeds = Vec::new();
        lock(&self.state).admit(around, asked, &mut deeds);
        self.tell_if_drained();
        deeds
    }

    /// A node has done a version, or could not.
    pub(super) fn done(
        &self,
        around: &Around<'_>,
        version: u64,
        node: u32,
        fault: Option<Fault>,
    ) -> Vec<Deed> {
        let mut deeds = Vec::new();
        lock(&self.state).hear(around, version, node, fault, &mut deeds);
        self.tell_if_drained();
        deeds
    }

    /// Goes on without nodes that have died.
    pub(super) fn look(&self, around: &Around<'_>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        lock(&self.state).give_up_the_dead(around, &mut deeds);
        self.tell_if_drained();
        deeds
    }

    /// Whether something is under way.
    pub(super) fn is_under_way(&self) -> bool {
        !lock(&self.state).open.is_empty()
    }

    fn tell_if_drained(&self) {
        let state = lock(&self.state);
        if state.outside.is_some() && state.open.is_empty() {
            self.drained.notify_all();
        }
    }

    /// Lets nothing new begin.
    pub(super) fn close(&self) {
        lock(&self.state).outside.get_or_insert_default();
    }

    /// Waits a little for what is under way; whether nothing is any more.
    pub(super) fn is_drained_within(&self, nap: Duration) -> bool {
        let state = lock(&self.state);
        if state.open.is_empty() {
            return true;
        }
        let waited = self.drained.wait_timeout(state, nap);
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0.open.is_empty()
    }

    /// Lets those that came meanwhile begin.
    pub(super) fn reopen(&self, around: &Around<'_>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let mut state = lock(&self.state);
        let keys: Vec<Box<[u8]>> = state.lines.keys().cloned().collect();
        let outside = state.outside.take().unwrap_or_default();
        keys.iter().for_each(|key| state.move_on(around, key, &mut deeds));
        outside.into_iter().for_each(|asked| state.admit(around, asked, &mut deeds));
        deeds
    }

    /// The replicas of the part that are not given up.
    pub(super) fn standbys(&self, part: u32) -> Vec<u32> {
        lock(&self.state).placement.standbys(part).collect()
    }
}

impl State {
    fn admit(&mut self, around: &Around<'_>, asked: Asked, deeds: &mut Vec<Deed>) {
        if asked.rest.len() < asked.question.key as usize {
            return deeds.push(refused(asked.who, &odd()));
        }
        if let Some(outside) = &mut self.outside {
            return outside.push_back(asked);
        }
        if let Some(line) = self.lines.get_mut(asked.key()) {
            return line.waiting.push_back(asked);
        }
        let key: Box<[u8]> = asked.key().into();
        self.lines.entry(key.clone()).or_default().waiting.push_back(asked);
        self.move_on(around, &key, deeds);
    }

    /// The next of a line whose turn it is.
    fn move_on(&mut self, around: &Around<'_>, key: &[u8], deeds: &mut Vec<Deed>) {
        while self.outside.is_none() {
            let Some(line) = self.lines.get_mut(key) else { return };
            if line.now.is_some() {
                return;
            }
            let Some(asked) = line.waiting.pop_front() else {
                self.lines.remove(key);
                return;
            };
            self.start(around, asked, deeds);
        }
    }

    fn start(&mut self, around: &Around<'_>, asked: Asked, deeds: &mut Vec<Deed>) {
        let before = asked.question.write.and_then(|id| self.past.answer(asked.who.0, id.number));
        if let Some(answer) = before {
            return deeds.push(Deed::Respond(asked.who, answer.clone()));
        }
        let is_copied = matches!(asked.question.verb, Verb::Broadcast { .. }) && !around.part.is_inherited;
        let sought = match seek(around.part, &asked) {
            Ok(Ok(sought)) => sought,
            Ok(Err(answer)) => return deeds.push(Deed::Respond(asked.who, answer)),
            Err(error) => return deeds.push(refused(asked.who, &error)),
        };
        let has_copies = || around.part.has_copies(asked.key());
        let is_later = around.part.store.check_write(sought.checkpoint).is_ok_and(|is_later| is_later);
        if is_later || !is_copied && has_copies() {
            // What is to be done first waits.
            return deeds.push(Deed::Order(asked));
        }
        let (missing, done, failed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let write = Write { asked, sought, version: 0, missing, done, failed, fault: None, is_back: false };
        self.give_up_the_dead(around, deeds);
        let all: BTreeSet<u32> = self.placement.standbys(around.part.node()).collect();
        self.send(around, write, all, None, deeds);
    }

    /// Has these nodes do a write, or take it back.
    fn send(
        &mut self,
        around: &Around<'_>,
        mut write: Write,
        nodes: BTreeSet<u32>,
        back: Option<(Change, Vec<u8>)>,
        deeds: &mut Vec<Deed>,
    ) {
        write.version = self.next;
        self.next += 1;
        (write.missing, write.done, write.is_back) = (nodes, BTreeSet::new(), back.is_some());
        let key: Box<[u8]> = write.asked.key().into();
        self.open.insert(write.version, key.clone());
        let (change, value) = match &back {
            Some((change, value)) => (*change, &value[..]),
            None => (write.sought.change, &write.asked.rest[write.sought.value.clone()]),
        };
        let settled = self.open.first_key_value().map_or(self.next, |(version, _)| *version);
        for node in &write.missing {
            let head = WriteHead {
                part: around.part.replica_on(*node),
                home: around.part.store.name().uid,
                node: *node,
                epoch: self.epoch + self.placement.epoch(),
                version: write.version,
                settled,
                checkpoint: write.sought.checkpoint,
                change,
                takes_back: write.is_back,
                mends: false,
                key: key.len() as u32,
                write: write.asked.question.write.map(|id| (write.asked.who.0, id)),
            };
            let mut bytes = message::bytes(&head);
            bytes.reserve_exact(key.len() + value.len());
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(value);
            deeds.push(Deed::Replicate(*node, write.version, bytes));
        }
        let is_alone = write.missing.is_empty();
        self.lines.entry(key.clone()).or_default().now = Some(write);
        if is_alone {
            self.conclude(around, &key, deeds);
        }
    }

    fn hear(
        &mut self,
        around: &Around<'_>,
        version: u64,
        node: u32,
        fault: Option<Fault>,
        deeds: &mut Vec<Deed>,
    ) {
        let Some(key) = self.open.get(&version).cloned() else { return };
        let Some(write) = self.lines.get_mut(&key).and_then(|line| line.now.as_mut()) else { return };
        if write.version != version || !write.missing.remove(&node) {
            return;
        }
        match fault {
            None => write.done.insert(node),
            Some(fault) => {
                write.fault.get_or_insert(fault);
                write.failed.insert(node)
            }
        };
        if write.missing.is_empty() {
            self.conclude(around, &key, deeds);
            self.move_on(around, &key, deeds);
        }
    }

    fn give_up_the_dead(&mut self, around: &Around<'_>, deeds: &mut Vec<Deed>) {
        if around.part.span.get().is_none() {
            // It is being made: nobody has written yet.
            return;
        }
        let standbys: Vec<u32> = self.placement.standbys(around.part.node()).collect();
        for node in standbys.into_iter().filter(|node| !(around.is_live)(*node)) {
            self.give_up(around, node, deeds);
        }
    }

    fn give_up(&mut self, around: &Around<'_>, node: u32, deeds: &mut Vec<Deed>) {
        self.placement = self.placement.without(node);
        let keys: Vec<Box<[u8]>> = self.open.values().cloned().collect();
        for key in keys {
            let Some(write) = self.lines.get_mut(&key).and_then(|line| line.now.as_mut()) else { continue };
            write.done.remove(&node);
            if write.missing.remove(&node) && write.missing.is_empty() {
                self.conclude(around, &key, deeds);
                self.move_on(around, &key, deeds);
            }
        }
    }

    /// All that live have answered.
    fn conclude(&mut self, around: &Around<'_>, key: &[u8], deeds: &mut Vec<Deed>) {
        let Some(mut write) = self.lines.get_mut(key).and_then(|line| line.now.take()) else { return };
        self.open.remove(&write.version);
        if write.is_back {
            let fault = write.fault.take().unwrap_or(Fault::Gone);
            deeds.push(Deed::Respond(write.asked.who, message::bytes(&Err::<message::Reply, _>(fault))));
            // What could not be put to what it was is no replica any more.
            write.failed.iter().for_each(|node| self.give_up(around, *node, deeds));
            return;
        }
        let done = match write.fault.take() {
            Some(fault) => Err(fault),
            None => commit(around.part, &write, deeds).map_err(|error| Fault::of(&error)),
        };
        match done {
            Ok(answer) => {
                if let Some(id) = write.asked.question.write {
                    self.past.note(write.asked.who.0, id, answer.clone());
                }
                if !write.sought.is_copied {
                    deeds.push(Deed::Respond(write.asked.who, answer));
                }
            }
            Err(fault) => {
                write.fault = Some(fault);
                write.failed.clear();
                let done = std::mem::take(&mut write.done);
                let back = match around.part.store.exact(key, write.sought.checkpoint) {
                    Ok(Exact::Value(value, keep)) => (Change::Put(keep), value),
                    Ok(Exact::Removed) => (Change::Remove, Vec::new()),
                    // Of a damaged entry the replica knows as little as the home.
                    Ok(Exact::Nothing) | Err(_) => (Change::Withdraw, Vec::new()),
                };
                self.send(around, write, done, Some(back), deeds);
            }
        }
    }
}

/// What a question would change; or its answer, if that is nothing.
fn seek(part: &Served, asked: &Asked) -> Result<Result<Sought, Vec<u8>>, Error> {
    let (store, key) = (&part.store, asked.key());
    let value = key.len()..asked.rest.len();
    store.check_write(asked.question.verb.checkpoint().ok_or_else(odd)?)?;
    let sought =
        |checkpoint, change, value, is_copied| Ok(Ok(Sought { checkpoint, change, value, is_copied }));
    match asked.question.verb {
        Verb::Put { checkpoint, when: When::Absent, .. } if store.contains(key, checkpoint)? => {
            Ok(Err(is(false)))
        }
        Verb::Put { checkpoint, keep, .. } => sought(checkpoint, Change::Put(keep), value, false),
        Verb::Broadcast { checkpoint, keep } => {
            sought(checkpoint, Change::Put(keep), value, !part.is_inherited)
        }
        Verb::Remove { checkpoint } => match store.contains(key, checkpoint)? {
            true => sought(checkpoint, Change::Pop, 0..0, false),
            false => Ok(Err(nothing())),
        },
        Verb::Exchange { checkpoint, expected, new } => {
            let both = &asked.rest[value.clone()];
            let old = expected.unwrap_or(0) as usize;
            let (old_value, _) = both.split_at_checked(old).ok_or_else(odd)?;
            let found = store.peek(key, checkpoint)?.map(|(found, _)| found);
            if let Some(other) = compare(found.as_deref(), expected.map(|_| old_value)) {
                return Ok(Err(other));
            }
            match (new, found.is_some()) {
                (true, _) => {
                    let value = value.start + old..value.end;
                    sought(checkpoint, Change::Put(Keep::Default), value, false)
                }
                (false, true) => sought(checkpoint, Change::Remove, 0..0, false),
                (false, false) => Ok(Err(is(true))),
            }
        }
        _ => Err(odd()),
    }
}

/// The home does it; the answer.
fn commit(part: &Served, write: &Write, deeds: &mut Vec<Deed>) -> Result<Vec<u8>, Error> {
    let Write { asked, sought, .. } = write;
    let (store, key, value) = (&part.store, asked.key(), &asked.rest[sought.value.clone()]);
    match sought.change {
        Change::Put(keep) if sought.is_copied => {
            part.broadcast((sought.checkpoint, keep), key, value, asked.who, deeds)?;
            Ok(is(true))
        }
        // The key itself has no copies: those of others in its cell stay as they are.
        Change::Put(keep) => store.put(key, sought.checkpoint, value, When::Copied, keep).map(|_| is(true)),
        Change::Pop => {
            let value = store.remove_when(key, sought.checkpoint, When::Copied, with_value)?;
            Ok(value.unwrap_or_else(nothing))
        }
        Change::Remove | Change::Withdraw => {
            store.remove_when(key, sought.checkpoint, When::Copied, |_| ())?;
            Ok(is(true))
        }
    }
}

#[cfg(test)]
mod tests;
