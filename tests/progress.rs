//! The line on the terminal: it is there under a pseudo-terminal, and is not where there is none.

use std::process::{Command, Output};
use std::time::Duration;
use tarragon::{Batch, Progress, Workers};

/// Set in the process that the tests start: this program again, which draws.
const DRAWS: &str = "TARRAGON_TEST_DRAWS";

fn nap(i: u64) -> Result<u64, std::io::Error> {
    std::thread::sleep(Duration::from_millis(30));
    if i == 3 { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(i) }
}

/// Not a test of its own: what the others start.
#[test]
fn drawn() {
    if std::env::var_os(DRAWS).is_none() {
        return;
    }
    let batch = Batch::builder().workers(Workers::Threads(2)).build().expect("a batch");
    let naps: Vec<_> = (0..40u64).map(|i| batch.function(nap, (i,))).collect();
    let compiled = batch.compile(&naps).expect("a list");
    let progress = Progress::watch(&compiled);
    compiled.run().expect_err("one fails");
    drop(progress);
}

fn output(command: &mut Command) -> Output {
    command.env(DRAWS, "1").env("TERM", "xterm").output().expect("it starts")
}

fn this_program() -> String {
    let program = std::env::current_exe().expect("this program");
    program.to_str().expect("a path that is text").to_string()
}

#[test]
fn a_terminal_shows_counts_rate_and_failures() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: script: util-linux is missing");
        return;
    }
    let line = format!("stty cols 150 2>/dev/null; '{}' --exact drawn --nocapture", this_program());
    let shown = output(Command::new("script").args(["-qec", &line, "/dev/null"]));
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success(), "{text}");
    assert!(text.contains("/40 tasks, 2 running"), "{text}");
    assert!(text.contains("/s, ") && text.contains(" left"), "rate and time left: {text}");
    let last = text.rfind("/40 tasks").expect("the last line");
    assert!(text[..last].ends_with("40"), "it goes on to the end: {text}");
    assert!(text[last..].starts_with("/40 tasks, 0 running, 1 failed"), "{text}");
}

#[test]
fn without_a_terminal_nothing_is_drawn() {
    let quiet = output(Command::new(this_program()).args(["--exact", "drawn", "--nocapture"]));
    assert!(quiet.status.success());
    assert!(!String::from_utf8_lossy(&quiet.stderr).contains("tasks"), "{quiet:?}");
}
