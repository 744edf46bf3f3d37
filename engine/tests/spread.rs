//! Lists on several ranks: they do what the serial program does, and values go where they are wanted.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tarragon_engine::{Batch, Context, ErrorKind, Status, Workers, results, tasks};
use tarragon_testbed::{Launch, role};

fn batch(ranks: u32, threads: usize) -> Batch {
    Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

// ── where tasks run ─────────────────────────────────────────────────────────────────────────────────────────────

fn where_am_i(context: &Context, _: u32) -> u32 {
    context.rank()
}

fn next(context: &Context, before: (u32, u32)) -> (u32, u32) {
    (before.0 + 1, context.rank())
}

/// Every rank gets its share, a chain stays where it is, and results that nobody asked for are there later.
#[test]
fn every_rank_runs_its_share() {
    if role().is_some() {
        let batch = batch(4, 1);
        let spread: Vec<_> = (0..40u32).map(|i| batch.function(where_am_i, (i,))).collect();
        let mut chain = vec![batch.function(next, ((0u32, 0u32),))];
        for i in 1..20 {
            chain.push(batch.function(next, (chain[i - 1].result(),)));
        }
        batch.compile(tasks![spread, chain]).expect("a list").run().expect("all succeed");
        let ranks = results(&spread).expect("all are there");
        for rank in 0..4 {
            assert!(ranks.iter().filter(|r| **r == rank).count() >= 8, "{ranks:?}");
        }
        let chain = results(&chain).expect("all are there");
        assert!(chain.iter().enumerate().all(|(i, (n, rank))| (*n, *rank) == (i as u32 + 1, chain[0].1)));
        // A stencil of fixed width per rank crosses ranks at the edges of blocks, however many ranks there are.
        let cells = batch.keys("cells");
        let step = |t: u64, i: u64| {
            let task = batch.function(where_am_i, (0u32,)).writes(cells.at((t % 2) * 100 + i));
            let near = i.saturating_sub(1)..(i + 2).min(40);
            near.fold(task, |task, j| task.reads(cells.at((t + 1) % 2 * 100 + j)))
        };
        let list: Vec<_> =
            (0..10).flat_map(|t| (0..40).map(move |i| (t, i))).map(|(t, i)| step(t, i)).collect();
        let compiled = batch.compile(&list).expect("a list");
        compiled.run().expect("all succeed");
        let traffic = compiled.traffic().expect("it is on several ranks");
        assert_eq!(traffic.tasks_elsewhere, 300, "{traffic:?}");
        assert!(traffic.notices <= 3 * 2 * 10 && traffic.notices > 0, "{traffic:?}");
        assert!(traffic.part_bytes <= 300 * (32 + 5 * 4), "{traffic:?}");
        return;
    }
    alone("every_rank_runs_its_share", "home");
}

/// A task runs on the rank that it names; one that cannot is a mistake.
#[test]
fn a_task_runs_where_it_is_told_to() {
    if role().is_some() {
        let batch = batch(3, 1);
        let told: Vec<_> =
            (0..9u32).map(|i| batch.function(where_am_i, (i,)).at_rank((i * 7 + 2) % 3)).collect();
        batch.compile(&told).expect("a list").run().expect("all succeed");
        let expected: Vec<u32> = (0..9).map(|i| (i * 7 + 2) % 3).collect();
        assert_eq!(results(&told).expect("all are there"), expected);
        let closure = batch.closure(|| 1u8).at_rank(1);
        let nowhere = batch.function(where_am_i, (1u32,)).at_rank(3);
        let error = batch.compile(tasks![closure, nowhere]).expect_err("two mistakes").to_string();
        assert!(error.contains("is to run on rank 1, but must run on rank 0"), "{error}");
        assert!(error.contains("is to run on rank 3, but there are 3: 0 is the first"), "{error}");
        return;
    }
    alone("a_task_runs_where_it_is_told_to", "home");
}

/// A value that is a task's argument on another rank is there once, however many tasks take it, and a large one comes
/// whole.
#[test]
fn large_values_go_between_ranks() {
    fn fill(n: usize) -> Vec<u64> {
        (0..n as u64).collect()
    }
    fn sum(values: &[u64], from: usize) -> u64 {
        values[from..].iter().sum()
    }
    if role().is_some() {
        let batch = batch(3, 2);
        let n = 3_000_000;
        let values = batch.function(fill, (n,));
        let sums: Vec<_> = (0..9usize).map(|from| batch.function(sum, (values.result(), from))).collect();
        let compiled = batch.compile(tasks![values, sums]).expect("a list");
        for _ in 0..3 {
            compiled.run().expect("all succeed");
            let all: u64 = (0..n as u64).sum();
            for (from, sum) in results(&sums).expect("all are there").into_iter().enumerate() {
                assert_eq!(sum, all - (0..from as u64).sum::<u64>());
            }
        }
        drop(compiled);
        // Results outlive the compiled list.
        assert_eq!(values.result().get().expect("it is there").len(), n);
        return;
    }
    alone("large_values_go_between_ranks", "home");
}

/// Results of one list are arguments of the next, and stay on the rank where they are: no list sends more than who is
/// to give what to whom.
#[test]
fn lists_take_results_of_earlier_lists_where_they_are() {
    fn fill(x: u64) -> Vec<u64> {
        vec![x; 100_000]
    }
    fn double(context: &Context, x: &[u64]) -> (u32, Vec<u64>) {
        (context.rank(), x.iter().map(|x| 2 * x).collect())
    }
    fn again(context: &Context, x: &(u32, Vec<u64>)) -> (u32, Vec<u64>) {
        double(context, &x.1)
    }
    if role().is_some() {
        let batch = Batch::builder().spawn(3).workers(Workers::Threads(1)).work_stealing(false).build();
        let batch = batch.expect("a batch");
        let first: Vec<_> = (0..12u64).map(|i| batch.function(fill, (i,))).collect();
        let filled = batch.compile(&first).expect("a list");
        filled.run().expect("all succeed");
        let mut last: Vec<_> = first.iter().map(|task| batch.function(double, (task.result(),))).collect();
        let mut lists = vec![batch.compile(&last).expect("a list")];
        for _ in 0..2 {
            lists[lists.len() - 1].run().expect("all succeed");
            last = last.iter().map(|task| batch.function(again, (task.result(),))).collect();
            lists.push(batch.compile(&last).expect("a list"));
        }
        lists[2].run().expect("all succeed");
        for list in &lists {
            let traffic = list.traffic().expect("it is on several ranks");
            assert_eq!((traffic.tasks_elsewhere, traffic.notices), (8, 8), "{traffic:?}");
            assert!(traffic.notice_bytes < 8 * 100, "{traffic:?}");
        }
        for (i, (rank, values)) in results(&last).expect("all are there").into_iter().enumerate() {
            assert_eq!((rank, values.len(), values[7]), (i as u32 / 4, 100_000, i as u64 * 8));
        }
        // What has come here is elsewhere all the same; what was taken is not there any more.
        assert_eq!(first[11].result().get().expect("it is there")[0], 11);
        first[10].result().take().expect("it is taken");
        lists[0].run().expect_err("one argument was taken");
        let failures = lists[0].failures();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].to_string().contains("was taken before"), "{}", failures[0]);
        filled.run().expect("all succeed");
        lists[0].run().expect("the new results are there");
        return;
    }
    alone("lists_take_results_of_earlier_lists_where_they_are", "home");
}

