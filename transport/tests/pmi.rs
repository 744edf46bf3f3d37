//! Ranks of launchers that speak PMI: MPICH's `mpirun` and `srun --mpi=pmi2`. Nothing is loaded for it: one program
//! runs under these and under launchers that speak PMIx.
//!
//! Each test starts a launcher with this program, which runs the one test again in a role. Every process has a
//! watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use tarragon_testbed::{
    Hosts, Launch, PATIENCE, ROLE, Slurm, arguments, die, host, lacks_mpich, lacks_ucx, role, say, skip,
};
use tarragon_transport::{Bootstrap, Launched, Rank, Spawn, Stranger, World, WorldError, conformance};

fn rank_of_launch() -> u32 {
    std::env::var("PMI_RANK").unwrap().parse().unwrap()
}

fn expected(size: u32, fabric: &str) -> Vec<String> {
    (0..size).map(|rank| format!("rank {rank}: ranks {size} {fabric}")).collect()
}

/// A rank's part.
fn be_a_rank() {
    let world = World::from_environment().unwrap();
    conformance::run(&world);
    say(&format!("rank {}: {world}", world.rank()));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("libpmi") && !maps.contains("libmpi"), "{maps}");
    assert_eq!(world.leave().unwrap(), []);
}

#[test]
fn four_ranks_of_mpich_pass_the_conformance_suite() {
    let test = "four_ranks_of_mpich_pass_the_conformance_suite";
    if role().is_some() {
        assert_eq!(std::env::var("PMI_SIZE").unwrap(), "4");
        return be_a_rank();
    }
    if lacks_mpich() {
        return;
    }
    let ended = Launch::mpich(test, "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), expected(4, "nodes 1 fabric shm"), "{}", ended.text);
}

/// Where the launcher hands on no socket but an address, and one rank alone.
#[test]
fn ranks_of_mpich_that_call_its_port_are_a_world() {
    let test = "ranks_of_mpich_that_call_its_port_are_a_world";
    if role().is_some() {
        assert!(std::env::var_os("PMI_PORT").is_some() && std::env::var_os("PMI_FD").is_none());
        return be_a_rank();
    }
    if lacks_mpich() {
        return;
    }
    for count in [3, 1] {
        let ended = Launch::mpich(test, "rank").option("-pmi-port").ranks(count).run();
        ended.expect_success();
        assert_eq!(ended.said(), expected(count, "nodes 1 fabric shm"), "{}", ended.text);
    }
}

#[test]
fn ranks_of_mpich_on_two_machines_are_a_world() {
    let test = "ranks_of_mpich_on_two_machines_are_a_world";
    if role().is_some() {
        return be_a_rank();
    }
    if lacks_mpich() || lacks_ucx() {
        return;
    }
    let hosts = match Hosts::start(2) {
        Ok(hosts) => hosts,
        Err(why) => return skip("hosts", &why),
    };
    let ended = Launch::far(hosts.mpich(2), test, "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), expected(4, "nodes 2 fabric shm+ucx"), "{}", ended.text);
    for host in 0..hosts.count() {
        assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "machine {host}");
    }
}

/// The nodes of this Slurm are daemons of one machine: their ranks share its memory, which is what counts.
#[test]
fn ranks_of_srun_with_pmi2_are_a_world() {
    let test = "ranks_of_srun_with_pmi2_are_a_world";
    if role().is_some() {
        return be_a_rank();
    }
    let slurm = match Slurm::start() {
        Ok(slurm) => slurm,
        Err(why) => return skip("slurm", &why),
    };
    let mut srun = slurm.client("srun");
    srun.args(["--nodes=2", "--overcommit", "--mpi=pmi2"]);
    let ended = Launch::by(srun, test, "rank").ranks(4).run();
    assert!(ended.status.success(), "{}\n{}", ended.text, slurm.logs());
    ended.expect_success();
    assert_eq!(ended.said(), expected(4, "nodes 1 fabric shm"), "{}", ended.text);
}

#[test]
fn another_program_is_refused_by_all() {
    let test = "another_program_is_refused_by_all";
    if role().is_some() {
        let error = World::from_environment().err().unwrap();
        let WorldError::Strangers { strangers, .. } = &error else { panic!("{error}") };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(*strangers, [Stranger { rank: Rank(1), host: host(), version }]);
        return say(&format!("rank {}: {error}", rank_of_launch()));
    }
    if lacks_mpich() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("stranger");
    std::fs::copy("/proc/self/exe", &stranger).unwrap();
    std::fs::OpenOptions::new().append(true).open(&stranger).unwrap().write_all(b"!").unwrap();
    let ended = Launch::mpich(test, "rank").ranks(1).ranks_of(1, &[], &stranger).ranks(1).run();
    ended.expect_success();
    assert_eq!(ended.said().len(), 3, "{}", ended.text);
}

#[test]
fn a_rank_that_never_joins_is_an_error() {
    let test = "a_rank_that_never_joins_is_an_error";
    if role().is_some() {
        if rank_of_launch() == 1 {
            return std::thread::sleep(Duration::from_secs(20));
        }
        let bootstrap = Bootstrap::Launched(Launched::new().join_timeout(Duration::from_secs(1)));
        let error = World::join(&bootstrap).err().unwrap();
        assert!(matches!(error, WorldError::LaunchTimeout { .. }), "{error}");
        // The launcher ends all when the first ends in this way, but no sooner.
        std::thread::sleep(Duration::from_secs(1));
        say(&error.to_string());
        // What was said just then may be lost.
        return std::thread::sleep(Duration::from_secs(1));
    }
    if lacks_mpich() {
        return;
    }
    let ended = Launch::mpich(test, "rank").ranks(2).run();
    assert_eq!(ended.said().len(), 1, "{}", ended.text);
    assert_eq!(ended.left, Vec::<String>::new());
}

/// MPICH's launcher ends the others, and the memory that they shared goes with them.
#[test]
fn a_killed_rank_ends_the_launch() {
    let test = "a_killed_rank_ends_the_launch";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        if world.rank() == Rank(3) {
            die();
        }
        return std::thread::sleep(PATIENCE);
    }
    if lacks_mpich() {
        return;
    }
    let begin = std::time::Instant::now();
    let ended = Launch::mpich(test, "rank").ranks(4).run();
    assert!(!ended.status.success() && begin.elapsed() < PATIENCE / 2, "{}\n{}", ended.status, ended.text);
    assert_eq!(ended.left, Vec::<String>::new());
}

