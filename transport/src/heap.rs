//! The allocator in a segment.
//!
//! Units of 16 KiB; a table has a word for each. Blocks up to 32 KiB come from *spans* (64 KiB or 1 MiB of one size
//! class), larger ones are *runs* of units. All blocks are 64-byte aligned.
//!
//! # States of a block
//! Each has a *tag*: a generation of 28 bits and a bit that says whether it is allocated. Spans keep theirs in a table
//! at their start, runs in the unit table. Only the agent that owns a span sets the bit there (a plain store); anybody
//! frees by a compare-exchange from (g, allocated) to (g+1, free). So freeing the same allocation twice does nothing,
//! and every repair can simply be done again.
//!
//! # Who may do what
//! Before an agent sets a tag it writes (offset, generation) into its *held* table, one word; after publishing the
//! block it clears the entry. Killed in between, the survivor who settles the agent knows which blocks to free. An
//! unpublished block goes to the agent's *retired* table first. So at any instruction each allocated block is reachable
//! from the user's roots, or stands in an agent's held or retired table, or is marked as dropped: nothing leaks.
//!
//! Runs, and spans that change hands, are under the heap's robust lock; the bitmap of free units is derived from the
//! unit table and rebuilt by a scan of it when an owner of that lock died. The user's `Settle` is not needed for that.
//!
//! # Growing
//! The heap is memory from its start up to a mark, `committed`, that only rises: `fallocate` first, then the mark.
//! Freed memory is used again before the mark rises, the run freed last before others.
//!
//! # Order of an operation
//! A user that changes its structures by an intent (see `agent`) allocates before it writes the intent; retires while
//! the intent stands, after the block is unpublished; and clears the intent before it allocates again. `retire` frees
//! only what was retired before (see `retire`), so a survivor finds in the tables what the intent names.

pub(crate) mod ahead;
mod audit;
mod block;
pub(crate) mod class;
mod empty;
pub(crate) mod entry;
pub(crate) mod layout;
mod retire;
mod runs;
mod spans;

use crate::agent::{Agent, AgentRecord, HELD_MAX};
use crate::error::{HeapError, SegmentError};
use crate::segment::Segment;
use crate::sync::Ordering;
pub use audit::Reachable;
use class::{Class, PAGE};
use entry::Entry;
use layout::UNIT_BYTES;

