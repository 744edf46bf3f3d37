//! A run that was killed goes on: what was done is not done again, and the files are those of an undisturbed run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Builder, Compiled, Context, Error, Exit, Task, Workers, tasks};

fn builder(dir: &Path) -> Builder {
    let builder = Batch::builder().workers(Workers::Threads(2)).assume_cpus(4);
    let builder = match std::env::var("TARRAGON_TEST_RANKS") {
        Ok(ranks) => builder.spawn(ranks.parse().expect("a number")),
        Err(_) => builder,
    };
    builder.journal(dir.join("journal")).resume(true)
}

fn batch(dir: &Path) -> Batch {
    builder(dir).build().expect("a batch")
}

static CALLS: AtomicU32 = AtomicU32::new(0);

fn calls() -> u32 {
    CALLS.swap(0, Ordering::SeqCst)
}

fn write(path: &Path, text: String) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    fs::write(path, text).expect("a file");
}

fn join(from: Vec<PathBuf>, to: &Path) -> usize {
    CALLS.fetch_add(1, Ordering::SeqCst);
    let text: String = from.iter().map(|p| fs::read_to_string(p).expect("a file")).collect();
    fs::write(to, &text).expect("a file");
    text.len()
}

fn double(n: usize) -> usize {
    CALLS.fetch_add(1, Ordering::SeqCst);
    2 * n
}

/// Two writers, a reader that joins them, and a task that takes its result; the second writer's text is `second`.
struct Small {
    compiled: Compiled,
    doubled: Task<usize>,
    shown: Task<Exit>,
}

fn small(batch: &Batch, dir: &Path, second: &str) -> Small {
    let path = |name: &str| dir.join(name);
    let a = batch.function(write, (path("a"), "first ")).writes(path("a"));
    let b = batch.function(write, (path("b"), second)).writes(path("b"));
    let both = batch.function(join, (vec![path("a"), path("b")], path("c")));
    let both = both.reads(path("a")).reads(path("b")).writes(path("c"));
    let doubled = batch.function(double, (both.result(),));
    let shown = batch.process("cat").arg(path("c")).arg("-").stdin_text("\n").reads(path("c"));
    let compiled = batch.compile(tasks![a, b, both, doubled, shown]).expect("a list");
    Small { compiled, doubled, shown }
}

#[test]
fn what_is_done_is_not_done_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |second: &str| {
        let batch = batch(dir.path());
        let small = small(&batch, dir.path(), second);
        small.compiled.run().expect("all succeed");
        let shown = small.shown.stdout().get().expect("its output");
        assert_eq!(shown, format!("first {second}\n"));
        assert_eq!(small.doubled.result().get().expect("a result"), 2 * (6 + second.len()));
        assert_eq!(small.shown.result().get().expect("a result").code, 0);
        let reused = small.compiled.reused();
        drop(small);
        batch.join().expect("all is written");
        (calls(), reused)
    };
    assert_eq!(run("second"), (4, 0));
    assert_eq!(run("second"), (0, 5), "nothing runs");
    assert_eq!(run("other"), (3, 1), "another argument: that task, and what follows from it");
    assert_eq!(run("other"), (0, 5));
    fs::write(dir.path().join("c"), "touched by somebody").expect("a file");
    assert_eq!(run("other"), (2, 2), "an output that somebody changed is made again");
    fs::remove_file(dir.path().join("a")).expect("a file");
    assert_eq!(run("other"), (3, 1), "an output that is gone is made again");
}

#[test]
fn contents_decide_when_asked_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |hash: bool| {
        let batch = builder(dir.path()).content_hash(hash).build().expect("a batch");
        let small = small(&batch, dir.path(), "second");
        small.compiled.run().expect("all succeed");
        drop(small);
        batch.join().expect("all is written");
        calls()
    };
    assert_eq!(run(true), 4);
    let touch = || {
        std::thread::sleep(Duration::from_millis(20));
        let a = dir.path().join("a");
        fs::write(&a, fs::read(&a).expect("a file")).expect("a file");
    };
    touch();
    assert_eq!(run(true), 0, "touched, with the same contents");
    touch();
    assert_eq!(run(false), 3, "by time it has changed");
}

