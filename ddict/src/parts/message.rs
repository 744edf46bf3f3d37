//! What processes ask the servers of a dictionary's parts, and what these answer.
//!
//! A question is a [`Question`], followed by the key's bytes and the value's, if it has them; an answer is a `Result`
//! of a [`Reply`] and a [`Fault`], followed by the value's bytes or a page of keys. What a home sends its replicas is a
//! [`WriteHead`] with key and value, or a [`Whole`]; what servers send one another for copies is in `copies`.

use crate::error::Error;
use crate::store::{Keep, Options, ShardFigures, Spot, When};
use serde::{Deserialize, Serialize};
use tarragon_transport::segment::SegmentName;
pub(super) use tarragon_transport::wire::head;
use tarragon_transport::{HandlerId, HeapError, Rank, RemoteKey, wire};

/// Questions come to this handler.
pub(super) const QUESTION: HandlerId = HandlerId(0xED00);
/// Who has closed its last handle tells this one.
pub(super) const LEAVE: HandlerId = HandlerId(0xED01);
/// Copies of a key's value, or that they are to go, come to this one.
pub(super) const COPY: HandlerId = HandlerId(0xED02);
/// That this was done, to this one of who began it.
pub(super) const COPIED: HandlerId = HandlerId(0xED03);

/// Writes come to this one of a replica.
pub(super) const REPLICATE: HandlerId = HandlerId(0xED04);
/// That they were done, to this one of the home.
pub(super) const REPLICATED: HandlerId = HandlerId(0xED05);
/// What concerns all keys, to this one of a replica; a request.
pub(super) const WHOLE: HandlerId = HandlerId(0xED06);

/// To a replica, from the one that takes the part over: what has it done that may not be settled? A request.
pub(super) const TAKE_OVER: HandlerId = HandlerId(0xED07);
/// A write to a replica, from the one that takes the part over; a request.
pub(super) const MEND: HandlerId = HandlerId(0xED08);

/// The bytes of a value, and how it is kept.
pub(crate) type KeptBytes<'b> = (&'b [u8], Keep);

/// Where a part lies, and who answers for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Home {
    pub(crate) rank: Rank,
    pub(crate) host: String,
    pub(crate) segment: SegmentName,
    /// Of the copies that lie there.
    pub(crate) copies: SegmentName,
    /// Of its replicas of other parts, in the order of `Placement::kept_by`.
    pub(crate) replicas: Vec<SegmentName>,
}

/// Which of a process's writes it is, where keys have replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct WriteId {
    pub(super) number: u64,
    /// The process still waits for this one, and for none before.
    pub(super) waits_from: u64,
}

/// What stands before the key and the value of a write that goes to a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WriteHead {
    /// Of the replica's segment.
    pub(super) part: u128,
    /// Of the part's segment.
    pub(super) home: u128,
    /// The replica's node.
    pub(super) node: u32,
    /// That of the home's placement.
    pub(super) epoch: u32,
    pub(super) version: u64,
    /// All versions before this one are over, also at home.
    pub(super) settled: u64,
    pub(super) checkpoint: u32,
    pub(super) change: Change,
    /// It puts the key to what it was before `write`.
    pub(super) takes_back: bool,
    /// It comes from who takes the part over: one that cannot do it has fallen behind.
    pub(super) mends: bool,
    /// Bytes of the key.
    pub(super) key: u32,
    /// Whose write it is.
    pub(super) write: Option<(Rank, WriteId)>,
}

/// What becomes of a key in a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Change {
    /// It has the value that follows.
    Put(Keep),
    Remove,
    /// The same, and the answer is the value.
    Pop,
    /// The checkpoint says nothing of it.
    Withdraw,
}

/// A write that a replica has done and that may not be settled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Recent {
    pub(super) key: Vec<u8>,
    pub(super) checkpoint: u32,
    pub(super) change: Change,
    pub(super) takes_back: bool,
    pub(super) write: Option<(Rank, WriteId)>,
}

/// That a replica has done the write whose version is the tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Replicated {
    /// The home's.
    pub(super) part: u128,
    pub(super) node: u32,
    pub(super) fault: Option<Fault>,
}

