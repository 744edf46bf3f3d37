//! Runs the suite that every fabric must pass on UCX: over tcp, and over shared memory. UCX reads its settings once per
//! process, from the environment, so each test starts itself anew with them; that process becomes rank 0.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "says what is skipped")]

use std::process::Command;
use std::time::{Duration, Instant};

use tarragon_testbed::processor_time;
use tarragon_transport::{
    Bootstrap, FabricError, HandlerId, PeerState, Rank, Spawn, World, WorldError, conformance,
};

/// How long the other ranks may take to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Says to a process of these tests that its environment is that of the test.
const READY: &str = "TARRAGON_TEST_NETWORK";
/// Which ways UCX may take.
const TCP: &[(&str, &str)] = &[("UCX_TLS", "tcp,self")];
/// Shared memory takes part in the watch over peers only when told so.
const SHM: &[(&str, &str)] =
    &[("UCX_TLS", "posix,cma,self"), ("UCX_POSIX_ERROR_HANDLING", "y"), ("UCX_CMA_ERROR_HANDLING", "y")];

fn arguments(test: &str) -> [&str; 5] {
    ["--exact", test, "--nocapture", "--test-threads", "1"]
}

fn spawn(size: u32, test: &str) -> Spawn {
    Spawn::new(size).args(arguments(test)).join_timeout(PATIENCE).network()
}

fn join(spawn: Spawn) -> Result<World, WorldError> {
    World::join(&Bootstrap::Spawn(spawn))
}

/// True in a process that is to be a rank. Otherwise starts one with `envs`, and checks that it ends well.
fn is_rank(test: &str, envs: &[(&str, &str)]) -> bool {
    if std::env::var_os(READY).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments(test)).env(READY, "1").env("UCX_WARN_UNUSED_ENV_VARS", "n");
    let output = command.envs(envs.iter().copied()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("NoLibrary { file: \"libucp.so.0\"") {
        eprintln!("skipped: ucx: {test}: install libucx0");
        return false;
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    false
}

fn leave(world: World) {
    for end in world.leave_timeout(PATIENCE).unwrap() {
        assert!(end.status.success(), "rank {}: {}", end.rank, end.status);
    }
}

fn suite(size: u32, test: &str, envs: &[(&str, &str)]) {
    if !is_rank(test, envs) {
        return;
    }
    let world = join(spawn(size, test)).unwrap();
    conformance::run(&world);
    let (sent, received) = world.fabric().network_bytes();
    assert!(size == 1 || (sent > 100 << 20 && received > 100 << 20), "{sent} sent, {received} received");
    leave(world);
}

#[test]
fn tcp_one_rank() {
    suite(1, "tcp_one_rank", TCP);
}

#[test]
fn tcp_two_ranks() {
    suite(2, "tcp_two_ranks", TCP);
}

#[test]
fn tcp_four_ranks() {
    suite(4, "tcp_four_ranks", TCP);
}

#[test]
fn shm_two_ranks() {
    suite(2, "shm_two_ranks", SHM);
}

#[test]
fn shm_four_ranks() {
    suite(4, "shm_four_ranks", SHM);
}

fn die() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    loop {
        std::thread::sleep(PATIENCE);
    }
}

fn death(size: u32, test: &str, envs: &[(&str, &str)]) {
    if !is_rank(test, envs) {
        return;
    }
    let world = join(spawn(size, test)).unwrap();
    conformance::death(&world, die);
    if world.rank().0 > 0 {
        drop(world.leave());
        return;
    }
    let ends = world.leave_timeout(PATIENCE).unwrap();
    let ends: Vec<(u32, bool)> = ends.iter().map(|end| (end.rank.0, end.status.success())).collect();
    assert_eq!(ends, (1..size).map(|rank| (rank, rank < size - 1)).collect::<Vec<_>>());
}

#[test]
fn tcp_death_of_two() {
    death(2, "tcp_death_of_two", TCP);
}

#[test]
fn tcp_death_of_four() {
    death(4, "tcp_death_of_four", TCP);
}

#[test]
fn shm_death_of_two() {
    death(2, "shm_death_of_two", SHM);
}

#[test]
fn shm_death_of_four() {
    death(4, "shm_death_of_four", SHM);
}

