//! Asking the parts of other nodes.

use super::EachKey;
use super::message::{self, Fault, Home, LEAVE, QUESTION, Question, Reply, Verb, WriteId};
use super::placement::Placement;
use super::reads::Reads;
use crate::encoding::show;
use crate::error::Error;
use crate::store::{Buffer, Keep, Pinned, Store, Watch};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, FabricError, HeapError, PeerState, Rank, Request};

/// How long who waits for keys sleeps before it asks again whether a checkpoint can retire.
const NAP: Duration = Duration::from_millis(1);

/// Who answers for a part: a node, its server, and the number by which that knows the part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) node: u32,
    pub(super) rank: Rank,
    pub(super) uid: u128,
}

/// What makes the state of a key's waiters on one node another than the same number on another node.
fn mark(part: u32, node: u32) -> u32 {
    (node ^ part).wrapping_mul(0x9E37_79B9)
}

/// The parts of other nodes, as one process reaches them.
pub(super) struct Far {
    pub(super) fabric: Arc<Fabric>,
    pub(super) world: u128,
    /// This node.
    pub(super) here: u32,
    /// By node.
    pub(super) homes: Box<[Home]>,
    pub(super) placement: Placement,
    /// All parts are at this checkpoint, as far as this process knows.
    pub(super) newest: AtomicU32,
    pub(super) reads: Reads,
}

/// What follows the head of an answer.
pub(super) struct Body {
    bytes: Vec<u8>,
    start: usize,
}

/// The writes of this process that wait for an answer, and the next one's number.
static WRITING: Mutex<(u64, BTreeSet<u64>)> = Mutex::new((1, BTreeSet::new()));

/// A write that waits for its answer.
struct Writing(WriteId);

