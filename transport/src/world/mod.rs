//! All processes that work together: who this one is, messages to the others, and what they do together.

mod attendants;
mod collective;
mod error;
mod group;
mod library;
mod network;
mod request;
mod slice;
mod watch;

pub use error::{Stranger, WorldError};
pub use group::{Group, GroupError, MAIL_BYTES_MAX};
pub use library::Install;
pub(crate) use library::States;
pub use request::Request;

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bootstrap::{Bootstrap, Children, Joined, Roster, Spawn};
use crate::fabric::{Deadline, Fabric, FabricError, PeerState, Way};
use crate::membership::{CastOut, Change, Loss, Losses};
use crate::message::{HandlerId, Message};
use crate::rank::Rank;
use crate::region::Region;
use attendants::Attendants;
use collective::Collective;
use watch::Watch;

/// How often rank 0 looks whether the processes it waits for have ended, in milliseconds.
const END_LOOK_MS: u64 = 5;
/// How long a collective call waits for the others, unless it says so itself.
const COLLECTIVE_TIMEOUT: Duration = Duration::from_secs(3600);

/// This process's place among those that work together.
///
/// When it is dropped without [`World::leave`], the processes that it started are killed and waited for, and the peers
/// find out that it is gone. To be shared by threads as it is.
///
/// ```
/// use tarragon_transport::{HandlerId, Rank, World};
///
/// let world = World::solo();
/// let (heard, hear) = std::sync::mpsc::channel();
/// world.on(HandlerId(1), move |_, message| heard.send(message.payload.to_vec()).expect("still here"));
/// world.send(Rank(0), HandlerId(1), 0, b"hello")?;
/// while world.progress() == 0 {}
/// assert_eq!(hear.recv()?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct World {
    /// Ends before anything else does: who stops giving signs has left, or is lost.
    watch: Mutex<Option<Watch>>,
    /// End next.
    attendants: Mutex<Option<Attendants>>,
    /// What is done before this rank leaves.
    farewells: Mutex<Vec<Farewell>>,
    fabric: Arc<Fabric>,
    collective: Arc<Collective>,
    children: Mutex<Children>,
    /// The number that no other world has.
    uid: u128,
    /// Dropped after the fabric: the launcher is told last.
    roster: Roster,
}

type Farewell = Box<dyn FnOnce(&Fabric) + Send>;

/// How a process that was a rank has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RankEnd {
    /// Who it was.
    pub rank: Rank,
    /// Its exit status: a code, or the signal that killed it.
    pub status: ExitStatus,
}

impl World {
    /// A world of this process alone.
    pub fn solo() -> World {
        let mut world =
            World::new(Joined::solo(Fabric::new(Way::Loopback(crate::fabric::Loopback::direct()))));
        world.enter(crate::segment::random().unwrap_or_default(), Losses::from_environment());
        world
    }

    /// A world of `size` ranks on this node: this program, which becomes rank 0, starts copies of itself with the
    /// same arguments; in a copy the same call joins as the rank that it was started as. Returns when all have joined.
    ///
    /// So all that comes before this call is done by each rank anew, and a program makes the call once. The copies are
    /// killed when the first process ends, however it ends.
    ///
    /// # Errors
    /// See [`World::join`].
    pub fn spawn(size: u32) -> Result<World, WorldError> {
        World::join(&Bootstrap::Spawn(Spawn::new(size)))
    }

    /// The world that this process was started in: all processes of one `mpirun` (Open MPI, MPICH) or one `srun` with
    /// `--mpi=pmix` or `--mpi=pmi2`, or this process alone. Returns when all have joined, in a minute at most.
    ///
    /// # Errors
    /// See [`World::join`].
    pub fn from_environment() -> Result<World, WorldError> {
        World::join(&Bootstrap::from_environment())
    }

    /// A world that comes about as `bootstrap` says.
    ///
    /// # Errors
    /// `Ranks`, `Start`, `EndedEarly`, `JoinTimeout`, `Refused`: nobody is left running. In a copy: `Stranger`,
    /// `Size`, `Twice`, `Failed`, `Environment`. In a rank that a launcher started: `NoPmix`, `Pmix`, `Pmi`,
    /// `LaunchTimeout`, `Taken`, `Ranks`, `Environment`; and at all of them at once `Strangers`, `Elsewhere`; on
    /// several machines `NoWay`. `Fabric` (for a network with `NoLibrary`, `Network`; then `Elsewhere` at the others),
    /// `System`.
    pub fn join(bootstrap: &Bootstrap) -> Result<World, WorldError> {
        World::join_with(bootstrap, Losses::from_environment())
    }

