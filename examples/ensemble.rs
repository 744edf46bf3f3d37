//! A thousand runs of a program, each with a parameter file: `cargo run --release --example ensemble`
//!
//! A function writes a parameter file, a process reads it and writes a result file, a function reads that and the line
//! the process printed; one more function plots what all of them found. The files order each chain, results bring the
//! chains together. The program is this one, called again as `ensemble simulate`; any other would do.
//!
//! What it simulates is the logistic map x → g x (1 - x): where it ends up, for growth rates g from steady to chaotic.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};
use tarragon::{Batch, Exit, Handle, Task, tasks};

const HELP: &str = "
usage: ensemble [--runs N] [--cpus C] [--out DIR]
       ensemble simulate PARAMETERS RESULT

Runs a program N times, each time with a parameter file of its own, checks every result, and plots all of them.

  --runs N   runs (1000)
  --cpus C   processes at a time (as many as the machine grants cpus)
  --out DIR  puts parameters, results and summary.svg there and keeps them; without it in a temporary directory

`simulate` is the program: it reads one parameter file, writes one result file and prints one line.
";

/// Growth rates go from this, where the map comes to rest, ...
const GROWTH_MIN: f64 = 2.6;

/// ... to this, where it is chaotic and its exponent is ln 2 (Ulam and von Neumann, 1947).
const GROWTH_MAX: f64 = 4.0;

/// Steps before the first that counts, and steps that count.
const SETTLING: u32 = 20_000;
const COUNTED: u32 = 40_000;

/// Values that a result shows.
const SHOWN: usize = 100;

enum Options {
    Ensemble { runs: u32, cpus: Option<u32>, out: Option<PathBuf> },
    Simulate { parameters: PathBuf, result: PathBuf },
}

fn main() -> ExitCode {
    command::run(HELP, options, |options| match options {
        Options::Ensemble { runs, cpus, out } => ensemble(runs, cpus, out),
        Options::Simulate { parameters, result } => simulate(&parameters, &result),
    })
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let (mut runs, mut cpus, mut out) = (1000, None, None);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("runs") => runs = number(&mut args)?,
            Arg::Long("cpus") => cpus = Some(number(&mut args)?),
            Arg::Long("out") => out = Some(args.value()?.into()),
            Arg::Value(word) if word == "simulate" => {
                let (parameters, result) = (args.value()?.into(), args.value()?.into());
                return Ok(Options::Simulate { parameters, result });
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Options::Ensemble { runs, cpus, out })
}

fn number(args: &mut lexopt::Parser) -> Result<u32, lexopt::Error> {
    args.value()?.parse().map(NonZeroU32::get)
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

/// What one run finds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Found {
    growth: f64,
    /// Mean of ln |g (1 - 2x)|: how fast neighbours part (above zero) or meet (below), per step.
    exponent: f64,
    /// Some of the places where the map has been.
    values: Vec<f64>,
}

fn simulate(parameters: &Path, result: &Path) -> Outcome {
    let text = fs::read_to_string(parameters)?;
    let value = |name: &str| -> Result<f64, Box<dyn Error>> {
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        let found = lines.into_iter().find(|(key, _)| *key == name);
        Ok(found.ok_or_else(|| format!("{} has no {name}", parameters.display()))?.1.parse()?)
    };
    let found = iterate(value("growth")?, value("start")?);
    let mut text = format!("{}\n{}\n", found.growth, found.exponent);
    found.values.iter().try_for_each(|x| writeln!(text, "{x}"))?;
    fs::write(result, text)?;
    println!("growth {} exponent {}", found.growth, found.exponent);
    Ok(())
}

fn iterate(growth: f64, start: f64) -> Found {
    let step = |x: f64| growth * x * (1.0 - x);
    let mut x = (0..SETTLING).fold(start, |x, _| step(x));
    let (mut sum, mut values) = (0.0, Vec::with_capacity(SHOWN));
    for i in 0..COUNTED {
        sum += (growth * (1.0 - 2.0 * x)).abs().ln();
        if (i as usize) < SHOWN {
            values.push(x);
        }
        x = step(x);
    }
    Found { growth, exponent: sum / f64::from(COUNTED), values }
}

// ── the tasks around it ─────────────────────────────────────────────────────────────────────────────────────────

fn growth(run: u32, runs: u32) -> f64 {
    let share = if runs == 1 { 1.0 } else { f64::from(run) / f64::from(runs - 1) };
    GROWTH_MIN + share * (GROWTH_MAX - GROWTH_MIN)
}

/// Where runs start: any place whose path does not come to zero.
const START: f64 = 0.3;

fn write_parameters(growth: f64, to: &Path) -> io::Result<()> {
    fs::write(to, format!("growth = {growth}\nstart = {START}\n"))
}

/// What a run has written, if it is what it printed.
fn read_result(from: &Path, printed: &str) -> Result<Found, Box<dyn Error + Send + Sync>> {
    let text = fs::read_to_string(from)?;
    let mut numbers = text.lines().map(str::parse::<f64>);
    let mut next =
        || numbers.next().ok_or("the result is too short")?.map_err(Box::<dyn Error + Send + Sync>::from);
    let (growth, exponent) = (next()?, next()?);
    if printed != format!("growth {growth} exponent {exponent}\n") {
        return Err(format!("{} does not say what was printed: {printed}", from.display()).into());
    }
    Ok(Found { growth, exponent, values: numbers.collect::<Result<_, _>>()? })
}

