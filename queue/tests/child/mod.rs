//! Starts this test program again, as a process that plays one role, and ends it with the test.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::process::{Child, Command, Stdio};

/// A process of the test. Killed when dropped.
pub(crate) struct Role(Child);

impl Role {
    /// Runs the test called `test` in a process of its own, with these words for it.
    pub(crate) fn start(test: &str, words: &[&str]) -> Self {
        let program = std::env::current_exe().expect("a test knows its program");
        let mut command = Command::new(program);
        command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
        command.env("TARRAGON_TEST_ROLE", words.join("\n"));
        Self(command.stdout(Stdio::null()).spawn().expect("the program can be started again"))
    }

    /// Stops it wherever it is, and waits until it has stopped.
    pub(crate) fn stop(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::STOP).expect("it is our child");
        waitpid(Some(pid), WaitOptions::UNTRACED).expect("it is our child");
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.0), Signal::CONT).expect("it is our child");
    }

    /// Kills it without warning.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Whether it ended well, by itself.
    pub(crate) fn wait(&mut self) -> bool {
        self.0.wait().expect("it is our child").success()
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.end();
    }
}

/// The words of this process's role; `None` in the test itself. A role ends with the test.
pub(crate) fn role() -> Option<Vec<String>> {
    let words = std::env::var("TARRAGON_TEST_ROLE").ok()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("a process may ask for that");
    Some(words.split('\n').map(str::to_owned).collect())
}
