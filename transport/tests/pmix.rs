//! Ranks that Open MPI's `mpirun` and Slurm's `srun` start: one world on one node, who is refused, who dies,
//! that nothing stays behind.
//!
//! Each test starts a launcher with this program, which runs the one test again in a role. Every process has a
//! watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tarragon_testbed::{
    Launch, MARK, PATIENCE, ROLE, Slurm, arguments, die, host, lacks_mpirun, lacks_ucx, role, say, skip,
    wait_until,
};
use tarragon_transport::{
    Bootstrap, FabricError, Launched, Rank, Spawn, Stranger, World, WorldError, conformance,
};

/// Variables that a test sets for processes that no launcher starts.
const LAUNCH: [&str; 2] = ["PMIX_NAMESPACE", "PMIX_RANK"];

fn rank_of_launch() -> u32 {
    std::env::var("PMIX_RANK").unwrap().parse().unwrap()
}

/// This program in a role, started by the test itself with the environment of a launch.
fn alone(test: &str, role: &str, variables: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in LAUNCH {
        command.env_remove(name);
    }
    command.args(arguments(test)).env(ROLE, role).envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn four_ranks_pass_the_conformance_suite() {
    let test = "four_ranks_pass_the_conformance_suite";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        assert_eq!((world.size(), world.rank()), (4, Rank(rank_of_launch())));
        assert_eq!(world.node_ranks(), world.ranks().collect::<Vec<_>>());
        assert!(world.ranks().all(|rank| world.host(rank) == Some(&host())));
        conformance::run(&world);
        say(&format!("rank {}: {world}", world.rank()));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.contains("libpmix") && !maps.contains("libmpi.so"), "{maps}");
        assert_eq!(world.leave().unwrap(), []);
        return;
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").ranks(4).run();
    ended.expect_success();
    let expected = [0, 1, 2, 3].map(|rank| format!("rank {rank}: ranks 4 nodes 1 fabric shm"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
}

/// The nodes of this Slurm are daemons of one machine: their ranks share its memory, which is what counts.
#[test]
fn ranks_of_srun_are_a_world() {
    let slurm = match Slurm::start() {
        Ok(slurm) => slurm,
        Err(why) => return skip("slurm", &why),
    };
    let srun = |test: &'static str| {
        let mut command = slurm.client("srun");
        command.args(["--nodes=2", "--overcommit", "--mpi=pmix", "--kill-on-bad-exit=0"]);
        Launch::by(command, test, "rank").ranks(4).run()
    };
    let ended = srun("four_ranks_pass_the_conformance_suite");
    assert!(ended.status.success(), "{}\n{}", ended.text, slurm.logs());
    ended.expect_success();
    let expected = [0, 1, 2, 3].map(|rank| format!("rank {rank}: ranks 4 nodes 1 fabric shm"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    let ended = srun("survivors_are_told_who_is_lost");
    let expected = [0, 1, 2].map(|rank| format!("rank {rank}: rank 3 is dead"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    assert_eq!(ended.left, Vec::<String>::new());
}

#[test]
fn one_rank_is_a_world() {
    let test = "one_rank_is_a_world";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        conformance::run(&world);
        say(&world.to_string());
        world.leave().unwrap();
        return;
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").ranks(1).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["ranks 1 nodes 1 fabric shm"]);
}

#[test]
fn without_a_launcher_a_process_is_alone() {
    let test = "without_a_launcher_a_process_is_alone";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        return say(&format!("{world}, {}", world.host(Rank(0)).unwrap()));
    }
    let (status, text) = alone(test, "alone", &[]);
    assert!(status.success(), "{text}");
    assert!(text.contains(&format!("{MARK}ranks 1 nodes 1 fabric loopback, {}", host())), "{text}");
}

/// All ranks learn who is the stranger and where, at once.
#[test]
fn another_program_is_refused_by_all() {
    let test = "another_program_is_refused_by_all";
    if role().is_some() {
        let begin = Instant::now();
        let error = World::from_environment().err().unwrap();
        let WorldError::Strangers { strangers, host: of_first, .. } = &error else { panic!("{error}") };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(*strangers, [Stranger { rank: Rank(2), host: host(), version }]);
        assert_eq!(*of_first, host());
        assert!(begin.elapsed() < PATIENCE / 2);
        return say(&format!("rank {}: {error}", rank_of_launch()));
    }
    if lacks_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("stranger");
    std::fs::copy("/proc/self/exe", &stranger).unwrap();
    std::fs::OpenOptions::new().append(true).open(&stranger).unwrap().write_all(b"!").unwrap();
    let ended = Launch::new(test, "rank").ranks(2).ranks_of(1, &[], &stranger).ranks(1).run();
    ended.expect_success();
    let said = ended.said();
    assert_eq!(said.len(), 4, "{}", ended.text);
    let why = format!("rank 2 on host {}", host());
    assert!(said.iter().all(|line| line.contains(&why)), "{said:?}");
}

#[test]
fn the_same_program_in_another_place_is_welcome() {
    let test = "the_same_program_in_another_place_is_welcome";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        world.leave().unwrap();
        return;
    }
    if lacks_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let double = folder.path().join("double");
    std::fs::copy("/proc/self/exe", &double).unwrap();
    Launch::new(test, "rank").ranks(1).ranks_of(1, &[], &double).run().expect_success();
}

/// To share no folder is as good as to share no machine.
#[test]
fn ranks_that_share_no_memory_are_a_world_over_the_network() {
    let test = "ranks_that_share_no_memory_are_a_world_over_the_network";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        assert_eq!(world.node_ranks().len(), if world.rank() == Rank(2) { 1 } else { 2 });
        conformance::run(&world);
        say(&format!("rank {}: {world}", world.rank()));
        world.leave().unwrap();
        return;
    }
    if lacks_mpirun() || lacks_ucx() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let other = format!("TARRAGON_SHM={}", folder.path().display());
    let program = std::env::current_exe().unwrap();
    let ended = Launch::new(test, "rank").ranks(2).ranks_of(1, &["env", &other], &program).run();
    ended.expect_success();
    let expected = [0, 1, 2].map(|rank| format!("rank {rank}: ranks 3 nodes 2 fabric shm+ucx"));
    assert_eq!(ended.said(), expected, "{}", ended.text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Where one of several nodes has no UCX, its ranks say what to install, and the others where it is missing.
#[test]
fn a_node_without_the_library_is_named_to_all() {
    let test = "a_node_without_the_library_is_named_to_all";
    if role().is_some() {
        let error = World::from_environment().err().unwrap();
        match (rank_of_launch(), &error) {
            (1, WorldError::Fabric(FabricError::NoLibrary { .. })) => {}
            (0, WorldError::Elsewhere { rank: Rank(1), host: of_other, .. }) => assert_eq!(*of_other, host()),
            _ => panic!("{error}"),
        }
        return say(&error.to_string());
    }
    if lacks_mpirun() || lacks_ucx() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let other = format!("TARRAGON_SHM={}", folder.path().display());
    let (program, library) = (std::env::current_exe().unwrap(), "TARRAGON_LIBUCP=/nowhere/libucp.so.0");
    let ended = Launch::new(test, "rank").ranks(1).ranks_of(1, &["env", &other, library], &program).run();
    ended.expect_success();
    let said = ended.said();
    assert_eq!(said.len(), 2, "{}", ended.text);
    let hint = "could not load UCX from /nowhere/libucp.so.0";
    assert!(said.iter().all(|line| line.contains(hint) && line.contains("libucx0")), "{said:?}");
}

/// The launcher ends the others, and nothing is left, not even the name of the world's memory.
#[test]
fn a_killed_rank_ends_the_world() {
    let test = "a_killed_rank_ends_the_world";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        world.barrier_timeout(PATIENCE).unwrap();
        say(&format!("pid {}", std::process::id()));
        world.barrier_timeout(PATIENCE).unwrap();
        if world.rank() == Rank(2) {
            die();
        }
        let error = world.barrier_timeout(PATIENCE).err().unwrap();
        panic!("{error}");
    }
    if lacks_mpirun() {
        return;
    }
    let begin = Instant::now();
    let ended = Launch::new(test, "rank").ranks(4).run();
    assert!(!ended.status.success() && begin.elapsed() < PATIENCE, "{}", ended.text);
    assert_eq!(ended.left, Vec::<String>::new());
    let pids: Vec<u32> =
        ended.said().iter().map(|line| line.strip_prefix("pid ").unwrap().parse().unwrap()).collect();
    assert_eq!(pids.len(), 4, "{}", ended.text);
    for pid in pids {
        // `mpirun` may end before those that it has killed have.
        wait_until("a process that was killed ends", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            matches!(state, None | Some('Z' | 'X'))
        });
    }
}

/// Where the launcher lets the others live, as `srun` does, they are told who is lost.
#[test]
fn survivors_are_told_who_is_lost() {
    let test = "survivors_are_told_who_is_lost";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        conformance::death(&world, || die());
        let error = world.barrier_timeout(PATIENCE).err().unwrap();
        assert!(matches!(error, WorldError::Fabric(FabricError::PeerDead { rank: Rank(3) })), "{error}");
        return say(&format!("rank {}: {error}", world.rank()));
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").option("--enable-recovery").ranks(4).run();
    let said = ended.said();
    assert_eq!(said.len(), 3, "{}", ended.text);
    assert!(said.iter().all(|line| line.contains("rank 3")), "{said:?}");
    assert_eq!(ended.left, Vec::<String>::new());
}

#[test]
fn a_rank_that_never_joins_is_an_error() {
    let test = "a_rank_that_never_joins_is_an_error";
    if role().is_some() {
        if rank_of_launch() == 1 {
            return std::thread::sleep(Duration::from_secs(4));
        }
        let bootstrap = Bootstrap::Launched(Launched::new().join_timeout(Duration::from_secs(1)));
        let error = World::join(&bootstrap).err().unwrap();
        assert!(matches!(error, WorldError::LaunchTimeout { .. }), "{error}");
        return say(&error.to_string());
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").ranks(2).run();
    assert_eq!(ended.said().len(), 1, "{}", ended.text);
    assert_eq!(ended.left, Vec::<String>::new());
}

/// What one rank cannot do, all are told.
#[test]
fn memory_that_cannot_be_had_is_an_error_of_all() {
    let test = "memory_that_cannot_be_had_is_an_error_of_all";
    if role().is_some() {
        let bootstrap = Bootstrap::Launched(Launched::new().heap_bytes(1 << 62));
        let error = World::join(&bootstrap).err().unwrap();
        match (rank_of_launch(), &error) {
            (0, WorldError::Fabric(FabricError::Segment(_))) => {}
            (1 | 2, WorldError::Elsewhere { rank: Rank(0), host: of_first, .. }) => {
                assert_eq!(*of_first, host());
            }
            _ => panic!("{error}"),
        }
        return say(&error.to_string());
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").ranks(3).run();
    ended.expect_success();
    assert_eq!(ended.said().len(), 3, "{}", ended.text);
}

/// A rank can start copies of itself: these are ranks of their own world, and know nothing of the launch.
#[test]
fn a_rank_can_spawn_a_world() {
    let test = "a_rank_can_spawn_a_world";
    if let Some(role) = role() {
        let outer = (role == "rank").then(|| World::from_environment().unwrap());
        if outer.is_none() {
            let of_launch = |name: &str| ["PMIX_", "OMPI_COMM", "PMI_"].iter().any(|it| name.starts_with(it));
            let names: BTreeMap<String, String> =
                std::env::vars().filter(|(name, _)| of_launch(name)).collect();
            assert_eq!(names, BTreeMap::new());
            assert!(matches!(Bootstrap::from_environment(), Bootstrap::Solo { .. }));
        }
        let spawn = Spawn::new(2).args(arguments(test)).env(ROLE, "copy");
        let inner = World::join(&Bootstrap::Spawn(spawn)).unwrap();
        assert_eq!((inner.size(), inner.rank().0 == 0), (2, outer.is_some()));
        inner.barrier_timeout(PATIENCE).unwrap();
        let ends = inner.leave_timeout(PATIENCE).unwrap();
        assert!(ends.iter().all(|end| end.status.success()));
        if let Some(outer) = outer {
            outer.barrier_timeout(PATIENCE).unwrap();
            outer.leave().unwrap();
        }
        return;
    }
    if lacks_mpirun() {
        return;
    }
    Launch::new(test, "rank").ranks(2).run().expect_success();
}

/// It inherits the environment, and is told that it is not the rank that this names.
#[test]
fn a_program_that_a_rank_starts_is_no_rank() {
    let test = "a_program_that_a_rank_starts_is_no_rank";
    match role().as_deref() {
        Some("rank") => {
            let world = World::from_environment().unwrap();
            let mut command = Command::new(std::env::current_exe().unwrap());
            assert!(command.args(arguments(test)).env(ROLE, "child").status().unwrap().success());
            world.barrier_timeout(PATIENCE).unwrap();
            world.leave().unwrap();
        }
        Some(_) => {
            let error = World::from_environment().err().unwrap();
            let is_taken = matches!(error, WorldError::Taken { rank } if rank.0 == rank_of_launch());
            assert!(is_taken, "{error}");
        }
        None if lacks_mpirun() => {}
        None => Launch::new(test, "rank").ranks(2).run().expect_success(),
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
        let (status, text) = alone(test, "rank", variables);
        assert!(status.success(), "{text}");
        text.lines().find_map(|line| line.strip_prefix(MARK)).unwrap().to_owned()
    };
    let [name_space, rank] = [("PMIX_NAMESPACE", "tarragon-test"), ("PMIX_RANK", "0")];
    let said = of(&[name_space, rank, ("TARRAGON_LIBPMIX", "/nowhere/libpmix.so.2")]);
    assert!(said.contains("/nowhere/libpmix.so.2 cannot be used") && said.contains("libpmix2"), "{said}");
    let said = of(&[name_space, rank, ("TARRAGON_LIBPMIX", "libc.so.6")]);
    assert!(said.contains("libc.so.6 cannot be used") && said.contains("PMIx_Init"), "{said}");
    assert!(of(&[rank]).contains("PMIX_NAMESPACE"));
    assert!(of(&[name_space]).contains("PMIX_RANK"));
    assert!(of(&[name_space, ("PMIX_RANK", "first")]).contains("PMIX_RANK"));
    if !lacks_mpirun() {
        // A launcher that is gone, or an environment that was copied.
        let said = of(&[name_space, rank]);
        assert!(said.contains("launcher"), "{said}");
    }
}
