//! What processes do that the tests of clients start: clients, and a primary to be killed.

use super::rig::{Rig, wait_until};
use super::{far, going};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{
    AttachError, Batch, BatchDescriptor, CompileError, Context, Error, ErrorKind, Handle, Mistake, Status,
    Task, TaskError, Workers, results, tasks,
};

pub(crate) fn play(role: &str, argument: &str, rig: &Rig) {
    if role == "primary" {
        return going::primary(rig);
    }
    if role == "silent" {
        return going::silent();
    }
    if role == super::rig::HOME {
        return far::home(rig);
    }
    let attached = argument.parse::<BatchDescriptor>().expect("a descriptor").attach();
    if role == "foreigner" {
        let error = attached.err().expect("it is not let in");
        assert!(matches!(error, Error::Attach(AttachError::OtherUser { theirs: 0, .. })), "{error}");
        return;
    }
    if role == "apart" {
        let error = attached.err().expect("it is not reached");
        assert!(matches!(error, Error::Attach(AttachError::OtherNetwork { .. })), "{error}");
        return;
    }
    let batch = attached.expect("a client");
    match role {
        "results" => self::results_of_all_kinds(&batch),
        "output" => output(&batch),
        "failures" => failures(&batch),
        "arguments" => arguments(&batch),
        "files" => files(&batch, rig),
        "order" => order(&batch, rig),
        "again" => again(&batch),
        "cancels" => cancels(&batch, rig),
        "mistakes" => mistakes(&batch),
        "many" => many(&batch),
        "random" => random(&batch, rig),
        "counts" => going::counts(&batch, rig),
        "dies" => going::dies(&batch, rig),
        "floods" => going::floods(&batch, rig),
        "bereft" => going::bereft(&batch, rig),
        "outlives" => going::outlives(&batch, rig),
        "stranger" => going::stranger(&batch),
        "far" => far::client(&batch, rig),
        other => panic!("no such role: {other}"),
    }
}

pub(crate) fn square(x: u64) -> u64 {
    x * x
}

pub(crate) fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn sum(all: &[u64]) -> u64 {
    all.iter().sum()
}

pub(crate) fn process_id() -> u32 {
    std::process::id()
}

pub(crate) fn append(path: &Path, number: u64) -> std::io::Result<()> {
    let mut file = fs::File::options().create(true).append(true).open(path)?;
    writeln!(file, "{number}")
}

pub(crate) fn says(context: &Context, text: &str) -> std::io::Result<usize> {
    write!(context.out(), "{text}")?;
    write!(context.err(), "not {text}")?;
    Ok(text.len())
}

