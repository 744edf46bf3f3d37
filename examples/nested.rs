//! A compiled batch inside two others: `cargo run --release --example nested`
//!
//! The inner batch integrates a function in parts. Two outer lists contain it: each sets the number of slices first
//! and judges the result afterwards. In an outer list a compiled batch stands for its tasks, with all that they read,
//! write and take; so what comes before and after them is inferred as for any others.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use std::f64::consts::PI;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use tarragon::{Batch, Compiled, DataId, Handle, tasks};

const HELP: &str = "
usage: nested [--dot]

Puts one compiled batch, which integrates a function in parts, into two outer lists, runs both, and shows a graph.

  --dot  prints the graph of the second outer list for Graphviz, and nothing else
";

/// Tasks among which the integral is divided.
const PARTS: u64 = 4;

/// Slices of one part: a datum that tasks declare like any other, since the engine cannot see what a body touches.
static SLICES: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<bool, lexopt::Error> {
    let mut dot = false;
    while let Some(arg) = args.next()? {
        match arg {
            lexopt::Arg::Long("dot") => dot = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(dot)
}

// ── the tasks ───────────────────────────────────────────────────────────────────────────────────────────────────

fn choose(slices: u64) {
    SLICES.store(slices, Ordering::Relaxed);
}

/// One part of the integral of 4 / (1 + x²) from 0 to 1, which is π, by the midpoint rule.
fn integrate(part: u64) -> f64 {
    let slices = SLICES.load(Ordering::Relaxed);
    let width = 1.0 / (PARTS * slices) as f64;
    let middle = |i: u64| ((part * slices + i) as f64 + 0.5) * width;
    (0..slices).map(|i| 4.0 / (1.0 + middle(i).powi(2)) * width).sum()
}

fn total(parts: Vec<f64>) -> f64 {
    parts.iter().sum()
}

fn error(integral: f64) -> f64 {
    (integral - PI).abs()
}

/// The batch that will be nested, and the handle of its result.
fn integral(batch: &Batch, slices: DataId) -> Result<(Compiled, Handle<f64>), tarragon::Error> {
    let part = |p| batch.function(integrate, (p,)).reads(slices).name(format!("part {p}"));
    let parts: Vec<_> = (0..PARTS).map(part).collect();
    let sum = batch.function(total, (parts.iter().collect::<Vec<_>>(),)).name("total");
    Ok((batch.compile(tasks![parts, sum])?, sum.result()))
}

/// An outer list: chooses the number of slices, integrates, judges.
fn judged(
    batch: &Batch,
    slices: (DataId, u64),
    inner: &Compiled,
    result: &Handle<f64>,
) -> Result<(Compiled, Handle<f64>), tarragon::Error> {
    let before = batch.function(choose, (slices.1,)).writes(slices.0).name(format!("choose {}", slices.1));
    let after = batch.function(error, (result.clone(),)).name("error");
    Ok((batch.compile(tasks![before, inner, after])?, after.result()))
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(dot: bool) -> Outcome {
    let batch = Batch::new()?;
    let slices = batch.datum("slices");
    let (inner, result) = integral(&batch, slices)?;
    let (coarse, coarse_error) = judged(&batch, (slices, 1), &inner, &result)?;
    let (fine, fine_error) = judged(&batch, (slices, 1000), &inner, &result)?;

    if dot {
        print!("{}", fine.graph().to_dot());
        return Ok(());
    }
    println!("one inner batch of {} tasks, in two outer ones of {}", inner.len(), fine.len());
    let mut errors = Vec::new();
    for (name, outer, error) in [("coarse", &coarse, &coarse_error), ("fine", &fine, &fine_error)] {
        outer.run()?;
        println!("{name}: integral {:.12}, error {:.1e}", result.get()?, error.get()?);
        errors.push(error.get()?);
    }
    println!("the graph of the fine one, without what is implied:");
    let graph = fine.graph();
    let drawn = graph.reduced();
    for edge in drawn.raw_edges() {
        println!("  {} → {}: {}", drawn[edge.source()], drawn[edge.target()], edge.weight);
    }

    // The midpoint rule's error falls with the square of the slices, 10^6 here.
    let ratio = errors[0] / errors[1];
    let edges_wanted = 2 * PARTS as usize + 1;
    if !(0.5e6..2e6).contains(&ratio) {
        return Err(format!("the errors {errors:?} do not fit the rule").into());
    }
    if drawn.edge_count() != edges_wanted {
        return Err(format!("{} edges in the graph, {edges_wanted} wanted", drawn.edge_count()).into());
    }
    Ok(())
}
