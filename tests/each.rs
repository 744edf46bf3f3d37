//! `tarragon each`, run as a user would.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes, shorter than what must not be waited for.
const PATIENCE: Duration = Duration::from_secs(50);

fn each(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tarragon"));
    command.arg("each").args(words).current_dir(folder).env("TMPDIR", folder.join("tmp"));
    fs::create_dir_all(folder.join("tmp")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    said(folder, each(folder, words).output().unwrap())
}

/// Exit code, output and complaints of one that leaves nothing behind.
fn said(folder: &Path, output: Output) -> (Option<i32>, String, String) {
    let left: Vec<_> = fs::read_dir(folder.join("tmp")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn output_comes_in_the_order_of_the_rows() {
    let folder = folder();
    let words = ["sleep 0.{t}; echo {t} {f}; echo e{t} >&2", "--for", "t=3,2,1", "--for", "f=x,y", "-j", "6"];
    let (code, out, err) = run(folder.path(), &words);
    assert_eq!((code, out.as_str()), (Some(0), "3 x\n3 y\n2 x\n2 y\n1 x\n1 y\n"));
    assert_eq!(err, "e3\ne3\ne2\ne2\ne1\ne1\n");
    let (_, out, _) = run(folder.path(), &["echo {a}{b} {#}", "--for", "a=0..2", "--for", "b=p,q", "--zip"]);
    assert_eq!(out, "0p 1\n1q 2\n");
}

#[test]
fn as_many_run_at_a_time_as_were_asked_for() {
    let folder = folder();
    // Each waits until all have begun.
    let script = "touch {i}.here; while [ $(ls *.here | wc -l) -lt 9 ]; do sleep 0.01; done";
    let (code, _, err) = run(folder.path(), &[script, "--for", "i=0..9", "-j", "9", "--timeout", "40s"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn lines_run_as_they_come() {
    let folder = folder();
    let mut child = each(folder.path(), &["echo", "got"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for word in ["one", "two words", "$(three)"] {
        writeln!(to, "{word}").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(line, format!("got {word}\n"));
    }
    drop(to);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn failures_are_told_and_logged_and_stop_nothing() {
    let folder = folder();
    let words = ["echo out; exit {i}", "--for", "i=0..4", "--joblog", "log", "--retries", "1"];
    let (code, out, err) = run(folder.path(), &words);
    assert_eq!((code, out.as_str()), (Some(1), "out\nout\nout\nout\n"));
    assert!(err.contains("row 3 failed: exit code 2: echo out; exit 2\n"), "{err}");
    assert!(err.ends_with("3 of 4 commands failed\n"), "{err}");
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split('\t').collect()).collect();
    let wanted = "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command";
    assert_eq!(lines[0], wanted.split(' ').collect::<Vec<_>>());
    assert_eq!(lines.len(), 5);
    for (row, line) in lines[1..].iter().enumerate() {
        let ended = (line[0], line[5], line[6], line[7], line[8]);
        let (number, code) = ((row + 1).to_string(), row.to_string());
        assert_eq!(ended, (&*number, "4", &*code, "0", &*format!("echo out; exit {row}")));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let (began, took): (f64, f64) = (line[2].parse().unwrap(), line[3].trim().parse().unwrap());
        assert!(now - began < PATIENCE.as_secs_f64() && began <= now && took < PATIENCE.as_secs_f64());
    }
}

#[test]
fn what_fails_at_first_is_tried_again() {
    let folder = folder();
    let script = "echo x >> tries; [ $(wc -l < tries) -ge 3 ]";
    assert_eq!(run(folder.path(), &[script, "--for", "i=0..1", "--retries", "2"]).0, Some(0));
    assert_eq!(fs::read_to_string(folder.path().join("tries")).unwrap(), "x\nx\nx\n");
}

#[test]
fn after_so_many_failures_what_runs_is_ended() {
    let folder = folder();
    let start = Instant::now();
    let words = [
        "[ {i} -lt 2 ] || exec sleep 1000; exit 7",
        "--for",
        "i=0..1000000",
        "-j",
        "4",
        "--max-failures",
        "2",
    ];
    let (code, _, err) = run(folder.path(), &words);
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("2 of 2 commands failed; ") && err.contains(" more were not run to their end"),
        "{err}"
    );
}

/// Once the output of rows that had ended, behind the one that failed, was thrown away.
#[test]
fn what_has_ended_before_the_last_failure_is_printed() {
    let folder = folder();
    // The first one fails when the second one has ended and was waited for.
    let script = "[ {i} = 0 ] || { echo {i}; echo $$ > pid; exit; }; \
        while [ ! -s pid ] || [ -e /proc/$(cat pid) ]; do sleep 0.01; done; exit 1";
    let (code, out, _) = run(folder.path(), &[script, "--for", "i=0..2", "-j", "2", "--max-failures", "1"]);
    assert_eq!((code, out.as_str()), (Some(1), "1\n"));
}

#[test]
fn what_takes_too_long_is_ended() {
    let folder = folder();
    let (code, _, err) = run(folder.path(), &["sleep 1000", "--for", "i=0..2", "--timeout", "200ms"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("row 1 failed: it ran longer than its timeout: sleep 1000\n"), "{err}");
}

#[test]
fn results_are_kept_by_row() {
    let folder = folder();
    let words = ["echo {i}; echo no >&2; exit {i}", "--for", "i=0..2", "--results", "a/b"];
    let (code, out, err) = run(folder.path(), &words);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(!err.contains("no\n"), "{err}");
    let read = |name: &str| fs::read_to_string(folder.path().join("a/b").join(name)).unwrap();
    assert_eq!(["1.out", "2.out", "1.err"].map(read), ["0\n", "1\n", "no\n"]);
    let mut names: Vec<_> =
        fs::read_dir(folder.path().join("a/b")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1.err", "1.out", "2.err", "2.out"]);
}

#[test]
fn a_dry_run_runs_nothing() {
    let folder = folder();
    let (code, out, err) = run(folder.path(), &["touch {f}", "--for", "f=a b,c", "--dry-run"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "touch 'a b'\ntouch c\n", ""));
    let touched = fs::read_dir(folder.path()).unwrap().filter(|it| it.as_ref().unwrap().file_name() != "tmp");
    assert_eq!(touched.count(), 0);
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let folder = folder();
    for (words, part) in [
        (&["touch x", "--for", "i=3..3"][..], "`i=3..3` is empty"),
        (&["touch {ii}", "--for", "i=0..3"], "no `--for` names the `{ii}`"),
        (&["touch x", "--for", "f=@nowhere"], "the values of `f` are not there: nowhere"),
        (&["touch x", "--for", "i=0..3", "-j", "0"], "0 is not in 1.."),
        (&["touch x", "--for", "i=0..3", "--timeout", "soon"], "`soon` is no time"),
        (&["touch x", "--for", "i=0..3", "--joblog", "no/log"], "the log no/log"),
        (&["touch x", "--for", "i=0..3", "--results", "/dev/null/x"], "--results /dev/null/x"),
        (&["touch x", "--for", "i=0..3", "--for", "j=0..2", "--zip"], "`i` has 3, `j` has 2"),
        (&[][..], "required"),
    ] {
        let (code, _, err) = run(folder.path(), words);
        assert_eq!(code, Some(2), "{words:?}: {err}");
        assert!(err.contains(part), "{words:?}: {err}");
        assert!(!folder.path().join("x").exists());
    }
}

fn ends_within_patience(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if start.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it did not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[test]
fn it_ends_when_nobody_reads_its_output() {
    let folder = folder();
    let script =
        "[ {i} = 0 ] || while [ ! -e closed ]; do sleep 0.01; done; echo; [ {i} -lt 3 ] || sleep 1000";
    let mut child = each(folder.path(), &[script, "--for", "i=0..100000", "-j", "2"]).spawn().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    from.read_line(&mut String::new()).unwrap();
    drop(from);
    fs::write(folder.path().join("closed"), "").unwrap();
    assert_eq!(ends_within_patience(&mut child), Some(1));
    let (_, _, err) = said(folder.path(), child.wait_with_output().unwrap());
    assert_eq!(err, "");
}

#[test]
fn ctrl_c_ends_what_runs() {
    let folder = folder();
    let words = ["echo here; echo $$ > pid; exec sleep 1000", "--for", "i=0..100", "-j", "1"];
    let mut child = each(folder.path(), &words).spawn().unwrap();
    let file = folder.path().join("pid");
    let start = Instant::now();
    let pid = loop {
        match fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i32>().ok()) {
            Some(pid) => break pid,
            None => assert!(start.elapsed() < PATIENCE, "nothing started"),
        }
    };
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(ends_within_patience(&mut child), Some(130));
    let (_, _, err) = said(folder.path(), child.wait_with_output().unwrap());
    assert!(err.contains("interrupted: 0 commands have ended, of which 0 failed; "), "{err}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the command outlives it");
}

#[test]
fn a_million_rows_are_no_trouble() {
    let folder = folder();
    let words = ["true", "--for", "i=0..1000000", "--dry-run"];
    let start = Instant::now();
    let (code, out, _) = run(folder.path(), &words);
    assert_eq!((code, out.lines().count()), (Some(0), 1_000_000));
    assert!(start.elapsed() < PATIENCE);
    // More than are compiled together.
    let (code, out, err) = run(folder.path(), &["echo {i}", "--for", "i=0..4500"]);
    let rows: String = (0..4500).map(|i| format!("{i}\n")).collect();
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out == rows, "in order");
}

#[test]
fn shells_can_complete_its_words() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef tarragon"), ("fish", "complete -c tarragon")]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tarragon")).args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains(sign), "{shell}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tarragon")).arg("man").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(".TH tarragon 1"));
}
