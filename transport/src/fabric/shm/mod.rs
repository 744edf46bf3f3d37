//! Ranks of one node, through a segment of their world: a lane of cells for each ordered pair, a bell for each rank,
//! a heap for payloads that do not fit into a cell.
//!
//! # A message's way
//! - Up to [`INLINE_BYTES_MAX`] bytes: header and payload in one cell.
//! - More: the sender allocates a block (which it *holds* until it is published), writes the payload, and publishes
//!   the block's place in a cell. The receiver takes the block over, empties the cell, lets the handler read the
//!   payload in place, and frees the block.
//! - More than a chunk: a block for each chunk; the receiver copies them together. So a payload may be larger than the
//!   heap.
//!
//! One lane's blocks that were not yet taken are bounded by its share of the heap, so a rank that takes nothing cannot
//! use up the memory of the others.
//!
//! # Deaths
//! | killed | who settles it |
//! |---|---|
//! | before the block is published | it is among the blocks that the dead one holds: freed by `Segment::recover` |
//! | after that, before it is let go | the intent names lane, ticket, block; the cell shows it as sent: it is let go |
//! | after the receiver took the block | it is among the blocks that the dead receiver holds: freed |
//! | while messages wait for it | each sender frees the blocks that were not taken, when it finds the receiver dead |
//!
//! Who waits for a peer asks every [`LIVENESS_MS`] whether it lives, and is woken by a peer that leaves.

mod inbox;

pub(crate) mod layout;
mod link;
mod payload;
mod peers;
mod watch;

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Fabric, FabricError, LIVENESS_MS, PeerState, Wait};
use crate::lane::{CELL_WORDS, Lane};
use crate::message::{HandlerId, Header, is_handling};
use crate::rank::Rank;
use crate::region::SharedRegions;
use crate::segment::{Segment, SegmentName, Spec};
use crate::sync::Ordering;
use inbox::Inbox;
use layout::Map;
use link::{Link, Pushed, Turn};
use peers::Peers;

/// Payload bytes that travel in the cell itself.
pub(super) const INLINE_BYTES_MAX: usize = 8 * (CELL_WORDS - crate::message::HEADER_WORDS);
/// The most bytes of a block.
const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// Looks before a sender sleeps for want of room.
const ROOM_LOOKS: u32 = 64;
/// How long a sender sleeps that found the heap full, which rings no bell, in milliseconds.
const MEMORY_LOOK_MS: u64 = 1;

/// What a world on one node is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShmSpec {
    /// Ranks.
    pub size: u32,
    /// The most bytes of payloads on their way, of all ranks together.
    pub heap_bytes: u64,
    /// How long a send waits for a living peer that takes nothing.
    pub patience: Duration,
}

impl ShmSpec {
    /// For `size` ranks: 64 MiB of payloads for each, at least 256 MiB and at most 4 GiB; patience of ten minutes.
    pub(crate) fn new(size: u32) -> ShmSpec {
        let heap_bytes = (u64::from(size) << 26).clamp(1 << 28, 1 << 32);
        ShmSpec { size, heap_bytes, patience: Duration::from_secs(600) }
    }
}

/// The fabric of one rank among those of its node.
pub(crate) struct Shm {
    map: Map,
    /// This rank's seat: its place among the ranks of this segment. Lanes, lines and links go by seats.
    seat: Rank,
    /// The rank in each seat, in order.
    members: Vec<Rank>,
    links: Vec<Mutex<Link>>,
    inbox: Mutex<Inbox>,
    /// Messages that are kept in all links.
    kept: AtomicUsize,
    peers: Peers,
    regions: SharedRegions,
    patience: Duration,
    /// Bytes of a lane's blocks that were not yet taken.
    share: u64,
    spins: bool,
    /// Counts the times that handlers ran.
    delivered: AtomicU64,
}

impl Shm {
    /// The fabric of rank 0 of a new world; nobody else is there yet.
    pub(crate) fn create(spec: &ShmSpec) -> Result<Shm, FabricError> {
        let segment = Segment::create(&Spec {
            kind: layout::KIND,
            layout: layout::LAYOUT,
            control_bytes: layout::control_bytes(spec.size),
            heap_bytes: spec.heap_bytes,
        })?;
        Ok(Shm::new(Map::create(segment, spec.size)?, Rank(0), spec))
    }