impl Writing {
    fn lock() -> MutexGuard<'static, (u64, BTreeSet<u64>)> {
        WRITING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin() -> Self {
        let mut writing = Self::lock();
        let number = writing.0;
        writing.0 += 1;
        writing.1.insert(number);
        let waits_from = writing.1.first().copied().unwrap_or(number);
        Self(WriteId { number, waits_from })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        Self::lock().1.remove(&self.0.number);
    }
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Far {
    pub(super) fn new(fabric: Arc<Fabric>, world: u128, homes: Box<[Home]>) -> Self {
        let here = fabric.node_of(fabric.rank()).unwrap_or(0);
        let reads = Reads::of(homes.len());
        let others = homes.first().map_or(0, |home| home.replicas.len() as u32);
        let placement = Placement::new(homes.len() as u32, others + 1);
        Self { fabric, world, here, homes, placement, newest: AtomicU32::new(0), reads }
    }

    pub(super) fn nodes(&self) -> u32 {
        self.homes.len() as u32
    }

    pub(super) fn here(&self) -> u32 {
        self.here
    }

    pub(super) fn uid(&self) -> u128 {
        self.homes[0].segment.uid
    }

    pub(super) fn name(&self) -> &str {
        &self.homes[0].segment.file
    }

    pub(super) fn span(&self) -> (u128, &[Home]) {
        (self.world, &self.homes)
    }

    pub(super) fn newest(&self) -> u32 {
        // Only spares a question: who reads an older number asks once more.
        self.newest.load(Ordering::Relaxed)
    }

    /// The part of a key with this hash.
    #[inline]
    pub(super) fn part_of(&self, hash: u64) -> u32 {
        self.placement.part_of(hash)
    }

    /// Whether several nodes keep each key, so that its home's server does all writes.
    #[inline]
    pub(super) fn is_replicated(&self) -> bool {
        self.placement.replicas() > 1
    }

    // ── where a part is ─────────────────────────────────────────────────────────────────────────────────────

    /// Whether a part is to be read in this node's memory.
    #[inline(always)]
    pub(super) fn is_near(&self, part: u32) -> bool {
        part == self.here && (!self.fabric.is_disturbed() || self.is_still_near())
    }

    #[cold]
    fn is_still_near(&self) -> bool {
        let is_out = self.fabric.survives_losses() && self.fabric.cast_out().is_some();
        !(is_out || self.is_replicated() && self.is_moved(self.here))
    }

    /// Whether a part's first server is lost in a world that goes on.
    pub(super) fn is_moved(&self, part: u32) -> bool {
        self.fabric.survives_losses() && self.fabric.lost_in(self.homes[part as usize].rank).is_some()
    }

    /// Whether another node may take this one's part over.
    pub(super) fn is_movable(&self) -> bool {
        self.is_replicated() && self.fabric.survives_losses()
    }

    /// Who answers for a part.
    pub(super) fn place_of(&self, part: u32) -> Result<Place, Error> {
        let home = &self.homes[part as usize];
        if self.is_movable()
            && let Some(why) = self.fabric.cast_out()
        {
            // What lies here is others' by now.
            return Err(self.lost(part, &FabricError::CastOut { rank: self.fabric.rank(), why }));
        }
        if !self.is_moved(part) {
            return Ok(Place { node: part, rank: home.rank, uid: home.segment.uid });
        }
        let mut others = self.placement.all_keepers(part).skip(1);
        let next = others.find(|node| !self.is_moved(*node)).and_then(|node| {
            let home = &self.homes[node as usize];
            let replica = home.replicas.get(self.placement.replica_of(part, node)?)?;
            Some(Place { node, rank: home.rank, uid: replica.uid })
        });
        next.ok_or_else(|| {
            let loss = self.fabric.losses().into_iter().find(|loss| loss.rank == home.rank);
            let why = loss.map_or_else(String::new, |loss| loss.to_string());
            let why = match self.placement.replicas() {
                1 => format!("{why}; no other node keeps them (see `replicas`)"),
                count => format!("{why}; so are all {count} ranks that kept them"),
            };
            Error::Lost { name: self.name().to_owned(), rank: home.rank.0, host: home.host.clone(), why }
        })
    }

    /// Who was asked is gone: waits until that is decided. Whether to ask whoever comes next.
    fn is_to_ask_again(&self, rank: Rank, why: &FabricError) -> bool {
        let is_gone = why.is_of_the_gone() || matches!(why, FabricError::Unreachable { .. });
        if !self.is_movable() || !is_gone {
            return false;
        }
        matches!(self.fabric.fate_of(rank), FabricError::Lost(_))
    }

    // ── questions ───────────────────────────────────────────────────────────────────────────────────────────

    /// Asks, without waiting for the answer.
    pub(super) fn begin(&self, node: u32, verb: Verb, key: &[u8], value: &[u8]) -> Result<Request, Error> {
        self.begin_as(node, verb, None, key, value)
    }

    fn begin_as(
        &self,
        node: u32,
        verb: Verb,
        write: Option<WriteId>,
        key: &[u8],
        value: &[u8],
    ) -> Result<Request, Error> {
        let place = self.place_of(node)?;
        self.send(&place, verb, write, key, value).map_err(|why| self.lost(node, &why))
    }

    fn send(
        &self,
        place: &Place,
        verb: Verb,
        write: Option<WriteId>,
        key: &[u8],
        value: &[u8],
    ) -> Result<Request, FabricError> {
        let head = Question { part: place.uid, key: key.len() as u32, write, verb };
        let mut bytes = message::bytes(&head);
        bytes.reserve_exact(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.fabric.request_owned(place.rank, QUESTION, bytes)
    }

    /// Waits for the answer.
    pub(super) fn finish(&self, node: u32, request: &Request, key: &[u8]) -> Result<(Reply, Body), Error> {
        self.hear(node, request, key)?.ok_or_else(|| self.odd(node))
    }

    /// The same; `None` if whoever answers now is to be asked once more.
    pub(super) fn hear(
        &self,
        node: u32,
        request: &Request,
        key: &[u8],
    ) -> Result<Option<(Reply, Body)>, Error> {
        let answer = match request.wait(Duration::MAX) {
            Err(why) if self.is_to_ask_again(request.to(), &why) => return Ok(None),
            answer => answer.map_err(|why| self.lost(node, &why))?,
        };
        let bytes = answer.ok_or_else(|| self.odd(node))?;
        let (head, rest) = message::head::<Result<Reply, Fault>>(&bytes).ok_or_else(|| self.odd(node))?;
        let start = bytes.len() - rest.len();
        match head {
            Ok(reply) => Ok(Some((reply, Body { bytes, start }))),
            Err(Fault::NotYet) => {
                self.fabric.wait(NAP);
                Ok(None)
            }
            Err(fault) => {
                let Home { rank, host, .. } = &self.homes[node as usize];
                Err(fault.error(self.name(), (*rank, host), key))
            }
        }
    }

    pub(super) fn ask(
        &self,
        node: u32,
        verb: Verb,
        key: &[u8],
        value: &[u8],
    ) -> Result<(Reply, Body), Error> {
        let is_write = verb.is_write() || matches!(verb, Verb::Broadcast { .. });
        let write = (self.is_replicated() && is_write).then(Writing::begin);
        loop {
            // The same write, so that it is done once.
            let id = write.as_ref().map(|it| it.0);
            if let Some(answer) = self.ask_once(node, verb.clone(), id, key, value)? {
                return Ok(answer);
            }
        }
    }

    /// `None` if whoever answers now is to be asked once more.
    fn ask_once(
        &self,
        part: u32,
        verb: Verb,
        write: Option<WriteId>,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<(Reply, Body)>, Error> {
        let place = self.place_of(part)?;
        match self.send(&place, verb, write, key, value) {
            Ok(request) => self.hear(part, &request, key),
            Err(why) if self.is_to_ask_again(place.rank, &why) => Ok(None),
            Err(why) => Err(self.lost(part, &why)),
        }
    }

    /// What all other parts say, asked at once; the first error after all have answered.
    pub(super) fn ask_all<R>(&self, verb: Verb, read: impl Fn(Reply) -> Option<R>) -> Result<Vec<R>, Error> {
        self.ask_those(|part| !self.is_near(part), verb, read)
    }

    /// What these parts say.
    pub(super) fn ask_those<R>(
        &self,
        is_asked: impl Fn(u32) -> bool,
        verb: Verb,
        read: impl Fn(Reply) -> Option<R>,
    ) -> Result<Vec<R>, Error> {
        let those = (0..self.nodes()).filter(|node| is_asked(*node));
        let asked: Vec<_> = those.map(|node| (node, self.begin(node, verb.clone(), &[], &[]))).collect();
        let answer = |(node, request): (u32, Result<Request, Error>)| {
            let heard = match request {
                Ok(request) => self.hear(node, &request, &[])?,
                // It may be gone since; if not, it says the same once more.
                Err(_) => None,
            };
            let (reply, _) = heard.map_or_else(|| self.ask(node, verb.clone(), &[], &[]), Ok)?;
            read(reply).ok_or_else(|| self.odd(node))
        };
        let all: Vec<Result<R, Error>> = asked.into_iter().map(answer).collect();
        all.into_iter().collect()
    }

    /// A yes or a no.
    pub(super) fn is_so(&self, node: u32, verb: Verb, key: &[u8], value: &[u8]) -> Result<bool, Error> {
        match self.ask(node, verb, key, value)? {
            (Reply::Is(is), _) => Ok(is),
            _ => Err(self.odd(node)),
        }
    }

    /// A value, copied here.
    pub(super) fn value(&self, node: u32, verb: Verb, key: &[u8]) -> Result<Option<Pinned<'static>>, Error> {
        Ok(self.kept_value(node, verb, key)?.map(|(value, _)| value))
    }

    pub(super) fn kept_value(
        &self,
        node: u32,
        verb: Verb,
        key: &[u8],
    ) -> Result<Option<(Pinned<'static>, Keep)>, Error> {
        self.kept_value_of(node, self.ask(node, verb, key, &[])?)
    }

    /// That of an answer.
    pub(super) fn kept_value_of(
        &self,
        node: u32,
        answer: (Reply, Body),
    ) -> Result<Option<(Pinned<'static>, Keep)>, Error> {
        match answer {
            (Reply::Value(keep), body) => Ok(Some((Pinned::copy_of(&body), keep))),
            (Reply::Nothing, _) => Ok(None),
            _ => Err(self.odd(node)),
        }
    }

    /// Puts `new` if the value is `expected`; else what it is.
    #[expect(clippy::option_option, reason = "whether there is another value, and whether that is one")]
    pub(super) fn exchange(
        &self,
        node: u32,
        checkpoint: u32,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Option<Option<Pinned<'static>>>, Error> {
        let len = expected.map(|bytes| bytes.len() as u64);
        let both = [expected.unwrap_or_default(), new.unwrap_or_default()].concat();
        let verb = Verb::Exchange { checkpoint, expected: len, new: new.is_some() };
        match self.ask(node, verb, key, &both)? {
            (Reply::Is(true), _) => Ok(None),
            (Reply::Value(_), body) => Ok(Some(Some(Pinned::copy_of(&body)))),
            (Reply::Nothing, _) => Ok(Some(None)),
            _ => Err(self.odd(node)),
        }
    }

    /// See `Store::watch`.
    pub(super) fn watch(&self, part: u32, key: &[u8]) -> Result<Watch, Error> {
        loop {
            let node = self.place_of(part)?.node;
            let (Reply::Watch(watch), _) = self.ask(part, Verb::Watch, key, &[])? else {
                return Err(self.odd(part));
            };
            if self.place_of(part)?.node == node {
                return Ok(Watch(watch.wrapping_add(mark(part, node))));
            }
        }
    }

    /// Sleeps until the key may have changed, or the deadline.
    pub(super) fn wait(
        &self,
        node: u32,
        key: &[u8],
        seen: Watch,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // Rounded up: who asks again before its time is over would only ask once more.
        let ms = left.map(|left| u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
        // Who has taken the part over counts otherwise: to it this is a change.
        let seen = seen.0.wrapping_sub(mark(node, self.place_of(node)?.node));
        self.ask_once(node, Verb::Wait { seen, ms }, None, key, &[]).map(drop)
    }

    /// Shows a page of keys, with the values that came with them; returns where the next one begins.
    pub(super) fn scan(&self, node: u32, verb: Verb, each: EachKey<'_>) -> Result<Option<u64>, Error> {
        let (Reply::Page(next), body) = self.ask(node, verb, &[], &[])? else { return Err(self.odd(node)) };
        let mut page = &*body;
        while let Some((key, value, rest)) = message::next_key(page) {
            page = rest;
            each(key, value);
        }
        if page.is_empty() { Ok(next) } else { Err(self.odd(node)) }
    }

    /// Has all parts go on to a checkpoint; waits for keys that must be written anew first.
    pub(super) fn go_on(&self, near: &Store, checkpoint: u32) -> Result<(), Error> {
        let (began, timeout) = (Instant::now(), near.options().timeout_ms);
        loop {
            let missing = |reply| match reply {
                Reply::Is(_) => Some(None),
                Reply::Missing(key) => Some(Some(key)),
                _ => None,
            };
            let is_asked = |part| self.is_replicated() || !self.is_near(part);
            let mut all = self.ask_those(is_asked, Verb::Advance { checkpoint }, missing)?;
            if !self.is_replicated() {
                all.push(near.try_advance(checkpoint)?);
            }
            let Some(key) = all.into_iter().flatten().next() else { break };
            let waited_ms = began.elapsed().as_millis() as u64;
            if timeout.is_some_and(|max| waited_ms >= max) {
                return Err(Error::Timeout { key: show(&key), waited_ms });
            }
            std::thread::sleep(NAP);
        }
        self.newest.fetch_max(checkpoint, Ordering::Relaxed);
        Ok(())
    }

    /// Tells all servers of one another, once all have made their parts.
    pub(super) fn tell_homes(&self) -> Result<(), Error> {
        let know = |here| Verb::Know { homes: self.homes.to_vec(), here };
        let asked: Vec<_> =
            (0..self.nodes()).map(|node| (node, self.begin(node, know(node), &[], &[]))).collect();
        let answers = asked.into_iter().map(|(node, request)| self.finish(node, &request?, &[]).map(drop));
        answers.collect::<Vec<_>>().into_iter().collect()
    }

    /// Has the copies of a cell's keys of this node's part taken away everywhere.
    pub(super) fn give_up(&self, cell: u32) -> Result<(), Error> {
        self.is_so(self.here, Verb::GiveUp { cell }, &[], &[]).map(drop)
    }

    /// Whether the server of this node is there, so that copies here are up to date.
    pub(super) fn is_told(&self) -> bool {
        self.fabric.peer(self.homes[self.here as usize].rank) == PeerState::Here
    }

    /// Tells all servers that this process has it open. If one cannot be told, none is in the end.
    pub(super) fn enter(&self) -> Result<(), Error> {
        let those = (0..self.nodes()).filter(|node| !(self.is_movable() && self.is_moved(*node)));
        let asked: Vec<_> = those.map(|node| (node, self.begin(node, Verb::Enter, &[], &[]))).collect();
        let answers: Vec<(u32, Result<bool, Error>)> =
            asked.into_iter().map(|(node, request)| (node, self.entered(node, request))).collect();
        let told = answers.iter().filter(|(_, answer)| matches!(answer, Ok(true)));
        let told: Vec<u32> = told.map(|(node, _)| *node).collect();
        match answers.into_iter().find_map(|(_, answer)| answer.err()) {
            None => Ok(()),
            Some(error) => {
                told.into_iter().for_each(|node| self.leave_one(node));
                Err(error)
            }
        }
    }

    /// Whether a server was told, that is asked; one that is lost meanwhile, and whose part others serve, need not be.
    fn entered(&self, node: u32, request: Result<Request, Error>) -> Result<bool, Error> {
        let mut heard = match request {
            Ok(request) => self.hear(node, &request, &[])?,
            Err(_) if self.is_movable() => None,
            Err(error) => return Err(error),
        };
        while heard.is_none() {
            if self.is_movable() && self.is_moved(node) {
                return Ok(false);
            }
            heard = self.ask_once(node, Verb::Enter, None, &[], &[])?;
        }
        Ok(true)
    }

    /// Tells all servers that this process has it open no more.
    pub(super) fn leave(&self) {
        (0..self.nodes()).for_each(|node| self.leave_one(node));
    }

    fn leave_one(&self, node: u32) {
        let home = &self.homes[node as usize];
        // Who cannot be told has nothing to keep.
        let _ = self.fabric.send(home.rank, LEAVE, 0, &home.segment.uid.to_le_bytes());
    }

    // ── what can go wrong ───────────────────────────────────────────────────────────────────────────────────

    /// Room for a value that goes to another node.
    pub(super) fn buffer(&self, len: u64) -> Result<Buffer, Error> {
        let capacity = tarragon_transport::message::PAYLOAD_BYTES_MAX;
        if len > capacity {
            return Err(Error::Memory(HeapError::TooLarge { needed: len, capacity }));
        }
        Ok(Buffer::new(len as usize))
    }

    /// A part's server answers what cannot be.
    pub(super) fn odd(&self, node: u32) -> Error {
        let home = &self.homes[node as usize];
        let what = "it answers what was not asked".to_owned();
        Error::Far { rank: home.rank.0, host: home.host.clone(), what }
    }

    pub(super) fn lost(&self, node: u32, why: &FabricError) -> Error {
        let home = &self.homes[node as usize];
        let (rank, host) = (home.rank.0, home.host.clone());
        match why {
            _ if why.is_of_the_gone() || matches!(why, FabricError::Unreachable { .. }) => {
                Error::Lost { name: self.name().to_owned(), rank, host, why: why.to_string() }
            }
            other => Error::Far { rank, host, what: other.to_string() },
        }
    }
}
