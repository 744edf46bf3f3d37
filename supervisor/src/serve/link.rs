//! The supervisor's end of the socket: reads and writes without ever waiting, so that it goes on when the engine stands
//! still. What frames say is left to `wire`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::wire::whole;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;

/// A socket with what was read and not handled, and what is to be written.
pub(super) struct Link {
    socket: OwnedFd,
    incoming: Vec<u8>,
    /// Where in `incoming` the bytes begin that were not handled.
    handled: usize,
    /// Where they end.
    filled: usize,
    outgoing: Vec<u8>,
    /// The last frame's memory.
    spare: Vec<u8>,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Link {
        Link { socket, incoming: Vec::new(), handled: 0, filled: 0, outgoing: Vec::new(), spare: Vec::new() }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Reads once what is there; false at the engine's end.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        if self.handled > 0 {
            self.incoming.copy_within(self.handled..self.filled, 0);
            self.filled -= self.handled;
            self.handled = 0;
        }
        if self.incoming.len() < self.filled + READ_BYTES {
            self.incoming.resize(self.filled + READ_BYTES, 0);
        }
        match recv(&self.socket, &mut self.incoming[self.filled..], RecvFlags::empty()) {
            Ok((0, _)) => Ok(false),
            Ok((count, _)) => {
                self.filled += count;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(Errno::CONNRESET) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// True when a whole frame waits to be handled.
    pub(super) fn has_frame(&self) -> io::Result<bool> {
        Ok(whole(&self.incoming[self.handled..self.filled])?.is_some())
    }

    /// The next whole frame, taken out, so that handling it may use this link.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let rest = &self.incoming[self.handled..self.filled];
        let Some(length) = whole(rest)? else { return Ok(None) };
        let mut frame = std::mem::take(&mut self.spare);
        frame.clear();
        frame.extend(&rest[..length]);
        self.handled += length;
        Ok(Some(frame))
    }

    /// Takes a handled frame's memory back.
    pub(super) fn give_back(&mut self, frame: Vec<u8>) {
        self.spare = frame;
    }

    /// Where to append frames.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        match send(&self.socket, &self.outgoing, SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.outgoing.drain(..count);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
