//! What one thread of one member holds in a segment, written where survivors find it.
//!
//! An *agent* is a record of 16 KiB that a thread claims at its first use of a segment and keeps until it ends (a
//! record with pins stays with the process until they are gone, and serves another thread). Everything a thread can
//! leave unfinished stands in it:
//! - the *intent*: 16 words whose meaning is the user's (ddict, queue); written before the deed;
//! - *held* blocks: allocated, not yet published: freed if the thread dies;
//! - *retired* blocks: unpublished, not yet freed because somebody may have pinned them;
//! - *pins*: blocks it reads in place;
//! - *spans*: pieces of the heap only it allocates from.

use crate::error::SegmentError;
use crate::segment::{Segment, Shared};
use crate::sync::AtomicU64;

/// Number of an agent in its segment: 1 to 8191, fits the 13 bits that locks have for their owner. 0: nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AgentId(pub u16);

/// Agents one segment can have.
pub const AGENTS_MAX: u16 = 8191;
/// Words of an intent.
pub const INTENT_WORDS: usize = 16;
/// Blocks one agent can hold at once.
pub const HELD_MAX: usize = 256;

/// An agent's record in the segment.
#[repr(C)]
pub struct AgentRecord {
    /// What it is doing: the user's words. Zeroed when an agent is claimed.
    pub intent: [AtomicU64; INTENT_WORDS],
    // to be filled in
}

// SAFETY: atomics only.
#[expect(unsafe_code, reason = "skeleton")]
unsafe impl Shared for AgentRecord {}

/// This thread's agent. Not `Send`.
pub struct Agent<'s> {
    /// Its segment.
    pub segment: &'s Segment,
    /// Its number.
    pub id: AgentId,
    /// Its record.
    pub record: &'s AgentRecord,
}

impl Segment {
    /// This thread's agent; claims one at first use. 1-3 ns afterwards (a thread-local table).
    #[inline(always)]
    pub fn agent(&self) -> Result<Agent<'_>, SegmentError> {
        todo!()
    }
}
