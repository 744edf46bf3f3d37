//! Functions that several ranks run at once, among others: `cargo run --release --example gang`, or
//! `mpirun -n 4 target/release/examples/gang --members 2`
//!
//! Each task solves a system of equations by conjugate gradients. Its unknowns are cut into blocks, one for each member
//! of the task's gang; members send their neighbours the values at the edges of their blocks, and add up scalar
//! products of all. Gangs that fit side by side run side by side; the engine knows the systems as tasks with results.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use lexopt::ValueExt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::ExitCode;
use tarragon::{Batch, Context, Gang, GangError, Task, results, tasks};

const HELP: &str = "
usage: gang [--ranks N] [--members M] [--systems S] [--unknowns U]

Solves S systems of U equations, each on M ranks at once.

  --ranks N     ranks that it starts where no launcher has (2)
  --members M   ranks of one gang (2)
  --systems S   systems (6)
  --unknowns U  equations of one (2000)
";

/// What is left of the right side when a system counts as solved.
const RESIDUAL: f64 = 1e-10;
/// Rounds after which it does not converge any more.
const ROUNDS_MAX: usize = 10_000;

#[derive(Clone, Copy)]
struct Options {
    ranks: usize,
    members: usize,
    systems: usize,
    unknowns: usize,
}

fn main() -> ExitCode {
    command::run(HELP, options, run)
}

fn options(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options { ranks: 2, members: 2, systems: 6, unknowns: 2000 };
    while let Some(arg) = args.next()? {
        let target = match arg {
            lexopt::Arg::Long("ranks") => &mut options.ranks,
            lexopt::Arg::Long("members") => &mut options.members,
            lexopt::Arg::Long("systems") => &mut options.systems,
            lexopt::Arg::Long("unknowns") => &mut options.unknowns,
            other => return Err(other.unexpected()),
        };
        *target = args.value()?.parse().map(NonZeroUsize::get)?;
    }
    Ok(options)
}

// ── the tasks ───────────────────────────────────────────────────────────────────────────────────────────────────

/// The right side of every system.
fn right_side(row: usize) -> f64 {
    (row % 17) as f64 - 8.0
}

/// A system is `(2 + shift) x[i] - x[i - 1] - x[i + 1] = right_side(i)`: its solution, and the ranks that found it.
fn solve(ctx: &Context, unknowns: usize, shift: f64) -> Result<(Vec<f64>, Vec<u32>), GangError> {
    let gang = ctx.gang();
    let rows = block(unknowns, gang.member() as usize, gang.size() as usize);
    let mut x = vec![0.0; rows.len()];
    let mut r: Vec<f64> = rows.map(right_side).collect();
    let mut p = r.clone();
    let mut rr = dot(gang, &r, &r)?;
    let mut rounds = 0;
    while rr.sqrt() > RESIDUAL && rounds < ROUNDS_MAX {
        let ap = product(gang, &p, shift)?;
        let alpha = rr / dot(gang, &p, &ap)?;
        (0..x.len()).for_each(|i| x[i] += alpha * p[i]);
        (0..x.len()).for_each(|i| r[i] -= alpha * ap[i]);
        let next = dot(gang, &r, &r)?;
        (0..x.len()).for_each(|i| p[i] = r[i] + next / rr * p[i]);
        (rr, rounds) = (next, rounds + 1);
    }
    Ok((gang.all_gather(x)?.concat(), gang.all_gather(ctx.rank())?))
}

/// The rows of one member of several.
fn block(rows: usize, member: usize, members: usize) -> Range<usize> {
    rows * member / members..rows * (member + 1) / members
}

fn dot(gang: &Gang, a: &[f64], b: &[f64]) -> Result<f64, GangError> {
    gang.all_reduce(a.iter().zip(b).map(|(a, b)| a * b).sum(), |a, b| a + b)
}

/// The matrix times a vector, of which each member has its block.
fn product(gang: &Gang, p: &[f64], shift: f64) -> Result<Vec<f64>, GangError> {
    let (me, last) = (gang.member(), gang.size() - 1);
    let edge = |value: Option<&f64>| value.copied().unwrap_or_default();
    if me > 0 {
        gang.send(me - 1, 0, &edge(p.first()))?;
    }
    if me < last {
        gang.send(me + 1, 1, &edge(p.last()))?;
    }
    let above = if me > 0 { gang.receive(me - 1, 1)? } else { 0.0 };
    let below = if me < last { gang.receive(me + 1, 0)? } else { 0.0 };
    let at = |i: usize| p.get(i).copied().unwrap_or(below);
    let before = |i: usize| i.checked_sub(1).map_or(above, at);
    Ok((0..p.len()).map(|i| (2.0 + shift) * p[i] - before(i) - at(i + 1)).collect())
}

/// How far a solution is from that of Gauss's elimination at most.
fn distance(solved: &(Vec<f64>, Vec<u32>), shift: f64) -> f64 {
    let (n, diagonal) = (solved.0.len(), 2.0 + shift);
    let (mut upper, mut x) = (vec![0.0; n], vec![0.0; n]);
    for i in 0..n {
        let (u, y) = i.checked_sub(1).map_or((0.0, 0.0), |before| (upper[before], x[before]));
        upper[i] = -1.0 / (diagonal + u);
        x[i] = (right_side(i) + y) / (diagonal + u);
    }
    for i in (1..n).rev() {
        x[i - 1] -= upper[i - 1] * x[i];
    }
    x.iter().zip(&solved.0).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

// ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────

fn run(options: Options) -> Outcome {
    let Options { ranks, members, systems, unknowns } = options;
    // Beyond this point on rank 0 only: the others run what is sent to them.
    let batch = Batch::builder().spawn(u32::try_from(ranks)?).build()?;
    let world = batch.world().ok_or("there are no ranks")?;
    println!("{}", **world);
    let shift = |system: usize| 0.05 * (system + 1) as f64;
    let members = u32::try_from(members)?;
    let solved: Vec<_> =
        (0..systems).map(|s| batch.try_function(solve, (unknowns, shift(s))).ranks(members)).collect();
    let distances: Vec<Task<f64>> =
        (0..).zip(&solved).map(|(s, solved)| batch.function(distance, (solved.result(), shift(s)))).collect();
    batch.compile(tasks![solved, distances])?.run()?;

    let mut per_rank = vec![0; world.size() as usize];
    for (_, ranks) in results(&solved)? {
        ranks.into_iter().for_each(|rank| per_rank[rank as usize] += 1);
    }
    println!("bodies per rank: {per_rank:?}");
    if per_rank.len() <= systems * members as usize && per_rank.contains(&0) {
        return Err("a rank ran nothing".into());
    }
    let worst = results(&distances)?.into_iter().fold(0.0, f64::max);
    if worst > 1e-8 {
        return Err(format!("a solution is off by {worst:e}").into());
    }
    println!("{systems} systems of {unknowns} unknowns, {members} ranks each: right to {worst:.0e}");
    Ok(())
}
