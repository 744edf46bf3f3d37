//! A heat grid in strips over ranks, compiled once and run many times: `cargo run --release --example halo`, or
//! `mpirun -n 4 target/release/examples/halo`
//!
//! Each rank has some strips of the grid. A strip needs one row of each of its two neighbours for the next step, its
//! *halo*; where that is on another rank the row travels, as the result of a small task, and nothing else does. The
//! result equals the plain loop's bit for bit.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::ValueExt;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;
use tarragon::{Batch, Compiled, Context, Handle, Task, TaskList, results};

const HELP: &str = "
usage: halo [--ranks N] [--strips S] [--rows R] [--width W] [--steps T] [--runs K]

Spreads heat over a grid of S strips of R rows, W cells wide, whose rim stays cold.

  --ranks N   ranks that it starts where no launcher has (2)
  --strips S  strips (8)
  --rows R    rows of a strip (64)
  --width W   cells in a row (512)
  --steps T   time steps of one compiled run (20)
  --runs K    runs of it (5)
";

/// Part of the difference to its neighbours that a cell takes over in one step.
const CONDUCTIVITY: f64 = 0.2;

#[derive(Clone, Copy)]
struct Options {
    ranks: usize,
    strips: usize,
    rows: usize,
    width: usize,
    steps: usize,
    runs: usize,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { ranks: 2, strips: 8, rows: 64, width: 512, steps: 20, runs: 5 };
    while let Some(arg) = args.next()? {
        let target = match arg {
            lexopt::Arg::Long("ranks") => &mut options.ranks,
            lexopt::Arg::Long("strips") => &mut options.strips,
            lexopt::Arg::Long("rows") => &mut options.rows,
            lexopt::Arg::Long("width") => &mut options.width,
            lexopt::Arg::Long("steps") => &mut options.steps,
            lexopt::Arg::Long("runs") => &mut options.runs,
            other => return Err(other.unexpected()),
        };
        *target = args.value()?.parse().map(NonZeroUsize::get)?;
    }
    Ok(options)
}

// ── the tasks ───────────────────────────────────────────────────────────────────────────────────────────────────

/// A warm square in a cold grid.
fn initial(row: usize, column: usize, rows: usize, width: usize) -> f64 {
    let is_inside = |x: usize, n: usize| (n / 4..n / 2).contains(&x);
    if is_inside(row, rows) && is_inside(column, width) { 100.0 + (row * column % 7) as f64 } else { 0.0 }
}

/// The cells of a strip at the beginning, row by row.
fn begin(strip: usize, rows: usize, all_rows: usize, width: usize) -> Vec<f64> {
    let cell = |c: usize| initial(strip * rows + c / width, c % width, all_rows, width);
    (0..rows * width).map(cell).collect()
}

/// What its neighbour above needs of a strip.
fn first_row(cells: &[f64], width: usize) -> Vec<f64> {
    cells[..width].to_vec()
}

/// What its neighbour below needs of a strip.
fn last_row(cells: &[f64], width: usize) -> Vec<f64> {
    cells[cells.len() - width..].to_vec()
}

/// A strip one step later, from it and the rows above and below it; there are none beyond the rim.
fn step(cells: &[f64], above: Option<Vec<f64>>, below: Option<Vec<f64>>, width: usize) -> Vec<f64> {
    let cold = || vec![0.0; width];
    let (above, below) = (above.unwrap_or_else(cold), below.unwrap_or_else(cold));
    let rows: Vec<&[f64]> =
        std::iter::once(&above[..]).chain(cells.chunks(width)).chain(std::iter::once(&below[..])).collect();
    rows.windows(3).flat_map(|near| next_row([near[0], near[1], near[2]])).collect()
}

/// The next row, from three of them. Both ways of computing call this, so that they can agree in every bit.
fn next_row([above, own, below]: [&[f64]; 3]) -> Vec<f64> {
    let at = |i: usize| own.get(i).copied().unwrap_or(0.0);
    let next = |i: usize| {
        let near = above[i] + at(i.wrapping_sub(1)) + at(i + 1) + below[i];
        own[i] + CONDUCTIVITY * (near - 4.0 * own[i])
    };
    (0..own.len()).map(next).collect()
}

