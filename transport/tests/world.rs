//! Worlds from their start to their end: who joins, who is refused, who dies when, and that nothing stays behind.
//!
//! Ranks are copies of this program that run the one test again; where rank 0 itself is to die, the test starts a
//! process for it first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tarragon_transport::{Bootstrap, FabricError, HandlerId, Rank, Spawn, World, WorldError};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Says to a process of the tests below that it is to be something else than the test.
const ROLE: &str = "TARRAGON_TEST_ROLE";
const ID: HandlerId = HandlerId(1);

fn spawn(size: u32, test: &str) -> Spawn {
    Spawn::new(size).args(arguments(test)).join_timeout(PATIENCE)
}

fn arguments(test: &str) -> [&str; 5] {
    ["--exact", test, "--nocapture", "--test-threads", "1"]
}

fn join(spawn: Spawn) -> Result<World, WorldError> {
    World::join(&Bootstrap::Spawn(spawn))
}

fn is_copy() -> bool {
    std::env::var_os("TARRAGON_RANK").is_some()
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A process of this test in a role; killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(test: &str, role: &str, shm: &Path) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments(test)).env(ROLE, role).env("TARRAGON_SHM", shm);
        Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// The numbers of the line that begins with `word`.
    fn numbers(&mut self, word: &str) -> Vec<u32> {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix(word).map(str::to_owned));
        line.unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a process is gone, or nothing but a zombie.
fn wait_for_end(pid: u32) {
    let begin = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "process {pid} lives on: {stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn ranks_know_themselves_and_their_ends_are_reported() {
    let world = join(spawn(3, "ranks_know_themselves_and_their_ends_are_reported")).unwrap();
    assert_eq!(world.size(), 3);
    assert_eq!(world.node_ranks(), [Rank(0), Rank(1), Rank(2)]);
    let pids = world.all_gather(&std::process::id().to_le_bytes()).unwrap();
    if world.rank().0 > 0 {
        let code = world.rank().0 as i32;
        assert_eq!(world.leave().unwrap(), []);
        std::process::exit(code);
    }
    let pids: Vec<u32> = pids.iter().map(|it| u32::from_le_bytes(it[..].try_into().unwrap())).collect();
    assert_eq!(pids[0], std::process::id());
    assert_eq!([world.pid(Rank(1)), world.pid(Rank(2))].map(|pid| pid.unwrap()), pids[1..]);
    let ends = world.leave_timeout(PATIENCE).unwrap();
    assert_eq!(
        ends.iter().map(|end| (end.rank.0, end.status.code())).collect::<Vec<_>>(),
        [(1, Some(1)), (2, Some(2))]
    );
}

#[test]
fn a_rank_that_ends_before_it_joins_is_an_error() {
    if std::env::var("TARRAGON_RANK").as_deref() == Ok("2") {
        std::process::exit(3);
    }
    let world = join(spawn(4, "a_rank_that_ends_before_it_joins_is_an_error"));
    if is_copy() {
        assert!(matches!(world, Err(WorldError::Failed { .. })), "{:?}", world.err());
        return;
    }
    let Err(WorldError::EndedEarly { rank, status }) = world else { panic!("{:?}", world.err()) };
    assert_eq!((rank, status.code()), (Rank(2), Some(3)));
}

#[test]
fn a_rank_that_never_joins_is_an_error() {
    if is_copy() {
        std::thread::sleep(PATIENCE * 10);
    }
    let spawn = spawn(2, "a_rank_that_never_joins_is_an_error").join_timeout(Duration::from_millis(300));
    let world = join(spawn);
    assert!(matches!(world, Err(WorldError::JoinTimeout { rank: Rank(1) })), "{:?}", world.err());
}

