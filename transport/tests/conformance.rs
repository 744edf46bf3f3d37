//! Runs the suite that every fabric must pass on each fabric there is, with ranks that are copies of this program.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use tarragon_transport::{Bootstrap, Spawn, World, conformance};

/// How long the other ranks may take to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A world of copies of this test.
fn ranks(size: u32, test: &str) -> World {
    let spawn = Spawn::new(size).args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    World::join(&Bootstrap::Spawn(spawn)).unwrap()
}

fn leave(world: World) {
    for end in world.leave_timeout(PATIENCE).unwrap() {
        assert!(end.status.success(), "rank {}: {}", end.rank, end.status);
    }
}

#[test]
fn loopback_direct() {
    conformance::run(&World::join(&Bootstrap::Solo { through_bytes: false }).unwrap());
}

#[test]
fn loopback_through_bytes() {
    conformance::run(&World::join(&Bootstrap::Solo { through_bytes: true }).unwrap());
}

#[test]
fn shm_one_rank() {
    let world = ranks(1, "shm_one_rank");
    conformance::run(&world);
    leave(world);
}

#[test]
fn shm_two_ranks() {
    let world = ranks(2, "shm_two_ranks");
    conformance::run(&world);
    leave(world);
}

#[test]
fn shm_four_ranks() {
    let world = ranks(4, "shm_four_ranks");
    conformance::run(&world);
    leave(world);
}

/// A heap smaller than many a message.
#[test]
fn shm_little_memory() {
    let args = ["--exact", "shm_little_memory", "--nocapture", "--test-threads", "1"];
    let spawn = Spawn::new(3).args(args).heap_bytes(8 << 20);
    let world = World::join(&Bootstrap::Spawn(spawn)).unwrap();
    conformance::run(&world);
    leave(world);
}

fn die() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    loop {
        std::thread::sleep(PATIENCE);
    }
}

#[test]
fn shm_death_of_two() {
    let world = ranks(2, "shm_death_of_two");
    conformance::death(&world, die);
}

#[test]
fn shm_death_of_four() {
    let world = ranks(4, "shm_death_of_four");
    conformance::death(&world, die);
    if world.rank().0 > 0 {
        drop(world.leave());
        return;
    }
    let ends = world.leave_timeout(PATIENCE).unwrap();
    let ends: Vec<(u32, bool)> = ends.iter().map(|end| (end.rank.0, end.status.success())).collect();
    assert_eq!(ends, [(1, true), (2, true), (3, false)]);
}
