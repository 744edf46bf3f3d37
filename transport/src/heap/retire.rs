//! Blocks that were unpublished: freed when nobody has them pinned.
//!
//! An agent keeps at most 2048 of them in its table. When the table has no place because all are pinned (perhaps by
//! guards of this very thread, so waiting could be for ever), the block's tag is marked *dropped* instead: it stays
//! allocated, no table names it, and the next scan of the heap frees it when no pin names it. Agents that end, and
//! those that recover the dead, leave pinned blocks behind in the same way.
//!
//! While an intent's verb stands, the youngest 16 entries are not freed: a survivor who settles the intent must be able
//! to see that they were retired. So one operation may retire at most 16 blocks under one intent.

use super::entry::{Entry, Tag};
use super::layout::UNIT_BYTES;
use super::runs::Piece;
use crate::agent::{Agent, AgentId, AgentRecord, RETIRED_MAX};
use crate::segment::Segment;
use crate::sync::Ordering;

/// Entries that come together before they are worth a look at the pins.
const BATCH: usize = 1024;
/// Bytes that do, unless a sixteenth of the heap is less.
const BATCH_BYTES: u64 = 16 << 20;
/// Entries that stay while an intent stands.
const RETIRED_PER_INTENT: usize = 16;
/// Reclaims of an agent between looks whether a scan for dropped blocks is worth it.
const SCAN_EVERY: u32 = 16;
/// Entries an agent itself uses; the others are for who settles it.
const RETIRED_OWN: usize = RETIRED_MAX - RETIRED_PER_INTENT;

impl Segment {
    /// Gives up a block that this agent just unpublished: freed as soon as nobody has it pinned. Idempotent for one
    /// allocation. At most 16 blocks under one intent. About 10 ns; every 1024th time, or each 16 MiB, a look at all
    /// pins.
    pub fn retire(&self, agent: &Agent<'_>, offset: u64) {
        // Before the block is noted: whoever settles this agent's intent finds it in the table.
        if self.is_reclaim_due(agent) {
            self.reclaim(agent);
        }
        let Some(place) = self.place(offset) else { return };
        let tag = place.load();
        if !tag.allocated || tag.dropped {
            return;
        }
        let entry = Entry::new(offset, tag.generation);
        let local = agent.local;
        let count = local.retired.get();
        let count = if count >= RETIRED_OWN { self.drop_oldest(agent, count) } else { count };
        agent.record.retired[count].store(entry.word(), Ordering::Release);
        local.retired.set(count + 1);
        local.retired_bytes.set(local.retired_bytes.get() + self.place_bytes(&place));
    }

    /// Makes places at the end of a full table: the oldest blocks are dropped. Not the youngest, which the intent under
    /// way may speak of. How many are left.
    #[cold]
    fn drop_oldest(&self, agent: &Agent<'_>, count: usize) -> usize {
        let retired = &agent.record.retired;
        for word in &retired[..RETIRED_PER_INTENT] {
            if let Some(entry) = Entry::from_word(word.load(Ordering::Relaxed)) {
                self.mark_dropped(entry);
            }
        }
        for index in RETIRED_PER_INTENT..count {
            // Twice for a moment, never not at all.
            let word = retired[index].load(Ordering::Relaxed);
            retired[index - RETIRED_PER_INTENT].store(word, Ordering::Release);
        }
        let left = count - RETIRED_PER_INTENT;
        for word in &retired[left..count] {
            word.store(0, Ordering::Release);
        }
        agent.local.retired.set(left);
        left
    }

    #[inline(always)]
    pub(crate) fn is_reclaim_due(&self, agent: &Agent<'_>) -> bool {
        let local = agent.local;
        // Shared by all agents there are: each frees only what it retired itself.
        let agents = self.header().agents_high.load(Ordering::Relaxed).max(1);
        let batch_bytes = BATCH_BYTES.min(self.plan.units * UNIT_BYTES / 16) / agents;
        local.retired.get() >= local.reclaim_at.get().max(BATCH)
            || local.retired_bytes.get() >= local.reclaim_at_bytes.get().max(batch_bytes)
    }

    /// Calls [`reclaim`](Self::reclaim) if enough has come together. Worth a call once the intent of an operation that
    /// retired something is zeroed: then the youngest entries can go as well, and memory is used again while warm.
    #[inline(always)]
    pub fn reclaim_if_due(&self, agent: &Agent<'_>) {
        if self.is_reclaim_due(agent) {
            self.reclaim(agent);
        }
    }

    /// Frees what this agent retired and nobody pins. `retire` calls it when enough has come together.
    pub fn reclaim(&self, agent: &Agent<'_>) {
        self.reclaim_unpinned(agent, false);
        agent.local.reclaims.set(agent.local.reclaims.get().wrapping_add(1));
        if !agent.local.reclaims.get().is_multiple_of(SCAN_EVERY) {
            return;
        }
        let dropped = self.heap().dropped.load(Ordering::Relaxed);
        if dropped > self.plan.units * UNIT_BYTES / 64 && agent.record.intent[0].load(Ordering::Relaxed) == 0
        {
            self.free_dropped(agent, false);
        }
    }

