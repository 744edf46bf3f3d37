//! Lists that hold compiled ones, on several ranks: what is one list's own, and what is said of it by one around it.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{Batch, Context, Error, ErrorKind, Status, Workers, results, tasks};
use tarragon_testbed::{Launch, role, wait_until};

fn batch(ranks: u32) -> Batch {
    Batch::builder().spawn(ranks).workers(Workers::Threads(2)).assume_cpus(4).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

fn where_am_i(context: &Context, _: u32) -> u32 {
    context.rank()
}

fn wait_for(path: PathBuf, from: u32) -> u32 {
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    from
}

fn begin_and_wait(begun: &Path, path: PathBuf) -> u32 {
    std::fs::write(begun, "").expect("a file");
    wait_for(path, 7)
}

fn sleepy(context: &Context, begun: &Path) -> u32 {
    std::fs::write(begun, "").expect("a file");
    while !context.cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    context.rank()
}

/// A list keeps its own pieces on other ranks when it has run in another, and runs where its tasks are told to.
#[test]
fn a_list_runs_in_another_and_alone() {
    if role().is_some() {
        let batch = batch(3);
        let inner: Vec<_> = (0..9u32).map(|i| batch.function(where_am_i, (i,)).at_rank(i % 3)).collect();
        let shown: Vec<_> =
            (0..3u32).map(|i| batch.process("echo").arg(&inner[i as usize]).at_rank(2 - i)).collect();
        let compiled = batch.compile(tasks![inner, shown]).expect("a list");
        let outer: Vec<_> =
            (0..6).map(|i| batch.function(where_am_i, (inner[i].result(),)).at_rank(1)).collect();
        let whole = batch.compile(tasks![compiled, outer]).expect("a list of lists");
        let expected: Vec<u32> = (0..9).map(|i| i % 3).collect();
        for _ in 0..2 {
            whole.run().expect("all succeed");
            assert_eq!(whole.traffic().expect("it is on several ranks").tasks_elsewhere, 6 + 2 + 6);
            assert_eq!(results(&outer).expect("all are there"), [1; 6]);
            // Asked for one by one, of another list than the one that ran.
            for (i, process) in shown.iter().enumerate() {
                assert_eq!(process.stdout().get().expect("its output"), format!("{i}\n"));
                assert_eq!(process.result().get().expect("it succeeded").code, 0);
            }
            assert_eq!(results(&inner).expect("all are there"), expected);
            compiled.run().expect("all succeed");
            assert_eq!(compiled.traffic().expect("it is on several ranks").tasks_elsewhere, 6 + 2);
            assert_eq!(results(&inner).expect("all are there"), expected);
        }
        // Results of a list that ran in another outlive that one.
        whole.run().expect("all succeed");
        drop(whole);
        let next: Vec<_> = inner.iter().map(|task| batch.function(where_am_i, (task.result(),))).collect();
        batch.compile(&next).expect("a list").run().expect("all succeed");
        assert_eq!(results(&next).expect("all are there"), expected, "they run where what they take is");
        assert_eq!(results(&inner).expect("all are there"), expected);
        return;
    }
    alone("a_list_runs_in_another_and_alone", "home");
}

/// To cancel a list that runs in another cancels its own tasks, wherever they are.
#[test]
fn a_list_is_cancelled_inside_another() {
    if role().is_some() {
        let batch = batch(2);
        let folder = tempfile::tempdir().expect("a folder");
        let begun = |i: u32| folder.path().join(format!("begun{i}"));
        let path = folder.path().join("go");
        let inner: Vec<_> = (0..2).map(|i| batch.function(sleepy, (begun(i),)).at_rank(i)).collect();
        let after = batch.function(where_am_i, (inner[1].result(),));
        let compiled = batch.compile(tasks![inner]).expect("a list");
        let others: Vec<_> = (0..2).map(|i| batch.function(wait_for, (&path, i)).at_rank(i)).collect();
        let whole = batch.compile(tasks![compiled, others, after]).expect("a list of lists");
        whole.start().expect("it starts");
        wait_until("both run", || (0..2).all(|i| begun(i).exists()));
        assert!(matches!(compiled.start(), Err(Error::AlreadyRunning)));
        compiled.cancel();
        // A function that heeds it returns, and has a result.
        assert_eq!(results(&inner).expect("both return"), [0, 1]);
        assert_eq!(after.result().get().expect("it is not of that list"), 1);
        assert_eq!(whole.status(), Status::Running);
        std::fs::write(&path, "").expect("a file");
        assert_eq!(results(&others).expect("nobody cancelled them"), [0, 1]);
        whole.wait().expect("all succeed");

        let late: Vec<_> =
            (0..2).map(|i| batch.function(where_am_i, (others[i].result(),)).at_rank(1)).collect();
        std::fs::remove_file(&path).expect("it was there");
        let late_list = batch.compile(&late).expect("a list");
        let first = batch.function(begin_and_wait, (begun(7), &path)).at_rank(0).name("first");
        let next = batch.function(where_am_i, (first.result(),)).at_rank(1);
        let of_first = batch.compile(tasks![first]).expect("a list");
        let of_next = batch.compile(tasks![of_first, next]).expect("a list of lists");
        let whole = batch.compile(tasks![of_next, late_list]).expect("a list of lists of lists");
        whole.start().expect("it starts");
        assert_eq!(results(&late).expect("they run"), [1, 1]);
        wait_until("the first has begun", || begun(7).exists());
        of_next.cancel();
        std::fs::write(&path, "").expect("a file");
        whole.wait().expect_err("one is cancelled");
        assert_eq!(next.result().get().expect_err("it had not begun").kind(), ErrorKind::Cancelled);
        return;
    }
    alone("a_list_is_cancelled_inside_another", "home");
}

/// What is submitted waits for single tasks of compiled lists that were submitted before, on any rank.
#[test]
fn submissions_wait_for_tasks_of_compiled_lists() {
    if role().is_some() {
        let batch = batch(3);
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..10u32 {
            let (path, file) =
                (folder.path().join(format!("go{round}")), folder.path().join(format!("file{round}")));
            let slow = batch.function(wait_for, (&path, 1u32)).at_rank(2);
            let write =
                batch.process("sh").args(["-c", "echo x > \"$0\""]).arg(&file).writes(&file).at_rank(1);
            let compiled = batch.compile(tasks![slow, write]).expect("a list");
            batch.submit(&compiled).expect("it is queued");
            if round % 2 == 0 {
                slow.result().get_timeout(Duration::from_micros(1)).expect_err("it waits");
            }
            let read = batch.process("cat").arg(&file).reads(&file).at_rank(round % 3);
            batch.submit(&read).expect("it is queued");
            // The list before it goes on.
            assert_eq!(read.stdout().get().expect("its output"), "x\n");
            std::fs::write(&path, "").expect("a file");
            batch.fence().expect("all succeed");
        }
        return;
    }
    alone("submissions_wait_for_tasks_of_compiled_lists", "home");
}

/// A list of lists of a batch with a journal.
#[test]
fn a_list_of_lists_is_resumed() {
    fn mark(context: &Context, folder: PathBuf, i: u32, _: u32) -> Result<u32, std::io::Error> {
        let name = format!("ran.{i}.{}", std::process::id());
        std::fs::write(folder.join(name), "")?;
        Ok(context.rank())
    }
    let test = "a_list_of_lists_is_resumed";
    if let Some(folder) = role() {
        let folder = Path::new(&folder);
        let builder = Batch::builder().spawn(3).journal(folder.join("journal")).resume(true);
        let batch = builder.build().expect("a batch");
        let task = |i: u32, before: u32| batch.function(mark, (folder, i, before)).at_rank(i % 3);
        let inner: Vec<_> = (0..6).map(|i| task(i, 0)).collect();
        let compiled = batch.compile(&inner).expect("a list");
        let last = batch.function(mark, (folder, 7u32, inner[4].result())).at_rank(2);
        let whole = batch.compile(tasks![compiled, last]).expect("a list of lists");
        whole.run().expect("all succeed");
        assert_eq!(results(&inner).expect("all are there"), [0, 1, 2, 0, 1, 2]);
        assert_eq!(last.result().get().expect("it is there"), 2);
        let past = batch.journal().expect("a journal").past;
        assert_eq!(whole.reused(), past);
        drop((whole, compiled, inner, last));
        return batch.join().expect("all is written");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let marks = || {
        let names = std::fs::read_dir(folder.path())
            .expect("a folder")
            .filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with("ran.")).count()
    };
    for _ in 0..2 {
        alone(test, folder.path().to_str().expect("text"));
        assert_eq!(marks(), 7);
    }
}
