//! Starts processes: those that the engine wants now, and those that stand when a process of their hold has ended. What
//! `posix_spawn` does is left to `spawn`.
//!
//! The supervisor opens the files itself, so that it can tell which of them failed; what `posix_spawn` then reports is
//! about the program.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fcntl_setfl, openat};
use rustix::io::Errno;
use rustix::process::getppid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::spawn::Launch;
use super::tasks::Task;
use super::{NEVER, Server, environment, nanos, now_ns};
use crate::event::{Event, Step};
use crate::wire::{Malformed, Order, order};

/// The process that another one takes over from.
pub(super) struct Predecessor {
    pub(super) id: u64,
    pub(super) affinity: Option<Box<CpuSet>>,
}

impl Server {
    /// Starts a process, which follows none.
    pub(super) fn start_new(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let order = order(bytes)?;
        self.start(&order, None);
        Ok(())
    }

    /// Lets a process stand, or bounces it.
    pub(super) fn stand(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        // Read as a whole now, so that a broken engine is found before anything waits for it.
        let order = order(bytes)?;
        if self.tasks.has(order.id) {
            self.could_not_start(order.id, (Step::Spawn, Errno::EXIST), None);
        } else if !self.tasks.stand(order.id, order.hold, bytes) {
            self.events.push(Event::Bounced { id: order.id });
        }
        Ok(())
    }

    /// Starts what stands longest with this hold, or the next one if that fails; returns who has taken over.
    pub(super) fn hand_over(&mut self, hold: u32, from: &Predecessor) -> Option<u64> {
        while let Some(bytes) = self.tasks.next_standing(hold) {
            let order = order(&bytes).expect("it was read when it came");
            if self.start(&order, Some(from)) {
                return Some(order.id);
            }
        }
        None
    }

    /// Starts a process and tells so, or tells why not; true when it runs.
    fn start(&mut self, order: &Order<'_>, follows: Option<&Predecessor>) -> bool {
        let follower_of = follows.map(|it| it.id);
        match self.try_start(order, follows) {
            Ok(task) => {
                let (pid, at_ns) = (task.pid, task.started_ns);
                self.events.push(Event::Started { id: order.id, pid, at_ns, follows: follower_of });
                if task.memory_bytes.is_some() {
                    self.sampling.wake(at_ns);
                }
                self.tasks.insert(order.id, task);
                true
            }
            Err(failure) => {
                self.could_not_start(order.id, failure, follower_of);
                false
            }
        }
    }

    fn could_not_start(&mut self, id: u64, (step, errno): (Step, Errno), follows: Option<u64>) {
        self.events.push(Event::CouldNotStart { id, step, errno: errno.raw_os_error(), follows });
    }

    fn try_start(&mut self, order: &Order<'_>, from: Option<&Predecessor>) -> Result<Task, (Step, Errno)> {
        if self.tasks.has(order.id) {
            return Err((Step::Spawn, Errno::EXIST));
        }
        // What is locked by now stays so until we end, so whoever waits for that sees all that is started here; and
        // what the engine asked for before it died is not started after somebody else found nothing locked.
        if getppid() != self.parent {
            return Err((Step::Spawn, Errno::CANCELED));
        }
        let started_ns = now_ns();
        let affinity = match from.and_then(|from| from.affinity.clone()) {
            Some(affinity) => Some(affinity),
            None => order.affinity.as_deref().map(cpu_set).transpose()?,
        };
        let files = Files::open(order)?;
        let base = self.bases.get(&order.base);
        let mark = environment::mark(base, self.pid, order.id);
        let env = environment::build(base, &order.env, &mark);
        let group = order.memory_bytes.and_then(|limit| self.cgroups.as_ref()?.make(order.id, limit));
        let launch = Launch {
            program: order.program,
            args: &order.args,
            env: &env,
            cwd: files.cwd.as_ref().map(AsFd::as_fd),
            stdin: files.stdin.as_ref().map(AsFd::as_fd),
            stdout: files.stdout.as_fd(),
            stderr: files.stderr.as_ref().map(AsFd::as_fd),
        };
        // The child is born with the supervisor's CPUs and in its group, so it has both from its first instruction.
        let inside = group.as_ref().map(|group| group.enter());
        let spawned = with_affinity(affinity.as_deref(), || self.spawner.spawn(&launch));
        drop(inside);
        let pid = spawned?.map_err(|errno| files.blame(Errno::from_raw_os_error(errno)))?;
        Ok(Task {
            pid,
            hold: order.hold,
            started_ns,
            deadline_ns: order.timeout.map_or(NEVER, |timeout| started_ns.saturating_add(nanos(timeout))),
            grace: order.grace,
            memory_bytes: order.memory_bytes,
            affinity,
            group,
            exit: None,
            why: None,
            ending: None,
        })
    }
}

