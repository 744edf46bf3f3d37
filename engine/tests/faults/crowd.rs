//! Many at once: processes with few descriptors, ten thousand of them, batches and clients side by side, and a batch
//! that goes while all of it runs.

use super::rig::{Rig, descriptors, is_long, status, supervisor, wait_until};
use std::fs;
use std::path::Path;
use tarragon_engine::{ErrorKind, Exit, Status, Task, tasks};

#[test]
fn sixty_four_descriptors_are_enough() {
    let Some(rig) = Rig::inner() else {
        let again = Rig::new();
        return again.again("crowd::sixty_four_descriptors_are_enough", "ulimit -n 64").passes();
    };
    let limits = fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    assert_eq!(line.split_ascii_whitespace().nth(3), Some("64"));
    let few = rig.batch(8);
    let all: Vec<_> = (0..500).map(|i| rig.sh(&few, &format!("echo {i}; exit $(({i} % 50 == 7))"))).collect();
    let reads: Vec<_> = all.iter().map(|t| few.process("cat").stdin(t.stdout())).collect();
    few.compile(tasks![all, reads]).expect("a list").run().expect_err("some fail");
    for (i, (task, read)) in all.iter().zip(&reads).enumerate() {
        let said = format!("{i}\n");
        if i % 50 == 7 {
            let error = task.wait().expect_err("it fails");
            assert_eq!((error.exit_code(), error.last_lines()), (Some(1), Some(said.trim())));
        } else {
            assert_eq!(read.stdout().get().expect("its output"), said);
        }
    }
    let many = rig.batch(30);
    let script = "touch up.$1; while [ ! -e go ]; do sleep 0.05; done";
    let sleeps: Vec<_> = (0..30).map(|i| rig.sh(&many, script).arg("sh").arg(i)).collect();
    let compiled = many.compile(&sleeps).expect("a list");
    compiled.start().expect("it starts");
    wait_until("all sleep at once", || (0..30).all(|i| rig.has(&format!("up.{i}"))));
    rig.touch("go");
    compiled.wait().expect("all succeed");
}

/// The largest number of entries in any folder below.
fn widest(path: &Path) -> usize {
    let entries: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    let folders = entries.iter().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    let below = folders.map(|entry| widest(&entry.path())).max().unwrap_or(0);
    below.max(entries.len())
}

