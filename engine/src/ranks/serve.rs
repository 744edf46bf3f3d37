//! How a program comes to its ranks, and what those do that do not run it.

use super::Ranks;
use super::clerk::{Clerk, Order};
use crate::error::Error;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tarragon_transport::{Bootstrap, Losses, PeerState, Rank, Spawn, World, WorldError, before_exit};

/// How long a rank that stops waits for what it runs.
const PARTING: Duration = Duration::from_secs(5);

/// Runs what rank 0 sends to this rank, until rank 0 [leaves](World::leave) the world. For programs in which every rank
/// comes to this point by itself; [`Batch::new`](crate::Batch::new) in a rank that a launcher started, and
/// [`Builder::spawn`](crate::Builder::spawn), do it for others.
///
/// # Errors
/// [`Error::RankLost`] if it ends because a rank died; [`Error::World`]; [`Error::ServesNot`] on rank 0;
/// [`Error::Threads`].
pub fn serve(world: &Arc<World>) -> Result<(), Error> {
    if world.rank() == Rank(0) {
        return Err(Error::ServesNot);
    }
    let ranks = Ranks::of(world)?;
    let Some(desk) = ranks.desk.lock().take() else { return Err(Error::ServesNot) };
    let clerk = Clerk::new(&ranks);
    // Nothing is sent: that the other end is gone says that the clerk has ended.
    let (at_work, is_at_work) = channel::<()>();
    let work = move || {
        let _at_work = at_work;
        clerk.work(&desk);
    };
    let thread = std::thread::Builder::new().name("tarragon-clerk".to_string()).spawn(work);
    let thread = thread.map_err(|e| Error::Threads { threads: 1, source: Box::new(e) })?;
    ranks.listener.get_or_init(std::thread::current);
    let mut last = Instant::now();
    while !ranks.is_stopped.load(Ordering::Acquire) && world.peer(Rank(0)) == PeerState::Here {
        // A rank that is lost is for home to act on, unless it is home.
        ranks.listen(&mut last);
        if thread.is_finished() {
            break;
        }
    }
    let _ = ranks.orders.send(Order::Stop);
    // A body that does not ask whether it is cancelled keeps the clerk, but not the rank.
    let _ = is_at_work.recv_timeout(PARTING);
    ranks.check()
}

/// The world of this process, if it is one that this crate has joined for it.
static OURS: Mutex<Option<Arc<World>>> = Mutex::new(None);

/// The ranks that a launcher started this process among; `None` if it is alone, or its program has joined that world
/// itself. On other ranks than 0 it does not return.
pub(crate) fn of_environment(losses: Losses) -> Result<Option<Arc<Ranks>>, Error> {
    let mut ours = OURS.lock();
    if let Some(world) = &*ours {
        return Ranks::of(world).map(Some);
    }
    let bootstrap = Bootstrap::from_environment();
    if !matches!(bootstrap, Bootstrap::Launched(_)) {
        return Ok(None);
    }
    let world = match World::join_with(&bootstrap, losses) {
        Ok(world) => world,
        Err(WorldError::Taken { .. }) => return Ok(None),
        Err(error) => return Err(Error::World(Box::new(error))),
    };
    take_part(world, &mut ours).map(Some)
}

/// As many ranks of this node, which this program starts as copies of itself; those of a launch if there is one.
pub(crate) fn of_spawn(size: u32, losses: Losses) -> Result<Arc<Ranks>, Error> {
    if let Some(ranks) = of_environment(losses)? {
        return Ok(ranks);
    }
    let mut ours = OURS.lock();
    if let Some(world) = &*ours {
        return Ranks::of(world);
    }
    let world = World::join_with(&Bootstrap::Spawn(Spawn::new(size)), losses)
        .map_err(|error| Error::World(Box::new(error)))?;
    take_part(world, &mut ours)
}

/// On rank 0 the ranks, who are told when the program ends; on others this does not return.
fn take_part(world: World, ours: &mut Option<Arc<World>>) -> Result<Arc<Ranks>, Error> {
    let world = Arc::new(world);
    if world.rank() == Rank(0) {
        let leaving = Arc::clone(&world);
        before_exit(move || {
            // Who cannot be told finds out by the end of this process.
            let _ = leaving.leave();
        });
        *ours = Some(Arc::clone(&world));
        return Ranks::of(&world);
    }
    let served = serve(&world);
    if let Err(error) = &served {
        tracing::error!(target: "tarragon", rank = world.rank().0, %error, "stops serving");
    } else {
        let _ = world.leave();
    }
    std::process::exit(i32::from(served.is_err()))
}
