//! Every way in which a task can fail, as its user sees it: `cargo run --release --example failures`
//!
//! A failure is data: who asks for a result is told which task failed, how, and what its last words were; what needs
//! that result is skipped, and everything else runs. Each failure here is printed, and compared with what it must be.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

mod command;

use command::Outcome;
use std::fs;
use std::num::ParseFloatError;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tarragon::{Batch, Context, Error, ErrorKind, Exit, Mistake, Status, Task, TaskError, tasks};

const HELP: &str = "
usage: failures

Lets tasks fail in every way there is, and prints what their user is told.
";

/// More than anything here takes, so that what should end by itself does, and what does not is found.
const LONG: Duration = Duration::from_secs(60);

/// A short time that is over before anything else happens.
const SHORT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    command::run(HELP, options, |()| run())
}

fn options(mut args: lexopt::Parser) -> Result<(), lexopt::Error> {
    args.next()?.map_or(Ok(()), |arg| Err(arg.unexpected()))
}

fn run() -> Outcome {
    // Output of a batch with failed tasks is kept where the batch puts it, so that somebody can look at it; here that
    // goes with the directory.
    let dir = tempfile::Builder::new().prefix("tarragon-failures-").tempdir()?;
    let batch = Batch::builder().run_dir(dir.path().join("output")).assume_cpus(2).build()?;
    mistakes(&batch, dir.path())?;
    processes(&batch)?;
    limits(&batch)?;
    cancelled(&batch, dir.path())?;
    functions(&batch)?;
    retries(&batch, dir.path())?;
    ignored_timeout(&batch)
}

/// Prints an error under what the task did, and is content if it is of the kind expected.
fn show(what: &str, error: &TaskError, expected: ErrorKind) -> Outcome {
    println!("{what}\n  {}\n", error.to_string().replace('\n', "\n  "));
    if error.kind() == expected {
        return Ok(());
    }
    Err(format!("{what}: a failure of kind {:?}, not {expected:?}", error.kind()).into())
}

