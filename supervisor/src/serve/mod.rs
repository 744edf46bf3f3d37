//! The supervisor process: one thread, one loop. It sleeps in `poll` on three descriptors (the socket to the engine, a
//! `signalfd` for SIGCHLD, the engine's own `pidfd`) until one is readable or a clock is due; then it reaps, lets
//! standing processes take over, reads some requests, looks after its clocks, and writes all events in one write.
//!
//! There is no descriptor per child: SIGCHLD and `wait4` tell all that a `pidfd` each would, with the resources used in
//! the same call, and ten thousand sleeping children need no limit of descriptors to be raised, which they would
//! inherit.
//!
//! What it may keep in memory is bounded by what the engine has sent: standing requests, and at most four events for
//! each process that was sent, which wait while the engine does not read.

pub(crate) mod cgroup;
mod ending;
mod environment;
mod link;
mod memory;
pub(crate) mod reap;
pub(crate) mod setup;
pub(crate) mod spawn;
mod start;
mod stray;
mod tasks;

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, getppid};
use rustix::time::{ClockId, clock_gettime};

use crate::event::Event;
use crate::request::Why;
use crate::wire::{Demand, demand, put_event, put_hello};
use environment::Base;
use link::Link;
use spawn::Spawner;
use tasks::Tasks;

/// Requests handled before the loop looks at its children again: a start takes half a millisecond, and no slot that
/// another process waits for should idle that often.
const REQUESTS_PER_ROUND_MAX: usize = 8;
/// No clock is due.
const NEVER: u64 = u64::MAX;

/// Serves the engine at the other end of `socket` until it is gone; then ends all trees. Returns the exit code.
pub(crate) fn run(socket: u32, engine: u32, use_cgroup: bool) -> i32 {
    let Ok(place) = setup::become_supervisor(socket, engine) else { return 1 };
    let mut server = Server::new(place, use_cgroup);
    // Whatever breaks here, the trees must not outlive it.
    let served = catch_unwind(AssertUnwindSafe(|| server.serve()));
    let ended = catch_unwind(AssertUnwindSafe(|| server.end_all()));
    i32::from(!matches!((served, ended), (Ok(Ok(())), Ok(()))))
}

/// What [`setup`] has made of this process.
struct Place {
    link: OwnedFd,
    children: OwnedFd,
    /// None where the kernel has no such thing: then the socket's end alone tells.
    engine: Option<OwnedFd>,
}

/// All that the supervisor knows.
struct Server {
    pid: u32,
    link: Link,
    children: OwnedFd,
    engine: Option<OwnedFd>,
    spawner: Spawner,
    bases: HashMap<u32, Base>,
    tasks: Tasks,
    /// The events of this round.
    events: Vec<Event>,
    ending: ending::Clock,
    strays: stray::Strays,
    sampling: memory::Clock,
    cgroups: Option<cgroup::Place>,
    /// Files locked until the end.
    locks: Vec<OwnedFd>,
    /// The engine, or who took its place before we looked.
    parent: Option<Pid>,
}

impl Server {
    fn new(place: Place, use_cgroup: bool) -> Server {
        Server {
            pid: std::process::id(),
            link: Link::new(place.link),
            children: place.children,
            engine: place.engine,
            spawner: Spawner::new(),
            bases: HashMap::new(),
            tasks: Tasks::default(),
            events: Vec::new(),
            ending: ending::Clock::default(),
            strays: stray::Strays::default(),
            sampling: memory::Clock::default(),
            cgroups: use_cgroup.then(cgroup::Place::find).flatten(),
            locks: Vec::new(),
            parent: getppid(),
        }
    }

    /// Goes round until the engine is gone.
    fn serve(&mut self) -> io::Result<()> {
        put_hello(self.link.outgoing());
        loop {
            self.link.write()?;
            let Readable { children, link, engine_gone } = self.sleep()?;
            if engine_gone {
                return Ok(());
            }
            if children {
                setup::drain(&self.children);
                self.reap();
            }
            // What was read is handled first, so that an engine that sends faster than processes start is held up by
            // its socket, not by our memory.
            if link && !self.link.has_frame()? && !self.link.read()? {
                return Ok(());
            }
            self.requests()?;
            self.clocks();
            for event in self.events.drain(..) {
                put_event(self.link.outgoing(), &event);
            }
        }
    }

    /// Sleeps until something is to be done.
    fn sleep(&mut self) -> io::Result<Readable> {
        let limit = if self.link.has_frame()? { Some(Duration::ZERO) } else { self.time_left() };
        let limit = limit.map(|limit| Timespec::try_from(limit).expect("clocks are due within centuries"));
        let mut wanted = PollFlags::IN | PollFlags::RDHUP;
        wanted.set(PollFlags::OUT, self.link.has_outgoing());
        let mut descriptors =
            vec![PollFd::new(&self.children, PollFlags::IN), PollFd::new(self.link.socket(), wanted)];
        descriptors.extend(self.engine.iter().map(|engine| PollFd::new(engine, PollFlags::IN)));
        match poll(&mut descriptors, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| descriptors.get(index).is_some_and(|it| !it.revents().is_empty());
        let link = descriptors[1].revents();
        let is_closed = link.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR);
        Ok(Readable {
            children: is_ready(0),
            link: link.contains(PollFlags::IN),
            engine_gone: is_closed || is_ready(2),
        })
    }

    /// Handles some of the requests that were read.
    fn requests(&mut self) -> io::Result<()> {
        for _ in 0..REQUESTS_PER_ROUND_MAX {
            let Some(frame) = self.link.next_frame()? else { break };
            match demand(&frame)? {
                Demand::Start(bytes) => self.start_new(bytes)?,
                Demand::Stand(bytes) => self.stand(bytes)?,
                Demand::Kill { id, grace, why } => self.kill(id, grace, why),
                Demand::Forget { base } => {
                    self.bases.remove(&base);
                }
                Demand::Lock { path } => self.locks.extend(lock(path).ok()),
                Demand::Environment { base, entries } => {
                    self.bases.insert(base, Base::new(entries));
                }
            }
            self.link.give_back(frame);
        }
        Ok(())
    }

    /// Does what is due by now.
    fn clocks(&mut self) {
        let now = now_ns();
        while let Some((id, grace)) = self.tasks.next_timed_out(now) {
            self.kill(id, grace, Why::TimedOut);
        }
        if self.sampling.due_ns() <= now {
            self.sample_memory();
        }
        if self.ending.due_ns() <= now {
            self.look_at_ending();
        }
        if self.strays.due_ns() <= now {
            self.sweep();
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let clocks =
            [self.tasks.due_ns(), self.sampling.due_ns(), self.ending.due_ns(), self.strays.due_ns()];
        let due = clocks.into_iter().min().filter(|due| *due != NEVER);
        due.map(|due| Duration::from_nanos(due.saturating_sub(now_ns())))
    }
}

/// Opens and locks a file, shared with whoever locks it likewise.
fn lock(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
    Ok(file)
}

/// Which descriptors have something.
struct Readable {
    children: bool,
    link: bool,
    /// It has ended, or has closed its end: what it sent before is not wanted any more.
    engine_gone: bool,
}

/// Nanoseconds of the monotonic clock.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// A duration in nanoseconds; one of centuries is as good as none.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}
