//! Trees that do not want to end: children that fork and exit, ignore TERM, leave their session or group, become
//! zombies, close what they were given.

use super::rig::{Ours, Process, Rig, processes, supervisor, wait_until};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tarragon_engine::{ErrorKind, Exit, Status, Task};

/// Ways to be hard to end. Each touches `up.$1` when all of it is there, and its main process waits for the file `end`.
pub(crate) const TREES: &[(&str, &str)] = &[
    ("forks and leaves it", "sleep 1000 & touch up.$1"),
    ("ignores TERM", "trap '' TERM INT HUP; (while :; do sleep 0.05; done) & touch up.$1"),
    ("a daemon", "(setsid sh -c 'touch up.$0; exec sleep 1000' $1 &)"),
    (
        "a daemon that ignores TERM",
        "(setsid sh -c 'trap \"\" TERM INT HUP; touch up.$0; while :; do sleep 0.05; done' $1 &)",
    ),
    (
        "a daemon of a daemon",
        "(setsid sh -c 'setsid sh -c \"touch up.\\$0; exec sleep 1000\" $0 & exec sleep 1000' $1 &)",
    ),
    ("another group", "timeout 1000 sh -c 'touch up.$0; exec sleep 1000' $1 &"),
];

/// A task for one of [`TREES`], by its index.
fn tree(rig: &Rig, batch: &Ours, index: usize) -> Task<Exit> {
    let (name, begins) = TREES[index];
    let script = format!("{begins}\nwhile [ ! -e end ]; do sleep 0.05; done");
    rig.sh(batch, &script).arg("sh").arg(index as u64).name(name)
}

fn all(rig: &Rig, batch: &Ours) -> Vec<Task<Exit>> {
    (0..TREES.len()).map(|index| tree(rig, batch, index).grace(Duration::from_millis(100))).collect()
}

/// Waits until all of all trees is there.
fn wait_up(rig: &Rig) {
    for (index, (name, _)) in TREES.iter().enumerate() {
        wait_until(name, || rig.has(&format!("up.{index}")));
    }
    assert!(rig.living().len() >= 2 * TREES.len(), "each tree has two processes or more");
}

#[test]
fn trees_end_at_their_timeout() {
    let rig = Rig::new();
    let batch = rig.batch(20);
    let all: Vec<_> = all(&rig, &batch).into_iter().map(|t| t.timeout(Duration::from_secs(3))).collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    wait_up(&rig);
    compiled.wait().expect_err("all are over their timeout");
    assert!(all.iter().all(|t| t.wait().expect_err("over its timeout").kind() == ErrorKind::OverTime));
    rig.wait_gone();
}

#[test]
fn trees_end_when_they_are_cancelled() {
    for by in ["task", "list", "batch"] {
        let rig = Rig::new();
        let batch = rig.batch(20);
        let all = all(&rig, &batch);
        let compiled = batch.compile(&all).expect("a list");
        compiled.start().expect("it starts");
        wait_up(&rig);
        match by {
            "task" => all.iter().for_each(Task::cancel),
            "list" => compiled.cancel(),
            _ => batch.cancel(),
        }
        compiled.wait().expect_err("all are cancelled");
        assert!(all.iter().all(|t| t.wait().expect_err("cancelled").kind() == ErrorKind::Cancelled), "{by}");
        rig.wait_gone();
    }
}

#[test]
fn what_a_process_leaves_running_is_ended() {
    let rig = Rig::new();
    let batch = rig.batch(20);
    let all = all(&rig, &batch);
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    wait_up(&rig);
    rig.touch("end");
    compiled.wait().expect("all end well, whatever they leave");
    // The batch is still there, so it is not its end that ends them.
    rig.wait_gone();
}

#[test]
fn what_was_left_running_goes_with_the_batch() {
    let rig = Rig::new();
    let batch = rig.batch(20);
    let all = all(&rig, &batch);
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    wait_up(&rig);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            rig.touch("end");
        });
        // The order matters: the last client goes while all run, then whoever else keeps the office.
        drop(batch);
        assert!(all.iter().all(|t| t.status() == Status::Done), "what was started is finished");
        drop((compiled, all));
    });
    rig.wait_gone();
}

/// What is left of a process that has ended is ended before its task is, if it is in its group; nothing it would have
/// written later comes to be.
#[test]
fn nothing_is_written_after_the_end() {
    let rig = Rig::new();
    let batch = rig.batch(20);
    let later = "while [ ! -e go ]; do sleep 0.01; done; echo late > late.$0";
    let ways = [
        format!("sh -c '{later}' 0 &"),
        format!("(trap '' TERM; exec sh -c '{later}' 1) &"),
        format!("(sh -c '{later}' 2 & sh -c '{later}' 3 &) &"),
    ];
    let away = format!("(setsid sh -c 'touch away; {later}' 4 &); while [ ! -e away ]; do sleep 0.01; done");
    let inside: Vec<_> = ways.iter().map(|way| rig.sh(&batch, way)).collect();
    batch.compile(&inside).expect("a list").run().expect("all succeed");
    assert_eq!(rig.living(), [0; 0], "of a task that has ended, nothing runs in its group");
    rig.sh(&batch, &away).run().expect("it succeeds");
    rig.wait_gone();
    rig.touch("go");
    std::thread::sleep(Duration::from_millis(100));
    let late: Vec<_> = (0..5).filter(|i| rig.has(&format!("late.{i}"))).collect();
    assert_eq!(late, [0; 0], "written after the end");
}

