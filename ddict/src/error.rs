//! What can go wrong with a dictionary.

use crate::persist::PersistId;
use std::path::PathBuf;
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
    #[error(
        "checkpoint {checkpoint} is retired: the oldest that is kept is {oldest} (the working set is {kept})"
    )]
    Retired {
        /// The one that was asked for.
        checkpoint: u32,
        /// The oldest that is there.
        oldest: u32,
        /// How many are kept.
        kept: u32,
    },
    /// There is no checkpoint before the first, or none after the last number.
    #[error("no checkpoint {side} {checkpoint}: they are numbered from 0 to {}", u32::MAX)]
    Checkpoint {
        /// The handle's.
        checkpoint: u32,
        /// "before" or "after".
        side: &'static str,
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
    /// A key or value that has no encoding.
    #[error("this {what} of type {type_name} cannot be encoded: {reason}")]
    Encode {
        /// "key" or "value".
        what: &'static str,
        /// Its type.
        type_name: String,
        /// Why not.
        reason: String,
    },
    /// Bytes that are no key or value of the type.
    #[error(
        "the {what} of the entry {key} is no {type_name}: {reason}; were its bytes put by another program?"
    )]
    Decode {
        /// "key" or "value".
        what: &'static str,
        /// The key, shown.
        key: String,
        /// The type that was asked for.
        type_name: String,
        /// What is wrong.
        reason: String,
    },
    /// Attached with other types than the dictionary was made with.
    #[error("the dictionary {name} maps {made}, not {asked}: attach it with the types it was made with")]
    Types {
        /// Name of its segment.
        name: String,
        /// What it maps, as "K to V".
        made: String,
        /// What was asked for.
        asked: String,
    },
    /// A value of a dictionary of mixed values is of another type.
    #[error("the value of the key {key} is a {holds}, not a {asked}")]
    ValueType {
        /// The key, shown.
        key: String,
        /// The type that was put.
        holds: String,
        /// The type that was asked for.
        asked: String,
    },
    /// A dictionary of another machine.
    #[error("the dictionary {name} lives on another machine (boot {host}, this is {here}): attach it there")]
    Host {
        /// Name of its segment.
        name: String,
        /// Boot id of its machine.
        host: String,
        /// Boot id of this one.
        here: String,
    },
    /// A dictionary that spans the nodes of a world, and this process is not in that.
    #[error(
        "the dictionary {name} spans the nodes of a world that this process is not in: attach it in one of its ranks"
    )]
    World {
        /// Name of the segment of its first part.
        name: String,
    },
    /// The rank that answers for a node's keys is gone.
    #[error("the keys of the dictionary {name} on host {host} are lost with rank {rank}: {why}")]
    Lost {
        /// Name of the segment of its first part.
        name: String,
        /// The rank.
        rank: u32,
        /// Its host.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// The rank that answers for a node's keys could not.
    #[error("rank {rank} on host {host} could not do it: {what}")]
    Far {
        /// The rank.
        rank: u32,
        /// Its host.
        host: String,
        /// Why not.
        what: String,
    },
    /// A text that is no descriptor.
    #[error("`{text}` is no descriptor of a dictionary: {reason}")]
    Descriptor {
        /// The text, shortened.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An option that cannot be.
    #[error("{name}({value}) cannot be: {wanted}")]
    Setting {
        /// Name of the builder's method.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What can be.
        wanted: String,
    },
    /// A key of another shard than the handle is pinned to.
    #[error("the key {key} belongs to shard {home}, this handle is pinned to shard {shard}")]
    OtherShard {
        /// The key, shown.
        key: String,
        /// Where it belongs.
        home: u32,
        /// The handle's.
        shard: u32,
    },
    /// There is no such shard.
    #[error("no shard {shard}: the dictionary has {shards}, numbered from 0")]
    NoShard {
        /// The one that was asked for.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// Some of many puts were done, then one failed.
    #[error("{written} of {total} puts were done, then: {source}")]
    Batch {
        /// Puts that were done.
        written: usize,
        /// Puts that were asked for.
        total: usize,
        /// Why the next one failed.
        source: Box<Error>,
    },
    /// The system refused a file of a persisted dictionary.
    #[error("could not {verb} {path}: {source}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of a persisted dictionary is torn, damaged, or of another program.
    #[error("{path} is damaged: {reason}")]
    Torn {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing was persisted under this id.
    #[error("{dir} holds no persisted dictionary {id}; it holds {}", numbers(known))]
    NotPersisted {
        /// The directory.
        dir: PathBuf,
        /// The id that was asked for.
        id: PersistId,
        /// The ids that are there.
        known: Vec<PersistId>,
    },
}

fn numbers(ids: &[PersistId]) -> String {
    let numbers: Vec<String> = ids.iter().map(PersistId::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}

impl Error {
    /// A gone segment is a gone dictionary, whoever found out.
    pub(crate) fn from_segment(error: SegmentError) -> Self {
        match error {
            SegmentError::Gone { name } => Self::Gone { name },
            other => Self::Segment(other),
        }
    }
}

impl From<SegmentError> for Error {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Gone { name } => Self::Gone { name },
            SegmentError::Damaged { what, offset } => Self::Damaged { what, offset },
            other => Self::Segment(other),
        }
    }
}

impl From<HeapError> for Error {
    fn from(error: HeapError) -> Self {
        match error {
            HeapError::Segment(error) => error.into(),
            full => Self::Memory(full),
        }
    }
}
