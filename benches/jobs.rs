//! What does an MPI job cost beside its launcher, and do jobs that fit side by side run so?
//!
//! Number to beat: a job of 2 ranks costs at most 1.1x `mpirun -n 2`, or `srun -n 2`, of the same program alone; k jobs
//! that fit side by side take at most 1.1x of as many launchers that a shell starts at once.
//!
//! For `srun` this bench runs once more, as a batch script on one node of a Slurm of its own.
//!
//! The program calls `MPI_Init` and `MPI_Finalize` and no more. Launchers have the options that ours has, so neither
//! binds (Open MPI's would bind each job's first rank to the first core), and files for their outputs. Ours has the
//! task declared, compiled, run, and output and exit codes of each rank read back.
#![expect(clippy::print_stderr, reason = "says what is skipped")]

mod measure;

use measure::{Figure, Options, System, compare, time};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tarragon::{Batch, Exit, Task};
use tarragon_testbed::Slurm;
use tempfile::TempDir;

/// Launchers, their compilers, and their options: hosts and no binding.
const KINDS: [(&str, &str, &[&str]); 2] = [
    ("mpirun", "mpicc", &["--map-by", "slot", "--bind-to", "none", "--host"]),
    ("mpirun.mpich", "mpicc.mpich", &["-bind-to", "none", "-hosts"]),
];
/// Slurm's: as ours, it shares what the script's own step has. *Source:* `engine/src/launch/words.rs`.
const SRUN: (&str, &str, &[&str]) = (
    "srun",
    "mpicc",
    &["--overlap", "--cpu-bind=none", "--input=none", "--wait=0", "--nodes=1", "--cpus-per-task=1"],
);
/// Says that this is the batch script of a Slurm.
const IN_SLURM: &str = "TARRAGON_BENCH_JOBS_IN_SLURM";
const RANKS: u32 = 2;

fn main() {
    // Open MPI's launcher asks who is root to say that this is meant.
    let is_root = rustix::process::geteuid().is_root();
    if is_root && std::env::var_os("OMPI_ALLOW_RUN_AS_ROOT").is_none() {
        let allowed = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"].map(|name| (name, "1"));
        let again = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).envs(allowed).status();
        let code = again.ok().and_then(|status| status.code());
        std::process::exit(code.unwrap_or(1));
    }
    let options = Options::parse();
    let is_script = std::env::var_os(IN_SLURM).is_some();
    let kinds = if is_script { &[SRUN][..] } else { &KINDS };
    for (launcher, compiler, words) in kinds.iter().copied() {
        let folder = TempDir::with_prefix("tarragon-jobs-").expect("a directory");
        let Some(program) = compile(compiler, folder.path()) else {
            eprintln!("skipped: {launcher}: {compiler} does not compile MPI programs");
            continue;
        };
        let rounds = if options.quick { 11 } else { 51 };
        if options.wants("one") {
            measure(&options, "one", (launcher, words), &program, 1, rounds);
        }
        if options.wants("side_by_side") {
            measure(&options, "side_by_side", (launcher, words), &program, 4, rounds);
        }
    }
    if !is_script {
        in_slurm();
    }
}

/// Runs this bench as a batch script, and shows what it wrote.
fn in_slurm() {
    let slurm = match Slurm::start() {
        Ok(slurm) => slurm,
        Err(why) => return eprintln!("skipped: srun: {why}"),
    };
    let folder = TempDir::with_prefix("tarragon-jobs-").expect("a directory");
    let (script, output) = (folder.path().join("script"), folder.path().join("output"));
    let program = std::env::current_exe().expect("this program");
    let text = format!("#!/bin/sh\nexec '{}' \"$@\"\n", program.display());
    std::fs::write(&script, text).expect("a file");
    let mut sbatch = slurm.client("sbatch");
    sbatch.args(["--wait", "--nodes=1", "--ntasks=4", "-o"]).arg(&output).arg(&script);
    sbatch.args(std::env::args_os().skip(1)).env(IN_SLURM, "1").env("SLURM_MPI_TYPE", "pmix");
    let ended = sbatch.stdout(Stdio::null()).status();
    let text = std::fs::read(&output).unwrap_or_default();
    std::io::stdout().write_all(&text).expect("somebody reads it");
    assert!(ended.is_ok_and(|status| status.success()), "{}", slurm.logs());
}

fn compile(compiler: &str, folder: &Path) -> Option<PathBuf> {
    let (source, program) = (folder.join("empty.c"), folder.join("empty"));
    std::fs::write(&source, include_str!("far/empty.c")).expect("a file");
    let built = Command::new(compiler).arg("-o").args([&program, &source]).stderr(Stdio::null()).status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

fn measure(
    options: &Options,
    case: &str,
    (launcher, words): (&'static str, &[&str]),
    program: &Path,
    jobs: u32,
    rounds: usize,
) {
    let batch =
        Batch::builder().alone().assume_cpus(RANKS * jobs).launcher(launcher).build().expect("a batch");
    let ours = || {
        time(|| {
            let list: Vec<Task<Exit>> = (0..jobs).map(|_| batch.job(program, RANKS)).collect();
            batch.compile(&list).expect("a list").run().expect("all succeed");
            for job in &list {
                let ranks = job.job_ranks();
                assert!(ranks.len() == RANKS as usize && ranks.iter().all(|rank| rank.code == Some(0)));
                assert_eq!(job.stdout().get().expect("text"), "");
            }
        })
    };
    let folder = TempDir::with_prefix("tarragon-jobs-").expect("a directory");
    let launch = |number: u32| -> Child {
        let file = |end: &str| File::create(folder.path().join(format!("{number}.{end}"))).expect("a file");
        let mut command = Command::new(launcher);
        command.args(words);
        if launcher != SRUN.0 {
            command.arg(format!("localhost:{RANKS}"));
        }
        command.args(["-n", &RANKS.to_string()]).arg(program);
        // As ours: those of one user share a folder otherwise, which one that ends may remove under another.
        command.env("OMPI_MCA_orte_tmpdir_base", folder.path().join(number.to_string()));
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().expect("a launcher")
    };
    let theirs = || -> Duration {
        time(|| {
            let launched: Vec<Child> = (0..jobs).map(launch).collect();
            for mut child in launched {
                assert!(child.wait().expect("it ends").success());
            }
        })
    };
    let figure = Figure {
        bench: "jobs",
        case,
        mode: launcher,
        n: jobs as usize,
        unit: "ns/job",
        operations: jobs as usize,
    };
    let systems = vec![System::new("tarragon", 2, ours), System::new("launcher", 2, theirs)];
    compare(options, figure, rounds, systems);
}
