//! How bytes move between ranks: a closed choice, each of which passes the suite in `conformance`.
//!
//! # What every fabric promises
//! - A message is delivered once, whole, and in order among those that one rank sent to another. Sends of several
//!   threads, and those of handlers that run while a send waits, come in some order that respects each of them.
//! - Handlers run inside `progress`, `wait`, and sends that wait; one at a time on each rank. Nothing moves on a rank
//!   that calls none of these, except that peers can put to and get from its regions; through a network without RDMA
//!   not even that: there a put or get waits until the owner makes progress. Where the ranks are on several nodes each
//!   has threads of its own that make progress, and run handlers, when no other thread does.
//! - A send outside of handlers waits while the peer's side is full (*backpressure*) and moves this rank's own
//!   messages on meanwhile, so two ranks that fill one another's side do not wait for ever. A send inside a handler
//!   never waits: what the peer has no room for is kept here, up to [`BACKLOG_BYTES_MAX`], and goes out in `progress`.
//! - Sending to a rank that is known to be dead is an error, and a rank that waits for one finds out within about
//!   [`LIVENESS_MS`]. Messages sent to a rank shortly before its death may be lost without an error.

mod error;
mod loopback;
mod mixed;
mod shm;
mod ucx;
mod watch;

pub use error::FabricError;
pub(crate) use loopback::Loopback;
pub(crate) use mixed::{Mixed, Side};
pub(crate) use shm::layout as shm_layout;
pub(crate) use shm::{Shm, ShmSpec};
pub(crate) use ucx::Ucx;
pub(crate) use ucx::{Listening, Pages, Target};

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::membership::Members;
use crate::message::{Faults, HandlerId, Handlers, Message, Sent, is_handling};
use crate::rank::Rank;
use crate::region::{Region, RemoteKey};
use crate::segment::Segment;
use crate::world::States;

/// How often a rank that waits asks the system whether its peers live, in milliseconds.
pub const LIVENESS_MS: u64 = 100;
/// Bytes kept for one peer of what handlers sent and it had no room for; a send beyond is [`FabricError::Backlog`].
pub const BACKLOG_BYTES_MAX: u64 = 1 << 30;

/// How bytes move between the ranks of one world.
pub struct Fabric {
    /// No other one of this process has it; from 1.
    number: u64,
    way: Way,
    handlers: Handlers,
    states: States,
    /// By rank its node, once the world has joined.
    nodes: OnceLock<Box<[u32]>>,
    members: Arc<Members>,
}

/// The ways bytes move.
pub(crate) enum Way {
    /// One rank, to itself.
    Loopback(Loopback),
    /// Ranks of one node, through shared memory.
    Shm(Shm),
    /// Ranks of any nodes, through a network.
    Ucx(Box<Ucx>),
    /// Ranks of several nodes: to those of its own through shared memory, to others through a network.
    Mixed(Box<Mixed>),
}

impl Way {
    /// What users call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Way::Loopback(_) => "loopback",
            Way::Shm(_) => "shm",
            Way::Ucx(_) => "ucx",
            Way::Mixed(_) => "shm+ucx",
        }
    }
}

/// What has become of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// It is there, as far as is known.
    Here,
    /// It has left in good order.
    Left,
    /// Its process has ended without leaving.
    Dead,
}

impl Fabric {
    pub(crate) fn new(way: Way) -> Fabric {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (handlers, states, nodes) = (Handlers::default(), States::default(), OnceLock::new());
        let members = match &way {
            Way::Loopback(_) => Arc::new(Members::new(Rank(0), 1)),
            Way::Shm(shm) => Arc::new(Members::new(shm.rank(), shm.size())),
            Way::Ucx(ucx) => Arc::clone(ucx.members()),
            Way::Mixed(mixed) => Arc::clone(mixed.network().members()),
        };
        Fabric { number, way, handlers, states, nodes, members }
    }

    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    pub(crate) fn states(&self) -> &States {
        &self.states
    }