/// How often an allocation finds a span that others, short of memory, take away again before it has a block of it.
const REFILLS_MAX: usize = 8;

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
    ///
    /// About 10 ns up to 32 KiB, larger ones take the heap's lock.
    ///
    /// # Errors
    /// `TooLarge`, `Full`, `Held`; `Segment` if the system has no memory where the heap could still grow.
    #[inline]
    pub fn alloc(&self, agent: &Agent<'_>, bytes: u64) -> Result<Held, HeapError> {
        match Class::for_bytes(bytes.max(1)) {
            Some(class) => match self.alloc_small(agent, class) {
                // A megabyte in a row may be lacking where a few units are not.
                Err(HeapError::Full { .. } | HeapError::Segment(SegmentError::Full { .. }))
                    if class.shape().units > 4 =>
                {
                    self.alloc_run(agent, bytes)
                }
                other => other,
            },
            None => self.alloc_run(agent, bytes),
        }
    }

    /// A block of 4096 bytes whose place will never be used for anything but such blocks: readers may look into it
    /// after it was freed. Aligned to 4096. Zeroed when it is used for the first time, left as it was afterwards.
    ///
    /// # Errors
    /// As `alloc`.
    pub fn alloc_page(&self, agent: &Agent<'_>) -> Result<Held, HeapError> {
        self.alloc_small(agent, PAGE)
    }

    #[inline]
    fn alloc_small(&self, agent: &Agent<'_>, class: Class) -> Result<Held, HeapError> {
        let slot = free_slot(agent)?;
        if let Some(held) = self.take_block(agent, slot, class) {
            return Ok(held);
        }
        for _ in 0..REFILLS_MAX {
            self.refill(agent, class)?;
            if let Some(held) = self.take_block(agent, slot, class) {
                return Ok(held);
            }
        }
        Err(self.full(class.shape().size))
    }

    fn alloc_run(&self, agent: &Agent<'_>, bytes: u64) -> Result<Held, HeapError> {
        let capacity = self.plan.units * UNIT_BYTES;
        if bytes > capacity {
            return Err(HeapError::TooLarge { needed: bytes, capacity });
        }
        let slot = free_slot(agent)?;
        // What this agent retired is the memory that is warm in its caches.
        if self.is_reclaim_due(agent) {
            self.reclaim(agent);
        }
        let units = bytes.div_ceil(UNIT_BYTES);
        match self.try_run(agent, slot, units) {
            Ok(Some(held)) => return Ok(held),
            Ok(None) => self.make_room(agent),
            Err(error) => {
                self.make_room(agent);
                return self.try_run(agent, slot, units).ok().flatten().ok_or(error);
            }
        }
        self.try_run(agent, slot, units)?.ok_or_else(|| self.full(bytes))
    }

    fn try_run(&self, agent: &Agent<'_>, slot: usize, units: u64) -> Result<Option<Held>, HeapError> {
        let entry = {
            let _lock = self.lock_heap(agent);
            let unit = match self.take_units(units) {
                Some(unit) => Some(unit),
                None if self.grow(units)? => self.take_units(units),
                None => None,
            };
            let Some(unit) = unit else { return Ok(None) };
            self.make_run(agent, slot, unit, units)
        };
        self.populate(entry.offset(), units * UNIT_BYTES);
        let block = Block { offset: entry.offset(), generation: entry.generation() };
        Ok(Some(Held { block, slot: slot as u16 }))
    }

    /// The error for want of memory.
    pub(crate) fn full(&self, needed: u64) -> HeapError {
        let usage = self.usage();
        let free = usage.capacity.saturating_sub(usage.allocated);
        HeapError::Full { needed, free, capacity: usage.capacity }
    }

    /// Says that a held block was published: it is reachable for all now. Any thread may do so.
    #[inline(always)]
    pub fn forget(&self, agent: &Agent<'_>, held: Held) {
        self.forget_in(agent.record, held);
    }

    /// As `forget`, by the record it is held in: for guards that another thread drops.
    #[inline(always)]
    pub fn forget_in(&self, record: &AgentRecord, held: Held) {
        // Release: after the store that published it.
        record.held[usize::from(held.slot) % HELD_MAX].store(0, Ordering::Release);
    }

    /// Takes a block that was unpublished by this agent alone into its held table (to own it: a queue's item).
    ///
    /// # Errors
    /// `Held` if the table is full, `Segment` (`Damaged`) if no allocated block begins there.
    pub fn hold(&self, agent: &Agent<'_>, offset: u64) -> Result<Held, HeapError> {
        let slot = free_slot(agent)?;
        let damaged = crate::error::SegmentError::Damaged { what: "a block that is not allocated", offset };
        let (entry, _) = self.entry(offset).ok_or(HeapError::Segment(damaged))?;
        agent.record.held[slot].store(entry.word(), Ordering::Release);
        Ok(Held { block: Block { offset, generation: entry.generation() }, slot: slot as u16 })
    }

    /// Frees a held block at once. Nobody can have pinned it. Any thread may do so. `record` is the one it is held in.
    pub fn free(&self, record: &AgentRecord, held: Held) {
        let agent = self.agent().ok().filter(|agent| std::ptr::eq(agent.record, record));
        self.free_entry(agent.as_ref(), Entry::new(held.block.offset, held.block.generation));
        self.forget_in(record, held);
    }

    /// Bytes that fit into the allocated block at `offset`; `None` if there is none.
    pub fn block_bytes(&self, offset: u64) -> Option<u64> {
        let place = self.place(offset)?;
        place.load().allocated.then(|| self.place_bytes(&place))
    }
}

/// A free entry of the agent's held table.
#[inline(always)]
fn free_slot(agent: &Agent<'_>) -> Result<usize, HeapError> {
    let next = agent.local.held_next.get() as usize % HELD_MAX;
    if agent.record.held[next].load(Ordering::Relaxed) == 0 {
        return Ok(next);
    }
    find_free_slot(agent, next)
}

#[cold]
fn find_free_slot(agent: &Agent<'_>, next: usize) -> Result<usize, HeapError> {
    let mut around = (0..HELD_MAX).map(|step| (next + step) % HELD_MAX);
    let found = around.find(|&slot| agent.record.held[slot].load(Ordering::Relaxed) == 0);
    let found = found.ok_or(HeapError::Held { max: HELD_MAX })?;
    agent.local.held_next.set(found as u32);
    Ok(found)
}
