//! Runs of units: found in the free bits, freed into them, made memory in steps. All under the heap's lock.
//!
//! A run is its first unit's word; the words of its other units, and of free units, are plain. So one store makes a
//! run, one compare-exchange frees it, and the free bits can be made anew by a walk over the words.
//!
//! The run freed last is the *spare*: only a word in the heap's header says that its units are free, so that a large
//! block that is freed and allocated again costs no more than a small one. It gets its free bits when another run is
//! freed, or when more is needed than it has. Bits that are made anew have it among them, for its word is plain.

use super::class::Class;
use super::entry::{Entry, Tag, Unit};
use super::layout::{GROUP_BYTES, GROUP_UNITS, UNIT_BYTES};
use crate::agent::{Agent, AgentId};
use crate::error::SegmentError;
use crate::segment::plan::AGENT_BYTES;
use crate::segment::{Segment, file};
use crate::sync::Ordering;

/// Units that are made memory at once: 2 MiB.
const STEP_UNITS: u64 = 128;
/// Bytes of the folder that the heap leaves to the records of threads to come. What it has taken it keeps, so a thread
/// that finds no memory for its record would wait for ever, or fail, though all blocks are free.
const RECORDS_BYTES: u64 = 16 * AGENT_BYTES;

/// The heap's lock, held by an agent.
pub(crate) struct HeapGuard<'a> {
    agent: &'a Agent<'a>,
}

impl Drop for HeapGuard<'_> {
    fn drop(&mut self) {
        self.agent.segment.heap().lock.unlock(self.agent);
    }
}

/// Units that are free, though their bits do not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spare {
    unit: u64,
    /// Not 0.
    units: u64,
}

impl Spare {
    /// Bits of a word that say how many; the others say where.
    const COUNT_BITS: u32 = 32;

    fn word(self) -> u64 {
        self.unit << Self::COUNT_BITS | self.units
    }

    fn from_word(word: u64) -> Option<Self> {
        let units = word & (u64::MAX >> Self::COUNT_BITS);
        (units != 0).then_some(Self { unit: word >> Self::COUNT_BITS, units })
    }
}

/// A part of the heap that is not free.
pub(crate) enum Piece {
    Run { unit: u64, units: u64, tag: Tag },
    Span(super::block::Span),
}

impl Segment {
    /// Takes the heap's lock; repairs the free bits if its owner died.
    pub(crate) fn lock_heap<'a>(&self, agent: &'a Agent<'a>) -> HeapGuard<'a> {
        let heap = self.heap();
        let taken_over = heap.lock.lock_or_take_over(agent);
        let guard = HeapGuard { agent };
        let astray = heap.stray.load(Ordering::Acquire) != 0 && heap.stray.swap(0, Ordering::AcqRel) != 0;
        // Killed in the middle of the repair, this agent's lock is taken over in turn.
        if taken_over || astray {
            self.rebuild_free_bits();
        }
        guard
    }

    /// If a dead agent has the lock: repairs, and lets go of it.
    pub(crate) fn repair_heap_lock(&self, dead: AgentId) {
        if self.heap().lock.owner() != Some(dead) {
            return;
        }
        match self.agent() {
            Ok(agent) => drop(self.lock_heap(&agent)),
            Err(_) => {
                self.heap().stray.store(1, Ordering::Release);
                self.heap().lock.release_for(dead);
            }
        }
    }

    /// Calls `piece` for each run and span, from the first to the last. Without the lock it may miss what changes
    /// meanwhile.
    pub(crate) fn walk(&self, mut piece: impl FnMut(Piece)) {
        let committed = self.committed();
        let mut unit = 0;
        while unit < committed {
            unit += match self.piece_at(unit, committed) {
                Some(Piece::Run { unit, units, tag }) => {
                    piece(Piece::Run { unit, units, tag });
                    units
                }
                Some(Piece::Span(span)) => {
                    piece(Piece::Span(span));
                    span.class.shape().units
                }
                None => 1,
            };
        }
    }