/// A rank that dies while nobody sends is found by those who wait.
#[test]
fn tcp_death_in_silence() {
    let test = "tcp_death_in_silence";
    if !is_rank(test, TCP) {
        return;
    }
    let world = join(spawn(3, test)).unwrap();
    // All are connected then: UCX 1.13 aborts the process that connects to one which has died (an assertion in tcp).
    world.barrier_timeout(PATIENCE).unwrap();
    if world.rank().0 == 2 {
        die();
    }
    let begin = Instant::now();
    let met = world.barrier_timeout(PATIENCE);
    let Err(WorldError::Fabric(
        FabricError::PeerDead { rank: Rank(2) } | FabricError::Unreachable { rank: Rank(2), .. },
    )) = met
    else {
        panic!("{met:?}");
    };
    assert_eq!(world.peer(Rank(2)), PeerState::Dead);
    println!("found after {:?}", begin.elapsed());
    drop(world.leave_timeout(PATIENCE));
}

#[test]
fn tcp_who_has_left_is_told_apart_from_who_died() {
    let test = "tcp_who_has_left_is_told_apart_from_who_died";
    if !is_rank(test, TCP) {
        return;
    }
    let world = join(spawn(2, test)).unwrap();
    if world.rank().0 == 1 {
        world.leave().unwrap();
        return;
    }
    let met = world.barrier_timeout(PATIENCE);
    assert!(matches!(met, Err(WorldError::Fabric(FabricError::PeerLeft { rank: Rank(1) }))), "{met:?}");
    let sent = world.send(Rank(1), HandlerId(1), 0, &[]);
    assert!(matches!(sent, Err(FabricError::PeerLeft { rank: Rank(1) })), "{sent:?}");
    let ends = world.leave_timeout(PATIENCE).unwrap();
    assert!(ends[0].status.success());
}

#[test]
fn tcp_a_living_peer_that_takes_nothing_is_named_after_the_patience() {
    let test = "tcp_a_living_peer_that_takes_nothing_is_named_after_the_patience";
    if !is_rank(test, TCP) {
        return;
    }
    let world = join(spawn(2, test).patience(Duration::from_millis(300))).unwrap();
    if world.rank().0 == 1 {
        std::thread::sleep(PATIENCE * 10);
    }
    for payload in [&[1; 50][..], &[1; 2 << 20]] {
        let error = (0..100_000_000).find_map(|tag| world.send(Rank(1), HandlerId(1), tag, payload).err());
        assert!(matches!(error, Some(FabricError::Stalled { rank: Rank(1), waited_ms: 300 })), "{error:?}");
    }
}

fn idle(test: &str, envs: &[(&str, &str)]) {
    if !is_rank(test, envs) {
        return;
    }
    let world = join(spawn(2, test)).unwrap();
    world.barrier().unwrap();
    let (before, begin) = (processor_time(), Instant::now());
    while begin.elapsed() < Duration::from_secs(2) {
        world.wait(Duration::from_secs(1));
    }
    let used = processor_time() - before;
    assert!(used < Duration::from_millis(40), "{used:?} of processor time for two seconds of waiting");
    world.barrier().unwrap();
    leave(world);
}

#[test]
fn tcp_waiting_costs_nothing() {
    idle("tcp_waiting_costs_nothing", TCP);
}

#[test]
fn shm_waiting_costs_nothing() {
    idle("shm_waiting_costs_nothing", SHM);
}

#[test]
fn without_the_library_an_error_says_what_to_install() {
    let test = "without_the_library_an_error_says_what_to_install";
    if !is_rank(test, &[("TARRAGON_LIBUCP", "/nonexistent/libucp.so.0")]) {
        return;
    }
    let error = join(spawn(2, test).quiet()).err().unwrap();
    if std::env::var_os("TARRAGON_RANK").is_none() {
        assert!(matches!(error, WorldError::Fabric(FabricError::NoLibrary { .. })), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("/nonexistent/libucp.so.0") && text.contains("install"), "{text}");
    }
}

#[test]
fn a_rank_without_the_library_is_named() {
    let test = "a_rank_without_the_library_is_named";
    if !is_rank(test, TCP) {
        return;
    }
    let spawn = spawn(2, test).quiet().env("TARRAGON_LIBUCP", "/nonexistent/libucp.so.0");
    let error = join(spawn).err().unwrap();
    if std::env::var_os("TARRAGON_RANK").is_none() {
        let named = matches!(error, WorldError::Elsewhere { rank: Rank(1), .. });
        assert!(named, "{error:?}");
    }
}
