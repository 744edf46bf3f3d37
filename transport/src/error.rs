//! What can go wrong with shared memory, and what whoever meets it can do.

use std::path::PathBuf;

/// Why a segment could not be created, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// No such segment: its last user has ended or destroyed it.
    #[error("the segment {name} is gone: it was destroyed, or its last user has ended")]
    Gone {
        /// Its file name.
        name: String,
    },
    /// A file that is no segment of this kind.
    #[error("{path} is not {wanted}: {found}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
    /// A segment made by another version, or on a machine of another kind.
    #[error(
        "{path} has layout {found}; this program understands {wanted}: use one version of the program for both"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: String,
        /// This program's.
        wanted: String,
    },
    /// A file of another user.
    #[error("{path} belongs to user {owner}, this process runs as user {user}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// The user it belongs to.
        owner: u32,
        /// The user this process runs as.
        user: u32,
    },
    /// Shared memory is full.
    #[error("{dir} is full: {needed} bytes are needed, {free} are free; {hint}")]
    Full {
        /// The folder whose file system is full.
        dir: PathBuf,
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that are free there.
        free: u64,
        /// What to do.
        hint: &'static str,
    },
    /// Too many processes.
    #[error("{max} processes use the segment already")]
    Members {
        /// The most there can be.
        max: u32,
    },
    /// Too many threads.
    #[error("{max} threads use the segment already")]
    Agents {
        /// The most there can be.
        max: u32,
    },
    /// Asked for by a thread that ends: its agents are released already (a destructor of a thread-local value).
    #[error("the thread ends: it can use no segment any more")]
    ThreadEnds,
    /// What the memory says cannot be: it was damaged.
    #[error("the segment is damaged: {what} at byte {offset}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// The system refused.
    #[error("could not {verb} {path}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Why memory was not given.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// Not enough of it.
    #[error("{needed} bytes are needed, {free} of {capacity} are free")]
    Full {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that are free, perhaps in smaller pieces.
        free: u64,
        /// Bytes there are.
        capacity: u64,
    },
    /// More than the whole of it.
    #[error("{needed} bytes are needed, the whole is {capacity}")]
    TooLarge {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes there are.
        capacity: u64,
    },
    /// A thread holds too many blocks at once.
    #[error("a thread can hold {max} blocks that are not yet published")]
    Held {
        /// The most it can hold.
        max: usize,
    },
    /// The segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}
