//! Ranks of any nodes, through UCX: whatever network it finds (tcp, shared memory, RDMA), loaded at run time.
//!
//! # A message's way
//! Each message is one active message of UCX, eager or rendezvous as UCX chooses by its size; what stands before the
//! payload is described in `frame`. Payloads that are still at the sender are fetched while later messages may come
//! already, so the messages of a pair are numbered, and wait here for their turn (`link`).
//!
//! The receiver tells the sender what it has taken: with whatever it sends there, or by a note once that is a quarter
//! of the window, or when asked. A sender has at most a *window* of bytes underway to one peer ([`WINDOW_BYTES`], less
//! with many ranks), or two messages larger than that.
//!
//! # Copies
//! A payload that is lent (`send`) is copied to a buffer, one that is shared (`send_shared`) is sent from where it is.
//! It is delivered from where it came to: a buffer it was fetched into, or memory of the library, which gets that back
//! after the handler. Buffers are used again (`buffer`): a fresh one of a mebibyte takes longer to get than to fill.
//!
//! # Locks
//! `engine` is held for each call of the library, never while a handler runs; `delivering` while handlers run, and
//! taken first. One thread of those that wait sleeps on the library's event descriptor (`poller`), the others until it
//! or a thread that has delivered something wakes them. Whoever sleeps has counted before what it waits for was found
//! missing (deliveries, or looks that moved something), and compares when others can see that it sleeps: what another
//! thread did in between keeps it awake.
//!
//! # Deaths
//! Of ranks on its own node a rank asks the kernel (`neighbours`). Of others UCX reports a broken connection; a rank
//! that waits sends each peer to which there is none a note, once, so that there is one. That a quiet connection still
//! bears is asked by those below: by the kernel of tcp (`worker`, the settings), by UCX of other ways. No thread of
//! this rank wakes for it. A peer that only says nothing is not taken for dead: it may compute. Who leaves says so, and
//! waits up to [`GOODBYE_MS`] until that was seen.
//!
//! That a connection is broken is learnt from the library's callback, from a call that fails, and from a send or a
//! fetch that ends with an error later; the last two count when all that has come was taken in, a goodbye above all.
//! None of these comes as long as tcp sends again what nobody acknowledges (`tcp_retries2`, a quarter of an hour), so
//! there is a question besides (`silence`, and `membership`). UCX 1.13 has told of each connection that the kernel has
//! given up; but it takes whichever card the system lists first where `UCX_NET_DEVICES` says nothing, and the order is
//! another one in each network namespace: a link that was cut may be one that nobody uses.
//!
//! # Sleep
//! Who wants to sleep on the descriptor asks the library first (`arm`). One that is *busy* has events that a look takes
//! in; if looks in succession move nothing all the same, or it cannot be asked, the poller naps, for 2 or 10 ms at
//! most.

mod buffer;
mod engine;
mod frame;
mod link;
mod memory;
mod neighbours;
mod result;
mod silence;
mod sleep;
mod sys;
mod worker;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::{BACKLOG_BYTES_MAX, Deadline, Fabric, FabricError, LIVENESS_MS, PeerState, Wait};
use crate::membership::{Members, Why};
use crate::message::{HandlerId, Header, Sent, is_handling};
use crate::rank::Rank;
use crate::region::NetworkRegions;
use crate::segment::Segment;
use buffer::{Buffer, Load};
use engine::Engine;
use frame::Note;
pub(crate) use memory::Pages;
use result::Request;
use worker::Worker;

/// Bytes that may be underway to one peer: at most these, and of all peers together at most [`WINDOWS_BYTES`].
const WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that may be underway to all peers, as far as each may have [`WINDOW_BYTES_MIN`].
const WINDOWS_BYTES: u64 = 256 << 20;
/// The least window of a peer, however many ranks there are.
const WINDOW_BYTES_MIN: u64 = 256 << 10;
/// How long a rank that leaves waits at most until its peers have seen that, in milliseconds.
const GOODBYE_MS: u64 = 2000;
/// Handlers that one `progress` runs at most.
const BATCH_MAX: usize = 256;
/// Looks in vain before somebody who waits for a peer sleeps.
const LOOKS_MAX: u32 = 64;

