//! A line that one function prints is the argument of the next: `cargo run --release --example hello`
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use std::io::{self, Write};
use std::process::ExitCode;
use tarragon::{Batch, Context, tasks};

const HELP: &str = "
usage: hello [NAME]

A function prints a line to its context, and the next function takes that line as its argument.
NAME is who is greeted, `world` without it.
";

/// A function that takes `&Context` first may print: what it writes to `out()` is its task's standard output.
fn greet(ctx: &Context, name: &str) -> io::Result<()> {
    write!(ctx.out(), "hello, {name}")
}

fn shout(line: &str) -> String {
    format!("{}!", line.to_uppercase())
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<String, lexopt::Error> {
    let mut name = None;
    while let Some(arg) = args.next()? {
        match arg {
            lexopt::Arg::Value(value) if name.is_none() => name = Some(value.into_string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(name.unwrap_or_else(|| "world".to_string()))
}

fn run(name: String) -> Outcome {
    let batch = Batch::new()?;
    let hello = batch.function(greet, (&name,));
    let loud = batch.function(shout, (hello.stdout(),));
    batch.compile(tasks![hello, loud])?.run()?;

    let (line, answer) = (hello.stdout().get()?, loud.result().get()?);
    println!("greet printed:  {line}");
    println!("shout returned: {answer}");
    if answer == format!("HELLO, {}!", name.to_uppercase()) { Ok(()) } else { Err("that is wrong".into()) }
}
