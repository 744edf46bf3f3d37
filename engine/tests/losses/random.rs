//! Random lists of functions of which one strikes the rank that runs it; the same as a serial program.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{Batch, Context, Handle, Stream, Task};
use tarragon_testbed::Blow;

/// Numbers that look random.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// A function that takes what some tasks before it returned or wrote to their output, and reads and writes files, but
/// none that it reads: it does the same when it is run again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) id: u32,
    takes: Vec<u32>,
    hears: Vec<u32>,
    folder: Option<PathBuf>,
    reads: Vec<u32>,
    writes: Vec<u32>,
    micros: u64,
    pub(crate) blow: Option<Blow>,
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
        blow.strike(context.rank());
    }
    writeln!(context.out(), "{}", step.says()).expect("it is kept");
    step.value(&inputs.iter().collect::<Vec<_>>(), &heard)
}

pub(crate) fn steps(seed: u64, n: u32, micros: u64, blow: &Blow, folder: Option<&Path>) -> Vec<Step> {
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

pub(crate) fn serially(steps: &[Step]) -> Vec<Vec<u64>> {
    let mut values: Vec<Vec<u64>> = Vec::new();
    for step in steps {
        let inputs: Vec<&Vec<u64>> = step.takes.iter().map(|take| &values[*take as usize]).collect();
        let heard: Vec<String> = step.hears.iter().map(|it| steps[*it as usize].says()).collect();
        let value = step.value(&inputs, &heard);
        values.push(value);
    }
    values
}

pub(crate) fn listed(batch: &Batch, steps: &[Step], ranks: u32) -> Vec<Task<Vec<u64>>> {
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
pub(crate) fn check(tasks: &[Task<Vec<u64>>], expected: &[Vec<u64>], what: &str) -> usize {
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
