//! What a task has written, as an argument of tasks on other ranks.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use std::io::Write;
use std::time::Duration;
use tarragon_engine::{Batch, Context, ErrorKind, Exit, Task, Workers, results, tasks};
use tarragon_testbed::{Launch, role};

fn alone(test: &'static str) {
    Launch::alone(test, "home").run().expect_success();
}

fn batch(ranks: u32) -> Batch {
    let builder = Batch::builder().spawn(ranks).workers(Workers::Threads(1)).assume_cpus(4);
    builder.build().expect("a batch")
}

/// Of processes on every rank what they wrote goes to functions and processes on every rank, at every place of an
/// argument, again in each run.
#[test]
fn output_of_processes_goes_to_any_rank() {
    fn join(context: &Context, (out, err): (String, String), all: Vec<String>, exit: Exit) -> String {
        format!("{} {} {out}{err}{}", context.rank(), exit.code, all.concat())
    }
    if role().is_some() {
        let batch = batch(3);
        let folder = tempfile::tempdir().expect("a folder");
        let count = folder.path().join("count");
        let first = batch.process("sh").args(["-c", "echo x >> $0; wc -l < $0"]).arg(&count).writes(&count);
        let first = first.at_rank(1);
        let mut processes: Vec<Task<Exit>> = Vec::new();
        let (mut functions, mut echoes) = (Vec::new(), Vec::new());
        for i in 0..9u32 {
            let say = batch.process("sh").args(["-c", "echo out $0 $1; echo err $0 >&2"]);
            processes.push(say.arg(i).arg(first.stdout()).at_rank(i % 3));
        }
        for i in 0..9usize {
            let one = &processes[i];
            let (streams, all) =
                ((one.stdout(), one.stderr()), processes.iter().map(Task::stdout).collect::<Vec<_>>());
            let function = batch.function(join, (streams, all, one.result()));
            functions.push(function.at_rank((i as u32 / 3) % 3));
            let echo = batch.process("sh").args(["-c", "echo $0; cat"]).arg(one.stderr());
            echoes.push(echo.stdin(one.stdout()).at_rank((i as u32 + 1) % 3));
        }
        let compiled = batch.compile(tasks![first, processes, functions, echoes]).expect("a list");
        for run in 1..4 {
            compiled.run().expect("all succeed");
            let out = |i: usize| format!("out {i} {run}\n");
            let all: String = (0..9).map(out).collect();
            for (i, (function, echo)) in functions.iter().zip(&echoes).enumerate() {
                let (found, rank) = (function.result().get().expect("it succeeded"), i / 3);
                assert_eq!(found, format!("{rank} 0 {}err {i}\n{all}", out(i)));
                let echoed = echo.stdout().get().expect("text");
                assert_eq!(echoed.trim_end(), format!("err {i}\n{}", out(i).trim_end()));
                // What it wrote can be read where it was not taken, too.
                assert_eq!(processes[i].stderr().get().expect("text"), format!("err {i}\n"));
            }
        }
        return;
    }
    alone("output_of_processes_goes_to_any_rank");
}

fn writes(context: &Context, bytes: usize) -> Result<(), std::io::Error> {
    context.out().write_all(&vec![b'o'; bytes])?;
    context.err().write_all(&vec![b'e'; bytes / 2])
}

fn fails(context: &Context, _: u32) -> Result<(), std::io::Error> {
    writes(context, 3)?;
    Err(std::io::Error::other("told to fail"))
}

fn noise(context: &Context, _: u32) {
    context.out().write_all(&[0xFF, 0xFE]).expect("it can be written");
}

fn count(context: &Context, out: &str, err: String) -> (u32, usize, usize) {
    assert!(out.bytes().all(|byte| byte == b'o') && err.bytes().all(|byte| byte == b'e'));
    (context.rank(), out.len(), err.len())
}