#[test]
fn a_data_that_is_no_file_is_made_again_for_who_needs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |second: &str| {
        let batch = batch(dir.path());
        let grid = batch.datum("grid");
        let fill = batch.function(write, (dir.path().join("log"), "x")).writes(grid);
        let first =
            batch.function(write, (dir.path().join("a"), "a")).reads(grid).writes(dir.path().join("a"));
        let next =
            batch.function(write, (dir.path().join("b"), second)).reads(grid).writes(dir.path().join("b"));
        batch.compile(tasks![fill, first, next]).expect("a list").run().expect("all succeed");
        calls()
    };
    assert_eq!(run("b"), 3);
    assert_eq!(run("b"), 0);
    assert_eq!(run("c"), 3, "what reads the grid again has it filled again, and then it is another grid");
}

#[test]
fn the_journal_of_another_list_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    small(&batch(dir.path()), dir.path(), "x").compiled.run().expect("all succeed");
    // A record torn by a crash.
    let mut file = fs::OpenOptions::new().append(true).open(dir.path().join("journal")).expect("the journal");
    std::io::Write::write_all(&mut file, b"torn").expect("it is written");
    drop(file);
    let other = batch(dir.path());
    let status = other.journal().expect("a journal");
    assert_eq!((status.past, status.dropped_bytes, status.error), (5, 4, None));
    other.flush_journal().expect("it is written");
    let task = other.process("true").arg("unknown");
    let error = task.run().expect_err("another list");
    assert!(matches!(error, Error::OtherJournal { tasks: 5, .. }), "{error}");
    assert!(error.to_string().contains("none of the 5 tasks in the journal"), "{error}");
    drop((task, other));
    let error =
        Batch::builder().journal(dir.path().join("journal")).build().map(drop).expect_err("it exists");
    assert!(error.to_string().contains("resume"), "{error}");
    fs::write(dir.path().join("foreign"), "no journal at all, but long enough for a header").expect("a file");
    let foreign = Batch::builder().journal(dir.path().join("foreign")).resume(true).build().map(drop);
    assert!(foreign.expect_err("no journal").to_string().contains("foreign"));
}

#[test]
fn an_input_that_is_gone_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("f");
    fs::write(&file, "given").expect("a file");
    let run = |text: &str| {
        let batch = batch(dir.path());
        let reads = batch.process("cat").arg(&file).arg(text).reads(&file).name("reads").accept_exit(1);
        let over = batch.function(write, (&file, "overwritten")).writes(&file);
        batch.compile(tasks![reads, over]).expect("a list").run().map_err(|e| e.to_string())
    };
    run("/dev/null").expect("both succeed");
    run("/dev/null").expect("nothing runs");
    let error = run("/dev/zero/x").expect_err("what it read is gone");
    assert!(
        error.contains("task `reads` must run again and reads") && error.contains("overwritten"),
        "{error}"
    );
}

fn chatty(ctx: &Context) -> Vec<u8> {
    let _ = ctx;
    CALLS.fetch_add(1, Ordering::SeqCst);
    vec![1; 100_000]
}

#[test]
fn what_cannot_be_recorded_runs_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = || {
        let batch = batch(dir.path());
        let large = batch.function(chatty, ());
        let closure = batch.closure(|| CALLS.fetch_add(10, Ordering::SeqCst));
        let fine = batch.function(double, (4usize,));
        let failed = batch.process("false");
        batch.compile(tasks![large, closure, fine, failed]).expect("a list").run().expect_err("one fails");
        assert_eq!(large.result().get().expect("a result").len(), 100_000);
        calls()
    };
    assert_eq!(run(), 12);
    assert_eq!(run(), 11);
}

#[test]
fn submitted_tasks_are_resumed_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |n: u64| {
        let batch = batch(dir.path());
        let path = |i: u64| dir.path().join(i.to_string());
        for i in 0..n {
            let text = format!("{i}");
            let mut task = batch.function(write, (path(i), text)).writes(path(i));
            if i > 0 {
                task = task.reads(path(i - 1));
            }
            batch.submit(&task).expect("it is queued");
            if i % 10 == 9 {
                task.wait().expect("it succeeds");
            }
        }
        batch.join().expect("all succeed");
        calls()
    };
    assert_eq!(run(30), 30);
    assert_eq!(run(50), 20);
    fs::write(dir.path().join("24"), "changed").expect("a file");
    assert_eq!(run(50), 26);
}