    /// The fabric of another rank.
    pub(crate) fn open(name: &SegmentName, rank: Rank, spec: &ShmSpec) -> Result<Shm, FabricError> {
        let map = Map::open(Segment::open(name, layout::KIND, layout::LAYOUT)?)?;
        if rank.0 >= map.size {
            return Err(FabricError::NoSuchRank { rank, size: map.size });
        }
        Ok(Shm::new(map, rank, spec))
    }

    fn new(map: Map, seat: Rank, spec: &ShmSpec) -> Shm {
        crate::doorbell::prepare();
        let size = map.size;
        let lanes = u64::from(size) * u64::from(size);
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        Shm {
            links: (0..size).map(|_| Mutex::default()).collect(),
            inbox: Mutex::new(Inbox::new(size)),
            kept: AtomicUsize::new(0),
            peers: Peers::new(size),
            map,
            seat,
            members: (0..size).map(Rank).collect(),
            regions: SharedRegions::default(),
            patience: spec.patience,
            share: spec.heap_bytes / lanes,
            spins: size as usize <= cores,
            delivered: AtomicU64::new(0),
        }
    }

    /// With other ranks in the seats than 0, 1, 2, …: these, which are in order.
    pub(crate) fn with_members(mut self, members: Vec<Rank>) -> Shm {
        debug_assert!(members.len() == self.map.size as usize && members.is_sorted());
        self.members = members;
        self
    }

