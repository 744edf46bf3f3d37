//! The state of a rank's network, under one lock: moves messages between the library and the links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::buffer::{Buffer, Load};
use super::frame::{Frame, Note};
use super::link::{Inward, Outward, Payload};
use super::memory::Pages;
use super::neighbours::Neighbours;
use super::result::Request;
use super::silence::{Finding, Silence};
use super::worker::{Armed, Arrived, Body, HEADER_BYTES, Worker};
use super::{BACKLOG_BYTES_MAX, DEAD, HERE, LEFT, Target};
use crate::fabric::FabricError;
use crate::membership::{Members, Why};
use crate::message::{Header, Malformed, Sent};
use crate::rank::Rank;

/// Looks at the network for what a dead rank sent before its end.
const LAST_LOOKS_MAX: usize = 1000;

pub(super) struct Engine {
    worker: Worker,
    rank: Rank,
    pub(super) world: u64,
    /// Counts the looks that moved something.
    pub(super) moves: Arc<AtomicU64>,
    window: u64,
    states: Arc<[AtomicU8]>,
    members: Arc<Members>,
    neighbours: Neighbours,
    outward: Vec<Outward>,
    inward: Vec<Inward>,
    silences: Vec<Silence>,
    /// Ranks with something that waits for its turn, is being fetched or sent, is kept, or is to be told: looks look at
    /// no others.
    active: BTreeSet<usize>,
    /// Whose turn it is to be delivered from.
    turn: usize,
    /// Whether there is a connection to each peer, or was one.
    is_connected: bool,
    /// Who has seen that this rank left.
    seen: Vec<bool>,
    sent_bytes: u64,
    received_bytes: u64,
    /// What came and could not be.
    pub(super) malformed: Vec<Malformed>,
}

impl Engine {
    pub(super) fn new(
        worker: Worker,
        rank: Rank,
        world: u64,
        window: u64,
        (states, members): (Arc<[AtomicU8]>, Arc<Members>),
        neighbours: Neighbours,
    ) -> Engine {
        let size = states.len();
        Engine {
            worker,
            rank,
            world,
            moves: Arc::default(),
            window,
            states,
            members,
            neighbours,
            outward: (0..size).map(|_| Outward::default()).collect(),
            inward: (0..size).map(|_| Inward::default()).collect(),
            silences: (0..size).map(|_| Silence::default()).collect(),
            active: BTreeSet::new(),
            turn: 0,
            is_connected: false,
            seen: vec![false; size],
            sent_bytes: 0,
            received_bytes: 0,
            malformed: Vec::new(),
        }
    }

    fn is_here(&self, rank: usize) -> bool {
        self.states[rank].load(Ordering::Relaxed) == HERE
    }

    // --- sending -----------------------------------------------------------------------------------------------------

    /// Whether a message may go to a peer now, in its turn.
    pub(super) fn has_room(&self, to: Rank, bytes: u64) -> bool {
        let outward = &self.outward[to.index()];
        outward.kept.is_empty() && outward.has_room(bytes, self.window)
    }

    /// Sends a message for which there is room.
    pub(super) fn send(&mut self, to: Rank, header: Header, payload: Sent<'_>) -> Result<(), FabricError> {
        let at = to.index();
        if to == self.rank {
            let number = self.outward[at].count(header.bytes);
            let frame = Frame { header, number, taken: 0 };
            self.active.insert(at);
            let load = match payload {
                Sent::Lent(bytes) => Load::Own(Buffer::from(bytes.to_vec())),
                Sent::Shared(bytes) => Load::Shared(bytes.clone()),
            };
            let own = self.inward[at].add(&frame, Payload::Here(load));
            self.malformed.extend(own.err());
            return Ok(());
        }
        let frame = Frame { header, number: self.outward[at].sent + 1, taken: self.inward[at].tell() };
        let head = frame.encode(self.world);
        let sent = match payload {
            Sent::Shared(bytes) if bytes.len() >= Sent::SHARED_BYTES_MIN => {
                self.worker.send_shared(at, head, bytes.clone())
            }
            _ => self.worker.send(at, head, payload.bytes()),
        };
        let request = match sent {
            Ok(request) => request,
            Err(FabricError::Network { why, .. }) => {
                self.find_dead(at, Why::Broken);
                return Err(FabricError::Unreachable { rank: to, why });
            }
            Err(error) => return Err(error),
        };
        self.outward[at].count(header.bytes);
        self.sent_bytes += HEADER_BYTES as u64 + header.bytes;
        self.begun(at, request);
        Ok(())
    }

