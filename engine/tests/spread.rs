//! Lists on several ranks: they do what the serial program does, and values go where they are wanted.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{
    Batch, Compiled, Context, ErrorKind, Handle, Report, Status, Task, Workers, results, tasks,
};
use tarragon_testbed::{Launch, role, say};

fn batch(ranks: u32, threads: usize) -> Batch {
    Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

// ── random lists ────────────────────────────────────────────────────────────────────────────────────────────────

/// What a body does: reads and writes files, takes results, and ends somehow.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    id: u32,
    folder: PathBuf,
    reads: BTreeSet<u32>,
    writes: BTreeSet<u32>,
    takes: BTreeSet<u32>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum End {
    Well,
    Fails,
    Panics,
}

impl Step {
    fn is_closure(&self) -> bool {
        self.takes.is_empty() && self.id % 11 == 3
    }
}

fn file(folder: &Path, datum: u32) -> PathBuf {
    folder.join(format!("datum{datum}"))
}

/// What it saw, as text; the same wherever it runs. Some take their time, so that other ranks come to help.
fn body(context: &Context, step: &Step, inputs: &[String]) -> Result<String, std::io::Error> {
    if step.id % 8 < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let read = |datum: &u32| std::fs::read_to_string(file(&step.folder, *datum)).unwrap_or_default();
    let seen: Vec<String> = step.reads.iter().map(read).collect();
    let digest = |texts: &[String]| {
        let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
        bytes.fold(7u64, |d, b| (d ^ u64::from(b)).wrapping_mul(0x100_0000_01b3).rotate_left(7))
    };
    let saw = format!("{}:{:x}:{:x}", step.id, digest(&seen), digest(inputs));
    for datum in &step.writes {
        std::fs::write(file(&step.folder, *datum), format!("{saw} over {}", read(datum)))?;
    }
    if step.id.is_multiple_of(5) {
        writeln!(context.out(), "{} was here", step.id)?;
    }
    match step.end {
        End::Well => Ok(saw),
        End::Fails => Err(std::io::Error::other(format!("{} was told to fail", step.id))),
        End::Panics => panic!("{} was told to panic", step.id),
    }
}

fn by_value(context: &Context, step: Step, inputs: Vec<String>) -> Result<String, std::io::Error> {
    body(context, &step, &inputs)
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }

    fn some(&mut self, most: u32, below: u32) -> BTreeSet<u32> {
        let n = if below == 0 { 0 } else { self.below(most + 1) };
        (0..n).map(|_| self.below(below)).collect()
    }
}

fn steps(seed: u64, folder: &Path) -> Vec<Step> {
    let mut dice = Dice(seed);
    let n = 5 + dice.below(60);
    let data = 1 + dice.below(12);
    let fails = dice.below(3) == 0;
    let step = |id| Step {
        id,
        folder: folder.to_path_buf(),
        reads: dice.some(2, data),
        writes: dice.some(1, data),
        takes: dice.some(3, id),
        end: match dice.below(16) {
            0 if fails => End::Fails,
            1 if fails => End::Panics,
            _ => End::Well,
        },
    };
    (0..n).map(step).collect()
}

/// The tasks of steps: every third one takes its results by reference, some are closures that must stay where they are.
/// With a number of ranks tasks are strewn over them, so that most edges go from one rank to another.
fn listed(batch: &Batch, steps: &[Step], ranks: Option<u32>) -> Vec<Task<String>> {
    let mut tasks: Vec<Task<String>> = Vec::new();
    for step in steps {
        let inputs: Vec<Handle<String>> =
            step.takes.iter().map(|take| tasks[*take as usize].result()).collect();
        let mut task = match step.id % 7 {
            _ if step.is_closure() => {
                let own = step.clone();
                let silent = move || {
                    // A closure has no context.
                    let step = Step { id: own.id, ..own.clone() };
                    let saw = format!("closure {}", step.id);
                    let write = |datum: &u32| std::fs::write(file(&step.folder, *datum), &saw);
                    step.writes.iter().try_for_each(write).map(|()| saw)
                };
                batch.try_closure(silent)
            }
            0..3 => batch.function(body, (step.clone(), inputs)),
            _ => batch.function(by_value, (step.clone(), inputs)),
        };
        let is_bound = step.is_closure() || step.takes.iter().any(|take| steps[*take as usize].is_closure());
        if let (Some(ranks), false) = (ranks, is_bound) {
            task = task.at_rank(step.id.wrapping_mul(2_654_435_761) / 7 % ranks);
        }
        // One of a thread of its own.
        if step.id % 6 == 1 {
            task = task.cpus(1);
        }
        for datum in &step.reads {
            task.read(file(&step.folder, *datum)).expect("it can be declared");
        }
        for datum in &step.writes {
            task.write(file(&step.folder, *datum)).expect("it can be declared");
        }
        tasks.push(task);
    }
    tasks
}

