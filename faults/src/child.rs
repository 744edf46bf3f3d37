//! A child process that is dead once its guard is gone, also when the test panics.

use std::process::{self, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::error::Fault;
use crate::role::Role;

/// How long a child may take until it is ready, however busy the machine is.
const READY_MAX: Duration = Duration::from_secs(60);

/// Below this, a wait yields: sleeping would take longer.
const YIELD_MAX: Duration = Duration::from_micros(200);

/// A child that plays a [`Role`]; dropping it kills and reaps it, by its own pid.
#[derive(Debug)]
pub struct Child {
    role: String,
    process: process::Child,
    control: Control,
}

impl Child {
    pub(crate) fn new(role: &str, process: process::Child, control: Control) -> Self {
        Self { role: role.to_owned(), process, control }
    }

    /// Pid of the child; its own until the guard is gone.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until the child has called [`Part::ready`](crate::Part::ready).
    ///
    /// # Errors
    ///
    /// [`Fault::NotPlayed`] if it ends, or is not ready after a minute.
    pub fn wait_ready(&mut self) -> Result<(), Fault> {
        let (role, process) = (&self.role, &mut self.process);
        self.control.wait_ready(|waited| why_not(role, process, waited))
    }

    /// Kills the child and reaps it; when it returns, the kernel has dropped its locks and memory. Returns how it
    /// ended: by the signal, or by itself before.
    ///
    /// # Errors
    ///
    /// [`Fault::System`].
    pub fn kill(&mut self) -> Result<ExitStatus, Fault> {
        self.process.kill().map_err(|errno| Fault::system("kill", errno))?;
        self.process.wait().map_err(|errno| Fault::system("wait", errno))
    }

    pub(crate) fn role(&self) -> &str {
        &self.role
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Waits for the forked child of this number. Returns its pid.
    pub(crate) fn wait_made(&mut self, number: u32) -> Result<u32, Fault> {
        let (role, process) = (&self.role, &mut self.process);
        self.control.wait_made(number, |waited| why_not(role, process, waited))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only if it was reaped already, which is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a child, waits until it is ready, kills it `after` that, and reaps it. Returns the pid it had.
///
/// For roles that cannot be forked; [`Nursery::kill_after`](crate::Nursery::kill_after) makes a child in a tenth of the
/// time.
///
/// # Errors
///
/// [`Fault::NotPlayed`]; [`Fault::Ended`] if the child ended before it was killed; [`Fault::System`].
pub fn random_kill(role: &Role, after: Duration) -> Result<u32, Fault> {
    let mut child = role.start()?;
    child.wait_ready()?;
    pass(after);
    let status = child.kill()?;
    if std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL) {
        Ok(child.pid())
    } else {
        Err(Fault::Ended { role: role.test().to_owned(), step: 0, what: status.to_string() })
    }
}

/// Lets this time pass, or little more if it is short and the machine is not busy.
pub(crate) fn pass(time: Duration) {
    let start = Instant::now();
    if time > YIELD_MAX {
        thread::sleep(time - YIELD_MAX);
    }
    while start.elapsed() < time {
        // The child may be behind us on this CPU.
        thread::yield_now();
    }
}

/// Why a wait for the child is in vain, if it is.
fn why_not(role: &str, process: &mut process::Child, waited: Duration) -> Option<Fault> {
    let what = match process.try_wait() {
        Ok(Some(status)) => status.to_string(),
        Ok(None) if waited < READY_MAX => return None,
        Ok(None) => format!("no answer in {} s", waited.as_secs()),
        Err(errno) => return Some(Fault::system("wait", errno)),
    };
    Some(Fault::NotPlayed { role: role.to_owned(), what })
}
