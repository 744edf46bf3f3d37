//! Producers, workers and a collector in separate processes, over queues: `cargo run --release --example pipeline`
//!
//! Producers put numbers into one queue; workers take them, factor them and put the result into another one; the
//! collector, the process that began it all, checks every result. Each process attaches by descriptors from its command
//! line. When the producers are done the first queue is closed, and the workers end when it is empty.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use serde::{Deserialize, Serialize};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};
use tarragon::{Queue, QueueDescriptor, QueueError};

const HELP: &str = "
usage: pipeline [--numbers N] [--producers P] [--workers W]

  --numbers N    numbers that each producer puts (20000)
  --producers P  processes that put numbers (2)
  --workers W    processes that factor them (2)
";

/// How long the collector waits for the next result.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Factored {
    number: u64,
    factors: Vec<u64>,
    worker: u32,
}

enum Part {
    Whole { numbers: u64, producers: u64, workers: u64 },
    Producer { first: u64, numbers: u64, to: QueueDescriptor },
    Worker { from: QueueDescriptor, to: QueueDescriptor },
}

fn main() -> ExitCode {
    command::run(HELP, part, |part| match part {
        Part::Whole { numbers, producers, workers } => run(numbers, producers, workers),
        Part::Producer { first, numbers, to } => produce(first, numbers, &to),
        Part::Worker { from, to } => work(&from, &to),
    })
}

/// The other processes are told what they are: `--produce FIRST COUNT QUEUE`, `--work QUEUE QUEUE`.
fn part(mut args: lexopt::Parser) -> Result<Part, lexopt::Error> {
    let (mut numbers, mut producers, mut workers) = (20_000, 2, 2);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("numbers") => numbers = args.value()?.parse()?,
            Arg::Long("producers") => producers = args.value()?.parse()?,
            Arg::Long("workers") => workers = args.value()?.parse()?,
            Arg::Long("produce") => {
                let (first, numbers) = (args.value()?.parse()?, args.value()?.parse()?);
                return Ok(Part::Producer { first, numbers, to: args.value()?.parse()? });
            }
            Arg::Long("work") => {
                return Ok(Part::Worker { from: args.value()?.parse()?, to: args.value()?.parse()? });
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Part::Whole { numbers, producers, workers })
}

// ── the parts ───────────────────────────────────────────────────────────────────────────────────────────────────

fn produce(first: u64, numbers: u64, to: &QueueDescriptor) -> Outcome {
    let to: Queue<u64> = to.attach()?;
    for number in first..first + numbers {
        to.put(number)?;
    }
    Ok(())
}

fn work(from: &QueueDescriptor, to: &QueueDescriptor) -> Outcome {
    let (from, to): (Queue<u64>, Queue<Factored>) = (from.attach()?, to.attach()?);
    loop {
        match from.get() {
            Ok(number) => {
                to.put(Factored { number, factors: factors(number), worker: std::process::id() })?
            }
            Err(QueueError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Prime factors, the smallest first.
fn factors(mut number: u64) -> Vec<u64> {
    let mut factors = Vec::new();
    let mut divisor = 2;
    while divisor * divisor <= number {
        while number.is_multiple_of(divisor) {
            factors.push(divisor);
            number /= divisor;
        }
        divisor += 1;
    }
    if number > 1 {
        factors.push(number);
    }
    factors
}

// ── the whole ───────────────────────────────────────────────────────────────────────────────────────────────────

/// Processes that end with this one, however it ends.
struct Others(Vec<Child>);

impl Others {
    fn start(&mut self, args: &[String]) -> Outcome {
        self.0.push(Command::new(std::env::current_exe()?).args(args).spawn()?);
        Ok(())
    }

    /// Waits for all of them; an error if one of them failed.
    fn join(&mut self) -> Outcome {
        for mut child in self.0.drain(..) {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("process {} ended with {status}", child.id()).into());
            }
        }
        Ok(())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn run(numbers: u64, producers: u64, workers: u64) -> Outcome {
    let began = Instant::now();
    let input = Queue::<u64>::builder().create()?;
    let output = Queue::<Factored>::builder().create()?;
    let (from, to) = (input.descriptor().to_string(), output.descriptor().to_string());
    let (mut working, mut producing) = (Others(Vec::new()), Others(Vec::new()));
    for _ in 0..workers {
        working.start(&["--work".into(), from.clone(), to.clone()])?;
    }
    for p in 0..producers {
        let first = 1 + p * numbers;
        producing.start(&["--produce".into(), first.to_string(), numbers.to_string(), from.clone()])?;
    }
    let total = numbers * producers;
    let mut seen = vec![false; total as usize + 1];
    let mut by = std::collections::BTreeMap::<u32, u64>::new();
    for _ in 0..total {
        let result = output.get_timeout(PATIENCE)?;
        let product: u64 = result.factors.iter().product();
        if product != result.number || std::mem::replace(&mut seen[result.number as usize], true) {
            return Err(format!(
                "{} came twice, or its factors {:?} are wrong",
                result.number, result.factors
            )
            .into());
        }
        *by.entry(result.worker).or_default() += 1;
    }
    producing.join()?;
    input.close();
    working.join()?;
    println!("{total} numbers factored and checked in {:.1?}; by process: {by:?}", began.elapsed());
    Ok(())
}
