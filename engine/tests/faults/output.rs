//! Output and where it goes: without end, to disks that are full, to a run directory that vanishes.

use super::rig::{Disk, Rig, is_long, status, supervisor, wait_until};
use std::fs;
use std::io::Read;
use std::time::Duration;
use tarragon_engine::{Batch, ErrorKind, Exit, Status, Task, tasks};

/// Both ends of the memory that nobody may use for output: the engine's and the supervisor's.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

fn count(mut from: Box<dyn Read + Send>) -> u64 {
    let (mut bytes, mut count) = (vec![0; 64 << 10], 0);
    loop {
        let n = from.read(&mut bytes).expect("it can be read");
        if n == 0 {
            return count;
        }
        assert!(bytes[..n].iter().all(|byte| *byte == 0), "what was written is there");
        count += n as u64;
    }
}

/// In a program of its own, so that the memory is this test's.
#[test]
fn a_gigabyte_of_output_stays_out_of_memory() {
    let Some(rig) = Rig::inner() else {
        return Rig::new().again("output::a_gigabyte_of_output_stays_out_of_memory", "").passes();
    };
    let size: u64 = if is_long() { 1 << 30 } else { 256 << 20 };
    let batch = rig.batch(2);
    let prints = rig.marked(batch.process("head").arg("-c").arg(size).arg("/dev/zero"));
    let counts = batch.process("wc").arg("-c").stdin(prints.stdout());
    let complains =
        rig.sh(&batch, &format!("head -c {size} /dev/zero >&2; echo >&2; echo 'the end' >&2; exit 1"));
    let compiled = batch.compile(tasks![prints, counts, complains]).expect("a list");
    compiled.start().expect("it starts");
    wait_until("some of it is there", || prints.stdout().reader().is_ok_and(|from| count(from) > 0));
    let supervisor = supervisor().expect("a supervisor");
    compiled.wait().expect_err("one fails");
    assert_eq!(count(prints.stdout().reader().expect("its output")), size);
    assert_eq!(counts.stdout().get().expect("its output").trim(), size.to_string());
    let error = complains.wait().expect_err("it fails");
    assert_eq!(error.exit_code(), Some(1));
    let last = error.last_lines().expect("its last lines");
    assert!(last.ends_with("the end") && last.len() < 10_000, "{} bytes", last.len());
    for (who, pid) in [("engine", std::process::id()), ("supervisor", supervisor)] {
        let most = status(pid, "VmHWM");
        println!("{size} bytes of output: the {who} used {most} bytes at most");
        assert!((1..MEMORY_BYTES_MAX).contains(&most), "{most} bytes");
    }
}

#[test]
fn the_end_of_a_long_last_line_is_told() {
    let rig = Rig::new();
    let batch = rig.batch(2);
    let fails = rig.sh(&batch, "printf 'first\\n%05000d' 7 >&2; exit 1");
    fails.run().expect_err("it fails");
    let error = fails.wait().expect_err("it fails");
    let last = error.last_lines().expect("the end of its last line");
    assert!(last.ends_with("0007") && (100..5000).contains(&last.len()), "{last}");
}

/// All that needs no room on the disk goes on.
fn check_others(rig: &Rig, batch: &Batch) {
    let all: Vec<_> = (0..20).map(|_| rig.sh(batch, "exit 0")).collect();
    let function = batch.closure(|| 7u8);
    batch.compile(tasks![all, function]).expect("a list").run().expect("others are unharmed");
    assert_eq!(function.result().get().expect("a result"), 7);
}

#[test]
fn a_full_disk_under_the_run_directory_fails_who_writes() {
    let rig = Rig::new();
    let Some(disk) = Disk::mount(rig.path("disk"), "size=1m") else {
        println!("skipped: tmpfs: mounting is refused here");
        return;
    };
    let batch = rig.build(rig.builder(4).run_dir(disk.path()));
    let early = rig.sh(&batch, "while [ ! -e go ]; do sleep 0.01; done");
    early.start().expect("it starts");
    let fills = rig.sh(&batch, "head -c 4194304 /dev/zero");
    fills.run().expect_err("the disk is full");
    let error = fills.wait().expect_err("the disk is full");
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Exited, Some(1)));
    check_others(&rig, &batch);
    let says = rig.sh(&batch, "echo more");
    says.run().expect_err("the disk is full");
    assert_eq!(says.wait().expect_err("the disk is full").kind(), ErrorKind::Exited);
    let given = batch.process("cat").stdin_text("x".repeat(10_000)).name("given");
    given.run().expect_err("the disk is full");
    let error = given.wait().expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::CouldNotStart);
    let told = error.to_string();
    assert!(
        told.starts_with("task #0 `given` failed: could not start: its input file ")
            && told.contains(".in: No space"),
        "{told}"
    );
    rig.touch("go");
    early.wait().expect("what ran before goes on");
    fs::remove_file(fills.stdout().path().expect("its output")).expect("it is there");
    let says = rig.sh(&batch, "echo more");
    says.run().expect("there is room again");
    assert_eq!(says.stdout().get().expect("its output"), "more\n");
}

