//! `tarragon run` and `tarragon check`, run as a user would.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(50);

fn tarragon(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tarragon"));
    command
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let output = tarragon(folder, words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

const ECHO: &str = "args: [a, b]\ntype: process\nexecutables: [{target: echo, args: [a, b]}]\n";

/// Two steps that are listed in the order of their data, and a reduction behind both.
const FLOW: &str = "
steps:
  - ptd:
      args: [i]
      type: process
      executables: [{target: sh, args: [-c, {format: ['echo {i} > {i}.in; echo {i} >> made']}]}]
      writes: [{files: [{format: ['{}.in', i]}]}]
    for: {i: 0..4}
  - ptd:
      args: [i]
      type: process
      executables: [{target: sh, args: [-c, {format: ['read x < {i}.in; echo $((x * x)) > {i}.out']}]}]
      reads: [{files: [{format: ['{}.in', i]}]}]
      writes: [{files: [{format: ['{}.out', i]}]}]
    for: {i: 0..4}
sequence:
  - ptd: {type: process, executables: [{target: sh, args: [-c, 'sleep 0.2; echo first']}]}
  - ptd: {type: process, executables: [{target: sh, args: [-c, 'echo second']}]}
";

#[test]
fn a_template_runs_for_each_row() {
    let folder = folder(&[("echo.yml", ECHO)]);
    let (code, out, err) =
        run(folder.path(), &["run", "echo.yml", "--set", "b=x y", "--for", "a=0..3", "-j", "4"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "0 x y\n1 x y\n2 x y\n", ""));
    let (_, out, _) = run(folder.path(), &["run", "echo.yml", "--for", "a=0..2", "--for", "b=p,q", "--zip"]);
    assert_eq!(out, "0 p\n1 q\n");
    assert!(
        folder.path().join(".tarragon/journal").exists() && folder.path().join(".tarragon/before").exists()
    );
}

#[test]
fn steps_wait_for_the_files_and_blocks_before_them() {
    let folder = folder(&[("flow.yml", FLOW)]);
    let (code, out, err) = run(folder.path(), &["run", "flow.yml", "-j", "4"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "first\nsecond\n", ""));
    for i in 0..4 {
        assert_eq!(
            fs::read_to_string(folder.path().join(format!("{i}.out"))).unwrap(),
            format!("{}\n", i * i)
        );
    }
}

#[test]
fn what_is_done_is_not_done_again_by_who_resumes() {
    let folder = folder(&[("flow.yml", FLOW)]);
    assert_eq!(run(folder.path(), &["run", "flow.yml"]).0, Some(0));
    fs::remove_file(folder.path().join("2.out")).unwrap();
    let (code, out, err) = run(folder.path(), &["run", "flow.yml", "--resume"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "first\nsecond\n", ""));
    let made = || fs::read_to_string(folder.path().join("made")).unwrap().lines().count();
    assert_eq!(made(), 4, "inputs were there");
    assert_eq!(fs::read_to_string(folder.path().join("2.out")).unwrap(), "4\n");
    assert_eq!(run(folder.path(), &["run", "flow.yml"]).0, Some(0));
    assert_eq!(made(), 8, "without --resume all runs");
}

#[test]
fn a_killed_run_goes_on() {
    let slow = "
args: [i]
type: process
executables: [{target: sh, args: [-c, {format: ['echo {i} >> ran; sleep 0.1; touch {i}.done']}]}]
writes: [{files: [{format: ['{}.done', i]}]}]
";
    let folder = folder(&[("slow.yml", slow)]);
    let words = ["run", "slow.yml", "--for", "i=0..20", "-j", "2", "--resume"];
    let start = Instant::now();
    let mut kills = 0;
    loop {
        let mut child = tarragon(folder.path(), &words).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
            kills += 1;
        }
        if child.wait().unwrap().code() == Some(0) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it does not get on");
    }
    let ran = fs::read_to_string(folder.path().join("ran")).unwrap().lines().count();
    // What ran when it was killed runs again, and what was not in the journal yet.
    assert!((20..20 + 20 * (kills + 1)).contains(&ran), "{ran} runs, {kills} kills");
    assert!((0..20).all(|i| folder.path().join(format!("{i}.done")).exists()));
}

const FAILS: &str = "
args: [i]
type: process
executables: [{target: sh, args: [-c, {format: ['echo ran {i}; [ {i} != 1 ] || exit 3']}]}]
name: {format: ['step_{}', i]}
";

#[test]
fn a_failure_ends_the_run_unless_it_is_to_go_on() {
    let folder = folder(&[("fails.yml", FAILS)]);
    let (code, out, err) = run(folder.path(), &["run", "fails.yml", "--for", "i=0..400", "-j", "1"]);
    assert_eq!(code, Some(1));
    assert!(out.starts_with("ran 0\nran 1\n") && !out.contains("ran 399"), "{out}");
    assert!(err.contains("task 1 `step_1` failed: exit code 3: sh -c "), "{err}");
    assert!(err.contains("1 failed, ") && err.contains(" not done; --resume goes on"), "{err}");
    let (code, out, err) =
        run(folder.path(), &["run", "fails.yml", "--for", "i=0..40", "-j", "2", "--keep-going"]);
    assert_eq!((code, out.lines().count()), (Some(1), 40));
    assert!(err.contains("1 failed, 39 done, 0 not done"), "{err}");
}

#[test]
fn mistakes_are_told_with_their_places_before_anything_runs() {
    let wrong = "args: [a]\ntype: proces\nexecutable: [{target: touch, args: [x]}]\n";
    let folder = folder(&[("wrong.yml", wrong), ("echo.yml", ECHO)]);
    for words in [&["run", "wrong.yml", "--for", "a=0..2"][..], &["check", "wrong.yml", "--for", "a=0..2"]] {
        let (code, out, err) = run(folder.path(), words);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains("wrong.yml:2:7: ") && err.contains("wrong.yml:3:1: "), "{err}");
    }
    let (code, _, err) = run(folder.path(), &["run", "echo.yml", "--set", "a=1"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("`b`"), "{err}");
    let (code, _, err) = run(folder.path(), &["run", "nowhere.yml"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("nowhere.yml"), "{err}");
    let (code, _, err) = run(folder.path(), &["run", "echo.yml", "--set", "b=1", "--for", "a=glob:*.none"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--for a=glob:*.none: no file matches"), "{err}");
    assert!(!folder.path().join(".tarragon").exists());
    let good = run(folder.path(), &["check", "echo.yml", "--set", "a=1", "--set", "b=2"]);
    assert_eq!(good, (Some(0), String::new(), String::new()));
}

#[test]
fn a_dry_run_prints_the_commands_in_order() {
    let folder = folder(&[("flow.yml", FLOW)]);
    let (code, out, err) = run(folder.path(), &["run", "flow.yml", "--dry-run"]);
    assert_eq!((code, out.lines().count(), err.as_str()), (Some(0), 10, ""));
    assert!(out.ends_with("sh -c 'echo second'\n"), "{out}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn more_calls_than_one_list_holds_run_in_order() {
    let folder = folder(&[("echo.yml", ECHO)]);
    let (code, out, err) = run(folder.path(), &["run", "echo.yml", "--set", "b=x", "--for", "a=0..8300"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out == (0..8300).map(|i| format!("{i} x\n")).collect::<String>());
}

#[test]
fn ctrl_c_ends_it_and_it_can_go_on() {
    let folder = folder(&[(
        "sleep.yml",
        "{args: [i], type: process, \
          executables: [{target: sh, args: [-c, {format: ['echo > {i}.ran; sleep {}', i]}]}]}",
    )]);
    let words = ["run", "sleep.yml", "--for", "i=0,1000", "-j", "1"];
    let mut child = tarragon(folder.path(), &words).spawn().unwrap();
    let start = Instant::now();
    while !folder.path().join("1000.ran").exists() {
        assert!(start.elapsed() < PATIENCE, "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("interrupted: 1 done, 0 failed, 1 not done; --resume goes on"), "{err}");
}
