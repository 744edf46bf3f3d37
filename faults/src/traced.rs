//! One child under ptrace: from its first instruction inside the operation, step by step, to its end or its death.
//!
//! It runs freely through its preparation to a trap, and is stepped from there; steps count from the store that says
//! it has begun. Both processes share this thread's CPU meanwhile: a step then costs 3-5 µs, else a wake-up each way.

use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::control::{Control, Manner};
use crate::error::Fault;
use crate::nursery::{Infant, Nursery};
use crate::route::Leg;
use crate::sys::{self, End, Stop};

/// Steps an operation may take.
const STEPS_MAX: u64 = 10_000_000;

/// A child that is stopped inside its operation; dropping it kills it and waits until it is gone.
pub(crate) struct Traced<'n> {
    nursery: &'n Nursery,
    operation: &'n str,
    seconds_max: u32,
    infant: Infant,
    step: u64,
    is_reaped: bool,
    _cpu: OneCpu,
}

/// How a traced process goes on, with which signal.
type Resume = fn(u32, i32) -> io::Result<()>;

impl<'n> Traced<'n> {
    /// A new child, before the first step of its operation.
    pub(crate) fn begin(
        nursery: &'n mut Nursery,
        operation: &'n str,
        seconds_max: u32,
    ) -> Result<Self, Fault> {
        let infant = nursery.fork(Manner::Stepped, seconds_max)?;
        sys::seize(infant.pid()).map_err(refused)?;
        let cpu = OneCpu::share_with(infant.pid());
        let mut traced =
            Self { nursery, operation, seconds_max, infant, step: 0, is_reaped: false, _cpu: cpu };
        traced.control().let_go();
        traced.until_trap(sys::run)?;
        while !traced.control().has_begun() {
            traced.resume(sys::step, 0)?;
            traced.until_trap(sys::step)?;
        }
        Ok(traced)
    }

    /// Whether the operation is over.
    ///
    /// # Errors
    ///
    /// [`Fault::Ended`] if something panicked, even if the operation caught it; the child has then run to its end.
    pub(crate) fn is_over(&mut self) -> Result<bool, Fault> {
        if self.control().has_panicked() {
            self.run_out()?;
            return Err(self.ended(End::Exit(0)));
        }
        Ok(self.control().has_ended())
    }

    /// Executes one instruction.
    pub(crate) fn advance(&mut self) -> Result<(), Fault> {
        if self.step == STEPS_MAX {
            return Err(self.endless());
        }
        self.resume(sys::step, 0)?;
        self.step += 1;
        self.until_trap(sys::step)
    }

    /// Brings the child to a step by the way that leads there, or to the operation's end if that comes first.
    pub(crate) fn follow(&mut self, step: u64, leg: Leg) -> Result<(), Fault> {
        let mut left = leg.steps;
        if leg.hits > 0 && sys::break_at(self.pid(), leg.place).is_err() {
            // No breakpoints on this machine: all of the way is steps.
            left = step;
        } else if leg.hits > 0 {
            for _ in 0..leg.hits {
                self.resume(sys::run, 0)?;
                self.until_trap(sys::run)?;
                if self.is_over()? {
                    return Ok(());
                }
            }
            sys::break_nowhere(self.pid()).map_err(|errno| Fault::system("ptrace", errno))?;
            self.step = step - left;
        }
        for _ in 0..left {
            if self.is_over()? {
                break;
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Lets the child run until the operation is over.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        while !self.is_over()? {
            self.resume(sys::run, 0)?;
            self.until_trap(sys::run)?;
        }
        Ok(())
    }

    /// Lets the child run to its end, which must be a good one.
    pub(crate) fn run_out(&mut self) -> Result<(), Fault> {
        self.resume(sys::run, 0)?;
        loop {
            match self.wait()? {
                Stop::End(End::Exit(0)) => return Ok(()),
                Stop::End(how) => return Err(self.ended(how)),
                Stop::Trap | Stop::Notice => self.resume(sys::run, 0)?,
                Stop::Signal(signal) => self.resume(sys::run, signal)?,
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.infant.pid()
    }

    /// The address of the instruction that comes next.
    pub(crate) fn place(&self) -> u64 {
        sys::place(self.pid())
    }

    /// How many instructions of the operation the child has executed.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    pub(crate) fn control(&self) -> &'n Control {
        self.nursery.control()
    }

    /// Waits for the next trap; other signals reach the child, which then goes on as `resume` says.
    fn until_trap(&mut self, resume: Resume) -> Result<(), Fault> {
        loop {
            match self.wait()? {
                Stop::Trap => return Ok(()),
                Stop::Notice => self.resume(resume, 0)?,
                Stop::Signal(signal) => self.resume(resume, signal)?,
                Stop::End(how) => return Err(self.ended(how)),
            }
        }
    }

    /// The next stop; the alarm is an error.
    fn wait(&mut self) -> Result<Stop, Fault> {
        let stop = sys::wait(self.pid()).map_err(|errno| Fault::system("waitpid", errno))?;
        self.is_reaped = matches!(stop, Stop::End(_));
        if stop == Stop::Signal(libc::SIGALRM) { Err(self.endless()) } else { Ok(stop) }
    }

    fn resume(&self, resume: Resume, signal: i32) -> Result<(), Fault> {
        resume(self.pid(), signal).map_err(|errno| Fault::system("ptrace", errno))
    }

    fn ended(&self, how: End) -> Fault {
        Fault::Ended { role: self.nursery.role().to_owned(), step: self.step, what: how.to_string() }
    }

    fn endless(&self) -> Fault {
        let operation = self.operation.to_owned();
        Fault::Endless { operation, step: self.step, seconds_max: self.seconds_max }
    }
}

impl Drop for Traced<'_> {
    fn drop(&mut self) {
        if self.is_reaped || sys::kill(self.pid()).is_err() {
            return;
        }
        while matches!(sys::wait(self.pid()), Ok(Stop::Trap | Stop::Notice | Stop::Signal(_))) {}
    }
}

/// Who may not trace can show nothing; all else is wrong.
fn refused(errno: io::Error) -> Fault {
    match errno.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Fault::NotPermitted { errno },
        _ => Fault::system("ptrace", errno),
    }
}

/// This thread's CPUs, while it has but one; given back on drop.
struct OneCpu(Option<CpuSet>);

impl OneCpu {
    /// Takes the process to this thread's CPU, and binds both to it. Costs speed alone where that is not permitted.
    fn share_with(pid: u32) -> Self {
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        let Ok(before) = sched_getaffinity(None) else { return Self(None) };
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let is_shared = sched_setaffinity(None, &one).and_then(|()| sched_setaffinity(process, &one)).is_ok();
        Self(is_shared.then_some(before))
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // If that fails, the thread is slower, not wrong.
            let _ = sched_setaffinity(None, before);
        }
    }
}