const HERE: u8 = 0;
const LEFT: u8 = 1;
const DEAD: u8 = 2;

/// The fabric of one rank among those that a network connects.
pub(crate) struct Ucx {
    rank: Rank,
    size: u32,
    /// Its drop ends the worker, whose descriptor `events` is.
    engine: Mutex<Engine>,
    states: Arc<[AtomicU8]>,
    members: Arc<Members>,
    delivering: Mutex<()>,
    patience: Duration,
    spins: bool,
    sleepers: sleep::Sleepers,
    regions: NetworkRegions,
    events: RawFd,
    /// That of the engine, to be read without its lock.
    moves: Arc<AtomicU64>,
}

/// A worker that waits to hear where the others are.
pub(crate) struct Listening {
    worker: Worker,
    events: RawFd,
}

impl Listening {
    /// Loads UCX and makes a worker for a world of `size` ranks, and what tells the others where this rank runs and
    /// listens.
    ///
    /// # Errors
    /// `NoLibrary`, `Network`.
    pub(crate) fn on(size: u32) -> Result<(Listening, Vec<u8>), FabricError> {
        let worker = Worker::new(size)?;
        let events = worker.event_descriptor()?;
        let told = neighbours::tell(&worker.address()?);
        Ok((Listening { worker, events }, told))
    }

    /// The fabric, once what all ranks have told is known, in their order.
    pub(crate) fn connect(
        mut self,
        rank: Rank,
        told: Vec<Vec<u8>>,
        patience: Duration,
    ) -> Result<Ucx, FabricError> {
        let size = told.len() as u32;
        // All ranks have the same list, so all have the same number, and those of another world have not.
        let world = xxhash_rust::xxh3::xxh3_64(&told.concat());
        let window = (WINDOWS_BYTES / u64::from(size)).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES);
        let (addresses, neighbours) = neighbours::hear(rank, told);
        self.worker.set_addresses(addresses);
        let states: Arc<[AtomicU8]> = (0..size).map(|_| AtomicU8::new(HERE)).collect();
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let members = Arc::new(Members::new(rank, size));
        let known = (states.clone(), members.clone());
        let engine = Engine::new(self.worker, rank, world, window, known, neighbours);
        Ok(Ucx {
            rank,
            size,
            moves: engine.moves.clone(),
            engine: Mutex::new(engine),
            states,
            members,
            delivering: Mutex::new(()),
            patience,
            spins: size as usize <= cores,
            sleepers: sleep::Sleepers::new()?,
            regions: NetworkRegions::default(),
            events: self.events,
        })
    }
}

impl Ucx {
    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn regions(&self) -> &NetworkRegions {
        &self.regions
    }

