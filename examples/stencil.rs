//! A heat grid in blocks, compiled once and run many times: `cargo run --release --example stencil`
//!
//! Two grids take turns: each task computes one block of one grid from the same block and its neighbours in the
//! other. A task declares which blocks it reads and writes, so a block may be a step ahead of one far away, and no
//! step has to end everywhere before the next begins. The result equals the plain loop's bit for bit.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Instant;
use tarragon::{Batch, Compiled};

const HELP: &str = "
usage: stencil [--blocks B] [--side S] [--steps N] [--runs R]

Spreads heat over a square grid of B x B blocks with S x S cells each, whose rim stays cold.

  --blocks B  blocks in a row and in a column (8)
  --side S    cells in a row and in a column of a block (128)
  --steps N   time steps of one compiled run, an even number (10)
  --runs R    runs of it (20)
";

/// Part of the difference to its neighbours that a cell takes over in one step.
const CONDUCTIVITY: f64 = 0.2;

#[derive(Clone, Copy)]
struct Options {
    blocks: usize,
    side: usize,
    steps: usize,
    runs: usize,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { blocks: 8, side: 128, steps: 10, runs: 20 };
    while let Some(arg) = args.next()? {
        let target = match arg {
            lexopt::Arg::Long("blocks") => &mut options.blocks,
            lexopt::Arg::Long("side") => &mut options.side,
            lexopt::Arg::Long("steps") => &mut options.steps,
            lexopt::Arg::Long("runs") => &mut options.runs,
            other => return Err(other.unexpected()),
        };
        *target = lexopt::ValueExt::parse::<NonZeroUsize>(&args.value()?)?.get();
    }
    if options.steps % 2 == 1 {
        return Err(format!("--steps {} is odd: the two grids take turns", options.steps).into());
    }
    Ok(options)
}

// ── the tasks ───────────────────────────────────────────────────────────────────────────────────────────────────

/// The cells of one block, row by row. The lock never waits: the engine keeps writers away from everybody else, and
/// a task that finds it taken fails.
type Block = RwLock<Vec<f64>>;

/// Two grids of blocks, row by row.
struct Grids {
    blocks: usize,
    side: usize,
    grids: [Vec<Block>; 2],
    /// The cells of a block beyond the rim.
    cold: Vec<f64>,
}

impl Grids {
    fn new(options: Options) -> Self {
        let Options { blocks, side, .. } = options;
        let first = |b: usize| {
            let (top, left) = (b / blocks * side, b % blocks * side);
            let cells = (0..side * side).map(|c| initial(top + c / side, left + c % side, blocks * side));
            RwLock::new(cells.collect())
        };
        let cold = |_| RwLock::new(vec![0.0; side * side]);
        let n = blocks * blocks;
        let grids = [(0..n).map(first).collect(), (0..n).map(cold).collect()];
        Self { blocks, side, grids, cold: vec![0.0; side * side] }
    }

    /// The blocks above, left of, right of and below a block, where there are any.
    fn neighbours(&self, block: usize) -> [Option<usize>; 4] {
        let (n, row, column) = (self.blocks, block / self.blocks, block % self.blocks);
        [
            (row > 0).then(|| block - n),
            (column > 0).then(|| block - 1),
            (column + 1 < n).then(|| block + 1),
            (row + 1 < n).then(|| block + n),
        ]
    }

    /// Computes one block of the grid `to` from the other grid.
    fn step(&self, to: usize, block: usize) {
        const ALONE: &str = "the engine lets nobody write what a task reads, or touch what it writes";
        let (s, from) = (self.side, &self.grids[1 - to]);
        let old = from[block].try_read().expect(ALONE);
        let mut new = self.grids[to][block].try_write().expect(ALONE);
        let near = self.neighbours(block).map(|b| b.map(|b| from[b].try_read().expect(ALONE)));
        let [above, left, right, below] = near.each_ref().map(|b| b.as_ref().map_or(&*self.cold, |b| b));
        for (r, cells) in new.chunks_mut(s).enumerate() {
            let row = |r: usize| &old[r * s..(r + 1) * s];
            let above = if r > 0 { row(r - 1) } else { &above[(s - 1) * s..] };
            let below = if r + 1 < s { row(r + 1) } else { &below[..s] };
            next_row(cells, [above, row(r), below], [left[r * s + s - 1], right[r * s]]);
        }
    }
}

