//! An agent's record: 36 KiB in the segment, what survivors read when its process died.

#![expect(unsafe_code, reason = "declares what may lie in shared memory")]

use super::{COUNTS, HELD_MAX, INTENT_WORDS, TALLY_WORDS};
use crate::heap::class::CLASSES_MAX;
use crate::heap::entry::Entry;
use crate::pin::PINS_MAX;
use crate::segment::Shared;
use crate::sync::{AtomicU64, Ordering};

/// Blocks one agent can have retired at once; more are marked in their tags instead, see `heap::retire`.
pub(crate) const RETIRED_MAX: usize = 2048;
/// Words that fill the record up to 36 KiB.
const SPARE: usize =
    4608 - INTENT_WORDS - TALLY_WORDS - 4 - CLASSES_MAX - COUNTS - HELD_MAX - RETIRED_MAX - PINS_MAX;

/// An agent's record in the segment.
///
/// Its thread alone writes it, but for: pins and held entries, which any thread of the process may zero; what the
/// user lets others write of its tally; and survivors, once the process is dead.
#[repr(C, align(64))]
pub struct AgentRecord {
    /// What it is doing: the user's words. Zeroed when an agent is claimed. Word 0 is the verb: zero says that nothing
    /// is unfinished, and recovery zeroes it when it was settled.
    pub intent: [AtomicU64; INTENT_WORDS],
    /// For the user: counts that outlive the thread. While the first two differ, the record stays with its process, for
    /// the next thread that needs one; the process lets them be [even](Self::even_out) when it leaves. Never zeroed.
    pub tally: [AtomicU64; TALLY_WORDS],
    /// For the user: what it waits for, so that others can wake it. Zeroed like the intent.
    pub waiting: AtomicU64,
    /// 0: nobody's. Else the member's number plus one.
    pub(crate) state: AtomicU64,
    /// Pins above this index were never used.
    pub(crate) pins_high: AtomicU64,
    /// Offset of the span it takes a block from right now, or leaves; 0: none. See `heap::spans`.
    pub(crate) taking: AtomicU64,
    /// Offset of the span it allocates from, by class.
    pub(crate) spans: [AtomicU64; CLASSES_MAX],
    spare: [AtomicU64; SPARE],
    /// The user's counts, see `Segment::count`. Never zeroed: who claims the record next counts on.
    pub(crate) counts: [AtomicU64; COUNTS],
    /// Allocated and not yet published.
    pub(crate) held: [AtomicU64; HELD_MAX],
    /// Unpublished and not yet freed.
    pub(crate) retired: [AtomicU64; RETIRED_MAX],
    /// Offsets of blocks that are read in place.
    pub(crate) pins: [AtomicU64; PINS_MAX],
}

// SAFETY: atomics of fixed width only, `repr(C)`, zero is valid.
unsafe impl Shared for AgentRecord {}

impl AgentRecord {
    /// Whether the agent held the block at `offset` (allocated, or taken over by `hold`). For `Settle`.
    pub fn holds(&self, offset: u64) -> bool {
        self.held_slot(offset).is_some()
    }

    /// Lets go of a block the agent held at `offset`, since it was published. For `Settle`.
    pub fn forget(&self, offset: u64) {
        while let Some(slot) = self.held_slot(offset) {
            self.held[slot].store(0, Ordering::Release);
        }
    }

    fn held_slot(&self, offset: u64) -> Option<usize> {
        self.held.iter().position(|it| {
            Entry::from_word(it.load(Ordering::Acquire)).is_some_and(|entry| entry.offset() == offset)
        })
    }

    /// Zeroes the user's words; the verb first, so that a survivor who dies here leaves nothing half said.
    pub(crate) fn clear_intent(&self) {
        for word in self.intent.iter().chain([&self.waiting]) {
            word.store(0, Ordering::Release);
        }
    }

    /// Whether the first two words of the tally are the same.
    pub fn is_even(&self) -> bool {
        self.tally[0].load(Ordering::Acquire) == self.tally[1].load(Ordering::Acquire)
    }

    /// Raises the lower one of them to the other, by one store. For `Settle`, and for who leaves.
    pub fn even_out(&self) {
        let [first, second] = [0, 1].map(|word| self.tally[word].load(Ordering::Acquire));
        let lower = usize::from(second < first);
        self.tally[lower].store(first.max(second), Ordering::Release);
    }

    /// Adds 1 to a count. Its thread alone does, after the claim, which came after what the last thread counted.
    #[inline(always)]
    pub(crate) fn add_one(&self, which: usize) {
        let word = &self.counts[which % COUNTS];
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether guards of pins or held blocks are still about.
    pub(crate) fn has_guards(&self) -> bool {
        self.held.iter().chain(&self.pins).any(|it| it.load(Ordering::Acquire) != 0)
    }
}
