//! Trees that are killed: by request, by time, by what the main process leaves, by memory.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use support::{Rig, is_alive, wait_gone};
use tarragon_supervisor::{Event, Options, Why};

/// As long as no test takes: whoever relies on the end of this grace fails.
const LONG: Duration = Duration::from_secs(1000);
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn a_killed_process_says_why() {
    let mut rig = Rig::new();
    rig.start(1, "exec sleep 1000");
    rig.started(1);
    rig.kill(1, LONG);
    let ended = rig.ended(1);
    assert_eq!((ended.status.signal(), ended.why), (Some(15), Some(Why::Cancelled)));
    // It has ended, and it never was.
    rig.kill(1, LONG);
    rig.kill(99, LONG);
    assert!(rig.run(2, "exit 0").status.success());
}

#[test]
fn a_process_may_end_well_within_its_grace() {
    let mut rig = Rig::new();
    rig.start(1, "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.02; done");
    rig.lines("out.1", 1);
    rig.kill(1, LONG);
    let ended = rig.ended(1);
    assert_eq!((ended.status.code(), ended.why), (Some(3), Some(Why::Cancelled)));
    assert!(rig.read("out.1").ends_with("told\n"));
}

#[test]
fn time_is_up_for_a_process_that_ignores_term() {
    let mut rig = Rig::new();
    rig.start_with(1, "trap '' TERM; echo $$; while :; do sleep 0.02; done", |spawn| {
        spawn.timeout = Some(Duration::from_millis(100));
        spawn.grace = SHORT;
    });
    let ended = rig.ended(1);
    assert_eq!((ended.status.signal(), ended.why), (Some(9), Some(Why::TimedOut)));
    assert!(ended.ended_ns - ended.started_ns >= 150_000_000);
    wait_gone(&rig.pids("out.1", 1));
}

#[test]
fn a_timeout_that_is_not_reached_does_nothing() {
    let mut rig = Rig::new();
    rig.start_with(1, "exit 4", |spawn| spawn.timeout = Some(LONG));
    let ended = rig.ended(1);
    assert_eq!((ended.status.code(), ended.why), (Some(4), None));
}

#[test]
fn a_second_kill_may_shorten_the_grace() {
    let mut rig = Rig::new();
    rig.start(1, "trap '' TERM; echo ready; while :; do sleep 0.02; done");
    rig.lines("out.1", 1);
    rig.kill(1, LONG);
    rig.kill(1, SHORT);
    assert_eq!(rig.ended(1).status.signal(), Some(9));
}

#[test]
fn a_stopped_process_hears_term() {
    let mut rig = Rig::new();
    rig.start(1, "trap 'exit 6' TERM; echo ready; kill -STOP $$; while :; do sleep 0.02; done");
    rig.lines("out.1", 1);
    rig.kill(1, LONG);
    assert_eq!(rig.ended(1).status.code(), Some(6));
}

/// Starts a tree of which each process writes its pid: main, child, child of a child, one in a session of its own, one
/// in a session of its own whose parent has ended.
const TREE: &str = "echo $$
    sh -c 'echo $$; sh -c \"echo \\$\\$; sleep 1000; :\"; :' &
    setsid sh -c 'echo $$; sleep 1000; :' &
    (setsid sh -c 'echo $$; sleep 1000; :' &)
    wait";