/// What a replica does with all keys; the number is its segment's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Whole {
    /// Goes on to this checkpoint, as its home has done.
    Follow {
        checkpoint: u32,
    },
    Clear {
        checkpoint: u32,
    },
    Freeze(bool),
}
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// Of the part's segment; 0 where there is none yet.
    pub(super) part: u128,
    /// Bytes of the key that follows.
    pub(super) key: u32,
    pub(super) write: Option<WriteId>,
    pub(super) verb: Verb,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Verb {
    // For a key.
    Get {
        checkpoint: u32,
        verified: bool,
    },
    /// As `Get`, and where the value lies.
    Find {
        checkpoint: u32,
    },
    Peek {
        checkpoint: u32,
    },
    Contains {
        checkpoint: u32,
    },
    Put {
        checkpoint: u32,
        when: When,
        keep: Keep,
    },
    Remove {
        checkpoint: u32,
    },
    /// If it has the value that follows first, of so many bytes (`None`: is not there), it gets the one that follows
    /// after it (`None`: goes).
    Exchange {
        checkpoint: u32,
        expected: Option<u64>,
        new: bool,
    },
    /// Puts it, and a copy on each node.
    Broadcast {
        checkpoint: u32,
        keep: Keep,
    },
    /// The state of those who wait for it.
    Watch,
    /// Answered when that state is another than `seen`, or when so much time has gone by.
    Wait {
        seen: u32,
        ms: Option<u64>,
    },
    // For a shard.
    Scan {
        shard: u32,
        checkpoint: u32,
        cursor: u64,
        values: bool,
    },
    Figures {
        shard: u32,
        checkpoint: u32,
    },
    // For a part.
    Len {
        checkpoint: u32,
    },
    Usage,
    /// What was read on that node of other nodes' keys without a question, by shard among so many in all.
    Hits {
        shards: u32,
    },
    Checkpoints,
    Clear {
        checkpoint: u32,
    },
    Freeze(bool),
    Destroy,
    Recover,
    /// Goes on to this checkpoint, unless keys are missing.
    Advance {
        checkpoint: u32,
    },
    /// Makes a part, one of so many; whoever asks has it open.
    Make(Options, u32),
    /// Lets others read its memory.
    Show,
    /// Whoever asks has it open.
    Enter,
    /// Where all parts lie, and which of them this is.
    Know {
        homes: Vec<Home>,
        here: u32,
    },
    /// Has the copies of all keys of a cell taken away everywhere.
    GiveUp {
        cell: u32,
    },
}

impl Verb {
    /// Whether it takes no longer than a look and a write, so that a handler may do it.
    pub(super) fn is_quick(&self) -> bool {
        matches!(
            self,
            Verb::Get { .. }
                | Verb::Find { .. }
                | Verb::Peek { .. }
                | Verb::Contains { .. }
                | Verb::Put { .. }
                | Verb::Remove { .. }
                | Verb::Exchange { .. }
                | Verb::Watch
        )
    }

    /// The checkpoint that a write is for.
    pub(super) fn checkpoint(&self) -> Option<u32> {
        match self {
            Verb::Put { checkpoint, .. }
            | Verb::Remove { checkpoint }
            | Verb::Exchange { checkpoint, .. }
            | Verb::Broadcast { checkpoint, .. } => Some(*checkpoint),
            _ => None,
        }
    }

    /// Whether it writes a key, so that copies of that must go first.
    pub(super) fn is_write(&self) -> bool {
        matches!(self, Verb::Put { .. } | Verb::Remove { .. } | Verb::Exchange { .. })
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Yes or no; that it was done.
    Is(bool),
    /// The value follows, and is kept so.
    Value(Keep),
    /// The value follows, and lies there (`None`: where it cannot be found again).
    Found(Option<Spot>),
    /// There is no value.
    Nothing,
    Watch(u32),
    Count(u64),
    Hits(Vec<u64>),
    /// The key of its memory.
    Shown(RemoteKey),
    Figures(ShardFigures),
    /// Capacity, committed and allocated bytes; and those allocated for replicas of other parts.
    Usage([u64; 4]),
    Checkpoints(u32, u32),
    /// A page of keys follows (see [`add_key`]), and where the next one begins.
    Page(Option<u64>),
    /// This key must be written anew first.
    Missing(Vec<u8>),
    /// Its segment, that of the copies there, and those of replicas.
    Made(SegmentName, SegmentName, Vec<SegmentName>),
}

impl Reply {
    pub(super) fn count(self) -> Option<u64> {
        if let Reply::Count(count) = self { Some(count) } else { None }
    }

    pub(super) fn hits(self) -> Option<Vec<u64>> {
        if let Reply::Hits(hits) = self { Some(hits) } else { None }
    }

    pub(super) fn usage(self) -> Option<[u64; 4]> {
        if let Reply::Usage(usage) = self { Some(usage) } else { None }
    }

    pub(super) fn checkpoints(self) -> Option<(u32, u32)> {
        if let Reply::Checkpoints(newest, oldest) = self { Some((newest, oldest)) } else { None }
    }
}

/// An error of a part.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    Gone,
    /// It will answer for the part, and does not yet: who asks is to ask again.
    NotYet,
    Frozen,
    Retired {
        checkpoint: u32,
        oldest: u32,
        kept: u32,
    },
    Full {
        needed: u64,
        free: u64,
        capacity: u64,
    },
    TooLarge {
        needed: u64,
        capacity: u64,
    },
    Checksum,
    Other(String),
}

