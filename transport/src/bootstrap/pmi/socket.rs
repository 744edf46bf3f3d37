//! The socket to the launcher: lines out and in, each until a deadline.
#![expect(unsafe_code, reason = "takes over a descriptor that it inherited by number")]

use std::io::{Error, ErrorKind, Result};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::ENV_DESCRIPTOR;
use crate::fabric::Deadline;

/// The longest line that is taken.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Set when the inherited descriptor was taken over.
static TAKEN: AtomicBool = AtomicBool::new(false);

pub(super) struct Socket {
    end: OwnedFd,
    /// What has come and was not read yet.
    read: Vec<u8>,
}

/// Whether the descriptor that the environment names is open here, and a socket.
pub(in crate::bootstrap) fn is_handed() -> bool {
    std::env::var_os(super::ENV_PORT).is_some() || number().is_some()
}

/// Whether this process has taken its descriptor over.
pub(super) fn is_taken() -> bool {
    TAKEN.load(Ordering::Relaxed)
}

/// The number of the descriptor, if that is a socket here.
fn number() -> Option<RawFd> {
    let number: RawFd = std::env::var(ENV_DESCRIPTOR).ok()?.parse().ok().filter(|number| *number > 2)?;
    let file = std::fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
    file.file_type().is_socket().then_some(number)
}

impl Socket {
    /// A copy of the descriptor that the environment names, which is kept from the programs that this process starts;
    /// `None` if it is not open here. Once per process.
    pub(super) fn inherited() -> Option<Socket> {
        let number = number()?;
        if TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: an open socket, which the launcher made for this process. An MPI of the program's may close it when
        // it ends, which takes longer than this call.
        let handed = unsafe { BorrowedFd::borrow_raw(number) };
        let end = rustix::io::fcntl_dupfd_cloexec(handed, 3).ok()?;
        let kept = rustix::io::fcntl_setfd(handed, FdFlags::CLOEXEC);
        kept.is_ok().then(|| Socket { end, read: Vec::new() })
    }

    /// Keeps the connection as long as the process lives. A launcher kills a process whose connection ends without a
    /// word, and this one may have something to say of why.
    pub(super) fn keep(&self) {
        if let Ok(copy) = rustix::io::fcntl_dupfd_cloexec(&self.end, 3) {
            std::mem::forget(copy);
        }
    }

    /// Connects to a launcher's `host:port`.
    pub(super) fn connect(address: &str) -> Result<Socket> {
        Ok(Socket { end: TcpStream::connect(address)?.into(), read: Vec::new() })
    }

    /// Sends a line.
    pub(super) fn write(&mut self, line: &str, deadline: Deadline) -> Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.wait_for(PollFlags::OUT, deadline)?;
            match send(&self.end, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next line.
    pub(super) fn read(&mut self, deadline: Deadline) -> Result<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "a line without an end"));
            }
            self.wait_for(PollFlags::IN, deadline)?;
            let mut some = [0; 4096];
            match recv(&self.end, &mut some, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    return Err(Error::new(ErrorKind::UnexpectedEof, "it has closed the connection"));
                }
                Ok((count, _)) => self.read.extend_from_slice(&some[..count.min(some.len())]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait_for(&self, what: PollFlags, deadline: Deadline) -> Result<()> {
        let left = deadline.left().ok_or(ErrorKind::TimedOut)?;
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::from_borrowed_fd(self.end.as_fd(), what)], left.as_ref()) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket { end: ours.into(), read: Vec::new() }, theirs)
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let (mut socket, mut launcher) = pair();
        let deadline = Deadline::after(Duration::from_secs(60));
        launcher.write_all(b"cmd=a rc=0\ncmd=b").unwrap();
        assert_eq!(socket.read(deadline).unwrap(), "cmd=a rc=0");
        launcher.write_all(b" rc=1\n").unwrap();
        assert_eq!(socket.read(deadline).unwrap(), "cmd=b rc=1");
    }

    #[test]
    fn a_launcher_that_is_silent_endless_or_gone_is_an_error() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let (mut socket, mut launcher) = pair();
        let silent = socket.read(Deadline::after(Duration::from_millis(20))).unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        let endless = std::thread::spawn(move || drop(launcher.write_all(&[b'x'; 2 * LINE_BYTES_MAX])));
        assert_eq!(socket.read(deadline).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(socket);
        endless.join().unwrap();
        let (mut socket, launcher) = pair();
        drop(launcher);
        assert_eq!(socket.read(deadline).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(socket.write("cmd=init", deadline).is_err());
    }
}