#[test]
fn the_whole_tree_is_killed() {
    let mut rig = Rig::new();
    rig.start(1, TREE);
    let pids = rig.pids("out.1", 5);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    rig.kill(1, LONG);
    let ended = rig.ended(1);
    assert_eq!((ended.status.signal(), ended.why), (Some(15), Some(Why::Cancelled)));
    // The end is told when all are gone, not before.
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn a_tree_that_ignores_term_is_killed() {
    let mut rig = Rig::new();
    rig.start(1, &format!("trap '' TERM; {TREE}"));
    let pids = rig.pids("out.1", 5);
    rig.kill(1, SHORT);
    assert_eq!(rig.ended(1).status.signal(), Some(9));
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn leftovers_are_killed_before_the_end_is_told() {
    let mut rig = Rig::new();
    let out = rig.path("out.2").display().to_string();
    let ended = rig.run(
        2,
        &format!(
            "sh -c 'echo $$; exec sleep 1000' & sh -c 'echo $$; exec sleep 1000' &
             until [ $(wc -l <{out}) = 2 ]; do sleep 0.01; done; exit 7"
        ),
    );
    assert_eq!((ended.status.code(), ended.why, ended.leftovers), (Some(7), None, 2));
    assert!(!rig.pids("out.2", 2).iter().any(|pid| is_alive(*pid)));
}

#[test]
fn leftovers_that_ignore_term_are_killed() {
    let mut rig = Rig::new();
    let out = rig.path("out.1").display().to_string();
    rig.start_with(
        1,
        &format!(
            "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.02; done' &
             until [ $(wc -l <{out}) = 1 ]; do sleep 0.01; done; exit 7"
        ),
        |spawn| spawn.grace = SHORT,
    );
    let ended = rig.ended(1);
    assert_eq!((ended.status.code(), ended.why), (Some(7), None));
    assert!(ended.leftovers >= 1);
    assert!(!is_alive(rig.pids("out.1", 1)[0]));
}

#[test]
fn a_daemon_does_not_outlive_its_task() {
    let mut rig = Rig::new();
    let out = rig.path("out.1").display().to_string();
    let ended = rig.run(
        1,
        &format!(
            "(setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.02; done' &)
             until [ $(wc -l <{out}) = 1 ]; do sleep 0.01; done; exit 7"
        ),
    );
    assert_eq!((ended.status.code(), ended.why), (Some(7), None));
    wait_gone(&rig.pids("out.1", 1));
}

#[test]
fn a_daemon_of_one_task_outlives_the_end_of_another() {
    let mut rig = Rig::new();
    rig.start(1, "(setsid sh -c 'echo $$; exec sleep 1000' &); exec sleep 1000");
    let pids = rig.pids("out.1", 1);
    // A sweep follows each end; the second one comes after the first's.
    for id in 2..10 {
        rig.run(id, "sleep 0.1");
    }
    assert!(is_alive(pids[0]));
    rig.kill(1, LONG);
    rig.ended(1);
    assert!(!is_alive(pids[0]));
}

#[test]
fn a_daemon_without_environment_goes_when_nothing_runs() {
    let mut rig = Rig::new();
    let out = rig.path("out.1").display().to_string();
    rig.run(
        1,
        &format!(
            "(setsid env -i /bin/sh -c 'echo $$; exec sleep 1000' &)
             until [ $(wc -l <{out}) = 1 ]; do sleep 0.01; done"
        ),
    );
    wait_gone(&rig.pids("out.1", 1));
}

#[test]
fn children_that_fork_and_exit_do_not_escape() {
    let mut rig = Rig::new();
    // A chain in which each process starts the next one and ends: nobody's pid lasts.
    rig.start(1, "f() { sleep 0.02; f & }; echo ready; f; exec sleep 1000");
    rig.lines("out.1", 1);
    std::thread::sleep(Duration::from_millis(100));
    rig.kill(1, SHORT);
    rig.ended(1);
    let mark = format!("TARRAGON_TASK_MARK={}:1\0", rig.supervisor.pid());
    assert!(!support::anyone_bears(&mark));
}

#[test]
fn the_engines_own_children_are_not_touched() {
    let mut own = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut rig = Rig::new();
    rig.start(1, TREE);
    rig.pids("out.1", 5);
    rig.kill(1, SHORT);
    rig.ended(1);
    drop(rig);
    assert!(own.try_wait().unwrap().is_none());
    own.kill().unwrap();
    assert_eq!(own.wait().unwrap().signal(), Some(9));
}

/// Doubles a string until it is killed: a shell that needs ever more memory.
const HOG: &str = "x=0123456789abcdef; while :; do x=$x$x; done";

fn over_memory(use_cgroup: bool, script: &str) {
    let mut rig = Rig::with(Options { use_cgroup });
    // Were there no limit, the time would be up before the machine suffers.
    rig.start_with(1, script, |spawn| {
        spawn.memory_bytes = Some(48 << 20);
        spawn.timeout = Some(Duration::from_secs(20));
        spawn.grace = LONG;
    });
    let ended = rig.ended(1);
    assert_eq!(ended.why, Some(Why::OverMemory), "{ended:?}");
    rig.start_with(2, "exit 3", |spawn| spawn.memory_bytes = Some(48 << 20));
    let ended = rig.ended(2);
    assert_eq!((ended.status.code(), ended.why), (Some(3), None));
}

/// Slow enough to be seen between two looks, and small enough not to hurt.
const SLOW_HOG: &str = "x=0123456789abcdef; i=0; while :; do i=$((i+1)); \
    if [ $i -lt 24 ]; then x=$x$x; else sleep 0.02; fi; done";

#[test]
fn too_much_memory_is_seen_without_cgroups() {
    over_memory(false, SLOW_HOG);
}

#[test]
fn too_much_memory_of_a_child_is_seen_without_cgroups() {
    over_memory(false, &format!("sh -c '{SLOW_HOG}'; exit 0"));
}

#[test]
fn too_much_memory_is_noticed_by_the_kernel() {
    over_memory(true, HOG);
}

#[test]
fn too_much_memory_of_a_child_is_noticed_by_the_kernel() {
    over_memory(true, &format!("sh -c '{HOG}'; sleep 1000"));
}

#[test]
fn a_thousand_sleep_with_sixty_four_descriptors() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    const COUNT: u64 = 1000;
    let mut rig = Rig::new();
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(Pid::from_raw(rig.supervisor.pid() as i32), Resource::Nofile, limit).unwrap();
    (0..COUNT).for_each(|id| rig.start(id, "exec sleep 1000"));
    let mut running = 0;
    while running < COUNT {
        match rig.next() {
            Event::Started { .. } => running += 1,
            event => panic!("{event:?}"),
        }
    }
    (0..COUNT).for_each(|id| rig.kill(id, LONG));
    let mut ended = 0;
    while ended < COUNT {
        match rig.next() {
            Event::Ended(it) => {
                assert_eq!((it.status.signal(), it.why), (Some(15), Some(Why::Cancelled)));
                ended += 1;
            }
            event => panic!("{event:?}"),
        }
    }
}
