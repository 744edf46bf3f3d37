//! A process that is killed while it appends: this test starts itself.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Where the child writes; only the child has it.
const PATH_VARIABLE: &str = "TARRAGON_TEST_JOURNAL";
const SYNC_VARIABLE: &str = "TARRAGON_TEST_JOURNAL_EACH";
/// What the child says when so many records must be there, with the number after it.
const SAFE: &str = "safe:";

/// Not a test of its own: the process that is killed.
#[test]
fn child() {
    let Some(path) = std::env::var_os(PATH_VARIABLE) else { return };
    let each = std::env::var_os(SYNC_VARIABLE).is_some();
    let sync = if each { Sync::EachRecord } else { Sync::Never };
    let journal = Journal::open(Path::new(&path), Options { sync, ..NEW }).unwrap();
    for n in 0.. {
        journal.append(&entry(n)).unwrap();
        if !each && n % 50 == 49 {
            journal.flush().unwrap();
        }
        if each || n % 50 == 49 {
            let mut out = std::io::stdout().lock();
            // Fails when the parent is gone: then this process has to go, too.
            writeln!(out, "{SAFE}{}", n + 1).and_then(|()| out.flush()).unwrap();
        }
    }
}

fn kill_after(safe_min: u32, each: bool) {
    let folder = folder();
    let path = folder.path().join("journal");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "journal::tests::crash::child", "--nocapture"]);
    command.env(PATH_VARIABLE, &path).stdout(Stdio::piped());
    if each {
        command.env(SYNC_VARIABLE, "1");
    }
    let mut child = command.spawn().unwrap();
    // Kept until the end: a child without a reader would end by itself.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let safe = lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(|line| line.split_once(SAFE).map(|(_, count)| count.parse::<u32>().unwrap()))
        .find(|&safe| safe >= safe_min);
    let locked = matches!(Journal::open(&path, RESUME), Err(JournalError::Locked { .. }));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(locked, "the living one has the lock");
    let safe = safe.expect("the child appends until it is killed");
    let journal = Journal::open(&path, RESUME).unwrap();
    let count = u32::try_from(journal.past_len()).unwrap();
    assert!(count >= safe, "{count} records, {safe} were safe");
    assert_eq!(remembered(&journal, count), (0..count).collect::<Vec<_>>(), "without gaps");
}

#[test]
fn what_was_flushed_survives_a_kill() {
    [50, 400, 1500].into_iter().for_each(|safe_min| kill_after(safe_min, false));
}

#[test]
fn what_was_synced_survives_a_kill() {
    [1, 30].into_iter().for_each(|safe_min| kill_after(safe_min, true));
}
