//! A second program attaches to a dictionary by its printed descriptor: `cargo run --release --example attach`
//!
//! Run like this it is both: it makes a dictionary, prints the descriptor, and starts itself once more with it. To be
//! the two by hand, say `attach --serve 60` in one shell and `attach DESCRIPTOR` in another one.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tarragon::{DDict, DictDescriptor};

const HELP: &str = "
usage: attach [--serve SECONDS | DESCRIPTOR]

  --serve SECONDS  makes a dictionary, prints its descriptor, and waits so long for somebody to answer
  DESCRIPTOR       attaches to that dictionary, reads what is there and answers

Without either it does both, as two processes.
";

enum Part {
    Both,
    Serve(u64),
    Attach(DictDescriptor),
}

fn main() -> ExitCode {
    command::run(HELP, part, run)
}

fn part(mut args: lexopt::Parser) -> Result<Part, lexopt::Error> {
    let mut part = Part::Both;
    while let Some(arg) = args.next()? {
        part = match arg {
            Arg::Long("serve") => Part::Serve(args.value()?.parse()?),
            Arg::Value(descriptor) => Part::Attach(descriptor.parse()?),
            other => return Err(other.unexpected()),
        };
    }
    Ok(part)
}

/// A thousand squares, and a place for the answer.
fn dictionary() -> Result<DDict<u64, u64>, tarragon::DictError> {
    let dict = DDict::<u64, u64>::builder().memory(1 << 20).create()?;
    dict.extend((0..1000u64).map(|i| (i, i * i)))?;
    Ok(dict)
}

/// The key of the answer.
const ANSWER: u64 = u64::MAX;

fn run(part: Part) -> Outcome {
    match part {
        Part::Attach(descriptor) => answer(&descriptor),
        Part::Serve(seconds) => {
            let dict = dictionary()?;
            println!("{}", dict.descriptor());
            report(&dict, Duration::from_secs(seconds))
        }
        Part::Both => {
            let dict = dictionary()?;
            println!("attach to {}", dict.descriptor());
            let other = Command::new(std::env::current_exe()?).arg(dict.descriptor().to_string()).status()?;
            if !other.success() {
                return Err(format!("the other process ended with {other}").into());
            }
            report(&dict, Duration::from_secs(10))
        }
    }
}

/// What the other program does.
fn answer(descriptor: &DictDescriptor) -> Outcome {
    let dict: DDict<u64, u64> = descriptor.attach()?;
    let sum: u64 =
        (0..1000).map(|i| dict.get(&i)).sum::<Result<Option<u64>, _>>()?.ok_or("a key is missing")?;
    dict.put(&ANSWER, sum)?;
    println!("process {} read {} keys and answers {sum}", std::process::id(), dict.len()? - 1);
    Ok(())
}

fn report(dict: &DDict<u64, u64>, patience: Duration) -> Outcome {
    let sum = dict.get_timeout(&ANSWER, patience)?;
    let wanted: u64 = (0..1000u64).map(|i| i * i).sum();
    if sum != wanted {
        return Err(format!("the answer is {sum}, not {wanted}").into());
    }
    println!("process {} got the answer: {sum}", std::process::id());
    Ok(())
}
