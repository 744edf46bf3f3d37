//! Word count and powers of matrices over ranks, with a dictionary between them: `cargo run --release --example
//! campaign`, or `mpirun -n 4 target/release/examples/campaign`
//!
//! Two kinds of work in one list. Every task runs on whichever rank the engine chose; what they make lies in a
//! dictionary that all ranks of the machine have attached by its descriptor, and the keys they declare order them. The
//! answers are those of a plain loop.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::ValueExt;
use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, io};
use tarragon::prelude::*;
use tarragon::{BatchDict, Context, DDict, DictDescriptor, DictError, Task, results};

const HELP: &str = "
usage: campaign [--ranks N] [--matrices M] [--size S] [--powers P] [DIR]

Counts the words in all `.rs` files below DIR, without it in Tarragon's own sources, and computes powers 2 to P of M
matrices of S x S numbers.

  --ranks N     ranks that it starts where no launcher has (2)
  --matrices M  matrices (8)
  --size S      rows and columns of a matrix (64)
  --powers P    powers (8)
";

/// Counts of the words of one file.
type Words = BTreeMap<String, u64>;
type Failed = Box<dyn Error + Send + Sync>;

struct Options {
    ranks: usize,
    matrices: usize,
    size: usize,
    powers: usize,
    dir: PathBuf,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let dir = env!("CARGO_MANIFEST_DIR").into();
    let mut options = Options { ranks: 2, matrices: 8, size: 64, powers: 8, dir };
    while let Some(arg) = args.next()? {
        let target = match arg {
            lexopt::Arg::Long("ranks") => &mut options.ranks,
            lexopt::Arg::Long("matrices") => &mut options.matrices,
            lexopt::Arg::Long("size") => &mut options.size,
            lexopt::Arg::Long("powers") => &mut options.powers,
            lexopt::Arg::Value(dir) => {
                options.dir = dir.into();
                continue;
            }
            other => return Err(other.unexpected()),
        };
        *target = args.value()?.parse().map(NonZeroUsize::get)?;
    }
    Ok(options)
}

// ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn words_of(path: &Path) -> io::Result<Words> {
    let mut words = Words::new();
    for word in fs::read(path)?.split(|b| !b.is_ascii_alphabetic()).filter(|w| !w.is_empty()) {
        *words.entry(String::from_utf8_lossy(word).to_ascii_lowercase()).or_default() += 1;
    }
    Ok(words)
}

fn add(all: &mut Words, more: Words) {
    more.into_iter().for_each(|(word, n)| *all.entry(word).or_default() += n);
}

/// Counts one file, and says where.
fn count(context: &Context, path: &Path, dict: DictDescriptor, key: u64) -> Result<u32, Failed> {
    let dict: DDict<u64, Words> = dict.attach()?;
    dict.put(&key, &words_of(path)?)?;
    Ok(context.rank())
}

/// Adds all counts up.
fn total(dict: DictDescriptor, files: u64) -> Result<Words, DictError> {
    let dict: DDict<u64, Words> = dict.attach()?;
    let mut all = Words::new();
    for key in 0..files {
        add(&mut all, dict.get(&key)?.unwrap_or_default());
    }
    Ok(all)
}

// ── matrices ────────────────────────────────────────────────────────────────────────────────────────────────────

/// A matrix with rows that sum up to less than one, so that its powers stay small.
fn matrix(k: u64, size: usize) -> Vec<f64> {
    let cell = |i: usize| ((k + 1) as f64 * 0.37 + i as f64 * 0.11).sin() / size as f64;
    (0..size * size).map(cell).collect()
}

fn product(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut product = vec![0.0; size * size];
    for (row, cells) in product.chunks_mut(size).enumerate() {
        for (inner, factor) in a[row * size..(row + 1) * size].iter().enumerate() {
            let line = &b[inner * size..(inner + 1) * size];
            cells.iter_mut().zip(line).for_each(|(cell, b)| *cell += factor * b);
        }
    }
    product
}

