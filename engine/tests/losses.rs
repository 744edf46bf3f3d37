//! Lists in worlds that lose ranks: they do what the serial program does all the same.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.
#![expect(clippy::print_stdout, reason = "figures, and what has become of the world")]

#[path = "losses/random.rs"]
mod random;

use random::{Dice, check, listed, serially, steps};
use std::path::{Path, PathBuf};
use tarragon_engine::{Batch, Context, Task, Workers, results, tasks};
use tarragon_testbed::{Blow, Fate, Launch, role, say};

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
    let (rerun, took) = (traffic.tasks_rerun, blow.took_ms());
    say(&format!("{fate:?}: {rerun} of {n} tasks run again, that one after {took} ms"));
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
    blow.strike(context.rank());
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

/// Home keeps what it has sent elsewhere for as long as it may have to send it again, and no longer.
#[test]
fn what_went_elsewhere_can_be_taken() {
    in_folder("what_went_elsewhere_can_be_taken", |_| {
        let batch = batch(2, 1);
        let here = batch.function(whisper, ("a".to_string(),)).at_rank(0);
        let there = batch.function(whisper, (here.result(),)).at_rank(1);
        let list = batch.compile(tasks![&here, &there]).expect("a list");
        for _ in 0..2 {
            list.run().expect("all succeed");
            assert_eq!(there.result().get().expect("it is there"), "a on 0 on 1");
            assert_eq!(here.result().take().expect("it is there"), "a on 0");
        }
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
        blow.strike(context.rank());
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
