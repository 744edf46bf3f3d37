//! What is seen of a run on several ranks: times, lanes and endings of all tasks, wherever they ran.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tarragon_engine::{Batch, Compiled, Context, Report, Task, Workers, tasks};
use tarragon_testbed::{Hosts, Launch, role, say};

fn measuring(ranks: u32, threads: usize) -> Batch {
    let batch = Batch::builder().spawn(ranks).workers(Workers::Threads(threads));
    batch.assume_cpus(4).timing(true).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

fn report(compiled: &Compiled) -> Report {
    compiled.report().expect("the batch measures, and a run has ended")
}

fn events(report: &Report) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.json");
    report.write_trace(&path).expect("a trace");
    let trace: Value = serde_json::from_slice(&std::fs::read(&path).expect("the file")).expect("JSON");
    trace["traceEvents"].as_array().expect("events").clone()
}

/// A slice of a trace, in microseconds.
#[derive(Clone, Debug)]
struct Slice {
    rank: u64,
    lane: String,
    began: f64,
    ended: f64,
    args: Value,
}

/// The slices of a trace by name of the task.
fn slices(report: &Report) -> BTreeMap<String, Slice> {
    let events = events(report);
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let lanes = events.iter().filter(|event| event["name"] == "thread_name");
    let lanes: BTreeMap<String, String> =
        lanes.map(|lane| (format!("{} {}", lane["pid"], lane["tid"]), text(&lane["args"]["name"]))).collect();
    let of = |event: &Value| {
        let (began, took) = (event["ts"].as_f64().expect("a time"), event["dur"].as_f64().expect("a time"));
        let slice = Slice {
            rank: event["args"]["rank"].as_u64().expect("a rank"),
            lane: lanes[&format!("{} {}", event["pid"], event["tid"])].clone(),
            began,
            ended: began + took,
            args: event["args"].clone(),
        };
        (text(&event["name"]), slice)
    };
    events.iter().filter(|event| event["ph"] == "X").map(of).collect()
}

fn sleeps(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn fails(context: &Context) -> Result<u64, String> {
    Err(format!("no luck on rank {}", context.rank()))
}

fn third_time(path: &Path) -> Result<usize, std::io::Error> {
    let mut tries = std::fs::read_to_string(path).unwrap_or_default();
    tries.push('x');
    std::fs::write(path, &tries)?;
    sleeps(5);
    if tries.len() < 3 { Err(std::io::Error::other("not yet")) } else { Ok(tries.len()) }
}

/// A chain that goes from rank to rank, and independent tasks of every kind and ending beside it.
fn list(batch: &Batch, ranks: u32, folder: &Path) -> (Vec<Task<u64>>, Compiled) {
    let mut chain: Vec<Task<u64>> = Vec::new();
    for i in 0..6u32 {
        let task = match chain.last() {
            None => batch.function(sleeps, (20u64,)),
            Some(before) => batch.function(sleeps, (before.result(),)),
        };
        chain.push(task.name(format!("chain {i}")).at_rank((i + 1) % ranks));
    }
    let limited = batch.function(sleeps, (20u64,)).timeout(Duration::from_secs(30)).cpus(1);
    let process = batch.process("sh").args(["-c", "sleep 0.02"]).name("process").at_rank(1);
    let again = batch.try_function(third_time, (folder.join("tries"),)).retries(5);
    let failed = batch.try_function(fails, ()).name("failed").at_rank(1);
    let skipped = batch.function(sleeps, (failed.result(),)).name("skipped").at_rank(0);
    let closure = batch.closure(|| sleeps(20)).name("closure");
    let limited = limited.name("limited").at_rank(1);
    let again = again.name("again").at_rank(1);
    let compiled = batch.compile(tasks![chain, limited, process, again, failed, skipped, closure]);
    (chain, compiled.expect("a list"))
}

/// What holds of every run of [`list`]; times of two ranks may differ by so much, in microseconds.
fn check(compiled: &Compiled, ranks: u64, apart: f64) {
    let report = report(compiled);
    let slices = slices(&report);
    let names: BTreeSet<&str> = slices.keys().map(String::as_str).collect();
    let others = ["again", "closure", "failed", "limited", "process"];
    let chain: Vec<String> = (0..6).map(|i| format!("chain {i}")).collect();
    assert_eq!(names, others.into_iter().chain(chain.iter().map(String::as_str)).collect());
    let wall = compiled.summary().expect("it is measured").wall.as_secs_f64() * 1e6;
    for (name, slice) in &slices {
        let least = if ["again", "failed"].contains(&name.as_str()) { 0.0 } else { 20_000.0 };
        assert!(slice.ended - slice.began >= least, "{name}: {slice:?}");
        assert!(slice.ended <= wall + apart, "{name}: {slice:?} of {wall}");
    }
    for (i, pair) in chain.windows(2).enumerate() {
        let (before, after) = (&slices[&pair[0]], &slices[&pair[1]]);
        assert_eq!((before.rank, after.rank), ((i as u64 + 1) % ranks, (i as u64 + 2) % ranks));
        assert!(after.began >= before.ended - apart, "{before:?} {after:?}");
    }
    let lane = |name: &str| slices[name].lane.as_str();
    assert!(lane("chain 0").starts_with("rank 1, worker "), "{}", lane("chain 0"));
    assert!(lane("process").starts_with("rank 1, slot "), "{}", lane("process"));
    assert!(lane("closure").starts_with("rank 0, worker "), "{}", lane("closure"));
    assert_eq!(slices["closure"].rank, 0);
    assert_eq!(slices["again"].args["attempts"], 3);
    assert_eq!(slices["failed"].args["ending"], "failed");
    assert_eq!(slices["failed"].args["detail"], "no luck on rank 1");
    assert!(slices["process"].args["max_rss_bytes"].as_u64() > Some(0), "measured by the kernel");
    let arrows = events(&report).iter().filter(|event| event["ph"] == "s").count();
    assert_eq!(arrows, 5, "the edges of the chain");
    let table = report.to_string();
    assert!(table.contains("12: 10 done, 1 failed, 1 skipped"), "{table}");
    assert!(table.contains("failed on rank 1: no luck on rank 1"), "{table}");
}

#[test]
fn a_report_shows_all_ranks() {
    if role().is_some() {
        let batch = measuring(3, 2);
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, compiled) = list(&batch, 3, folder.path());
        assert!(compiled.report().is_none(), "nothing has run");
        for _ in 0..2 {
            let _ = std::fs::remove_file(folder.path().join("tries"));
            compiled.run().expect_err("one fails");
            // Ranks of one machine have one clock; the trace has nanoseconds, in floating point.
            check(&compiled, 3, 0.01);
            let table = report(&compiled).to_string();
            assert!(table.contains("ranks          3, by one clock"), "{table}");
            let of_rank =
                |line: &str| line.starts_with("1  ").then(|| line.split_whitespace().nth(1)?.parse().ok());
            assert_eq!(table.lines().find_map(of_rank).flatten(), Some(6), "{table}");
            let summary = compiled.summary().expect("it is measured");
            assert_eq!((summary.tasks, summary.workers, summary.ranks), (12, 6, 3));
            assert!(summary.critical_path >= Duration::from_millis(120), "{summary}");
            assert!(summary.wall >= summary.critical_path, "{summary}");
            assert!(summary.work >= summary.critical_path + Duration::from_millis(60), "{summary}");
            let names: Vec<String> = (0..6).map(|i| format!("chain {i}")).collect();
            assert_eq!(summary.critical_tasks, names);
            assert!(summary.to_string().contains(" on 6 workers of 3 ranks"), "{summary}");
        }
        assert_eq!(chain[5].result().get().expect("it succeeded"), 20);
        return;
    }
    alone("a_report_shows_all_ranks", "home");
}

