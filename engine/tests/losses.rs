//! Lists in worlds that lose ranks: they do what the serial program does all the same.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{Batch, Context, Handle, Stream, Task, Workers, results, tasks};
use tarragon_testbed::{Launch, die, role, say};

/// How a rank goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Fate {
    /// By `kill -9`.
    Killed,
    /// By SIGSTOP.
    Frozen,
}

/// What happens to the first rank but home that runs the task: who makes the file is it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Blow {
    fate: Fate,
    file: PathBuf,
}

impl Blow {
    fn strike(&self, context: &Context) {
        if context.rank() == 0 || std::fs::File::create_new(&self.file).is_err() {
            return;
        }
        match self.fate {
            Fate::Killed => die(),
            Fate::Frozen => {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::STOP).expect("it is stopped");
            }
        }
    }
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// A function that takes what some tasks before it returned or wrote to their output, and reads and writes files, but
/// none that it reads: it does the same when it is run again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    id: u32,
    takes: Vec<u32>,
    hears: Vec<u32>,
    folder: Option<PathBuf>,
    reads: Vec<u32>,
    writes: Vec<u32>,
    micros: u64,
    blow: Option<Blow>,
}

impl Step {
    fn file(&self, datum: u32) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("datum{datum}")))
    }

    /// What it returns, and leaves in its files.
    fn value(&self, inputs: &[&Vec<u64>], heard: &[String]) -> Vec<u64> {
        let mix = |sum: u64, x: &u64| (sum ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(11);
        let sum = inputs.iter().flat_map(|input| input.iter()).fold(u64::from(self.id), mix);
        let files: Vec<String> = self
            .reads
            .iter()
            .map(|it| std::fs::read_to_string(self.file(*it).expect("a folder")).unwrap_or_default())
            .collect();
        let bytes: Vec<u64> =
            heard.iter().chain(&files).flat_map(|text| text.trim_end().bytes()).map(u64::from).collect();
        let sum = bytes.iter().fold(sum, mix);
        for datum in &self.writes {
            std::fs::write(self.file(*datum).expect("a folder"), format!("{sum} by {}", self.id))
                .expect("it is written");
        }
        (0..u64::from(self.id % 40)).map(|i| sum.wrapping_add(i)).chain([sum]).collect()
    }

    fn says(&self) -> String {
        format!("{} was here", self.id)
    }
}

fn body(context: &Context, step: Step, inputs: Vec<Vec<u64>>, heard: Vec<String>) -> Vec<u64> {
    std::thread::sleep(Duration::from_micros(step.micros));
    if let Some(blow) = &step.blow {
        blow.strike(context);
    }
    writeln!(context.out(), "{}", step.says()).expect("it is kept");
    step.value(&inputs.iter().collect::<Vec<_>>(), &heard)
}

fn steps(seed: u64, n: u32, micros: u64, blow: &Blow, folder: Option<&Path>) -> Vec<Step> {
    let mut dice = Dice(seed);
    let fatal = n / 5 + dice.below(n * 3 / 5);
    let step = |id: u32| {
        // Neighbours mostly, so that ranks have chains of their own.
        let mut some = |most: u32| -> Vec<u32> {
            let n = if id == 0 { 0 } else { dice.below(most + 1) };
            (0..n).map(|_| id - 1 - dice.below(id.min(30))).collect()
        };
        let (takes, hears) = (some(3), if id % 7 == 3 { some(2) } else { Vec::new() });
        let data = |dice: &mut Dice| match folder {
            Some(_) if dice.below(4) == 0 => vec![dice.below(n / 4 + 1)],
            _ => Vec::new(),
        };
        let writes = data(&mut dice);
        let mut reads = data(&mut dice);
        reads.retain(|it| !writes.contains(it));
        let micros = u64::from(dice.below(1000)) * micros / 500;
        let (blow, folder) = ((id == fatal).then(|| blow.clone()), folder.map(Path::to_path_buf));
        Step { id, takes, hears, folder, reads, writes, micros, blow }
    };
    (0..n).map(step).collect()
}

fn serially(steps: &[Step]) -> Vec<Vec<u64>> {
    let mut values: Vec<Vec<u64>> = Vec::new();
    for step in steps {
        let inputs: Vec<&Vec<u64>> = step.takes.iter().map(|take| &values[*take as usize]).collect();
        let heard: Vec<String> = step.hears.iter().map(|it| steps[*it as usize].says()).collect();
        let value = step.value(&inputs, &heard);
        values.push(value);
    }
    values
}