    /// The engine, to reach a peer: with it locked no other thread finds that dead and takes its connection away, which
    /// would be made anew.
    fn lock_for(&self, peer: Rank) -> Result<MutexGuard<'_, Engine>, FabricError> {
        let engine = self.lock();
        self.expect_here(peer).map(|()| engine)
    }

    fn expect_here(&self, rank: Rank) -> Result<(), FabricError> {
        match self.peer(rank) {
            PeerState::Left => Err(FabricError::PeerLeft { rank }),
            PeerState::Here if !self.members.is_gone(rank) => Ok(()),
            PeerState::Here | PeerState::Dead => Err(self.members.error_of(rank)),
        }
    }

    pub(super) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Gives rank 0 a sign of life.
    pub(super) fn give_sign(&self, told: u32) {
        self.note(|engine| engine.note(0, Note::Sign, u64::from(told)));
    }

    /// At rank 0: tells all what is settled.
    pub(super) fn tell_settled(&self) {
        self.note(|engine| engine.note_all(Note::Heard, u64::from(self.members.settled())));
    }

    /// Tells rank 0 that a rank cannot be reached.
    pub(super) fn accuse(&self, rank: Rank) {
        self.note(|engine| engine.note(0, Note::Accuse, u64::from(rank.0)));
    }

    /// Elsewhere: looks for peers that say nothing; see `silence`.
    pub(super) fn look_for_silence(&self, limit: Duration, was_away: bool) {
        self.note(|engine| engine.look_for_silence(limit, was_away));
    }

    /// At rank 0: tells all, the lost one too, that a rank is lost.
    pub(super) fn spread(&self, epoch: u32, rank: Rank, why: Why) {
        let about = u64::from(rank.0) | u64::from(epoch) << 32 | (why as u64) << 56;
        self.note(|engine| engine.note_all(Note::Lost, about));
    }

    /// A rank was declared lost.
    pub(super) fn lose(&self, rank: Rank) {
        self.note(|engine| engine.lose(rank.index()));
    }

    fn note(&self, send: impl FnOnce(&mut Engine)) {
        {
            let mut engine = self.lock();
            send(&mut engine);
            engine.pump();
        }
        self.sleepers.nudge();
    }

    pub(super) fn peer(&self, rank: Rank) -> PeerState {
        match self.states[rank.index()].load(Ordering::Relaxed) {
            HERE => PeerState::Here,
            LEFT => PeerState::Left,
            _ => PeerState::Dead,
        }
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.lock().underway_bytes()
    }

    /// Bytes that went out to, and came from, other ranks.
    pub(super) fn traffic(&self) -> (u64, u64) {
        self.lock().traffic()
    }

    pub(super) fn send(
        &self,
        fabric: &Fabric,
        to: Rank,
        id: HandlerId,
        tag: u64,
        payload: Sent<'_>,
    ) -> Result<(), FabricError> {
        let header = Header::new(self.rank, id, tag, payload.bytes().len() as u64);
        let header = Header { epoch: self.members.epoch(), ..header };
        let mut wait = Wait::new(self.patience);
        loop {
            let mut engine = self.lock_for(to)?;
            if engine.has_room(to, header.bytes) {
                let sent = engine.send(to, header, payload);
                drop(engine);
                self.sleepers.nudge();
                return sent;
            }
            if is_handling() {
                return engine.keep(to, header, payload);
            }
            engine.ask(to);
            let seen = self.moves();
            drop(engine);
            self.wait_for_peer(fabric, to, &mut wait, seen)?;
        }
    }

    pub(super) fn flush(&self, fabric: &Fabric) -> Result<(), FabricError> {
        let mut lost = None;
        for to in (0..self.size).map(Rank) {
            let mut wait = Wait::new(self.patience);
            let flushed = loop {
                if let Err(error) = fabric.expect_here(to) {
                    break Err(error);
                }
                let mut engine = self.lock();
                engine.pump();
                if engine.is_done(to) {
                    break Ok(());
                }
                engine.ask(to);
                let seen = self.moves();
                drop(engine);
                if let Err(error) = self.wait_for_peer(fabric, to, &mut wait, seen) {
                    break Err(error);
                }
            };
            match flushed {
                Err(error) if error.is_of_the_gone() => {
                    if self.lock().give_up(to) {
                        lost = Some(error);
                    }
                }
                other => other?,
            }
        }
        lost.map_or(Ok(()), Err)
    }

    /// Counts the looks, of all threads, that moved something: asked while the engine is locked, and what is waited for
    /// was not there, and compared before one sleeps.
    fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    /// Moves own messages on, or sleeps until something comes that had not when `seen` was asked for.
    fn wait_for_peer(
        &self,
        fabric: &Fabric,
        to: Rank,
        wait: &mut Wait,
        seen: u64,
    ) -> Result<(), FabricError> {
        let ran = fabric.progress();
        // As long as something moves, as a large payload does by and by, to sleep would be to be woken at once.
        let has_moved = self.moves() != seen;
        wait.looks = if has_moved { 0 } else { wait.looks + 1 };
        if ran > 0 || wait.looks < LOOKS_MAX {
            std::thread::yield_now();
        } else {
            let slice = Duration::from_millis(LIVENESS_MS).min(wait.deadline.left().unwrap_or_default());
            self.sleep_unless(slice, || self.moves() != seen);
        }
        self.check_wait(to, wait)
    }

    /// Errors that end a wait for a peer.
    fn check_wait(&self, to: Rank, wait: &mut Wait) -> Result<(), FabricError> {
        if wait.liveness.is_due() {
            self.check_peers();
        }
        self.expect_here(to)?;
        match wait.deadline.left() {
            Some(_) => Ok(()),
            None => Err(FabricError::Stalled { rank: to, waited_ms: self.patience.as_millis() as u64 }),
        }
    }

    pub(super) fn progress(&self, fabric: &Fabric) -> usize {
        if is_handling() {
            return 0;
        }
        let _delivering = match self.delivering.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.pump();
                return 0;
            }
        };
        let mut ran = 0;
        let mut engine = self.lock();
        engine.pump();
        while ran < BATCH_MAX {
            let Some((header, payload)) = engine.take() else { break };
            drop(engine);
            fabric.deliver(&header, payload.bytes());
            ran += 1;
            engine = self.lock();
            engine.give_back(payload);
        }
        std::mem::take(&mut engine.malformed).into_iter().for_each(|why| fabric.handlers.refuse(why));
        if ran > 0 {
            engine.tell_all();
            drop(engine);
            self.sleepers.delivered();
        }
        ran
    }

    /// Takes in what comes, and delivers nothing. Whether anything came or went, a peer's one-sided access among it.
    pub(super) fn pump(&self) -> bool {
        let has_moved = self.lock().pump();
        self.sleepers.nudge();
        has_moved
    }

    /// Whether there is something to deliver.
    pub(super) fn has_work(&self) -> bool {
        let mut engine = self.lock();
        engine.pump();
        engine.is_ready()
    }

    /// Wakes a thread that sleeps.
    pub(super) fn rouse(&self) {
        self.sleepers.delivered();
    }

    pub(super) fn check_peers(&self) -> Vec<Rank> {
        let mut engine = self.lock();
        engine.find_ended();
        engine.connect_all();
        engine.pump();
        drop(engine);
        self.sleepers.nudge();
        let is_dead = |rank: &Rank| *rank != self.rank && self.peer(*rank) == PeerState::Dead;
        (0..self.size).map(Rank).filter(is_dead).collect()
    }

    /// Says to all that this rank leaves, and waits a while until they have seen it.
    pub(super) fn leave(&self) {
        self.lock().say_goodbye();
        let deadline = Deadline::after(Duration::from_millis(GOODBYE_MS));
        let mut looks = 0;
        loop {
            let seen = {
                let mut engine = self.lock();
                engine.pump();
                if engine.was_seen() {
                    break;
                }
                self.moves()
            };
            let Some(left) = deadline.left() else { break };
            looks += 1;
            if looks < LOOKS_MAX {
                std::thread::yield_now();
            } else {
                self.sleep_unless(left, || self.moves() != seen);
            }
        }
        self.states[self.rank.index()].store(LEFT, Ordering::Relaxed);
    }

    /// Zeroed memory that peers reach by the key: its address there, its packed key, and the memory.
    pub(crate) fn register(
        &self,
        bytes: u64,
        number: u64,
    ) -> Result<(Arc<Pages>, u64, Vec<u8>), FabricError> {
        let pages = Pages::new(bytes, number)
            .map_err(|error| FabricError::Network { verb: "map memory", why: error.to_string() })?;
        let pages = Arc::new(pages);
        let packed = self.lock().register(pages.clone())?;
        let address = pages.place().0.addr() as u64;
        Ok((pages, address, packed))
    }

    /// Memory of a segment that peers may read: its address there, its packed key, and the memory.
    pub(crate) fn show(&self, segment: &Segment) -> Result<(Arc<Pages>, u64, Vec<u8>), FabricError> {
        let pages = Pages::of_file(&segment.file)
            .map_err(|error| FabricError::Network { verb: "map a segment", why: error.to_string() })?;
        let pages = Arc::new(pages);
        let packed = self.lock().register(pages.clone())?;
        let address = pages.place().0.addr() as u64;
        Ok((pages, address, packed))
    }

    /// The world's number, which nobody outside knows.
    pub(crate) fn world(&self) -> u64 {
        self.lock().world
    }

    /// Writes `bytes`, if any, to a peer's region; false if it is gone.
    pub(crate) fn put_to(&self, to: &Target<'_>, offset: u64, bytes: &[u8]) -> Result<bool, FabricError> {
        let requests = self.lock_for(to.rank)?.put(to, offset, bytes)?;
        let mut over = self.finish(to, requests)?;
        let is_there = over.pop().is_some_and(|word| to.is_named_by(word.bytes()));
        self.give_back(over);
        Ok(is_there)
    }

    /// Reads from a peer's region, all that is asked for on its way at once; false if the region is gone.
    pub(crate) fn get_from(
        &self,
        from: &Target<'_>,
        reads: &mut [(u64, &mut [u8])],
    ) -> Result<bool, FabricError> {
        let asked = reads.iter().map(|(offset, bytes)| (*offset, bytes.len()));
        let requests = self.lock_for(from.rank)?.get(from, asked)?;
        let mut read = self.finish(from, requests)?;
        let is_there = from.number.is_none() || read.pop().is_some_and(|word| from.is_named_by(word.bytes()));
        if is_there {
            for ((_, to), buffer) in reads.iter_mut().filter(|(_, to)| !to.is_empty()).zip(&read) {
                to.copy_from_slice(buffer.bytes());
            }
        }
        self.give_back(read);
        Ok(is_there)
    }

    fn give_back(&self, buffers: Vec<Buffer>) {
        let mut engine = self.lock();
        buffers.into_iter().for_each(|buffer| engine.give_back(Load::Own(buffer)));
    }

    /// Waits until one-sided operations are over. Returns their memory.
    fn finish(&self, at: &Target<'_>, mut requests: Vec<Request>) -> Result<Vec<Buffer>, FabricError> {
        let mut wait = Wait::new(self.patience);
        loop {
            let (has_moved, over, seen) = {
                let mut engine = self.lock();
                let has_moved = engine.pump();
                (has_moved, engine.are_over(at.rank, &mut requests), self.moves())
            };
            self.sleepers.nudge();
            let failed = match over {
                Some(Ok(())) => break,
                Some(Err(error)) => Some(error),
                None => None,
            };
            wait.looks = if has_moved { 0 } else { wait.looks + 1 };
            if wait.looks < LOOKS_MAX {
                std::thread::yield_now();
            } else {
                self.sleep_unless(Duration::from_millis(LIVENESS_MS), || self.moves() != seen);
            }
            let checked = self.check_wait(at.rank, &mut wait);
            if let Err(error) = checked.and(failed.map_or(Ok(()), Err)) {
                self.lock().abandon(at.rank, requests);
                return Err(error);
            }
        }
        Ok(requests.iter_mut().map(Request::take_buffer).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a region of a peer lies.
pub(crate) struct Target<'k> {
    pub(crate) rank: Rank,
    /// What its word says; `None`: it has none.
    pub(crate) number: Option<u64>,
    pub(crate) address: u64,
    pub(crate) packed: &'k [u8],
}

impl Target<'_> {
    /// Whether these bytes are the number of a region that is there.
    fn is_named_by(&self, word: &[u8]) -> bool {
        self.number.is_some_and(|number| word == number.to_ne_bytes())
    }

    /// Address of a byte of the region.
    fn address_of(&self, offset: u64) -> u64 {
        let head = if self.number.is_some() { memory::HEAD_BYTES } else { 0 };
        self.address.wrapping_add(head + offset)
    }
}
