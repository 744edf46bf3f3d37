//! What is seen of a run: its report as table, page and trace.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Compiled, Error, Report, Status, Workers, tasks};

fn measuring(workers: Workers) -> Batch {
    Batch::builder().workers(workers).assume_cpus(2).timing(true).build().expect("a batch")
}

fn report(compiled: &Compiled) -> Report {
    compiled.report().expect("the batch measures, and a run has ended")
}

/// The slices of a trace: name and what else it says.
fn slices(report: &Report) -> Vec<(String, Value)> {
    let events = events(report);
    let slices = events.into_iter().filter(|event| event["ph"] == "X");
    slices.map(|slice| (slice["name"].as_str().expect("a name").to_string(), slice)).collect()
}

fn events(report: &Report) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trace.json");
    report.write_trace(&path).expect("a trace");
    let trace: Value = serde_json::from_slice(&fs::read(&path).expect("the file")).expect("JSON");
    assert_eq!(fs::read_dir(dir.path()).expect("the directory").count(), 1, "nothing else is left there");
    trace["traceEvents"].as_array().expect("events").clone()
}

fn add(a: u64, b: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(2));
    a + b
}

fn fails() -> Result<u64, String> {
    Err("no luck today".to_string())
}

#[test]
fn a_report_shows_every_kind_of_task_and_ending() {
    for workers in [Workers::Serial, Workers::Threads(2)] {
        let batch = measuring(workers);
        let a = batch.function(add, (1u64, 2u64)).name("first");
        let b = batch.closure(|| std::thread::sleep(Duration::from_millis(2))).name("second");
        let c = batch.process("sh").args(["-c", "echo hi; sleep 0.01"]).arg(a.result()).name("third");
        let d = batch.try_function(fails, ()).name("fourth");
        let e = batch.function(add, (a.result(), d.result())).name("fifth");
        let f = batch.process("sh").args(["-c", "echo told >&2; exit 3"]).retries(2).name("sixth");
        let compiled = batch.compile(tasks![a, b, c, d, e, f]).expect("a list");
        assert!(compiled.report().is_none(), "nothing has run");
        compiled.run().expect_err("two tasks fail");
        let report = report(&compiled);
        let slices = slices(&report);
        let of =
            |name: &str| &slices.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} ran")).1;
        assert_eq!(of("first")["cat"], "function");
        assert_eq!(of("second")["cat"], "closure");
        assert_eq!(of("third")["cat"], "process");
        assert_eq!(of("third")["args"]["detail"], "sh -c 'echo hi; sleep 0.01' $(first)");
        assert!(of("third")["args"]["max_rss_bytes"].as_u64() > Some(0), "measured by the kernel");
        assert_eq!(of("fourth")["args"]["ending"], "failed");
        assert_eq!(of("fourth")["args"]["detail"], "no luck today");
        assert_eq!(of("sixth")["args"]["attempts"], 3);
        let detail = of("sixth")["args"]["detail"].as_str().expect("text");
        assert!(detail.starts_with("exit code 3; its last lines:\n    told\nsh -c"), "{detail}");
        assert!(slices.iter().all(|(name, _)| name != "fifth"), "a skipped task has no slice");
        let table = report.to_string();
        assert!(table.contains("3 done, 2 failed, 1 skipped"), "{table}");
        assert!(table.contains("#3 fourth: no luck today"), "{table}");
        assert!(table.contains("#5 sixth, 3 attempts: exit code 3"), "{table}");
        assert!(report.table(40).lines().all(|line| line.chars().count() <= 40));
    }
}

#[test]
fn processes_and_functions_lie_on_lanes_of_their_own() {
    let batch = measuring(Workers::Threads(2));
    let function = batch.function(add, (1u64, 2u64)).name("function");
    let process = batch.process("sleep").arg("0.02").name("process");
    let compiled = batch.compile(tasks![function, process]).expect("a list");
    compiled.run().expect("both succeed");
    let report = report(&compiled);
    let events = events(&report);
    let lane_of = |name: &str| {
        let slice = events.iter().find(|e| e["ph"] == "X" && e["name"] == name).expect("it ran");
        let lane = events.iter().find(|e| e["name"] == "thread_name" && e["tid"] == slice["tid"]);
        lane.expect("its lane has a name")["args"]["name"].as_str().expect("text").to_string()
    };
    assert!(lane_of("function").starts_with("worker "), "{}", lane_of("function"));
    assert_eq!(lane_of("process"), "slot 0");
    let slice = events.iter().find(|e| e["ph"] == "X" && e["name"] == "process").expect("it ran");
    assert!(slice["dur"].as_f64() >= Some(19_000.0), "it slept for 20 ms: {slice}");
}