/// In a program of its own, so that memory and descriptors are this test's.
#[test]
fn ten_thousand_processes_need_little() {
    let Some(rig) = Rig::inner() else {
        return Rig::new().again("crowd::ten_thousand_processes_need_little", "").passes();
    };
    let count = if is_long() { 100_000 } else { 10_000 };
    let batch = rig.batch(4);
    batch.process("/bin/true").run().expect("it runs");
    let all: Vec<_> = (0..count).map(|_| batch.process("/bin/true")).collect();
    let compiled = batch.compile(&all).expect("a list");
    let who = [std::process::id(), supervisor().expect("a supervisor")];
    let look = || who.map(|pid| (descriptors(pid), status(pid, "VmRSS")));
    let before = look();
    let mut most = before;
    let mut looks = 0;
    compiled.start().expect("it starts");
    while compiled.status() == Status::Running {
        for (most, now) in most.iter_mut().zip(look()) {
            *most = (most.0.max(now.0), most.1.max(now.1));
        }
        looks += 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    compiled.wait().expect("all succeed");
    let widest = widest(&rig.path("runs"));
    println!(
        "{count} processes, {looks} looks: at first {before:?}, at most {most:?}, {widest} files in a folder"
    );
    assert!((500..=1001).contains(&widest), "{widest} files in a folder");
    assert!(looks > 5, "it was over too soon to be looked at");
    for (before, most) in before.iter().zip(&most) {
        assert!(most.0 < before.0 + 16, "descriptors grew from {} to {}", before.0, most.0);
        // What stays of each task is known beforehand; the rest must not depend on how many there are.
        let grown = most.1.saturating_sub(before.1);
        assert!(grown < (16 << 20) + count * 600, "memory grew by {grown} bytes");
    }
    drop((compiled, all, batch));
    assert_eq!(fs::read_dir(rig.path("runs")).expect("a directory").count(), 0, "output stays behind");
}

#[test]
fn a_batch_that_goes_finishes_what_was_started() {
    let rig = Rig::new();
    let batch = rig.batch(5);
    let script = "(setsid sleep 1000 &); sleep 0.1; touch done.$1";
    let all: Vec<_> = (0..20).map(|i| rig.sh(&batch, script).arg("sh").arg(i)).collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    // Nobody else is there to keep it, and nobody waits.
    drop((compiled, all, batch));
    let missing: Vec<_> = (0..20).filter(|i| !rig.has(&format!("done.{i}"))).collect();
    assert_eq!(missing, [0; 0], "these were not finished");
    assert_eq!(fs::read_dir(rig.path("runs")).expect("a directory").count(), 0, "output stays behind");
    rig.wait_gone();
}

#[test]
fn two_batches_do_not_mind_each_other() {
    let rig = Rig::new();
    let (one, other) = (rig.batch(3), rig.batch(3));
    let gate = "while [ ! -e go ]; do sleep 0.01; done";
    let cancelled: Vec<_> = (0..30).map(|_| rig.sh(&one, gate)).collect();
    let kept: Vec<_> = (0..30).map(|i| rig.sh(&other, &format!("touch up; {gate}; echo {i}"))).collect();
    let (first, second) = (one.compile(&cancelled).expect("a list"), other.compile(&kept).expect("a list"));
    first.start().expect("it starts");
    second.start().expect("it starts");
    wait_until("it runs", || rig.has("up"));
    one.cancel();
    first.wait().expect_err("cancelled");
    assert!(cancelled.iter().all(|t| t.wait().expect_err("cancelled").kind() == ErrorKind::Cancelled));
    drop((first, cancelled, one));
    rig.touch("go");
    second.wait().expect("nobody cancelled it");
    for (i, task) in kept.iter().enumerate() {
        assert_eq!(task.stdout().get().expect("its output"), format!("{i}\n"));
    }
}

#[test]
fn clients_in_threads_start_processes_at_once() {
    let rig = Rig::new();
    let batch = rig.batch(4);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (rig, batch) = (&rig, tarragon_engine::Batch::clone(&batch));
            scope.spawn(move || {
                for i in 0..10 {
                    let alone = rig.sh(&batch, &format!("echo alone {thread} {i}"));
                    let fails = rig.sh(&batch, "exit 9");
                    alone.start().expect("it starts");
                    fails.start().expect("it starts");
                    let list: Vec<Task<Exit>> =
                        (0..5).map(|n| rig.sh(&batch, &format!("echo {n}"))).collect();
                    batch.compile(&list).expect("a list").run().expect("all succeed");
                    for (n, task) in list.iter().enumerate() {
                        assert_eq!(task.stdout().get().expect("its output"), format!("{n}\n"));
                    }
                    assert_eq!(alone.stdout().get().expect("its output"), format!("alone {thread} {i}\n"));
                    assert_eq!(fails.wait().expect_err("it fails").exit_code(), Some(9));
                }
            });
        }
    });
    rig.wait_gone();
}

/// A group of processes that may be so many and no more; it goes when the test does.
struct Group(std::path::PathBuf);

impl Group {
    /// `None` where there is no such group to be had.
    fn make() -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/pids").join(format!("tarragon-test-{}", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait_until("the group is empty", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

/// A process that the system has no room for is started when there is room, and that is no attempt of the task.
#[test]
fn a_system_that_is_full_is_waited_for() {
    let Some(rig) = Rig::inner() else {
        let Some(group) = Group::make() else { return println!("skipped: pids: no group can be made") };
        let path = group.0.display();
        let setting = format!("export TARRAGON_TEST_GROUP={path}; echo $$ > {path}/cgroup.procs");
        return Rig::new().again("crowd::a_system_that_is_full_is_waited_for", &setting).passes();
    };
    let group = std::env::var_os("TARRAGON_TEST_GROUP").expect("the group");
    let file = |name: &str| Path::new(&group).join(name);
    let number = |name: &str| -> u64 {
        let text = fs::read_to_string(file(name)).expect("a file of the group");
        text.split_whitespace().last().expect("a number").parse().expect("a number")
    };
    let batch = rig.batch(8);
    batch.process("/bin/true").run().expect("it runs");
    // Room for three processes, where eight are to run.
    fs::write(file("pids.max"), (number("pids.current") + 3).to_string()).expect("the limit");
    let all: Vec<_> = (0..40).map(|_| batch.process("/bin/sleep").arg(0.02)).collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.run().expect("all succeed, sooner or later");
    assert!(number("pids.events") > 0, "nothing was refused");
}