#[test]
fn a_run_directory_without_room_for_another_file_is_told() {
    let rig = Rig::new();
    // The root, the run directory, its first folder, and two files for each task.
    let Some(disk) = Disk::mount(rig.path("disk"), "size=1m,nr_inodes=24") else {
        println!("skipped: tmpfs: mounting is refused here");
        return;
    };
    let batch = rig.build(rig.builder(2).run_dir(disk.path()));
    let all: Vec<_> = (0..30).map(|_| rig.sh(&batch, "exit 0")).collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.run().expect_err("not all can start");
    let done = all.iter().filter(|t| t.status() == Status::Done).count();
    assert!((1..30).contains(&done), "{done} succeeded");
    for task in all.iter().filter(|t| t.status() != Status::Done) {
        let error = task.wait().expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::CouldNotStart);
        assert!(
            error.to_string().contains("its output file") && error.to_string().contains("No space"),
            "{error}"
        );
    }
    let function = batch.closure(|| 7u8);
    function.run().expect("functions need no file");
    let other = rig.build(rig.builder(2).run_dir(disk.path().join("more")));
    let first = rig.sh(&other, "exit 0").name("first");
    first.run().expect_err("not even a directory");
    let error = first.wait().expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::CouldNotStart);
    assert!(
        error.to_string().contains("could not start: the run directory")
            && error.to_string().contains("No space"),
        "{error}"
    );
}

#[test]
fn a_full_disk_under_the_working_directory_fails_who_writes() {
    let rig = Rig::new();
    let Some(disk) = Disk::mount(rig.path("disk"), "size=1m") else {
        println!("skipped: tmpfs: mounting is refused here");
        return;
    };
    let batch = rig.batch(4);
    let full = |task: Task<Exit>| task.cwd(disk.path());
    let fills = full(rig.sh(&batch, "head -c 4194304 /dev/zero > big"));
    let others: Vec<_> = (0..20).map(|i| full(rig.sh(&batch, &format!("echo {i}")))).collect();
    let compiled = batch.compile(tasks![fills, others]).expect("a list");
    compiled.run().expect_err("the disk is full");
    let error = fills.wait().expect_err("the disk is full");
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Exited, Some(1)));
    assert!(error.last_lines().is_some_and(|it| it.contains("No space left on device")), "{error}");
    for (i, other) in others.iter().enumerate() {
        assert_eq!(other.stdout().get().expect("its output"), format!("{i}\n"));
    }
    check_others(&rig, &batch);
}

#[test]
fn a_run_directory_that_vanishes_is_told() {
    let rig = Rig::new();
    let batch = rig.batch(4);
    let lasts = rig.sh(&batch, "echo here; touch up; while [ ! -e go ]; do sleep 0.01; done; echo there");
    let fails = rig.sh(&batch, "while [ ! -e go ]; do sleep 0.01; done; echo why >&2; exit 5");
    let later = rig.sh(&batch, "echo later").reads(rig.path("x")).name("later");
    let fails = fails.writes(rig.path("y"));
    let lasts = lasts.writes(rig.path("x"));
    let standing: Vec<_> = (0..20).map(|_| rig.sh(&batch, "exit 0").reads(rig.path("x"))).collect();
    let compiled = batch.compile(tasks![lasts, fails, later, standing]).expect("a list");
    compiled.start().expect("it starts");
    wait_until("it runs", || rig.has("up"));
    let output = lasts.stdout().path().expect("a file");
    fs::remove_dir_all(rig.path("runs")).expect("it is there");
    rig.touch("go");
    compiled.wait().expect_err("the output of later ones has no place");
    lasts.wait().expect("a file that is open is there");
    let error = lasts.stdout().get().expect_err("it cannot be opened any more");
    assert_eq!(error.kind(), ErrorKind::Unreadable);
    assert!(error.to_string().contains("No such file"), "{error}");
    let error = fails.wait().expect_err("it fails");
    assert_eq!((error.exit_code(), error.last_lines()), (Some(5), None));
    let folder = output.parent().expect("a folder").display().to_string();
    for task in standing.iter().chain([&later]) {
        let error = task.wait().expect_err("its output has no place");
        assert_eq!(error.kind(), ErrorKind::CouldNotStart);
        let told = error.to_string();
        assert!(told.contains(&format!("could not start: its output file {folder}")), "{told}");
        assert!(told.contains("No such file"), "{told}");
    }
    let given = batch.process("cat").stdin_text("text");
    given.run().expect_err("its input has no place");
    let error = given.wait().expect_err("its input has no place");
    assert!(error.to_string().contains("could not start: its input file"), "{error}");
    let patient = rig.sh(&batch, "exit 0").retries(2).back_off(Duration::from_millis(1));
    patient.run().expect_err("nor at another attempt");
    assert_eq!(patient.wait().expect_err("nor at another attempt").attempts(), 3);
    let next = rig.batch(2);
    rig.sh(&next, "exit 0").run().expect("another batch makes its own");
}
