//! What does a process task cost beside the process itself, and how soon does one start?
//!
//! Numbers to beat. `true`: 10^4 times `/bin/true`, as many at a time as there are cpus, at least 0.95x the rate of the
//! spawn floor (so a ratio of times of at most 1.053) and no slower than `xargs -P`; 10^5 in at most 1.1x the time per
//! task of 10^4. `each`: `tarragon each /bin/true --for i=0..10000`, the whole program, at least 0.95x the rate of the
//! floor, at least 3x that of GNU parallel, and no slower than `xargs -P`. `start_latency`: from before `start` of one
//! task on an idle batch to the child's own clock at most 1.2x of `posix_spawn` itself plus one wake-up of a sleeping
//! thread through a pipe.
//!
//! The floor is one thread that calls `posix_spawn` and `wait4`, each child with two new files for its outputs; ours
//! has a batch made, tasks declared, compiled, run, and every exit code and usage read back. `xargs` gives its children
//! no files. Files are in memory, and (mode `disk`) in the temporary directory; none is removed before the end.
//!
//! What was learned. The files decide against `xargs`: ext4 passes over every inode that was deleted within the last
//! seconds, so that a new file takes 290 µs of cpu time after 20 000 were removed, and 4 µs in memory; hence files in
//! memory, and none removed while something is measured. With `width` cpus for as many processes nobody has a cpu of
//! his own, so that what we add is cpu time: of some 50 µs beside a process of 0.9 ms the office's thread takes 14, the
//! supervisor 35 (the bare loop 17), of which most are the ways into sleep and out of it, 4.5 switches per process. The
//! bar against the floor is missed, at 1.08 to 1.11 for 10^4 with 1.03 to 1.05 of the cpu time; one of 50 gaps between
//! two processes of a slot lasts as long as a process, when the supervisor is held in `posix_spawn` of the other slot.
//! Of
//! `/bin/true` itself a third is the dynamic linker's `cpuid`, which a virtual machine traps.
#![expect(clippy::print_stderr, reason = "says what is skipped")]

mod floor;
mod measure;

use floor::{Names, Program};
use measure::{Figure, Options, System, compare, median, report, time};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use tarragon::{Batch, Exit, Task, results};
use tempfile::TempDir;

const TRUE: &str = "/bin/true";

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "each") {
        return tarragon::cli::main();
    }
    bench(&Options::parse());
    ExitCode::SUCCESS
}

fn bench(options: &Options) {
    let dir = folder(in_memory());
    let (n, rounds) = if options.quick { (500, 5) } else { (10_000, 5) };
    if options.wants("true") {
        many(options, "-", dir.path(), n, rounds);
    }
    if options.wants("each") {
        each(options, dir.path(), n, rounds);
    }
    if options.wants("start_latency") {
        start_latency(options, dir.path());
    }
    if options.wants("disk") && !options.quick {
        many(options, "disk", folder(std::env::temp_dir()).path(), n, rounds);
    }
    if options.wants("more") && !options.quick {
        more(options, dir.path(), 10 * n);
    }
}

/// Where files are that live in memory, or where temporary files are.
fn in_memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() }
}

/// A new folder, which goes with all that is in it.
fn folder(parent: PathBuf) -> TempDir {
    tempfile::Builder::new().prefix("tarragon-processes-").tempdir_in(parent).expect("a directory")
}

/// Processes at a time, for everybody.
fn width() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

// ── many processes ──────────────────────────────────────────────────────────────────────────────────────────────

/// Ours: batch, tasks, compile, run, results; the batch goes outside of the time.
fn ours(dir: &Path, n: usize) -> Duration {
    let mut kept = None;
    let elapsed = time(|| {
        let batch = Batch::builder().assume_cpus(width() as u32).run_dir(dir).keep_output(true);
        let batch = batch.build().expect("a batch");
        let tasks: Vec<Task<Exit>> = (0..n).map(|_| batch.process(TRUE)).collect();
        batch.compile(&tasks).expect("the list is right").run().expect("no process fails");
        let exits = results(&tasks).expect("every process ran");
        assert!(exits.iter().all(|exit| exit.code == 0 && exit.usage.max_rss_bytes > 0), "a result is wrong");
        kept = Some((batch, tasks));
    });
    drop(kept);
    elapsed
}