    /// As [`World::join`]; `losses` says what happens when a rank is lost. All ranks do as rank 0 says.
    ///
    /// # Errors
    /// See [`World::join`].
    pub fn join_with(bootstrap: &Bootstrap, losses: Losses) -> Result<World, WorldError> {
        let begin = Instant::now();
        let mut world = World::new(bootstrap.join()?);
        if let Bootstrap::Spawn(spawn) = bootstrap
            && let Some(patience) = spawn.network_patience()
        {
            world = world.over_network(patience)?;
        }
        world.attendants = Mutex::new(Some(Attendants::start(&world.fabric)?));
        let system = |source| WorldError::System { verb: "draw a random number", source };
        let drawn = crate::segment::random().map_err(system)?.to_le_bytes();
        // All take the number that rank 0 drew, and what it says of losses.
        let drawn = [&drawn[..], &losses.encode()].concat();
        let told = match world.fabric.way() {
            _ if world.size() == 1 => drawn,
            Way::Mixed(_) | Way::Ucx(_) => world.meet(&drawn, bootstrap.time_left(begin))?,
            Way::Shm(_) | Way::Loopback(_) => world.broadcast_bytes(Rank(0), &drawn)?,
        };
        let (uid, said) = told.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        world.enter(u128::from_le_bytes(*uid), Losses::decode(said).unwrap_or(losses));
        world.watch = Mutex::new(Some(Watch::start(&world.fabric)?));
        if world.fabric.survives_losses() {
            // To a launcher that knows a rank until it leaves, the death of one is the end of all.
            world.roster.close();
        }
        Ok(world)
    }

    /// From now on libraries find it by this number.
    fn enter(&mut self, uid: u128, losses: Losses) {
        self.uid = uid;
        let host = |rank| self.roster.host(rank).unwrap_or_default().to_owned();
        self.fabric.members().begin(losses, self.ranks().map(host).collect());
        self.fabric.set_nodes(self.ranks().map(|rank| self.roster.node_of(rank).unwrap_or(0)).collect());
        library::enter(uid, &self.fabric);
    }

    fn new(joined: Joined) -> World {
        let Joined { fabric, roster, children } = joined;
        let collective = Collective::register(&fabric);
        let fabric = Arc::new(fabric);
        library::register(&fabric);
        request::register(&fabric);
        group::register(&fabric);
        World {
            watch: Mutex::default(),
            attendants: Mutex::default(),
            farewells: Mutex::default(),
            fabric,
            collective,
            children: Mutex::new(children),
            uid: 0,
            roster,
        }
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.fabric.rank()
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.fabric.size()
    }

    /// All ranks.
    pub fn ranks(&self) -> impl Iterator<Item = Rank> + use<> {
        (0..self.size()).map(Rank)
    }

    /// The ranks of this node, this one among them: those that can share memory with it.
    pub fn node_ranks(&self) -> Vec<Rank> {
        self.roster.node_ranks()
    }

    /// How many nodes the ranks run on.
    pub fn nodes(&self) -> u32 {
        self.roster.nodes()
    }

    /// The name of the machine that a rank runs on; `None` if there is no such rank.
    pub fn host(&self, rank: Rank) -> Option<&str> {
        self.roster.host(rank)
    }

    /// The ranks of each node that come first there, by node: one for each node.
    pub fn node_leaders(&self) -> Vec<Rank> {
        self.roster.node_leaders()
    }

    /// The number that no other world has, the same at all its ranks.
    pub fn uid(&self) -> u128 {
        self.uid
    }

    /// As [`World::fabric`], to be kept. It outlives the world; then nothing can be sent or received any more.
    pub fn shared_fabric(&self) -> Arc<Fabric> {
        Arc::clone(&self.fabric)
    }