/// What is submitted takes results of earlier submissions on any rank, also of such that have not ended yet, and the
/// failures of such.
#[test]
fn submissions_take_what_has_not_ended_on_any_rank() {
    fn wait_for(path: PathBuf, says: u32) -> Result<u32, std::io::Error> {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if says == 0 { Err(std::io::Error::other("told to fail")) } else { Ok(says) }
    }
    fn add(context: &Context, (one, two): (u32, u32)) -> (u32, u32) {
        (context.rank(), one + two)
    }
    if role().is_some() {
        let batch = batch(3, 2);
        let folder = tempfile::tempdir().expect("a folder");
        for (round, fails) in [false, true, false].into_iter().enumerate() {
            let path = folder.path().join(round.to_string());
            let first = batch.function(wait_for, (&path, 3u32)).at_rank(2);
            let last = batch.function(wait_for, (&path, if fails { 0 } else { 5u32 }));
            batch.submit(tasks![first, last]).expect("they are queued");
            first.result().get_timeout(Duration::from_micros(1)).expect_err("it waits");
            let sum = |rank| batch.function(add, ((first.result(), last.result()),)).at_rank(rank);
            let sums: Vec<_> = (0..3).map(sum).collect();
            batch.submit(&sums).expect("they are queued");
            sums[1].result().get_timeout(Duration::from_micros(1)).expect_err("it waits, too");
            std::fs::write(&path, "").expect("a file");
            for (rank, sum) in sums.iter().enumerate() {
                match sum.result().get() {
                    Ok(sum) => assert_eq!((sum, fails), ((rank as u32, 8), false)),
                    Err(error) => assert!(fails && error.to_string().contains("told to fail"), "{error}"),
                }
            }
            assert_eq!(batch.fence().is_err(), fails);
        }
        return;
    }
    alone("submissions_take_what_has_not_ended_on_any_rank", "home");
}