#[test]
fn edges_are_those_of_the_list_through_joins_too() {
    let batch = measuring(Workers::Threads(2));
    let datum = batch.datum("shared");
    let first = batch.function(add, (0u64, 0u64)).name("w").writes(datum);
    let readers: Vec<_> = (0..6u64).map(|i| batch.function(add, (i, i)).reads(datum)).collect();
    let writers: Vec<_> =
        (0..3).map(|_| batch.function(add, (1u64, 1u64)).reads(datum).writes(datum)).collect();
    let compiled = batch.compile(tasks![first, readers, writers]).expect("a list");
    compiled.run().expect("all succeed");
    let report = report(&compiled);
    let arrows = events(&report).iter().filter(|event| event["ph"] == "s").count();
    // Seven after the first, six from readers to the first of the three writers, and those one after the other.
    assert_eq!(arrows, 15);
    let table = report.to_string();
    assert!(table.contains("over 5 tasks"), "the critical path: {table}");
}

#[test]
fn a_page_needs_nothing_else_and_replaces_an_old_one() {
    let batch = measuring(Workers::Threads(1));
    let task = batch.function(add, (1u64, 2u64)).name("<b>bold</b>");
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect("it succeeds");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run.html");
    fs::write(&path, "old").expect("a file");
    report(&compiled).write_html(&path).expect("a page");
    let page = fs::read_to_string(&path).expect("the page");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "the whole page");
    assert!(!page.contains("<b>bold") && page.contains("&lt;b&gt;bold"), "names are text");
    let rights = |path: &std::path::Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let plain = dir.path().join("plain");
    fs::write(&plain, "").expect("a file");
    assert_eq!(rights(&path), rights(&plain), "as readable as any new file");
}

#[test]
fn a_report_that_cannot_be_written_says_where() {
    let batch = measuring(Workers::Threads(1));
    let task = batch.function(add, (1u64, 2u64));
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect("it succeeds");
    let error = report(&compiled).write_html("/nowhere/at/all.html").expect_err("no such directory");
    assert_eq!(error.to_string(), "cannot write /nowhere/at/all.html");
    assert!(matches!(error, Error::File { .. }));
}

#[test]
fn a_batch_that_does_not_measure_has_no_report() {
    let batch = Batch::builder().workers(Workers::Threads(1)).build().expect("a batch");
    let task = batch.function(add, (1u64, 2u64));
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect("it succeeds");
    assert!(compiled.report().is_none());
}

#[test]
fn a_report_of_a_second_run_waits_for_its_end() {
    let batch = measuring(Workers::Threads(2));
    let gate = Gate::new();
    let task = batch.closure(gate.body()).name("held");
    let compiled = batch.compile(tasks![task]).expect("a list");
    gate.open();
    compiled.run().expect("it succeeds");
    gate.shut();
    compiled.start().expect("it starts again");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| report(&compiled));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!asked.is_finished(), "its tasks are not in place");
        gate.open();
        assert_eq!(slices(&asked.join().expect("a report")).len(), 1);
    });
}

#[test]
fn a_function_that_ignores_its_timeout_has_its_time_in_the_report() {
    let batch = measuring(Workers::Threads(2));
    let gate = Gate::new();
    let task = batch.closure(gate.body()).timeout(Duration::from_millis(30)).name("deaf");
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect_err("it is over its time");
    let slices = slices(&report(&compiled));
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].1["args"]["ending"], "failed");
    assert!(slices[0].1["dur"].as_f64() >= Some(29_000.0), "{}", slices[0].1);
    gate.open();
}

#[test]
fn cancelled_tasks_are_told_from_failed_ones() {
    let batch = measuring(Workers::Threads(2));
    let process = batch.process("sleep").arg(600).name("long");
    let after = batch.process("true").arg(process.stdout()).name("after");
    let compiled = batch.compile(tasks![process, after]).expect("a list");
    compiled.start().expect("it starts");
    wait_for("the process runs", || process.status() == Status::Running);
    compiled.cancel();
    compiled.wait().expect_err("it was cancelled");
    let table = report(&compiled).to_string();
    assert!(!table.contains("failed") && table.contains("cancelled"), "{table}");
}

// ── what tests wait for ─────────────────────────────────────────────────────────────────────────────────────────────

/// A body that waits until it is let go.
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn shut(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn body(&self) -> impl FnMut() + Send + Sync + 'static {
        let is_open = Arc::clone(&self.0);
        move || wait_for("somebody opens the gate", || is_open.load(Ordering::Acquire))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
