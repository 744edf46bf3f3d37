//! How benches measure: systems side by side in every round, medians of paired ratios, one line of JSON per figure.
//!
//! `--quick` is the smallest honest run, `--json` prints JSON lines and nothing else; `--case NAME` picks one case.
#![expect(dead_code, reason = "each bench uses its part")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

pub(crate) mod alloc;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) json: bool,
    pub(crate) case: Option<String>,
}

impl Options {
    /// Reads the command line; unknown flags end the program with a message.
    pub(crate) fn parse() -> Self {
        let mut options = Self { quick: false, json: false, case: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--bench" => {}
                "--case" => options.case = args.next(),
                other => {
                    eprintln!("unknown flag {other}: use --quick, --json or --case NAME");
                    std::process::exit(2);
                }
            }
        }
        options
    }

    pub(crate) fn wants(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|c| c == case)
    }
}

/// One system in a comparison: a name, and one round of its work, timed by itself.
pub(crate) struct System<'a> {
    pub(crate) name: &'static str,
    pub(crate) threads: usize,
    pub(crate) round: Box<dyn FnMut() -> Duration + 'a>,
}

impl<'a> System<'a> {
    /// The system without its number of threads, which is a field of its own.
    fn kind(&self) -> &'static str {
        if self.name.starts_with("tarragon") { "tarragon" } else { self.name }
    }

    pub(crate) fn new(name: &'static str, threads: usize, round: impl FnMut() -> Duration + 'a) -> Self {
        Self { name, threads, round: Box::new(round) }
    }
}

/// Times one call.
pub(crate) fn time<R>(f: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    black_box(f());
    start.elapsed()
}

/// What a comparison is about.
#[derive(Clone, Copy)]
pub(crate) struct Figure<'a> {
    pub(crate) bench: &'a str,
    pub(crate) case: &'a str,
    pub(crate) mode: &'a str,
    pub(crate) n: usize,
    pub(crate) unit: &'a str,
    /// Operations in one round; times are divided by it.
    pub(crate) operations: usize,
}

/// How long threads of one system get to go to sleep before the next is timed.
const PAUSE: Duration = Duration::from_micros(500);

/// The order of `count` systems in a round: each of them after every other in some round, none always after the same.
fn order(count: usize, round: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..count).collect();
    let mut state = round as u64 + 1;
    let mut order = Vec::with_capacity(count);
    while !left.is_empty() {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        order.push(left.swap_remove((state >> 33) as usize % left.len()));
    }
    order
}

/// Runs all systems `rounds` times, interleaved in changing order, after one warm-up; prints a line per system whose
/// name starts with `tarragon`, with its ratio to every other, and a line per peer.
pub(crate) fn compare(
    options: &Options,
    figure: Figure<'_>,
    rounds: usize,
    mut systems: Vec<System<'_>>,
) -> Vec<f64> {
    let count = systems.len();
    let mut times = vec![Vec::with_capacity(rounds); count];
    for round in 0..=rounds {
        for i in order(count, round) {
            std::thread::sleep(PAUSE);
            let elapsed = (systems[i].round)();
            if round > 0 {
                times[i].push(elapsed.as_nanos() as f64 / figure.operations as f64);
            }
        }
    }
    let medians: Vec<f64> = times.iter().map(|t| median(t.clone())).collect();
    for (i, system) in systems.iter().enumerate() {
        let ours = system.name.starts_with("tarragon");
        let ratios: Vec<(String, f64)> = systems
            .iter()
            .enumerate()
            .filter(|(j, _)| ours && *j != i)
            .map(|(j, peer)| {
                let ratios = times[i].iter().zip(&times[j]).map(|(a, b)| a / b).collect();
                (peer.name.to_string(), median(ratios))
            })
            .collect();
        print_line(options, figure, system, &times[i], rounds, &ratios);
    }
    medians
}

fn print_line(
    options: &Options,
    figure: Figure<'_>,
    system: &System<'_>,
    times: &[f64],
    rounds: usize,
    ratios: &[(String, f64)],
) {
    let Figure { bench, case, mode, n, unit, .. } = figure;
    let (mid, least) = (median(times.to_vec()), times.iter().copied().fold(f64::INFINITY, f64::min));
    let most = times.iter().copied().fold(0.0, f64::max);
    if options.json {
        let vs: Vec<String> = ratios.iter().map(|(name, r)| format!("\"{name}\":{r:.6}")).collect();
        let vs = if vs.is_empty() { String::new() } else { format!(",\"vs\":{{{}}}", vs.join(",")) };
        println!(
            "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"mode\":\"{mode}\",\"system\":\"{}\",\"threads\":{},\
             \"n\":{n},\"median\":{mid:.3},\"min\":{least:.3},\"max\":{most:.3},\"unit\":\"{unit}\",\
             \"rounds\":{rounds}{vs}}}",
            system.kind(),
            system.threads
        );
    } else {
        let vs: Vec<String> = ratios.iter().map(|(name, r)| format!("{name} {r:.2}")).collect();
        println!(
            "{case:>12} {mode:>8} n={n:<8} {:<14} {mid:9.2} {unit}  ({least:.2}-{most:.2})  {}",
            system.name,
            vs.join("  ")
        );
    }
}

/// Prints a figure that is a count or a size.
pub(crate) fn report(options: &Options, figure: Figure<'_>, system: &str, threads: usize, value: f64) {
    let Figure { bench, case, mode, n, unit, .. } = figure;
    if options.json {
        println!(
            "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"mode\":\"{mode}\",\"system\":\"{system}\",\
             \"threads\":{threads},\"n\":{n},\"median\":{value:.3},\"min\":{value:.3},\"unit\":\"{unit}\",\
             \"rounds\":1}}"
        );
    } else {
        println!("{case:>12} {mode:>8} n={n:<8} {system:<14} {value:9.2} {unit}");
    }
}

/// The middle of the values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
