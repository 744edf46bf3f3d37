//! Cases: memory of a peer, read and written without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::{barrier, pattern, until};
use crate::fabric::FabricError;
use crate::message::HandlerId;
use crate::rank::Rank;
use crate::region::{Region, RemoteKey};
use crate::wire;
use crate::world::World;

const BYTES: u64 = 100_000;

/// A region of each rank, and the keys of all.
fn regions(world: &World) -> (Region, Vec<RemoteKey>) {
    let region = world.region(BYTES).expect("there is memory");
    let key = wire::encode(region.key()).expect("a key can be written");
    let keys = world.all_gather(&key).expect("all are here");
    let keys = keys.iter().map(|key| wire::decode(key).expect("it was a key")).collect();
    (region, keys)
}

/// Each writes its part of each region and reads it back; each finds all parts in its own.
pub(super) fn put_and_get(world: &World) {
    let (region, keys) = regions(world);
    let size = u64::from(world.size());
    let part = BYTES / size;
    let own = u64::from(world.rank().0);
    let given = |from: u64, to: u64| pattern(from * size + to, part as usize);
    for (to, key) in (0..).zip(&keys) {
        assert_eq!((key.rank(), key.bytes()), (Rank(to as u32), BYTES));
        world.fabric().put(key, own * part, &given(own, to)).expect("it is inside");
        let mut back = vec![0; part as usize];
        world.fabric().get(key, own * part, &mut back).expect("it is inside");
        assert!(back == given(own, to), "what was put to rank {to} is not what is there");
    }
    barrier(world);
    for from in 0..size {
        let mut found = vec![0; part as usize];
        region.read(from * part, &mut found).expect("it is inside");
        assert!(found == given(from, own), "what rank {from} has put is not what is there");
    }
    region.write(0, b"by its owner").expect("it is inside");
    barrier(world);
    let mut read = [0; 12];
    world.fabric().get(&keys[(own as usize + 1) % keys.len()], 0, &mut read).expect("it is inside");
    assert_eq!(&read, b"by its owner");
    barrier(world);
}

/// A handler sees what was put before its message was sent.
pub(super) fn put_before_message(world: &World) {
    const ID: HandlerId = HandlerId(40);
    let (region, keys) = regions(world);
    let region = Arc::new(region);
    let (done, right) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let seen = (region.clone(), done.clone(), right.clone());
    world.on(ID, move |_, message| {
        let (region, done, right) = &seen;
        let mut bytes = vec![0; 50_000];
        region.read(message.tag, &mut bytes).expect("it is inside");
        right.store(bytes == pattern(7, 50_000), SeqCst);
        done.store(true, SeqCst);
    });
    barrier(world);
    let to = Rank((world.rank().0 + 1) % world.size());
    world.fabric().put(&keys[to.index()], 1000, &pattern(7, 50_000)).expect("it is inside");
    world.send(to, ID, 1000, &[]).expect("all are here");
    until(world, "the message", || done.load(SeqCst));
    assert!(right.load(SeqCst), "the handler did not see what was put");
    barrier(world);
    // The handler holds the region.
    world.on(ID, |_, _| {});
}

/// Beyond the end, after the end, and with a key of nobody.
pub(super) fn region_errors(world: &World) {
    let (region, keys) = regions(world);
    let next = &keys[(world.rank().index() + 1) % keys.len()];
    let fabric = world.fabric();
    for (offset, count) in [(BYTES, 1), (BYTES - 3, 4), (u64::MAX, 1), (u64::MAX - 1, 8)] {
        let put = fabric.put(next, offset, &vec![1; count]);
        let is_bounds = |error| matches!(error, Err(FabricError::RegionBounds { length: BYTES, .. }));
        assert!(is_bounds(put), "put of {count} at {offset}");
        assert!(is_bounds(fabric.get(next, offset, &mut vec![0; count])), "get of {count} at {offset}");
        assert!(is_bounds(region.read(offset, &mut vec![0; count])), "read of {count} at {offset}");
        assert!(is_bounds(region.write(offset, &vec![0; count])), "write of {count} at {offset}");
    }
    fabric.put(next, BYTES, &[]).expect("nothing fits everywhere");
    fabric.put(next, BYTES - 1, &[1]).expect("the last byte is inside");
    barrier(world);
    drop(region);
    barrier(world);
    let gone = fabric.get(next, 0, &mut [0]);
    assert!(matches!(gone, Err(FabricError::RegionGone { rank }) if rank == next.rank()), "{gone:?}");
    barrier(world);
}