/// Places above, exponents below; returns how many points there are.
fn plot(all: Vec<Found>, to: &Path) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let drawing = SVGBackend::new(to, (1000, 800)).into_drawing_area();
    drawing.fill(&WHITE)?;
    let (places, exponents) = drawing.split_vertically(500);
    let style = ("sans-serif", 16);
    let mut chart = ChartBuilder::on(&places)
        .caption("where x → g x (1 - x) ends up", style)
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(GROWTH_MIN..GROWTH_MAX, 0.0..1.0)?;
    chart.configure_mesh().y_desc("x").label_style(("sans-serif", 12)).draw()?;
    // Every fifth place, so that the file stays small.
    let points = all.iter().flat_map(|run| run.values.iter().step_by(5).map(|x| (run.growth, *x)));
    let points: Vec<_> = points.map(|at| Pixel::new(at, BLUE)).collect();
    let count = points.len();
    chart.draw_series(points)?;

    let mut chart = ChartBuilder::on(&exponents)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(GROWTH_MIN..GROWTH_MAX, -2.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("growth rate g")
        .y_desc("exponent")
        .label_style(("sans-serif", 12))
        .draw()?;
    chart.draw_series(LineSeries::new(all.iter().map(|run| (run.growth, run.exponent.max(-2.0))), &RED))?;
    chart.draw_series(LineSeries::new([(GROWTH_MIN, 0.0), (GROWTH_MAX, 0.0)], &BLACK))?;
    drawing.present()?;
    Ok(count)
}

// ── the list ────────────────────────────────────────────────────────────────────────────────────────────────────

/// All tasks, by what they do.
struct List {
    parameters: Vec<Task<()>>,
    runs: Vec<Task<Exit>>,
    results: Vec<Task<Found>>,
    summary: Task<usize>,
}

fn list(batch: &Batch, runs: u32, dir: &Path) -> Result<List, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let (mut all, mut writers, mut readers) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        let parameters = dir.join(format!("parameters/{run}"));
        let result = dir.join(format!("results/{run}"));
        let write = batch.function(write_parameters, (growth(run, runs), &parameters)).writes(&parameters);
        let simulate = batch.process(&program).arg("simulate").arg(&parameters).arg(&result);
        let simulate = simulate.reads(&parameters).writes(&result).name(format!("run {run}"));
        readers.push(batch.function(read_result, (&result, simulate.stdout())).reads(&result));
        writers.push(write);
        all.push(simulate);
    }
    let svg = dir.join("summary.svg");
    let found: Vec<Handle<Found>> = readers.iter().map(Task::result).collect();
    let summary = batch.function(plot, (found, &svg)).writes(&svg);
    Ok(List { parameters: writers, runs: all, results: readers, summary })
}

fn ensemble(runs: u32, cpus: Option<u32>, out: Option<PathBuf>) -> Outcome {
    // A temporary directory goes when this function returns, whatever it returns.
    let temporary = match out {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("tarragon-ensemble-").tempdir()?),
    };
    let dir = temporary.as_ref().map_or(out.as_deref(), |t| Some(t.path())).expect("one of the two");
    ["parameters", "results"].iter().try_for_each(|name| fs::create_dir_all(dir.join(name)))?;

    let mut builder = Batch::builder().run_dir(dir);
    if let Some(cpus) = cpus {
        builder = builder.assume_cpus(cpus);
    }
    let batch = builder.build()?;
    let before = Instant::now();
    let List { parameters, runs: simulations, results, summary } = list(&batch, runs, dir)?;
    let compiled = batch.compile(tasks![parameters, simulations, results, summary])?;
    println!("{} tasks, {} of them processes, in {}", compiled.len(), simulations.len(), dir.display());
    compiled.run()?;
    println!("all have ended after {:.2?}: {}", before.elapsed(), used(&simulations)?);

    let worst = check(&results)?;
    let (points, svg) = (summary.result().get()?, dir.join("summary.svg"));
    let drawing = fs::read_to_string(&svg)?;
    if points != runs as usize * SHOWN / 5 || !drawing.trim_end().ends_with("</svg>") {
        return Err(format!("{} is no picture of {points} points", svg.display()).into());
    }
    let kept = if temporary.is_some() { " (`--out` keeps it)" } else { "" };
    println!("every result is that of a plain loop; exponents are those of theory within {worst:.1e}");
    println!("{points} points and {runs} exponents in {}{kept}", svg.display());
    Ok(())
}

/// What the processes used.
fn used(simulations: &[Task<Exit>]) -> Result<String, tarragon::TaskError> {
    let (mut time, mut memory) = (Duration::ZERO, 0);
    for exit in tarragon::results(simulations)? {
        time += exit.usage.user + exit.usage.system;
        memory = memory.max(exit.usage.max_rss_bytes);
    }
    Ok(format!("{time:.2?} of cpu time in processes, none larger than {:.1} MB", memory as f64 / 1e6))
}

/// Compares every result with the plain loop, bit by bit, and the exponents that are known with theory; returns the
/// largest distance of these.
fn check(results: &[Task<Found>]) -> Result<f64, Box<dyn Error>> {
    let mut worst: f64 = 0.0;
    for (run, found) in results.iter().enumerate() {
        let (found, wanted) =
            (found.result().get()?, iterate(growth(run as u32, results.len() as u32), START));
        if found != wanted {
            return Err(format!("run {run} is wrong: {found:?} is not {wanted:?}").into());
        }
        // Below 3 the map comes to rest at 1 - 1/g, where its slope is 2 - g. Near 3 that takes for ever.
        let known = match found.growth {
            g if g < 2.99 => Some((2.0 - g).abs().ln()),
            g if g == GROWTH_MAX => Some(2f64.ln()),
            _ => None,
        };
        let error = known.map_or(0.0, |known| (found.exponent - known).abs());
        if error > 0.02 {
            return Err(format!("run {run}: exponent {} is not {known:?}", found.exponent).into());
        }
        worst = worst.max(error);
    }
    Ok(worst)
}