    /// How bytes move here.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// See [`Fabric::on`]. Handlers from [`HandlerId::RESERVED`] on are the world's own.
    ///
    /// # Panics
    /// If `id` is reserved.
    pub fn on(&self, id: HandlerId, handler: impl Fn(&Fabric, &Message<'_>) + Send + Sync + 'static) {
        assert!(id < HandlerId::RESERVED, "handler {} is reserved", id.0);
        self.fabric.on(id, handler);
    }

    /// See [`Fabric::send`].
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn send(&self, to: Rank, id: HandlerId, tag: u64, payload: &[u8]) -> Result<(), FabricError> {
        self.fabric.send(to, id, tag, payload)
    }

    /// See [`Fabric::send_shared`].
    ///
    /// # Errors
    /// Those of [`Fabric::send_shared`].
    pub fn send_shared(
        &self,
        to: Rank,
        id: HandlerId,
        tag: u64,
        payload: &Arc<Vec<u8>>,
    ) -> Result<(), FabricError> {
        self.fabric.send_shared(to, id, tag, payload)
    }

    /// See [`Fabric::progress`].
    pub fn progress(&self) -> usize {
        self.fabric.progress()
    }

    /// See [`Fabric::wait`].
    pub fn wait(&self, timeout: Duration) -> usize {
        self.fabric.wait(timeout)
    }

    /// See [`Fabric::region`].
    ///
    /// # Errors
    /// Those of [`Fabric::region`].
    pub fn region(&self, bytes: u64) -> Result<Region, FabricError> {
        self.fabric.region(bytes)
    }

    /// The process of a rank that this process started and that still runs.
    pub fn pid(&self, rank: Rank) -> Option<u32> {
        self.lock_children().pid(rank)
    }

    /// Returns when all ranks have called it. Handlers run meanwhile. What a rank sent to another before is delivered
    /// there when the call returns.
    ///
    /// # Errors
    /// `Fabric` with `PeerDead` or `PeerLeft` if a rank that has not come is gone; `Timeout` after an hour; `Order`.
    pub fn barrier(&self) -> Result<(), WorldError> {
        self.barrier_timeout(COLLECTIVE_TIMEOUT)
    }

    /// As [`World::barrier`], for as long as `timeout`. After `Timeout` this rank is still in the barrier: the next
    /// call goes on with it.
    ///
    /// # Errors
    /// Those of [`World::barrier`].
    pub fn barrier_timeout(&self, timeout: Duration) -> Result<(), WorldError> {
        self.collective.barrier(&self.fabric, timeout)
    }

    /// Returns `root`'s bytes at every rank; those of the others are not looked at. All must call it, in the same
    /// order as their other collective calls. For small things, such as descriptors.
    ///
    /// # Errors
    /// Those of [`World::barrier`].
    pub fn broadcast_bytes(&self, root: Rank, bytes: &[u8]) -> Result<Vec<u8>, WorldError> {
        self.collective.broadcast(&self.fabric, root, bytes, COLLECTIVE_TIMEOUT)
    }

    /// Returns every rank's bytes, in the order of ranks, at every rank. As [`World::broadcast_bytes`] otherwise.
    ///
    /// # Errors
    /// Those of [`World::barrier`].
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, WorldError> {
        self.collective.all_gather(&self.fabric, bytes, COLLECTIVE_TIMEOUT)
    }

    /// Has `farewell` called when this rank leaves, before anything else: to tell those who would wait for it for ever.
    pub fn before_leaving(&self, farewell: impl FnOnce(&Fabric) + Send + 'static) {
        self.farewells.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(farewell));
    }

    /// Leaves: what was sent goes out first. The process that started the others waits for them to end, as long as it
    /// takes, goes on delivering messages meanwhile, and returns how each ended; the others return nothing. Afterwards
    /// nothing can be sent or received any more; leaving again does nothing.
    ///
    /// # Errors
    /// `Fabric` if something that was sent could not go out, which concerns nobody who has left; all else was done.
    pub fn leave(&self) -> Result<Vec<RankEnd>, WorldError> {
        self.leave_timeout(Duration::MAX)
    }

    /// As [`World::leave`], but waits for the others no longer than `timeout`.
    ///
    /// # Errors
    /// Those of [`World::leave`], and `Lingering`: those who had not ended were killed.
    pub fn leave_timeout(&self, timeout: Duration) -> Result<Vec<RankEnd>, WorldError> {
        let farewells = std::mem::take(&mut *self.farewells.lock().unwrap_or_else(PoisonError::into_inner));
        farewells.into_iter().for_each(|farewell| farewell(&self.fabric));
        let flushed = match self.fabric.flush() {
            Err(FabricError::PeerLeft { .. } | FabricError::Lost(_)) => Ok(()),
            other => other,
        };
        let deadline = Deadline::after(timeout);
        while !self.lock_children().look() {
            if deadline.left().is_none() {
                let ranks = self.lock_children().running();
                self.depart();
                return Err(WorldError::Lingering { ranks, waited_ms: timeout.as_millis() as u64 });
            }
            self.fabric.wait(Duration::from_millis(END_LOOK_MS));
        }
        self.depart();
        flushed?;
        Ok(self.lock_children().ended())
    }

    /// Says that this rank leaves. Nobody looks any more.
    fn depart(&self) {
        drop(self.watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.attendants.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.fabric.leave();
        self.roster.close();
    }

    /// What is known of a peer; see [`Fabric::check_peers`] to find out.
    pub fn peer(&self, rank: Rank) -> PeerState {
        self.fabric.peer(rank)
    }

    /// See [`Fabric::losses`].
    pub fn losses(&self) -> Vec<Loss> {
        self.fabric.losses()
    }

    /// See [`Fabric::on_change`].
    pub fn on_change(&self, listener: impl Fn(&Fabric, &Change) + Send + Sync + 'static) {
        self.fabric.on_change(listener);
    }

    /// See [`Fabric::cast_out`].
    pub fn cast_out(&self) -> Option<CastOut> {
        self.fabric.cast_out()
    }

    fn lock_children(&self) -> std::sync::MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line for a program to begin its output with: `ranks 4 nodes 1 fabric shm`.
impl std::fmt::Display for World {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fabric = self.fabric.way().name();
        write!(out, "ranks {} nodes {} fabric {fabric}", self.size(), self.nodes())
    }
}