pub(crate) fn long(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

fn refuses(why: String) -> Result<u64, String> {
    Err(why)
}

fn no_file(path: &Path) -> std::io::Result<String> {
    fs::read_to_string(path)
}

fn panics(x: u64) -> u64 {
    panic!("{x} is not to be squared")
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("no convergence after {0} steps")]
pub(crate) struct Diverged(u32);

pub(crate) fn diverges(steps: u32) -> Result<f64, Diverged> {
    Err(Diverged(steps))
}

// ── what comes back ─────────────────────────────────────────────────────────────────────────────────────────────

fn results_of_all_kinds(batch: &Batch) {
    let pid = batch.function(process_id, ());
    let (a, b) = (batch.function(square, (3u64,)), batch.function(square, (4u64,)));
    let c = batch.function(add, (a.result(), b.result()));
    let big = batch.function(long, (3_000_000usize,));
    let len = batch.function(length, (big.result(),));
    let exit = batch.process("true");
    batch.compile(tasks![pid, a, b, c, big, len, exit]).expect("a list").run().expect("it runs");
    let there = pid.result().get().expect("a value");
    assert_eq!(there, batch.descriptor().expect("the primary's").pid());
    assert_eq!(c.result().get().expect("a value"), 25);
    assert_eq!(len.result().get().expect("a value"), 3_000_000);
    assert_eq!(big.result().take().expect("a value"), long(3_000_000));
    assert_eq!(exit.result().get().expect("how it ended").code, 0);
    assert_eq!((a.status(), exit.status()), (Status::Done, Status::Done));
    // A list that has ended gives to later ones, compiled and submitted.
    let d = batch.function(add, (c.result(), a.result()));
    d.run().expect("it runs");
    assert_eq!(d.result().get().expect("a value"), 34);
    let e = batch.function(add, (d.result(), 1u64));
    let f = batch.function(add, (e.result(), d.result()));
    batch.submit(&e).expect("it is submitted");
    batch.submit(&f).expect("it is submitted");
    assert_eq!(f.result().get().expect("a value"), 69);
    let empty: [Task<u64>; 0] = [];
    batch.compile(&empty).expect("an empty list").run().expect("nothing to do");
}

fn output(batch: &Batch) {
    let made = batch.process("printf").arg("pear\\napple\\n");
    let sorted = batch.process("sort").stdin(made.stdout());
    let word = batch.process("printf").arg("%s!").arg(sorted.stdout());
    let spoken = batch.function(says, ("hear me".to_string(),));
    let heard = batch.process("printf").arg("%s").arg(spoken.stderr());
    let large = batch.process("sh").args(["-c", "seq 100000; echo end >&2"]);
    batch.compile(tasks![made, sorted, word, spoken, heard, large]).expect("a list").run().expect("it runs");
    assert_eq!(sorted.stdout().get().expect("its output"), "apple\npear\n");
    assert_eq!(word.stdout().get().expect("its output"), "apple\npear!");
    assert_eq!(spoken.stdout().get().expect("its output"), "hear me");
    assert_eq!(heard.stdout().get().expect("its output"), "not hear me");
    assert_eq!(large.stderr().get().expect("its output"), "end\n");
    let text = large.stdout().get().expect("its output");
    assert!(text.ends_with("\n100000\n") && text.len() > 1 << 16);
    assert_eq!(large.stdout().so_far().expect("the same"), text);
    let later = batch.process("wc").arg("-l").stdin(large.stdout());
    later.run().expect("it runs");
    assert_eq!(later.stdout().get().expect("its output").trim(), "100000");
}

fn failures(batch: &Batch) {
    let refused = batch.try_function(refuses, ("no more".to_string(),));
    let missing = batch.function(no_file, (PathBuf::from("/nowhere/at/all"),));
    let panicked = batch.function(panics, (7u64,));
    let exits = batch.process("sh").args(["-c", "echo last words >&2; exit 3"]);
    let killed = batch.process("sh").args(["-c", "kill -9 $$"]);
    let slow = batch.process("sleep").arg("100").timeout(Duration::from_millis(50));
    let skipped = batch.function(square, (panicked.result(),));
    let fine = batch.function(square, (9u64,));
    let list = tasks![refused, missing, panicked, exits, killed, slow, skipped, fine];
    let compiled = batch.compile(list).expect("a list");
    let first = compiled.run().expect_err("the first task fails");
    assert!(matches!(&first, Error::Task(error) if error.index() == 0), "{first}");
    let failed = |handle: &Handle<u64>| handle.get().expect_err("it fails");
    assert!(failed(&refused.result()).to_string().contains("no more"));
    let missing = missing.result().get().expect_err("it fails");
    let own = missing.downcast_ref::<std::io::Error>().expect("what the system said");
    assert_eq!(own.kind(), std::io::ErrorKind::NotFound);
    let panicked = failed(&panicked.result());
    assert_eq!((panicked.kind(), panicked.index()), (ErrorKind::Panicked, 2));
    assert!(panicked.place().is_some_and(|place| place.contains("roles.rs")), "{panicked}");
    let exits = exits.result().get().expect_err("it fails");
    assert_eq!((exits.kind(), exits.exit_code()), (ErrorKind::Exited, Some(3)));
    assert!(exits.to_string().contains("last words"), "{exits}");
    let killed = killed.result().get().expect_err("it fails");
    assert_eq!(killed.signal().map(|(signal, _)| signal), Some(9));
    assert_eq!(slow.result().get().expect_err("it fails").kind(), ErrorKind::OverTime);
    let skipped = failed(&skipped.result());
    assert_eq!((skipped.kind(), skipped.index()), (ErrorKind::Skipped, 6));
    assert_eq!(fine.result().get().expect("a value"), 81);
    assert_eq!(compiled.failures().len(), 7);
    let diverged = batch.try_function(diverges, (9u32,));
    diverged.run().expect_err("it fails");
    let diverged = diverged.result().get().expect_err("it fails");
    assert_eq!(diverged.downcast_ref::<Diverged>().map(|it| it.0), Some(9), "the body's own error");
    // A later list that takes what failed is skipped, too, and says why.
    let later = batch.function(square, (refused.result(),));
    later.run().expect_err("it is skipped");
    let later = failed(&later.result());
    assert_eq!(later.kind(), ErrorKind::Skipped);
    assert!(later.chain_text().contains("no more"), "{}", later.chain_text());
    // What failed is told by `fence`, once.
    batch.submit(batch.try_function(refuses, ("at last".to_string(),))).expect("it is submitted");
    assert!(batch.fence().expect_err("it fails").to_string().contains("at last"));
    batch.fence().expect("that was told");
}

trait ChainText {
    fn chain_text(&self) -> String;
    fn root_text(&self) -> String;
}

impl ChainText for TaskError {
    fn root_text(&self) -> String {
        let first = std::error::Error::source(self);
        let all = std::iter::successors(first, |error| std::error::Error::source(*error));
        all.last().map(ToString::to_string).unwrap_or_default()
    }

    fn chain_text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }
}

