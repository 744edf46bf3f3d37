//! Cases: more than there is room for, what is wrong, and a peer that dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use super::{PATIENCE, Tally, barrier, until};
use crate::fabric::{FabricError, PeerState};
use crate::message::HandlerId;
use crate::rank::Rank;
use crate::world::{Group, GroupError, MAIL_BYTES_MAX, World, WorldError};

/// Of what ranks send while one dies.
const DEATH: HandlerId = HandlerId(26);

/// One message makes a handler send many more than a lane holds, large ones among them.
pub(super) fn handlers_send_much(world: &World) {
    const COUNT: u64 = 3000;
    const ASK: HandlerId = HandlerId(20);
    const ANSWER: HandlerId = HandlerId(21);
    let bytes = Arc::new(AtomicU64::new(0));
    let sum = bytes.clone();
    world.on(ANSWER, move |_, message| {
        sum.fetch_add(message.payload.len() as u64 + message.tag, SeqCst);
    });
    world.on(ASK, move |fabric, message| {
        let payload = vec![3; 3 << 20];
        for tag in 0..COUNT {
            let size = if tag == COUNT / 2 { payload.len() } else { (tag % 200) as usize };
            fabric.send(message.source, ANSWER, tag, &payload[..size]).expect("the asker is here");
        }
    });
    barrier(world);
    world.ranks().for_each(|to| world.send(to, ASK, 0, &[]).expect("all are here"));
    let sizes: u64 = (0..COUNT).map(|tag| if tag == COUNT / 2 { 3 << 20 } else { tag % 200 }).sum();
    let wanted = u64::from(world.size()) * (sizes + COUNT * (COUNT - 1) / 2);
    until(world, "the last answer", || bytes.load(SeqCst) >= wanted);
    world.fabric().flush().expect("all are here");
    barrier(world);
    assert_eq!(bytes.load(SeqCst), wanted);
}

/// All fill the others' sides without a look at their own.
pub(super) fn full_both_ways(world: &World) {
    const COUNT: u64 = 20_000;
    const ID: HandlerId = HandlerId(22);
    let tally = Tally::register(world, ID);
    for to in world.ranks() {
        (0..COUNT).for_each(|tag| world.send(to, ID, tag, &[9; 100]).expect("all are here"));
    }
    let size = u64::from(world.size());
    tally.expect(world, size * COUNT, size * COUNT * (COUNT - 1) / 2);
}

/// More large payloads than the heap holds, both ways.
pub(super) fn large_both_ways(world: &World) {
    const COUNT: u64 = 12;
    const ID: HandlerId = HandlerId(23);
    let tally = Tally::register(world, ID);
    let payload = vec![5; (9 << 20) + 5];
    for tag in 0..COUNT {
        world.ranks().for_each(|to| world.send(to, ID, tag, &payload).expect("all are here"));
    }
    let size = u64::from(world.size());
    tally.expect(world, size * COUNT, size * COUNT * (COUNT - 1) / 2);
}

/// A message for nobody is counted and told, and what comes after it arrives.
pub(super) fn unknown_handler(world: &World) {
    const NOBODY: HandlerId = HandlerId(0xBAD);
    const ID: HandlerId = HandlerId(24);
    let before = world.fabric().faults().unknown_handlers;
    let tally = Tally::register(world, ID);
    let to = Rank((world.rank().0 + 1) % world.size());
    let from = Rank((world.rank().0 + world.size() - 1) % world.size());
    for payload in [&b"short"[..], &[0; 1000]] {
        world.send(to, NOBODY, 1, payload).expect("that nobody is there is known there");
    }
    world.send(to, ID, 1, b"after").expect("all are here");
    tally.expect(world, 1, 1);
    let faults = world.fabric().faults();
    assert_eq!(faults.unknown_handlers, before + 2);
    assert_eq!(faults.last_unknown, Some((from, NOBODY)));
    assert_eq!(faults.malformed, 0);
    barrier(world);
}

/// Ranks that do not exist.
pub(super) fn wrong_arguments(world: &World) {
    let (nobody, size) = (Rank(world.size()), world.size());
    let sent = world.send(nobody, HandlerId(25), 0, &[]);
    assert!(
        matches!(sent, Err(FabricError::NoSuchRank { rank, size: said }) if rank == nobody && said == size)
    );
    let told = world.broadcast_bytes(nobody, &[]);
    assert!(matches!(told, Err(WorldError::Fabric(FabricError::NoSuchRank { .. }))));
    barrier(world);
}

/// The last rank ends by `die` while all others send to it; each of them gets an error that names it, from a send,
/// from a flush, and from a barrier, and none waits for ever. The survivors can go on talking.
///
/// # Panics
/// If that does not hold.
pub fn death(world: &World, die: impl FnOnce()) {
    let tally = Tally::register(world, DEATH);
    let victim = Rank(world.size() - 1);
    let ranks: Vec<Rank> = world.ranks().collect();
    let group = Group::new(&world.shared_fabric(), 6 << 40, &ranks, world.rank().0);
    barrier(world);
    if world.rank() == victim {
        let full = u64::from(victim.0) * MAIL_BYTES_MAX * 9 / 10;
        let is_late = || tally.count() > 100 && group.mail_bytes() >= full;
        until(world, "the first messages", is_late);
        die();
        unreachable!("a dead rank goes on");
    }
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| wait_for_the_dead(&group, victim));
        meet_death(world, victim);
        waits.join().expect("no panic");
    });
    let payload = vec![1; 300_000];
    let others = u64::from(victim.0);
    world.ranks().filter(|&to| to != victim).for_each(|to| {
        world.send(to, DEATH, 0, &payload).expect("the survivors are here");
    });
    until(world, "the survivors' messages", || tally.count() >= others);
}

/// Fills the mail of one that dies, and hears of whom.
fn wait_for_the_dead(group: &Group, victim: Rank) {
    let begin = Instant::now();
    let is_late = || begin.elapsed() > PATIENCE;
    let fill = vec![7; 64 << 10];
    let error = (0..1 << 20).find_map(|_| group.send(victim.0, 1, &fill, &is_late).err());
    let named = matches!(error, Some(GroupError::Fabric(FabricError::PeerDead { rank })) if rank == victim);
    assert!(named, "{error:?}");
}

fn meet_death(world: &World, victim: Rank) {
    let begin = Instant::now();
    let payload = vec![1; 300_000];
    let error = loop {
        assert!(begin.elapsed() < PATIENCE, "a dead rank is not found");
        let small = world.send(victim, DEATH, 0, b"small");
        if let Err(error) = small.and_then(|()| world.send(victim, DEATH, 1, &payload)) {
            break error;
        }
    };
    assert!(matches!(error, FabricError::PeerDead { rank } if rank == victim), "{error}");
    assert_eq!(world.peer(victim), PeerState::Dead);
    assert_eq!(world.fabric().check_peers(), [victim]);
    let met = world.barrier_timeout(PATIENCE);
    let named = matches!(met, Err(WorldError::Fabric(FabricError::PeerDead { rank })) if rank == victim);
    assert!(named, "{met:?}");
}