/// A queue that runs by itself and cannot: the client is told, and does not wait for what will never run.
#[test]
fn a_submission_that_cannot_run_is_told_and_waited_for_by_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    small(&batch(dir.path()), dir.path(), "x").compiled.run().expect("all succeed");
    let other = batch(dir.path());
    let path = dir.path().join("elsewhere");
    let unknown = other.function(write, (&path, "unknown")).writes(&path);
    other.submit(&unknown).expect("it is queued");
    let deadline = Instant::now() + Duration::from_secs(30);
    while unknown.status() == tarragon_engine::Status::Queued {
        assert!(Instant::now() < deadline, "an idle queue is not run");
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = other.fence().expect_err("the list is another one");
    assert!(matches!(error, Error::OtherJournal { .. }), "{error}");
    other.fence().expect("told once");
    assert_eq!(calls(), 4);
    assert!(other.file(&path).expect("a path").read().is_err(), "nobody writes it, and nobody waits");
    let client = other.clone();
    let again = client.function(write, (&path, "unknown, too")).writes(&path);
    client.submit(&again).expect("it is queued");
    client.close().expect_err("the list is another one");
    drop(client);
    other.join().expect("a client that closed with an error is closed");
}

/// Whoever sees that a submission is queued no more is told why it does not run, and does not wait for it.
#[test]
fn what_could_not_run_is_told_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    small(&batch(dir.path()), dir.path(), "x").compiled.run().expect("all succeed");
    let other = batch(dir.path());
    for round in 0..40 {
        let path = dir.path().join(format!("elsewhere{round}"));
        let unknown = other.function(write, (&path, "unknown")).writes(&path);
        other.submit(&unknown).expect("it is queued");
        let deadline = Instant::now() + Duration::from_secs(30);
        while unknown.status() == tarragon_engine::Status::Queued {
            assert!(Instant::now() < deadline, "an idle queue is not run");
        }
        let error = other.fence().expect_err("the list is another one");
        assert!(matches!(error, Error::OtherJournal { .. }), "{error}");
    }
}

// ── killed ──────────────────────────────────────────────────────────────────────────────────────────────────────

const CHAINS: usize = 40;

/// The program that is killed: chains of processes and functions, files made anew, changed in place and appended to.
fn campaign(dir: &Path, steps: usize) -> Result<(usize, usize), Error> {
    let batch = builder(dir).build()?;
    let mut all: Vec<Box<dyn tarragon_engine::TaskList>> = Vec::new();
    // Built-in commands of the shell alone, so that a process costs no more than itself.
    let read = |from: &str| format!("n=; while read -r l; do n=\"$n $l\"; done < {from}");
    for chain in 0..CHAINS {
        let state = dir.join(format!("state.{chain}"));
        all.push(Box::new(batch.function(start, (&state, chain)).writes(&state)));
        for step in 0..steps {
            let id = format!("{chain}.{step}");
            let out = dir.join(format!("out.{id}"));
            let state_name = format!("state.{chain}");
            let script = match step % 3 {
                // Changes the state in place.
                0 => format!("echo {step} >> {state_name}; {}; echo \"$n\" > out.{id}", read(&state_name)),
                // Reads it.
                1 => format!("{}; echo \"$n\" > out.{id}", read(&state_name)),
                // Makes it anew, from itself.
                _ => format!("{}; echo \"${{#n}}$n\" > {state_name}; echo > out.{id}", read(&state_name)),
            };
            let script = format!(": > began.{id}; sleep 0.003; {script}; : > ended.{id}");
            let mut task = batch.process("/bin/sh").arg("-c").arg(script).cwd(dir).reads(&state).writes(&out);
            if step % 3 != 1 {
                task = task.writes(&state);
            }
            all.push(Box::new(task));
        }
    }
    let compiled = batch.compile(&all)?;
    compiled.run()?;
    let counts = (compiled.reused(), compiled.len());
    drop((compiled, all));
    batch.join()?;
    Ok(counts)
}

fn start(path: &Path, chain: usize) {
    fs::write(path, format!("chain {chain}\n")).expect("a file");
}

/// Not a test of its own: what the next one runs as another process and kills.
#[test]
fn child_campaign() {
    let Some(dir) = std::env::var_os("TARRAGON_TEST_CAMPAIGN") else { return };
    let steps = std::env::var("TARRAGON_TEST_STEPS").expect("a number").parse().expect("a number");
    let (reused, all) = campaign(Path::new(&dir), steps).expect("it succeeds");
    fs::write(Path::new(&dir).join("finished"), format!("{reused} of {all}")).expect("a file");
}

