//! What the tests of faults share: a directory and a mark for the processes of one test, batches that let go when a
//! test fails, this test program executed again, waiting with a deadline, and looking at `/proc`.

use rustix::process::{Pid, Signal, getpid, kill_process};
use std::fs;
use std::io::Read as _;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Builder, Exit, Task, Workers};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long supervisors may take to end all, when a test has failed.
const GOING_MAX: Duration = Duration::from_secs(10);
/// The variable by which processes of one test are found.
const MARK: &str = "TARRAGON_FAULTS_MARK";
/// The variable that tells an executed test program that it is the inner one, and its directory.
const INNER: &str = "TARRAGON_FAULTS_INNER";

/// A directory and a mark. When it goes, whatever still bears the mark is killed.
pub(crate) struct Rig {
    mark: String,
    dir: PathBuf,
    own: Option<tempfile::TempDir>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let own = tempfile::Builder::new().prefix("tarragon-faults-").tempdir().expect("a directory");
        Self { mark, dir: own.path().to_path_buf(), own: Some(own) }
    }

    /// In a test program that was executed [`again`](Self::again): the outer one's directory and mark. The inner one
    /// kills itself when the outer one is gone.
    pub(crate) fn inner() -> Option<Self> {
        let dir = PathBuf::from(std::env::var_os(INNER)?);
        std::thread::spawn(|| {
            // The outer end of this pipe closes however the outer program goes.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = kill_process(getpid(), Signal::KILL);
        });
        Some(Self { mark: std::env::var(MARK).expect("the outer mark"), dir, own: None })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").expect("a file");
    }

    pub(crate) fn builder(&self, cpus: u32) -> Builder {
        Batch::builder().workers(Workers::Threads(2)).assume_cpus(cpus).run_dir(self.path("runs"))
    }

    pub(crate) fn batch(&self, cpus: u32) -> Ours {
        self.build(self.builder(cpus))
    }

    pub(crate) fn build(&self, builder: Builder) -> Ours {
        Ours(builder.build().expect("a batch"))
    }

    /// A shell in the directory, marked.
    pub(crate) fn sh(&self, batch: &Batch, script: &str) -> Task<Exit> {
        self.marked(batch.process("/bin/sh").arg("-c").arg(script))
    }

    pub(crate) fn marked(&self, task: Task<Exit>) -> Task<Exit> {
        task.env(MARK, self.mark.as_str()).cwd(&self.dir)
    }

    /// A process that is this program, executed again.
    pub(crate) fn inside(&self, task: Task<Exit>) -> Task<Exit> {
        task.env(INNER, self.dir.as_path())
    }

    /// Executes this program once more, for one test, which finds the directory by [`inner`](Self::inner). `setting`
    /// is what a shell does before.
    pub(crate) fn again(&self, test: &str, setting: &str) -> Again {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("{setting}\nexec \"$0\" --exact \"$1\" --nocapture")])
            .arg(program)
            .arg(format!("faults::{test}"))
            .env(INNER, &self.dir)
            .env(MARK, &self.mark)
            .stdin(Stdio::piped())
            .spawn()
            .expect("this program again");
        Again(child)
    }

    /// The pids of living processes that bear the mark.
    pub(crate) fn living(&self) -> Vec<u32> {
        let entry = format!("{MARK}={}", self.mark);
        let bears = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|it| it == entry.as_bytes())
        };
        processes().into_iter().filter(|it| it.is_alive()).map(|it| it.pid).filter(bears).collect()
    }

    /// Waits until no process bears the mark; one that was being born during a look is seen by the next.
    pub(crate) fn wait_gone(&self) {
        for _ in 0..2 {
            wait_until("all processes of the test are gone", || self.living().is_empty());
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.own.is_none() {
            return;
        }
        // A supervisor among them knows better what else there is to end, so it gets some time.
        let deadline = Instant::now() + GOING_MAX;
        while !self.living().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.living().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    }
}

/// A batch that waits for nothing when a test has failed.
pub(crate) struct Ours(Batch);

impl Deref for Ours {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.0
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

/// This program, executed again.
pub(crate) struct Again(Child);

impl Again {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its test to pass.
    pub(crate) fn passes(mut self) {
        let mut status: Option<ExitStatus> = None;
        let patience = if is_long() { PATIENCE * 60 } else { PATIENCE * 2 };
        wait_within(patience, "the inner test ends", || {
            status = self.0.try_wait().expect("its status");
            status.is_some()
        });
        assert!(status.is_some_and(|it| it.success()), "the inner test failed: {status:?}");
    }

    /// Kills it as nobody can prevent.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is ours");
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // It may have been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A small file system, unmounted when it goes.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None` if mounting is refused here.
    pub(crate) fn mount(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tarragon-faults"]).arg(&path).stderr(Stdio::null());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then_some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: somebody may still look at it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// One process as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    state: char,
    name: String,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = (line.split_once('(')?.1, line.rsplit_once(')')?.1);
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self { pid, parent, state, name: name.rsplit_once(')')?.0.to_string() })
    }

    pub(crate) fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// All processes of this machine.
pub(crate) fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("the processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// The supervisor of this program, once it is one.
pub(crate) fn supervisor() -> Option<u32> {
    let is_it =
        |it: &Process| it.parent == std::process::id() && it.is_alive() && it.name == "tarragon-superv";
    processes().into_iter().find(is_it).map(|it| it.pid)
}

/// A number from `/proc/PID/status`, in bytes where that says `kB`.
pub(crate) fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let mut words = line.unwrap_or("0").split_ascii_whitespace();
    let number: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    if words.next() == Some("kB") { number << 10 } else { number }
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid is positive");
    // It may be gone.
    let _ = kill_process(pid, signal);
}

pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, is_so);
}

fn wait_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

pub(crate) fn is_long() -> bool {
    std::env::var_os("TARRAGON_TEST_LONG").is_some()
}