impl Fault {
    pub(super) fn of(error: &Error) -> Fault {
        match error {
            Error::Gone { .. } => Fault::Gone,
            Error::Frozen { .. } => Fault::Frozen,
            Error::Retired { checkpoint, oldest, kept } => {
                Fault::Retired { checkpoint: *checkpoint, oldest: *oldest, kept: *kept }
            }
            Error::Memory(HeapError::Full { needed, free, capacity }) => {
                Fault::Full { needed: *needed, free: *free, capacity: *capacity }
            }
            Error::Memory(HeapError::TooLarge { needed, capacity }) => {
                Fault::TooLarge { needed: *needed, capacity: *capacity }
            }
            Error::Checksum { .. } => Fault::Checksum,
            other => Fault::Other(other.to_string()),
        }
    }

    /// The same error, of the part of the dictionary `name` that a rank answers for.
    pub(super) fn error(self, name: &str, (rank, host): (Rank, &str), key: &[u8]) -> Error {
        match self {
            Fault::Gone | Fault::NotYet => Error::Gone { name: name.to_owned() },
            Fault::Frozen => Error::Frozen { name: name.to_owned() },
            Fault::Retired { checkpoint, oldest, kept } => Error::Retired { checkpoint, oldest, kept },
            Fault::Full { needed, free, capacity } => {
                Error::Memory(HeapError::Full { needed, free, capacity })
            }
            Fault::TooLarge { needed, capacity } => Error::Memory(HeapError::TooLarge { needed, capacity }),
            Fault::Checksum => Error::Checksum { key: String::from_utf8_lossy(key).into_owned() },
            Fault::Other(what) => Error::Far { rank: rank.0, host: host.to_owned(), what },
        }
    }
}

/// A head as bytes, to be followed by others.
pub(super) fn bytes<T: Serialize>(head: &T) -> Vec<u8> {
    wire::encode(head).expect("a head has no maps")
}

/// Adds a key to a page: its length and bytes, and whether its value follows likewise, and how that is kept.
pub(super) fn add_key(page: &mut Vec<u8>, key: &[u8], value: Option<KeptBytes<'_>>) {
    add_bytes(page, key);
    page.push(match value {
        None => 0,
        Some((_, Keep::Default)) => 1,
        Some((_, Keep::Persistent)) => 2,
    });
    if let Some((value, _)) = value {
        add_bytes(page, value);
    }
}

fn add_bytes(page: &mut Vec<u8>, bytes: &[u8]) {
    page.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    page.extend_from_slice(bytes);
}

/// The first key of a page, its value if it came with it, and the rest.
pub(super) fn next_key(page: &[u8]) -> Option<(&[u8], Option<KeptBytes<'_>>, &[u8])> {
    let (key, page) = next_bytes(page)?;
    let (kind, page) = page.split_first()?;
    let keep = match kind {
        0 => return Some((key, None, page)),
        1 => Keep::Default,
        _ => Keep::Persistent,
    };
    let (value, page) = next_bytes(page)?;
    Some((key, Some((value, keep)), page))
}

fn next_bytes(page: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = page.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_keys_come_back_and_torn_ones_end() {
        let mut page = Vec::new();
        add_key(&mut page, b"", None);
        add_key(&mut page, b"a", Some((b"value", Keep::Persistent)));
        add_key(&mut page, b"bcd", Some((b"", Keep::Default)));
        let (first, value, rest) = next_key(&page).expect("a key");
        assert_eq!((first, value), (&b""[..], None));
        let (second, value, rest) = next_key(rest).expect("a key");
        assert_eq!((second, value), (&b"a"[..], Some((&b"value"[..], Keep::Persistent))));
        let (third, value, rest) = next_key(rest).expect("a key");
        assert_eq!((third, value, rest), (&b"bcd"[..], Some((&b""[..], Keep::Default)), &b""[..]));
        assert_eq!(next_key(rest), None);
        assert_eq!(next_key(&page[..page.len() - 1][15..]), None);
    }

    #[test]
    fn errors_come_back_as_they_were() {
        let who = (Rank(3), "h");
        let errors = [
            Error::Gone { name: "d".to_owned() },
            Error::Frozen { name: "d".to_owned() },
            Error::Retired { checkpoint: 1, oldest: 2, kept: 3 },
            Error::Memory(HeapError::Full { needed: 1, free: 2, capacity: 3 }),
            Error::Memory(HeapError::TooLarge { needed: 1, capacity: 3 }),
            Error::Checksum { key: "k".to_owned() },
        ];
        for error in errors {
            let back: Fault = head(&bytes(&Fault::of(&error))).expect("a fault").0;
            assert_eq!(back.error("d", who, b"k").to_string(), error.to_string());
        }
        let other = Fault::of(&Error::Damaged { what: "a page", offset: 7 }).error("d", who, b"");
        assert!(other.to_string().contains("rank 3 on host h"), "{other}");
    }
}