/// How tasks came out: statuses, values or errors, outputs; and of skipped ones for which failure, if that is one list.
fn of_tasks(tasks: &[Task<String>], is_one: bool) -> Vec<String> {
    let of = |task: &Task<String>| {
        let value = match task.result().get() {
            Ok(value) => value,
            Err(error) if is_one => format!("{error} {:?}", cause_of(&error)),
            Err(error) if error.kind() == ErrorKind::Failed && cause_of(&error).is_none() => {
                format!("XX{error}")
            }
            Err(error) => format!("{:?} {:?}", error.kind(), cause_of(&error)),
        };
        let output = task.stdout().get().unwrap_or_default();
        format!("{:?} {value} [{}]", task.status(), output.trim_end())
    };
    tasks.iter().map(of).collect()
}

/// What the first in the chain of causes says.
fn cause_of(error: &tarragon_engine::TaskError) -> Option<String> {
    use std::error::Error;
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(next) = cause.and_then(Error::source) {
        cause = Some(next);
    }
    cause.filter(|_| error.kind() == ErrorKind::Failed).map(ToString::to_string)
}

/// The files, which are gone afterwards.
fn of_files(folder: &Path) -> Vec<String> {
    let of = |datum| {
        let path = file(folder, datum);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        format!("{datum}: {text}")
    };
    (0..12).map(of).collect()
}

/// How all came out.
fn outcome(compiled: &Compiled, tasks: &[Task<String>], folder: &Path) -> Vec<String> {
    let ended = compiled.run();
    let mut all = vec![format!("{}", ended.is_ok())];
    all.extend(of_tasks(tasks, true));
    let failures = compiled.failures();
    all.extend(failures.iter().map(|error| format!("failure {error}")));
    all.push(format!("{:?}", compiled.progress()));
    all.extend(of_files(folder));
    all
}

/// A report has every task, on its rank, and its summary the workers of all ranks.
fn check_report(report: &Report, compiled: &Compiled, ranks: u32) {
    let (progress, summary) = (compiled.progress(), compiled.summary().expect("it is measured"));
    let table = report.to_string();
    let of = |word: &str| {
        let counts = table.lines().find(|line| line.starts_with("tasks "))?.split([',', ':']);
        let count = counts.filter_map(|count| count.trim().strip_suffix(word)).next()?;
        count.trim().parse().ok()
    };
    let ended = (progress.done, progress.failed, progress.skipped);
    assert_eq!((of("done"), of("failed"), of("skipped")), some_of(ended), "{table}");
    assert_eq!(summary.tasks, compiled.len());
    assert!(summary.critical_path <= summary.wall && summary.critical_path <= summary.work, "{summary}");
    let ran = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let rows = table.lines().skip_while(|line| !line.starts_with("rank ")).skip(1).take_while(ran);
    let counts: Vec<usize> =
        rows.map(|row| row.split_whitespace().nth(1)?.parse().ok()).map(|n| n.unwrap_or(0)).collect();
    if compiled.traffic().is_some() {
        assert_eq!(summary.ranks, ranks as usize);
        assert_eq!(
            (counts.len(), counts.iter().sum()),
            (ranks as usize, progress.done + progress.failed),
            "{table}"
        );
    }
}

fn some_of((done, failed, skipped): (usize, usize, usize)) -> (Option<usize>, Option<usize>, Option<usize>) {
    let some = |n: usize| (n > 0).then_some(n);
    (some(done), some(failed), some(skipped))
}