    pub(crate) fn set_nodes(&self, nodes: Box<[u32]>) {
        self.nodes.get_or_init(|| nodes);
    }

    /// The node that a rank runs on, numbered from 0; `None` if there is no such rank.
    pub fn node_of(&self, rank: Rank) -> Option<u32> {
        self.nodes.get()?.get(rank.index()).copied()
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        match &self.way {
            Way::Loopback(_) => Rank(0),
            Way::Shm(shm) => shm.rank(),
            Way::Ucx(ucx) => ucx.rank(),
            Way::Mixed(mixed) => mixed.rank(),
        }
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        match &self.way {
            Way::Loopback(_) => 1,
            Way::Shm(shm) => shm.size(),
            Way::Ucx(ucx) => ucx.size(),
            Way::Mixed(mixed) => mixed.size(),
        }
    }

    /// Registers `handler` as the receiver of messages for `id` on this rank, in place of an earlier one. A message
    /// that comes before is counted in [`Fabric::faults`] and dropped: register, then pass a barrier, then send.
    ///
    /// A handler runs on the thread that makes progress; it may send, and must not wait.
    pub fn on(&self, id: HandlerId, handler: impl Fn(&Fabric, &Message<'_>) + Send + Sync + 'static) {
        self.handlers.set(id, std::sync::Arc::new(handler));
    }

    /// Sends `payload` to the handler `id` of rank `to`; the payload may be used again when it returns, the message
    /// is delivered when `to` makes progress.
    ///
    /// Waits while the peer's side is full, but not inside a handler. One copy on this side, none for a payload
    /// that fits into the header's cell or one block; larger ones are put together by the receiver.
    ///
    /// # Errors
    /// `NoSuchRank`, `TooLarge`; `PeerDead`, `PeerLeft`, `Unreachable`, where losses are survived `Lost`, `CastOut`;
    /// `Stalled` if the peer has made no room for the patience of the fabric; inside a handler `Backlog`.
    pub fn send(&self, to: Rank, id: HandlerId, tag: u64, payload: &[u8]) -> Result<(), FabricError> {
        self.send_as(to, id, tag, Sent::Lent(payload))
    }

    /// As [`Fabric::send`], but a large payload that goes through a network is not copied: it is read where it lies, as
    /// long as that takes, and given back then.
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn send_shared(
        &self,
        to: Rank,
        id: HandlerId,
        tag: u64,
        payload: &Arc<Vec<u8>>,
    ) -> Result<(), FabricError> {
        self.send_as(to, id, tag, Sent::Shared(payload))
    }

    /// As [`Fabric::send_shared`], of bytes that nobody else needs.
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn send_owned(&self, to: Rank, id: HandlerId, tag: u64, payload: Vec<u8>) -> Result<(), FabricError> {
        if payload.len() < Sent::SHARED_BYTES_MIN {
            return self.send(to, id, tag, &payload);
        }
        self.send_shared(to, id, tag, &Arc::new(payload))
    }

    fn send_as(&self, to: Rank, id: HandlerId, tag: u64, payload: Sent<'_>) -> Result<(), FabricError> {
        let size = self.size();
        if to.0 >= size {
            return Err(FabricError::NoSuchRank { rank: to, size });
        }
        let (bytes, max) = (payload.bytes().len() as u64, crate::message::PAYLOAD_BYTES_MAX);
        if bytes > max {
            return Err(FabricError::TooLarge { bytes, max });
        }
        match &self.way {
            Way::Loopback(loopback) => loopback.send(self, id, tag, payload.bytes()),
            Way::Shm(shm) => shm.send(self, to, id, tag, payload.bytes()),
            Way::Ucx(ucx) => ucx.send(self, to, id, tag, payload),
            Way::Mixed(mixed) => mixed.send(self, to, id, tag, payload),
        }
    }

    /// Moves communication on: sends what was kept, runs handlers for what has come, a bounded number of them.
    /// Returns how many ran. 0 inside a handler, and while another thread makes progress.
    pub fn progress(&self) -> usize {
        match &self.way {
            Way::Loopback(loopback) => loopback.progress(self),
            Way::Shm(shm) => shm.progress(self),
            Way::Ucx(ucx) => ucx.progress(self),
            Way::Mixed(mixed) => mixed.progress(self),
        }
    }

    /// As [`Fabric::progress`], but waits up to `timeout` for something to come: spins for about what a wake-up
    /// costs, then sleeps and uses no CPU. Returns 0 also when it was woken for another reason. Returns at once
    /// inside a handler.
    ///
    /// To be called again and again by who waits for what a handler does. Handlers run on other threads, too: it does
    /// not sleep if one has run since this thread's last call returned, nor in its first call.
    pub fn wait(&self, timeout: Duration) -> usize {
        if is_handling() {
            return 0;
        }
        let mut ran = self.progress();
        if ran == 0 {
            if let Some(seen) = seen(self.number) {
                self.sleep(timeout, seen);
            }
            ran = self.progress();
        }
        see(self.number, self.deliveries());
        ran
    }

    /// Sleeps until there is something to deliver, or handlers have run more often than `seen`.
    fn sleep(&self, timeout: Duration, seen: u64) {
        match &self.way {
            Way::Loopback(loopback) => loopback.sleep(timeout, seen),
            Way::Shm(shm) => shm.sleep(timeout, seen, shm.spins()),
            Way::Ucx(ucx) => ucx.sleep(timeout, seen),
            Way::Mixed(mixed) => mixed.sleep(timeout, seen),
        }
    }

    /// How often handlers have run, some at once counting as one time.
    fn deliveries(&self) -> u64 {
        match &self.way {
            Way::Loopback(loopback) => loopback.deliveries(),
            Way::Shm(shm) => shm.deliveries(),
            Way::Ucx(ucx) => ucx.deliveries(),
            Way::Mixed(mixed) => mixed.deliveries(),
        }
    }

    /// Waits until all that was sent is where the peers can take it, so that this rank may stop making progress.
    ///
    /// # Errors
    /// `PeerDead`, `PeerLeft`: what was kept for that peer is given up, the rest was sent. `Stalled`.
    pub fn flush(&self) -> Result<(), FabricError> {
        match &self.way {
            Way::Loopback(_) => Ok(()),
            Way::Shm(shm) => shm.flush(self),
            Way::Ucx(ucx) => ucx.flush(self),
            Way::Mixed(mixed) => mixed.flush(self),
        }
    }

    /// Zeroed memory of `bytes` (at least 1) that peers may put to and get from by its key.
    ///
    /// # Errors
    /// `Segment`, `Network` if the memory cannot be had.
    pub fn region(&self, bytes: u64) -> Result<Region, FabricError> {
        match &self.way {
            Way::Loopback(loopback) => Ok(loopback.regions().create(bytes)),
            Way::Shm(shm) => shm.regions().create(shm.rank(), bytes),
            Way::Ucx(ucx) => ucx.regions().create(ucx, ucx.rank(), bytes),
            Way::Mixed(mixed) => mixed.network().regions().create(mixed.network(), mixed.rank(), bytes),
        }
    }

    /// Lets peers read all of a segment by the key of what this returns, through the network, as long as that is there;
    /// afterwards they read zeros. Whether what they read is whole is theirs to find out. Offsets are the segment's.
    ///
    /// The segment is mapped once more; its memory goes with the last user of the segment all the same, its addresses
    /// stay taken for the life of the fabric. A network with RDMA may hold all of it in memory, also what is empty.
    ///
    /// # Errors
    /// `NoNetwork`; `Network` if it cannot be mapped or registered.
    pub fn show(&self, segment: &Segment) -> Result<Region, FabricError> {
        match &self.way {
            Way::Loopback(_) | Way::Shm(_) => Err(FabricError::NoNetwork),
            Way::Ucx(ucx) => ucx.regions().show(ucx, ucx.rank(), segment),
            Way::Mixed(mixed) => mixed.network().regions().show(mixed.network(), mixed.rank(), segment),
        }
    }

    /// Writes `bytes` at `offset` of a peer's region; the peer does nothing for it. Not atomic: who reads while
    /// this writes may see a part. What was put before a message was sent is seen by that message's handler.
    ///
    /// # Errors
    /// `RegionBounds`: nothing was written. `RegionGone`, `RegionForeign`, `PeerDead`, `Segment`; on a network
    /// `Network`, and `Stalled` if the owner makes no progress for the patience of the fabric.
    pub fn put(&self, key: &RemoteKey, offset: u64, bytes: &[u8]) -> Result<(), FabricError> {
        self.check_owner(key)?;
        match &self.way {
            Way::Loopback(loopback) => loopback.regions().put(key, offset, bytes),
            Way::Shm(shm) => shm.regions().put(key, offset, bytes),
            Way::Ucx(ucx) => ucx.regions().put(ucx, ucx.rank(), key, offset, bytes),
            Way::Mixed(mixed) => {
                mixed.network().regions().put(mixed.network(), mixed.rank(), key, offset, bytes)
            }
        }
    }

    /// Reads into `bytes` from `offset` of a peer's region. As [`Fabric::put`] otherwise.
    ///
    /// # Errors
    /// As those of [`Fabric::put`].
    pub fn get(&self, key: &RemoteKey, offset: u64, bytes: &mut [u8]) -> Result<(), FabricError> {
        self.check_owner(key)?;
        match &self.way {
            Way::Loopback(loopback) => loopback.regions().get(key, offset, bytes),
            Way::Shm(shm) => shm.regions().get(key, offset, bytes),
            Way::Ucx(_) | Way::Mixed(_) => self.get_all(key, &mut [(offset, bytes)]),
        }
    }

    /// Reads several pieces of a peer's region, each from its offset on, in no order among themselves. Through a
    /// network all are asked for at once and waited for together. As [`Fabric::get`] otherwise.
    ///
    /// # Errors
    /// As those of [`Fabric::put`].
    pub fn get_all(&self, key: &RemoteKey, reads: &mut [(u64, &mut [u8])]) -> Result<(), FabricError> {
        match &self.way {
            Way::Loopback(_) | Way::Shm(_) => {
                reads.iter_mut().try_for_each(|(offset, bytes)| self.get(key, *offset, bytes))
            }
            Way::Ucx(ucx) => {
                self.check_owner(key)?;
                ucx.regions().get(ucx, ucx.rank(), key, reads)
            }
            Way::Mixed(mixed) => {
                self.check_owner(key)?;
                mixed.network().regions().get(mixed.network(), mixed.rank(), key, reads)
            }
        }
    }

    /// What is known of a peer, at the cost of a load; [`Fabric::check_peers`] finds out.
    pub fn peer(&self, rank: Rank) -> PeerState {
        match self.way_peer(rank) {
            PeerState::Here if self.members.is_gone(rank) => PeerState::Dead,
            state => state,
        }
    }

    /// As [`Fabric::peer`], whatever rank 0 has decided.
    pub(crate) fn way_peer(&self, rank: Rank) -> PeerState {
        match &self.way {
            Way::Loopback(_) => PeerState::Here,
            Way::Shm(shm) => shm.peer(rank),
            Way::Ucx(ucx) => ucx.peer(rank),
            Way::Mixed(mixed) => mixed.peer(rank),
        }
    }

    /// Asks the system who lives (a system call for each peer), and cleans up after those found dead. Returns the
    /// dead ones, of now and of before, and those that the world has lost.
    pub fn check_peers(&self) -> Vec<Rank> {
        let mut dead = self.find_dead();
        if self.members.is_marked() {
            dead.extend((0..self.size()).map(Rank).filter(|&rank| self.peer(rank) == PeerState::Dead));
            dead.sort_unstable();
            dead.dedup();
        }
        dead
    }

    /// Bytes of shared memory that payloads on their way take, of all ranks together: a scan of the heap. On a network
    /// the bytes that this rank has sent and its peers have not taken.
    pub fn payload_bytes(&self) -> u64 {
        match &self.way {
            Way::Loopback(_) => 0,
            Way::Shm(shm) => shm.payload_bytes(),
            Way::Ucx(ucx) => ucx.payload_bytes(),
            Way::Mixed(mixed) => mixed.payload_bytes(),
        }
    }

    /// Bytes that this rank sent to and received from others through a network, headers included: 0 where there is
    /// none.
    pub fn network_bytes(&self) -> (u64, u64) {
        match &self.way {
            Way::Loopback(_) | Way::Shm(_) => (0, 0),
            Way::Ucx(ucx) => ucx.traffic(),
            Way::Mixed(mixed) => mixed.network().traffic(),
        }
    }

    /// What could not be delivered on this rank.
    pub fn faults(&self) -> Faults {
        Faults { stale: self.members.stale(), ..self.handlers.faults() }
    }

    /// An error if `rank` is known to be dead or to have left.
    pub(crate) fn expect_here(&self, rank: Rank) -> Result<(), FabricError> {
        match self.peer(rank) {
            PeerState::Here => Ok(()),
            PeerState::Left => Err(FabricError::PeerLeft { rank }),
            PeerState::Dead => Err(self.members.error_of(rank)),
        }
    }

    /// Says to all peers that this rank leaves.
    pub(crate) fn leave(&self) {
        match &self.way {
            Way::Loopback(_) => {}
            Way::Shm(shm) => shm.leave(),
            Way::Ucx(ucx) => ucx.leave(),
            Way::Mixed(mixed) => mixed.leave(),
        }
    }

    fn check_owner(&self, key: &RemoteKey) -> Result<(), FabricError> {
        let (rank, size) = (key.rank(), self.size());
        if rank.0 >= size {
            return Err(FabricError::NoSuchRank { rank, size });
        }
        self.expect_here(rank)
    }
}

/// Fabrics of which a thread remembers when it waited there, at most one of those whose numbers are so far apart.
const SEEN_MAX: usize = 16;

thread_local! {
    /// A fabric's number, and how often handlers had run there when this thread's last wait returned.
    static SEEN: [Cell<(u64, u64)>; SEEN_MAX] = const { [const { Cell::new((0, 0)) }; SEEN_MAX] };
}

/// How often handlers had run when this thread's last wait at a fabric returned.
fn seen(fabric: u64) -> Option<u64> {
    let (number, count) = SEEN.with(|seen| seen[fabric as usize % SEEN_MAX].get());
    (number == fabric).then_some(count)
}

/// Remembers it.
fn see(fabric: u64, count: u64) {
    SEEN.with(|seen| seen[fabric as usize % SEEN_MAX].set((fabric, count)));
}

/// When somebody who waits is to ask again who lives.
pub(crate) struct Liveness(Instant);

impl Liveness {
    pub(crate) fn new() -> Liveness {
        Liveness(Instant::now())
    }

    /// Whether [`LIVENESS_MS`] have gone by since this was last true.
    pub(crate) fn is_due(&mut self) -> bool {
        let is_due = self.0.elapsed() >= Duration::from_millis(LIVENESS_MS);
        if is_due {
            self.0 = Instant::now();
        }
        is_due
    }
}

/// How long somebody has waited for a peer.
struct Wait {
    looks: u32,
    liveness: Liveness,
    deadline: Deadline,
}

impl Wait {
    fn new(patience: Duration) -> Wait {
        Wait { looks: 0, liveness: Liveness::new(), deadline: Deadline::after(patience) }
    }
}

/// A point in time to which something waits; none if it is too far for the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// Time left; `None` when it is over.
    pub(crate) fn left(self) -> Option<Duration> {
        match self.0 {
            None => Some(Duration::MAX),
            Some(end) => end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()),
        }
    }
}
