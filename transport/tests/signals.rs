//! Programs that a signal ends: they die of it, and leave the segments of which they were the last owner first.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at what it did not expect, and talks to its parent"
)]

mod child;

use child::{Child, role};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tarragon_transport::segment::{Segment, SegmentName, Spec};

const SPEC: Spec = Spec { kind: "signal", layout: 1, control_bytes: 64, heap_bytes: 1 << 20 };
const ALL: [Signal; 3] = [Signal::HUP, Signal::INT, Signal::TERM];
/// How long a program that ends tries to leave; what `leave` calls `LEAVING_MAX`.
const LEAVING_MAX: Duration = Duration::from_secs(1);

fn text(name: &SegmentName) -> String {
    format!("{}/{}", name.file, name.uid)
}

fn open(text: &str) -> Arc<Segment> {
    let (file, uid) = text.trim().split_once('/').unwrap();
    let name = SegmentName { file: file.to_owned(), uid: uid.parse().unwrap() };
    Segment::open(&name, SPEC.kind, SPEC.layout).unwrap()
}

/// In a child: says its pid, and waits for what comes.
fn wait_for_the_end() -> ! {
    child::say(&std::process::id().to_string());
    loop {
        child::hear();
    }
}

fn hear_pid(child: &mut Child) -> Pid {
    Pid::from_raw(child.hear().parse().unwrap()).unwrap()
}

fn send(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}

