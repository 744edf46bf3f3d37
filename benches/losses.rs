//! What does the loss of a rank cost those that are left?
//!
//! Three machines of namespaces, a rank on each by `srun`, UCX over tcp between them, a limit of 2 s: without these
//! nothing is measured, and that is said. Rank 2 is lost amid a task, `killed` or `frozen`. Numbers to beat: `noticed`,
//! from the blow until rank 0 knows, at most 1.1 times the limit; `again`, from then until the task that was hit runs
//! on another rank, at most 100 ms; `get_p99`, of gets by rank 0 of keys whose home is rank 1, which is none of the
//! loss's business, from the blow until a second after it is known: at most 3 times that of the seconds before.
//!
//! The gets ask the key's server each time (`get_verified`), of a dictionary with two replicas, one after the other, by
//! one thread; `get_worst` is the longest of them in that time. Each value is checked to bear its key.
//!
//! Where it stands (`--quick`, 2026-11-29, other work beside, 2 cores for three machines): killed, noticed after 8 ms,
//! again 22 ms later, gets 1.85 times their p99 before (1.3 ms), 6 ms at worst; frozen, 1.71 s, 17 ms, 1.31 times,
//! 8 ms.

mod measure;

use measure::{Figure, Options, median, report};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tarragon::Context;
use tarragon::prelude::*;
use tarragon_testbed::{Blow, Fate, Hosts, Slurm};
use tarragon_transport::{Change, Rank};

/// Says to a process that it is a rank, how one is lost, and where figures go.
const ROLE: &str = "TARRAGON_BENCH_LOSSES";
const LIMIT_MS: u64 = 2000;
const KEYS: u64 = 300;
/// How long gets are measured before the blow, and after the loss is known.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(1);
/// The longest that one round may take.
const PATIENCE: Duration = Duration::from_secs(100);

fn main() {
    if let Some(role) = std::env::var_os(ROLE) {
        let role = role.into_string().expect("text");
        let (fate, folder) = role.split_once(' ').expect("two words");
        return rank(if fate == "killed" { Fate::Killed } else { Fate::Asleep }, Path::new(folder));
    }
    let options = Options::parse();
    let rounds = if options.quick { 1 } else { 5 };
    for fate in ["killed", "frozen"] {
        let all: Option<Vec<[f64; 5]>> = (0..rounds).map(|_| round(fate)).collect();
        let Some(all) = all else { return };
        let middle = |which: usize| median(all.iter().map(|one| one[which]).collect());
        let say = |case, unit, value| {
            let figure = Figure { bench: "losses", case, mode: fate, n: 3, unit, operations: 1 };
            report(&options, figure, "tarragon", 3, value);
        };
        say("noticed", "ms", middle(0));
        say("again", "ms", middle(1));
        say("get_p99", "us before", middle(2));
        say("get_p99", "us during", middle(3));
        say("get_p99", "ratio", median(all.iter().map(|one| one[3] / one[2]).collect()));
        say("get_worst", "us during", middle(4));
    }
}

/// One loss in a world of its own; the figures in the order in which `rank` writes them.
fn round(fate: &str) -> Option<[f64; 5]> {
    let hosts = Hosts::for_ranks(3)?;
    let slurm = Slurm::for_ranks(&hosts)?;
    hosts.be_impatient();
    let folder = tempfile::tempdir().expect("a folder");
    let mut srun = slurm.srun(3);
    srun.args(["-n", "3"]).arg(std::env::current_exe().expect("this program has a path"));
    srun.env(ROLE, format!("{fate} {}", folder.path().display()));
    srun.env("TARRAGON_LOSS_LIMIT_MS", LIMIT_MS.to_string()).env("TARRAGON_SURVIVE_LOSSES", "1");
    let mut srun =
        srun.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("srun starts");
    let (began, figures) = (Instant::now(), folder.path().join("figures"));
    while !figures.exists() && began.elapsed() < PATIENCE && matches!(srun.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read_to_string(&figures).unwrap_or_default();
    // A step that has lost a rank may end late.
    let _ = srun.kill();
    let _ = srun.wait();
    let figures: Vec<f64> = text.split_whitespace().map(|it| it.parse().expect("a number")).collect();
    assert_eq!(figures.len(), 5, "the ranks have not come to an end: {text}{}", slurm.logs());
    <[f64; 5]>::try_from(figures).ok()
}

fn now_us() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_micros() as u64
}

fn hit(context: &Context, blow: Blow) {
    blow.strike(context.rank());
}

/// Rank 0 measures; the others serve.
fn rank(fate: Fate, folder: &Path) {
    let batch = Batch::builder().build().expect("a batch");
    let world = batch.world().expect("three ranks");
    let known = Arc::new(AtomicU64::new(0));
    let knows = Arc::clone(&known);
    world.on_change(move |_, change| {
        if let Change::Lost(_) = change {
            knows.store(now_us(), Ordering::SeqCst);
        }
    });
    let kind = DDict::<u64, Vec<u64>>::builder().memory(64 << 20).replicas(2);
    let dict = batch.ddict_with(&kind).expect("a dictionary");
    let home = |key: &u64| dict.key(key).expect("a key").home == Some(Rank(1));
    let keys: Vec<u64> = (0..u64::MAX).filter(home).take(KEYS as usize).collect();
    for key in &keys {
        dict.put(key, vec![*key; 8]).expect("a put");
    }
    let struck = folder.join("struck");
    let hits = batch.function(hit, (Blow { fate, file: struck.clone() },)).at_rank(2);
    let list = batch.compile(tasks![hits]).expect("a list");
    let mut gets: Vec<(u64, u64)> = Vec::with_capacity(1 << 20);
    let (began, mut is_started) = (Instant::now(), false);
    let after = AFTER.as_micros() as u64;
    let is_over = || matches!(known.load(Ordering::SeqCst), at if at > 0 && now_us() > at + after);
    for key in keys.iter().cycle() {
        let (at, time) = (now_us(), Instant::now());
        let value = dict.get_verified(key).expect("it is there").expect("it was put");
        gets.push((at, time.elapsed().as_nanos() as u64));
        assert_eq!(value, [*key; 8]);
        if !is_started && began.elapsed() > BEFORE {
            is_started = true;
            list.start().expect("it starts");
        }
        if is_over() {
            break;
        }
    }
    hits.wait().expect("it runs elsewhere");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path).expect("it was written");
        text.parse::<u64>().expect("milliseconds") * 1000
    };
    let (blow, again, known) =
        (read(struck.clone()), read(struck.with_extension("again")), known.load(Ordering::SeqCst));
    let p99 = |from: u64, to: u64| {
        let mut some: Vec<u64> =
            gets.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, ns)| *ns).collect();
        some.sort_unstable();
        (some[some.len() * 99 / 100] as f64 / 1e3, some[some.len() - 1] as f64 / 1e3)
    };
    let (before, (during, worst)) = (p99(0, blow).0, p99(blow, known + after));
    let ms = |from: u64, to: u64| (to as f64 - from as f64) / 1e3;
    let text = format!("{} {} {before} {during} {worst}", ms(blow, known), ms(known, again));
    std::fs::write(folder.join("new"), text).expect("a file");
    std::fs::rename(folder.join("new"), folder.join("figures")).expect("a file");
}