    /// Keeps a message of a handler for which there is no room now.
    pub(super) fn keep(&mut self, to: Rank, header: Header, payload: Sent<'_>) -> Result<(), FabricError> {
        let outward = &mut self.outward[to.index()];
        let (bytes, max) = (outward.kept_bytes, BACKLOG_BYTES_MAX);
        if bytes.saturating_add(header.bytes) > max {
            return Err(FabricError::Backlog { rank: to, bytes, max });
        }
        outward.kept_bytes += header.bytes;
        outward.kept.push_back((header, payload.keep()));
        self.active.insert(to.index());
        self.ask(to);
        Ok(())
    }

    /// Asks a peer, once for the last message, to say what it has taken.
    pub(super) fn ask(&mut self, to: Rank) {
        let at = to.index();
        let last = self.outward[at].sent;
        if to != self.rank && self.outward[at].asked < last {
            self.outward[at].asked = last;
            self.note(at, Note::Ask, last);
        }
    }

    /// Sends what is kept, as far as there is room.
    fn send_kept(&mut self, at: usize) {
        while let Some((header, payload)) = self.outward[at].kept.pop_front() {
            let may_go = self.is_here(at) && self.outward[at].has_room(header.bytes, self.window);
            if !may_go || self.send(Rank(at as u32), header, Sent::Shared(&payload)).is_err() {
                self.outward[at].kept.push_front((header, payload));
                if may_go || self.is_here(at) {
                    self.ask(Rank(at as u32));
                }
                return;
            }
            self.outward[at].kept_bytes -= header.bytes;
        }
    }

    pub(super) fn note(&mut self, at: usize, note: Note, about: u64) {
        let taken = self.inward[at].tell();
        let frame = Frame::note((self.rank, self.members.epoch()), note, about, taken).encode(self.world);
        self.sent_bytes += HEADER_BYTES as u64;
        match self.worker.send(at, frame, &[]) {
            Ok(request) => self.begun(at, request),
            Err(_) if self.is_here(at) => self.find_dead(at, Why::Broken),
            // Who has left need not hear more.
            Err(_) => {}
        }
    }

    /// A send to a peer has begun.
    fn begun(&mut self, at: usize, request: Request) {
        self.outward[at].requests.push_back(request);
        self.forget_ended(at);
        if !self.outward[at].requests.is_empty() || self.outward[at].is_broken {
            self.active.insert(at);
        }
    }

    /// Lets go of what the library has sent, in order. That one could not be is looked at when all that has come from
    /// there was taken in, its goodbye above all.
    fn forget_ended(&mut self, at: usize) {
        let Outward { requests, is_broken, .. } = &mut self.outward[at];
        while let Some(first) = requests.front_mut() {
            match self.worker.outcome(first, "send") {
                None => break,
                Some(ended) => *is_broken |= ended.is_err(),
            }
            let buffer = first.take_buffer();
            requests.pop_front();
            self.worker.give_back(Load::Own(buffer));
        }
    }

    /// Tells those what was taken who are to be told.
    pub(super) fn tell_all(&mut self) {
        let mut next = 0;
        while let Some(at) = self.active_from(next) {
            next = at + 1;
            if at != self.rank.index() && self.is_here(at) && self.inward[at].owes(self.window) {
                self.note(at, Note::Taken, 0);
            }
        }
    }

    /// Sends a note to all that are here and to which there is no connection yet, so that there is one which can break.
    pub(super) fn connect_all(&mut self) {
        if std::mem::replace(&mut self.is_connected, true) {
            return;
        }
        for at in 0..self.outward.len() {
            if at != self.rank.index() && self.is_here(at) && !self.worker.has_endpoint(at) {
                self.note(at, Note::Taken, 0);
            }
        }
    }