fn death(child: &mut Child) -> Option<i32> {
    child.wait().signal()
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn each_signal_is_died_of_and_leaves_nothing() {
    let test = "each_signal_is_died_of_and_leaves_nothing";
    if let Some(others) = role(test) {
        let _opened = open(&others);
        let made: Vec<_> = (0..3).map(|_| Segment::create(&SPEC).unwrap()).collect();
        made.iter().for_each(|segment| child::say(segment.path().to_str().unwrap()));
        wait_for_the_end();
    }
    for signal in ALL {
        let shared = Segment::create(&SPEC).unwrap();
        let mut other = Child::start(test, &text(shared.name()));
        let paths = [(); 3].map(|()| PathBuf::from(other.hear()));
        let pid = hear_pid(&mut other);
        assert!(paths.iter().all(|path| path.exists()));
        send(pid, signal);
        assert_eq!(death(&mut other), Some(signal.as_raw()));
        let left: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
        assert!(left.is_empty(), "{signal:?} left {left:?}");
        // The other owner's is untouched, and goes with that.
        assert!(shared.alloc(&shared.agent().unwrap(), 1 << 16).is_ok());
        let path = shared.path();
        assert!(path.exists(), "{signal:?} removed what is used");
        drop(shared);
        assert!(!path.exists());
    }
}

#[test]
fn owners_that_end_at_once_leave_nothing() {
    let test = "owners_that_end_at_once_leave_nothing";
    if let Some(shared) = role(test) {
        let _opened = open(&shared);
        wait_for_the_end();
    }
    for round in 0..20 {
        let shared = Segment::create(&SPEC).unwrap();
        let name = text(shared.name());
        let mut owners = [(); 4].map(|()| Child::start(test, &name));
        let pids = owners.each_mut().map(hear_pid);
        let path = shared.path();
        drop(shared);
        assert!(path.exists());
        // As a terminal's Ctrl-C does.
        pids.into_iter().for_each(|pid| send(pid, Signal::INT));
        assert!(owners.iter_mut().all(|owner| death(owner) == Some(2)));
        assert!(!path.exists(), "round {round}: each left it to the others");
    }
}

#[test]
fn two_signals_in_a_row_are_one() {
    let test = "two_signals_in_a_row_are_one";
    if role(test).is_some() {
        let _made: Vec<_> = (0..100).map(|_| Segment::create(&SPEC).unwrap()).collect();
        wait_for_the_end();
    }
    for round in 0..5 {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut other = Child::start_in(test, "go", Some(folder.path()));
        let pid = hear_pid(&mut other);
        // As `timeout` does, and a terminal that closes.
        [Signal::TERM, Signal::HUP, Signal::TERM].into_iter().for_each(|signal| send(pid, signal));
        let died = death(&mut other);
        assert!([Some(15), Some(1)].contains(&died), "round {round}: {died:?}");
        assert_eq!(names(folder.path()).len(), 0, "round {round}");
    }
}

/// Once the second signal, a tenth of a second later by the clock, ended one that had not run meanwhile; and once both
/// handlers together overflowed the alternate stack.
#[test]
fn two_signals_in_a_row_are_one_on_a_machine_that_stands_still() {
    let test = "two_signals_in_a_row_are_one_on_a_machine_that_stands_still";
    if role(test).is_some() {
        let _made: Vec<_> = (0..100).map(|_| Segment::create(&SPEC).unwrap()).collect();
        wait_for_the_end();
    }
    for round in 0..12 {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut other = Child::start_in(test, "go", Some(folder.path()));
        let pid = hear_pid(&mut other);
        send(pid, Signal::TERM);
        std::thread::sleep(Duration::from_micros(20 * round));
        send(pid, Signal::STOP);
        std::thread::sleep(Duration::from_millis(150));
        send(pid, Signal::HUP);
        send(pid, Signal::CONT);
        let died = death(&mut other);
        assert!([Some(15), Some(1)].contains(&died), "round {round}: {died:?}");
        assert_eq!(names(folder.path()).len(), 0, "round {round}");
    }
}

#[test]
fn at_any_moment_a_signal_ends_it_and_nothing_is_left() {
    let test = "at_any_moment_a_signal_ends_it_and_nothing_is_left";
    if role(test).is_some() {
        let work = || {
            loop {
                let segment = Segment::create(&SPEC).unwrap();
                // The lock of the allocator is one that a handler may not need.
                std::hint::black_box(text(segment.name()));
            }
        };
        (0..3).for_each(|_| drop(std::thread::spawn(work)));
        wait_for_the_end();
    }
    let rounds = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 2000 } else { 60 };
    for round in 0..rounds {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut other = Child::start_in(test, "go", Some(folder.path()));
        let pid = hear_pid(&mut other);
        std::thread::sleep(Duration::from_micros(37 * (round % 100)));
        send(pid, Signal::TERM);
        assert_eq!(death(&mut other), Some(15));
        let left = names(folder.path());
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

/// A program that wants to leave, and one that is stopped with the gate in its hands.
struct Stuck {
    victim: Child,
    pid: Pid,
    holder: Child,
    path: PathBuf,
    /// Where the segment is, which stays there.
    folder: tempfile::TempDir,
}

impl Stuck {
    fn start(test: &str) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut victim = Child::start_in(test, "victim", Some(folder.path()));
        let name = victim.hear();
        let pid = hear_pid(&mut victim);
        let mut holder = Child::start_in(test, &name, Some(folder.path()));
        send(hear_pid(&mut holder), Signal::STOP);
        let path = folder.path().join(name.split_once('/').unwrap().0);
        Self { victim, pid, holder, path, folder }
    }

    fn play(role: &str) -> ! {
        match role {
            "victim" => {
                let segment = Segment::create(&SPEC).unwrap();
                child::say(&text(segment.name()));
                wait_for_the_end()
            }
            "sweep" => {
                drop(Segment::create(&SPEC).unwrap());
                std::process::exit(0)
            }
            name => open(name).with_gate(|| wait_for_the_end()),
        }
    }
}

#[test]
fn a_stopped_process_delays_the_end_by_its_bound() {
    let test = "a_stopped_process_delays_the_end_by_its_bound";
    if let Some(role) = role(test) {
        Stuck::play(&role);
    }
    let mut stuck = Stuck::start(test);
    let start = Instant::now();
    send(stuck.pid, Signal::TERM);
    assert_eq!(death(&mut stuck.victim), Some(15));
    let took = start.elapsed();
    assert!(took >= LEAVING_MAX, "it did not try: {took:?}");
    assert!(took < 10 * LEAVING_MAX, "{took:?}");
    stuck.holder.kill_running();
    // Its name is for the sweep of the next start.
    assert!(stuck.path.exists());
    assert!(Child::start_in(test, "sweep", Some(stuck.folder.path())).wait().success());
    assert!(!stuck.path.exists());
}

#[test]
fn a_second_signal_ends_at_once_what_is_stuck() {
    let test = "a_second_signal_ends_at_once_what_is_stuck";
    if let Some(role) = role(test) {
        Stuck::play(&role);
    }
    // On a busy machine one may be late.
    let is_prompt = (0..3).any(|_| {
        let mut stuck = Stuck::start(test);
        let start = Instant::now();
        send(stuck.pid, Signal::TERM);
        std::thread::sleep(Duration::from_millis(200));
        send(stuck.pid, Signal::INT);
        let signal = death(&mut stuck.victim);
        start.elapsed() < LEAVING_MAX && signal == Some(2)
    });
    assert!(is_prompt, "it waits as if there had been one signal");
}

#[test]
fn handlers_of_the_program_are_left_alone() {
    let test = "handlers_of_the_program_are_left_alone";
    if let Some(order) = role(test) {
        let came = Arc::new(AtomicBool::new(false));
        let install =
            || signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&came)).unwrap();
        if order == "before" {
            install();
        }
        let segment = Segment::create(&SPEC).unwrap();
        if order == "after" {
            install();
        }
        child::say(segment.path().to_str().unwrap());
        child::say(&std::process::id().to_string());
        while !came.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child::say("it came");
        child::hear();
        drop(segment);
        std::process::exit(7);
    }
    for order in ["before", "after"] {
        let mut other = Child::start(test, order);
        let path = PathBuf::from(other.hear());
        let pid = hear_pid(&mut other);
        send(pid, Signal::TERM);
        assert_eq!(other.hear(), "it came", "{order}");
        std::thread::sleep(Duration::from_millis(50));
        assert!(path.exists(), "{order}: removed though the program goes on");
        other.say("end");
        assert_eq!(other.wait().code(), Some(7), "{order}");
        assert!(!path.exists());
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let test = "an_ignored_signal_stays_ignored";
    let is_in = |field: &str| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() >> (Signal::HUP.as_raw() - 1) & 1 == 1
    };
    if role(test).is_some() {
        let _segment = Segment::create(&SPEC).unwrap();
        std::process::exit(if is_in("SigIgn:") && !is_in("SigCgt:") { 0 } else { 8 });
    }
    // As `nohup` does.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    shell.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    shell.env("TARRAGON_TEST_ROLE", format!("{test}:go")).stdout(Stdio::null());
    assert_eq!(shell.status().unwrap().code(), Some(0));
}
