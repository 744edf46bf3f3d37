//! The allocator in a segment.
//!
//! Units of 16 KiB; a table has a word for each. Blocks up to 32 KiB come from *spans* (64 KiB or 1 MiB of one size
//! class), larger ones are *runs* of units. All blocks are 64-byte aligned.
//!
//! # States of a block
//! Each has a *tag*: a generation of 31 bits and a bit that says whether it is allocated. Spans keep theirs in a table
//! at their start, runs in the unit table. Only the agent that owns a span sets the bit there (a plain store); anybody
//! frees by a compare-exchange from (g, allocated) to (g+1, free). So freeing the same allocation twice does nothing,
//! and every repair can simply be done again.
//!
//! # Who may do what
//! Before an agent sets a tag it writes (offset, generation) into its *held* table; after publishing the block it
//! clears the entry. Killed in between, the survivor who settles the agent knows which blocks to free. An unpublished
//! block goes to the agent's *retired* table first. So at any instruction each allocated block is reachable from the
//! user's roots, or stands in an agent's held or retired table: nothing leaks, and nothing needs a scan.
//! Runs, and spans that change hands, are under the heap's robust lock; the bitmap of free units is derived from the
//! unit table and rebuilt by a scan of it when an owner of that lock died.

use crate::agent::{Agent, AgentId, AgentRecord};
use crate::error::HeapError;
use crate::segment::Segment;

/// A block: where it is, and which allocation of that place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Offset in the segment; a multiple of 64. Never 0.
    pub offset: u64,
    /// Generation of its tag.
    pub generation: u32,
}

/// A block that its agent holds: allocated, not published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The block.
    pub block: Block,
    /// Entry of the agent's held table.
    pub slot: u16,
}

/// How much of the heap is used, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// The most it may grow to.
    pub capacity: u64,
    /// Made memory so far.
    pub committed: u64,
    /// In allocated blocks (whole blocks, not what was asked for).
    pub allocated: u64,
}

/// What [`Segment::audit`] found.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// Allocated blocks that are reachable from nowhere: offset and bytes.
    pub leaked: Vec<(u64, u64)>,
    /// Reachable blocks that are not allocated.
    pub dangling: Vec<u64>,
    /// Allocated blocks.
    pub blocks: u64,
}

impl Segment {
    /// Allocates `bytes` (at least 1), 64-byte aligned, and notes it as held. Contents are whatever was there.
    /// When memory is short: frees what this agent retired, gives empty spans back, and only then says it is full.
    pub fn alloc(&self, agent: &Agent<'_>, bytes: u64) -> Result<Held, HeapError> {
        let _ = (agent, bytes);
        todo!()
    }

    /// A block of 4096 bytes whose place will never be used for anything but such blocks: readers may look into it
    /// after it was freed. Aligned to 4096. Zeroed when it is used for the first time, left as it was afterwards.
    pub fn alloc_page(&self, agent: &Agent<'_>) -> Result<Held, HeapError> {
        let _ = agent;
        todo!()
    }

    /// Says that a held block was published: it is reachable for all now.
    #[inline(always)]
    pub fn forget(&self, agent: &Agent<'_>, held: Held) {
        let _ = (agent, held);
        todo!()
    }

    /// Takes a block that was unpublished by this agent alone into its held table (to own it: a queue's item).
    pub fn hold(&self, agent: &Agent<'_>, offset: u64) -> Result<Held, HeapError> {
        let _ = (agent, offset);
        todo!()
    }

    /// Frees a held block at once. Nobody can have pinned it. Any thread may do so.
    pub fn free(&self, record: &AgentRecord, held: Held) {
        let _ = (record, held);
        todo!()
    }

    /// Notes a block that this agent just unpublished: to be freed as soon as nobody has it pinned. Only notes it: the
    /// caller says that its deed is over and then calls `reclaim_if_due`, so that a survivor never finds a deed under
    /// way whose block was freed already.
    pub fn retire(&self, agent: &Agent<'_>, offset: u64) {
        let _ = (agent, offset);
        todo!()
    }

    /// Calls `reclaim` if enough has come together. After each operation that retired something.
    #[inline(always)]
    pub fn reclaim_if_due(&self, agent: &Agent<'_>) {
        let _ = agent;
        todo!()
    }

    /// Frees what this agent retired and nobody pins.
    pub fn reclaim(&self, agent: &Agent<'_>) {
        let _ = agent;
        todo!()
    }

    /// For `Settle`: lets go of a dead agent's held block at `offset`, since it was published.
    pub fn forget_for(&self, record: &AgentRecord, offset: u64) {
        let _ = (record, offset);
        todo!()
    }

    /// For `Settle`: retires for a dead agent the block that it had unpublished (into the caller's retired table).
    /// Does nothing if the dead agent had retired it already.
    pub fn retire_for(&self, dead: AgentId, record: &AgentRecord, offset: u64) {
        let _ = (dead, record, offset);
        todo!()
    }

    /// Bytes that fit into the allocated block at `offset`; `None` if there is none.
    pub fn block_bytes(&self, offset: u64) -> Option<u64> {
        let _ = offset;
        todo!()
    }

    /// How much is used. A scan of the unit table.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// Compares the allocated blocks with those that `reachable` names, while nobody writes. A scan.
    pub fn audit(&self, reachable: &mut dyn FnMut(&mut dyn FnMut(u64))) -> Audit {
        let _ = reachable;
        todo!()
    }
}