fn listed(batch: &Batch, steps: &[Step], ranks: u32) -> Vec<Task<Vec<u64>>> {
    let mut tasks: Vec<Task<Vec<u64>>> = Vec::new();
    for step in steps {
        let inputs: Vec<Handle<Vec<u64>>> =
            step.takes.iter().map(|take| tasks[*take as usize].result()).collect();
        let heard: Vec<Stream> = step.hears.iter().map(|it| tasks[*it as usize].stdout()).collect();
        let mut task = batch.function(body, (step.clone(), inputs, heard));
        for datum in &step.reads {
            task.read(step.file(*datum).expect("a folder")).expect("it can be declared");
        }
        for datum in &step.writes {
            task.write(step.file(*datum).expect("a folder")).expect("it can be declared");
        }
        tasks.push(match step.blow {
            Some(_) => task.at_rank(1 + step.id % (ranks - 1)),
            None => task,
        });
    }
    tasks
}

/// Values of those that succeeded are those of the serial program; others have failed because of the loss. How many.
fn check(tasks: &[Task<Vec<u64>>], expected: &[Vec<u64>], what: &str) -> usize {
    let mut failed = 0;
    for (i, (task, expected)) in tasks.iter().zip(expected).enumerate() {
        match task.result().get() {
            Ok(found) => assert_eq!(&found, expected, "task {i}, {what}"),
            Err(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(next) = source {
                    text = format!("{text}: {next}");
                    source = next.source();
                }
                assert!(text.contains("is lost"), "task {i}, {what}: {text}");
                failed += 1;
            }
        }
    }
    failed
}

fn batch(ranks: u32, threads: usize) -> Batch {
    let builder = Batch::builder().spawn(ranks).survive_losses(true);
    builder.workers(Workers::Threads(threads)).build().expect("a batch")
}

/// A list of functions with files between them, cut into pieces that take values of earlier ones, with one loss.
fn files_and_pieces(seed: u64, folder: &Path) {
    let _first = batch(4, 1);
    let blow = killed(folder, &format!("struck{seed}"));
    let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
    [&ours, &theirs].into_iter().for_each(|it| std::fs::create_dir(it).expect("a folder"));
    let expected = serially(&steps(seed, 240, 0, &blow, Some(&theirs)));
    let steps = steps(seed, 240, 200, &blow, Some(&ours));
    let batch = batch(4, 1 + seed as usize % 2);
    let tasks = listed(&batch, &steps, 4);
    let mut dice = Dice(seed);
    let (mut rest, mut rerun, mut is_broken) = (&tasks[..], 0, false);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at((1 + dice.below(240) as usize).min(rest.len()));
        match seed % 2 {
            0 => {
                let list = batch.compile(piece).expect("a list");
                is_broken = list.run().is_err();
                rerun += list.traffic().map_or(0, |traffic| traffic.tasks_rerun);
            }
            _ => batch.submit(piece).expect("they are submitted"),
        }
        rest = more;
        if is_broken {
            // Lists that read the files of this one would find others.
            break;
        }
    }
    let _ = batch.fence();
    assert!(blow.file.exists(), "nobody was struck");
    let begun = tasks.len() - rest.len();
    let failed = check(&tasks[..begun], &expected, &format!("seed {seed}"));
    if failed == 0 {
        let files = |folder: &Path| -> Vec<String> {
            let read = |i| std::fs::read_to_string(folder.join(format!("datum{i}"))).unwrap_or_default();
            (0..61).map(read).collect()
        };
        assert_eq!(files(&ours), files(&theirs), "seed {seed}");
    }
    say(&format!("with files: {rerun} of 240 tasks run again, {failed} lost their inputs"));
}

#[test]
fn what_succeeds_beside_a_loss_is_as_serial() {
    let test = "what_succeeds_beside_a_loss_is_as_serial";
    if let Some(seed) = role() {
        let folder = std::env::var("TARRAGON_LOSSES_FOLDER").expect("a folder");
        return files_and_pieces(seed.parse().expect("a number"), Path::new(&folder));
    }
    for seed in 0..6u64 {
        let folder = tempfile::tempdir().expect("a folder");
        let launch = Launch::alone(test, &seed.to_string()).env("TARRAGON_LOSSES_FOLDER", folder.path());
        let ended = launch.env("TARRAGON_LOSS_LIMIT_MS", "1000").run();
        ended.expect_success();
        println!("{}", ended.said().join("\n"));
    }
}

