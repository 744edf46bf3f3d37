//! What the tests share: a supervisor with a folder, shell commands as processes, and waiting with a deadline.
#![expect(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses a part; a test that cannot go on has failed"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tarragon_supervisor::{Ended, Event, Events, Options, Request, Spawn, Supervisor, Why};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) supervisor: Supervisor,
    pub(crate) events: Events,
    pub(crate) folder: tempfile::TempDir,
    seen: Vec<Event>,
}

/// What owns the strings of a request.
pub(crate) struct Shell {
    args: Vec<OsString>,
    stdout: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Rig {
        let (supervisor, events) = Supervisor::start_with(options).unwrap();
        supervisor.environment(0, std::env::vars_os()).unwrap();
        let folder = tempfile::Builder::new().prefix("tarragon-supervisor").tempdir().unwrap();
        Rig { supervisor, events, folder, seen: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A shell command whose output goes to `out.ID`.
    pub(crate) fn shell(&self, id: u64, script: &str) -> Shell {
        Shell {
            args: ["sh", "-c", script].map(OsString::from).to_vec(),
            stdout: self.path(&format!("out.{id}")),
        }
    }

    pub(crate) fn start(&self, id: u64, script: &str) {
        self.start_with(id, script, |_| {});
    }

    /// What `change` puts in may live shorter than anything made here, so the strings made here live for ever.
    pub(crate) fn start_with<'a>(&self, id: u64, script: &str, change: impl FnOnce(&mut Spawn<'a>)) {
        let shell: &'static Shell = Box::leak(Box::new(self.shell(id, script)));
        let mut spawn: Spawn<'a> = shell.spawn(id);
        change(&mut spawn);
        self.supervisor.send(&[Request::Start(spawn)]).unwrap();
    }

    pub(crate) fn stand(&self, id: u64, script: &str) {
        let shell = self.shell(id, script);
        self.supervisor.send(&[Request::Stand(shell.spawn(id))]).unwrap();
    }

    /// Waits until all that was sent has been heard. What is told meanwhile is kept.
    pub(crate) fn settle(&mut self) {
        let shell = self.shell(u64::MAX, "");
        let nobodys = Spawn { hold: u32::MAX, ..shell.spawn(u64::MAX) };
        self.supervisor.send(&[Request::Stand(nobodys)]).unwrap();
        let bounced = Event::Bounced { id: u64::MAX };
        while !self.seen.contains(&bounced) {
            assert!(self.events.read(&mut self.seen).unwrap(), "the supervisor is gone");
        }
        self.seen.retain(|event| *event != bounced);
    }

    pub(crate) fn kill(&self, id: u64, grace: Duration) {
        self.supervisor.send(&[Request::Kill { id, grace, why: Why::Cancelled }]).unwrap();
    }

    /// The next event in order.
    pub(crate) fn next(&mut self) -> Event {
        if self.seen.is_empty() {
            assert!(self.events.read(&mut self.seen).unwrap(), "the supervisor is gone");
        }
        self.seen.remove(0)
    }

    /// Waits for the end of a process; others' events are passed over.
    pub(crate) fn ended(&mut self, id: u64) -> Ended {
        loop {
            match self.next() {
                Event::Ended(ended) if ended.id == id => return ended,
                event @ Event::CouldNotStart { .. } if event.id() == id => panic!("{event:?}"),
                _ => {}
            }
        }
    }

    /// Waits until it runs; returns the pid.
    pub(crate) fn started(&mut self, id: u64) -> u32 {
        loop {
            match self.next() {
                Event::Started { id: it, pid, .. } if it == id => return pid,
                event @ Event::CouldNotStart { .. } if event.id() == id => panic!("{event:?}"),
                _ => {}
            }
        }
    }

    pub(crate) fn run(&mut self, id: u64, script: &str) -> Ended {
        self.start(id, script);
        self.ended(id)
    }

    /// Waits until a file holds this many lines; returns them.
    pub(crate) fn lines(&self, name: &str, count: usize) -> Vec<String> {
        let path = self.path(name);
        lines_of(&path, count)
    }

    /// Waits until a file holds this many pids, one per line.
    pub(crate) fn pids(&self, name: &str, count: usize) -> Vec<u32> {
        self.lines(name, count).iter().map(|line| line.trim().parse().unwrap()).collect()
    }
}

impl Shell {
    pub(crate) fn spawn(&self, id: u64) -> Spawn<'_> {
        Spawn::new(id, Path::new("/bin/sh"), &self.args, &self.stdout)
    }
}

pub(crate) fn lines_of(path: &Path, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    wait_until(&format!("{count} lines in {}", path.display()), || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect();
        lines.len() >= count
    });
    lines
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True while the process runs; one that has ended and was not reaped does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(line) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = line.rsplit(')').next().unwrap().trim_start().chars().next();
    !matches!(state, Some('Z' | 'X'))
}

pub(crate) fn wait_gone(pids: &[u32]) {
    wait_until("processes to be gone", || !pids.iter().any(|pid| is_alive(*pid)));
}

/// True when the environment of a living process holds this text.
pub(crate) fn anyone_bears(mark: &str) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid: u32| {
        let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        is_alive(pid) && text.windows(mark.len()).any(|window| window == mark.as_bytes())
    })
}