/// Where a strip is in the end.
fn place(context: &Context, _: &[f64]) -> u32 {
    context.rank()
}

/// All tasks of one run; the strips in the end, and on which ranks they are.
struct List {
    compiled: Compiled,
    strips: Vec<Handle<Vec<f64>>>,
    places: Vec<Handle<u32>>,
}

fn compile(batch: &Batch, options: Options) -> Result<List, tarragon::Error> {
    let Options { strips, rows, width, steps, .. } = options;
    let mut list: Vec<Box<dyn TaskList>> = Vec::new();
    let first: Vec<_> = (0..strips).map(|s| batch.function(begin, (s, rows, strips * rows, width))).collect();
    let mut strip: Vec<Handle<Vec<f64>>> = first.iter().map(Task::result).collect();
    list.push(Box::new(first));
    for _ in 0..steps {
        let below: Vec<_> =
            (1..strips).map(|s| batch.function(first_row, (strip[s].clone(), width))).collect();
        let above: Vec<_> =
            (1..strips).map(|s| batch.function(last_row, (strip[s - 1].clone(), width))).collect();
        let next = |s: usize| {
            let above = s.checked_sub(1).map(|s| above[s].result());
            let below = below.get(s).map(Task::result);
            batch.function(step, (strip[s].clone(), above, below, width))
        };
        let next: Vec<_> = (0..strips).map(next).collect();
        strip = next.iter().map(Task::result).collect();
        list.push(Box::new((below, above, next)));
    }
    let places: Vec<_> = strip.iter().map(|strip| batch.function(place, (strip.clone(),))).collect();
    let handles = places.iter().map(Task::result).collect();
    list.push(Box::new(places));
    Ok(List { compiled: batch.compile(list)?, strips: strip, places: handles })
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    let Options { ranks, strips, rows, width, steps, runs } = options;
    // Beyond this point on rank 0 only: the others run what is sent to them.
    let batch = Batch::builder().spawn(u32::try_from(ranks)?).build()?;
    let world = batch.world().ok_or("there are no ranks")?;
    println!("{}", **world);
    let before = Instant::now();
    let list = compile(&batch, options)?;
    println!("{} tasks compiled once in {:.1?}", list.compiled.len(), before.elapsed());
    let before = Instant::now();
    (0..runs).try_for_each(|_| list.compiled.run())?;
    let parallel = before.elapsed();

    let mut per_rank = vec![0; world.size() as usize];
    for rank in results(&list.places)? {
        per_rank[rank as usize] += 1;
    }
    println!("strips per rank: {per_rank:?}");
    if per_rank.len() <= strips && per_rank.contains(&0) {
        return Err("a rank has no strip".into());
    }
    if let Some(traffic) = list.compiled.traffic() {
        let edges = 2 * (strips - 1) * steps;
        println!("{} notices for {edges} rows, {:.1} kB", traffic.notices, traffic.notice_bytes as f64 / 1e3);
    }
    let before = Instant::now();
    let wanted = plain_loop(strips * rows, width, steps);
    println!("{runs} runs {parallel:.1?}, plain loop {:.1?} a run", before.elapsed());
    for (s, cells) in results(&list.strips)?.into_iter().enumerate() {
        let wanted = &wanted[s * rows * width..(s + 1) * rows * width];
        if cells.iter().zip(wanted).any(|(found, wanted)| found.to_bits() != wanted.to_bits()) {
            return Err(format!("strip {s} differs from the plain loop's").into());
        }
    }
    println!("every bit of the {} cells is the plain loop's", strips * rows * width);
    Ok(())
}

/// The grid after so many steps.
fn plain_loop(rows: usize, width: usize, steps: usize) -> Vec<f64> {
    let mut cells: Vec<f64> = (0..rows * width).map(|c| initial(c / width, c % width, rows, width)).collect();
    for _ in 0..steps {
        cells = step(&cells, None, None, width);
    }
    cells
}
