//! Ranks that Open MPI's `mpirun` and Slurm's `srun` start: one world on one node, who is refused, who dies,
//! that nothing stays behind.
//!
//! Each test starts a launcher with this program, which runs the one test again in a role. Every process has a
//! watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod slurm;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tarragon_transport::{
    Bootstrap, FabricError, Pmix, Rank, Spawn, Stranger, World, WorldError, conformance,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
const ROLE: &str = "TARRAGON_TEST_ROLE";
/// Lines of a rank's that are for the test.
const MARK: &str = "##";
/// Variables that a test sets for processes that no launcher starts.
const LAUNCH: [&str; 2] = ["PMIX_NAMESPACE", "PMIX_RANK"];

/// The role of this process, if a test started it.
fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        std::process::exit(9);
    });
    Some(role)
}

fn say(line: &str) {
    // One write, so that lines of several ranks do not mix.
    std::io::stdout().write_all(format!("\n{MARK}{line}\n").as_bytes()).unwrap();
}

fn rank_of_launch() -> u32 {
    std::env::var("PMIX_RANK").unwrap().parse().unwrap()
}

fn arguments(test: &str) -> [&str; 5] {
    ["--exact", test, "--nocapture", "--test-threads", "1"]
}

fn die() -> ! {
    kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// True if there is no `mpirun`, which is said.
fn lacks_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_found = found.is_ok_and(|status| status.success());
    if !is_found {
        skip("mpirun", "it is not installed (Debian: openmpi-bin, libpmix2)");
    }
    !is_found
}

/// Says by name that a test is not run. Where all that can be installed is there, that is a failure.
#[expect(clippy::print_stderr, reason = "a test that is not run says so")]
fn skip(name: &str, why: &str) {
    eprintln!("skipped: {name}: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has all of it");
}

/// A test's launcher, with folders of its own.
struct Launch {
    command: Command,
    test: &'static str,
    is_first: bool,
    folder: tempfile::TempDir,
}

/// What came of it.
struct Ended {
    status: ExitStatus,
    text: String,
    /// Names of what is left in the folder for shared memory.
    left: Vec<String>,
}

impl Launch {
    fn new(test: &'static str, role: &str) -> Launch {
        let mut command = Command::new("mpirun");
        command.args(["--oversubscribe", "--bind-to", "none"]).stdin(Stdio::null());
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        Launch::by(command, test, role)
    }

    /// By another launcher.
    fn by(mut command: Command, test: &'static str, role: &str) -> Launch {
        let folder = tempfile::tempdir().unwrap();
        let shm = folder.path().join("shm");
        std::fs::create_dir(&shm).unwrap();
        command.env(ROLE, role).env("TARRAGON_SHM", shm);
        Launch { command, test, is_first: true, folder }
    }

    fn option(mut self, option: &str) -> Launch {
        self.command.arg(option);
        self
    }

    /// More ranks, of this program.
    fn ranks(self, count: u32) -> Launch {
        let program = std::env::current_exe().unwrap();
        self.ranks_of(count, &[], &program)
    }

    /// More ranks, of another program, behind the words of a command that starts it.
    fn ranks_of(mut self, count: u32, before: &[&str], program: &Path) -> Launch {
        if !std::mem::take(&mut self.is_first) {
            self.command.arg(":");
        }
        self.command.args(["-n", &count.to_string()]).args(before).arg(program).args(arguments(self.test));
        self
    }

    /// Runs it to its end, which comes in time or by force.
    fn run(mut self) -> Ended {
        let path = self.folder.path().join("output");
        let file = File::create(&path).unwrap();
        self.command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut mpirun = self.command.spawn().unwrap();
        let status = wait(&mut mpirun);
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let entries = std::fs::read_dir(self.folder.path().join("shm")).unwrap();
        let left = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        Ended { status, text, left }
    }
}

impl Ended {
    /// What the ranks have said, sorted.
    fn said(&self) -> Vec<&str> {
        let mut said: Vec<&str> = self.text.lines().filter_map(|line| line.strip_prefix(MARK)).collect();
        said.sort_unstable();
        said
    }

    fn expect_success(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.text);
        assert_eq!(self.left, Vec::<String>::new());
    }
}

/// Waits for `mpirun`; asks it to end when it takes too long, and then forces it.
fn wait(mpirun: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    let pid = Pid::from_raw(mpirun.id() as i32).unwrap();
    let mut is_asked = false;
    loop {
        if let Some(status) = mpirun.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE && !is_asked {
            is_asked = true;
            kill_process(pid, Signal::TERM).unwrap();
        }
        if begin.elapsed() > PATIENCE + Duration::from_secs(10) {
            mpirun.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
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

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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
    let slurm = match slurm::Slurm::start() {
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

#[test]
fn several_nodes_are_an_error_that_names_them() {
    let test = "several_nodes_are_an_error_that_names_them";
    if role().is_some() {
        let error = World::from_environment().err().unwrap();
        let WorldError::SeveralNodes { ranks: 3, hosts } = &error else { panic!("{error}") };
        assert_eq!(*hosts, [host(), host()]);
        return say(&error.to_string());
    }
    if lacks_mpirun() {
        return;
    }
    // To share no folder is as good as to share no machine.
    let folder = tempfile::tempdir().unwrap();
    let other = format!("TARRAGON_SHM={}", folder.path().display());
    let program = std::env::current_exe().unwrap();
    let ended = Launch::new(test, "rank").ranks(2).ranks_of(1, &["env", &other], &program).run();
    ended.expect_success();
    let said = ended.said();
    assert_eq!(said.len(), 3, "{}", ended.text);
    assert!(
        said[0].contains(&format!("2 nodes ({0}, {0}): ranks on several nodes need", host())),
        "{said:?}"
    );
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
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        assert!(matches!(state, None | Some('Z' | 'X')), "process {pid} lives on: {stat}");
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
        let bootstrap = Bootstrap::Pmix(Pmix::new().join_timeout(Duration::from_secs(1)));
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
        let bootstrap = Bootstrap::Pmix(Pmix::new().heap_bytes(1 << 62));
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
        let bootstrap = Bootstrap::Pmix(Pmix::new().join_timeout(Duration::from_secs(5)));
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