    /// Says to all that this rank is there.
    pub(crate) fn enter(&self) {
        let line = self.map.line(self.seat);
        line.pid.store(std::process::id(), Ordering::Release);
        line.namespace.store(watch::namespace(), Ordering::Release);
        line.member.store(self.map.own_member(), Ordering::Release);
        line.state.store(layout::JOINED, Ordering::Release);
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Sleeps at this rank's bell until `found`, or for `timeout`.
    pub(crate) fn sleep_until(&self, timeout: Duration, found: impl Fn() -> bool) {
        self.sleep_at_bell(timeout, self.spins, found);
    }

    fn sleep_at_bell(&self, timeout: Duration, spins: bool, found: impl Fn() -> bool) {
        let (bell, until) = (&self.map.line(self.seat).bell, Instant::now().checked_add(timeout));
        // What was found is looked for again by the caller.
        let _ = if spins { bell.wait(until, found) } else { bell.sleep(until, found) };
    }

    /// Wakes a thread of a rank that sleeps.
    fn ring(&self, rank: Rank) {
        self.map.line(rank).bell.ring();
    }

    /// Wakes all threads of a rank that sleep.
    pub(crate) fn ring_all(&self, rank: Rank) {
        self.map.line(rank).bell.ring_all();
    }

    pub(super) fn rank(&self) -> Rank {
        self.member(self.seat)
    }

    /// The rank in a seat.
    fn member(&self, seat: Rank) -> Rank {
        self.members[seat.index()]
    }

    /// The seat of a rank.
    fn seat_of(&self, rank: Rank) -> Option<Rank> {
        // Where the ranks are those of a whole world each sits in its own.
        if self.members.get(rank.index()) == Some(&rank) {
            return Some(rank);
        }
        self.members.binary_search(&rank).ok().map(|seat| Rank(seat as u32))
    }

    /// Whether a rank has a seat here.
    pub(super) fn has(&self, rank: Rank) -> bool {
        self.seat_of(rank).is_some()
    }

    /// Whether those who wait spin first.
    pub(super) fn spins(&self) -> bool {
        self.spins
    }

    pub(super) fn size(&self) -> u32 {
        self.map.size
    }

    pub(super) fn regions(&self) -> &SharedRegions {
        &self.regions
    }

    pub(super) fn peer(&self, rank: Rank) -> PeerState {
        self.seat_of(rank).map_or(PeerState::Here, |seat| self.peers.state(seat))
    }

    pub(super) fn check_peers(&self) -> Vec<Rank> {
        let (dead, fresh) = self.peers.check(&self.map, self.seat);
        fresh.into_iter().for_each(|seat| self.bury(seat));
        dead.into_iter().map(|seat| self.member(seat)).collect()
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.map.segment.usage().allocated
    }

    pub(super) fn leave(&self) {
        self.peers.leave(&self.map, self.seat);
        (0..self.size()).for_each(|rank| self.ring_all(Rank(rank)));
    }

    /// The most bytes of a block: so that two fit into a lane's share.
    fn chunk_bytes(&self) -> u64 {
        (self.share / 2).clamp(1 << 14, CHUNK_BYTES_MAX)
    }

    pub(super) fn send(
        &self,
        fabric: &Fabric,
        to: Rank,
        id: HandlerId,
        tag: u64,
        payload: &[u8],
    ) -> Result<(), FabricError> {
        fabric.expect_here(to)?;
        let size = self.size();
        let to = self.seat_of(to).ok_or(FabricError::NoSuchRank { rank: to, size })?;
        let header = Header::new(self.rank(), id, tag, payload.len() as u64);
        let header = Header { epoch: fabric.epoch(), ..header };
        if is_handling() {
            return self.post(to, header, payload);
        }
        let mut at = 0;
        let mut turn = None;
        let mut wait = Wait::new(self.patience);
        loop {
            let mut link = self.link(to);
            let before = at;
            let mut pushed = if turn.is_some() { Pushed::All } else { self.send_kept(&mut link, to)? };
            if pushed == Pushed::All {
                pushed = self.push(&mut link, to, &header, payload, &mut at)?;
                if pushed == Pushed::All {
                    return Ok(());
                }
            }
            if at > 0 && turn.is_none() {
                link.busy = true;
                turn = Some(Turn { shm: self, to });
            }
            drop(link);
            if at > before {
                wait = Wait::new(self.patience);
            }
            self.wait_for_room(fabric, to, &mut wait, pushed)?;
        }
    }

    pub(super) fn flush(&self, fabric: &Fabric) -> Result<(), FabricError> {
        let mut lost = None;
        for to in (0..self.size()).map(Rank) {
            match self.flush_to(fabric, to) {
                Err(error) if error.is_of_the_gone() => {
                    if self.give_up(to) {
                        lost = Some(error);
                    }
                }
                other => other?,
            }
        }
        lost.map_or(Ok(()), Err)
    }

    fn flush_to(&self, fabric: &Fabric, to: Rank) -> Result<(), FabricError> {
        let mut wait = Wait::new(self.patience);
        loop {
            fabric.expect_here(self.member(to))?;
            let pushed = {
                let mut link = self.link(to);
                self.send_kept(&mut link, to)?
            };
            if pushed == Pushed::All {
                return Ok(());
            }
            self.wait_for_room(fabric, to, &mut wait, pushed)?;
        }
    }

    /// Moves own messages on, or sleeps until there may be room for one to `to`.
    fn wait_for_room(
        &self,
        fabric: &Fabric,
        to: Rank,
        wait: &mut Wait,
        why: Pushed,
    ) -> Result<(), FabricError> {
        let ran = fabric.progress();
        wait.looks += 1;
        if ran == 0 && wait.looks < ROOM_LOOKS {
            std::thread::yield_now();
            return Ok(());
        }
        if wait.liveness.is_due() {
            self.check_peers();
        }
        fabric.expect_here(self.member(to))?;
        let Some(left) = wait.deadline.left() else {
            let waited_ms = self.patience.as_millis() as u64;
            return Err(FabricError::Stalled { rank: self.member(to), waited_ms });
        };
        if ran > 0 {
            return Ok(());
        }
        let lane = self.lane(self.seat, to);
        lane.want();
        let slice = if why == Pushed::MemoryFull { MEMORY_LOOK_MS } else { LIVENESS_MS };
        self.sleep_until(left.min(Duration::from_millis(slice)), || {
            self.has_work() || matches!(why, Pushed::Full { until } if lane.was_taken(until))
        });
        Ok(())
    }

    fn lane(&self, from: Rank, to: Rank) -> Lane<'_> {
        self.map.lane(self.map.lane_number(from, to)).expect("ranks are checked before their lanes are used")
    }

    fn link(&self, to: Rank) -> MutexGuard<'_, Link> {
        self.links[to.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
