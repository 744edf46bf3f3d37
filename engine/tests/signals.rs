//! SIGINT and SIGTERM: once to stop in good order, twice to stop at once; SIGHUP: at once; nothing stays behind.

use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tarragon_engine::{Batch, Error, ErrorKind};
use tarragon_testbed::{Program, wait_until};

/// Not a test of its own: the program that gets the signals.
#[test]
fn child_program() {
    let Some(dir) = std::env::var_os("TARRAGON_TEST_DIR") else { return };
    let stubborn = std::env::var_os("TARRAGON_TEST_STUBBORN").is_some();
    let dir = Path::new(&dir);
    let batch = Batch::builder().assume_cpus(4).run_dir(dir).build().expect("a batch");
    let trap = if stubborn { "trap '' TERM; " } else { "" };
    let script = format!("{trap}echo $$ > pid.$$; while :; do sleep 0.05; done");
    let all: Vec<_> = (0..20)
        .map(|_| batch.process("/bin/sh").arg("-c").arg(&script).cwd(dir).grace(Duration::from_secs(30)))
        .collect();
    let compiled = batch.compile(&all).expect("a list");
    if std::env::var_os("TARRAGON_TEST_GOES").is_some() {
        // A task is a part of its batch.
        drop(all);
        return go(batch, compiled, dir);
    }
    let error = compiled.run().expect_err("it is interrupted");
    let cancelled = all.iter().filter(|t| t.wait().is_err_and(|e| e.kind() == ErrorKind::Cancelled)).count();
    let again = batch.process("true").run().expect_err("nothing starts any more");
    assert!(matches!(again, Error::Interrupted), "{again}");
    fs::write(dir.join("report"), format!("{cancelled} of {}: {error}", all.len())).expect("a file");
    if std::env::var_os("TARRAGON_TEST_STAYS").is_some() {
        std::thread::sleep(Duration::from_secs(60));
    }
    std::process::exit(7);
}

/// The processes that have begun.
fn begun(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_prefix("pid.")?.to_string())).collect()
}

/// The program runs processes, then has no batch, and does something else.
fn go(batch: Batch, compiled: tarragon_engine::Compiled, dir: &Path) {
    compiled.start().expect("a run");
    // The test starts to wait when four have begun.
    while begun(dir).len() < 4 {
        std::thread::sleep(Duration::from_millis(2));
    }
    compiled.cancel();
    assert!(compiled.wait().is_err());
    drop((compiled, batch));
    fs::write(dir.join("gone"), "").expect("a file");
    std::thread::sleep(Duration::from_secs(30));
    std::process::exit(7);
}

struct Watched {
    program: Program,
    dir: tempfile::TempDir,
}

impl Watched {
    fn start(variables: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "child_program"]).env("TARRAGON_TEST_DIR", dir.path());
        for variable in variables {
            command.env(variable, "1");
        }
        let watched = Self { program: Program::start(&mut command), dir };
        wait_until("four processes run", || watched.pids().len() == 4);
        watched
    }

    fn pids(&self) -> Vec<String> {
        begun(self.dir.path())
    }

    /// How it ended, once nothing of it is left.
    fn end(mut self) -> (ExitStatus, Option<String>) {
        let status = self.program.wait();
        let gone = |pid: &String| !Path::new("/proc").join(pid).exists();
        wait_until("all its processes are gone", || self.pids().iter().all(gone));
        (status, fs::read_to_string(self.dir.path().join("report")).ok())
    }
}

#[test]
fn one_interrupt_cancels_and_lets_the_program_report() {
    let watched = Watched::start(&[]);
    watched.program.signal(Signal::INT);
    let mut watched = watched;
    let status = watched.program.wait();
    assert_eq!(status.code(), Some(7), "the program ends as it likes");
    let report = fs::read_to_string(watched.dir.path().join("report")).expect("a report");
    assert!(report.starts_with("20 of 20: "), "{report}");
    assert_eq!(watched.pids().len(), 4, "nothing was started after the signal");
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let watched = Watched::start(&["TARRAGON_TEST_STUBBORN"]);
    watched.program.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    watched.program.signal(Signal::INT);
    let (status, report) = watched.end();
    assert_eq!(status.signal(), Some(2));
    assert_eq!(report, None);
}

#[test]
fn a_termination_ends_it_after_its_report() {
    let watched = Watched::start(&["TARRAGON_TEST_STAYS"]);
    watched.program.signal(Signal::TERM);
    let (status, report) = watched.end();
    assert_eq!(status.signal(), Some(15), "it had time to report, and then is ended");
    assert!(report.is_some_and(|r| r.starts_with("20 of 20")));
    let watched = Watched::start(&[]);
    watched.program.signal(Signal::TERM);
    let (status, _) = watched.end();
    assert_eq!(status.code(), Some(7), "or it ends by itself");
}

#[test]
fn a_hangup_ends_it_at_once() {
    let watched = Watched::start(&[]);
    watched.program.signal(Signal::HUP);
    let (status, report) = watched.end();
    assert_eq!(status.signal(), Some(1));
    assert_eq!(report, None);
}

#[test]
fn a_signal_ends_a_program_whose_batch_is_gone() {
    let mut watched = Watched::start(&["TARRAGON_TEST_GOES"]);
    wait_until("the batch is gone", || watched.dir.path().join("gone").exists());
    watched.program.signal(Signal::INT);
    let status = watched.program.wait();
    assert_eq!(status.signal(), Some(2), "nobody attends any more");
}
