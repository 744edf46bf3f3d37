//! The heap's words in the segment: its header, and a table for each group of units.

#![expect(unsafe_code, reason = "declares what may lie in shared memory")]

use super::class::{CLASS_COUNT, CLASSES_MAX};
use super::entry::Unit;
use crate::lock::RobustLock;
use crate::segment::{Segment, Shared, plan};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The grain of spans and runs.
pub(crate) const UNIT_BYTES: u64 = 16 << 10;
/// Units of a group.
pub(crate) const GROUP_UNITS: u64 = 512;
/// Bytes of a group's table.
pub(crate) const GROUP_BYTES: u64 = 8 << 10;
/// Words of a bitmap of a group.
pub(crate) const GROUP_WORDS: usize = GROUP_UNITS as usize / 64;

/// Words of the whole heap.
#[repr(C)]
pub(crate) struct HeapHeader {
    /// Guards runs, free bits, and spans that change hands.
    pub(crate) lock: RobustLock,
    /// Not 0: the free bits may say too little. Read and cleared under the lock.
    pub(crate) stray: AtomicU64,
    /// Units that are memory.
    pub(crate) committed: AtomicU64,
    /// Where the next search for free units begins.
    pub(crate) next: AtomicU64,
    /// The run freed last, as [`Spare`](super::runs::Spare) has it; 0: none. Its free bits still say that it is used.
    pub(crate) spare: AtomicU64,
    /// Makes generations of new runs and spans.
    pub(crate) generation: AtomicU64,
    /// Bytes of dropped blocks, about.
    pub(crate) dropped: AtomicU64,
    /// Spans in the bitmaps of partial ones, by class, about.
    pub(crate) partial: [AtomicU64; CLASSES_MAX],
}

/// The table of a group.
#[repr(C)]
pub(crate) struct Group {
    words: [AtomicU64; GROUP_UNITS as usize],
    /// Of a span's first unit: blocks freed since its owner left it, about.
    freed: [AtomicU32; GROUP_UNITS as usize],
    /// A bit per unit that is free. Derived from `words`, under the lock.
    pub(crate) free: [AtomicU64; GROUP_WORDS],
    /// A bit per unit, by class: a span begins there that nobody owns and that has free blocks. A hint.
    pub(crate) partial: [[AtomicU64; GROUP_WORDS]; CLASS_COUNT],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Group>() as u64 == GROUP_BYTES);

// SAFETY: atomics of fixed width only, `repr(C)`, zero is valid.
unsafe impl Shared for HeapHeader {}
// SAFETY: as above.
unsafe impl Shared for Group {}

impl Segment {
    #[inline(always)]
    pub(crate) fn heap(&self) -> &HeapHeader {
        self.at(plan::HEAP_HEADER).expect("the header lies inside every segment")
    }

    /// Units that are memory.
    #[inline(always)]
    pub(crate) fn committed(&self) -> u64 {
        self.heap().committed.load(Ordering::Acquire).min(self.plan.units)
    }

    /// The table of a unit's group. The unit is one of the heap's.
    #[inline(always)]
    pub(crate) fn group(&self, unit: u64) -> &Group {
        let group = unit.min(self.plan.units - 1) / GROUP_UNITS;
        self.at(self.plan.tables + group * GROUP_BYTES).expect("the tables lie inside the segment")
    }

    /// A unit's word.
    #[inline(always)]
    pub(crate) fn unit_word(&self, unit: u64) -> &AtomicU64 {
        &self.group(unit).words[(unit % GROUP_UNITS) as usize]
    }

    /// What a unit's word says.
    #[inline(always)]
    pub(crate) fn unit(&self, unit: u64) -> Unit {
        Unit::from_word(self.unit_word(unit).load(Ordering::Acquire))
    }

    /// Count of blocks freed in the span that begins at a unit.
    #[inline(always)]
    pub(crate) fn freed(&self, unit: u64) -> &AtomicU32 {
        &self.group(unit).freed[(unit % GROUP_UNITS) as usize]
    }

    #[inline(always)]
    pub(crate) fn unit_offset(&self, unit: u64) -> u64 {
        self.plan.heap + unit * UNIT_BYTES
    }

    /// The unit at an offset, if it is one of the heap's that is memory.
    #[inline(always)]
    pub(crate) fn unit_at(&self, offset: u64) -> Option<u64> {
        let unit = offset.checked_sub(self.plan.heap)? / UNIT_BYTES;
        (unit < self.committed()).then_some(unit)
    }
}