    pub(crate) fn reclaim_unpinned(&self, agent: &Agent<'_>, ask_who_lives: bool) {
        let (local, record) = (agent.local, agent.record);
        let count = local.retired.get();
        if count == 0 {
            return;
        }
        let is_busy = record.intent[0].load(Ordering::Relaxed) != 0;
        let settled = if is_busy { count.saturating_sub(RETIRED_PER_INTENT) } else { count };
        let mut pinned = local.pinned.borrow_mut();
        self.pinned(&mut pinned, ask_who_lives);
        let (mut kept, mut bytes) = (0, 0);
        for index in 0..count {
            let word = record.retired[index].load(Ordering::Relaxed);
            let Some(entry) = Entry::from_word(word) else { continue };
            if index < settled && pinned.binary_search(&entry.offset()).is_err() {
                self.free_entry(Some(agent), entry);
                record.retired[index].store(0, Ordering::Release);
                continue;
            }
            bytes += self.block_bytes(entry.offset()).unwrap_or(0);
            if kept != index {
                // Twice for a moment, never not at all.
                record.retired[kept].store(word, Ordering::Release);
                record.retired[index].store(0, Ordering::Release);
            }
            kept += 1;
        }
        local.retired.set(kept);
        local.retired_bytes.set(bytes);
        // What stays must not make each `retire` look again.
        local.reclaim_at.set((kept + BATCH).min(RETIRED_OWN));
        local.reclaim_at_bytes.set(bytes + bytes.min(BATCH_BYTES));
    }

    /// Leaves what is still in the agent's table to whoever scans.
    pub(crate) fn drop_retired(&self, agent: &Agent<'_>) {
        for word in &agent.record.retired {
            if let Some(entry) = Entry::from_word(word.load(Ordering::Relaxed)) {
                self.mark_dropped(entry);
                word.store(0, Ordering::Release);
            }
        }
        agent.local.retired.set(0);
        agent.local.retired_bytes.set(0);
    }

    /// Frees dropped blocks that nobody pins. A walk over the heap.
    pub(crate) fn free_dropped(&self, agent: &Agent<'_>, ask_who_lives: bool) {
        self.heap().dropped.store(0, Ordering::Relaxed);
        let mut dropped = Vec::new();
        self.for_each_block(&mut |offset, bytes, tag| {
            if tag.dropped {
                dropped.push((Entry::new(offset, tag.generation), bytes));
            }
        });
        if dropped.is_empty() {
            return;
        }
        // After they were seen to be dropped: who pins one later finds it unpublished.
        let mut pinned = agent.local.pinned.borrow_mut();
        self.pinned(&mut pinned, ask_who_lives);
        for (entry, bytes) in dropped {
            if pinned.binary_search(&entry.offset()).is_ok() {
                self.heap().dropped.fetch_add(bytes, Ordering::Relaxed);
            } else {
                self.free_entry(Some(agent), entry);
            }
        }
    }

    /// For `Settle`: lets go of a dead agent's held block at `offset`, since it was published.
    pub fn forget_for(&self, record: &AgentRecord, offset: u64) {
        record.forget(offset);
    }

    /// For `Settle`: retires for a dead agent the block that it had unpublished. Does nothing if the dead agent had
    /// retired it already. Into the dead agent's own table, which recovery empties once its intent is zeroed: so doing
    /// it again, by another survivor, does nothing as well.
    pub fn retire_for(&self, _dead: AgentId, record: &AgentRecord, offset: u64) {
        let Some((entry, was_dropped)) = self.entry(offset) else { return };
        let entries = || record.retired.iter().map(|it| it.load(Ordering::Acquire));
        if was_dropped || entries().any(|word| word == entry.word()) {
            return;
        }
        match entries().position(|word| word == 0) {
            Some(slot) => record.retired[slot].store(entry.word(), Ordering::Release),
            None => self.mark_dropped(entry),
        }
    }

    /// Frees what a record holds, and frees or drops what it has retired. Of a dead agent, whose intent is settled and
    /// zeroed; or of one of this process that is taken apart. Idempotent.
    pub(crate) fn clean_tables(&self, record: &AgentRecord, agent: Option<&Agent<'_>>) {
        for pin in &record.pins {
            pin.store(0, Ordering::Release);
        }
        for word in &record.held {
            if let Some(entry) = Entry::from_word(word.load(Ordering::Acquire)) {
                self.free_entry(agent, entry);
            }
            word.store(0, Ordering::Release);
        }
        let mut pinned = Vec::new();
        self.pinned(&mut pinned, false);
        for word in &record.retired {
            if let Some(entry) = Entry::from_word(word.load(Ordering::Acquire)) {
                if pinned.binary_search(&entry.offset()).is_ok() {
                    self.mark_dropped(entry);
                } else {
                    self.free_entry(agent, entry);
                }
            }
            word.store(0, Ordering::Release);
        }
    }

    /// After recovery: dropped blocks, and spans that became empty.
    pub(crate) fn tidy_heap(&self, agent: &Agent<'_>) {
        self.free_dropped(agent, false);
        self.give_back_empty(agent, false);
    }

    /// When memory is short: all that can be freed without another's help.
    pub(crate) fn make_room(&self, agent: &Agent<'_>) {
        self.reclaim_unpinned(agent, true);
        self.free_dropped(agent, true);
        self.give_back_empty(agent, true);
    }

    /// Calls `block` with offset, bytes and tag of each allocated block. Without the lock it may miss what changes.
    pub(crate) fn for_each_block(&self, block: &mut dyn FnMut(u64, u64, Tag)) {
        self.walk(|piece| match piece {
            Piece::Run { unit, units, tag } => block(self.unit_offset(unit), units * UNIT_BYTES, tag),
            Piece::Span(span) => {
                let shape = span.class.shape();
                for index in 0..shape.blocks {
                    let Some(word) = self.tag(span.offset, index) else { continue };
                    let tag = Tag::from_word(word.load(Ordering::Acquire));
                    if tag.allocated {
                        block(span.offset + shape.first + u64::from(index) * shape.size, shape.size, tag);
                    }
                }
            }
        });
    }
}