    pub(super) fn say_goodbye(&mut self) {
        for at in 0..self.outward.len() {
            if at != self.rank.index() && self.is_here(at) {
                self.note(at, Note::Goodbye, 0);
            } else {
                self.seen[at] = true;
            }
        }
    }

    /// Whether all peers have seen the goodbye, or are gone.
    pub(super) fn was_seen(&self) -> bool {
        (0..self.seen.len()).all(|at| self.seen[at] || !self.is_here(at))
    }

    /// Whether a peer has taken all, and the library holds nothing back.
    pub(super) fn is_done(&self, to: Rank) -> bool {
        to == self.rank || self.outward[to.index()].is_done()
    }

    pub(super) fn give_up(&mut self, to: Rank) -> bool {
        self.outward[to.index()].give_up()
    }

    pub(super) fn underway_bytes(&self) -> u64 {
        self.outward.iter().map(|it| it.underway_bytes).sum()
    }

    pub(super) fn traffic(&self) -> (u64, u64) {
        (self.sent_bytes, self.received_bytes)
    }

    // --- receiving ---------------------------------------------------------------------------------------------------

    /// Moves the network on: takes in what has come, sends what was kept, finds who is gone. Whether anything happened.
    pub(super) fn pump(&mut self) -> bool {
        let moved = self.worker.progress();
        if moved {
            self.moves.fetch_add(1, Ordering::SeqCst);
        }
        for arrived in self.worker.take_arrived() {
            if let Err(malformed) = self.accept(arrived) {
                self.malformed.push(malformed);
            }
        }
        if self.worker.take_failed() {
            for at in 0..self.inward.len() {
                if self.is_here(at) && self.worker.has_failed(at) {
                    self.find_dead(at, Why::Broken);
                }
            }
        }
        if !self.active.is_empty() {
            self.look_at_active();
        }
        moved
    }

    /// The first rank of those that are looked at, from this one on.
    fn active_from(&self, rank: usize) -> Option<usize> {
        self.active.range(rank..).next().copied()
    }

    fn look_at_active(&mut self) {
        let mut next = 0;
        while let Some(at) = self.active_from(next) {
            next = at + 1;
            self.forget_ended(at);
            let is_broken = std::mem::take(&mut self.outward[at].is_broken);
            if (self.move_fetches(at) || is_broken) && self.is_here(at) {
                self.find_dead(at, Why::Broken);
            }
            if !self.outward[at].kept.is_empty() {
                self.send_kept(at);
            }
            let (inward, outward) = (&self.inward[at], &self.outward[at]);
            let owes = self.is_here(at) && inward.owes(self.window);
            if inward.is_empty() && outward.kept.is_empty() && outward.requests.is_empty() && !owes {
                self.active.remove(&at);
            }
        }
    }

    /// Finds the ranks of this node that have ended. What they sent before, their goodbye above all, is taken in first.
    pub(super) fn find_ended(&mut self) {
        let ended = self.neighbours.ended();
        for _ in 0..LAST_LOOKS_MAX {
            if !self.pump() {
                break;
            }
        }
        for rank in ended {
            if self.is_here(rank.index()) {
                self.find_dead(rank.index(), Why::Ended);
            }
        }
    }

    fn find_dead(&mut self, at: usize, why: Why) {
        self.states[at].store(DEAD, Ordering::Relaxed);
        self.bury(at);
        self.members.found(Rank(at as u32), why);
    }

    /// Nothing goes to a rank that was declared lost, nor comes from there.
    pub(super) fn lose(&mut self, at: usize) {
        if at != self.rank.index() && self.is_here(at) {
            self.states[at].store(DEAD, Ordering::Relaxed);
            self.bury(at);
        }
    }

