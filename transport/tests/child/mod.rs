//! Processes for tests: the test binary runs itself again as one test in a role. Every child is killed when its handle
//! goes, also when the test panics.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

const ROLE: &str = "TARRAGON_TEST_ROLE";
/// Lines of a child's that are for its parent; the test harness prints others.
const MARK: &str = "##";

/// The longest that a child may take.
const LIFE: std::time::Duration = std::time::Duration::from_secs(100);

/// A child that plays a role.
pub(crate) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// The role this process plays in `test`, if it is a child.
pub(crate) fn role(test: &str) -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    let role = role.strip_prefix(test)?.strip_prefix(':')?.to_owned();
    // A child that hangs ends all the same, and its parent's test fails.
    std::thread::spawn(|| {
        std::thread::sleep(LIFE);
        std::process::exit(9);
    });
    Some(role)
}

/// In a child: says a line to its parent.
pub(crate) fn say(line: &str) {
    println!("\n{MARK}{line}");
}

/// In a child: waits for a line of its parent; ends the process if there is no parent any more.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(3);
    }
    line.trim().to_owned()
}

impl Child {
    /// Starts this binary's `test` in a role.
    pub(crate) fn start(test: &str, role: &str) -> Self {
        Self::start_in(test, role, None)
    }

    /// The same, with another folder for shared memory.
    pub(crate) fn start_in(test: &str, role: &str, folder: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(ROLE, format!("{test}:{role}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(folder) = folder {
            command.env("TARRAGON_SHM", folder);
        }
        let mut process = command.spawn().unwrap();
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdin, stdout }
    }

    /// Waits for its next line.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the child ended without a word");
            if let Some(said) = line.trim_end().strip_prefix(MARK) {
                return said.to_owned();
            }
        }
    }

    /// Says a line to it.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Kills it, as `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Kills it; it must not have ended by itself, for a check of its own that failed.
    pub(crate) fn kill_running(&mut self) {
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "the child ended by itself: {ended:?}");
        self.kill();
    }

    /// Waits for its end; what it prints is thrown away.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).unwrap_or(0) > 0 {
            line.clear();
        }
        self.process.wait().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