#[test]
fn another_program_is_refused() {
    let test = "another_program_is_refused";
    if is_copy() {
        let world = join(spawn(2, test));
        assert!(matches!(world, Err(WorldError::Stranger { rank: Rank(1) })), "{:?}", world.err());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("stranger");
    std::fs::copy("/proc/self/exe", &stranger).unwrap();
    std::fs::OpenOptions::new().append(true).open(&stranger).unwrap().write_all(b"!").unwrap();
    let world = join(spawn(2, test).program(stranger));
    assert!(matches!(world, Err(WorldError::Refused { rank: Rank(1) })), "{:?}", world.err());
}

#[test]
fn the_same_program_in_another_place_is_welcome() {
    let test = "the_same_program_in_another_place_is_welcome";
    let folder = tempfile::tempdir().unwrap();
    let double = folder.path().join("double");
    if !is_copy() {
        std::fs::copy("/proc/self/exe", &double).unwrap();
    }
    let world = join(spawn(2, test).program(double)).unwrap();
    world.barrier().unwrap();
    world.leave_timeout(PATIENCE).unwrap().iter().for_each(|end| assert!(end.status.success()));
}

#[test]
fn a_world_of_another_size_is_refused() {
    let size = if is_copy() { 3 } else { 2 };
    let world = join(spawn(size, "a_world_of_another_size_is_refused"));
    if is_copy() {
        let wanted = matches!(world, Err(WorldError::Size { rank: Rank(1), wanted: 3, size: 2 }));
        return assert!(wanted, "{:?}", world.err());
    }
    assert!(matches!(world, Err(WorldError::Refused { rank: Rank(1) })), "{:?}", world.err());
    let world = join(Spawn::new(0));
    assert!(matches!(world, Err(WorldError::Ranks { size: 0, .. })), "{:?}", world.err());
}

#[test]
fn a_program_that_a_rank_starts_is_no_rank() {
    let test = "a_program_that_a_rank_starts_is_no_rank";
    if role().is_some() {
        let world = join(spawn(1, test)).unwrap();
        assert_eq!((world.rank(), world.size()), (Rank(0), 1));
        world.leave().unwrap();
        return;
    }
    let world = join(spawn(2, test)).unwrap();
    if world.rank().0 == 1 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        assert!(command.args(arguments(test)).env(ROLE, "nested").status().unwrap().success());
    }
    world.barrier().unwrap();
    world.leave_timeout(PATIENCE).unwrap().iter().for_each(|end| assert!(end.status.success()));
}

#[test]
fn copies_end_when_rank_0_is_killed() {
    let test = "copies_end_when_rank_0_is_killed";
    if role().is_some() {
        let world = join(spawn(3, test)).unwrap();
        if world.rank().0 == 0 {
            println!("\ncopies {} {}", world.pid(Rank(1)).unwrap(), world.pid(Rank(2)).unwrap());
        }
        // Sleeps without any look at the world: the end comes nevertheless.
        std::thread::sleep(PATIENCE * 10);
    }
    let shm = tempfile::tempdir().unwrap();
    let mut first = Process::start(test, "rank 0", shm.path());
    let copies = first.numbers("copies ");
    assert_eq!(copies.len(), 2);
    first.0.kill().unwrap();
    copies.into_iter().for_each(wait_for_end);
}

#[test]
fn copies_end_when_rank_0_goes_without_leaving() {
    let world = join(spawn(3, "copies_end_when_rank_0_goes_without_leaving")).unwrap();
    if world.rank().0 > 0 {
        std::thread::sleep(PATIENCE * 10);
    }
    let pids = [1, 2].map(|rank| world.pid(Rank(rank)).unwrap());
    drop(world);
    pids.into_iter().for_each(wait_for_end);
}

#[test]
fn nothing_stays_behind() {
    let test = "nothing_stays_behind";
    if let Some(role) = role() {
        let world = join(spawn(3, test)).unwrap();
        let region = world.region(1 << 20).unwrap();
        world.on(ID, |_, _| {});
        world.barrier().unwrap();
        world.ranks().for_each(|to| world.send(to, ID, 0, &[1; 100_000]).unwrap());
        world.barrier().unwrap();
        if role == "exits" && world.rank().0 == 0 {
            std::process::exit(0);
        }
        drop(region);
        world.leave_timeout(PATIENCE).unwrap();
        return;
    }
    for role in ["leaves", "exits"] {
        let shm = tempfile::tempdir().unwrap();
        let mut first = Process::start(test, role, shm.path());
        let mut text = String::new();
        // Ends when all that have it open have ended: rank 0 and its copies.
        first.0.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert!(first.0.wait().unwrap().success(), "{text}");
        let mut left = files(shm.path());
        if role == "exits" {
            // Regions of copies that were killed wait for the next start.
            left.retain(|file| file.starts_with("tarragon-world"));
        }
        assert_eq!(left, Vec::<String>::new());
    }
}

