//! What a `tracing` subscriber is told of a batch, and that a healthy run tells it next to nothing. One test, since a
//! program has one subscriber.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Context, Status, Workers, tasks};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Events as `LEVEL message field=value`.
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn told() -> MutexGuard<'static, Vec<String>> {
    TOLD.lock().expect("nobody panics with it")
}

struct Collect;

struct Line(String, String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.0 = format!("{value:?}"),
            "wall_ms" => {}
            name => write!(self.1, " {name}={value:?}").expect("text"),
        }
    }
}

impl Subscriber for Collect {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tarragon"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new(), String::new());
        event.record(&mut line);
        told().push(format!("{} {}{}", event.metadata().level(), line.0, line.1));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Waits until an event is told that begins like this.
fn wait_for(start: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !told().iter().any(|line| line.starts_with(start)) {
        assert!(Instant::now() < deadline, "`{start}` in {:#?}", told());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn fails() -> Result<u8, String> {
    Err("no luck".to_string())
}

fn deaf(ctx: &Context) {
    while !ctx.cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn what_is_rare_is_told_and_success_is_not() {
    tracing::subscriber::set_global_default(Collect).expect("the only one");
    let output = tempfile::tempdir().expect("a directory");
    let builder = Batch::builder().workers(Workers::Threads(2)).assume_cpus(2).run_dir(output.path());
    let batch = builder.build().expect("a batch");
    wait_for("DEBUG batch opened workers=2 cpus=2");

    told().clear();
    let healthy: Vec<_> = (0..1000u64).map(|i| batch.function(|i: u64| i, (i,))).collect();
    batch.compile(&healthy).expect("a list").run().expect("all succeed");
    assert_eq!(*told(), ["DEBUG run started tasks=1000", "DEBUG run ended tasks=1000 failed=0"]);

    told().clear();
    let bad = batch.try_function(fails, ()).name("bad").retries(1);
    let after = batch.function(|_: u8| (), (bad.result(),)).name("after");
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("program");
    std::os::unix::fs::symlink("/bin/true", &program).expect("a link");
    let missing = batch.process(&program).name("missing");
    let compiled = batch.compile(tasks![bad, after, missing]).expect("a list");
    // A program that is missing when the list is compiled is a mistake.
    std::fs::remove_file(&program).expect("it is there");
    compiled.run().expect_err("it fails");
    wait_for("DEBUG run ended tasks=3 failed=3");
    wait_for(r#"WARN task failed and is tried again index=0 task="bad" attempt=1 delay_ms=0"#);
    wait_for(r#"WARN task failed index=0 task="bad" attempts=2 cause=no luck"#);
    wait_for(r#"DEBUG task skipped index=1 task="after""#);
    wait_for("DEBUG supervisor started");
    let missing_program = format!("could not start: the program {}: No such file", program.display());
    wait_for(&format!("WARN process could not start why={missing_program}"));

    told().clear();
    let slow = batch.function(deaf, ()).name("slow").timeout(Duration::from_millis(20));
    slow.run().expect_err("it is over its time");
    wait_for(r#"WARN task is over its timeout index=0 task="slow" attempt=1"#);
    wait_for(r#"WARN body ignores its timeout and is given up index=0 task="slow""#);

    told().clear();
    let long = batch.process("sleep").arg(600).name("long");
    long.start().expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while long.status() != Status::Running {
        assert!(Instant::now() < deadline, "it never began");
        std::thread::sleep(Duration::from_millis(1));
    }
    long.cancel();
    long.wait().expect_err("it was cancelled");
    wait_for(r#"DEBUG task cancelled index=0 task="long""#);

    told().clear();
    batch.submit(batch.function(|| 1u8, ())).expect("it is queued");
    batch.fence().expect("it succeeds");
    wait_for("TRACE queue compiled and started tasks=1");
    drop((healthy, bad, after, missing, compiled, slow, long, batch));
    wait_for("DEBUG batch closed");
}