/// A main process that leaves its group for that of its child.
#[test]
#[expect(clippy::zombie_processes, reason = "what it leaves running is for the supervisor to end")]
fn a_process_that_changes_its_group_is_ended() {
    if let Some(rig) = Rig::inner() {
        let child = Command::new("sleep").arg("1000").process_group(0).spawn().expect("a child");
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::setpgid(None, Some(group)).expect("another group");
        rig.touch("up");
        wait_until("it may end", || rig.has("end"));
        return;
    }
    let rig = Rig::new();
    let batch = rig.batch(4);
    let program = std::env::current_exe().expect("this program");
    let test = "faults::trees::a_process_that_changes_its_group_is_ended";
    // A pipe that nobody writes to and nobody closes, since an inner program ends with its input.
    rig.sh(&batch, "mkfifo input").run().expect("a pipe");
    let script = format!("exec \"$0\" --exact {test} --nocapture <> input");
    let wander = || rig.inside(rig.sh(&batch, &script).arg(&program).grace(Duration::from_millis(100)));
    for ends in [false, true] {
        let task = wander();
        task.start().expect("it starts");
        wait_until("it is in another group", || rig.has("up"));
        if ends {
            rig.touch("end");
            task.wait().expect("it ends well");
        } else {
            task.cancel();
            assert_eq!(task.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
        }
        rig.wait_gone();
        std::fs::remove_file(rig.path("up")).expect("it was there");
    }
}

#[test]
fn zombies_are_reaped_and_stop_nobody() {
    let rig = Rig::new();
    let batch = rig.batch(4);
    // Orphans that end come to the supervisor; children whose parent does not wait stay until it goes.
    let orphans =
        rig.sh(&batch, "for i in $(seq 100); do (sh -c 'sleep 0.01' &); done; touch up; sleep 1000");
    let zombies = rig.sh(&batch, "for i in $(seq 50); do sleep 0.01 & done; touch more; exec sleep 1000");
    let all = [orphans, zombies].map(|task| task.grace(Duration::from_secs(50)));
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    wait_until("all are born", || rig.has("up") && rig.has("more"));
    let supervisor = supervisor().expect("a supervisor");
    let is_orphan = |it: &Process| it.parent == supervisor && it.is_zombie();
    wait_until("the orphans are reaped", || !processes().iter().any(is_orphan));
    wait_until("the others are zombies", || rig.living().len() == 3);
    compiled.cancel();
    compiled.wait().expect_err("cancelled");
    assert!(all.iter().all(|t| t.wait().expect_err("cancelled").kind() == ErrorKind::Cancelled));
    rig.wait_gone();
}

#[test]
fn a_process_may_close_what_it_was_given() {
    let rig = Rig::new();
    let batch = rig.batch(4);
    let all_closed = "exec 0<&- 1>&- 2>&- 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; sleep 0.05";
    let quiet = rig.sh(&batch, "echo said; exec >&- 2>&-; sleep 0.05; echo lost; exit 0");
    let fails = rig.sh(&batch, "echo why >&2; exec >&- 2>&-; sleep 0.05; exit 7");
    let nothing = rig.sh(&batch, &format!("{all_closed}; exit 3")).accept_exit(3);
    let leaves = rig.sh(&batch, &format!("{all_closed}; sleep 1000 & exit 0"));
    let reads = batch.process("cat").stdin(quiet.stdout());
    let compiled =
        batch.compile(tarragon_engine::tasks![quiet, fails, nothing, leaves, reads]).expect("a list");
    compiled.run().expect_err("one fails");
    assert_eq!(reads.stdout().get().expect("its output"), "said\n");
    let error = fails.wait().expect_err("it fails");
    assert_eq!((error.exit_code(), error.last_lines()), (Some(7), Some("why")));
    assert_eq!(nothing.result().get().expect("accepted").code, 3);
    leaves.wait().expect("it succeeds");
    rig.wait_gone();
}

/// A child of the user's own, with all kinds of its brothers ended beside it.
#[test]
fn a_child_of_the_user_is_left_alone() {
    let rig = Rig::new();
    let mut before = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("a child");
    let batch = rig.batch(20);
    let all: Vec<_> = all(&rig, &batch);
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    let mut during = Command::new("sleep").arg("1000").process_group(0).spawn().expect("a child");
    wait_up(&rig);
    for code in 0..20 {
        let status = Command::new("sh").args(["-c", &format!("exit {code}")]).status().expect("a child");
        assert_eq!(status.code(), Some(code), "somebody else waited for the user's child");
    }
    compiled.cancel();
    compiled.wait().expect_err("cancelled");
    drop((compiled, all, batch));
    rig.wait_gone();
    for child in [&mut before, &mut during] {
        assert_eq!(child.try_wait().expect("it is ours"), None, "a child of the user was ended");
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
    }
}