/// A peer that writes its files to a folder of its own.
fn in_folder(dir: &Path, run: impl FnOnce(&Names)) -> Duration {
    let folder = folder(dir.to_path_buf()).keep();
    time(|| run(&Names::new(folder)))
}

fn xargs(n: usize) -> Duration {
    time(|| {
        let mut command = Command::new("xargs");
        command.args(["-P", &width().to_string(), "-n", "1", TRUE]).stdin(Stdio::piped());
        let mut child = command.spawn().expect("xargs is there");
        child.stdin.take().expect("a pipe").write_all("x\n".repeat(n).as_bytes()).expect("xargs reads");
        assert!(child.wait().expect("xargs ends").success(), "xargs failed");
    })
}

fn many(options: &Options, mode: &str, dir: &Path, n: usize, rounds: usize) {
    let width = width();
    let floor = |names: &Names| floor::run(Path::new(TRUE), n, width, names);
    let used: [RefCell<Vec<f64>>; 3] = Default::default();
    let mut systems = vec![
        System::new("tarragon", width, || counted(&used[0], n, || ours(dir, n))),
        System::new("spawn_floor", width, || counted(&used[1], n, || in_folder(dir, floor))),
    ];
    match Command::new("xargs").arg("--version").output() {
        Ok(_) => systems.push(System::new("xargs", width, || counted(&used[2], n, || xargs(n)))),
        Err(error) => eprintln!("skipped: xargs: {error}"),
    }
    let names: Vec<&str> = systems.iter().map(|system| system.name).collect();
    let figure = Figure { bench: "processes", case: "true", mode, n, unit: "ns/task", operations: n };
    compare(options, figure, rounds, systems);
    for (name, used) in names.into_iter().zip(&used) {
        let figure = Figure { case: "true_cpu_time", ..figure };
        report(options, figure, name, width, median(used.take()));
    }
}

/// The command line, and what others have for it. Its files go as it reads them, so they are in memory.
fn each(options: &Options, dir: &Path, n: usize, rounds: usize) {
    let width = width();
    let floor = |names: &Names| floor::run(Path::new(TRUE), n, width, names);
    let ours = || {
        let program = std::env::current_exe().expect("this program");
        let (jobs, rows) = (width.to_string(), format!("i=0..{n}"));
        let mut command = Command::new(program);
        command.args(["each", TRUE, "--for", &rows, "-j", &jobs]).env("TMPDIR", dir);
        succeeds(&mut command)
    };
    let mut systems = vec![
        System::new("tarragon", width, ours),
        System::new("spawn_floor", width, || in_folder(dir, floor)),
    ];
    match Command::new("xargs").arg("--version").output() {
        Ok(_) => systems.push(System::new("xargs", width, || xargs(n))),
        Err(error) => eprintln!("skipped: xargs: {error}"),
    }
    // Ten times slower, so it does a tenth.
    let parallel = || {
        let rows = (1..=n / 10).map(|row| row.to_string()).collect::<Vec<_>>().join("\n");
        let file = dir.join("rows");
        std::fs::write(&file, rows).expect("a file");
        let mut command = Command::new("parallel");
        command.args(["-j", &width.to_string(), "-n", "1", "-a"]).arg(&file).arg(format!("{TRUE} {{}}"));
        succeeds(command.env("TMPDIR", dir).env("PARALLEL_HOME", dir)) * 10
    };
    match Command::new("parallel").arg("--version").output() {
        Ok(said) if said.stdout.starts_with(b"GNU") => {
            systems.push(System::new("gnu_parallel", width, parallel));
        }
        Ok(_) => eprintln!("skipped: gnu_parallel: `parallel` is another program"),
        Err(error) => eprintln!("skipped: gnu_parallel: {error}"),
    }
    let figure = Figure { bench: "processes", case: "each", mode: "-", n, unit: "ns/row", operations: n };
    compare(options, figure, rounds, systems);
}

fn succeeds(command: &mut Command) -> Duration {
    time(|| {
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "it failed: {}", String::from_utf8_lossy(&output.stderr));
    })
}

/// Notes the cpu time of each of `n` processes and what drives them: a machine that does other things meanwhile
/// disturbs it less than the time that passes.
fn counted(used: &RefCell<Vec<f64>>, n: usize, run: impl FnOnce() -> Duration) -> Duration {
    let before = floor::cpu_time();
    let elapsed = run();
    used.borrow_mut().push((floor::cpu_time() - before).as_nanos() as f64 / n as f64);
    elapsed
}