    /// Asks those whether they are there of whom something is awaited and nothing comes, and tells rank 0 whom this
    /// rank does not hear. Rank 0 itself is heard otherwise, or not at all.
    pub(super) fn look_for_silence(&mut self, limit: Duration, was_away: bool) {
        self.pump();
        let (own, now) = (self.rank.index(), Instant::now());
        for at in (1..self.silences.len()).filter(|&at| at != own) {
            let parts = [self.outward[at].awaited(), self.inward[at].awaited()];
            let awaited = parts.into_iter().flatten().reduce(|to, from| to + from);
            let awaited = awaited.filter(|_| self.is_here(at));
            match self.silences[at].look(awaited, limit, was_away, now) {
                Finding::Nothing => {}
                Finding::Ask => self.note(at, Note::Question, 0),
                Finding::Unheard => self.note(0, Note::Unheard, at as u64),
            }
        }
        self.pump();
    }

    /// Tells all that are here, but for this rank.
    pub(super) fn note_all(&mut self, note: Note, about: u64) {
        for at in 0..self.outward.len() {
            if at != self.rank.index() && self.is_here(at) {
                self.note(at, note, about);
            }
        }
    }

    fn accept(&mut self, arrived: Arrived) -> Result<(), Malformed> {
        let header = arrived
            .header
            .get(..arrived.header_bytes)
            .ok_or(Malformed::Length { found: arrived.header_bytes as u64, wanted: HEADER_BYTES as u64 });
        let frame = header.and_then(|it| Frame::decode(it, self.world, self.states.len() as u32));
        let bytes = match &arrived.body {
            Body::Here(load) => load.bytes().len(),
            Body::There(descriptor) => descriptor.bytes,
        } as u64;
        self.received_bytes += HEADER_BYTES as u64 + bytes;
        let frame = frame?;
        if bytes != frame.header.bytes {
            return Err(Malformed::Length { found: bytes, wanted: frame.header.bytes });
        }
        if self.members.refuses(&frame.header) {
            if let Body::Here(load) = arrived.body {
                self.give_back(load);
            }
            return Ok(());
        }
        let at = frame.header.source.index();
        self.silences[at].heard();
        self.outward[at].was_taken(frame.taken);
        if frame.number == 0 {
            let note = frame.as_note().ok_or(Malformed::Carriage(frame.header.handler.0))?;
            self.heed(at, note, &frame.header);
            return Ok(());
        }
        let payload = match arrived.body {
            Body::Here(load) => Payload::Here(load),
            Body::There(descriptor) => Payload::There(descriptor),
        };
        self.active.insert(at);
        self.inward[at].add(&frame, payload)
    }

    fn heed(&mut self, at: usize, note: Note, header: &Header) {
        let (about, source) = (header.tag, header.source);
        match note {
            Note::Taken | Note::Answer => {}
            Note::Question if self.is_here(at) => self.note(at, Note::Answer, 0),
            Note::Sign if self.rank == Rank(0) => {
                self.members.sign(source, about as u32, Instant::now());
                if self.is_here(at) {
                    self.note(at, Note::Heard, u64::from(self.members.settled()));
                }
            }
            Note::Accuse if self.rank == Rank(0) => self.members.accuse(source, Rank(about as u32)),
            Note::Unheard if self.rank == Rank(0) => self.members.doubt(source, Rank(about as u32)),
            Note::Heard if source == Rank(0) => self.members.hear(about as u32, Instant::now()),
            Note::Lost if source == Rank(0) => {
                let (epoch, why) = ((about >> 32) as u32 & 0xFF_FFFF, Why::decode((about >> 56) as u8));
                self.members.lose(epoch, Rank(about as u32), why);
            }
            // Nobody else decides, and who has left need not hear more.
            Note::Sign | Note::Accuse | Note::Unheard | Note::Heard | Note::Lost | Note::Question => {}
            Note::Ask => {
                self.inward[at].ask(about);
                if self.is_here(at) && self.inward[at].owes(self.window) {
                    self.note(at, Note::Taken, 0);
                }
            }
            Note::Goodbye => {
                self.note(at, Note::Seen, 0);
                if self.is_here(at) {
                    self.states[at].store(LEFT, Ordering::Relaxed);
                }
            }
            Note::Seen => self.seen[at] = true,
        }
    }