fn one_loss(seed: u64, fate: Fate, ranks: u32, n: u32, folder: &Path) {
    let batch = batch(ranks, 1 + seed as usize % 2);
    let blow = Blow { fate, file: folder.join(format!("struck{seed}")) };
    let steps = steps(seed, n, if n > 1000 { 0 } else { 300 }, &blow, None);
    let tasks = listed(&batch, &steps, ranks);
    let compiled = batch.compile(&tasks).expect("a list");
    compiled.run().expect("all succeed");
    assert!(blow.file.exists(), "nobody was struck");
    let traffic = compiled.traffic().expect("it is on several ranks");
    let found = results(&tasks).expect("all are there");
    assert_eq!(found, serially(&steps), "seed {seed}, {fate:?}");
    assert!(traffic.tasks_rerun > 0, "{traffic:?}");
    say(&format!("{fate:?}: {} of {n} tasks run again", traffic.tasks_rerun));
}

fn losses(test: &'static str, fate: Fate, ranks: u32, n: u32, seeds: std::ops::Range<u64>) {
    if let Some(seed) = role() {
        let folder = std::env::var("TARRAGON_LOSSES_FOLDER").expect("a folder");
        return one_loss(seed.parse().expect("a number"), fate, ranks, n, Path::new(&folder));
    }
    for seed in seeds {
        let folder = tempfile::tempdir().expect("a folder");
        let launch = Launch::alone(test, &seed.to_string()).env("TARRAGON_LOSSES_FOLDER", folder.path());
        let ended = launch.env("TARRAGON_LOSS_LIMIT_MS", "1000").run();
        ended.expect_success();
        println!("{}", ended.said().join("\n"));
    }
}

