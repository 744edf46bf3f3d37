//! Two POSIX pipes, one each way, of the kernel's usual size. Who reads sleeps: a pipe cannot be waited for otherwise
//! without a system call at every turn.

use super::{Item, Side, from_bytes, to_bytes};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

/// One of two sides.
pub(crate) struct Pipe {
    to: File,
    from: File,
    /// The ends that the other side opens.
    others: Option<[OwnedFd; 2]>,
}

impl Pipe {
    pub(crate) fn create() -> Self {
        let (their_from, to) = std::io::pipe().expect("a pipe");
        let (from, their_to) = std::io::pipe().expect("a pipe");
        let others = Some([their_from.into(), their_to.into()]);
        Self { to: File::from(OwnedFd::from(to)), from: File::from(OwnedFd::from(from)), others }
    }

    pub(crate) fn attach(address: &str) -> Self {
        let (from, to) = address.split_once('+').expect("two addresses");
        let from = File::open(from).expect("its owner lives");
        let to = OpenOptions::new().write(true).open(to).expect("its owner lives");
        Self { to, from, others: None }
    }

    pub(crate) fn address(&self) -> String {
        let others = self.others.as_ref().expect("this side made the pipes");
        let [from, to] =
            others.each_ref().map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
        format!("{from}+{to}")
    }
}

impl<T: Item> Side<T> for Pipe {
    fn send(&mut self, item: T) {
        self.to.write_all(&to_bytes(&item)[..T::WORDS * 8]).expect("the other side reads");
    }

    fn receive(&mut self) -> T {
        let mut bytes = [0; 64];
        self.from.read_exact(&mut bytes[..T::WORDS * 8]).expect("the other side writes");
        from_bytes(&bytes)
    }
}
