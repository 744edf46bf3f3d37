//! Words of real text, split, counted and merged as a tree: `cargo run --release --example word_count`
//!
//! Results go from task to task as arguments, and nothing else orders them: a file is split into pieces, the pieces
//! are counted, and counts are merged two by two. The answer is that of `sort | uniq -c`.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, io};
use tarragon::{Batch, Compiled, Handle, tasks};

const HELP: &str = "
usage: word_count [--all] [DIR]

Counts the words in all files below DIR, without it in Tarragon's own sources. A word is a run of ASCII letters,
lower-cased; files need not be UTF-8. Links, names that start with a dot and folders called `target` are passed over.

  --all  prints every word as `sort | uniq -c` would, and nothing else
";

/// Bytes of a file that one task counts, about.
const PIECE_BYTES: usize = 32 << 10;

/// How often each word occurs.
type Counts = HashMap<String, u64>;

struct Options {
    all: bool,
    dir: PathBuf,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { all: false, dir: PathBuf::new() };
    while let Some(arg) = args.next()? {
        match arg {
            lexopt::Arg::Long("all") => options.all = true,
            lexopt::Arg::Value(dir) if options.dir.as_os_str().is_empty() => options.dir = dir.into(),
            other => return Err(other.unexpected()),
        }
    }
    if options.dir.as_os_str().is_empty() {
        options.dir = env!("CARGO_MANIFEST_DIR").into();
    }
    Ok(options)
}

// ── the tasks ───────────────────────────────────────────────────────────────────────────────────────────────────

/// The file in `pieces` parts, none of which ends inside a word.
fn split(path: &Path, pieces: usize) -> io::Result<Vec<Vec<u8>>> {
    let text = fs::read(path)?;
    let mut start = 0;
    let piece = |i: usize| {
        let about = (text.len() * i / pieces).max(start);
        let rest = text[about..].iter().position(|b| !b.is_ascii_alphabetic());
        let end = rest.map_or(text.len(), |n| about + n);
        let part = text[start..end].to_vec();
        start = end;
        part
    };
    Ok((1..=pieces).map(piece).collect())
}

fn count(pieces: &[Vec<u8>], i: usize) -> Counts {
    let mut counts = Counts::new();
    for word in pieces[i].split(|b| !b.is_ascii_alphabetic()).filter(|w| !w.is_empty()) {
        let word: String = word.iter().map(|b| char::from(b.to_ascii_lowercase())).collect();
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Takes both by value: the engine moves a result into the last task that can want it, so no map is ever copied.
fn merge(a: Counts, b: Counts) -> Counts {
    let (mut large, small) = if a.len() > b.len() { (a, b) } else { (b, a) };
    small.into_iter().for_each(|(word, n)| *large.entry(word).or_default() += n);
    large
}

/// The whole list, compiled, and the handle of its one result.
fn compile(batch: &Batch, files: &[(PathBuf, usize)]) -> Result<(Compiled, Handle<Counts>), tarragon::Error> {
    let (mut splits, mut counts, mut merges) = (Vec::new(), Vec::new(), Vec::new());
    for (path, bytes) in files {
        let pieces = bytes.div_ceil(PIECE_BYTES).max(1);
        let parts = batch.function(split, (path, pieces)).reads(path);
        counts.extend((0..pieces).map(|i| batch.function(count, (parts.result(), i))));
        splits.push(parts);
    }
    let mut level: Vec<Handle<Counts>> = counts.iter().map(|c| c.result()).collect();
    while level.len() > 1 {
        let mut next = Vec::new();
        let mut left = level.into_iter();
        while let Some(a) = left.next() {
            let Some(b) = left.next() else {
                next.push(a);
                break;
            };
            let merged = batch.function(merge, (a, b));
            next.push(merged.result());
            merges.push(merged);
        }
        level = next;
    }
    let total = level.pop().expect("there is a file, so there is a count");
    Ok((batch.compile(tasks![splits, counts, merges])?, total))
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    let mut files = Vec::new();
    find_files(&options.dir, &mut files)?;
    if files.is_empty() {
        return Err(format!("no file below {}", options.dir.display()).into());
    }
    files.sort();

    let batch = Batch::new()?;
    let (compiled, total) = compile(&batch, &files)?;
    let (tasks, edges) = (compiled.len(), compiled.edges());
    let before = Instant::now();
    // Nobody else holds a handle of a count, so counts move from task to task.
    compiled.run()?;
    let parallel = before.elapsed();
    let total: BTreeMap<String, u64> = total.take()?.into_iter().collect();

    let before = Instant::now();
    let wanted = plain_counts(&files)?;
    let plain = before.elapsed();
    if total != wanted {
        return Err("the counts differ from those of the plain loop".into());
    }
    if options.all {
        let mut out = BufWriter::new(io::stdout().lock());
        total.iter().try_for_each(|(word, n)| writeln!(out, "{n:>7} {word}"))?;
        return Ok(out.flush()?);
    }
    let bytes: usize = files.iter().map(|(_, bytes)| bytes).sum();
    println!("{} files, {bytes} bytes below {}", files.len(), options.dir.display());
    println!(
        "{tasks} tasks, {edges} edges: {parallel:.1?} on {} workers, plain loop {plain:.1?}",
        batch.workers()
    );
    println!(
        "{} words, {} of them different, as the plain loop says; most frequent:",
        total.values().sum::<u64>(),
        total.len()
    );
    let mut words: Vec<_> = total.into_iter().collect();
    words.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    words.iter().take(5).for_each(|(word, n)| println!("{n:>7} {word}"));
    Ok(())
}

/// Adds the regular files below `dir` with their lengths.
fn find_files(dir: &Path, files: &mut Vec<(PathBuf, usize)>) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
    for entry in fs::read_dir(dir).map_err(named)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if name.as_encoded_bytes().starts_with(b".") || name == "target" {
            continue;
        }
        if kind.is_dir() {
            find_files(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.path(), entry.metadata()?.len() as usize));
        }
    }
    Ok(())
}

/// The counts by one loop over all bytes.
fn plain_counts(files: &[(PathBuf, usize)]) -> io::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for (path, _) in files {
        let mut word = String::new();
        for byte in fs::read(path)?.into_iter().chain([b'\n']) {
            if byte.is_ascii_alphabetic() {
                word.push(char::from(byte.to_ascii_lowercase()));
            } else if !word.is_empty() {
                *counts.entry(std::mem::take(&mut word)).or_default() += 1;
            }
        }
    }
    Ok(counts)
}
