//! What tests of a queue of ranks on several machines begin and end with.

use std::time::{Duration, Instant};

use tarragon_queue::{Builder, Descriptor, Queue};
use tarragon_testbed::{Ended, Hosts, Launch, PATIENCE, Slurm};
use tarragon_transport::{PeerState, Rank, World};

/// The world that the launcher made.
pub(crate) fn world() -> World {
    World::from_environment().expect("all join")
}

/// One queue for all, at rank 0.
pub(crate) fn shared<T>(world: &World, builder: Builder<T>) -> Queue<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    if world.rank() == Rank(0) {
        let queue = builder.name("shared").create_on(world).expect("memory");
        let text = queue.descriptor().to_string();
        world.broadcast_bytes(Rank(0), text.as_bytes()).expect("all are here");
        queue
    } else {
        let text = world.broadcast_bytes(Rank(0), b"").expect("all are here");
        let descriptor: Descriptor = String::from_utf8(text).expect("a text").parse().expect("a descriptor");
        assert_eq!(descriptor.name(), "shared");
        descriptor.attach().expect("it is there")
    }
}

/// Waits, a good while at most, until a rank has left or is found dead.
pub(crate) fn until_gone(world: &World, rank: Rank) {
    let begin = Instant::now();
    while world.peer(rank) == PeerState::Here && begin.elapsed() < PATIENCE / 4 {
        world.wait(Duration::from_millis(1));
    }
}

/// All have done their part.
pub(crate) fn leave<T>(world: &World, queue: Queue<T>) {
    world.barrier_timeout(PATIENCE).expect("all come");
    drop(queue);
    // So that the serving rank hears that all others are done.
    world.barrier_timeout(PATIENCE).expect("all come");
    world.leave().expect("in good order");
}

fn expect_nothing_shared(hosts: &Hosts) {
    for host in 0..hosts.count() {
        assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "machine {host}");
    }
}

/// Runs a test's ranks, so many on each machine; all must end well.
pub(crate) fn run(machines: u32, slots: u32, test: &'static str) -> Option<Ended> {
    let hosts = Hosts::for_ranks(machines)?;
    let ended = Launch::far(hosts.mpirun(slots), test, "rank").ranks(machines * slots).run();
    ended.expect_success();
    expect_nothing_shared(&hosts);
    Some(ended)
}

/// Starts ranks of `srun`, which goes on when one dies.
pub(crate) fn run_to_death(machines: u32, test: &'static str) -> Option<Ended> {
    let hosts = Hosts::for_ranks(machines)?;
    let slurm = Slurm::for_ranks(&hosts)?;
    let ended = Launch::far(slurm.srun(machines), test, "rank").ranks(machines).run();
    // What a killed rank that was alone on its machine leaves there, the next program removes.
    (1..machines).for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new()));
    Some(ended)
}
