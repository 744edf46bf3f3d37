//! Ranks on several machines, which share no memory and no processes: one world over the network, and what happens when
//! a machine or a cable is lost.
//!
//! The machines are namespaces of this one. Each test starts a launcher with this program, which runs the one test
//! again in a role. Every process has a watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tarragon_testbed::{Hosts, Launch, PATIENCE, Slurm, die, processor_time, role, say};
use tarragon_transport::wire::{decode, encode};
use tarragon_transport::{FabricError, HandlerId, Rank, RemoteKey, World, WorldError, conformance};

/// A rank's part: what it says for itself proves that no memory was shared.
fn be_a_rank() {
    let world = World::from_environment().unwrap();
    conformance::run(&world);
    let hosts: Vec<&str> = world.ranks().map(|rank| world.host(rank).unwrap()).collect();
    let (sent, received) = world.fabric().network_bytes();
    assert!(sent > 0 && received > 0, "{sent} {received}");
    say(&format!("rank {}: {world} on {}", world.rank(), hosts.join(" ")));
    world.leave().unwrap();
}

fn expect_nothing_shared(hosts: &Hosts) {
    for host in 0..hosts.count() {
        assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "machine {host}");
    }
}

#[test]
fn ranks_of_mpirun_on_two_machines_are_a_world() {
    let test = "ranks_of_mpirun_on_two_machines_are_a_world";
    if role().is_some() {
        return be_a_rank();
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let ended = Launch::far(hosts.mpirun(2), test, "rank").ranks(4).run();
    ended.expect_success();
    let expected =
        [0, 1, 2, 3].map(|rank| format!("rank {rank}: ranks 4 nodes 2 fabric shm+ucx on h0 h0 h1 h1"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    expect_nothing_shared(&hosts);
}

#[test]
fn ranks_of_srun_on_three_machines_are_a_world() {
    let test = "ranks_of_srun_on_three_machines_are_a_world";
    if role().is_some() {
        return be_a_rank();
    }
    let Some((hosts, slurm)) = Hosts::for_ranks(3).and_then(with_slurm) else { return };
    let ended = Launch::far(slurm.srun(3), test, "rank").ranks(3).run();
    assert!(ended.status.success(), "{}\n{}", ended.text, slurm.logs());
    let expected = [0, 1, 2].map(|rank| format!("rank {rank}: ranks 3 nodes 3 fabric shm+ucx on h0 h1 h2"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    expect_nothing_shared(&hosts);
}

/// A rank that dies is known to its neighbour, and to those of the other machine.
#[test]
fn a_killed_rank_is_known_on_both_machines() {
    let test = "a_killed_rank_is_known_on_both_machines";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        conformance::death(&world, || die());
        say(&format!("rank {}: {world}", world.rank()));
        world.leave().unwrap();
        return;
    }
    let Some((hosts, slurm)) = Hosts::for_ranks(2).and_then(with_slurm) else { return };
    let ended = Launch::far(slurm.srun(2), test, "rank").ranks(4).run();
    let expected = [0, 1, 2].map(|rank| format!("rank {rank}: ranks 4 nodes 2 fabric shm+ucx"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    expect_nothing_shared(&hosts);
}

/// What a rank is asked for, it gives while all its own threads compute.
#[test]
fn a_body_that_computes_holds_up_nobody() {
    const ASK: HandlerId = HandlerId(1);
    const ANSWER: HandlerId = HandlerId(2);
    const BEGIN: HandlerId = HandlerId(3);
    const END: HandlerId = HandlerId(4);
    const BODY: Duration = Duration::from_secs(3);
    let test = "a_body_that_computes_holds_up_nobody";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let [answers, begun, ended] = [0; 3].map(|_| Arc::new(AtomicU64::new(0)));
        world.on(ASK, |fabric, message| fabric.send(message.source, ANSWER, 0, b"").unwrap());
        for (id, count) in [(ANSWER, &answers), (BEGIN, &begun), (END, &ended)] {
            let count = count.clone();
            world.on(id, move |_, _| {
                count.fetch_add(1, SeqCst);
            });
        }
        let region = world.region(8).unwrap();
        let keys = world.all_gather(&encode(region.key()).unwrap()).unwrap();
        let key: RemoteKey = decode(keys.last().unwrap()).unwrap();
        // Of the other machine, and of its own if that has another one.
        let last = Rank(world.size() - 1);
        let askers: Vec<Rank> = [0, 2].map(Rank).into_iter().filter(|&rank| rank < last).collect();
        if world.rank() == last {
            for &to in &askers {
                world.send(to, BEGIN, 0, b"").unwrap();
            }
            world.fabric().flush().unwrap();
            let begin = Instant::now();
            while begin.elapsed() < BODY {
                std::hint::spin_loop();
            }
            for &to in &askers {
                world.send(to, END, 0, b"").unwrap();
            }
        }
        if askers.contains(&world.rank()) {
            until(&world, || begun.load(SeqCst) == 1);
            let mut rounds = 0;
            while ended.load(SeqCst) == 0 {
                world.send(last, ASK, 0, b"").unwrap();
                until(&world, || answers.load(SeqCst) > rounds);
                world.fabric().get(&key, 0, &mut [0; 8]).unwrap();
                rounds += 1;
            }
            // The answer that waits for the end of the body is one.
            assert!(rounds > 20, "{rounds} rounds in {BODY:?}");
            say(&format!("rank {} was served", world.rank()));
        }
        world.barrier_timeout(PATIENCE).unwrap();
        world.leave().unwrap();
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    for (slots, served) in
        [(2, vec!["rank 0 was served", "rank 2 was served"]), (1, vec!["rank 0 was served"])]
    {
        let ended = Launch::far(hosts.mpirun(slots), test, "rank").ranks(2 * slots).run();
        ended.expect_success();
        assert_eq!(ended.said(), served, "{}", ended.text);
    }
}

/// Nobody says anything of it, but what was sent is answered by nobody for so long.
#[test]
fn a_cable_that_stays_cut_is_a_dead_rank_to_both() {
    let test = "a_cable_that_stays_cut_is_a_dead_rank_to_both";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        say("is here");
        let other = Rank(1 - world.rank().0);
        let begin = Instant::now();
        let error = loop {
            assert!(begin.elapsed() < PATIENCE, "it is never found");
            if let Err(error) = world.send(other, HandlerId(1), 0, b"are you there?") {
                break error;
            }
            world.wait(Duration::from_millis(100));
        };
        assert!(matches!(error, FabricError::PeerDead { rank } if rank == other), "{error}");
        return say(&error.to_string());
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    hosts.be_impatient();
    let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run_beside(|text| {
        wait_for(text, 2, "is here");
        hosts.cut(1);
    });
    ended.expect_success();
    let told: Vec<&str> = ended.said().into_iter().filter(|line| line.contains("dead")).collect();
    assert_eq!(told, ["rank 0 is dead", "rank 1 is dead"], "{}", ended.text);
}

#[test]
fn waiting_on_two_sides_costs_nothing() {
    let test = "waiting_on_two_sides_costs_nothing";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        let (before, begin) = (processor_time(), Instant::now());
        while begin.elapsed() < Duration::from_secs(2) {
            world.wait(Duration::from_secs(1));
        }
        let used = processor_time() - before;
        assert!(used < Duration::from_millis(60), "{used:?} of processor time for two seconds of waiting");
        world.barrier_timeout(PATIENCE).unwrap();
        world.leave().unwrap();
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    Launch::far(hosts.mpirun(2), test, "rank").ranks(4).run().expect_success();
}

/// The others are told who is lost, and may go on.
#[test]
fn a_machine_that_is_switched_off_is_a_dead_rank() {
    let test = "a_machine_that_is_switched_off_is_a_dead_rank";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        say(&format!("rank {} is here", world.rank()));
        if world.rank() == Rank(2) {
            return std::thread::sleep(PATIENCE);
        }
        let error = world.barrier_timeout(PATIENCE).err().unwrap();
        assert!(matches!(error, WorldError::Fabric(FabricError::PeerDead { rank: Rank(2) })), "{error}");
        // The two that are left still hear one another. What comes before a handler is registered is dropped, so each
        // says it again until it is heard.
        let heard = Arc::new(AtomicU64::new(0));
        let hear = heard.clone();
        world.on(HandlerId(1), move |_, message| {
            hear.fetch_max(message.tag, SeqCst);
        });
        let other = Rank(1 - world.rank().0);
        // The other may have heard enough and left, and what it said last may still be on its way here.
        let tell = |tag| match world.send(other, HandlerId(1), tag, b"") {
            Ok(()) | Err(FabricError::PeerLeft { .. }) => {}
            Err(error) => panic!("{error}"),
        };
        let begin = Instant::now();
        while heard.load(SeqCst) < 2 && begin.elapsed() < PATIENCE / 2 {
            tell(1 + heard.load(SeqCst).min(1));
            world.wait(Duration::from_millis(10));
        }
        tell(2);
        say(&format!("rank {}: {error}, heard {}", world.rank(), heard.load(SeqCst)));
        // What was sent last gets there, and nothing waits for the dead.
        match world.leave() {
            Ok(_) | Err(WorldError::Fabric(FabricError::PeerLeft { .. })) => {}
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let Some((mut hosts, slurm)) = Hosts::for_ranks(3).and_then(with_slurm) else { return };
    let mut srun = slurm.srun(3);
    srun.arg("--no-kill");
    let ended = Launch::far(srun, test, "rank").ranks(3).run_beside(|text| {
        wait_for(text, 3, "is here");
        hosts.power_off(2);
    });
    let told: Vec<&str> = ended.said().into_iter().filter(|line| line.contains("dead")).collect();
    let expected = [0, 1].map(|rank| format!("rank {rank}: rank 2 is dead, heard 2"));
    assert_eq!(told, expected, "{}", ended.text);
}

/// What was underway when the cable was cut comes when it is whole again.
#[test]
fn a_cut_cable_makes_ranks_wait_and_loses_nothing() {
    let test = "a_cut_cable_makes_ranks_wait_and_loses_nothing";
    const QUESTION: HandlerId = HandlerId(1);
    const ANSWER: HandlerId = HandlerId(2);
    const CUT: Duration = Duration::from_secs(3);
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        world.on(ANSWER, move |_, message| {
            assert_eq!(message.payload, vec![message.tag as u8; 1 + message.tag as usize % 50_000]);
            assert_eq!(counted.fetch_add(1, SeqCst), message.tag);
        });
        world.on(QUESTION, |fabric, message| {
            fabric.send(message.source, ANSWER, message.tag, message.payload).unwrap();
        });
        world.barrier_timeout(PATIENCE).unwrap();
        if world.rank() == Rank(0) {
            say("asks");
            let (begin, mut longest, mut tag) = (Instant::now(), Duration::ZERO, 0);
            while longest < CUT / 2 || begin.elapsed() < 3 * CUT {
                assert!(begin.elapsed() < PATIENCE, "never cut");
                let asked = Instant::now();
                let payload = vec![tag as u8; 1 + tag as usize % 50_000];
                world.send(Rank(1), QUESTION, tag, &payload).unwrap();
                while count.load(SeqCst) <= tag {
                    world.wait(Duration::from_millis(100));
                }
                longest = longest.max(asked.elapsed());
                tag += 1;
            }
            say("all answers came");
        }
        world.barrier_timeout(PATIENCE).unwrap();
        world.leave().unwrap();
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run_beside(|text| {
        wait_for(text, 1, "asks");
        hosts.cut(1);
        std::thread::sleep(CUT);
        hosts.heal(1);
    });
    ended.expect_success();
    assert_eq!(ended.said(), ["all answers came", "asks"], "{}", ended.text);
}

fn with_slurm(hosts: Hosts) -> Option<(Hosts, Slurm)> {
    let slurm = Slurm::for_ranks(&hosts)?;
    Some((hosts, slurm))
}

/// Waits for messages until `done`.
fn until(world: &World, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() && begin.elapsed() < PATIENCE {
        world.wait(Duration::from_millis(100));
    }
}

/// Waits until the ranks have written a word so often.
fn wait_for(text: &dyn Fn() -> String, count: usize, word: &str) {
    let begin = Instant::now();
    while text().matches(word).count() < count && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
}