/// The next power of a matrix, from the dictionary into the dictionary; says where.
fn multiply(context: &Context, dict: DictDescriptor, k: u64, power: u64, size: usize) -> Result<u32, Failed> {
    let dict: DDict<(u64, u64), Vec<f64>> = dict.attach()?;
    let base = matrix(k, size);
    let before = match power {
        2 => base.clone(),
        _ => dict.get(&(k, power - 1))?.ok_or("the task before wrote it")?,
    };
    dict.put(&(k, power), product(&before, &base, size))?;
    Ok(context.rank())
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    // Beyond this point on rank 0 only: the others run what is sent to them.
    let batch = Batch::builder().spawn(u32::try_from(options.ranks)?).build()?;
    let world = batch.world().ok_or("there are no ranks")?;
    println!("{}", **world);
    if world.nodes() > 1 {
        return Err("the dictionary is on one machine: start all ranks on one".into());
    }
    let mut files = Vec::new();
    find(&options.dir, &mut files)?;
    if files.is_empty() {
        return Err(format!("there is no `.rs` file below {}", options.dir.display()).into());
    }
    let words: BatchDict<u64, Words> = batch.ddict()?;
    let powers: BatchDict<(u64, u64), Vec<f64>> = batch.ddict()?;
    let before = Instant::now();
    let mut counts = Vec::new();
    for (key, path) in (0..).zip(&files) {
        let task = batch.function(count, (path, words.descriptor(), key));
        counts.push(task.reads(path).writes(words.key(&key)?));
    }
    let mut sum = batch.function(total, (words.descriptor(), files.len() as u64));
    for key in 0..files.len() as u64 {
        sum.read(words.key(&key)?)?;
    }
    let products = multiplications(&batch, &options, &powers)?;
    batch.compile(tasks![counts, sum, products])?.run()?;
    let took = before.elapsed();

    let mut per_rank = vec![0; world.size() as usize];
    for rank in results(counts.iter().chain(&products))? {
        per_rank[rank as usize] += 1;
    }
    println!(
        "{} files and {} products in {took:.1?}, tasks per rank: {per_rank:?}",
        files.len(),
        products.len()
    );
    if per_rank.contains(&0) {
        return Err("a rank ran no task".into());
    }
    check(&options, &files, &sum.result().get()?, &powers)
}

fn multiplications(
    batch: &Batch,
    options: &Options,
    powers: &BatchDict<(u64, u64), Vec<f64>>,
) -> Result<Vec<Task<u32>>, Box<dyn Error>> {
    let mut products = Vec::new();
    for k in 0..options.matrices as u64 {
        for power in 2..=options.powers as u64 {
            let mut task = batch.function(multiply, (powers.descriptor(), k, power, options.size));
            if power > 2 {
                task.read(powers.key(&(k, power - 1))?)?;
            }
            products.push(task.writes(powers.key(&(k, power))?));
        }
    }
    Ok(products)
}

/// Compares with a plain loop.
fn check(
    options: &Options,
    files: &[PathBuf],
    words: &Words,
    powers: &BatchDict<(u64, u64), Vec<f64>>,
) -> Outcome {
    let mut wanted = Words::new();
    for path in files {
        add(&mut wanted, words_of(path)?);
    }
    if *words != wanted {
        return Err("the words are counted wrongly".into());
    }
    for k in 0..options.matrices as u64 {
        let base = matrix(k, options.size);
        let mut wanted = base.clone();
        for power in 2..=options.powers as u64 {
            wanted = product(&wanted, &base, options.size);
            if powers.get(&(k, power))?.as_ref() != Some(&wanted) {
                return Err(format!("power {power} of matrix {k} is wrong").into());
            }
        }
    }
    let all: u64 = words.values().sum();
    println!("{all} words, {} different, and all powers are those of a plain loop", words.len());
    Ok(())
}

/// All `.rs` files below a folder, but for what is hidden or built.
fn find(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if name.as_encoded_bytes().starts_with(b".") || name == "target" {
            continue;
        }
        let kind = fs::symlink_metadata(&path)?;
        if kind.is_dir() {
            find(&path, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}
