//! Processes, and functions with limits and resources, on several ranks: they run, end, and are told of as on one.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tarragon_engine::{Batch, Context, ErrorKind, Exit, Task, results, tasks};
use tarragon_testbed::{Launch, role, wait_until};

/// In a role the batch comes first: what comes before it is done by every rank, and only one of them cleans up.
fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

/// Processes run on all ranks: their arguments, input, environment, directory, output and ends are as on one.
#[test]
fn processes_run_on_all_ranks() {
    fn number(i: u32) -> u32 {
        i * 11
    }
    fn used(exit: Exit, rank: u32) -> (i32, bool, u32) {
        (exit.code, exit.usage.wall > Duration::ZERO, rank)
    }
    if role().is_some() {
        let batch = Batch::builder().spawn(3).assume_cpus(4).build().expect("a batch");
        let folder = tempfile::tempdir().expect("a folder");
        let script = "read line; echo $0 $1 $line $WHO $PPID; pwd; echo grumble >&2; exit $2";
        let (mut list, mut numbers): (Vec<Task<Exit>>, Vec<Task<u32>>) = (Vec::new(), Vec::new());
        for i in 0..9u32 {
            let given = batch.function(number, (i,)).at_rank((i + 1) % 3);
            let process = batch.process("sh").args(["-c", script]).arg(format!("no{i}")).arg(&given);
            let process = process.arg(if i == 4 { 7 } else { 0 }).accept_exit(7).env("WHO", "me");
            list.push(process.stdin_text("a line\n").cwd(folder.path()).at_rank(i % 3));
            numbers.push(given);
        }
        let exits: Vec<_> =
            list.iter().map(|process| batch.function(used, (process.result(), 0u32)).at_rank(1)).collect();
        let compiled = batch.compile(tasks![numbers, list, exits]).expect("a list");
        for _ in 0..2 {
            compiled.run().expect("all succeed");
            let mut supervisors = BTreeSet::new();
            for (i, process) in list.iter().enumerate() {
                let text = process.stdout().get().expect("text");
                let (line, pwd) = text.trim_end().split_once('\n').expect("two lines");
                let (words, parent) = line.rsplit_once(' ').expect("words");
                assert_eq!(words, format!("no{i} {} a line me", i * 11));
                assert_eq!(Path::new(pwd), folder.path().canonicalize().expect("it is there"));
                assert_eq!(process.stderr().get().expect("text"), "grumble\n");
                let code = if i == 4 { 7 } else { 0 };
                assert_eq!(process.result().get().expect("it succeeded").code, code);
                assert_eq!(exits[i].result().get().expect("it succeeded"), (code, true, 0));
                supervisors.insert(parent.to_string());
            }
            assert_eq!(supervisors.len(), 3, "each rank has a supervisor of its own");
        }
        return;
    }
    alone("processes_run_on_all_ranks", "home");
}

