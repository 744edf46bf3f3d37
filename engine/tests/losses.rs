//! Lists in worlds that lose ranks: they do what the serial program does all the same.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{Batch, Context, Handle, Task, Workers, results};
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

/// A function that takes what some tasks before it returned.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    id: u32,
    takes: Vec<u32>,
    micros: u64,
    blow: Option<Blow>,
}

fn value_of(id: u32, inputs: &[&Vec<u64>]) -> Vec<u64> {
    let sum = inputs.iter().flat_map(|input| input.iter()).fold(u64::from(id), |sum, x| {
        (sum ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(11)
    });
    (0..u64::from(id % 40)).map(|i| sum.wrapping_add(i)).chain([sum]).collect()
}

fn body(context: &Context, step: Step, inputs: Vec<Vec<u64>>) -> Vec<u64> {
    std::thread::sleep(Duration::from_micros(step.micros));
    if let Some(blow) = &step.blow {
        blow.strike(context);
    }
    value_of(step.id, &inputs.iter().collect::<Vec<_>>())
}

fn steps(seed: u64, n: u32, micros: u64, blow: &Blow) -> Vec<Step> {
    let mut dice = Dice(seed);
    let fatal = n / 5 + dice.below(n * 3 / 5);
    let step = |id: u32| {
        // Neighbours mostly, so that ranks have chains of their own.
        let near = |dice: &mut Dice| id - 1 - dice.below(id.min(30));
        let takes = (0..if id == 0 { 0 } else { dice.below(4) }).map(|_| near(&mut dice)).collect();
        let micros = if micros == 0 { 0 } else { u64::from(dice.below(2 * micros as u32)) };
        Step { id, takes, micros, blow: (id == fatal).then(|| blow.clone()) }
    };
    (0..n).map(step).collect()
}

fn serially(steps: &[Step]) -> Vec<Vec<u64>> {
    let mut values: Vec<Vec<u64>> = Vec::new();
    for step in steps {
        let inputs: Vec<&Vec<u64>> = step.takes.iter().map(|take| &values[*take as usize]).collect();
        let value = value_of(step.id, &inputs);
        values.push(value);
    }
    values
}

fn listed(batch: &Batch, steps: &[Step], ranks: u32) -> Vec<Task<Vec<u64>>> {
    let mut tasks: Vec<Task<Vec<u64>>> = Vec::new();
    for step in steps {
        let inputs: Vec<Handle<Vec<u64>>> =
            step.takes.iter().map(|take| tasks[*take as usize].result()).collect();
        let task = batch.function(body, (step.clone(), inputs));
        tasks.push(match step.blow {
            Some(_) => task.at_rank(1 + step.id % (ranks - 1)),
            None => task,
        });
    }
    tasks
}

fn batch(ranks: u32, threads: usize) -> Batch {
    let builder = Batch::builder().spawn(ranks).survive_losses(true);
    builder.workers(Workers::Threads(threads)).build().expect("a batch")
}

fn one_loss(seed: u64, fate: Fate, ranks: u32, n: u32, folder: &Path) {
    let batch = batch(ranks, 1 + seed as usize % 2);
    let blow = Blow { fate, file: folder.join(format!("struck{seed}")) };
    let steps = steps(seed, n, if n > 1000 { 0 } else { 300 }, &blow);
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