    /// Notes which payloads have been fetched, and fetches others. True if one cannot be had: then nothing after it can
    /// be delivered either, so its sender is lost to this rank.
    fn move_fetches(&mut self, at: usize) -> bool {
        let (worker, inward) = (&mut self.worker, &mut self.inward[at]);
        let outcome = |request: &mut Request| Some(worker.outcome(request, "fetch a payload")?.is_ok());
        let is_lost = inward.end_fetches(outcome);
        while let Some((number, descriptor)) = inward.next_fetch() {
            inward.fetch(number, worker.fetch(descriptor));
        }
        is_lost
    }

    fn bury(&mut self, at: usize) {
        let unsent = self.outward[at].bury();
        let unfetched = self.inward[at].bury();
        unsent.into_iter().chain(unfetched).for_each(|request| self.worker.abandon(request));
        self.worker.close(at);
    }

    /// Whether [`Engine::take`] has something.
    pub(super) fn is_ready(&self) -> bool {
        self.active.iter().any(|&at| self.inward[at].is_ready())
    }

    /// The next message to deliver; ranks take turns.
    pub(super) fn take(&mut self) -> Option<(Header, Load)> {
        let (before, after) = (self.active.range(..self.turn), self.active.range(self.turn..));
        let at = after.chain(before).copied().find(|&at| self.inward[at].is_ready())?;
        self.turn = at + 1;
        let taken = self.inward[at].take();
        if at == self.rank.index() {
            let number = self.inward[at].tell();
            self.outward[at].was_taken(number);
        }
        taken
    }

    /// Takes memory back that was delivered from, or in which an operation is over.
    pub(super) fn give_back(&mut self, load: Load) {
        self.worker.give_back(load);
    }

    /// Asks whether one may sleep until the library's event descriptor says otherwise.
    pub(super) fn arm(&mut self) -> Armed {
        self.worker.arm()
    }

    // --- one-sided ---------------------------------------------------------------------------------------------------

    pub(super) fn register(&mut self, pages: Arc<Pages>) -> Result<Vec<u8>, FabricError> {
        self.worker.register(pages)
    }

    /// Starts to write, to wait until it is there, and to read the region's number.
    pub(super) fn put(
        &mut self,
        to: &Target<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Vec<Request>, FabricError> {
        let (at, mut requests) = (to.rank.index(), Vec::with_capacity(3));
        if !bytes.is_empty() {
            let address = to.address_of(offset);
            requests.push(self.worker.put(at, to.packed, address, bytes)?);
            requests.push(self.worker.flush(at)?);
        }
        requests.push(self.worker.get(at, to.packed, to.address, 8)?);
        self.outward[at].begin(&requests);
        self.sent_bytes += bytes.len() as u64;
        Ok(requests)
    }

    /// Starts to read so many bytes from offsets on, and the region's number if it has one.
    pub(super) fn get(
        &mut self,
        from: &Target<'_>,
        reads: impl Iterator<Item = (u64, usize)>,
    ) -> Result<Vec<Request>, FabricError> {
        let (at, mut requests) = (from.rank.index(), Vec::with_capacity(2));
        for (offset, count) in reads.filter(|(_, count)| *count > 0) {
            requests.push(self.worker.get(at, from.packed, from.address_of(offset), count)?);
            self.received_bytes += count as u64;
        }
        if from.number.is_some() {
            requests.push(self.worker.get(at, from.packed, from.address, 8)?);
        }
        self.outward[at].begin(&requests);
        Ok(requests)
    }

    /// Whether operations at a peer are over; the first error among them. Without one nothing is awaited of them any
    /// more, else they are to be abandoned.
    pub(super) fn are_over(&mut self, at: Rank, requests: &mut [Request]) -> Option<Result<(), FabricError>> {
        let mut all = Ok(());
        for request in &mut *requests {
            all = all.and(self.worker.outcome(request, "reach a region")?);
        }
        if all.is_ok() {
            self.outward[at.index()].end(requests);
        }
        Some(all)
    }

    pub(super) fn abandon(&mut self, at: Rank, requests: Vec<Request>) {
        self.outward[at.index()].end(&requests);
        requests.into_iter().for_each(|request| self.worker.abandon(request));
    }
}
