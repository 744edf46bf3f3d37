//! Lists on several ranks that end early: cancelled, failed far away, with a rank that is lost or a program that is
//! killed.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{Batch, Context, Error, ErrorKind, Workers, results, tasks};
use tarragon_testbed::{Launch, die, role, say, wait_until};

fn batch(ranks: u32, threads: usize) -> Batch {
    Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

fn where_am_i(context: &Context, _: u32) -> u32 {
    context.rank()
}

#[test]
fn cancelling_reaches_all_ranks() {
    fn patient(context: &Context, begun: PathBuf) -> bool {
        std::fs::write(begun, "").expect("it can be written");
        while !context.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
    if role().is_some() {
        let batch = batch(3, 1);
        let folder = tempfile::tempdir().expect("a folder");
        let begun = |i: u32| folder.path().join(i.to_string());
        let list: Vec<_> = (0..9u32).map(|i| batch.function(patient, (begun(i),)).at_rank(i % 3)).collect();
        let compiled = batch.compile(&list).expect("a list");
        compiled.start().expect("it starts");
        wait_until("a body runs on each rank", || {
            (0..3u32).all(|rank| (rank..9).step_by(3).any(|i| begun(i).exists()))
        });
        compiled.cancel();
        compiled.wait().expect_err("some were cancelled");
        let progress = compiled.progress();
        assert_eq!(progress.ended(), 9, "{progress:?}");
        assert!(progress.skipped >= 6, "{progress:?}");
        return;
    }
    alone("cancelling_reaches_all_ranks", "home");
}

/// Wherever a body fails, its own error is what it was, also behind tasks of other ranks that are skipped because of
/// it; of a type that the batch has not been told of it is what it said.
#[test]
fn errors_of_bodies_are_what_they_were_on_other_ranks() {
    #[derive(Debug, PartialEq, thiserror::Error, serde::Serialize, serde::Deserialize)]
    enum Solver {
        #[error("no convergence after {steps} steps, residual {residual}")]
        Diverged { steps: u32, residual: f64 },
        #[error("cannot be read")]
        Unread(#[serde(serialize_with = "nothing")] u32),
    }
    fn nothing<S: serde::Serializer>(_: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit()
    }
    #[derive(Debug, thiserror::Error)]
    #[error("of a type that is not told of")]
    struct Other;
    fn solve(how: u32) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        Err(match how {
            0 => Solver::Diverged { steps: 7, residual: 0.5 }.into(),
            1 => std::fs::read("/this/file/is/not/there").expect_err("it is not there").into(),
            2 => Solver::Unread(1).into(),
            _ => Other.into(),
        })
    }
    fn next(before: u32) -> u32 {
        before + 1
    }
    if role().is_some() {
        let builder = Batch::builder().spawn(3).workers(Workers::Threads(1)).error::<Solver>();
        let batch = builder.build().expect("a batch");
        let mut list = Vec::new();
        for rank in 0..3 {
            for how in 0..4u32 {
                let first = batch.function(solve, (how,)).at_rank(rank);
                let then = batch.function(next, (first.result(),)).at_rank((rank + 1) % 3);
                let last = batch.function(next, (then.result(),)).at_rank(0);
                list.extend([first, then, last]);
            }
        }
        batch.submit(&list).expect("they are queued");
        batch.fence().expect_err("all fail");
        for (i, task) in list.iter().enumerate() {
            let (error, how) = (task.result().get().expect_err("it fails"), i / 3 % 4);
            match how {
                0 => assert_eq!(
                    error.downcast_ref::<Solver>(),
                    Some(&Solver::Diverged { steps: 7, residual: 0.5 })
                ),
                1 => {
                    let own = error.downcast_ref::<std::io::Error>().expect("the system's error");
                    assert_eq!(own.kind(), std::io::ErrorKind::NotFound);
                }
                2 => assert!(error.to_string().contains("cannot be read"), "{error}"),
                _ => assert!(error.to_string().contains("of a type that is not told of"), "{error}"),
            }
        }
        return;
    }
    alone("errors_of_bodies_are_what_they_were_on_other_ranks", "home");
}

#[test]
fn no_ranks_are_refused() {
    for ranks in [0, u32::MAX] {
        let refused = Batch::builder().spawn(ranks).build().err().expect("no such world");
        assert!(refused.to_string().contains("ranks"), "{refused}");
        assert!(refused.to_string().contains(&ranks.to_string()), "{refused}");
    }
}

/// Thousands of tasks that are skipped one because of the other are told of in one message that is no longer than the
/// list.
#[test]
fn a_long_chain_that_fails_elsewhere_is_told_of() {
    fn fails(_: u32) -> Result<u32, std::io::Error> {
        Err(std::io::Error::other("the disk is gone"))
    }
    fn next(before: u32) -> u32 {
        before + 1
    }
    if role().is_some() {
        let batch = batch(2, 1);
        let mut list = vec![batch.function(fails, (1u32,)).at_rank(1)];
        for i in 1..50_000 {
            list.push(batch.function(next, (list[i - 1].result(),)).at_rank(1));
        }
        let compiled = batch.compile(&list).expect("a list");
        let error = compiled.run().expect_err("it fails");
        assert!(error.to_string().ends_with("fails` failed: the disk is gone"), "{error}");
        let progress = compiled.progress();
        assert_eq!((progress.failed, progress.skipped), (1, 49_999));
        let last = list[49_999].result().get().expect_err("it was skipped");
        assert_eq!(last.chain().len(), 50_000);
        return;
    }
    alone("a_long_chain_that_fails_elsewhere_is_told_of", "home");
}

fn die_at(context: &Context, rank: u32) -> u32 {
    if context.rank() == rank {
        die();
    }
    context.rank()
}

/// A lost rank ends the list at once, with an error that names it; later lists do not start.
#[test]
fn a_lost_rank_ends_the_list_and_is_named() {
    if role().is_some() {
        let batch = batch(3, 1);
        let list: Vec<_> = (0..9u32).map(|_| batch.function(die_at, (2u32,))).collect();
        let after: Vec<_> = list.iter().map(|task| batch.function(where_am_i, (task.result(),))).collect();
        let compiled = batch.compile(tasks![list, after]).expect("a list");
        let begin = std::time::Instant::now();
        let error = compiled.run().expect_err("a rank dies");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(error.to_string().contains("rank 2 on "), "{error}");
        let lost = list[8].result().get().expect_err("its rank died");
        assert_eq!((lost.kind(), lost.rank()), (ErrorKind::Lost, 2), "{lost}");
        assert!(matches!(compiled.run(), Err(Error::RankLost { rank: 2, .. })));
        say("the program goes on");
        return;
    }
    let ended = Launch::alone("a_lost_rank_ends_the_list_and_is_named", "home").run();
    ended.expect_success();
    assert_eq!(ended.said(), ["the program goes on"], "{}", ended.text);
}

/// A program that is killed takes its ranks along, and what they run: nothing stays behind.
#[test]
fn a_killed_program_leaves_no_ranks() {
    let test = "a_killed_program_leaves_no_ranks";
    fn tell(context: &Context, folder: &Path, at: u32) {
        if context.rank() == at {
            std::fs::write(folder.join(format!("{at}")), std::process::id().to_string()).expect("a file");
            std::thread::sleep(Duration::from_secs(60));
        }
    }
    if let Some(folder) = role() {
        let batch = batch(3, 1);
        let list: Vec<_> =
            (0..3u32).map(|i| batch.function(tell, (PathBuf::from(&folder), i)).at_rank(i)).collect();
        batch.compile(&list).expect("a list").run().expect("killed before");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_str().expect("text");
    let pid = |rank: u32| std::fs::read_to_string(folder.path().join(rank.to_string())).unwrap_or_default();
    let ended = Launch::alone(test, place).run_beside(|_| {
        wait_until("all are inside a body", || (0..3).all(|rank| !pid(rank).is_empty()));
        let home = Pid::from_raw(pid(0).parse().expect("a process id")).expect("a process id");
        kill_process(home, Signal::KILL).expect("it is there");
    });
    assert!(!ended.status.success());
    let is_gone = |rank: u32| !Path::new(&format!("/proc/{}", pid(rank))).exists();
    wait_until("all have ended", || (0..3).all(is_gone));
}

/// A body on another rank that does not hear that it is late keeps neither the run nor its results, only the next run.
#[test]
fn a_body_that_was_given_up_on_another_rank_keeps_the_next_run_only() {
    fn deaf(go: &Path) -> u32 {
        wait_until("it may go on", || go.exists());
        1
    }
    fn after(before: u32) -> u32 {
        before + 1
    }
    if role().is_some() {
        let batch = batch(2, 1);
        let folder = tempfile::tempdir().expect("a folder");
        let go = folder.path().join("go");
        let late = batch.function(deaf, (&go,)).timeout(Duration::from_millis(50)).at_rank(1);
        let skipped = batch.function(after, (late.result(),)).at_rank(0);
        let beside: Vec<_> = (0..4u32).map(|i| batch.function(where_am_i, (i,)).at_rank(i % 2)).collect();
        let compiled = batch.compile(tasks![late, skipped, beside]).expect("a list");
        let error = compiled.run().expect_err("one is late");
        assert!(error.to_string().contains("deaf"), "{error}");
        assert_eq!(late.result().get().expect_err("it is late").kind(), ErrorKind::OverTime);
        assert_eq!(skipped.result().get().expect_err("it is skipped").kind(), ErrorKind::Skipped);
        assert_eq!(results(&beside).expect("they ran"), [0, 1, 0, 1]);
        assert!(matches!(compiled.run(), Err(Error::BodyStillRuns)));
        std::fs::write(&go, "").expect("a file");
        wait_until("it runs again", || match compiled.run() {
            Err(Error::BodyStillRuns) => false,
            ended => ended.map(|()| true).expect("all succeed"),
        });
        assert_eq!(skipped.result().get().expect("it ran"), 2);
        return;
    }
    alone("a_body_that_was_given_up_on_another_rank_keeps_the_next_run_only", "home");
}
