//! A campaign that is killed, and goes on where it was: `cargo run --release --example resume`
//!
//! The program starts itself as a campaign of chains of processes and functions that keeps a journal, kills it with
//! `kill -9` after a moment, starts it again, kills it again; and lets it end at last. What was done is not done again,
//! and the files are those of a campaign that nobody disturbed.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tarragon::{Batch, tasks};

const HELP: &str = "
usage: resume [--chains N] [--steps N] [--kills N]
       resume campaign DIRECTORY CHAINS STEPS

  --chains N  chains of steps, each from file to file; 20
  --steps N   steps of each chain; 25
  --kills N   how often the campaign is killed; 3

  campaign    the campaign itself, which the first form starts, kills, and starts again
";

struct Options {
    chains: usize,
    steps: usize,
    kills: u32,
    campaign: Option<PathBuf>,
}

fn main() -> ExitCode {
    command::run(HELP, options, |options| match &options.campaign {
        Some(dir) => campaign(dir, options.chains, options.steps),
        None => run(&options),
    })
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { chains: 20, steps: 25, kills: 3, campaign: None };
    while let Some(arg) = args.next()? {
        match arg {
            Long("chains") => options.chains = args.value()?.parse()?,
            Long("steps") => options.steps = args.value()?.parse()?,
            Long("kills") => options.kills = args.value()?.parse()?,
            Value(word) if word == "campaign" => {
                options.campaign = Some(args.value()?.into());
                options.chains = args.value()?.parse()?;
                options.steps = args.value()?.parse()?;
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn begin(to: &Path, chain: usize) -> io::Result<()> {
    fs::write(to, format!("chain {chain}\n"))
}

/// The last line of each chain, together.
fn gather(from: Vec<PathBuf>, to: &Path) -> io::Result<usize> {
    let mut lines = String::new();
    for path in &from {
        let text = fs::read_to_string(path)?;
        lines.extend(text.lines().last());
        lines.push('\n');
    }
    fs::write(to, &lines)?;
    Ok(lines.lines().count())
}

/// The campaign: nothing in it says what was done before; the journal does.
fn campaign(dir: &Path, chains: usize, steps: usize) -> Outcome {
    let batch = Batch::builder().journal(dir.join("journal")).resume(true).build()?;
    let (mut begun, mut stepped, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for chain in 0..chains {
        let file = |step: usize| dir.join(format!("{chain}.{step}"));
        begun.push(batch.function(begin, (file(0), chain)).writes(file(0)));
        for step in 1..=steps {
            let script = format!("sleep 0.005; cat {chain}.{}; echo step {step}", step - 1);
            let process = batch.process("/bin/sh").arg("-c").arg(format!("({script}) > {chain}.{step}"));
            stepped.push(process.cwd(dir).reads(file(step - 1)).writes(file(step)));
        }
        ends.push(file(steps));
    }
    let mut result = batch.function(gather, (ends.clone(), dir.join("result"))).writes(dir.join("result"));
    for end in &ends {
        result = result.reads(end);
    }
    let compiled = batch.compile(tasks![begun, stepped, result])?;
    compiled.run()?;
    println!("{} of {} tasks were done before", compiled.reused(), compiled.len());
    drop((compiled, begun, stepped));
    assert_eq!(result.result().get()?, chains);
    drop(result);
    Ok(batch.join()?)
}

fn run(options: &Options) -> Outcome {
    let (quiet, killed) = (tempfile::tempdir()?, tempfile::tempdir()?);
    println!("undisturbed:");
    finish(&mut start(quiet.path(), options)?)?;
    for kill in 1..=options.kills {
        let mut child = start(killed.path(), options)?;
        std::thread::sleep(Duration::from_millis(150 + 70 * u64::from(kill)));
        child.kill()?;
        child.wait()?;
        println!("killed {kill} times");
    }
    println!("let go on:");
    finish(&mut start(killed.path(), options)?)?;
    if files(quiet.path())? != files(killed.path())? {
        return Err("the files differ from those of the undisturbed campaign".into());
    }
    println!("the files are the same");
    Ok(())
}

fn start(dir: &Path, options: &Options) -> io::Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("campaign").arg(dir).args([options.chains.to_string(), options.steps.to_string()]);
    command.spawn()
}

fn finish(child: &mut std::process::Child) -> Result<(), Box<dyn Error>> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the campaign ended with {status}").into()) }
}

/// All files of a campaign but its journal.
fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        if path.is_file() && name != Path::new("journal") {
            files.insert(name, fs::read(path)?);
        }
    }
    Ok(files)
}
