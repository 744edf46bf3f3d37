//! Which children have ended, with what they used. What follows from it is left to `ending`.
#![expect(unsafe_code, reason = "only wait4 tells the resources with the status")]

use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// How a child ended.
#[derive(Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) max_rss_bytes: u64,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Exit {
    /// Of a process that does not end, whatever it is sent.
    pub(crate) fn unkillable() -> Exit {
        let status = ExitStatus::from_raw(libc::SIGKILL);
        Exit { status, max_rss_bytes: 0, user: Duration::ZERO, system: Duration::ZERO }
    }
}

/// Reaps one child that has ended; none when none has.
pub(crate) fn next() -> Option<(u32, Exit)> {
    let mut status = 0;
    let mut used = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both places are ours and live until the call returns.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, used.as_mut_ptr()) };
    if pid <= 0 {
        return None;
    }
    // SAFETY: written by the call that returned a child, and all zero would be valid.
    let used = unsafe { used.assume_init() };
    let exit = Exit {
        status: ExitStatus::from_raw(status),
        max_rss_bytes: used.ru_maxrss.cast_unsigned() * 1024,
        user: duration(used.ru_utime),
        system: duration(used.ru_stime),
    };
    Some((pid.cast_unsigned(), exit))
}

/// Whether this process has no child at all: then nothing descends from it, if it adopts what loses its parents.
pub(crate) fn has_no_child() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, options), Err(Errno::CHILD))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_usec as u32 * 1000)
}