fn arguments(batch: &Batch) {
    let squares: Vec<_> = (0..20u64).map(|i| batch.function(square, (i,))).collect();
    let total = batch.function(sum, (squares.iter().collect::<Vec<_>>(),));
    let tried = batch.function(square, (5u64,)).retries(2).priority(3).cost(2.0).name("five").cpus(1);
    let word = batch.process("printf").arg("%s-%s").arg(total.result()).arg(&tried).env("UNUSED", &tried);
    let odd = batch.process("sh").args(["-c", "exit 7"]).accept_exit(7).memory(1 << 20);
    batch.compile(tasks![squares, total, tried, word, odd]).expect("a list").run().expect("it runs");
    assert_eq!(total.result().get().expect("a value"), 2470);
    assert_eq!(word.stdout().get().expect("its output"), "2470-25");
    assert_eq!(odd.result().get().expect("how it ended").code, 7);
    assert_eq!(results(&squares).expect("values")[19], 361);
    let error = batch.try_function(refuses, ("again".to_string(),)).retries(2).name("stubborn");
    error.run().expect_err("it fails");
    let error = error.result().get().expect_err("it fails");
    assert_eq!(error.task(), "stubborn");
    assert!(error.to_string().contains("3 times"), "{error}");
}

// ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// This process's directory is the rig's, the primary's is another.
fn files(batch: &Batch, rig: &Rig) {
    let path = rig.path("data");
    let write = batch.function(append, (&path, 1u64)).writes("data");
    let copy = batch.process("cp").args(["data", "copy"]).reads("./data").writes("copy");
    let more = batch.function(append, (&path, 2u64)).writes("sub/../data");
    batch.compile(tasks![write, copy, more]).expect("a list").run().expect("it runs");
    assert_eq!((rig.read("copy"), rig.read("data")), ("1\n".to_string(), "1\n2\n".to_string()));
    let touch = batch.process("touch").arg("submitted").writes("submitted");
    batch.submit(&touch).expect("it is submitted");
    assert_eq!(batch.file("submitted").expect("a file").read().expect("it is written"), b"");
}

/// Names, keys of integers and of bytes: what conflicts keeps its order, in a list and over submissions.
fn order(batch: &Batch, rig: &Rig) {
    let path = rig.path("log");
    let _ = fs::remove_file(&path);
    let (keys, name) = (batch.keys("k"), batch.datum("n"));
    let data = [keys.at(1), keys.at(1 << 40), keys.bytes("text"), name];
    let mut number = 0u64;
    for datum in data {
        for _ in 0..25 {
            let task = batch.function(append, (&path, number)).reads(datum).writes(datum).writes(keys.at(9));
            batch.submit(&task).expect("it is submitted");
            number += 1;
        }
        if datum == name {
            batch.fence().expect("all succeed");
        }
    }
    let seen: Vec<u64> = rig.read("log").lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(seen, (0..number).collect::<Vec<_>>());
    let (first, second) = (batch.function(append, (&path, 1u64)), batch.function(append, (&path, 2u64)));
    let (first, second) = (first.writes(data[2]), second.writes(data[2]));
    let compiled = batch.compile(tasks![first, second]).expect("a list");
    assert_eq!(compiled.edges(), 1);
    assert_eq!(compiled.graph().edges().len(), 1);
    compiled.run().expect("it runs");
    assert!(rig.read("log").ends_with("1\n2\n"));
}

// ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn again(batch: &Batch) {
    let a = batch.function(square, (6u64,));
    let b = batch.function(add, (a.result(), 1u64));
    let inner = batch.compile(tasks![a, b]).expect("a list");
    for _ in 0..3 {
        inner.run().expect("it runs");
        assert_eq!(b.result().get().expect("a value"), 37);
    }
    let c = batch.function(add, (b.result(), b.result()));
    let outer = batch.compile(tasks![inner, c]).expect("a list in a list");
    for _ in 0..2 {
        outer.run().expect("it runs");
        assert_eq!(c.result().get().expect("a value"), 74);
    }
    inner.run().expect("it runs by itself");
    let d = batch.function(add, (b.result(), c.result()));
    d.run().expect("it runs");
    assert_eq!(d.result().get().expect("a value"), 111);
    assert!(inner.progress().is_over());
    // Handles outlive the batch's values here.
    let clone = batch.clone();
    let e = clone.function(square, (2u64,));
    clone.submit(&e).expect("it is submitted");
    drop(clone);
    assert_eq!(e.result().get().expect("a value"), 4);
}

fn cancels(batch: &Batch, rig: &Rig) {
    let sleeper = batch.process("sh").args(["-c", "touch asleep; sleep 1000"]);
    let after = batch.process("true").stdin(sleeper.stdout());
    let compiled = batch.compile(tasks![sleeper, after]).expect("a list");
    compiled.start().expect("it starts");
    wait_until("it sleeps", || rig.has("asleep"));
    assert!(sleeper.why_waiting().expect("it has not ended").contains("process"));
    assert_eq!(sleeper.status(), Status::Waiting);
    let error = sleeper.result().get_timeout(Duration::from_millis(1)).expect_err("not yet");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    sleeper.cancel();
    compiled.wait().expect_err("it was cancelled");
    assert_eq!(sleeper.result().get().expect_err("it was cancelled").kind(), ErrorKind::Cancelled);
    assert_eq!(after.status(), Status::Skipped);
    let many: Vec<_> = (0..10).map(|_| batch.process("sleep").arg("1000")).collect();
    let compiled = batch.compile(&many).expect("a list");
    compiled.start().expect("it starts");
    batch.cancel();
    compiled.wait().expect_err("all were cancelled");
    assert_eq!(compiled.failures().len(), 10);
}

pub(crate) fn mistakes_in(error: Error) -> Vec<Mistake> {
    match error {
        Error::Compile(CompileError { mistakes }) => mistakes,
        other => panic!("another error: {other}"),
    }
}

fn mistakes(batch: &Batch) {
    let closure = batch.closure(|| 1u8);
    let found = mistakes_in(batch.compile(tasks![closure]).expect_err("it cannot go there"));
    assert!(matches!(&found[..], [Mistake::StaysHere { task: 0, .. }]), "{found:?}");
    let found = mistakes_in(batch.submit(batch.closure(|| 1u8)).expect_err("it cannot go there"));
    assert!(matches!(&found[..], [Mistake::StaysHere { .. }]), "{found:?}");
    let greedy = batch.process("true").cpus(1000);
    let found = mistakes_in(batch.compile(tasks![greedy]).expect_err("too much"));
    assert!(matches!(&found[..], [Mistake::NeverEnough { .. }]), "{found:?}");
    // What only the primary knows is found there, before anything runs.
    let (good, bad) = (batch.function(square, (1u64,)), batch.process("/no/such/program"));
    let far = batch.function(square, (1u64,)).at_rank(5);
    let compiled = batch.compile(tasks![good, bad, far]).expect("nothing is wrong here");
    let found = mistakes_in(compiled.start().expect_err("the program is not there"));
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|it| it.contains("/no/such/program")), "{text:?}");
    assert!(matches!(good.status(), Status::Compiled));
    good.result().get().expect_err("it never ran");
    // A queue that cannot run is told of by the next call.
    let bad = batch.process("/no/such/name").at_rank(7);
    batch.submit(&bad).expect("it is queued");
    let error = batch.fence().expect_err("there is no such rank");
    assert!(error.to_string().contains("rank 7"), "{error}");
    // And that leaves nothing behind.
    let fine = batch.function(square, (8u64,));
    batch.submit(&fine).expect("it is queued");
    assert_eq!(fine.result().get().expect("a value"), 64);
}

