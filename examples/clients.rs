//! Separate programs are clients of one batch, whose descriptor came over a queue, through a dictionary, or as text:
//! `cargo run --release --example clients`
//!
//! The process that began it all has the batch, and runs what all submit on its cpus. It starts itself four times more:
//! one client takes the descriptor from a queue and submits functions, one reads it in a dictionary and submits
//! processes, one aborts before it has closed, which counts as closed, and one finds the batch joined. To be a client
//! by hand, say `clients --serve` in one shell, where a line of input ends it, and `clients DESCRIPTOR` in another.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use std::io::Write;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;
use tarragon::{Batch, BatchDescriptor, DDict, DictDescriptor, Queue, QueueDescriptor, results, tasks};

const HELP: &str = "
usage: clients [--serve | DESCRIPTOR]

  --serve     has a batch, prints its descriptor, and ends when it has read a line and all clients have closed
  DESCRIPTOR  is a client of that batch: has it count primes

Without either it does all of it, in several processes.
";

/// How long anybody waits for a descriptor.
const PATIENCE: Duration = Duration::from_secs(60);
/// Primes are counted below this, in pieces.
const BELOW: u64 = 400_000;
const PIECES: u64 = 40;
/// Of primes below 400 000 there are so many.
const PRIMES: u64 = 33_860;

enum Part {
    Whole,
    Serve,
    Text(BatchDescriptor),
    OfQueue(QueueDescriptor),
    OfDict(DictDescriptor),
    Careless(BatchDescriptor),
}

fn main() -> ExitCode {
    command::run(HELP, part, |part| match part {
        Part::Whole => whole(),
        Part::Serve => serve(),
        Part::Text(batch) => count(&batch.attach()?),
        Part::OfQueue(queue) => {
            let queue: Queue<BatchDescriptor> = queue.attach()?;
            count(&queue.get_timeout(PATIENCE)?.attach()?)
        }
        Part::OfDict(dict) => {
            let dict: DDict<String, BatchDescriptor> = dict.attach()?;
            sort(&dict.get_timeout("batch", PATIENCE)?.attach()?)
        }
        Part::Careless(batch) => forget(&batch.attach()?),
    })
}

/// The other processes are told what they are: `--queue QUEUE`, `--dict DICT`, `--careless DESCRIPTOR`.
fn part(mut args: lexopt::Parser) -> Result<Part, lexopt::Error> {
    let mut part = Part::Whole;
    while let Some(arg) = args.next()? {
        part = match arg {
            Arg::Long("serve") => Part::Serve,
            Arg::Long("queue") => Part::OfQueue(args.value()?.parse()?),
            Arg::Long("dict") => Part::OfDict(args.value()?.parse()?),
            Arg::Long("careless") => Part::Careless(args.value()?.parse()?),
            Arg::Value(descriptor) => Part::Text(descriptor.parse()?),
            other => return Err(other.unexpected()),
        };
    }
    Ok(part)
}

// ── clients ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn primes(from: u64, below: u64) -> u64 {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from..below).filter(|n| is_prime(*n)).count() as u64
}

/// Functions: this program is the one that has the batch, executed once more.
fn count(batch: &Batch) -> Outcome {
    let piece = BELOW / PIECES;
    let counts: Vec<_> = (0..PIECES).map(|i| batch.function(primes, (i * piece, (i + 1) * piece))).collect();
    batch.compile(&counts)?.run()?;
    let total: u64 = results(&counts)?.into_iter().sum();
    if total != PRIMES {
        return Err(format!("{total} primes below {BELOW}, not {PRIMES}").into());
    }
    println!("process {} had process {} count {total} primes", std::process::id(), batch.descriptor()?.pid());
    Ok(batch.close()?)
}

/// Processes, one behind the other: any program can submit those.
fn sort(batch: &Batch) -> Outcome {
    let numbers = batch.process("seq").arg(100_000);
    let sorted = batch.process("sort").arg("-r").stdin(numbers.stdout()).env("LC_ALL", "C");
    let first = batch.process("head").args(["-n", "1"]).stdin(sorted.stdout());
    batch.submit(tasks![numbers, sorted, first])?;
    let text = first.stdout().get()?;
    if text != "99999\n" {
        return Err(format!("the last number is {text:?}").into());
    }
    println!("process {} had numbers sorted; the last one is {}", std::process::id(), text.trim());
    Ok(batch.close()?)
}

/// Ends without having closed.
fn forget(batch: &Batch) -> Outcome {
    let task = batch.process("true");
    task.run()?;
    println!("process {} forgets to close", std::process::id());
    std::io::stdout().flush()?;
    std::process::abort()
}

// ── who has the batch ───────────────────────────────────────────────────────────────────────────────────────────

fn serve() -> Outcome {
    let batch = Batch::new()?;
    println!("{}", batch.descriptor()?);
    std::io::stdout().flush()?;
    // A client that has not attached yet is nobody to wait for.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(batch.join()?)
}

/// A process that ends with this one, however it ends.
struct Client(Child);

impl Client {
    fn start(part: &str, descriptor: &str) -> Result<Self, std::io::Error> {
        let mut command = Command::new(std::env::current_exe()?);
        let parts = [part, descriptor].into_iter().filter(|it| !it.is_empty());
        Ok(Self(command.args(parts).spawn()?))
    }

    fn ends_well(mut self) -> Result<bool, std::io::Error> {
        Ok(self.0.wait()?.success())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait().map(drop));
    }
}

fn whole() -> Outcome {
    let batch = Batch::new()?;
    let queue = Queue::<BatchDescriptor>::builder().create()?;
    let dict = DDict::<String, BatchDescriptor>::builder().memory(1 << 20).create()?;
    let text = batch.descriptor()?.to_string();
    let by_queue = Client::start("--queue", &queue.descriptor().to_string())?;
    let by_dict = Client::start("--dict", &dict.descriptor().to_string())?;
    let careless = Client::start("--careless", &text)?;
    queue.put(batch.descriptor()?)?;
    dict.put("batch", &batch.descriptor()?)?;

    // The batch's own program submits as well.
    let own = batch.function(primes, (0u64, 1000u64));
    batch.submit(&own)?;
    if own.result().get()? != 168 {
        return Err("168 primes are below 1000".into());
    }
    if careless.ends_well()? {
        return Err("a process that aborts has ended well".into());
    }
    if !by_queue.ends_well()? || !by_dict.ends_well()? {
        return Err("a client has failed".into());
    }
    batch.join()?;
    println!("process {} has joined its batch", std::process::id());
    if Client::start("", &text)?.ends_well()? {
        return Err("a batch that is joined has a new client".into());
    }
    Ok(())
}
