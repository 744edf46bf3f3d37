//! The engine's end: starts the supervisor, sends requests, reads events. What becomes of a request is left to `serve`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::boot::{CONSTRUCTOR, NAME, WITH_CGROUPS, WITHOUT_CGROUPS};
use crate::error::StartError;
use crate::event::Event;
use crate::proc::{Process, Scan};
use crate::request::Request;
use crate::serve::cgroup;
use crate::wire::{News, news, put_environment, put_request, whole};

/// How long the supervisor may take to answer: it loads the same program, perhaps from a slow file system.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long the supervisor may take to go; a tree that cannot be killed takes it five seconds. Then it is killed.
const GOING_MAX: Duration = Duration::from_secs(10);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;
/// How often [`Supervisor::kill_all_known`] looks again for processes that others have started meanwhile.
const KILL_ROUNDS_MAX: usize = 100;

/// The client of a supervisor process. Dropping it closes the connection, upon which the supervisor ends all trees, and
/// waits until the supervisor is gone: at most ten seconds.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    child: Child,
    /// The process that started it; a fork of that one must not end it.
    engine: u32,
}

/// The events of a supervisor, to be read by one thread.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    /// Bytes read and not yet understood: a part of a frame.
    filled: usize,
}

/// What a supervisor may use.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Keep memory limits by cgroups where they are to be had; else by looking at the trees every 50 ms.
    pub use_cgroup: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { use_cgroup: true }
    }
}

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    pid: u32,
    /// The buffer of whoever sends. Its lock makes the write of one call whole.
    outgoing: Mutex<Vec<u8>>,
    /// The processes known to run: id and pid.
    running: Mutex<HashMap<u64, u32>>,
}

impl Supervisor {
    /// Starts a supervisor: executes this program once more, under another name, before whose `main` it becomes the
    /// supervisor. Takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// [`StartError::Socket`] and [`StartError::Execute`] when the system refuses, [`StartError::NoAnswer`] when the
    /// executed program does not become a supervisor.
    pub fn start() -> Result<(Supervisor, Events), StartError> {
        Supervisor::start_with(Options::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    ///
    /// As [`start`](Supervisor::start).
    pub fn start_with(options: Options) -> Result<(Supervisor, Events), StartError> {
        std::hint::black_box(&CONSTRUCTOR);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| StartError::Socket(error.into()))?;
        let cgroups = if options.use_cgroup { WITH_CGROUPS } else { WITHOUT_CGROUPS };
        // As its input the socket reaches this child only, whatever other threads execute at the same time.
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .args(["0", &std::process::id().to_string(), cgroups])
            .stdin(theirs)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(StartError::Execute)?;
        let shared =
            Shared { socket: ours, pid: child.id(), outgoing: Mutex::default(), running: Mutex::default() };
        let shared = Arc::new(shared);
        let supervisor = Supervisor { shared: Arc::clone(&shared), child, engine: std::process::id() };
        let mut events = Events { shared, bytes: Vec::new(), filled: 0 };
        events.hello().map_err(StartError::NoAnswer)?;
        Ok((supervisor, events))
    }

    /// The supervisor's process id.
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// Defines an environment block, for processes that are sent later; also for those that stand by now.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a name with `=`, a zero byte, or more than 64 MiB; then nothing was sent. `BrokenPipe` when
    /// the supervisor is gone.
    pub fn environment(
        &self,
        base: u32,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<()> {
        self.shared.send(|out| put_environment(out, base, vars))
    }

    /// Sends requests, all in one write. Any number of threads may send; the requests of one call stay together. Blocks
    /// while the socket's buffer is full, for as long as the supervisor needs to handle what was sent before; whether
    /// events are read does not matter.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a string with a zero byte, a variable that cannot be, or a request of more than 64 MiB; then
    /// nothing was sent. `BrokenPipe` when the supervisor is gone.
    pub fn send(&self, requests: &[Request<'_>]) -> io::Result<()> {
        self.shared.send(|out| requests.iter().try_for_each(|request| put_request(out, request)))
    }

    /// Kills all processes that the supervisor has started: for when the supervisor itself was killed and cannot.
    /// Returns how many there were.
    ///
    /// A process counts as the supervisor's if it bears its mark, or is in the group of one that runs by all that
    /// [`Events`] has told and that bears it. One that has left its group and cleared its environment is not found.
    pub fn kill_all_known(&self) -> usize {
        let mut killed = 0;
        for _ in 0..KILL_ROUNDS_MAX {
            let found = self.shared.marked();
            if found.is_empty() {
                break;
            }
            killed += found.iter().filter(|process| process.signal(Signal::KILL)).count();
            std::thread::sleep(Duration::from_millis(5));
        }
        cgroup::remove_left_by(self.pid());
        killed
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if std::process::id() != self.engine {
            return;
        }
        // Not connected any more: then the supervisor is gone already.
        let _ = shutdown(&self.shared.socket, Shutdown::Write);
        if !is_over_within(self.pid(), GOING_MAX) {
            // Killing what is gone fails, and that is well.
            let _ = self.child.kill();
            self.kill_all_known();
        }
        // Somebody else may have waited for it, or children are not to be waited for: then it is gone, too.
        let _ = self.child.wait();
    }
}

/// Waits until a child has ended; true when it has.
fn is_over_within(pid: u32, limit: Duration) -> bool {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a child has a pid");
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(child) => is_readable_within(child.as_fd(), limit),
        // An old kernel cannot tell, so that the wait that follows has no limit. Any other error: it is gone.
        Err(_) => true,
    }
}

fn is_readable_within(descriptor: BorrowedFd<'_>, limit: Duration) -> bool {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).expect("seconds are few");
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            found => return found.is_ok_and(|count| count > 0),
        }
    }
}

