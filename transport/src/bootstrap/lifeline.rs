//! What ends a copy of the program when the process that started it ends, however that comes.
//!
//! The starter keeps the writing end of a pipe; each copy inherits the reading end, and one thread of it sleeps in a
//! read. When the starter is gone the read returns, and the copy kills itself at once. Unlike the kernel's signal at a
//! parent's death this does not depend on the thread that started the copy, which may end long before the process.
//!
//! The number of the descriptor, and the pipe's device and inode, stand in the environment. A process that finds them
//! there and has that pipe is a copy that was meant; one that has not is a child of a copy (which closes the pipe for
//! its children), or a child of somebody else who inherited the environment: it is no rank.
#![expect(unsafe_code, reason = "takes over a descriptor that it inherited by number")]

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

/// The starter's end. When it is dropped, the copies end.
#[derive(Debug)]
pub(super) struct Lifeline {
    _writer: PipeWriter,
    reader: PipeReader,
    text: String,
}

impl Lifeline {
    /// A pipe whose reading end is inherited by the processes started while this lives.
    pub(super) fn new() -> std::io::Result<Lifeline> {
        let (reader, writer) = std::io::pipe()?;
        rustix::io::fcntl_setfd(reader.as_fd(), FdFlags::empty())?;
        let number = reader.as_raw_fd();
        let pipe = std::fs::metadata(path(number))?;
        let text = format!("{number}:{}:{}", pipe.dev(), pipe.ino());
        Ok(Lifeline { _writer: writer, reader, text })
    }

    /// What a copy needs to find it: a word for the environment.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Stops handing the reading end to new processes.
    pub(super) fn close_to_others(&self) -> std::io::Result<()> {
        Ok(rustix::io::fcntl_setfd(self.reader.as_fd(), FdFlags::CLOEXEC)?)
    }
}

/// A copy's end.
pub(super) struct Inherited {
    number: RawFd,
}

impl Inherited {
    /// The one that a text in the environment names, if this process has it.
    pub(super) fn find(text: &str) -> Option<Inherited> {
        let mut parts = text.split(':');
        let number: RawFd = parts.next()?.parse().ok()?;
        let (dev, ino): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let pipe = std::fs::metadata(path(number)).ok()?;
        let is_it = pipe.file_type().is_fifo() && pipe.dev() == dev && pipe.ino() == ino;
        is_it.then_some(Inherited { number })
    }

    /// Lets a thread watch it from now on, and keeps it from this process's own children. Once per process; false
    /// if it was done before.
    pub(super) fn watch(&self) -> std::io::Result<bool> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(false);
        }
        // SAFETY: the number is that of a pipe that was made for this process, inherited across its start, and that
        // nobody else in it knows of; `TAKEN` lets it be taken once.
        let reader = unsafe { OwnedFd::from_raw_fd(self.number) };
        rustix::io::fcntl_setfd(&reader, FdFlags::CLOEXEC)?;
        let watch = move || end_with(File::from(reader));
        std::thread::Builder::new().name("lifeline".to_owned()).stack_size(1 << 16).spawn(watch)?;
        Ok(true)
    }
}

/// Sleeps until the writing end is gone, and then ends this process as a signal would.
fn end_with(mut pipe: File) {
    // Nobody writes; an error of the read is no more than its end.
    while matches!(pipe.read(&mut [0]), Ok(count) if count > 0) {}
    let own = rustix::process::getpid();
    // Cannot be refused: a process may signal itself.
    let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
}

fn path(number: RawFd) -> String {
    format!("/proc/self/fd/{number}")
}