fn many(batch: &Batch) {
    let squares: Vec<_> = (0..10_000u64).map(|i| batch.function(square, (i,))).collect();
    batch.compile(&squares).expect("a list").run().expect("it runs");
    let wanted: Vec<u64> = (0..10_000).map(|i| i * i).collect();
    assert_eq!(results(&squares).expect("values"), wanted);
    let total = batch.keys("total").at(0);
    let mut last = batch.function(square, (0u64,));
    batch.submit(&last).expect("it is submitted");
    for i in 1..10_000u64 {
        let next = batch.function(add, (last.result(), i)).reads(total).writes(total);
        batch.submit(&next).expect("it is submitted");
        last = next;
    }
    assert_eq!(last.result().get().expect("a value"), 49_995_000);
    batch.fence().expect("all succeed");
}

// ── against the serial program ──────────────────────────────────────────────────────────────────────────────────

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Adds a number to what is in a file, and tells what it found; some fail.
fn step(path: &Path, number: u64, inputs: &[String]) -> Result<String, String> {
    let before = fs::read_to_string(path).unwrap_or_default();
    let text = format!("{number}:{}:{}", before.len(), inputs.join("+").len());
    fs::write(path, format!("{before}{text};")).map_err(|error| error.to_string())?;
    if number % 13 == 5 { Err(format!("{number} fails")) } else { Ok(text) }
}

/// One list of the seed's; what each task came to, as text.
fn run_random(batch: &Batch, seed: u64, folder: &Path, submits: bool) -> Vec<String> {
    fs::create_dir_all(folder).expect("a folder");
    let mut dice = Dice(seed);
    let mut made: Vec<Task<String>> = Vec::new();
    for number in 0..20 + dice.below(30) {
        let path = folder.join(format!("datum{}", dice.below(4)));
        let takes = dice.below(3).min(made.len() as u64);
        let inputs: Vec<Handle<String>> =
            (0..takes).map(|_| made[dice.below(made.len() as u64) as usize].result()).collect();
        let task = batch.try_function(step, (&path, number, inputs)).reads(&path).writes(&path);
        made.push(task);
    }
    if submits {
        made.iter().for_each(|task| batch.submit(task).expect("it is submitted"));
        let _ = batch.fence();
    } else {
        let _ = batch.compile(&made).expect("a list").run();
    }
    let outcome = |task: &Task<String>| match task.result().get() {
        Ok(text) => text,
        // Which index a task has depends on when the queue before it was flushed.
        Err(error) if submits => format!("{:?}, {}", error.kind(), error.root_text()),
        Err(error) => format!("{:?} {} {}", error.kind(), error.index(), error),
    };
    let mut all: Vec<String> = made.iter().map(outcome).collect();
    for datum in 0..4 {
        all.push(fs::read_to_string(folder.join(format!("datum{datum}"))).unwrap_or_default());
    }
    all
}

pub(crate) fn random(batch: &Batch, rig: &Rig) {
    let serial = Batch::builder().workers(Workers::Serial).alone().build().expect("a batch");
    for seed in 0..40 {
        let wanted = run_random(&serial, seed, &rig.path(&format!("serial{seed}")), false);
        let compiled = run_random(batch, seed, &rig.path(&format!("compiled{seed}")), false);
        assert_eq!(compiled, wanted, "seed {seed}, compiled");
        let wanted = run_random(&serial, seed, &rig.path(&format!("serial{seed}b")), true);
        let submitted = run_random(batch, seed, &rig.path(&format!("submitted{seed}")), true);
        assert_eq!(submitted, wanted, "seed {seed}, submitted");
    }
}
