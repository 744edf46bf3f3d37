//! What lies where in a dictionary's control part, and how its words are packed.
//!
//! | part | size | what |
//! |---|---|---|
//! | root | 4 KiB | flags, checkpoints, what it was made with |
//! | shards | 128 B each | where the shard's directory is, the lock for changing it, sleeps |
//! | waiters | 8 B each | who sleeps until a key is written |
//! | copied | 4 B each | which keys have copies on other nodes |
//!
//! Directories, pages, keys and values are blocks of the heap. A word that leads somewhere bears a check of itself, so
//! a flipped bit is an error and not a wrong place.

#![expect(unsafe_code, reason = "says which types may lie in shared memory")]

use super::entry::Entry;
use super::page::Page;
use std::sync::atomic::{AtomicU32, AtomicU64};
use tarragon_transport::agent::COUNTS;
use tarragon_transport::lock::RobustLock;
use tarragon_transport::segment::Shared;

/// Version of everything in this crate that lies in shared memory.
pub(super) const LAYOUT: u32 = 4;
/// Shards one dictionary can have.
pub(crate) const SHARDS_MAX: u32 = 1024;
const _: () = assert!(SHARDS_MAX as usize <= COUNTS, "each shard has a count of hits");
/// Cells of the table of waiters; a power of two.
pub(super) const WAITERS: u64 = 1 << 14;
/// Cells of the table of keys that have copies; a power of two.
pub(super) const COPIED_CELLS: u64 = 1 << 12;

pub(super) const ROOT_BYTES: u64 = 4096;
pub(super) const SHARD_BYTES: u64 = 128;

/// Flags of the root.
pub(super) const DESTROYED: u64 = 1;
pub(super) const FROZEN: u64 = 2;
pub(super) const READY: u64 = 4;
/// A checkpoint was retired, so the first one is not there any more.
pub(super) const RETIRED: u64 = 8;
/// The part may be served by another node: whoever reads asks who serves it first.
pub(super) const ELSEWHERE: u64 = 64;
/// Keys have, or had, copies on other nodes.
pub(super) const COPIED: u64 = 16;
/// Other nodes have replicas: one rank alone writes, see `parts`.
pub(super) const REPLICATED: u64 = 32;
/// Options of the root.
pub(super) const WAIT_FOR_KEYS: u64 = 1;
pub(super) const CHECKSUMS: u64 = 2;

/// The root: a line that every operation reads and few write, then what is written once.
#[repr(C, align(64))]
pub(super) struct Root {
    pub(super) flags: AtomicU64,
    /// The newest checkpoint written to.
    pub(super) newest: AtomicU64,
    /// The oldest checkpoint kept.
    pub(super) oldest: AtomicU64,
    /// Seed of the hash.
    pub(super) seed: AtomicU64,
    pub(super) shards: AtomicU64,
    pub(super) options: AtomicU64,
    pub(super) working_set: AtomicU64,
    pub(super) types: AtomicU64,
    /// Milliseconds, `u64::MAX` for none.
    pub(super) timeout_ms: AtomicU64,
    pub(super) memory_bytes: AtomicU64,
    /// Check over what was written once.
    pub(super) check: AtomicU64,
    /// Held while the newest checkpoint changes.
    pub(super) turn: RobustLock,
}

/// A shard: the word of its directory in a line of its own, then the lock for changing it and what is counted rarely.
#[repr(C, align(64))]
pub(super) struct Shard {
    /// Offset of the directory, with its depth in the low six bits; sealed.
    pub(super) directory: AtomicU64,
    pad: [AtomicU64; 7],
    pub(super) lock: RobustLock,
    /// Sleeps for keys of it, of all processes.
    pub(super) waits: AtomicU64,
}

/// Where a directory begins: the one before it, which is kept because late readers may still look into it.
#[repr(C, align(64))]
pub(super) struct DirectoryHead {
    pub(super) previous: AtomicU64,
}

/// A word.
#[repr(transparent)]
pub(super) struct Word(pub(super) AtomicU64);

/// A cell of the table of waiters.
#[repr(C)]
pub(super) struct Waiters {
    pub(super) sequence: AtomicU32,
    /// 1 if somebody may sleep.
    pub(super) sleeping: AtomicU32,
}

/// Types that lie in the segment.
macro_rules! shared {
    ($($type:ty)*) => {
        // SAFETY: atomics of fixed width, and `repr(C)` structures and arrays of them only; valid when zeroed.
        $(unsafe impl Shared for $type {})*
    };
}

shared! { Root Shard DirectoryHead Word Waiters Entry Page }

/// The bits of a sealed word that are not its check.
pub(super) const OFFSET: u64 = (1 << 48) - 1;

/// A word of 48 bits with a check of 16 on top.
#[inline(always)]
pub(super) fn seal(word: u64) -> u64 {
    word | check16(word) << 48
}

/// The 48 bits of a sealed word, if its check is right.
#[inline(always)]
pub(super) fn open(sealed: u64) -> Option<u64> {
    let word = sealed & OFFSET;
    (seal(word) == sealed).then_some(word)
}

#[inline(always)]
fn check16(word: u64) -> u64 {
    // One more than the word, so that zeroed memory is not a sealed 0.
    (word + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_word_opens_and_a_flipped_bit_does_not() {
        for word in [0, 64, 4096, 0x7fff_ffff_ffc3, OFFSET] {
            let sealed = seal(word);
            assert_eq!(open(sealed), Some(word));
            let passed = (0..64).filter(|bit| open(sealed ^ 1 << bit).is_some()).count();
            assert_eq!(passed, 0, "{word:x}");
        }
        assert_eq!(open(0), None);
    }
}
