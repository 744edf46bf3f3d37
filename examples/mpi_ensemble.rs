//! Many small MPI jobs, and a reduction of what they found: `cargo run --release --example mpi_ensemble`
//!
//! The MPI program is `mpi_ensemble/heat.c`, compiled by `mpicc` as the first task. Each job runs it with another
//! number and writes a file; jobs that fit on the cpus (in an allocation of Slurm on all its nodes) run side by side.
//! One function reads all files. What it must find is known: the rod's heat falls by the same factor with each step.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::ValueExt;
use std::f64::consts::PI;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};
use tarragon::{Batch, tasks};

const HELP: &str = "
usage: mpi_ensemble [--jobs N] [--ranks R] [--cpus C] [--launcher L] [--mpicc CC]

Runs N jobs of R ranks each, which simulate heat in a rod, and checks what they find.

  --jobs N      jobs (8)
  --ranks R     ranks of each (2)
  --cpus C      as if this machine had so many (as many as it grants; in an allocation its nodes are used, too)
  --launcher L  what starts jobs (srun in an allocation of Slurm, else mpirun or mpiexec)
  --mpicc CC    what compiles the program (mpicc)
";

/// Cells of the rod, and steps in time.
const CELLS: u32 = 1000;
const STEPS: u32 = 1000;

struct Options {
    jobs: u32,
    ranks: u32,
    cpus: Option<u32>,
    launcher: Option<PathBuf>,
    mpicc: String,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { jobs: 8, ranks: 2, cpus: None, launcher: None, mpicc: "mpicc".to_string() };
    while let Some(arg) = args.next()? {
        match arg {
            lexopt::Arg::Long("jobs") => options.jobs = args.value()?.parse()?,
            lexopt::Arg::Long("ranks") => options.ranks = args.value()?.parse()?,
            lexopt::Arg::Long("cpus") => options.cpus = Some(args.value()?.parse()?),
            lexopt::Arg::Long("launcher") => options.launcher = Some(args.value()?.into()),
            lexopt::Arg::Long("mpicc") => options.mpicc = args.value()?.string()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

/// The number of a job: how much of a difference is levelled out in one step.
fn number(job: u32, jobs: u32) -> f64 {
    0.5 * f64::from(job + 1) / f64::from(jobs)
}

/// The heat that must be left. *Source:* separation of variables, in its discrete form.
fn left(number: f64) -> f64 {
    let cells = f64::from(CELLS + 1);
    let factor = 1.0 - 4.0 * number * (PI / (2.0 * cells)).sin().powi(2);
    cells / 2.0 * factor.powi(2 * STEPS as i32)
}

/// Reads what all jobs found; the largest error relative to what must be.
fn reduce(files: Vec<PathBuf>) -> io::Result<f64> {
    let jobs = files.len() as u32;
    let mut worst = 0.0f64;
    for (job, file) in (0..).zip(&files) {
        let found: f64 = fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)?;
        worst = worst.max((found / left(number(job, jobs)) - 1.0).abs());
    }
    Ok(worst)
}

fn run(options: Options) -> Outcome {
    let Options { jobs, ranks, cpus, launcher, mpicc } = options;
    let mut builder = Batch::builder().alone().timing(true);
    if let Some(cpus) = cpus {
        builder = builder.assume_cpus(cpus);
    }
    if let Some(launcher) = launcher {
        builder = builder.launcher(launcher);
    }
    let batch = builder.build()?;
    // Here, and not where temporary files are: other nodes have to see it, too.
    let folder = tempfile::Builder::new().prefix("mpi_ensemble-").tempdir_in(".")?;
    let folder = folder.path().canonicalize()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mpi_ensemble/heat.c");
    let heat = folder.join("heat");
    let compile = batch.process(mpicc).arg("-O2").arg("-o").args([&heat, &source]).arg("-lm").writes(&heat);
    let files: Vec<PathBuf> = (0..jobs).map(|job| folder.join(format!("{job}.txt"))).collect();
    let ensemble: Vec<_> = (0..jobs)
        .zip(&files)
        .map(|(job, file)| {
            let heat_job = batch.job(&heat, ranks).args([CELLS, STEPS]).arg(number(job, jobs)).arg(file);
            heat_job.reads(&heat).writes(file).name(format!("heat {job}"))
        })
        .collect();
    let mut worst = batch.function(reduce, (&files,));
    for file in &files {
        worst.read(file)?;
    }
    let compiled = batch.compile(tasks![compile, ensemble, worst])?;
    compiled.run()?;
    let summary = compiled.summary();
    for (number, job) in ensemble.iter().enumerate() {
        let hosts: std::collections::BTreeSet<_> =
            job.job_ranks().into_iter().map(|rank| rank.host).collect();
        let said = job.rank_stdout(ranks - 1).get()?;
        println!("job {number}: on {}; its last rank had {}", Vec::from_iter(hosts).join(", "), said.trim());
    }
    if let Some(summary) = summary {
        println!("{summary}");
    }
    let worst = worst.result().get()?;
    println!("largest error: {worst:.1e}");
    if worst > 1e-9 {
        return Err(format!("the rods should not be off by {worst:.1e}").into());
    }
    Ok(())
}