/// Processes of other ranks fail as those of this one do, are tried again, end in time, and are cancelled.
#[test]
fn processes_of_other_ranks_fail_as_here() {
    if let Some(folder) = role() {
        let folder = Path::new(&folder);
        // Output of processes that failed stays, on their ranks, too.
        let batch = Batch::builder().spawn(2).assume_cpus(8).run_dir(folder).build().expect("a batch");
        let shell = |script: &str| batch.process("sh").args(["-c", script]).at_rank(1);
        let fails = shell("echo why >&2; exit 3");
        let killed = shell("kill -9 $$");
        let late = shell("sleep 60").timeout(Duration::from_millis(100));
        let count = folder.join("count");
        let again = shell("echo x >> \"$0\"; test $(wc -l < \"$0\") = 3").arg(&count).retries(5);
        let large = shell("head -c 5000000 /dev/zero | tr '\\0' x");
        let after = batch.function(|_: &Exit| 1u8, (fails.result(),));
        let list = tasks![fails, killed, late, again, large, after];
        let compiled = batch.compile(list).expect("a list");
        let error = compiled.run().expect_err("some fail");
        assert!(error.to_string().contains("exit code 3; its last lines:\n    why"), "{error}");
        let error = fails.result().get().expect_err("it failed");
        assert_eq!((error.kind(), error.exit_code(), error.rank()), (ErrorKind::Exited, Some(3), 1));
        assert_eq!(error.last_lines(), Some("why"));
        assert_eq!(killed.result().get().expect_err("it was killed").signal(), Some((9, false)));
        assert_eq!(late.result().get().expect_err("it was late").kind(), ErrorKind::OverTime);
        assert_eq!(again.result().get().expect("the third attempt succeeds").code, 0);
        assert_eq!(large.stdout().get().expect("text").len(), 5_000_000);
        assert_eq!(after.result().get().expect_err("skipped").kind(), ErrorKind::Skipped);

        let begun = folder.join("begun");
        let long = shell("echo $$; touch \"$0\"; exec sleep 1000").arg(&begun);
        let compiled = batch.compile(tasks![long]).expect("a list");
        compiled.start().expect("it starts");
        wait_until("it runs", || begun.exists());
        let pid: u32 = long.stdout().so_far().expect("text").trim().parse().expect("a process id");
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        compiled.cancel();
        compiled.wait().expect_err("it was cancelled");
        assert_eq!(long.result().get().expect_err("it was cancelled").kind(), ErrorKind::Cancelled);
        wait_until("it is gone", || !Path::new(&format!("/proc/{pid}")).exists());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    alone("processes_of_other_ranks_fail_as_here", folder.path().to_str().expect("text"));
}

/// To look at what a running process has written is not to say that it has ended: who writes what it reads waits.
#[test]
fn a_look_at_output_lets_nobody_go_on() {
    if let Some(folder) = role() {
        let folder = Path::new(&folder);
        let batch = Batch::builder().spawn(2).assume_cpus(4).build().expect("a batch");
        let (path, go) = (folder.join("f"), folder.join("go"));
        std::fs::write(&path, "first").expect("a file");
        let script = "echo here; while ! test -e \"$0\"; do sleep 0.01; done; cat \"$1\"";
        let read = batch.process("sh").args(["-c", script]).arg(&go).arg(&path).reads(&path).at_rank(1);
        batch.submit(&read).expect("it is queued");
        read.result().get_timeout(Duration::from_micros(1)).expect_err("it runs on");
        let to = path.clone();
        let write = batch.closure(move || std::fs::write(&to, "second").expect("a file")).writes(&path);
        batch.submit(&write).expect("it is queued");
        write.result().get_timeout(Duration::from_micros(1)).expect_err("it waits");
        wait_until("it writes", || read.stdout().so_far().expect("text") == "here\n");
        for _ in 0..20 {
            assert_eq!(read.stdout().so_far().expect("text"), "here\n");
            assert_eq!(std::fs::read_to_string(&path).expect("a file"), "first");
        }
        std::fs::write(&go, "").expect("a file");
        batch.fence().expect("both succeed");
        assert_eq!(read.stdout().get().expect("text"), "here\nfirst");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "second");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    alone("a_look_at_output_lets_nobody_go_on", folder.path().to_str().expect("text"));
}

/// Limits and resources of functions hold on other ranks; what some rank has not stays at home.
#[test]
fn limits_hold_on_other_ranks() {
    fn sleepy(context: &Context, ms: u64) -> u32 {
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(ms) && !context.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        context.rank()
    }
    fn third_time(path: &Path) -> Result<usize, std::io::Error> {
        let mut tries = std::fs::read_to_string(path).unwrap_or_default();
        tries.push('x');
        std::fs::write(path, &tries)?;
        if tries.len() < 3 { Err(std::io::Error::other("not yet")) } else { Ok(tries.len()) }
    }
    fn is_worth(error: &tarragon_engine::TaskError) -> bool {
        error.to_string().contains("not yet")
    }
    if role().is_some() {
        // Home would have nothing to do, and run those of a rank that waits.
        let builder = Batch::builder().spawn(2).resource("licence", 1.0).work_stealing(false);
        let batch = builder.build().expect("a batch");
        let folder = tempfile::tempdir().expect("a folder");
        let late = batch.function(sleepy, (60_000u64,)).timeout(Duration::from_millis(50)).at_rank(1);
        let path = folder.path().join("tries");
        let again = batch.function(third_time, (&path,)).retries(9).retry_if(is_worth).at_rank(1);
        let licensed: Vec<_> =
            (0..4).map(|_| batch.function(sleepy, (1u64,)).resource("licence", 1.0)).collect();
        let narrow: Vec<_> = (0..8).map(|_| batch.function(sleepy, (1u64,)).cpus(1)).collect();
        batch.compile(tasks![late, again, licensed, narrow]).expect("a list").run().expect_err("one is late");
        let error = late.result().get().expect_err("it is late");
        assert_eq!((error.kind(), error.rank()), (ErrorKind::OverTime, 1));
        assert_eq!(again.result().get().expect("the third attempt succeeds"), 3);
        assert_eq!(results(&licensed).expect("all ran"), [0; 4], "the licence is at home");
        assert!(results(&narrow).expect("all ran").contains(&1));
        return;
    }
    alone("limits_hold_on_other_ranks", "home");
}
