//! Lists of several ranks with a journal: what was recorded anywhere is not done again, wherever it would run.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{
    Batch, Compiled, Context, Handle, JournalSync, Stream, TaskList, Workers, results, tasks,
};
use tarragon_testbed::{Launch, die, role, say};

const LAYERS: u64 = 12;
const WIDTH: u64 = 10;

/// A task is what it read, what it took, and where it is; it leaves a mark each time that it runs.
fn cell(
    context: &Context,
    folder: PathBuf,
    at: (u64, u64),
    takes: Vec<u64>,
) -> Result<(u64, Vec<u8>), std::io::Error> {
    std::thread::sleep(Duration::from_millis(2));
    let (layer, column) = at;
    let before = match layer {
        0 => String::new(),
        _ => fs::read_to_string(folder.join(format!("out.{}.{column}", layer - 1)))?,
    };
    let value = takes.iter().fold(layer * 31 + column, |sum, x| sum.wrapping_mul(1_000_003) ^ x)
        + before.len() as u64;
    fs::write(folder.join(format!("out.{layer}.{column}")), format!("{value} {before}"))?;
    let mark = format!("ran.{layer}.{column}.{}.{}", std::process::id(), context.rank());
    fs::write(folder.join(mark), "")?;
    // Some are large, as far as a journal goes.
    Ok((value, vec![7; if column == 3 { 30_000 } else { 3 }]))
}

fn only(of: &(u64, Vec<u8>)) -> u64 {
    of.0
}

/// Layers of cells, each of which takes two of the layer before and reads the file of one; a process for each layer.
struct Campaign {
    batch: Batch,
    compiled: Compiled,
    cells: Vec<Handle<u64>>,
    shown: Vec<Stream>,
}

fn campaign(folder: &Path, ranks: u32, sync: JournalSync) -> Campaign {
    let builder = Batch::builder().spawn(ranks).workers(Workers::Threads(1)).assume_cpus(4);
    let builder = builder.journal(folder.join("journal")).resume(true).journal_sync(sync);
    let batch = builder.build().expect("a batch");
    let (mut all, mut cells, mut shown) = (Vec::<Box<dyn TaskList>>::new(), Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        for column in 0..WIDTH {
            let place = |column: u64| ((layer - 1) * WIDTH + column % WIDTH) as usize;
            let takes: Vec<Handle<u64>> = match layer {
                0 => Vec::new(),
                _ => [column, column * 7 + 1]
                    .iter()
                    .map(|column| Handle::clone(&cells[place(*column)]))
                    .collect(),
            };
            let path = |layer: u64| folder.join(format!("out.{layer}.{column}"));
            let mut task = batch.function(cell, (folder, (layer, column), takes)).writes(path(layer));
            if layer > 0 {
                task = task.reads(path(layer - 1));
            }
            let only = batch.function(only, (task.result(),));
            cells.push(only.result());
            all.push(Box::new(task));
            all.push(Box::new(only));
        }
        let file = folder.join(format!("out.{layer}.0"));
        let process = batch.process("cat").arg(&file).reads(&file);
        shown.push(process.stdout());
        all.push(Box::new(process));
    }
    let compiled = batch.compile(&all).expect("a list");
    Campaign { batch, compiled, cells, shown }
}

fn marks(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder)
        .expect("a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("ran.")).collect()
}

/// Runs the campaign of a folder, in a program of its own that dies if it is to.
fn go_on(folder: &Path) {
    let said = fs::read_to_string(folder.join("plan")).expect("a plan");
    let mut plan = said.split(' ').map(|n| n.parse::<u64>().expect("a number"));
    let mut next = || plan.next().expect("a number");
    let (ranks, waits, dies_ms) = (next() as u32, next() == 1, next());
    let sync = if waits { JournalSync::EachRecord } else { JournalSync::Every(Duration::from_secs(1)) };
    let Campaign { batch, compiled, cells, shown } = campaign(folder, ranks, sync);
    if dies_ms > 0 {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(dies_ms));
            die()
        });
    }
    compiled.start().expect("it starts");
    say(&format!("{} {}", batch.journal().expect("a journal").past, compiled.reused()));
    compiled.wait().expect("all succeed");
    let values = results(&cells).expect("all are there");
    let shown: Vec<String> = shown.iter().map(|output| output.get().expect("its output")).collect();
    let values: Vec<String> = values.iter().map(u64::to_string).chain(shown).collect();
    drop((compiled, cells));
    batch.join().expect("all is written");
    say(&format!("ended {}", values.join(";").replace('\n', "|")));
}

/// What a run says: how many tasks were recorded before, how many it reused, and what came out unless it died.
struct Ran {
    past: usize,
    reused: usize,
    outcome: Option<String>,
}