impl Shared {
    /// Sends what `fill` writes; nothing if it fails.
    fn send(&self, fill: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock();
        outgoing.clear();
        fill(&mut outgoing)?;
        let mut rest = &outgoing[..];
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The processes that bear this supervisor's mark, and all in the groups of running ones among them.
    fn marked(&self) -> Vec<Process> {
        let scan = Scan::take();
        let is_ours = |process: &&Process| process.alive && process.mark(self.pid).is_some();
        let mut found: Vec<Process> = scan.iter().filter(is_ours).copied().collect();
        let running = self.running.lock();
        let groups: Vec<u32> =
            running.values().copied().filter(|pid| found.iter().any(|it| it.pid == *pid)).collect();
        for group in groups {
            let others = scan.group(group).filter(|it| it.alive);
            let others: Vec<Process> = others.filter(|it| !found.contains(it)).copied().collect();
            found.extend(others);
        }
        found
    }

    /// Notes which processes run.
    fn note(&self, events: &[Event]) {
        let mut running = self.running.lock();
        for event in events {
            match event {
                Event::Started { id, pid, .. } => {
                    running.insert(*id, *pid);
                }
                Event::Ended(ended) => {
                    running.remove(&ended.id);
                }
                _ => {}
            }
        }
    }
}

impl Events {
    /// Appends all events that are there to `into`; blocks until there is one. Returns false, and appends none, when
    /// the supervisor is gone: then nothing will come any more, and what still runs is for
    /// [`Supervisor::kill_all_known`].
    ///
    /// # Errors
    ///
    /// `InvalidData` when what came is no event; any error of the socket.
    pub fn read(&mut self, into: &mut Vec<Event>) -> io::Result<bool> {
        let before = into.len();
        while into.len() == before {
            if !self.fill()? {
                return Ok(false);
            }
            self.take(into)?;
        }
        self.shared.note(&into[before..]);
        Ok(true)
    }

    /// Reads what is there, or waits for it; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.bytes.len() < self.filled + READ_BYTES {
            self.bytes.resize(self.filled + READ_BYTES, 0);
        }
        loop {
            match recv(&self.shared.socket, &mut self.bytes[self.filled..], RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(false),
                Ok((count, _)) => {
                    self.filled += count;
                    return Ok(true);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes all whole frames.
    fn take(&mut self, into: &mut Vec<Event>) -> io::Result<()> {
        let mut start = 0;
        while let Some(length) = whole(&self.bytes[start..self.filled])? {
            if let News::Event(event) = news(&self.bytes[start..start + length])? {
                into.push(event);
            }
            start += length;
        }
        self.bytes.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }

    /// Waits for the supervisor's first frame.
    fn hello(&mut self) -> io::Result<()> {
        while whole(&self.bytes[..self.filled])?.is_none() {
            if !is_readable_within(self.shared.socket.as_fd(), ANSWER_MAX) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut none = Vec::new();
        self.take(&mut none)
    }
}

impl AsFd for Events {
    /// Readable when [`Events::read`] would not block.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.socket.as_fd()
    }
}