/// What a process needs open when it starts.
struct Files {
    cwd: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

impl Files {
    fn open(order: &Order<'_>) -> Result<Files, (Step, Errno)> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = order.cwd.map(|path| openat(CWD, path, folder, Mode::empty())).transpose();
        let cwd = opened.map_err(|errno| (Step::Cwd, errno))?;
        let output = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND;
        let from = cwd.as_ref();
        let stdin = order.stdin.map(|path| open(from, path, OFlags::RDONLY)).transpose();
        let stdin = stdin.map_err(|errno| (Step::Stdin, errno))?;
        let stdout = open(from, order.stdout, output).map_err(|errno| (Step::Stdout, errno))?;
        let stderr = order.stderr.map(|path| open(from, path, output)).transpose();
        let stderr = stderr.map_err(|errno| (Step::Stderr, errno))?;
        Ok(Files { cwd, stdin, stdout, stderr })
    }

    /// The step that an error of `posix_spawn` is about.
    fn blame(&self, errno: Errno) -> (Step, Errno) {
        // A folder may be opened by who may not enter it.
        let enters = |cwd: &OwnedFd| accessat(cwd, ".", Access::EXEC_OK, AtFlags::EACCESS).is_ok();
        let step = match errno {
            Errno::AGAIN | Errno::NOMEM => Step::Spawn,
            Errno::ACCESS if !self.cwd.as_ref().is_none_or(enters) => Step::Cwd,
            _ => Step::Program,
        };
        (step, errno)
    }
}

/// Opens a file for a child. It does not wait for the other end of a pipe, which would stop all: an output that is a
/// pipe nobody reads is an error. The child gets the file as if it had been opened plainly.
fn open(from: Option<&OwnedFd>, path: &CStr, how: OFlags) -> Result<OwnedFd, Errno> {
    let from = from.map_or(CWD, |from| from.as_fd());
    let mode = Mode::from_raw_mode(0o666);
    let file = openat(from, path, how | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, mode)?;
    fcntl_setfl(&file, how & OFlags::APPEND)?;
    Ok(file)
}

fn cpu_set(cpus: &[u32]) -> Result<Box<CpuSet>, (Step, Errno)> {
    let mut set = Box::new(CpuSet::new());
    for cpu in cpus {
        let cpu = *cpu as usize;
        if cpu >= CpuSet::MAX_CPU {
            return Err((Step::Affinity, Errno::INVAL));
        }
        set.set(cpu);
    }
    Ok(set)
}

/// Runs `act` while the supervisor has these CPUs.
fn with_affinity<T>(cpus: Option<&CpuSet>, act: impl FnOnce() -> T) -> Result<T, (Step, Errno)> {
    let Some(cpus) = cpus else { return Ok(act()) };
    let own = sched_getaffinity(None).map_err(|errno| (Step::Affinity, errno))?;
    sched_setaffinity(None, cpus).map_err(|errno| (Step::Affinity, errno))?;
    let result = act();
    // The CPUs may have been taken from all of us meanwhile; then any that are left will do.
    let _ = sched_setaffinity(None, &own);
    Ok(result)
}
