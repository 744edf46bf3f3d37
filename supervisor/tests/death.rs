//! What happens when the engine dies, when it lets go of the supervisor, when it stands still, and when the supervisor
//! dies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Rig, is_alive, lines_of, wait_gone};
use tarragon_supervisor::{Event, Request};

const ROLE: &str = "TARRAGON_SUPERVISOR_TEST_FOLDER";

/// Trees that are hard to kill: plain, ignoring TERM, and with daemons.
const TREES: &[&str] = &[
    "echo $$; sleep 1000; :",
    "trap '' TERM INT HUP; echo $$; while :; do sleep 0.02; done",
    "echo $$; setsid sh -c 'echo $$; sleep 1000; :' & (setsid sh -c 'trap \"\" TERM; echo $$; \
     while :; do sleep 0.02; done' &) ; wait",
    "echo $$; (setsid env -i /bin/sh -c 'echo $$; exec sleep 1000' &); exec sleep 1000",
];
/// How many pids each of them writes.
const PIDS: &[usize] = &[1, 1, 3, 2];

/// In the process that the tests start, the engine: starts the trees, writes the supervisor's pid, and sleeps.
#[test]
fn as_engine() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let folder = PathBuf::from(folder);
    let rig = Rig::new();
    for (id, tree) in TREES.iter().enumerate() {
        let out = folder.join(format!("tree.{id}"));
        rig.start_with(id as u64, tree, |spawn| spawn.stdout = &out);
    }
    std::fs::write(folder.join("rig"), rig.folder.path().as_os_str().as_encoded_bytes()).unwrap();
    std::fs::write(folder.join("supervisor"), format!("{}\n", rig.supervisor.pid())).unwrap();
    std::thread::sleep(Duration::from_secs(1000));
}

/// Starts an engine in `folder`; returns it, the supervisor's pid, and those of all trees.
fn start_engine(folder: &Path) -> (std::process::Child, u32, Vec<u32>) {
    let engine = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_engine"])
        .env(ROLE, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (supervisor, pids) = trees_of(folder);
    (engine, supervisor, pids)
}

/// Waits until the engine that works in `folder` has started all; returns the supervisor's pid and those of the trees.
fn trees_of(folder: &Path) -> (u32, Vec<u32>) {
    let mut pids = Vec::new();
    for (id, count) in PIDS.iter().enumerate() {
        let lines = lines_of(&folder.join(format!("tree.{id}")), *count);
        pids.extend(lines.iter().map(|line| line.trim().parse::<u32>().unwrap()));
    }
    let supervisor = lines_of(&folder.join("supervisor"), 1)[0].trim().parse().unwrap();
    (supervisor, pids)
}

/// Removes what the engine that worked in `folder` could not, because it was killed.
fn remove_rig_of(folder: &Path) {
    let rig = std::fs::read_to_string(folder.join("rig")).unwrap();
    std::fs::remove_dir_all(rig).unwrap();
}

#[test]
fn nothing_outlives_an_engine_that_is_killed() {
    let folder = tempfile::Builder::new().prefix("tarragon-supervisor").tempdir().unwrap();
    let (mut engine, supervisor, mut pids) = start_engine(folder.path());
    // Signals that all of a job get are no reason for the supervisor to go.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        send(supervisor, signal);
    }
    std::thread::sleep(Duration::from_millis(50));
    pids.push(supervisor);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    engine.kill().unwrap();
    engine.wait().unwrap();
    wait_gone(&pids);
    remove_rig_of(folder.path());
}

#[test]
fn a_supervisor_below_another_one_is_a_part_of_the_tree() {
    let mut rig = Rig::new();
    let folder = rig.path("inner");
    std::fs::create_dir(&folder).unwrap();
    let program = std::env::current_exe().unwrap();
    let args = ["engine", "--exact", "as_engine"].map(OsString::from);
    let env = [(OsString::from(ROLE), Some(folder.clone().into_os_string()))];
    rig.start_with(1, "", |spawn| {
        spawn.program = &program;
        spawn.args = &args;
        spawn.env = &env;
    });
    let (supervisor, pids) = trees_of(&folder);
    rig.kill(1, Duration::from_secs(1000));
    rig.ended(1);
    assert!(!pids.iter().chain([&supervisor]).any(|pid| is_alive(*pid)));
    remove_rig_of(&folder);
}