fn random_lists(ranks: u32) {
    // Beyond this on one rank only.
    let _first = batch(ranks, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let serial = Batch::builder().alone().workers(Workers::Serial).build().expect("a batch");
    let (mut elsewhere, mut stolen) = (0, 0);
    for threads in [1, 2, 4] {
        let batch = batch(ranks, threads);
        let measuring = Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).timing(true).build();
        let measuring = measuring.expect("a batch");
        for seed in 0..25 {
            let steps = steps(seed * 97 + u64::from(ranks) * 7 + threads as u64, folder.path());
            let list = listed(&serial, &steps, None);
            let compiled = serial.compile(&list).expect("a list");
            let (expected, edges) = (outcome(&compiled, &list, folder.path()), compiled.edges());
            let batch = if seed % 4 < 2 { &batch } else { &measuring };
            let list = listed(batch, &steps, (seed % 2 == 1).then_some(ranks));
            let compiled = batch.compile(&list).expect("a list");
            assert_eq!(compiled.edges(), edges, "seed {seed}");
            for run in 0..2 {
                let found = outcome(&compiled, &list, folder.path());
                assert_eq!(found, expected, "seed {seed}, {threads} threads, run {run}: {steps:#?}");
                stolen += compiled.traffic().map_or(0, |traffic| traffic.tasks_stolen);
                if let Some(report) = compiled.report() {
                    check_report(&report, &compiled, ranks);
                }
            }
            elsewhere += steps.len();
        }
    }
    assert!(stolen > 0, "no rank ever helped another");
    say(&format!("{elsewhere} tasks on {ranks} ranks"));
}

/// What was submitted in pieces ends as the serial program does, on several ranks, too.
#[test]
fn random_submissions_on_three_ranks_are_as_serial() {
    if role().is_some() {
        let _first = batch(3, 1);
        let folder = tempfile::tempdir().expect("a folder");
        let serial = Batch::builder().alone().workers(Workers::Serial).build().expect("a batch");
        let mut there = 0;
        for threads in [1, 2] {
            let batch = batch(3, threads);
            for seed in 0..30 {
                let steps = steps(seed * 53 + threads as u64, folder.path());
                let list = listed(&serial, &steps, None);
                let compiled = serial.compile(&list).expect("a list");
                let _ = compiled.run();
                let expected = (of_tasks(&list, false), of_files(folder.path()));
                let list = listed(&batch, &steps, None);
                let mut dice = Dice(seed);
                let mut rest = &list[..];
                while !rest.is_empty() {
                    let (first, more) = rest.split_at(1 + dice.below(rest.len() as u32) as usize);
                    batch.submit(first).expect("they are submitted");
                    if dice.below(2) == 0 {
                        // Runs what is there, so that what follows waits for tasks of an earlier list.
                        let _ = first[0].result().get_timeout(Duration::from_micros(1));
                    }
                    rest = more;
                }
                let _ = batch.fence();
                let found = (of_tasks(&list, false), of_files(folder.path()));
                assert_eq!(found, expected, "seed {seed}, {threads} threads: {steps:#?}");
                there += list.iter().filter(|task| task.stdout().path().is_none()).count();
            }
        }
        return say(&format!("{there} tasks"));
    }
    alone("random_submissions_on_three_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_on_two_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists(2);
    }
    alone("random_lists_on_two_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_on_three_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists(3);
    }
    alone("random_lists_on_three_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_on_eight_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists(8);
    }
    alone("random_lists_on_eight_ranks_are_as_serial", "home");
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

/// Results of one list, wherever they are, are arguments of the next.
#[test]
fn lists_take_results_of_earlier_lists() {
    fn double(x: u64) -> u64 {
        2 * x
    }
    if role().is_some() {
        let batch = batch(3, 1);
        let mut last: Vec<_> = (0..12u64).map(|i| batch.function(double, (i,))).collect();
        batch.compile(&last).expect("a list").run().expect("all succeed");
        for _ in 0..3 {
            let next: Vec<_> = last.iter().map(|task| batch.function(double, (task.result(),))).collect();
            batch.compile(&next).expect("a list").run().expect("all succeed");
            last = next;
        }
        let expected: Vec<u64> = (0..12).map(|i| i * 16).collect();
        assert_eq!(results(&last).expect("all are there"), expected);
        return;
    }
    alone("lists_take_results_of_earlier_lists", "home");
}

/// A result is there when its task has ended, also while others of the list run on.
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

/// Cancelling reaches tasks on other ranks, those that run and those that wait.
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
