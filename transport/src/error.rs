//! What can go wrong with shared memory.

use std::path::PathBuf;

/// Why a segment could not be created, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// No such segment: its last user has ended or destroyed it.
    #[error("the segment {name} is gone: it was destroyed, or its last user has ended")]
    Gone { name: String },
    /// A file that is no segment of this kind.
    #[error("{path} is not {wanted}: {found}")]
    Foreign { path: PathBuf, wanted: &'static str, found: String },
    /// A segment made by another version, or on a machine of another kind.
    #[error(
        "{path} has layout {found}; this program understands {wanted}: use one version of the program for both"
    )]
    Layout { path: PathBuf, found: String, wanted: String },
    /// A file of another user.
    #[error("{path} belongs to user {owner}, this process runs as user {user}")]
    Owner { path: PathBuf, owner: u32, user: u32 },
    /// Shared memory is full.
    #[error("{dir} is full: {needed} bytes are needed, {free} are free; {hint}")]
    Full { dir: PathBuf, needed: u64, free: u64, hint: &'static str },
    /// Too many processes.
    #[error("{max} processes use the segment already")]
    Members { max: u32 },
    /// Too many threads.
    #[error("{max} threads use the segment already")]
    Agents { max: u32 },
    /// What the memory says cannot be: it was damaged.
    #[error("the segment is damaged: {what} at byte {offset}")]
    Damaged { what: &'static str, offset: u64 },
    /// The system refused.
    #[error("could not {verb} {path}: {source}")]
    System { verb: &'static str, path: PathBuf, source: std::io::Error },
}

/// Why memory was not given.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// Not enough of it.
    #[error("{needed} bytes are needed, {free} of {capacity} are free")]
    Full { needed: u64, free: u64, capacity: u64 },
    /// More than the whole of it.
    #[error("{needed} bytes are needed, the whole is {capacity}")]
    TooLarge { needed: u64, capacity: u64 },
    /// A thread holds too many blocks at once.
    #[error("a thread can hold {max} blocks that are not yet published")]
    Held { max: usize },
    /// The segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}
