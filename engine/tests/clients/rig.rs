//! What these tests share: a directory, this program executed again in a role, waiting with a deadline.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const ROLE: &str = "TARRAGON_CLIENTS_ROLE";
const ARGUMENT: &str = "TARRAGON_CLIENTS_ARGUMENT";
const DIRECTORY: &str = "TARRAGON_CLIENTS_DIRECTORY";

/// The role that starts ranks, which have no standard input of the test's.
pub(crate) const HOME: &str = "home";

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory for one test.
pub(crate) struct Rig {
    dir: PathBuf,
    _own: Option<tempfile::TempDir>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let own = tempfile::Builder::new().prefix("tarragon-clients-").tempdir().expect("a directory");
        Self { dir: own.path().to_path_buf(), _own: Some(own) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Whether there are so many files whose name begins so.
    pub(crate) fn has_all(&self, name: &str, n: usize) -> bool {
        let files = std::fs::read_dir(&self.dir).expect("the directory");
        files.flatten().filter(|it| it.file_name().to_string_lossy().starts_with(name)).count() >= n
    }

    pub(crate) fn touch(&self, name: &str) {
        self.write(name, "");
    }

    /// A file that is whole when it is there.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let part = self.path(&format!("{name}.part{}", std::process::id()));
        std::fs::write(&part, text).expect("a file");
        std::fs::rename(part, self.path(name)).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    pub(crate) fn start(&self, role: &str, argument: &str) -> Child {
        self.start_program(&std::env::current_exe().expect("this program"), role, argument)
    }

    pub(crate) fn start_program(&self, program: &Path, role: &str, argument: &str) -> Child {
        self.spawn(Command::new(program), role, argument)
    }

    /// As another user, who may not enter this directory, nor those above it or above the program perhaps.
    pub(crate) fn start_as(&self, user: u32, role: &str, argument: &str) -> Child {
        let mut command = Command::new("/proc/self/exe");
        command.uid(user);
        self.spawn_in(Path::new("/"), command, role, argument)
    }

    /// In a network namespace of its own.
    pub(crate) fn start_apart(&self, role: &str, argument: &str) -> Child {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe().expect("this program"));
        self.spawn(command, role, argument)
    }

    fn spawn(&self, command: Command, role: &str, argument: &str) -> Child {
        self.spawn_in(&self.dir, command, role, argument)
    }

    fn spawn_in(&self, place: &Path, mut command: Command, role: &str, argument: &str) -> Child {
        command.args(["--exact", "role", "--nocapture", "--test-threads=1"]).current_dir(place);
        command.env(ROLE, role).env(ARGUMENT, argument).env(DIRECTORY, &self.dir);
        Child(command.stdin(Stdio::piped()).spawn().expect("this program again"))
    }
}

/// Plays the role that this process was started for, if it was.
pub(crate) fn play(role: impl FnOnce(&str, &str, &Rig)) {
    let Ok(name) = std::env::var(ROLE) else { return };
    let argument = std::env::var(ARGUMENT).expect("its argument");
    let dir = std::env::var_os(DIRECTORY).expect("its directory").into();
    let is_home = name == HOME;
    std::thread::spawn(move || {
        if is_home {
            return;
        }
        // The other end of this pipe closes however the test's process goes.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        std::process::exit(4);
    });
    role(&name, &argument, &Rig { dir, _own: None });
}

/// This program, executed again.
pub(crate) struct Child(std::process::Child);

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its role to end well.
    pub(crate) fn passes(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("its status") {
                break status;
            }
            assert!(Instant::now() < deadline, "a client does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "a client failed: {status}");
    }

    /// Kills it as nobody can prevent.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is ours");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
