//! Cases: each message comes once, whole, in order, from wherever it is sent.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use xxhash_rust::xxh3::xxh3_64;

use super::{Tally, barrier, pattern, until};
use crate::message::HandlerId;
use crate::rank::Rank;
use crate::world::World;

/// Many messages of mixed sizes from each rank to each come in the order they were sent.
pub(super) fn once_and_in_order(world: &World) {
    const COUNT: u64 = 500;
    const ID: HandlerId = HandlerId(10);
    let next: Arc<Vec<AtomicU64>> = Arc::new(world.ranks().map(|_| AtomicU64::new(0)).collect());
    let wrong = Arc::new(Mutex::new(None));
    let (expected, first_wrong) = (next.clone(), wrong.clone());
    world.on(ID, move |_, message| {
        let wanted = expected[message.source.index()].fetch_add(1, SeqCst);
        let whole =
            message.payload.len() == size_of(wanted) && message.payload.iter().all(|&it| it == wanted as u8);
        if message.tag != wanted || !whole {
            let mut wrong = first_wrong.lock().expect("nobody panics with it");
            wrong.get_or_insert((message.source, wanted, message.tag, message.payload.len()));
        }
    });
    barrier(world);
    for tag in 0..COUNT {
        let payload = vec![tag as u8; size_of(tag)];
        world.ranks().for_each(|to| world.send(to, ID, tag, &payload).expect("all are here"));
    }
    until(world, "the last message of each", || next.iter().all(|count| count.load(SeqCst) >= COUNT));
    barrier(world);
    let counts: Vec<u64> = next.iter().map(|count| count.load(SeqCst)).collect();
    assert_eq!(counts, vec![COUNT; world.size() as usize]);
    let wrong = wrong.lock().expect("nobody panics with it");
    assert_eq!(*wrong, None, "source, wanted, found tag and bytes");

    /// Inline ones, blocks, and now and then chunks.
    fn size_of(tag: u64) -> usize {
        [0, 8, 80, 81, 4096, 70_000][tag as usize % 6] + if tag.is_multiple_of(125) { 2 << 20 } else { 0 }
    }
}

/// Payloads that are shared, from each rank to each, come whole, among others that are lent, and are given back.
pub(super) fn shared_payloads(world: &World) {
    const ID: HandlerId = HandlerId(17);
    const SIZES: &[usize] = &[0, 9, 4096, 4097, 70_000, 3 << 20];
    let (came, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, first_wrong) = (came.clone(), wrong.clone());
    world.on(ID, move |_, message| {
        let is_whole = message.payload.iter().all(|&it| it == message.tag as u8);
        let is_wrong = !is_whole || message.payload.len() != SIZES[message.tag as usize % SIZES.len()];
        first_wrong.fetch_add(u64::from(is_wrong), SeqCst);
        count.fetch_add(1, SeqCst);
    });
    barrier(world);
    let mut shared = Vec::new();
    for tag in 0..2 * SIZES.len() as u64 {
        let payload = Arc::new(vec![tag as u8; SIZES[tag as usize % SIZES.len()]]);
        for to in world.ranks() {
            world.send_shared(to, ID, tag, &payload).expect("all are here");
            world.send(to, ID, tag, &payload).expect("all are here");
        }
        shared.push(payload);
    }
    let all = 4 * SIZES.len() as u64 * u64::from(world.size());
    until(world, "all payloads", || came.load(SeqCst) == all);
    until(world, "the payloads back", || shared.iter().all(|payload| Arc::strong_count(payload) == 1));
    barrier(world);
    assert_eq!((came.load(SeqCst), wrong.load(SeqCst)), (all, 0));
}

