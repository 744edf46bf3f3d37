//! Random lists on several ranks do what the serial program does: one by one, one after the other with results of each
//! as arguments of the next, and submitted in pieces.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{
    Batch, Compiled, Context, ErrorKind, Handle, Report, Stream, Task, TaskList, Workers, tasks,
};
use tarragon_testbed::{Hosts, Launch, role, say};

fn batch(ranks: u32, threads: usize) -> Batch {
    Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

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

    /// Whether it takes what others have written.
    fn listens(&self) -> bool {
        self.id % 4 == 1
    }

    /// Of those it takes from which the result.
    fn sees(&self, hears: bool) -> impl Iterator<Item = u32> + '_ {
        let hears = hears && self.listens();
        self.takes.iter().copied().filter(move |take| !hears || take % 2 == 0 || take % 3 == 0)
    }

    /// And from which what it has written.
    fn hears(&self, hears: bool) -> impl Iterator<Item = u32> + '_ {
        let hears = hears && self.listens();
        self.takes.iter().copied().filter(move |take| hears && take % 2 == 1)
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

fn by_ear(
    context: &Context,
    step: Step,
    mut inputs: Vec<String>,
    heard: Vec<String>,
) -> Result<String, std::io::Error> {
    inputs.extend(heard);
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
/// With a number of ranks tasks are strewn over them, so that most edges go from one rank to another. If they may, some
/// take what others have written.
fn listed(batch: &Batch, steps: &[Step], ranks: Option<u32>, hears: bool) -> Vec<Task<String>> {
    let mut tasks: Vec<Task<String>> = Vec::new();
    for step in steps {
        let inputs: Vec<Handle<String>> =
            step.sees(hears).map(|take| tasks[take as usize].result()).collect();
        let heard: Vec<Stream> = step.hears(hears).map(|take| tasks[take as usize].stdout()).collect();
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
            _ if !heard.is_empty() => batch.function(by_ear, (step.clone(), inputs, heard)),
            0..3 => batch.function(body, (step.clone(), inputs)),
            _ => batch.function(by_value, (step.clone(), inputs)),
        };
        let is_bound = step.is_closure() || step.sees(hears).any(|take| steps[take as usize].is_closure());
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
            let list = listed(&serial, &steps, None, true);
            let compiled = serial.compile(&list).expect("a list");
            let (expected, edges) = (outcome(&compiled, &list, folder.path()), compiled.edges());
            let batch = if seed % 4 < 2 { &batch } else { &measuring };
            let list = listed(batch, &steps, (seed % 2 == 1).then_some(ranks), true);
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
                let list = listed(&serial, &steps, None, true);
                let compiled = serial.compile(&list).expect("a list");
                let _ = compiled.run();
                let expected = (of_tasks(&list, false), of_files(folder.path()));
                let list = listed(&batch, &steps, None, true);
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

// ── lists one after the other ───────────────────────────────────────────────────────────────────────────────────

/// Where the list is cut into several.
fn cuts(seed: u64, tasks: usize) -> Vec<usize> {
    let mut dice = Dice(seed ^ 0x5555);
    let mut cuts = vec![0];
    while cuts[cuts.len() - 1] < tasks {
        let first = cuts[cuts.len() - 1];
        cuts.push(first + 1 + dice.below((tasks - first) as u32) as usize);
    }
    cuts
}

/// How all came out, of lists that run one after the other; twice, since each takes the new results of those before.
fn outcome_of_lists(batch: &Batch, tasks: &[Task<String>], cuts: &[usize], folder: &Path) -> Vec<String> {
    let lists: Vec<&[Task<String>]> = cuts.windows(2).map(|ends| &tasks[ends[0]..ends[1]]).collect();
    let mut compiled: Vec<Compiled> = Vec::new();
    let mut all = Vec::new();
    for list in &lists {
        // A list whose results others take must have run.
        compiled.push(batch.compile(*list).expect("a list"));
        all.push(compiled[compiled.len() - 1].run().is_ok().to_string());
    }
    all.extend(of_tasks(tasks, true));
    all.extend(of_files(folder));
    for (compiled, list) in compiled.iter().zip(&lists) {
        // Some results are here before the next list runs, most are not.
        all.push(compiled.run().is_ok().to_string());
        all.extend(of_tasks(&list[..1], true));
    }
    all.extend(of_tasks(tasks, true));
    all.extend(of_files(folder));
    all
}

fn random_lists_in_steps(ranks: u32) {
    let _first = batch(ranks, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let serial = Batch::builder().alone().workers(Workers::Serial).build().expect("a batch");
    let (mut spread, mut taken) = (0, 0);
    for threads in [1, 2] {
        let batch = batch(ranks, threads);
        for seed in 0..25 {
            let steps = steps(seed * 31 + u64::from(ranks) * 7 + threads as u64, folder.path());
            let cuts = cuts(seed, steps.len());
            let list = listed(&serial, &steps, None, seed % 2 == 0);
            let expected = outcome_of_lists(&serial, &list, &cuts, folder.path());
            let list = listed(&batch, &steps, (seed % 2 == 1).then_some(ranks), seed % 2 == 0);
            let found = outcome_of_lists(&batch, &list, &cuts, folder.path());
            assert_eq!(found, expected, "seed {seed}, {threads} threads, cut at {cuts:?}: {steps:#?}");
            spread += list.len();
            let list_of = |id: u32| cuts.iter().filter(|cut| **cut <= id as usize).count();
            taken += steps
                .iter()
                .flat_map(|s| s.takes.iter().map(move |t| (s.id, *t)))
                .filter(|(a, b)| list_of(*a) != list_of(*b))
                .count();
        }
    }
    assert!(taken > 100, "{taken} results of earlier lists");
    say(&format!("{spread} tasks on {ranks} ranks, {taken} results of earlier lists"));
}

#[test]
fn random_lists_in_steps_on_two_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists_in_steps(2);
    }
    alone("random_lists_in_steps_on_two_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_in_steps_on_three_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists_in_steps(3);
    }
    alone("random_lists_in_steps_on_three_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_in_steps_on_eight_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists_in_steps(8);
    }
    alone("random_lists_in_steps_on_eight_ranks_are_as_serial", "home");
}

// ── lists in lists ──────────────────────────────────────────────────────────────────────────────────────────────

/// A list of pieces, of which every other is a list of its own, and every fourth one that holds another.
struct Nest {
    tasks: Vec<Task<String>>,
    inner: Vec<Compiled>,
    whole: Option<Compiled>,
}

/// Steps of a list of its own take results of that alone.
fn steps_of_nest(seed: u64, folder: &Path, cuts_of: impl Fn(usize) -> Vec<usize>) -> (Vec<Step>, Vec<usize>) {
    let mut steps = steps(seed, folder);
    let cuts = cuts_of(steps.len());
    for (_, ends) in cuts.windows(2).enumerate().filter(|(i, _)| i % 2 == 1) {
        steps[ends[0]..ends[1]]
            .iter_mut()
            .for_each(|step| step.takes.retain(|take| *take as usize >= ends[0]));
    }
    (steps, cuts)
}

fn nest(batch: &Batch, steps: &[Step], cuts: &[usize], ranks: Option<u32>) -> Nest {
    let tasks = listed(batch, steps, ranks, true);
    let pieces: Vec<&[Task<String>]> = cuts.windows(2).map(|ends| &tasks[ends[0]..ends[1]]).collect();
    let (mut inner, mut of_piece) = (Vec::new(), vec![None; pieces.len()]);
    for (i, piece) in pieces.iter().enumerate().filter(|(i, _)| i % 2 == 1) {
        if i % 4 == 3 && piece.len() > 1 {
            let (first, second) = piece.split_at(piece.len() / 2);
            let first = batch.compile(first).expect("a list");
            inner.push(batch.compile(tasks![first, second]).expect("a list that holds one"));
            of_piece[i] = Some(inner.len() - 1);
            inner.push(first);
        } else {
            inner.push(batch.compile(*piece).expect("a list"));
            of_piece[i] = Some(inner.len() - 1);
        }
    }
    let entry = |(piece, of): (_, &Option<usize>)| -> &dyn TaskList { of.map_or(piece, |of| &inner[of]) };
    let all: Vec<&dyn TaskList> =
        pieces.iter().map(|piece| piece as &dyn TaskList).zip(&of_piece).map(entry).collect();
    let whole = Some(batch.compile(&all).expect("a list of lists"));
    Nest { tasks, inner, whole }
}

/// How all comes out: of the whole, of lists alone, of the whole again, of lists when that is gone.
fn outcome_of_nest(mut nest: Nest, folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for (alone, again) in [(0, false), (1, true), (2, false)] {
        if let Some(whole) = &nest.whole {
            all.push(format!("the whole: {}", whole.run().is_ok()));
            all.extend(whole.failures().iter().map(|error| format!("failure {error}")));
            all.push(format!("{:?}", whole.progress()));
        }
        if again {
            // Values stay where they are until they are asked for below.
            nest.whole = None;
        }
        all.extend(of_tasks(&nest.tasks, true));
        all.extend(of_files(folder));
        if let Some(inner) = nest.inner.get(alone % nest.inner.len().max(1)) {
            all.push(format!("a part: {}", inner.run().is_ok()));
            all.extend(inner.failures().iter().map(|error| format!("failure {error}")));
            all.extend(of_tasks(&nest.tasks, true));
            all.extend(of_files(folder));
        }
    }
    all
}

fn random_lists_of_lists(ranks: u32) {
    let _first = batch(ranks, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let serial = Batch::builder().alone().workers(Workers::Serial).build().expect("a batch");
    let mut elsewhere = 0;
    for threads in [1, 2] {
        let batch = batch(ranks, threads);
        let measuring = Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).timing(true).build();
        let measuring = measuring.expect("a batch");
        for seed in 0..25 {
            let of = seed * 41 + u64::from(ranks) * 7 + threads as u64;
            let (steps, cuts) = steps_of_nest(of, folder.path(), |tasks| cuts(seed, tasks));
            let expected = outcome_of_nest(nest(&serial, &steps, &cuts, None), folder.path());
            let batch = if seed % 4 < 2 { &batch } else { &measuring };
            let nest = nest(batch, &steps, &cuts, (seed % 2 == 1).then_some(ranks));
            let whole = nest.whole.as_ref().expect("it is there");
            let _ = whole.run();
            if let Some(report) = whole.report() {
                check_report(&report, whole, ranks);
            }
            elsewhere += whole.traffic().map_or(0, |traffic| traffic.tasks_elsewhere);
            of_files(folder.path());
            let found = outcome_of_nest(nest, folder.path());
            assert_eq!(found, expected, "seed {seed}, {threads} threads, cut at {cuts:?}: {steps:#?}");
        }
    }
    assert!(elsewhere > 100, "{elsewhere} tasks of other ranks");
    say(&format!("{elsewhere} tasks of other ranks"));
}

#[test]
fn random_lists_of_lists_on_two_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists_of_lists(2);
    }
    alone("random_lists_of_lists_on_two_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_of_lists_on_three_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists_of_lists(3);
    }
    alone("random_lists_of_lists_on_three_ranks_are_as_serial", "home");
}

#[test]
fn random_lists_of_lists_on_eight_ranks_are_as_serial() {
    if role().is_some() {
        return random_lists_of_lists(8);
    }
    alone("random_lists_of_lists_on_eight_ranks_are_as_serial", "home");
}

// ── on several machines ─────────────────────────────────────────────────────────────────────────────────────────

/// All of this with two ranks on each of two machines, and UCX between them.
#[test]
fn random_lists_on_two_machines_are_as_serial() {
    if role().is_some() {
        random_lists(4);
        random_lists_in_steps(4);
        random_lists_of_lists(4);
        let batch = batch(4, 1);
        let world = batch.world().expect("several ranks");
        let (sent, received) = world.fabric().network_bytes();
        assert!(sent > 10_000 && received > 10_000, "{sent} {received}");
        return say(&format!("{world}"));
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let test = "random_lists_on_two_machines_are_as_serial";
    let ended = Launch::far(hosts.mpirun(2), test, "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said().pop(), Some("ranks 4 nodes 2 fabric shm+ucx"), "{}", ended.text);
    (0..2).for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new()));
}