/// A notice may come while its list is becoming known to its rank.
#[test]
fn many_short_lists_run_as_soon_as_they_are_known() {
    if role().is_some() {
        let batch = batch(8, 1);
        for round in 0..300u32 {
            let mut list = vec![batch.function(where_am_i, (round,)).at_rank(1)];
            for rank in (2..8).chain(0..8) {
                let before = list[list.len() - 1].result();
                list.push(batch.function(where_am_i, (before,)).at_rank(rank));
            }
            batch.compile(&list).expect("a list").run().expect("all succeed");
            assert_eq!(list[14].result().get().expect("it ran"), 7);
        }
        return;
    }
    alone("many_short_lists_run_as_soon_as_they_are_known", "home");
}

/// A result is there when its task has ended, also while others of the list run on.
#[test]
fn a_result_is_there_before_the_list_has_ended() {
    fn wait_for(path: PathBuf, rank: u32) -> u32 {
        while rank != 0 && !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        rank
    }
    if role().is_some() {
        let batch = batch(2, 2);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("go");
        // Of each rank's block the first is over at once, and the last waits.
        let list: Vec<_> =
            (0..4u32).map(|i| batch.function(wait_for, (&path, if i == 3 { 9 } else { 0 }))).collect();
        let compiled = batch.compile(&list).expect("a list");
        compiled.start().expect("it starts");
        assert_eq!(list[2].result().get().expect("it ends"), 0);
        assert_eq!(compiled.status(), Status::Running);
        let timeout = list[3].result().get_timeout(Duration::from_millis(20)).expect_err("it waits");
        assert_eq!(timeout.kind(), ErrorKind::TimedOut);
        std::fs::write(&path, "").expect("it is written");
        assert_eq!(list[3].result().get().expect("it ends"), 9);
        compiled.wait().expect("all succeed");
        return;
    }
    alone("a_result_is_there_before_the_list_has_ended", "home");
}

/// What serde cannot write stays on the rank of the program, and fails there only if it must.
#[test]
fn arguments_that_cannot_be_written_stay_at_home() {
    #[derive(Clone)]
    struct Shy(u32);
    impl Serialize for Shy {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    impl<'de> Deserialize<'de> for Shy {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("no"))
        }
    }
    fn look(context: &Context, shy: &Shy) -> (u32, u32) {
        (shy.0, context.rank())
    }
    if role().is_some() {
        let batch = batch(2, 1);
        let shy: Vec<_> = (0..4u32).map(|i| batch.function(look, (Shy(i),))).collect();
        let spread: Vec<_> = (0..8u32).map(|i| batch.function(where_am_i, (i,))).collect();
        batch.compile(tasks![shy, spread]).expect("a list").run().expect("all succeed");
        assert_eq!(results(&shy).expect("all are there"), [(0, 0), (1, 0), (2, 0), (3, 0)]);
        assert!(results(&spread).expect("all are there").contains(&1));
        return;
    }
    alone("arguments_that_cannot_be_written_stay_at_home", "home");
}