/// Priorities and costs number nodes anew, joins have no task; a rank without tasks has lanes, too.
#[test]
fn a_report_of_any_order_is_by_task() {
    if role().is_some() {
        let batch = measuring(3, 1);
        let (mut first, mut last) = (Vec::new(), Vec::new());
        let all = batch.datum("all");
        for i in 0..12u32 {
            let task = batch.function(sleeps, (1u64,)).name(format!("first {i}")).at_rank(i % 2);
            first.push(task.priority(i as i32).cost(1.0 + i as f32).reads(all));
        }
        let between = batch.function(sleeps, (1u64,)).name("between").at_rank(1).writes(all);
        for i in 0..12u32 {
            last.push(batch.function(sleeps, (1u64,)).name(format!("last {i}")).at_rank(i % 2).reads(all));
        }
        let compiled = batch.compile(tasks![first, between, last]).expect("a list");
        compiled.run().expect("all succeed");
        let slices = slices(&report(&compiled));
        assert_eq!(slices.len(), 25);
        let between = &slices["between"];
        for i in 0..12u64 {
            let (first, last) = (&slices[&format!("first {i}")], &slices[&format!("last {i}")]);
            assert_eq!((first.rank, last.rank), (i % 2, i % 2));
            assert!(first.ended <= between.began + 0.01 && between.ended <= last.began + 0.01, "{slices:?}");
        }
        let table = report(&compiled).to_string();
        assert!(table.lines().any(|line| line.split_whitespace().eq(["2", "0", "1", "0", "%", "0", "ns"])));
        assert_eq!(compiled.summary().expect("it is measured").critical_tasks.len(), 3);
        return;
    }
    alone("a_report_of_any_order_is_by_task", "home");
}

/// The clocks of two machines are days apart; the times of a run are not.
#[test]
fn times_of_two_machines_stand_on_one_line() {
    let test = "times_of_two_machines_stand_on_one_line";
    if role().is_some() {
        let batch = Batch::builder().workers(Workers::Threads(2)).assume_cpus(4).timing(true).build();
        let batch = batch.expect("a batch");
        let folder = tempfile::tempdir().expect("a folder");
        let (_, compiled) = list(&batch, 2, folder.path());
        for _ in 0..3 {
            let _ = std::fs::remove_file(folder.path().join("tries"));
            compiled.run().expect_err("one fails");
            let table = report(&compiled).to_string();
            let line = table.lines().find(|line| line.starts_with("ranks ")).expect("several ranks");
            assert!(line.contains("2, clocks known to "), "{line}");
            let words: Vec<&str> = line.split_whitespace().collect();
            let [.., amount, unit] = words[..] else { panic!("{line}") };
            let amount: f64 = amount.parse().expect("a number");
            let apart = match unit {
                "ns" => amount / 1e3,
                "µs" => amount,
                "ms" => amount * 1e3,
                _ => panic!("far too inexact: {line}"),
            };
            // As it is shown it was rounded.
            check(&compiled, 2, apart * 1.01);
        }
        return say("done");
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["done"], "{}", ended.text);
}