/// Sizes around each limit, up to 64 MiB, from each rank to the next.
pub(super) fn all_sizes(world: &World) {
    const ID: HandlerId = HandlerId(11);
    const SIZES: &[usize] = &[
        0,
        1,
        7,
        8,
        9,
        79,
        80,
        81,
        112,
        113,
        4095,
        4096,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (1 << 20) + 1,
        3 << 20,
        64 << 20,
    ];
    let found: Arc<Mutex<Vec<(u64, usize, u64)>>> = Arc::default();
    let list = found.clone();
    world.on(ID, move |_, message| {
        let what = (message.tag, message.payload.len(), xxh3_64(message.payload));
        list.lock().expect("nobody panics with it").push(what);
    });
    barrier(world);
    let to = Rank((world.rank().0 + 1) % world.size());
    let mut wanted = Vec::new();
    for (tag, &bytes) in (0_u64..).zip(SIZES) {
        let payload = pattern(tag, bytes);
        wanted.push((tag, bytes, xxh3_64(&payload)));
        world.send(to, ID, tag, &payload).expect("all are here");
    }
    until(world, "the largest message", || found.lock().expect("nobody panics").len() >= SIZES.len());
    assert_eq!(*found.lock().expect("nobody panics with it"), wanted, "tag, bytes, hash");
    barrier(world);
}

/// All send to all at once.
pub(super) fn all_to_all(world: &World) {
    const COUNT: u64 = 2000;
    const ID: HandlerId = HandlerId(12);
    let tally = Tally::register(world, ID);
    for tag in 0..COUNT {
        world.ranks().for_each(|to| world.send(to, ID, tag, &tag.to_le_bytes()).expect("all are here"));
    }
    let size = u64::from(world.size());
    tally.expect(world, COUNT * size, size * COUNT * (COUNT - 1) / 2);
}

/// More to itself than a lane has room for.
pub(super) fn to_itself(world: &World) {
    const COUNT: u64 = 5000;
    const ID: HandlerId = HandlerId(13);
    let tally = Tally::register(world, ID);
    for tag in 0..COUNT {
        world.send(world.rank(), ID, tag, &[1; 200][..(tag % 200) as usize]).expect("it is here");
    }
    tally.expect(world, COUNT, COUNT * (COUNT - 1) / 2);
}

/// Threads of one rank send, and make progress, at once.
pub(super) fn several_threads(world: &World) {
    const COUNT: u64 = 1000;
    const THREADS: u64 = 3;
    const ID: HandlerId = HandlerId(14);
    let tally = Tally::register(world, ID);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for tag in 0..COUNT {
                    let to = Rank(((tag + thread) % u64::from(world.size())) as u32);
                    let payload = [7; 300];
                    let bytes = if tag % 3 == 0 { 300 } else { 30 };
                    world.send(to, ID, tag, &payload[..bytes]).expect("all are here");
                    if tag % 7 == 0 {
                        world.progress();
                    }
                }
            });
        }
    });
    // Who gets how many depends on the size; together it is all of them.
    barrier(world);
    let count = tally.count().to_le_bytes();
    let counts = world.all_gather(&count).expect("all are here");
    let all: u64 = counts.iter().map(|it| u64::from_le_bytes(it[..].try_into().expect("8 bytes"))).sum();
    assert_eq!(all, COUNT * THREADS * u64::from(world.size()));
    barrier(world);
}

/// A message that goes round all ranks, sent on by handlers.
pub(super) fn handlers_send(world: &World) {
    const ROUNDS: u64 = 200;
    const ID: HandlerId = HandlerId(15);
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    world.on(ID, move |fabric, message| {
        count.fetch_add(1, SeqCst);
        if message.tag > 0 {
            let to = Rank((fabric.rank().0 + 1) % fabric.size());
            fabric.send(to, ID, message.tag - 1, message.payload).expect("all are here");
        }
    });
    barrier(world);
    let hops = ROUNDS * u64::from(world.size());
    let to = Rank((world.rank().0 + 1) % world.size());
    world.send(to, ID, hops - 1, b"round and round").expect("all are here");
    until(world, "the last hop", || seen.load(SeqCst) >= hops);
    barrier(world);
    assert_eq!(seen.load(SeqCst), hops);
}