#[test]
fn groups_of_a_supervisor_that_was_killed_are_removed() {
    let mut rig = Rig::new();
    let script = "grep -h tarragon /proc/self/cgroup; echo; exec sleep 1000";
    rig.start_with(1, script, |spawn| spawn.memory_bytes = Some(1 << 30));
    rig.started(1);
    let first = rig.lines("out.1", 1).remove(0);
    if first.trim().is_empty() {
        eprintln!("skipped: cgroups: they are not to be had here");
        return;
    }
    let name = first.trim().rsplit('/').next().unwrap().to_owned();
    let is_there = || {
        let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &name]).output().unwrap();
        !found.stdout.is_empty()
    };
    assert!(is_there());
    send(rig.supervisor.pid(), Signal::KILL);
    while rig.events.read(&mut Vec::new()).unwrap() {}
    rig.supervisor.kill_all_known();
    assert!(!is_there());
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn dropping_the_client_ends_all_trees() {
    let rig = Rig::new();
    for (id, tree) in TREES.iter().enumerate() {
        rig.start(id as u64, tree);
    }
    let mut pids = vec![rig.supervisor.pid()];
    for (id, count) in PIDS.iter().enumerate() {
        pids.extend(rig.pids(&format!("out.{id}"), *count));
    }
    let Rig { supervisor, mut events, .. } = rig;
    drop(supervisor);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    let mut seen = Vec::new();
    while events.read(&mut seen).unwrap() {}
    assert_eq!(seen.len(), TREES.len());
}

#[test]
fn a_supervisor_that_is_killed_is_noticed_and_its_trees_can_be_killed() {
    let mut rig = Rig::new();
    for (id, tree) in TREES.iter().enumerate() {
        rig.start(id as u64, tree);
    }
    let mut pids = Vec::new();
    for (id, count) in PIDS.iter().enumerate() {
        rig.started(id as u64);
        pids.extend(rig.pids(&format!("out.{id}"), *count));
    }
    // One that has cleared its environment and left its group is known to nobody.
    let hidden = pids.pop().unwrap();
    send(rig.supervisor.pid(), Signal::KILL);
    let mut seen = Vec::new();
    while rig.events.read(&mut seen).unwrap() {}
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert!(rig.supervisor.kill_all_known() >= pids.len());
    wait_gone(&pids);
    assert_eq!(rig.supervisor.kill_all_known(), 0);
    let error = rig.supervisor.send(&[Request::Forget { base: 0 }]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    send(hidden, Signal::KILL);
    wait_gone(&[hidden]);
}

#[test]
fn the_supervisor_goes_on_while_nobody_reads() {
    const COUNT: u64 = 3000;
    let mut rig = Rig::new();
    // More events than a socket's buffer holds; what stands must run all the same.
    let go = rig.path("go");
    rig.start(0, &format!("until [ -e {} ]; do sleep 0.02; done", go.display()));
    (1..COUNT).for_each(|id| rig.stand(id, "exit 0"));
    rig.settle();
    std::fs::write(go, "").unwrap();
    let last = rig.path(&format!("out.{}", COUNT - 1));
    support::wait_until("the last one to have run", || last.exists());
    let mut ends = 0;
    while ends < COUNT {
        ends += u64::from(matches!(rig.next(), Event::Ended(_)));
    }
}

#[test]
fn two_supervisors_do_not_mind_each_other() {
    let mut first = Rig::new();
    let mut second = Rig::new();
    first.start(1, "echo $$; exec sleep 1000");
    let pid = first.started(1);
    second.run(1, "exit 0");
    drop(second);
    assert!(is_alive(pid));
    first.kill(1, Duration::from_secs(20));
    first.ended(1);
}
