//! What lies where in the segment of a world.
//!
//! | part | size | who writes |
//! |---|---|---|
//! | [`Head`] | 128 B | rank 0, before anybody else maps it; `state`, `settled` later |
//! | [`RankLine`] for each rank | 128 B | that rank; `lost`: rank 0; `alarm`, bell: all |
//! | [`LaneLine`] for each ordered pair | 64 B | see `lane` |
//! | cells for each ordered pair | 128 B each | see `lane` |
//!
//! The heap behind it holds payloads that do not fit into a cell.
#![expect(unsafe_code, reason = "says that these types may lie in shared memory")]

use std::sync::Arc;

use crate::doorbell::Doorbell;
use crate::error::SegmentError;
use crate::lane::{Cell, Lane, LaneLine};
use crate::rank::Rank;
use crate::segment::{Segment, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Kind and layout version of a world's segment.
pub(crate) const KIND: &str = "world";
pub(crate) const LAYOUT: u32 = 2;
/// The most ranks a world of one node can have.
pub(crate) const RANKS_MAX: u32 = 1024;
/// Cells of all lanes together, as far as each has at least [`LANE_CELLS_MIN`].
const CELLS: u32 = 1 << 16;
const LANE_CELLS_MIN: u32 = 8;
const LANE_CELLS_MAX: u32 = 256;

/// States of a world.
pub(crate) const GATHERING: u32 = 0;
pub(crate) const RUNNING: u32 = 1;
pub(crate) const FAILED: u32 = 2;

/// States of a rank. It goes from one to a higher one only.
pub(crate) const ABSENT: u32 = 0;
pub(crate) const JOINING: u32 = 1;
pub(crate) const JOINED: u32 = 2;
pub(crate) const REFUSED: u32 = 3;
pub(crate) const LEFT: u32 = 4;

/// The beginning of the segment's control part.
#[repr(C, align(128))]
pub(crate) struct Head {
    pub(crate) size: AtomicU32,
    pub(crate) lane_cells: AtomicU32,
    pub(crate) state: AtomicU32,
    /// Losses up to this epoch are known to all members; rank 0 writes it.
    pub(crate) settled: AtomicU32,
    /// The executable of rank 0: device, inode, bytes, time of its last change in nanoseconds.
    pub(crate) executable: [AtomicU64; 4],
}

/// A rank's own line.
#[repr(C, align(128))]
pub(crate) struct RankLine {
    pub(crate) state: AtomicU32,
    pub(crate) pid: AtomicU32,
    /// The member of the segment that this rank is, and 1 more.
    pub(crate) member: AtomicU64,
    /// The rank's last sign of life: the epoch that it knows, and above when, in milliseconds of the node's clock.
    pub(crate) sign: AtomicU64,
    /// 0, or the epoch in which it was declared lost, and above why; rank 0 writes it.
    pub(crate) lost: AtomicU64,
    /// The numbering of processes in which `pid` names it.
    pub(crate) namespace: AtomicU64,
    /// Where the rank's watch sleeps: all add one to it to wake it.
    pub(crate) alarm: AtomicU32,
    /// Where the rank's threads sleep.
    pub(crate) bell: Doorbell,
}

const _: () = assert!(size_of::<Head>() == 128 && size_of::<RankLine>() == 128);
const _: () = assert!(size_of::<LaneLine>() == 64 && size_of::<Cell>() == 128);

// SAFETY: atomics of fixed width only, valid when zeroed.
unsafe impl Shared for Head {}
// SAFETY: atomics of fixed width only, valid when zeroed.
unsafe impl Shared for RankLine {}
// SAFETY: atomics of fixed width only, valid when zeroed.
unsafe impl Shared for LaneLine {}
// SAFETY: atomics of fixed width only, valid when zeroed.
unsafe impl Shared for Cell {}

/// The segment of a world, whose sizes were found possible.
pub(crate) struct Map {
    pub(crate) segment: Arc<Segment>,
    pub(crate) size: u32,
    lane_cells: u32,
}

/// Cells of each lane in a world of `size` ranks: a power of two.
pub(crate) fn lane_cells(size: u32) -> u32 {
    let share = (CELLS / (size * size).max(1)).clamp(LANE_CELLS_MIN, LANE_CELLS_MAX);
    1 << share.ilog2()
}

/// Bytes of the control part for a world of `size` ranks.
pub(crate) fn control_bytes(size: u32) -> u64 {
    lanes_at(size) + 64 * lanes(size).next_multiple_of(2) + 128 * lanes(size) * u64::from(lane_cells(size))
}

fn lanes(size: u32) -> u64 {
    u64::from(size) * u64::from(size)
}

fn lanes_at(size: u32) -> u64 {
    128 + 128 * u64::from(size)
}

impl Map {
    /// The map of a fresh segment; writes the sizes into its head.
    pub(crate) fn create(segment: Arc<Segment>, size: u32) -> Result<Map, SegmentError> {
        let map = Map { segment, size, lane_cells: lane_cells(size) };
        map.check()?;
        map.head().size.store(size, Ordering::Relaxed);
        map.head().lane_cells.store(map.lane_cells, Ordering::Release);
        Ok(map)
    }

    /// The map of a segment that another rank made.
    pub(crate) fn open(segment: Arc<Segment>) -> Result<Map, SegmentError> {
        let at = segment.control();
        let damaged = |what| SegmentError::Damaged { what, offset: at };
        let head: &Head = segment.at(at).ok_or(damaged("no head of a world"))?;
        let (size, cells) = (head.size.load(Ordering::Acquire), head.lane_cells.load(Ordering::Acquire));
        if size == 0 || size > RANKS_MAX || cells != lane_cells(size) {
            return Err(damaged("impossible sizes of a world"));
        }
        let map = Map { segment, size, lane_cells: cells };
        map.check()?;
        Ok(map)
    }

    fn check(&self) -> Result<(), SegmentError> {
        let (offset, bytes) = (self.segment.control(), control_bytes(self.size));
        let inside = !self.segment.read(offset, bytes).is_null();
        let what = "a world that does not fit into its segment";
        if inside { Ok(()) } else { Err(SegmentError::Damaged { what, offset }) }
    }

    pub(crate) fn head(&self) -> &Head {
        self.segment.at(self.segment.control()).expect("checked when the map was made")
    }

    pub(crate) fn line(&self, rank: Rank) -> &RankLine {
        debug_assert!(rank.0 < self.size);
        let offset = self.segment.control() + 128 + 128 * u64::from(rank.0);
        self.segment.at(offset).expect("checked when the map was made")
    }

    /// This process as a member of the segment, as `RankLine::member` has it.
    pub(crate) fn own_member(&self) -> u64 {
        u64::from(self.segment.member) + 1
    }

    /// Whether the process of a rank that has joined lives. A system call.
    pub(crate) fn is_alive(&self, rank: Rank) -> bool {
        let member = self.line(rank).member.load(Ordering::Acquire).checked_sub(1);
        let member = member.and_then(|member| u32::try_from(member).ok());
        member.is_some_and(|member| self.segment.is_member_alive(member))
    }

    /// The number of the lane from one rank to another.
    pub(crate) fn lane_number(&self, from: Rank, to: Rank) -> u64 {
        u64::from(from.0) * u64::from(self.size) + u64::from(to.0)
    }

    /// The lane of a number; `None` if there is none.
    pub(crate) fn lane(&self, number: u64) -> Option<Lane<'_>> {
        if number >= lanes(self.size) {
            return None;
        }
        let lines = self.segment.control() + lanes_at(self.size);
        let count = u64::from(self.lane_cells);
        let cells = lines + 64 * lanes(self.size).next_multiple_of(2) + number * count * 128;
        let line = self.segment.at(lines + 64 * number)?;
        Some(Lane { line, cells: self.segment.slice(cells, count)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_get_shorter_with_more_ranks() {
        let cells = [1, 2, 16, 17, 64, 90, 1024].map(lane_cells);
        assert_eq!(cells, [256, 256, 256, 128, 16, 8, 8]);
    }
}