    /// The run or span that begins at a unit. Words that cannot be are none.
    fn piece_at(&self, unit: u64, committed: u64) -> Option<Piece> {
        match self.unit(unit) {
            Unit::Run { tag, units } if tag.allocated && units > 0 && units <= committed - unit => {
                Some(Piece::Run { unit, units, tag })
            }
            Unit::Span { class, distance: 0 } if class.shape().units <= committed - unit => {
                let span = super::block::Span { offset: self.unit_offset(unit), unit, class };
                Some(Piece::Span(span))
            }
            _ => None,
        }
    }

    /// Makes the free bits from the words. Under the lock.
    fn rebuild_free_bits(&self) {
        self.heap().spare.store(0, Ordering::Release);
        let committed = self.committed();
        let mut unit = 0;
        while unit < committed {
            let used = match self.piece_at(unit, committed) {
                Some(Piece::Run { units, .. }) => units,
                Some(Piece::Span(span)) => span.class.shape().units,
                None => 0,
            };
            self.set_free(unit, used.max(1), used == 0);
            if used == 0 {
                self.unit_word(unit).store(0, Ordering::Release);
            }
            unit += used.max(1);
        }
    }

    /// Sets or clears the free bits of units.
    pub(crate) fn set_free(&self, start: u64, units: u64, free: bool) {
        let end = start + units;
        let mut unit = start;
        while unit < end {
            let bits = (64 - unit % 64).min(end - unit);
            let mask = (u64::MAX >> (64 - bits)) << (unit % 64);
            let word = &self.group(unit).free[(unit % GROUP_UNITS / 64) as usize];
            // Whoever writes a whole word need not wait for what was there.
            let old = if mask == u64::MAX { 0 } else { word.load(Ordering::Relaxed) };
            word.store(if free { old | mask } else { old & !mask }, Ordering::Release);
            unit += bits;
        }
    }

    /// The first unit in a range that is free (or not), or the range's end.
    fn first_free(&self, from: u64, end: u64, free: bool) -> u64 {
        let mut unit = from;
        while unit < end {
            let word = self.group(unit).free[(unit % GROUP_UNITS / 64) as usize].load(Ordering::Relaxed);
            let word = if free { word } else { !word } >> (unit % 64);
            if word != 0 {
                return (unit + u64::from(word.trailing_zeros())).min(end);
            }
            unit = (unit / 64 + 1) * 64;
        }
        end
    }

    fn search(&self, from: u64, end: u64, units: u64) -> Option<u64> {
        let mut unit = from;
        loop {
            let start = self.first_free(unit, end, true);
            if end - start < units {
                return None;
            }
            unit = self.first_free(start, start + units, false);
            if unit == start + units {
                return Some(start);
            }
        }
    }

    /// The spare, if there is one. Under the lock. One that cannot be is none: memory was damaged.
    fn spare(&self) -> Option<Spare> {
        let spare = Spare::from_word(self.heap().spare.load(Ordering::Relaxed))?;
        let is_inside = spare.units <= self.committed().saturating_sub(spare.unit);
        (is_inside && self.unit(spare.unit) == Unit::Plain).then_some(spare)
    }

    /// Makes units the spare; the one before gets its free bits. Under the lock.
    fn keep_spare(&self, spare: Spare) {
        self.spread_spare();
        self.heap().spare.store(spare.word(), Ordering::Relaxed);
    }

    /// Gives the spare its free bits. Under the lock.
    fn spread_spare(&self) {
        if let Some(Spare { unit, units }) = self.spare() {
            self.set_free(unit, units, true);
        }
        self.heap().spare.store(0, Ordering::Relaxed);
    }

    /// The first units of the spare, if it has so many. Under the lock.
    fn take_spare(&self, units: u64) -> Option<u64> {
        let spare = self.spare().filter(|spare| spare.units >= units)?;
        let rest = Spare { unit: spare.unit + units, units: spare.units - units };
        self.heap().spare.store(if rest.units == 0 { 0 } else { rest.word() }, Ordering::Relaxed);
        self.heap().next.store(rest.unit, Ordering::Relaxed);
        Some(spare.unit)
    }