/// Ten times as many against a tenth of them, ten times: what grows with the number.
fn more(options: &Options, dir: &Path, n: usize) {
    let tenth = || ours(dir, n / 10) * 10;
    let systems =
        vec![System::new("tarragon", width(), || ours(dir, n)), System::new("tenth", width(), tenth)];
    let figure = Figure { bench: "processes", case: "true", mode: "-", n, unit: "ns/task", operations: n };
    compare(options, figure, 3, systems);
}

// ── one process ─────────────────────────────────────────────────────────────────────────────────────────────────

/// The clock that the child prints.
fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).expect("a time after the machine's start")
}

/// How long everybody sleeps before something is to start, so that the batch is idle and so is the waking thread.
const IDLE: Duration = Duration::from_millis(3);

/// A small static program, since what the child needs before it reads its clock is no part of the question.
fn child(dir: &Path) -> Option<PathBuf> {
    let (source, program) = (dir.join("child.c"), dir.join("child"));
    std::fs::write(&source, include_str!("floor/child.c")).expect("a file");
    let mut cc = Command::new("cc");
    let built = cc.args(["-O2", "-static", "-o"]).args([&program, &source]).stderr(Stdio::null()).status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

/// What the child printed, as the time since `start`.
fn since(start: Duration, printed: &str) -> Duration {
    let nanoseconds = printed.trim().parse().expect("the child prints its clock");
    Duration::from_nanos(nanoseconds).checked_sub(start).expect("the child runs after its start")
}

fn start_latency(options: &Options, dir: &Path) {
    let Some(child) = child(dir) else { return eprintln!("skipped: start_latency: no C compiler") };
    let batch = Batch::builder().run_dir(dir).build().expect("a batch");
    let ours = || {
        let task = batch.process(&child);
        std::thread::sleep(IDLE);
        let start = now();
        task.start().expect("it starts");
        since(start, &task.stdout().get().expect("it prints"))
    };
    let (program, names) = (Program::new(&child), Names::new(dir.join("latency")));
    let mut count = 0;
    let mut spawn = || {
        let outputs = names.of(count);
        count += 1;
        std::thread::sleep(IDLE);
        let start = now();
        let mut running = vec![program.spawn(&outputs)];
        floor::wait_one(&mut running);
        since(start, &std::fs::read_to_string(&outputs[0]).expect("it prints"))
    };
    let mut sleeper = Sleeper::new();
    let (mut spawns, mut wakes) = (Vec::new(), Vec::new());
    let floor = || {
        let (spawn, wake) = (spawn(), sleeper.wake());
        spawns.push(spawn.as_nanos() as f64);
        wakes.push(wake.as_nanos() as f64);
        spawn + wake
    };
    let rounds = if options.quick { 41 } else { 401 };
    let figure =
        Figure { bench: "processes", case: "start_latency", mode: "-", n: 1, unit: "ns", operations: 1 };
    let systems = vec![System::new("tarragon", 1, ours), System::new("spawn_floor", 1, floor)];
    compare(options, figure, rounds, systems);
    report(options, Figure { mode: "spawn", ..figure }, "spawn_floor", 1, median(spawns));
    report(options, Figure { mode: "wake", ..figure }, "spawn_floor", 1, median(wakes));
}

/// A thread that sleeps in `read` until it is woken, and tells when it was.
struct Sleeper {
    to_it: std::io::PipeWriter,
    from_it: std::io::PipeReader,
}

impl Sleeper {
    /// The thread goes when its pipe is closed.
    fn new() -> Self {
        let (mut wakes, to_it) = std::io::pipe().expect("a pipe");
        let (from_it, mut tells) = std::io::pipe().expect("a pipe");
        std::thread::spawn(move || {
            while let Ok(1) = wakes.read(&mut [0]) {
                let woken = now().as_nanos() as u64;
                tells.write_all(&woken.to_ne_bytes()).expect("somebody listens");
            }
        });
        Self { to_it, from_it }
    }

    /// From before it is woken to when it is awake.
    fn wake(&mut self) -> Duration {
        std::thread::sleep(IDLE);
        let start = now();
        self.to_it.write_all(&[0]).expect("the thread reads");
        let mut woken = [0; 8];
        self.from_it.read_exact(&mut woken).expect("the thread tells");
        Duration::from_nanos(u64::from_ne_bytes(woken)).checked_sub(start).expect("it wakes after that")
    }
}