/// What must be so.
fn must(what: &str, is_so: bool) -> Outcome {
    if is_so { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

/// How a task failed, which has to.
fn failure<T>(task: &Task<T>) -> Result<TaskError, &'static str> {
    task.wait().err().ok_or("a task that has to fail succeeds")
}

/// A shell's script, for failures that are most easily made by one.
fn sh(batch: &Batch, script: &str) -> Task<Exit> {
    batch.process("sh").arg("-c").arg(script)
}

// ── before anything runs ────────────────────────────────────────────────────────────────────────────────────────

/// Mistakes in a list are all reported at once, and nothing of the list runs.
fn mistakes(batch: &Batch, dir: &Path) -> Outcome {
    let script = dir.join("no-first-line");
    fs::write(&script, "echo hello\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let missing = batch.process("no-such-program").name("missing program");
    let text = batch.process(&script).name("wrong format");
    let nowhere = batch.process("true").cwd(dir.join("nowhere")).name("missing directory");
    let much = batch.process("true").cpus(3).name("never enough");
    match batch.compile(tasks![missing, text, nowhere, much]) {
        Err(Error::Compile(error)) => {
            println!("a list with mistakes\n  {}\n", error.to_string().replace('\n', "\n  "));
            let programs = error.mistakes.iter().filter(|m| matches!(m, Mistake::BadProgram { .. })).count();
            let never = error.mistakes.iter().filter(|m| matches!(m, Mistake::NeverEnough { .. })).count();
            must("three programs that cannot run, one that never could", (programs, never) == (3, 1))?;
        }
        other => return Err(format!("a list with mistakes: {other:?}").into()),
    }
    must("nothing of it ran", missing.status() == Status::New)
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────

fn processes(batch: &Batch) -> Outcome {
    let code = sh(batch, "echo reading; echo 'line 7: no such key' >&2; exit 3").name("exit code");
    let signal = sh(batch, "kill -SEGV $$").name("signal");
    let late = batch.process("cat").stdin(Path::new("/no/such/file")).name("missing input");
    let needs = batch.process("sort").stdin(code.stdout()).name("sort what it read");
    let needs_that = batch.function(str::len, (needs.stdout(),)).name("count what was sorted");
    let other = sh(batch, "echo unharmed");
    let accepted = sh(batch, "exit 1").accept_exit(1);
    let compiled = batch.compile(tasks![code, signal, late, needs, needs_that, other, accepted])?;
    must("a list with a failure fails", compiled.run().is_err())?;

    let error = failure(&code)?;
    show("a process that exits with a code", &error, ErrorKind::Exited)?;
    must(
        "code and last lines",
        error.exit_code() == Some(3) && error.last_lines() == Some("line 7: no such key"),
    )?;
    must("what it had printed is there", code.stdout().so_far()? == "reading\n")?;
    let error = failure(&signal)?;
    show("a process that a signal ends", &error, ErrorKind::Signalled)?;
    must("its number", error.signal().is_some_and(|(signal, _)| signal == 11))?;
    show("a process whose input is not there when it starts", &failure(&late)?, ErrorKind::CouldNotStart)?;

    let error = failure(&needs_that)?;
    show("a task that needs what another one did not make", &error, ErrorKind::Skipped)?;
    must("the chain", error.chain() == ["count what was sorted", "sort what it read", "exit code"])?;
    must("the cause's code", error.exit_code() == Some(3))?;
    must("others run", other.stdout().get()? == "unharmed\n" && accepted.result().get()?.code == 1)?;
    must("all that failed", compiled.failures().len() == 5)
}

fn limits(batch: &Batch) -> Outcome {
    let slow = sh(batch, "echo step 1; sleep 1000").timeout(SHORT).grace(SHORT).name("slow");
    let large = sh(batch, "x=0123456789abcdef; while :; do x=$x$x; done").memory(64 << 20).timeout(LONG);
    let large = large.name("large");
    must("a list with a failure fails", batch.compile(tasks![slow, large])?.run().is_err())?;
    let error = failure(&slow)?;
    show("a process over its timeout", &error, ErrorKind::OverTime)?;
    must("what it did before", error.last_lines() == Some("step 1"))?;
    show("a process over its memory", &failure(&large)?, ErrorKind::OverMemory)
}

fn cancelled(batch: &Batch, dir: &Path) -> Outcome {
    let begun = dir.join("begun");
    let running = sh(batch, "echo on it; touch begun; sleep 1000").cwd(dir).writes(&begun).name("running");
    let waiting = sh(batch, "cat begun").cwd(dir).reads(&begun).name("waiting");
    let compiled = batch.compile(tasks![running, waiting])?;
    compiled.start()?;
    until("the process runs", || begun.exists())?;
    compiled.cancel();
    must("a cancelled list fails", compiled.wait().is_err())?;
    show("a process that is cancelled while it runs", &failure(&running)?, ErrorKind::Cancelled)?;
    let error = failure(&waiting)?;
    println!("a task that waited for it\n  {error}\n");
    must("it never began", matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Skipped))
}

fn until(what: &str, is_so: impl Fn() -> bool) -> Outcome {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("never: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

// ── functions ───────────────────────────────────────────────────────────────────────────────────────────────────

fn parse(text: &str) -> Result<f64, ParseFloatError> {
    text.parse()
}

fn tenth(values: Vec<f64>) -> f64 {
    values[9]
}

/// A body that asks now and then whether it is still wanted.
fn search(ctx: &Context) -> u64 {
    let deadline = Instant::now() + LONG;
    (0..).take_while(|_| !ctx.cancelled() && Instant::now() < deadline).last().unwrap_or(0)
}

fn functions(batch: &Batch) -> Outcome {
    let wrong = batch.function(parse, ("3,14".to_string(),)).name("parse");
    let short = batch.function(tenth, (vec![1.0, 2.0],)).name("tenth");
    let long = batch.function(search, ()).timeout(SHORT).name("search");
    must("a list with a failure fails", batch.compile(tasks![wrong, short, long])?.run().is_err())?;
    let error = failure(&wrong)?;
    show("a function that returns an error", &error, ErrorKind::Failed)?;
    must("the function's own error", error.downcast_ref::<ParseFloatError>().is_some())?;
    let error = failure(&short)?;
    show("a function that panics", &error, ErrorKind::Panicked)?;
    must("where", error.place().is_some_and(|place| place.contains("failures.rs")))?;
    show("a function over its timeout, that notices", &failure(&long)?, ErrorKind::OverTime)
}

/// One body never looks up. It is reported at once, another thread takes the place of its own, and what it was given
/// stays until it returns.
fn ignored_timeout(batch: &Batch) -> Outcome {
    let go = Arc::new(AtomicBool::new(false));
    let (waits, returned) = (Arc::clone(&go), Arc::new(AtomicBool::new(false)));
    let returns = Arc::clone(&returned);
    let stuck = batch.closure(move || {
        while !waits.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        returns.store(true, Ordering::Release);
    });
    let stuck = stuck.timeout(SHORT).name("stuck");
    let others: Vec<_> = (0..10u32).map(|i| batch.closure(move || i)).collect();
    let compiled = batch.compile(tasks![stuck, others])?;
    must("a list with a failure fails", compiled.run().is_err())?;
    show("a function over its timeout, that does not notice", &failure(&stuck)?, ErrorKind::OverTime)?;
    must("it is inside still", !returned.load(Ordering::Acquire))?;
    must("others ran", others.iter().all(|task| task.status() == Status::Done))?;
    let again = compiled.start();
    println!("and its list, started again\n  {}\n", again.as_ref().err().ok_or("it starts")?);
    must("it cannot run twice at a time", matches!(again, Err(Error::BodyStillRuns)))?;
    go.store(true, Ordering::Release);
    until("the body returns", || returned.load(Ordering::Acquire))
}

// ── another attempt ─────────────────────────────────────────────────────────────────────────────────────────────

fn retries(batch: &Batch, dir: &Path) -> Outcome {
    let script = "echo attempt >> attempts; test $(wc -l < attempts) -ge 3 || { echo busy >&2; exit 75; }";
    let helped = sh(batch, script).cwd(dir).retries(5).back_off(Duration::from_millis(10)).name("helped");
    let hopeless = sh(batch, "echo 'no licence' >&2; exit 1").retries(2).name("hopeless");
    let is_temporary: fn(&TaskError) -> bool = |error| error.exit_code() == Some(75);
    let permanent = sh(batch, "exit 1").retries(5).retry_if(is_temporary).name("permanent");
    let count = AtomicU32::new(0);
    let flaky = batch.try_closure(move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => Err("not yet"),
        attempt => Ok(attempt + 1),
    });
    let flaky = flaky.retries(1);
    must(
        "a list with a failure fails",
        batch.compile(tasks![helped, hopeless, permanent, flaky])?.run().is_err(),
    )?;
    helped.wait()?;
    let attempts = fs::read_to_string(dir.join("attempts"))?.lines().count();
    println!("a process that fails twice, with retries\n  succeeded at attempt {attempts}\n");
    must("three attempts, and two of a function", attempts == 3 && flaky.result().get()? == 2)?;
    let error = failure(&hopeless)?;
    show("a process that fails every time", &error, ErrorKind::Exited)?;
    must("three attempts", error.attempts() == 3)?;
    let error = failure(&permanent)?;
    show("a process whose failure is not worth another attempt", &error, ErrorKind::Exited)?;
    must("one attempt", error.attempts() == 1)
}
