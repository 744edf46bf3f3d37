//! Powers of many matrices, through a dictionary: `cargo run --release --example matrix_powers_ddict`
//!
//! The program of `matrix_powers`, with keys of a dictionary in shared memory where that one has files: task (k, i)
//! reads key (k, i - 1), and writes key (k, i). For comparison the same list runs with files first. Every power is
//! compared with a plain loop.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;
mod matrices;

use command::Outcome;
use lexopt::{Arg, ValueExt};
use matrices::{Matrix, SIZE_MAX, base, bound, plain_product, relative_error};
use ndarray::ArrayView2;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tarragon::{Batch, BatchDict, DDict, DictDescriptor, DictError, Stores, Task, TaskList, tasks};

const HELP: &str = "
usage: matrix_powers_ddict [--matrices M] [--size N] [--powers P] [--no-files]

Computes the powers 1 to P of M independent N x N matrices, one task per power, once from file to file and once from
key to key of a dictionary, and checks what is in the dictionary.

  --matrices M  independent matrices, so chains that can run side by side (8)
  --size N      rows and columns, at most 1000 (54)
  --powers P    powers of each matrix (1000)
  --no-files    leaves the files out

Dictionary and files take M x P x N x N x 8 bytes each.
";

type Failed = Box<dyn Error + Send + Sync>;

struct Options {
    matrices: usize,
    size: usize,
    powers: usize,
    files: bool,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { matrices: 8, size: 54, powers: 1000, files: true };
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("matrices") => options.matrices = number(&mut args)?,
            Arg::Long("size") => options.size = number(&mut args)?,
            Arg::Long("powers") => options.powers = number(&mut args)?,
            Arg::Long("no-files") => options.files = false,
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

// ── with a dictionary ───────────────────────────────────────────────────────────────────────────────────────────

/// A key: which matrix, which power.
type Power = (u64, u64);
type Powers = DDict<Power, Vec<f64>>;

fn put_base(base: &Matrix, dict: DictDescriptor, to: Power) -> Result<(), DictError> {
    let dict: Powers = dict.attach()?;
    dict.put_with(&to, base.len(), |numbers| numbers.copy_from_slice(base.as_slice().expect("row by row")))
}

/// Reads the power before in place, and writes the product in place: nothing is copied but the numbers themselves.
fn multiply(base: &Matrix, dict: DictDescriptor, from: Power, to: Power) -> Result<(), Failed> {
    let dict: Powers = dict.attach()?;
    let before = dict.get_ref(&from)?.ok_or("the task before wrote it")?;
    let before = ArrayView2::from_shape(base.dim(), &before)?;
    let product = before.dot(base);
    dict.put_with(&to, product.len(), |numbers| {
        numbers.copy_from_slice(product.as_slice().expect("row by row"));
    })?;
    Ok(())
}

type Lists = (Vec<Task<Matrix>>, Vec<Task<()>>);

fn list(batch: &Batch, options: &Options, dict: &BatchDict<Power, Vec<f64>>) -> Result<Lists, DictError> {
    let (mut bases, mut products) = (Vec::new(), Vec::new());
    for k in 0..options.matrices {
        let matrix = batch.function(base, (k, options.size, options.powers));
        let key = |power: usize| (k as u64, power as u64);
        let first = batch.function(put_base, (matrix.result(), dict.descriptor(), key(1)));
        products.push(first.writes(dict.key(&key(1))?));
        for i in 2..=options.powers {
            let (from, to) = (key(i - 1), key(i));
            let product = batch.function(multiply, (matrix.result(), dict.descriptor(), from, to));
            products.push(product.reads(dict.key(&from)?).writes(dict.key(&to)?));
        }
        bases.push(matrix);
    }
    Ok((bases, products))
}

// ── with files ──────────────────────────────────────────────────────────────────────────────────────────────────

fn write_base(base: &Matrix, to: &Path) -> Result<(), ndarray_npy::WriteNpyError> {
    ndarray_npy::write_npy(to, base)
}

fn multiply_files(base: &Matrix, from: &Path, to: &Path) -> Result<(), Failed> {
    let power: Matrix = ndarray_npy::read_npy(from)?;
    ndarray_npy::write_npy(to, &power.dot(base))?;
    Ok(())
}

fn list_files(batch: &Batch, options: &Options, dir: &Path) -> Lists {
    let file = |k: usize, power: usize| -> PathBuf { dir.join(format!("{k}_{power}.npy")) };
    let (mut bases, mut products) = (Vec::new(), Vec::new());
    for k in 0..options.matrices {
        let matrix = batch.function(base, (k, options.size, options.powers));
        let first = file(k, 1);
        products.push(batch.function(write_base, (matrix.result(), &first)).writes(&first));
        for i in 2..=options.powers {
            let (from, to) = (file(k, i - 1), file(k, i));
            let product = batch.function(multiply_files, (matrix.result(), &from, &to));
            products.push(product.reads(&from).writes(&to));
        }
        bases.push(matrix);
    }
    (bases, products)
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    let Options { matrices, size, powers, .. } = options;
    let bytes = (matrices * powers * size * size * 8) as u64;
    println!("powers 1 to {powers} of {matrices} matrices of size {size}: {:.0} MB", bytes as f64 / 1e6);

    let batch = Batch::new()?;
    let with_files = if options.files { Some(run_files(&batch, &options)?) } else { None };
    // A value takes up to a third more than its bytes, and its key a line.
    let memory = bytes + bytes / 2 + (64 << 20);
    let dict = batch.ddict_with(&DDict::builder().memory(memory))?;
    let before = Instant::now();
    let (bases, products) = list(&batch, &options, &dict)?;
    let with_dict = run_list(&batch, &tasks![bases, products], before)?;
    println!("with a dictionary: {with_dict:.1?}");
    if let Some(with_files) = with_files {
        let ratio = with_files.as_secs_f64() / with_dict.as_secs_f64();
        println!("with files:        {with_files:.1?}, {ratio:.1} times as long");
    }
    let worst = check(&options, &dict)?;
    println!("all {} values are right, relative error at most {worst:.1e}", matrices * powers);
    Ok(())
}

fn run_files(batch: &Batch, options: &Options) -> Result<Duration, Box<dyn Error>> {
    let dir = tempfile::Builder::new().prefix("tarragon-matrix-powers-").tempdir()?;
    let before = Instant::now();
    let (bases, products) = list_files(batch, options, dir.path());
    run_list(batch, &tasks![bases, products], before)
}

fn run_list(batch: &Batch, list: &[&dyn TaskList], before: Instant) -> Result<Duration, Box<dyn Error>> {
    batch.compile(list)?.run()?;
    Ok(before.elapsed())
}

/// Compares every value with repeated multiplication by the plain loop; returns the largest relative error.
fn check(options: &Options, dict: &BatchDict<Power, Vec<f64>>) -> Result<f64, Box<dyn Error>> {
    let mut worst: f64 = 0.0;
    for k in 0..options.matrices {
        let base = base(k, options.size, options.powers);
        let mut wanted = base.clone();
        for i in 1..=options.powers {
            if i > 1 {
                wanted = plain_product(&wanted, &base);
            }
            let key = (k as u64, i as u64);
            let numbers = dict.get(&key)?.ok_or_else(|| format!("{key:?} is missing"))?;
            let found = Matrix::from_shape_vec(base.dim(), numbers)?;
            let error = relative_error(&found, &wanted);
            if error.is_none_or(|e| e > bound(i, options.size)) {
                return Err(format!("{key:?} is wrong: error {error:?}").into());
            }
            worst = error.map_or(worst, |e| e.max(worst));
        }
    }
    Ok(worst)
}