/// Runs the campaign on so many ranks; it dies after so many milliseconds, or never if that is 0.
fn run(test: &'static str, folder: &Path, ranks: u32, waits: bool, dies_ms: u64) -> Ran {
    fs::write(folder.join("plan"), format!("{ranks} {} {dies_ms}", u64::from(waits))).expect("a plan");
    let ended = Launch::alone(test, folder.to_str().expect("text")).run();
    assert!(dies_ms > 0 || ended.status.success(), "{}", ended.text);
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
    let said = ended.said();
    let outcome = said.iter().find_map(|line| line.strip_prefix("ended ")).map(str::to_string);
    let mut counts = said.first().unwrap_or(&"0 0").split(' ').map(|n| n.parse().expect("a number"));
    let mut next = || counts.next().expect("a number");
    Ran { past: next(), reused: next(), outcome }
}

/// Killed again and again, and resumed on as many ranks or others, until it has ended.
fn killed_and_resumed(test: &'static str, all_ranks: &[u32], waits: bool) {
    const TASKS: usize = (LAYERS * (2 * WIDTH + 1)) as usize;
    let undisturbed = tempfile::tempdir().expect("a folder");
    let wanted = run(test, undisturbed.path(), 1, false, 0).outcome;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (mut past, mut killed) = (0, 0);
    for (round, ranks) in (0..).zip(all_ranks.iter().cycle()) {
        // It gets on in every round, however slow the machine is, and is killed in most.
        let ran = run(test, folder, *ranks, waits, 15 + 3 * round + 37 * round % 60);
        // A program that is killed at its beginning has said nothing.
        assert!(ran.past >= past || ran.past == 0, "{} recorded, and {past} before", ran.past);
        assert_eq!(ran.reused, ran.past, "nothing runs again that was recorded");
        past = ran.past.max(past);
        if ran.outcome.is_some() {
            assert_eq!(ran.outcome, wanted, "after {killed} kills");
            break;
        }
        killed += 1;
        assert!(killed < 200, "it does not come to an end: {past} tasks are recorded");
    }
    assert!(killed > 0, "it was never killed");
    let before = marks(folder);
    let again = run(test, folder, 3, waits, 0);
    assert_eq!((again.past, again.reused), (TASKS, TASKS), "nothing is left to do, on other ranks, too");
    assert_eq!(again.outcome, wanted);
    assert_eq!(marks(folder), before);
    // What is gone is made again, on whichever rank, and what follows from it.
    fs::remove_file(folder.join("out.10.4")).expect("it was there");
    let again = run(test, folder, all_ranks[0], waits, 0);
    assert!(again.reused < TASKS && again.reused > TASKS - 30, "{} of {TASKS}", again.reused);
    assert_eq!(again.outcome, wanted);
    assert!(marks(folder).len() > before.len());
}

/// A program may go on with a journal that it has closed: other ranks let go of it, too.
#[test]
fn a_journal_is_opened_again_by_the_same_program() {
    fn add(context: &Context, a: u32, b: u32) -> (u32, u32) {
        (a + b, context.rank())
    }
    if let Some(folder) = role() {
        for round in 0..3 {
            let builder = Batch::builder().spawn(3).workers(Workers::Threads(1)).assume_cpus(2);
            let batch = builder.journal(Path::new(&folder).join("journal")).resume(round > 0).build();
            let batch = batch.expect("nobody holds it");
            let sums: Vec<_> = (0..6).map(|i| batch.function(add, (i, 1u32)).at_rank(i % 3)).collect();
            let shown: Vec<_> = (0..3).map(|i| batch.process("echo").arg(i).at_rank(i)).collect();
            let compiled = batch.compile(tasks![sums, shown]).expect("a list");
            compiled.run().expect("all succeed");
            assert_eq!(compiled.reused(), if round > 0 { 9 } else { 0 });
            for (i, process) in shown.iter().enumerate() {
                assert_eq!(process.stdout().get().expect("its output"), format!("{i}\n"));
            }
            let expected: Vec<_> = (0..6).map(|i| (i + 1, i % 3)).collect();
            assert_eq!(results(&sums).expect("all are there"), expected);
            drop((compiled, sums, shown));
            batch.join().expect("all is written");
        }
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let test = "a_journal_is_opened_again_by_the_same_program";
    Launch::alone(test, folder.path().to_str().expect("text")).run().expect_success();
}

#[test]
fn a_killed_list_of_two_ranks_is_resumed() {
    let test = "a_killed_list_of_two_ranks_is_resumed";
    match role() {
        Some(folder) => go_on(Path::new(&folder)),
        None => killed_and_resumed(test, &[2], false),
    }
}

#[test]
fn a_killed_list_is_resumed_on_other_ranks() {
    let test = "a_killed_list_is_resumed_on_other_ranks";
    match role() {
        Some(folder) => go_on(Path::new(&folder)),
        None => killed_and_resumed(test, &[4, 2, 1, 3], false),
    }
}

/// With each record on the disk before others go on.
#[test]
fn records_of_other_ranks_are_on_the_disk_before_others_go_on() {
    let test = "records_of_other_ranks_are_on_the_disk_before_others_go_on";
    match role() {
        Some(folder) => go_on(Path::new(&folder)),
        None => killed_and_resumed(test, &[2, 4], true),
    }
}