/// Of functions and closures, also if there is nothing, or more than memory keeps; not of those that fail, and what is
/// no text fails who takes it.
#[test]
fn output_of_functions_goes_to_any_rank() {
    if role().is_some() {
        let batch = batch(3);
        let lens = [0, 10, 3 << 20];
        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        for from in 0..3 {
            for len in lens {
                let writer = batch.function(writes, (len,)).at_rank(from);
                for to in 0..3 {
                    let reader = batch.function(count, (writer.stdout(), writer.stderr()));
                    readers.push(reader.at_rank(to));
                }
                writers.push(writer);
            }
        }
        let silent = batch.closure(|| 5u8);
        let hears = batch.function(count, (silent.stdout(), silent.stderr())).at_rank(2);
        let bad = [batch.function(noise, (1u32,)).at_rank(1), batch.function(noise, (1u32,)).at_rank(0)];
        let failed = batch.try_function(fails, (1u32,)).at_rank(1);
        let takes =
            |task: &Task<()>, rank| batch.function(count, (task.stdout(), String::new())).at_rank(rank);
        let refused: Vec<_> = bad.iter().flat_map(|task| (0..3).map(|rank| takes(task, rank))).collect();
        let skipped: Vec<_> = (0..3).map(|rank| takes(&failed, rank)).collect();
        let list = tasks![writers, readers, silent, hears, bad, failed, refused, skipped];
        let compiled = batch.compile(list).expect("a list");
        for _ in 0..2 {
            compiled.run().expect_err("some fail");
            let mut found = results(&readers).expect("these do not").into_iter();
            for len in [lens, lens, lens].concat() {
                for to in 0..3 {
                    assert_eq!(found.next(), Some((to, len, len / 2)));
                }
            }
            assert_eq!(hears.result().get().expect("it does not"), (2, 0, 0));
            for task in &refused {
                let error = task.result().get().expect_err("no text");
                assert_eq!(error.kind(), ErrorKind::Failed);
                let says = error.to_string();
                assert!(says.contains("output of task") && says.contains("UTF-8"), "{says}");
            }
            for task in &skipped {
                let error = task.result().get().expect_err("it fails before");
                assert_eq!((error.kind(), error.chain().len()), (ErrorKind::Skipped, 2));
                assert!(error.to_string().contains("told to fail"), "{error}");
            }
        }
        // What tasks of another list have written is read by rank 0.
        let later = batch.function(count, (writers[4].stdout(), writers[4].stderr()));
        batch.compile(tasks![later]).expect("a list").run().expect("it succeeds");
        assert_eq!(later.result().get().expect("it succeeded"), (0, 10, 5));
        let elsewhere = batch.function(count, (writers[4].stdout(), String::new())).at_rank(1);
        let refused = batch.compile(tasks![elsewhere]).expect_err("it must stay").to_string();
        assert!(refused.contains("output of a task of another list"), "{refused}");
        return;
    }
    alone("output_of_functions_goes_to_any_rank");
}

/// Where the user does not choose ranks, what takes output runs on all of them, and can be stolen.
#[test]
fn tasks_that_take_output_are_spread() {
    fn sleep(context: &Context, text: String) -> (u32, String) {
        std::thread::sleep(std::time::Duration::from_millis(5));
        (context.rank(), text)
    }
    if role().is_some() {
        let batch = batch(4);
        let says: Vec<_> = (0..40u32).map(|i| batch.process("echo").arg(i)).collect();
        let heard: Vec<_> = says.iter().map(|say| batch.function(sleep, (say.stdout(),))).collect();
        let compiled = batch.compile(tasks![says, heard]).expect("a list");
        compiled.run().expect("all succeed");
        let mut ranks = [0; 4];
        for (i, (rank, text)) in results(&heard).expect("all succeeded").into_iter().enumerate() {
            assert_eq!(text, format!("{i}\n"));
            ranks[rank as usize] += 1;
        }
        assert!(ranks.iter().all(|n| *n > 0), "{ranks:?}");
        assert!(compiled.traffic().expect("it is spread").tasks_elsewhere >= 40);
        // All ready at once on one rank: others come to help, and bring what they need with them.
        let one = batch.process("echo").arg("once").at_rank(1);
        let heard: Vec<_> = (0..60).map(|_| batch.function(sleep, (one.stdout(),))).collect();
        let compiled = batch.compile(tasks![one, heard]).expect("a list");
        compiled.run().expect("all succeed");
        let all = results(&heard).expect("all succeeded");
        assert!(all.iter().all(|(_, text)| text == "once\n"));
        return;
    }
    alone("tasks_that_take_output_are_spread");
}

/// What is submitted takes what tasks of earlier submissions write, also of such that have not ended yet.
#[test]
fn output_of_earlier_submissions_is_brought() {
    fn join(one: String, two: &str) -> String {
        format!("{one}{two}")
    }
    if role().is_some() {
        let batch = batch(3);
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..4 {
            let path = folder.path().join(round.to_string());
            let wait = "while ! test -e $0; do sleep 0.01; done; echo late; echo grumble >&2";
            let late = batch.process("sh").args(["-c", wait]).arg(&path).timeout(Duration::from_secs(60));
            let (late, early) = (late.at_rank(1), batch.process("echo").arg("early").at_rank(2));
            batch.submit(tasks![late, early]).expect("they are queued");
            early.result().get().expect("it succeeds");
            let cat = batch.process("cat").stdin(late.stdout());
            let echo = batch.process("echo").arg(early.stdout()).arg(late.stderr());
            let both = batch.function(join, (late.stdout(), early.stdout()));
            let again = batch.process("cat").stdin(cat.stdout()).at_rank(2);
            batch.submit(tasks![cat, echo, both, again]).expect("they are queued");
            both.result().get_timeout(Duration::from_micros(1)).expect_err("it waits");
            std::fs::write(&path, "").expect("a file");
            assert_eq!(cat.stdout().get().expect("text"), "late\n");
            assert_eq!(echo.stdout().get().expect("text"), "early grumble\n");
            assert_eq!(both.result().get().expect("it succeeds"), "late\nearly\n");
            assert_eq!(again.stdout().get().expect("text"), "late\n");
            batch.fence().expect("all succeed");
        }
        return;
    }
    alone("output_of_earlier_submissions_is_brought");
}
