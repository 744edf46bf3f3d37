//! The connection between a leader and a guard: frames of 4 bytes of length and a message, on a socket that neither end
//! waits for.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::sockopt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::devices::Ids;

/// The longest message: a rank's arguments and environment, or some of its output.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;
/// When a silent other end is asked whether it is there, how often, and how many answers may be missing: its machine
/// counts as lost after ten seconds.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(4), Duration::from_secs(2), 3);
/// How long what was sent may stay without an answer of the other machine, or an end that does not read (a leader whose
/// disk stands still) may keep the other waiting.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);

/// What a guard says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromGuard {
    /// It is there, for this rank, on this machine.
    Hello { secret: [u8; 16], rank: u32, host: String },
    /// The program runs.
    Started,
    /// It does not, and why.
    CouldNotStart(String),
    /// It wrote this to its standard output.
    Out(Vec<u8>),
    /// The same for its standard error.
    Err(Vec<u8>),
    /// It has read all input that it was given.
    Hungry,
    /// It has ended, and nothing of it is left.
    Ended { status: i32, max_rss_bytes: u64, user: Duration, system: Duration },
}

/// What a leader says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromLeader {
    /// Run this.
    Start(Box<Start>),
    /// Input; an empty piece is its end.
    Input(Vec<u8>),
    /// End what runs: TERM now, KILL after this time.
    End(Duration),
    /// All that was said has been heard: go.
    Bye,
}

/// What a rank is to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    /// Of these, names that begin as one of `launcher_variables` are as the guard has them.
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) launcher_variables: Vec<String>,
    /// Changes after that.
    pub(super) changes: Vec<(OsString, Option<OsString>)>,
    pub(super) cwd: OsString,
    pub(super) has_input: bool,
    /// CPUs to run on, and whether they count those that the guard may use.
    pub(super) cpus: Option<(Vec<u32>, bool)>,
    /// The GPUs that it holds.
    pub(super) devices: Option<Ids>,
    /// Exit codes that the launcher is not to take for failures.
    pub(super) accept: Vec<i32>,
}

/// One end.
pub(super) struct Channel {
    socket: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Nothing comes any more.
    is_over: bool,
}

impl Channel {
    pub(super) fn new(socket: TcpStream) -> io::Result<Channel> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEPALIVE.0)?;
        sockopt::set_tcp_keepintvl(&socket, KEEPALIVE.1)?;
        sockopt::set_tcp_keepcnt(&socket, KEEPALIVE.2)?;
        // An old kernel may not know it; then a machine that is lost while something is on its way is missed later.
        let _ = sockopt::set_tcp_user_timeout(&socket, UNANSWERED_MAX.as_millis() as u32);
        Ok(Channel { socket, incoming: Vec::new(), outgoing: Vec::new(), is_over: false })
    }

    /// What to poll for.
    pub(super) fn wanted(&self) -> PollFlags {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.outgoing.is_empty());
        wanted
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// Nothing of the other end is wanted any more.
    pub(super) fn break_off(&mut self) {
        self.is_over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends what the socket takes now; the rest waits for [`flush`](Self::flush).
    pub(super) fn send(&mut self, message: &impl Serialize) {
        let start = self.outgoing.len();
        self.outgoing.extend([0; 4]);
        let filled = std::mem::take(&mut self.outgoing);
        self.outgoing = postcard::to_extend(message, filled).expect("messages can be written");
        let length = (self.outgoing.len() - start - 4) as u32;
        self.outgoing[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match self.socket.write(&self.outgoing[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // The other end is gone; reading tells so, after what it has sent before.
                    sent = self.outgoing.len();
                }
            }
        }
        self.outgoing.drain(..sent);
    }

    /// Reads what is there, and takes the whole messages in it.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Vec<T>> {
        let mut messages = Vec::new();
        let start = self.incoming.len();
        self.incoming.resize(start + READ_BYTES, 0);
        let read = self.socket.read(&mut self.incoming[start..]);
        self.incoming.truncate(start + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => self.is_over = true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.is_over = true,
        }
        let mut at = 0;
        while let Some(length) = self.incoming[at..].first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some(message) = self.incoming.get(at + 4..at + 4 + length) else { break };
            let message = postcard::from_bytes(message).map_err(|_| io::ErrorKind::InvalidData)?;
            messages.push(message);
            at += 4 + length;
        }
        self.incoming.drain(..at);
        Ok(messages)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