    /// Takes free units that are memory, from where the last search ended or the last run was freed. Under the lock.
    /// Killed before a word says what they are, their bits are repaired with the lock.
    pub(crate) fn take_units(&self, units: u64) -> Option<u64> {
        if let Some(unit) = self.take_spare(units) {
            return Some(unit);
        }
        self.spread_spare();
        let committed = self.committed();
        let next = self.heap().next.load(Ordering::Relaxed).min(committed);
        let found = self.search(next, committed, units);
        let found = found.or_else(|| self.search(0, (next + units).min(committed), units))?;
        self.set_free(found, units, false);
        self.heap().next.store(found + units, Ordering::Relaxed);
        Some(found)
    }

    /// Makes more of the heap memory, so that `units` in a row are free at its end. False if it would be too large.
    /// Under the lock.
    pub(crate) fn grow(&self, units: u64) -> Result<bool, SegmentError> {
        let committed = self.committed();
        let mut tail = 0;
        while tail < units
            && tail < committed
            && self.first_free(committed - tail - 1, committed - tail, true) != committed - tail
        {
            tail += 1;
        }
        let (needed, left) = (units - tail, self.plan.units - committed);
        if needed > left {
            return Ok(false);
        }
        let step = needed.max(STEP_UNITS - committed % STEP_UNITS).min(left);
        let grown = self.commit_units(committed, step).map(|()| step);
        let grown = grown.or_else(|_| self.commit_units(committed, needed).map(|()| needed))?;
        self.set_free(committed, grown, true);
        self.heap().committed.store(committed + grown, Ordering::Release);
        self.ahead.grown(self, grown * UNIT_BYTES);
        Ok(true)
    }

    /// Makes units and their tables memory. Idempotent.
    pub(crate) fn commit_units(&self, start: u64, units: u64) -> Result<(), SegmentError> {
        let groups = start / GROUP_UNITS..(start + units).div_ceil(GROUP_UNITS);
        let tables =
            self.plan.tables + groups.start * GROUP_BYTES..self.plan.tables + groups.end * GROUP_BYTES;
        file::commit(&self.file, &self.folder, tables)?;
        let memory = self.unit_offset(start)..self.unit_offset(start + units);
        file::commit_leaving(&self.file, &self.folder, memory, RECORDS_BYTES)
    }

    /// A generation that old entries for the same place hardly have: a counter, spread by an odd factor.
    pub(crate) fn new_generation(&self) -> u32 {
        let count = self.heap().generation.fetch_add(1, Ordering::Relaxed);
        Tag::free((count as u32).wrapping_mul(0x9e37_79b1) >> 3).generation
    }

    /// Makes a run of units taken before. Under the lock.
    pub(crate) fn make_run(&self, agent: &Agent<'_>, slot: usize, unit: u64, units: u64) -> Entry {
        let generation = self.new_generation();
        let entry = Entry::new(self.unit_offset(unit), generation);
        agent.record.held[slot].store(entry.word(), Ordering::Relaxed);
        let run = Unit::Run { tag: Tag::allocated(generation), units };
        // Release: after the entry in the held table.
        self.unit_word(unit).store(run.word(), Ordering::Release);
        entry
    }

    /// Frees a run, if it is this allocation. Its units are the first that the next search looks at.
    pub(crate) fn free_run(&self, agent: Option<&Agent<'_>>, unit: u64, entry: Entry) -> bool {
        let own;
        let agent = match agent {
            Some(agent) => agent,
            None => match self.agent() {
                Ok(agent) => {
                    own = agent;
                    &own
                }
                Err(_) => return self.free_run_astray(unit, entry),
            },
        };
        let _lock = self.lock_heap(agent);
        let word = self.unit_word(unit);
        let Unit::Run { tag, units } = Unit::from_word(word.load(Ordering::Acquire)) else { return false };
        if !tag.allocated || tag.generation != entry.generation() || units > self.committed() - unit {
            return false;
        }
        // A thread that marks it dropped at this moment finds its compare-exchange failed.
        word.swap(0, Ordering::AcqRel);
        self.keep_spare(Spare { unit, units });
        self.heap().next.store(unit, Ordering::Relaxed);
        true
    }