/// A warm square in a cold grid of `n` x `n` cells.
fn initial(row: usize, column: usize, n: usize) -> f64 {
    let is_inside = |x: usize| (n / 4..n / 2).contains(&x);
    if is_inside(row) && is_inside(column) { 100.0 + (row * column % 7) as f64 } else { 0.0 }
}

/// The next value of a cell. Both ways of computing call this, so that they can agree in every bit.
#[inline(always)]
fn next(own: f64, above: f64, left: f64, right: f64, below: f64) -> f64 {
    own + CONDUCTIVITY * (above + left + right + below - 4.0 * own)
}

/// The next row of a block, from three rows and the cells left and right of the middle one.
fn next_row(new: &mut [f64], [above, own, below]: [&[f64]; 3], [left, right]: [f64; 2]) {
    let near = own.windows(3).zip(above[1..].iter().zip(&below[1..]));
    for (cell, (own, (above, below))) in new[1..].iter_mut().zip(near) {
        *cell = next(own[1], *above, own[0], own[2], *below);
    }
    let last = own.len() - 1;
    for i in [0, last] {
        let left = if i > 0 { own[i - 1] } else { left };
        let right = if i < last { own[i + 1] } else { right };
        new[i] = next(own[i], above[i], left, right, below[i]);
    }
}

/// All tasks of one run. Closures capture the grids they share; what they do to them is declared by key.
fn compile(batch: &Batch, grids: &Arc<Grids>, steps: usize) -> Result<Compiled, tarragon::Error> {
    let data = [batch.keys("even"), batch.keys("odd")];
    let mut list = Vec::new();
    for step in 0..steps {
        let (from, to) = (&data[step % 2], (step + 1) % 2);
        for block in 0..grids.blocks * grids.blocks {
            let captured = Arc::clone(grids);
            let mut task = batch.closure(move || captured.step(to, block)).reads(from.at(block as u64));
            for near in grids.neighbours(block).into_iter().flatten() {
                task = task.reads(from.at(near as u64));
            }
            list.push(task.writes(data[to].at(block as u64)));
        }
    }
    batch.compile(&list)
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    let Options { blocks, side, steps, runs } = options;
    let n = blocks * side;
    let batch = Batch::new()?;
    let grids = Arc::new(Grids::new(options));
    let before = Instant::now();
    let compiled = compile(&batch, &grids, steps)?;
    println!("grid of {n} x {n} cells in {} blocks, {} steps in {runs} runs", blocks * blocks, steps * runs);
    println!(
        "{} tasks and {} edges compiled once in {:.1?}",
        compiled.len(),
        compiled.edges(),
        before.elapsed()
    );

    let before = Instant::now();
    (0..runs).try_for_each(|_| compiled.run())?;
    let parallel = before.elapsed();
    let before = Instant::now();
    let wanted = plain_loop(n, steps * runs);
    println!("blocks {parallel:.1?} on {} workers, plain loop {:.1?}", batch.workers(), before.elapsed());

    for (b, block) in grids.grids[0].iter().enumerate() {
        let block = block.read().map_err(|_| "a task panicked")?;
        let (top, left) = (b / blocks * side, b % blocks * side);
        for (c, cell) in block.iter().enumerate() {
            let (row, column) = (top + c / side, left + c % side);
            if cell.to_bits() != wanted[(row + 1) * (n + 2) + column + 1].to_bits() {
                return Err(format!("cell {row}, {column} differs from the plain loop's").into());
            }
        }
    }
    println!(
        "every bit of the {} cells is the plain loop's; heat left: {:.6}",
        n * n,
        wanted.iter().sum::<f64>()
    );
    Ok(())
}

/// The grid after `steps` steps, with a rim of one cold cell around it.
fn plain_loop(n: usize, steps: usize) -> Vec<f64> {
    let width = n + 2;
    let mut old = vec![0.0; width * width];
    (0..n * n).for_each(|c| old[(c / n + 1) * width + c % n + 1] = initial(c / n, c % n, n));
    let mut new = old.clone();
    for _ in 0..steps {
        for row in 0..n {
            let rows: [&[f64]; 3] = std::array::from_fn(|i| &old[(row + i) * width..(row + i + 1) * width]);
            let cells = &mut new[(row + 1) * width + 1..(row + 1) * width + 1 + n];
            for (i, cell) in (1..).zip(cells) {
                *cell = next(rows[1][i], rows[0][i], rows[1][i - 1], rows[1][i + 1], rows[2][i]);
            }
        }
        std::mem::swap(&mut old, &mut new);
    }
    old
}
