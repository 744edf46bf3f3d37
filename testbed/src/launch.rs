//! A launcher that starts the test's own program as ranks: each runs the one test again, in a role.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, skip};

/// The variable that gives a process its role.
pub const ROLE: &str = "TARRAGON_TEST_ROLE";
/// What MPICH's launcher is called where Open MPI's is `mpirun`.
pub(crate) const MPICH: &str = "mpirun.mpich";
/// The file that the launcher writes to.
const OUTPUT: &str = "output";
/// How the names of files begin that ranks write to.
const RANK_OUTPUT: &str = "rank-";
/// How the lines of a rank begin that are for the test.
pub const MARK: &str = "##";

/// The role of this process, if a test started it; it ends when [`PATIENCE`] is over.
pub fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        std::process::exit(9);
    });
    Some(role)
}

/// Tells the test a line.
pub fn say(line: &str) {
    // One write, so that lines of several ranks do not mix.
    std::io::stdout().write_all(format!("\n{MARK}{line}\n").as_bytes()).unwrap();
}

/// The arguments by which this program runs one test.
pub fn arguments(test: &str) -> [&str; 5] {
    ["--exact", test, "--nocapture", "--test-threads", "1"]
}

/// Ends this process as `kill -9` does.
pub fn die() -> ! {
    kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// This machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What this process has used of the processors, all its threads together.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// True if there is no `mpirun`, which is said.
pub fn lacks_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_found = found.is_ok_and(|status| status.success());
    if !is_found {
        skip("mpirun", "it is not installed (Debian: openmpi-bin, libpmix2)");
    }
    !is_found
}

/// True if there is no `mpirun` of MPICH, which is said.
pub fn lacks_mpich() -> bool {
    let found = Command::new(MPICH).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_found = found.is_ok_and(|status| status.success());
    if !is_found {
        skip("mpich", "mpirun.mpich is not installed (Debian: mpich)");
    }
    !is_found
}

/// True if the machine has no UCX, which is said.
pub fn lacks_ucx() -> bool {
    let listed = crate::command("ldconfig").arg("-p").output();
    let is_found = listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains("libucp.so.0"));
    if !is_found {
        skip("ucx", "it is not installed (Debian: libucx0)");
    }
    !is_found
}

/// A test's launcher, with a folder of its own.
pub struct Launch {
    command: Command,
    test: &'static str,
    is_first: bool,
    folder: tempfile::TempDir,
    shm: Option<PathBuf>,
}

/// What came of it.
pub struct Ended {
    /// How the launcher ended.
    pub status: ExitStatus,
    /// What it and the ranks wrote.
    pub text: String,
    /// Names of what is left in the launch's folder for shared memory.
    pub left: Vec<String>,
}

impl Launch {
    /// Open MPI's `mpirun`, of ranks that run `test` in a role.
    pub fn new(test: &'static str, role: &str) -> Launch {
        let mut command = Command::new("mpirun");
        with_mpirun_settings(&mut command);
        Launch::by(command, test, role)
    }

    /// MPICH's `mpirun`, of ranks that run `test` in a role.
    pub fn mpich(test: &'static str, role: &str) -> Launch {
        let mut command = Command::new(MPICH);
        command.stdin(Stdio::null());
        Launch::by(command, test, role)
    }

    /// No launcher: this program once, in a role.
    pub fn alone(test: &'static str, role: &str) -> Launch {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments(test)).stdin(Stdio::null());
        Launch::by(command, test, role)
    }

    /// Another launcher, whose ranks all share a folder for shared memory that is theirs alone.
    pub fn by(command: Command, test: &'static str, role: &str) -> Launch {
        let mut launch = Launch::far(command, test, role);
        let shm = launch.folder.path().join("shm");
        std::fs::create_dir(&shm).unwrap();
        launch.command.env("TARRAGON_SHM", &shm);
        launch.shm = Some(shm);
        launch
    }