    /// Without an agent to lock with: the next who locks finds the units.
    fn free_run_astray(&self, unit: u64, entry: Entry) -> bool {
        let word = self.unit_word(unit);
        let freed = super::block::Place::Large { unit, word }.change(entry, Tag::next_free);
        if freed {
            self.heap().stray.store(1, Ordering::Release);
        }
        freed
    }

    /// Frees a span's units. Under the lock, of a span that nobody owns and that has no allocated block.
    pub(crate) fn free_span_units(&self, unit: u64, class: Class) {
        let units = class.shape().units;
        for unit in unit..unit + units {
            self.unit_word(unit).store(0, Ordering::Release);
        }
        self.set_free(unit, units, true);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Spare;
    use crate::heap::{HeapError, UNIT_BYTES};
    use crate::segment::{Segment, Spec};
    use crate::sync::Ordering;
    use std::sync::Arc;

    const UNITS: u64 = 1024;

    fn segment() -> Arc<Segment> {
        let heap_bytes = UNITS * UNIT_BYTES;
        Segment::create(&Spec { kind: "test", layout: 1, control_bytes: 64, heap_bytes })
            .expect("there is memory")
    }

    /// All of the heap in one run: whether nothing was lost, and no unit is handed out twice.
    fn take_all(segment: &Segment) {
        let agent = segment.agent().expect("a thread of ours");
        let held = segment.alloc(&agent, UNITS * UNIT_BYTES).expect("all of it is free");
        assert!(matches!(segment.alloc(&agent, UNIT_BYTES), Err(HeapError::Full { .. })));
        segment.free(agent.record, held);
    }

    #[test]
    fn a_large_block_freed_and_allocated_again_costs_no_bits() {
        let segment = segment();
        let agent = segment.agent().unwrap();
        let first = segment.alloc(&agent, 512 * UNIT_BYTES).unwrap();
        let unit = segment.unit_at(first.block.offset).unwrap();
        for _ in 0..3 {
            let held = segment.alloc(&agent, 300 * UNIT_BYTES).unwrap();
            segment.free(agent.record, held);
            let spare = Spare { unit: segment.unit_at(held.block.offset).unwrap(), units: 300 };
            assert_eq!(segment.spare(), Some(spare));
            assert_eq!(segment.first_free(spare.unit, spare.unit + 300, true), spare.unit + 300);
        }
        // A part of it, and then more than it has.
        let part = segment.alloc(&agent, 100 * UNIT_BYTES).unwrap();
        assert_eq!(segment.spare(), Some(Spare { unit: unit + 612, units: 200 }));
        let more = segment.alloc(&agent, 400 * UNIT_BYTES).unwrap();
        assert_eq!(segment.spare(), None);
        for held in [part, first, more] {
            segment.free(agent.record, held);
        }
        take_all(&segment);
    }

    #[test]
    fn a_spare_is_among_the_bits_made_anew() {
        let segment = segment();
        let agent = segment.agent().unwrap();
        let held = segment.alloc(&agent, 300 * UNIT_BYTES).unwrap();
        segment.free(agent.record, held);
        assert!(segment.spare().is_some());
        segment.heap().stray.store(1, Ordering::Release);
        drop(segment.lock_heap(&agent));
        assert_eq!(segment.spare(), None);
        take_all(&segment);
    }

    #[test]
    fn a_spare_that_cannot_be_is_none() {
        let segment = segment();
        let agent = segment.agent().unwrap();
        let held = segment.alloc(&agent, 300 * UNIT_BYTES).unwrap();
        let used = segment.unit_at(held.block.offset).unwrap();
        let damaged = [
            u64::MAX,
            1 << 32,
            Spare { unit: used, units: 1 }.word(),
            Spare { unit: 0, units: UNITS + 1 }.word(),
        ];
        for word in damaged {
            segment.heap().spare.store(word, Ordering::Relaxed);
            assert_eq!(segment.spare(), None, "{word:x}");
        }
        segment.free(agent.record, held);
        take_all(&segment);
    }
}
