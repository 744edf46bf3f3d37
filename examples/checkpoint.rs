//! Killed and started again, it goes on: `cargo run --release --example checkpoint`
//!
//! Heat spreads along a rod, whose pieces lie in a dictionary. Every so many steps the program makes a checkpoint and
//! persists it to a directory. Here it starts itself as another process and kills that one (`kill -9`) at random
//! moments until it gets through; each time the new one goes on from the newest checkpoint. In the end the rod is
//! exactly that of a run that nobody disturbed.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};
use tarragon::{DDict, DictError, persisted_ids};

const HELP: &str = "
usage: checkpoint [--steps S] [--every E] [--kills K] [--dir DIR]

  --steps S  steps of the simulation (3000)
  --every E  steps between checkpoints (100)
  --kills K  times that the process is killed before it may get through (5)
  --dir DIR  keeps the checkpoints there; without it they go to a temporary directory
";

const PIECES: u64 = 16;
const CELLS: usize = 2048;

/// A piece of the rod by number; the step that it has reached is a key of its own.
type Rod = DDict<u64, Vec<f64>>;

const STEP: u64 = u64::MAX;

struct Options {
    steps: u64,
    every: u64,
    kills: u32,
    dir: Option<PathBuf>,
    is_child: bool,
}

fn main() -> ExitCode {
    command::run(
        HELP,
        options,
        |options| if options.is_child { simulate(&options) } else { disturb(&options) },
    )
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { steps: 3000, every: 100, kills: 5, dir: None, is_child: false };
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("steps") => options.steps = args.value()?.parse()?,
            Arg::Long("every") => options.every = args.value()?.parse::<u64>()?.max(1),
            Arg::Long("kills") => options.kills = args.value()?.parse()?,
            Arg::Long("dir") => options.dir = Some(args.value()?.into()),
            Arg::Long("simulate") => options.is_child = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

// ── the simulation ──────────────────────────────────────────────────────────────────────────────────────────────

/// The rod as it was at the newest checkpoint, or at the beginning.
fn rod(dir: &Path) -> Result<Rod, DictError> {
    if let Some(newest) = persisted_ids(dir)?.last() {
        return Rod::restore(dir, *newest);
    }
    let rod = Rod::builder().memory(8 << 20).create()?;
    for piece in 0..PIECES {
        rod.put(&piece, start(piece))?;
    }
    rod.put(&STEP, vec![0.0])?;
    Ok(rod)
}

fn start(piece: u64) -> Vec<f64> {
    (0..CELLS)
        .map(|cell| if (piece as usize * CELLS + cell).is_multiple_of(97) { 100.0 } else { 0.0 })
        .collect()
}

fn simulate(options: &Options) -> Outcome {
    let dir = options.dir.as_deref().ok_or("--simulate needs --dir")?;
    let rod = rod(dir)?;
    let first = rod.get_ref(&STEP)?.map_or(0.0, |step| step[0]) as u64;
    println!("  goes on at step {first}");
    for step in first + 1..=options.steps {
        advance(&rod)?;
        if step % options.every == 0 || step == options.steps {
            rod.put(&STEP, vec![step as f64])?;
            rod.persist(dir)?;
        }
    }
    Ok(())
}

/// One step: each cell becomes the mean of itself and its neighbours.
fn advance(rod: &Rod) -> Outcome {
    let pieces: Vec<Vec<f64>> = (0..PIECES)
        .map(|piece| rod.get(&piece)?.ok_or_else(|| "a piece is missing".into()))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let at = |i: isize| -> f64 {
        let i = i.clamp(0, PIECES as isize * CELLS as isize - 1) as usize;
        pieces[i / CELLS][i % CELLS]
    };
    for piece in 0..PIECES {
        rod.put_with(&piece, CELLS, |cells| {
            for (cell, value) in cells.iter_mut().enumerate() {
                let i = (piece as usize * CELLS + cell) as isize;
                *value = (at(i - 1) + at(i) + at(i + 1)) / 3.0;
            }
        })?;
    }
    Ok(())
}

// ── the one who kills it ────────────────────────────────────────────────────────────────────────────────────────

fn disturb(options: &Options) -> Outcome {
    let temporary = tempfile::Builder::new().prefix("tarragon-checkpoint-").tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().join("disturbed"));
    let mut kills = 0;
    loop {
        let mut child = child(options, &dir).spawn()?;
        if kills < options.kills {
            std::thread::sleep(Duration::from_millis(30 + random() % 100));
            // It may have got through in the meantime.
            let _ = child.kill();
        }
        let status = child.wait()?;
        if status.success() {
            break;
        }
        if status.code().is_some() {
            return Err(format!("the simulation ended with {status}").into());
        }
        kills += 1;
        println!("killed it; checkpoints so far: {}", persisted_ids(&dir)?.len());
    }
    let calm = temporary.path().join("calm");
    if !child(options, &calm).status()?.success() {
        return Err("the undisturbed run failed".into());
    }
    if read(&dir)? != read(&calm)? {
        return Err("the rod differs from that of the undisturbed run".into());
    }
    println!("killed {kills} times, and the rod is that of an undisturbed run");
    Ok(())
}

fn child(options: &Options, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a file"));
    let [steps, every] = [options.steps, options.every].map(|n| n.to_string());
    command.args(["--simulate", "--steps", &steps, "--every", &every, "--dir"]).arg(dir);
    command
}

fn read(dir: &Path) -> Result<Vec<Vec<f64>>, Box<dyn Error>> {
    let newest = *persisted_ids(dir)?.last().ok_or("no checkpoint")?;
    let rod = Rod::restore(dir, newest)?;
    (0..PIECES).map(|piece| rod.get(&piece)?.ok_or_else(|| "a piece is missing".into())).collect()
}

/// Not the same in each run.
fn random() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::from(now.subsec_nanos()) / 1000
}