/// Runs a role, in a folder of its own, with ranks that are lost when they give no sign of life for a second.
fn in_folder(test: &'static str, play: impl FnOnce(&Path)) {
    if role().is_some() {
        let folder = std::env::var("TARRAGON_LOSSES_FOLDER").expect("a folder");
        return play(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let launch = Launch::alone(test, "home").env("TARRAGON_LOSSES_FOLDER", folder.path());
    launch.env("TARRAGON_LOSS_LIMIT_MS", "1000").run().expect_success();
}

fn killed(folder: &Path, name: &str) -> Blow {
    Blow { fate: Fate::Killed, file: folder.join(name) }
}

fn hit(context: &Context, blow: Blow, word: String) -> String {
    blow.strike(context);
    format!("{word} on {}", context.rank())
}

fn whisper(context: &Context, word: String) -> String {
    format!("{word} on {}", context.rank())
}

/// What a rank has when it is lost is gone, and who asks for it is told so; the list runs again on the others, and new
/// lists are placed on them.
#[test]
fn values_of_a_lost_rank_are_errors_until_the_list_runs_again() {
    in_folder("values_of_a_lost_rank_are_errors_until_the_list_runs_again", |folder| {
        let batch = batch(3, 1);
        let words: Vec<_> =
            (0..6u32).map(|i| batch.function(whisper, (format!("w{i}"),)).at_rank(i % 3)).collect();
        let list = batch.compile(&words).expect("a list");
        list.run().expect("all succeed");
        let fatal = batch.function(hit, (killed(folder, "struck"), "hit".to_string())).at_rank(2);
        let other = batch.compile(&[fatal]).expect("a list");
        other.run().expect("it runs elsewhere");
        assert_eq!(other.traffic().expect("it was elsewhere").tasks_rerun, 1);
        for (i, word) in (0u32..).zip(&words) {
            match (i % 3, word.result().get()) {
                (2, Err(error)) => {
                    let text = error.to_string();
                    assert!(text.contains("rank 2") && text.contains("run the list again"), "{text}");
                }
                (rank, Ok(value)) => assert_eq!(value, format!("w{i} on {rank}")),
                (rank, Err(error)) => panic!("of rank {rank}: {error}"),
            }
        }
        for _ in 0..2 {
            list.run().expect("all succeed without it");
            let values = results(&words).expect("all are there");
            assert!(values.iter().all(|value| !value.ends_with("on 2")), "{values:?}");
            assert!(values.iter().any(|value| value.ends_with("on 1")), "{values:?}");
        }
        let error = batch.compile(&[batch.function(whisper, ("x".to_string(),)).at_rank(2)]);
        let error = error.expect_err("it is lost").to_string();
        assert!(error.contains("is to run on rank 2, which is lost: its process has ended"), "{error}");
        let new: Vec<_> = (0..12u32).map(|i| batch.function(whisper, (format!("n{i}"),))).collect();
        batch.compile(&new).expect("a list").run().expect("all succeed");
        let values = results(&new).expect("all are there");
        let on = |rank: &str| values.iter().filter(|value| value.ends_with(rank)).count();
        assert_eq!((on("on 0") + on("on 1"), on("on 2")), (12, 0), "{values:?}");
        assert!(on("on 1") > 0, "{values:?}");
    });
}

fn noted(_: &Context, path: PathBuf, word: String) -> String {
    let mut file = std::fs::File::options().append(true).create(true).open(path).expect("a file");
    std::io::Write::write_all(&mut file, format!("{word}\n").as_bytes()).expect("it is written");
    word
}

fn join(_: &Context, first: String, second: String) -> String {
    format!("{first}, {second}")
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// What has ended and writes data is not run a second time: if nothing needs what it gave, nothing is lost, else who
/// takes that fails, with the loss as the cause.
#[test]
fn what_has_written_data_is_not_run_again() {
    in_folder("what_has_written_data_is_not_run_again", |folder| {
        let batch = batch(3, 1);
        let (one, two) = (folder.join("one"), folder.join("two"));
        let note = |path: &Path| {
            let word = path.file_name().expect("a name").to_string_lossy().into_owned();
            batch.function(noted, (path.to_path_buf(), word)).writes(path).at_rank(1)
        };
        let (first, second) = (note(&one), note(&two));
        // Another rank hears of both, before theirs is lost.
        let heard = batch.function(whisper, (first.result(),)).reads(&two).at_rank(2);
        let fatal = batch.function(hit, (killed(folder, "struck"), heard.result())).at_rank(1);
        let needs = batch.function(join, (second.result(), fatal.result())).at_rank(1);
        let list = batch.compile(tasks![&first, &second, &heard, &fatal, &needs]).expect("a list");
        assert!(list.run().is_err());
        assert_eq!((lines(&one), lines(&two)), (1, 1));
        assert_eq!(heard.result().get().expect("it had heard"), "one on 2");
        assert!(fatal.result().get().expect("it ran again").starts_with("one on 2 on "));
        let error = needs.result().get().expect_err("what it takes is gone");
        assert!(error.to_string().contains("is not run again"), "{error}");
        assert!(
            error.chain().iter().any(|it| it.contains("two") || it.contains("noted")),
            "{:?}",
            error.chain()
        );
    });
}

fn in_gang(context: &Context, blow: Blow, round: u64) -> u64 {
    let gang = context.gang();
    if gang.member() == 1 {
        blow.strike(context);
    }
    gang.all_reduce(round + u64::from(gang.member()), |a, b| a + b).unwrap_or(0)
}

/// A gang that loses a member starts anew with another rank in its place.
#[test]
fn a_gang_that_loses_a_member_gets_another() {
    in_folder("a_gang_that_loses_a_member_gets_another", |folder| {
        let batch = batch(4, 1);
        let task = batch.function(in_gang, (killed(folder, "struck"), 10u64)).ranks(3);
        batch.compile(&task).expect("a list").run().expect("it succeeds");
        assert_eq!(task.result().get().expect("a sum"), 33);
        let too_many = batch.function(in_gang, (killed(folder, "struck"), 10u64)).ranks(4);
        assert!(batch.compile(&too_many).is_err(), "three are left");
    });
}

/// As long as home is there, a list goes on, however many are lost.
#[test]
fn one_after_the_other_is_lost() {
    in_folder("one_after_the_other_is_lost", |folder| {
        let batch = batch(4, 1);
        let mut tasks: Vec<Task<String>> = Vec::new();
        for i in 0..3 {
            let blow = killed(folder, &format!("struck{i}"));
            let task = match tasks.last() {
                None => batch.function(hit, (blow, "hit".to_string())),
                Some(last) => batch.function(hit, (blow, last.result())),
            };
            tasks.push(task.at_rank(1 + i));
            tasks.extend((0..20).map(|k| batch.function(whisper, (format!("{i} {k}"),)).at_rank(k % 4)));
        }
        let list = batch.compile(&tasks).expect("a list");
        list.run().expect("all succeed");
        let values = results(&tasks).expect("all are there");
        assert!(values.iter().all(|value| value.contains(" on ")), "{values:?}");
        list.run().expect("and once more");
    });
}

#[test]
fn a_rank_that_is_killed_costs_nothing_but_time() {
    losses("a_rank_that_is_killed_costs_nothing_but_time", Fate::Killed, 4, 400, 0..4);
}

#[test]
fn a_rank_that_freezes_costs_nothing_but_time() {
    losses("a_rank_that_freezes_costs_nothing_but_time", Fate::Frozen, 4, 400, 10..12);
}

#[test]
fn home_alone_is_enough() {
    losses("home_alone_is_enough", Fate::Killed, 2, 200, 20..22);
}

#[test]
fn ten_thousand_tasks_survive_a_loss() {
    losses("ten_thousand_tasks_survive_a_loss", Fate::Killed, 3, 10_000, 30..31);
}
