//! Many children of one kind, quickly: a child process that forks itself whenever one is wanted.
//!
//! The process forks *before* anything of the operation is set up, so that each child opens its own files: a lock of
//! an open file description that was inherited by fork would live as long as the parent. It reaps its children without
//! being asked, and everybody dies with the test: the forked children with the forking process, this with the thread
//! that started it.

use std::fs;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use rustix::time::Timespec;

use crate::child::{Child, pass};
use crate::control::{Control, Manner};
use crate::error::Fault;
use crate::role::{Part, Role};
use crate::sys;

/// How long a child may live beyond the moment at which it should be killed, in seconds.
const SPARE_SECONDS_MAX: u64 = 60;

/// The exit status of a child that panicked, as the standard library's.
const PANICKED: i32 = 101;

/// A process that forks children of a [`Role`] which calls [`Part::serve`]. 0.2-1 ms per child.
#[derive(Debug)]
pub struct Nursery {
    parent: Child,
}

/// A forked child that waits to be let go; dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Infant {
    pid: u32,
    pidfd: OwnedFd,
}

impl Nursery {
    /// Starts the process that forks. It dies with this value, and when the calling thread ends.
    ///
    /// # Errors
    ///
    /// [`Fault::System`].
    pub fn start(role: &Role) -> Result<Self, Fault> {
        Ok(Self { parent: role.start()? })
    }

    /// Forks a child, waits until it has prepared itself and begins its operations, which it does again and again, and
    /// kills it `after` that. When it returns, the kernel has dropped the child's locks and memory. Returns the pid it
    /// had.
    ///
    /// # Errors
    ///
    /// [`Fault::NotPlayed`]; [`Fault::Ended`] if the child ended before it was killed; [`Fault::System`].
    pub fn kill_after(&mut self, after: Duration) -> Result<u32, Fault> {
        let seconds_max = after.as_secs().saturating_add(SPARE_SECONDS_MAX);
        let infant = self.fork(Manner::Endless, u32::try_from(seconds_max).unwrap_or(u32::MAX))?;
        self.control().let_go();
        let is_ready = self.control().wait_ready(|_| infant.is_gone().then_some(())).is_ok();
        if is_ready {
            pass(after);
        }
        if is_ready && !infant.is_gone() {
            Ok(infant.pid)
        } else {
            Err(Fault::Ended {
                role: self.role().to_owned(),
                step: 0,
                what: "before it was killed".to_owned(),
            })
        }
    }

    /// A child that waits to be let go, and dies of an alarm so many seconds later.
    pub(crate) fn fork(&mut self, manner: Manner, seconds_max: u32) -> Result<Infant, Fault> {
        let number = self.control().ask(manner, seconds_max);
        let pid = self.parent.wait_made(number)?;
        let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let known = known.ok_or_else(|| Fault::NotPlayed {
            role: self.role().to_owned(),
            what: "it cannot fork".to_owned(),
        })?;
        let pidfd = pidfd_open(known, PidfdFlags::empty());
        Ok(Infant { pid, pidfd: pidfd.map_err(|errno| Fault::system("pidfd_open", errno))? })
    }

    pub(crate) fn role(&self) -> &str {
        self.parent.role()
    }

    pub(crate) fn control(&self) -> &Control {
        self.parent.control()
    }
}

impl Infant {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn is_gone(&self) -> bool {
        self.wait_gone(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    /// Waits until the child has ended. The kernel tells so after it has dropped files, locks and memory.
    fn wait_gone(&self, timeout: Option<&Timespec>) -> bool {
        loop {
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], timeout) {
                Ok(count) => return count == 1,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Infant {
    fn drop(&mut self) {
        // Fails only if it has ended already, which is what we want.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.wait_gone(None);
    }
}

impl Part {
    /// Makes this process a nursery for the test that started it; never returns.
    ///
    /// Each child calls `prepare` with the role's argument, then `operate` once where it is stepped through, or again
    /// and again. Attach shared things in `prepare`, not before `serve`: what was open before would be shared by all
    /// children and outlive their deaths. Between `prepare` and `operate` nothing is counted. Not for operations that
    /// panic and catch it.
    ///
    /// # Panics
    ///
    /// If this process has threads beside the test's and the test harness's, which sleeps: fork copies one.
    pub fn serve<T>(self, prepare: impl Fn(&str) -> T, operate: impl Fn(&mut T)) -> ! {
        let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
        assert!(threads.is_ok_and(|count| count <= 2), "fork copies one thread: start others in `prepare`");
        let control = self.control();
        sys::ignore_children(true);
        let parent = getpid();
        let mut number = 0;
        loop {
            number += 1;
            let manner = control.wait_asked(number);
            match sys::fork() {
                Ok(0) => {
                    die_with(parent);
                    control.wait_go(number);
                    live(control, manner, || prepare(self.argument()), &operate)
                }
                Ok(pid) => control.say_made(pid),
                Err(_) => control.say_made(0),
            }
        }
    }
}

/// Makes this forked child die with its parent, which may have died just now.
fn die_with(parent: Pid) {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("SIGKILL is a signal");
    if getppid() != Some(parent) {
        sys::exit_now(PANICKED);
    }
}

/// Lets the test know of a panic before it is printed: a backtrace is long, step by step.
fn tell_panics(control: &'static Control) {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        control.say_panicked();
        print(panic);
    }));
}

/// The life of a forked child that was let go.
fn live<T>(
    control: &'static Control,
    manner: Manner,
    prepare: impl FnOnce() -> T,
    operate: impl Fn(&mut T),
) -> ! {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        sys::ignore_children(false);
        tell_panics(control);
        sys::alarm(control.seconds_max());
        let mut state = prepare();
        match manner {
            Manner::Stepped => {
                sys::trap();
                control.say_begun();
                operate(&mut state);
                control.say_ended();
                sys::trap();
            }
            Manner::Endless => {
                control.say_ready();
                loop {
                    operate(&mut state);
                }
            }
        }
    }));
    sys::exit_now(if lived.is_ok() { 0 } else { PANICKED })
}