/// It inherits the environment, and is told that it is not the rank that this names; copies know nothing of it.
#[test]
fn a_program_that_a_rank_starts_is_no_rank() {
    let test = "a_program_that_a_rank_starts_is_no_rank";
    match role().as_deref() {
        Some("rank") => {
            let world = World::from_environment().unwrap();
            let again = World::from_environment().err().unwrap();
            assert!(matches!(again, WorldError::Twice { rank } if rank == world.rank()), "{again}");
            let mut command = Command::new("sh");
            // A process that is no rank lies between.
            command.args(["-c", "\"$@\"; exit $?", "sh"]).arg(std::env::current_exe().unwrap());
            assert!(command.args(arguments(test)).env(ROLE, "child").status().unwrap().success());
            let spawn = Spawn::new(2).args(arguments(test)).env(ROLE, "copy");
            let inner = World::join(&Bootstrap::Spawn(spawn)).unwrap();
            assert!(inner.leave_timeout(PATIENCE).unwrap().iter().all(|end| end.status.success()));
            world.barrier_timeout(PATIENCE).unwrap();
            world.leave().unwrap();
        }
        Some("child") => {
            let error = World::from_environment().err().unwrap();
            let is_taken = matches!(error, WorldError::Taken { rank } if rank.0 == rank_of_launch());
            assert!(is_taken, "{error}");
        }
        Some(_) => {
            assert!(matches!(Bootstrap::from_environment(), Bootstrap::Solo { .. }));
            World::spawn(2).unwrap().leave().unwrap();
        }
        None if lacks_mpich() => {}
        None => Launch::mpich(test, "rank").ranks(2).run().expect_success(),
    }
}

#[test]
fn a_launch_that_cannot_be_joined_is_an_error() {
    let test = "a_launch_that_cannot_be_joined_is_an_error";
    if role().is_some() {
        let bootstrap = Bootstrap::Launched(Launched::new().join_timeout(Duration::from_secs(5)));
        return say(&World::join(&bootstrap).err().unwrap().to_string());
    }
    let of = |variables: &[(&str, &str)]| {
        let mut launch = Launch::alone(test, "rank");
        for (name, value) in variables {
            launch = launch.env(name, value);
        }
        let ended = launch.run();
        ended.expect_success();
        ended.said()[0].to_owned()
    };
    let [rank, size] = [("PMI_RANK", "0"), ("PMI_SIZE", "2")];
    // Closed by whoever started this, or no socket.
    assert!(of(&[("PMI_FD", "999"), rank, size]).contains("PMI_FD"));
    assert!(of(&[("PMI_FD", "0"), rank, size]).contains("PMI_FD"));
    assert!(of(&[("PMI_FD", "first"), rank, size]).contains("PMI_FD"));
    assert!(of(&[("PMI_FD", "999"), size]).contains("PMI_RANK"));
    assert!(of(&[("PMI_FD", "999"), rank]).contains("PMI_SIZE"));
    assert!(of(&[("PMI_PORT", "127.0.0.1:1")]).contains("PMI_ID"));
    // A launcher that is gone.
    let said = of(&[("PMI_PORT", "127.0.0.1:1"), ("PMI_ID", "0")]);
    assert!(said.contains("could not connect to the launcher") && said.contains("refused"), "{said}");
    if !lacks_mpich() {
        // What stands between has closed the descriptor.
        let program = std::env::current_exe().unwrap();
        let closed = ["sh", "-c", "eval \"exec $PMI_FD>&-\"; exec \"$@\"", "sh"];
        let ended = Launch::mpich(test, "rank").ranks_of(2, &closed, &program).run();
        let said = ended.said();
        assert!(said.len() == 2 && said.iter().all(|line| line.contains("PMI_FD")), "{}", ended.text);
    }
}
