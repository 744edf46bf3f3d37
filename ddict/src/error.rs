//! What can go wrong with a dictionary.

use tarragon_transport::{HeapError, SegmentError};

/// Why a dictionary could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was destroyed, or its last user has ended.
    #[error("the dictionary {name} is gone: it was destroyed, or its last user has ended")]
    Gone {
        /// Name of its segment.
        name: String,
    },
    /// It is frozen.
    #[error("the dictionary {name} is frozen: `unfreeze` it before writing")]
    Frozen {
        /// Name of its segment.
        name: String,
    },
    /// The checkpoint is no longer kept.
    #[error("checkpoint {checkpoint} is retired: the oldest that is kept is {oldest} (the working set is {kept})")]
    Retired {
        /// The one that was asked for.
        checkpoint: u32,
        /// The oldest that is there.
        oldest: u32,
        /// How many are kept.
        kept: u32,
    },
    /// Nobody wrote the key in time.
    #[error("no value for the key within {waited_ms} ms: {key}")]
    Timeout {
        /// The key, shown.
        key: String,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// A key that is too long.
    #[error("a key of {bytes} bytes: at most {max} are allowed")]
    KeyTooLong {
        /// Its length.
        bytes: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// Memory is full, or the value is larger than all of it. Nothing was written.
    #[error("no memory for the value: {0}")]
    Memory(HeapError),
    /// What the memory says cannot be: it was damaged.
    #[error("the dictionary is damaged: {what} at byte {offset}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// The value's bytes are not those that were put.
    #[error("the value of the key {key} is damaged: its checksum is wrong")]
    Checksum {
        /// The key, shown.
        key: String,
    },
    /// The segment.
    #[error(transparent)]
    Segment(SegmentError),
}
