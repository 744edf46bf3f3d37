//! Networks that delay and lose, that let nothing through, that lead nowhere; hosts that are not there, or have less
//! memory: slower where that will do, else an error that says who, where and what to look at, never a rank that hangs.
//!
//! The machines are namespaces of this one. Each test starts a launcher with this program, which runs the one test
//! again in a role. Every process has a watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use tarragon_testbed::{Hosts, Launch, PATIENCE, lacks_mpirun, role, say, skip};
use tarragon_transport::{Bootstrap, FabricError, Launched, Rank, World, WorldError, conformance};

/// What a rank that joins in vain says.
fn say_why(timeout: Duration) {
    let begin = Instant::now();
    let bootstrap = Bootstrap::Launched(Launched::new().join_timeout(timeout));
    let error = World::join(&bootstrap).err().unwrap();
    let rank = std::env::var("PMIX_RANK").unwrap();
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    say(&format!("rank {rank}: {error}"));
}

/// One frame of a hundred is lost, and each takes 5 ms.
#[test]
fn a_slow_network_that_loses_passes_the_conformance_suite() {
    let test = "a_slow_network_that_loses_passes_the_conformance_suite";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let begin = Instant::now();
        for (name, case) in conformance::CASES {
            // Its 200 MB take too long there for a test.
            if *name != "large_both_ways" {
                case(&world);
            }
        }
        println!("rank {} is done after {:?}", world.rank(), begin.elapsed());
        say(&format!("rank {}: {world}", world.rank()));
        world.leave().unwrap();
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let cable = match hosts.bad_cable(Duration::from_millis(5), 10) {
        Ok(cable) => cable,
        Err(why) => return skip("tap", &why),
    };
    let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run();
    ended.expect_success();
    let expected = [0, 1].map(|rank| format!("rank {rank}: ranks 2 nodes 2 fabric shm+ucx"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    assert!(cable.lost() > 0, "none of the frames was lost");
}

/// Both sides say who is not reached, where, and what to look at.
fn expect_no_way(hosts: &Hosts, test: &'static str) {
    let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run();
    let said = ended.said();
    assert_eq!(said.len(), 2, "{}", ended.text);
    for (rank, line) in said.iter().enumerate() {
        let other = 1 - rank;
        let who = format!("rank {rank}: rank {other} on host h{other} cannot be reached over the network");
        assert!(line.starts_with(&who), "{}", ended.text);
        assert!(line.contains("UCX_TCP_PORT_RANGE") && line.contains("UCX_NET_DEVICES"), "{line}");
    }
    for host in 0..hosts.count() {
        assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "machine {host}");
    }
}

#[test]
fn ports_that_a_firewall_drops_are_an_error_in_time() {
    let test = "ports_that_a_firewall_drops_are_an_error_in_time";
    if role().is_some() {
        return say_why(Duration::from_secs(8));
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    hosts.lose(0, 1);
    hosts.lose(1, 0);
    expect_no_way(&hosts, test);
}

#[test]
fn ports_that_a_firewall_refuses_are_an_error() {
    let test = "ports_that_a_firewall_refuses_are_an_error";
    if role().is_some() {
        return say_why(Duration::from_secs(20));
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    hosts.refuse(0, 1);
    hosts.refuse(1, 0);
    expect_no_way(&hosts, test);
}

/// Memory is had when it is needed: with less of it ranks wait for one another more often, and all comes through.
#[test]
fn a_machine_with_less_memory_than_the_other_does_the_same() {
    let test = "a_machine_with_less_memory_than_the_other_does_the_same";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        conformance::run(&world);
        say(&format!("rank {}: {world}", world.rank()));
        world.leave().unwrap();
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    hosts.limit_memory(1, 64 << 20);
    let ended = Launch::far(hosts.mpirun(2), test, "rank").ranks(4).run();
    ended.expect_success();
    let expected = [0, 1, 2, 3].map(|rank| format!("rank {rank}: ranks 4 nodes 2 fabric shm+ucx"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
}

/// All are told which of the machines cannot have what each must have.
#[test]
fn a_machine_without_memory_is_named() {
    let test = "a_machine_without_memory_is_named";
    if role().is_some() {
        let error = World::from_environment().err().unwrap();
        let rank = std::env::var("PMIX_RANK").unwrap();
        match &error {
            WorldError::Fabric(FabricError::Segment(_)) if rank == "1" => {}
            WorldError::Elsewhere { rank: Rank(1), host, .. } if rank == "0" => assert_eq!(host, "h1"),
            _ => panic!("{error}"),
        }
        return say(&error.to_string());
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    hosts.limit_memory(1, 64 << 10);
    let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run();
    let said = ended.said();
    assert!(said.len() == 2 && said.iter().all(|line| line.contains("memory")), "{}", ended.text);
}

/// What the launcher says of a list of hosts that is out of date is what the user sees; no rank is left.
#[test]
fn a_host_that_is_not_there_is_the_launchers_error() {
    let test = "a_host_that_is_not_there_is_the_launchers_error";
    if role().is_some() {
        return say("ran");
    }
    let Some(hosts) = Hosts::for_ranks(1) else { return };
    let mut mpirun = hosts.mpirun(1);
    mpirun.args(["--host", "h0:1,gone:1"]);
    let begin = Instant::now();
    let ended = Launch::far(mpirun, test, "rank").ranks(2).run();
    assert!(!ended.status.success() && begin.elapsed() < PATIENCE, "{}\n{}", ended.status, ended.text);
    assert!(ended.text.contains("gone") && ended.said().is_empty(), "{}", ended.text);
}

/// Open MPI's launcher takes none for as many as there are slots; that is one world like any other.
#[test]
fn no_ranks_are_what_the_launcher_makes_of_them() {
    let test = "no_ranks_are_what_the_launcher_makes_of_them";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        say(&world.size().to_string());
        world.leave().unwrap();
        return;
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").ranks(0).run();
    let size = ended.said().len().to_string();
    let is_whole = ended.said().iter().all(|said| *said == size);
    assert!(ended.status.success() == (size != "0") && is_whole, "{}\n{}", ended.status, ended.text);
    assert_eq!(ended.left, Vec::<String>::new());
}
