//! The three calls of the system that have no safe form: locks on bytes of a file, page population, a hook at exit.

#![expect(unsafe_code, reason = "calls the C library")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Locks a range of bytes of a file for writing, for its open file description: the kernel drops the lock when the
/// description's last descriptor goes, however the process ends. False if another description has a lock there and
/// `wait` is false.
///
/// *Source*: fcntl(2), open file description locks.
pub(crate) fn lock_bytes(fd: BorrowedFd<'_>, bytes: Range<u64>, wait: bool) -> io::Result<bool> {
    let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
    match control(fd, command, libc::F_WRLCK, bytes) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets go of a range.
pub(crate) fn unlock_bytes(fd: BorrowedFd<'_>, bytes: Range<u64>) -> io::Result<()> {
    control(fd, libc::F_OFD_SETLK, libc::F_UNLCK, bytes).map(|_| ())
}

/// A lock of another description somewhere in a range, if there is one. One system call.
pub(crate) fn lock_of_another(fd: BorrowedFd<'_>, bytes: Range<u64>) -> io::Result<Option<Range<u64>>> {
    let found = control(fd, libc::F_OFD_GETLK, libc::F_WRLCK, bytes)?;
    let start = found.l_start as u64;
    let end = if found.l_len == 0 { u64::MAX } else { start + found.l_len as u64 };
    Ok((i32::from(found.l_type) != libc::F_UNLCK).then_some(start..end))
}

fn control(
    fd: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
    bytes: Range<u64>,
) -> io::Result<libc::flock> {
    // SAFETY: `flock` is a struct of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = bytes.start as libc::off_t;
    lock.l_len = (bytes.end - bytes.start) as libc::off_t;
    loop {
        // SAFETY: the descriptor is open for as long as it is borrowed, and `lock` is a `flock` for these commands.
        let answer = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) };
        if answer != -1 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Makes the pages of a mapped range present and writable, so that nobody faults on them later. Best effort: a kernel
/// that cannot (before 5.14) leaves it to the faults.
///
/// `start` and `bytes` are whole pages inside a mapping of this process; otherwise the kernel refuses.
pub(crate) fn populate(start: *mut u8, bytes: usize) {
    // SAFETY: populating changes no content, and a range that is not mapped is refused by the kernel.
    let _best_effort = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_POPULATE_WRITE) };
}

/// Has `hook` called when the process exits by `exit` or by returning from `main`.
pub(crate) fn at_exit(hook: extern "C" fn()) {
    // SAFETY: a plain function pointer that stays valid; registering has no other condition.
    let _best_effort = unsafe { libc::atexit(hook) };
}