    /// A launcher of ranks that use their machines' own folders for shared memory.
    pub fn far(mut command: Command, test: &'static str, role: &str) -> Launch {
        let folder = tempfile::tempdir().unwrap();
        command.env(ROLE, role);
        // Where a rank was killed `srun` drops what it has not yet been told of the others when the last of them ends:
        // so each writes to a file, and not through it.
        // *Source:* Slurm, `slurm_step_launch_wait_finish`.
        if [command.get_program()].into_iter().chain(command.get_args()).any(|word| word == "srun") {
            command.arg(format!("--output={}/{RANK_OUTPUT}%t", folder.path().display()));
        }
        Launch { command, test, is_first: true, folder, shm: None }
    }

    /// One more option of the launcher.
    #[must_use]
    pub fn option(mut self, option: &str) -> Launch {
        self.command.arg(option);
        self
    }

    /// What `mpirun` needs in its environment here, for those that are started below.
    #[must_use]
    pub fn with_mpirun_environment(mut self) -> Launch {
        with_mpirun_environment(&mut self.command);
        self
    }

    /// A variable of the environment of all ranks that `mpirun` hands on.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.command.env(name, value);
        self
    }

    /// More ranks, of this program.
    #[must_use]
    pub fn ranks(self, count: u32) -> Launch {
        let program = std::env::current_exe().unwrap();
        self.ranks_of(count, &[], &program)
    }

    /// More ranks, of another program, behind the words of a command that starts it.
    #[must_use]
    pub fn ranks_of(mut self, count: u32, before: &[&str], program: &Path) -> Launch {
        if !std::mem::take(&mut self.is_first) {
            self.command.arg(":");
        }
        self.command.args(["-n", &count.to_string()]).args(before).arg(program).args(arguments(self.test));
        self
    }

    /// Runs it to its end, which comes in time or by force.
    pub fn run(self) -> Ended {
        self.run_beside(|_| ())
    }

    /// As [`Launch::run`], and does something meanwhile, which is given what the ranks have written so far.
    pub fn run_beside(mut self, meanwhile: impl FnOnce(&dyn Fn() -> String)) -> Ended {
        let path = self.folder.path().join(OUTPUT);
        let file = File::create(&path).unwrap();
        self.command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut launcher = self.command.spawn().unwrap();
        let text = || written(self.folder.path());
        meanwhile(&text);
        let status = wait(&mut launcher);
        let entries = self.shm.iter().flat_map(|shm| std::fs::read_dir(shm).unwrap());
        let left = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        Ended { status, text: text(), left }
    }
}

impl Ended {
    /// What the ranks have said, sorted.
    pub fn said(&self) -> Vec<&str> {
        let mut said: Vec<&str> = self.text.lines().filter_map(|line| line.strip_prefix(MARK)).collect();
        said.sort_unstable();
        said
    }

    /// # Panics
    /// If the launcher failed, or something is left.
    pub fn expect_success(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.text);
        assert_eq!(self.left, Vec::<String>::new());
    }
}

/// What the launcher and its ranks have written so far.
fn written(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| name(path) == OUTPUT || name(path).starts_with(RANK_OUTPUT)).collect();
    files.sort();
    files.iter().map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()).collect()
}

/// What `mpirun` needs to start more ranks than there are cores, as any user.
pub(crate) fn with_mpirun_settings(command: &mut Command) {
    command.args(["--oversubscribe", "--bind-to", "none"]).stdin(Stdio::null());
    with_mpirun_environment(command);
}

fn with_mpirun_environment(command: &mut Command) {
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
}

/// Waits for a launcher; asks it to end when it takes too long, and then forces it.
fn wait(launcher: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    let pid = Pid::from_raw(launcher.id() as i32).unwrap();
    let mut is_asked = false;
    loop {
        if let Some(status) = launcher.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE && !is_asked {
            is_asked = true;
            kill_process(pid, Signal::TERM).unwrap();
        }
        if begin.elapsed() > PATIENCE + Duration::from_secs(10) {
            launcher.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