#[test]
fn a_living_peer_that_takes_nothing_is_named_after_the_patience() {
    let test = "a_living_peer_that_takes_nothing_is_named_after_the_patience";
    let world = join(spawn(2, test).patience(Duration::from_millis(200))).unwrap();
    if world.rank().0 == 1 {
        std::thread::sleep(PATIENCE * 10);
    }
    for payload in [&[1; 50][..], &[1; 2 << 20]] {
        let error = (0..100_000).find_map(|tag| world.send(Rank(1), ID, tag, payload).err());
        assert!(matches!(error, Some(FabricError::Stalled { rank: Rank(1), waited_ms: 200 })), "{error:?}");
    }
}

#[test]
fn payloads_for_a_dead_rank_are_freed() {
    let test = "payloads_for_a_dead_rank_are_freed";
    let world = join(spawn(2, test).patience(Duration::from_millis(200))).unwrap();
    if world.rank().0 == 1 {
        std::thread::sleep(PATIENCE * 10);
    }
    let error = (0..100_000).find_map(|tag| world.send(Rank(1), ID, tag, &[1; 1 << 20]).err());
    assert!(matches!(error, Some(FabricError::Stalled { .. })), "{error:?}");
    assert!(world.fabric().payload_bytes() >= 1 << 20);
    let pid = rustix::process::Pid::from_raw(world.pid(Rank(1)).unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let begin = Instant::now();
    while world.fabric().check_peers().is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(world.fabric().payload_bytes(), 0);
}

#[test]
fn who_has_left_is_told_apart_from_who_died() {
    let world = join(spawn(2, "who_has_left_is_told_apart_from_who_died")).unwrap();
    if world.rank().0 == 1 {
        world.leave().unwrap();
        return;
    }
    let met = world.barrier_timeout(PATIENCE);
    let left = matches!(met, Err(WorldError::Fabric(FabricError::PeerLeft { rank: Rank(1) })));
    assert!(left, "{met:?}");
    let sent = world.send(Rank(1), ID, 0, &[]);
    assert!(matches!(sent, Err(FabricError::PeerLeft { rank: Rank(1) })), "{sent:?}");
    let ends = world.leave_timeout(PATIENCE).unwrap();
    assert!(ends[0].status.success());
}

/// Ranks are killed at random moments of sending; no survivor waits for ever, and memory they held comes back.
#[test]
fn kills_in_the_middle_of_sending() {
    let test = "kills_in_the_middle_of_sending";
    let rounds = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 300 } else { 15 };
    for round in 0..rounds {
        let world = join(spawn(3, test).quiet()).unwrap();
        let came = Arc::new(AtomicU64::new(0));
        let count = came.clone();
        world.on(ID, move |_, message| {
            let right = message.payload.iter().all(|&byte| byte == message.tag as u8);
            assert!(right, "a torn message of rank {}", message.source);
            count.fetch_add(1, SeqCst);
        });
        world.barrier().unwrap();
        if world.rank().0 > 0 {
            flood(&world);
            // That the dead one did not get all is no news.
            drop(world.leave());
            return;
        }
        let victim = Rank(1 + round % 2);
        let goal = came.load(SeqCst) + u64::from(round * 37 % 200);
        let begin = Instant::now();
        while came.load(SeqCst) < goal {
            assert!(begin.elapsed() < PATIENCE);
            world.wait(Duration::from_millis(5));
        }
        let pid = rustix::process::Pid::from_raw(world.pid(victim).unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let met = world.barrier_timeout(PATIENCE);
        let dead = matches!(met, Err(WorldError::Fabric(FabricError::PeerDead { rank })) if rank == victim);
        assert!(dead, "{met:?}");
        assert_eq!(world.fabric().faults().malformed, 0);
    }
}

/// Sends messages of all sizes to all until somebody is gone.
fn flood(world: &World) {
    for tag in 0.. {
        let payload = vec![tag as u8; [10, 300, 5000, 200_000, 3 << 20][tag as usize % 5]];
        for to in world.ranks() {
            if world.send(to, ID, tag, &payload).is_err() {
                return;
            }
        }
    }
}

#[test]
fn waiting_costs_nothing() {
    let world = join(spawn(2, "waiting_costs_nothing")).unwrap();
    world.barrier().unwrap();
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (before, begin) = (used(), Instant::now());
    while begin.elapsed() < Duration::from_secs(1) {
        world.wait(Duration::from_secs(1));
    }
    let used = used() - before;
    assert!(used < Duration::from_millis(10), "{used:?} of processor time for a second of waiting");
    world.barrier().unwrap();
    world.leave_timeout(PATIENCE).unwrap();
}
