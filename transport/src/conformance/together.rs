//! Cases: what all ranks do together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::{PATIENCE, barrier};
use crate::message::HandlerId;
use crate::rank::Rank;
use crate::world::{World, WorldError};

/// What was sent before a barrier has been delivered after it.
pub(super) fn barriers_hold(world: &World) {
    const ID: HandlerId = HandlerId(30);
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    world.on(ID, move |_, _| {
        count.fetch_add(1, SeqCst);
    });
    barrier(world);
    for round in 1..=50 {
        world.ranks().for_each(|to| world.send(to, ID, round, &[0; 500]).expect("all are here"));
        barrier(world);
        let size = u64::from(world.size());
        assert!(
            seen.load(SeqCst) >= round * size,
            "round {round}: {} of {}",
            seen.load(SeqCst),
            round * size
        );
        barrier(world);
    }
}

/// A barrier that timed out is gone on with by the next call.
pub(super) fn barrier_resumes(world: &World) {
    const ID: HandlerId = HandlerId(31);
    let go = Arc::new(AtomicU64::new(0));
    let went = go.clone();
    world.on(ID, move |_, _| {
        went.fetch_add(1, SeqCst);
    });
    barrier(world);
    let late = Rank(world.size() - 1);
    let others = u64::from(late.0);
    if world.rank() == late {
        super::until(world, "the others' failure", || go.load(SeqCst) >= others);
    } else {
        let met = world.barrier_timeout(Duration::from_millis(20));
        assert!(matches!(met, Err(WorldError::Timeout { .. })), "{met:?}");
        world.send(late, ID, 0, &[]).expect("all are here");
    }
    barrier(world);
    barrier(world);
}

/// Each gets what each gave, and all get what one gave.
pub(super) fn gather_and_broadcast(world: &World) {
    let own = |rank: Rank| vec![rank.0 as u8; 100 * rank.index()];
    for round in 0..20 {
        let all = world.all_gather(&own(world.rank())).expect("all are here");
        assert_eq!(all, world.ranks().map(own).collect::<Vec<_>>());
        let root = Rank(round % world.size());
        let mine = format!("{round} of {}", world.rank());
        let told = world.broadcast_bytes(root, mine.as_bytes()).expect("all are here");
        assert_eq!(String::from_utf8_lossy(&told), format!("{round} of {root}"));
    }
    barrier(world);
}

/// Two ranks in different calls find that out.
pub(super) fn order_is_checked(world: &World) {
    if world.size() == 1 {
        return;
    }
    // The barrier of rank 0 meets the gathering of the others; both then know, and both calls are given up for the
    // ones that are meant.
    barrier(world);
    let wrong =
        if world.rank().0 == 0 { world.barrier_timeout(PATIENCE).err() } else { world.all_gather(&[]).err() };
    let named = matches!(wrong, Some(WorldError::Order { rank }) if rank != world.rank());
    assert!(named, "{wrong:?}");
}
