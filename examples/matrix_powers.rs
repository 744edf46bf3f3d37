//! Powers of many matrices, from file to file: `cargo run --release --example matrix_powers`
//!
//! Task (k, i) reads power i - 1 of matrix k from a file, multiplies it by the matrix and writes power i to the next
//! file. Each task says which file it reads and which it writes; that alone orders each chain and lets the chains run
//! side by side. Afterwards every file is compared with a plain loop.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;
mod matrices;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use matrices::{Matrix, SIZE_MAX, base, bound, plain_product, relative_error};
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tarragon::{Batch, Task, Workers, tasks};

const HELP: &str = "
usage: matrix_powers [--matrices M] [--size N] [--powers P] [--workers W] [--dir DIR]

Writes the powers 1 to P of M independent N x N matrices to .npy files, one task per power, and checks them.

  --matrices M  independent matrices, so chains that can run side by side (8)
  --size N      rows and columns, at most 1000 (54)
  --powers P    powers of each matrix (1000)
  --workers W   threads (as many as the machine grants)
  --dir DIR     puts the files there and keeps them; without it they go to a temporary directory

The files take M x P x N x N x 8 bytes.
";

struct Options {
    matrices: usize,
    size: usize,
    powers: usize,
    workers: Option<usize>,
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { matrices: 8, size: 54, powers: 1000, workers: None, dir: None };
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("matrices") => options.matrices = number(&mut args)?,
            Arg::Long("size") => options.size = number(&mut args)?,
            Arg::Long("powers") => options.powers = number(&mut args)?,
            Arg::Long("workers") => options.workers = Some(number(&mut args)?),
            Arg::Long("dir") => options.dir = Some(args.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    if options.size > SIZE_MAX {
        return Err(format!("--size {} is more than {SIZE_MAX}", options.size).into());
    }
    Ok(options)
}

fn number(args: &mut lexopt::Parser) -> Result<usize, lexopt::Error> {
    args.value()?.parse().map(NonZeroUsize::get)
}

// ── the tasks ───────────────────────────────────────────────────────────────────────────────────────────────────

fn write_base(base: &Matrix, to: &Path) -> Result<(), ndarray_npy::WriteNpyError> {
    ndarray_npy::write_npy(to, base)
}

fn multiply(base: &Matrix, from: &Path, to: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let power: Matrix = ndarray_npy::read_npy(from)?;
    ndarray_npy::write_npy(to, &power.dot(base))?;
    Ok(())
}

fn file(dir: &Path, k: usize, power: usize) -> PathBuf {
    dir.join(format!("matrix_{k}")).join(format!("power_{power}.npy"))
}

/// The whole list, written as the sequential program would run it.
fn list(batch: &Batch, options: &Options, dir: &Path) -> (Vec<Task<Matrix>>, Vec<Task<()>>) {
    let mut bases = Vec::new();
    let mut powers = Vec::new();
    for k in 0..options.matrices {
        let matrix = batch.function(base, (k, options.size, options.powers)).name(format!("base {k}"));
        let first = file(dir, k, 1);
        powers.push(batch.function(write_base, (matrix.result(), &first)).writes(&first));
        for i in 2..=options.powers {
            let (from, to) = (file(dir, k, i - 1), file(dir, k, i));
            let product = batch.function(multiply, (matrix.result(), &from, &to)).reads(&from).writes(&to);
            powers.push(product.name(format!("power {i} of matrix {k}")));
        }
        bases.push(matrix);
    }
    (bases, powers)
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    let mut builder = Batch::builder().timing(true);
    if let Some(workers) = options.workers {
        builder = builder.workers(Workers::Threads(workers));
    }
    let batch = builder.build()?;
    // A temporary directory goes when this function returns, whatever it returns. Other ranks of a launcher never come
    // here.
    let temporary = match options.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("tarragon-matrix-powers-").tempdir()?),
    };
    let dir = temporary.as_ref().map_or(options.dir.as_deref(), |t| Some(t.path())).expect("one of the two");
    (0..options.matrices).try_for_each(|k| {
        let folder = file(dir, k, 1);
        std::fs::create_dir_all(folder.parent().expect("a file is in a folder"))
    })?;
    let Options { matrices, size, powers, .. } = options;
    let megabytes = (matrices * powers * size * size * 8) as f64 / 1e6;
    println!(
        "powers 1 to {powers} of {matrices} matrices of size {size}: {megabytes:.0} MB in {}",
        dir.display()
    );

    let before = Instant::now();
    let (bases, products) = list(&batch, &options, dir);
    let compiled = batch.compile(tasks![bases, products])?;
    println!(
        "{} tasks and {} edges listed and compiled in {:.1?}",
        compiled.len(),
        compiled.edges(),
        before.elapsed()
    );
    compiled.run()?;
    println!("{}", compiled.summary().expect("the batch measures, and has run"));

    let before = Instant::now();
    let worst = check(&options, dir)?;
    println!(
        "all {} files are right, relative error at most {worst:.1e}; checked in {:.1?}",
        matrices * powers,
        before.elapsed()
    );
    Ok(())
}

/// Compares every file with repeated multiplication by the plain loop; returns the largest relative error.
fn check(options: &Options, dir: &Path) -> Result<f64, Box<dyn Error>> {
    let mut worst = 0.0;
    for k in 0..options.matrices {
        let base = base(k, options.size, options.powers);
        let mut wanted = base.clone();
        for i in 1..=options.powers {
            if i > 1 {
                wanted = plain_product(&wanted, &base);
            }
            let path = file(dir, k, i);
            let found: Matrix = ndarray_npy::read_npy(&path)?;
            let error = relative_error(&found, &wanted);
            let bound = bound(i, options.size);
            if error.is_none_or(|e| e > bound) {
                return Err(format!("{} is wrong: error {error:?}, bound {bound:.1e}", path.display()).into());
            }
            worst = error.map_or(worst, |e| e.max(worst));
        }
    }
    Ok(worst)
}
