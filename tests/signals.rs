//! Programs with dictionaries, queues and processes that a signal ends: each dies of it, and leaves nothing.

use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tarragon::prelude::*;
use tarragon::{DDict, Queue};
use tarragon_testbed::{Program, wait_until};

const ALL: [Signal; 3] = [Signal::HUP, Signal::INT, Signal::TERM];

/// Not a test of its own: the program that gets the signals.
#[test]
fn child_program() {
    let (Some(dir), Ok(kind)) = (std::env::var_os("TARRAGON_TEST_DIR"), std::env::var("TARRAGON_TEST_KIND"))
    else {
        return;
    };
    let dir = Path::new(&dir);
    let ready = |name: &str| fs::write(dir.join(name), "").expect("a file");
    // Nobody ends it if the test is killed.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        std::process::exit(9);
    });
    let dict = DDict::<u64, Vec<u64>>::builder().memory(4 << 20);
    let queue = Queue::<String>::builder().memory(4 << 20);
    match kind.as_str() {
        "dict" => {
            let dict = dict.create().expect("a dictionary");
            dict.put(&1, vec![2; 1000]).expect("a put");
            ready("ready");
            // Waits for what nobody puts.
            let _ = dict.get_timeout(&2, Duration::from_secs(60));
        }
        "queue" => {
            let queue = queue.create().expect("a queue");
            queue.put("item".repeat(1000)).expect("a put");
            queue.get().expect("it was put");
            ready("ready");
            let _ = queue.get();
        }
        _ => {
            let (_dict, _queue) = (dict.create().expect("a dictionary"), queue.create().expect("a queue"));
            let batch = Batch::builder().run_dir(dir).build().expect("a batch");
            let script = "echo $$ > pid.part && mv pid.part ready; while :; do sleep 0.05; done";
            let task = batch.process("/bin/sh").arg("-c").arg(script).cwd(dir);
            assert!(batch.compile([&task]).expect("a list").run().is_err());
            ready("report");
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

struct Watched {
    program: Program,
    dir: tempfile::TempDir,
    memory: tempfile::TempDir,
}

impl Watched {
    fn start(kind: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "child_program"]).env("TARRAGON_TEST_KIND", kind);
        command.env("TARRAGON_TEST_DIR", dir.path()).env("TARRAGON_SHM", memory.path());
        let watched = Self { program: Program::start(&mut command), dir, memory };
        wait_until("it is ready", || watched.dir.path().join("ready").exists());
        watched
    }

    fn segments(&self) -> usize {
        fs::read_dir(self.memory.path()).expect("a directory").count()
    }

    /// Waits for the end, and looks at what it was and what is left.
    fn ended_by(mut self, signal: Signal) {
        let status = self.program.wait();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        assert_eq!(self.segments(), 0, "{signal:?} leaves segments");
        let pid = fs::read_to_string(self.dir.path().join("ready")).expect("it was ready");
        if !pid.is_empty() {
            let process = Path::new("/proc").join(pid.trim());
            wait_until("its process is gone", || !process.exists());
        }
    }
}

#[test]
fn a_program_with_a_dictionary_leaves_nothing() {
    for signal in ALL {
        let watched = Watched::start("dict");
        assert_eq!(watched.segments(), 1);
        watched.program.signal(signal);
        watched.ended_by(signal);
    }
}

#[test]
fn a_program_with_a_queue_leaves_nothing() {
    for signal in ALL {
        let watched = Watched::start("queue");
        assert_eq!(watched.segments(), 1);
        watched.program.signal(signal);
        watched.ended_by(signal);
    }
}

#[test]
fn a_program_with_processes_too_ends_them_and_leaves_nothing() {
    for signal in ALL {
        let watched = Watched::start("tasks");
        assert_eq!(watched.segments(), 2);
        watched.program.signal(signal);
        if signal == Signal::INT {
            wait_until("it reports", || watched.dir.path().join("report").exists());
            assert_eq!(watched.segments(), 2, "removed though the program goes on");
            watched.program.signal(signal);
        }
        watched.ended_by(signal);
    }
}