fn spawn(dir: &Path, steps: usize, ranks: Option<u32>) -> Child {
    let me = std::env::current_exe().expect("this program");
    Command::new(me)
        .args(["--exact", "child_campaign", "--nocapture"])
        .env("TARRAGON_TEST_CAMPAIGN", dir)
        .env("TARRAGON_TEST_STEPS", steps.to_string())
        .envs(ranks.map(|ranks| ("TARRAGON_TEST_RANKS", ranks.to_string())))
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("said")).expect("a file"))
        .spawn()
        .expect("this program starts again")
}

/// What the campaign leaves: states and outputs, but not its own marks.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("state.") || name.starts_with("out.") {
            files.insert(name, fs::read(entry.path()).expect("a file"));
        }
    }
    files
}

/// How many processes had begun and not ended; forgets them.
fn running(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let marks: Vec<PathBuf> =
        entries.filter(|p| name(p).starts_with("began.") || name(p).starts_with("ended.")).collect();
    let (began, ended): (Vec<_>, Vec<_>) = marks.iter().partition(|p| name(p).starts_with("began."));
    marks.iter().for_each(|mark| fs::remove_file(mark).expect("it was there"));
    began.len().saturating_sub(ended.len())
}

/// Whether a process has begun and not ended at this moment.
fn is_running(dir: &Path) -> bool {
    let names =
        fs::read_dir(dir).expect("a directory").filter_map(|e| e.ok()?.file_name().into_string().ok());
    let (mut began, mut ended) = (0, 0);
    for name in names {
        began += usize::from(name.starts_with("began."));
        ended += usize::from(name.starts_with("ended."));
    }
    began > ended
}

#[test]
fn kill_9_at_any_moment_loses_nothing() {
    let kills = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 200 } else { 40 };
    println!("{}", kill_9(kills, &[]));
}

/// The same with tasks on several ranks, and on others after each kill.
#[test]
fn kill_9_at_any_moment_loses_nothing_on_several_ranks() {
    let kills = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 100 } else { 12 };
    println!("{}", kill_9(kills, &[2, 4, 3]));
}

/// Kills the campaign until so many kills have hit, which runs on these numbers of ranks in turn; says how
/// it was.
fn kill_9(kills_wanted: usize, ranks: &[u32]) -> String {
    let steps = 49;
    let mut ranks = ranks.iter().cycle();
    let undisturbed = tempfile::tempdir().expect("a directory");
    let began_at = Instant::now();
    campaign(undisturbed.path(), steps).expect("it succeeds");
    let took = began_at.elapsed();
    let wanted = files(undisturbed.path());
    assert_eq!(wanted.len(), CHAINS * (steps + 1));
    let (mut kills, mut misses, mut runs, mut random) = (0, 0, 0, 0x2545_F491_4F6C_DD1Du64);
    while kills < kills_wanted {
        runs += 1;
        let dir = tempfile::tempdir().expect("a directory");
        loop {
            let mut child = spawn(dir.path(), steps, ranks.next().copied());
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let moment = Duration::from_micros(30_000 + random % (took.as_micros() as u64 / 3).max(1));
            let deadline = Instant::now() + moment;
            while Instant::now() < deadline && child.try_wait().expect("its state").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let deadline = Instant::now() + Duration::from_secs(1);
            while kills < kills_wanted && !is_running(dir.path()) && Instant::now() < deadline {
                if child.try_wait().expect("its state").is_some() {
                    break;
                }
            }
            let alive = child.try_wait().expect("its state").is_none() && kills < kills_wanted;
            if alive {
                child.kill().expect("it is killed");
            }
            let status = child.wait().expect("its state");
            if alive {
                // The next run waits for its processes; the marks are theirs until then.
                let lock = fs::File::create(dir.path().join("journal.out/lock")).expect("the lock");
                lock.lock().expect("its processes end");
                // Only a kill that hit running processes counts.
                match running(dir.path()) {
                    0 => misses += 1,
                    _ => kills += 1,
                }
                assert!(misses <= kills_wanted, "{misses} kills hit no running process, {kills} did");
                continue;
            }
            let said = || fs::read_to_string(dir.path().join("said")).unwrap_or_default();
            assert!(status.success(), "a resumed run fails: {status}: {}", said());
            break;
        }
        assert_eq!(files(dir.path()), wanted, "after {kills} kills");
    }
    let tasks = CHAINS * (steps + 1);
    format!("{kills} kills that hit running processes, in {runs} runs of {tasks} tasks; {misses} hit none")
}
