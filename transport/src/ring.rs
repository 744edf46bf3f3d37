//! Queues of cells in shared memory: no lock that outlives its owner, no item lost or torn by a death.
//!
//! In reading order: `cell` is the place of one item; `head` says who takes and where; `lane` is a queue of one
//! producer in a fixed array of cells, `chain` one that grows by blocks of cells, `tickets` one of many producers that
//! grows too.
//!
//! Blocks of cells come from the caller, who knows the heap; [`Blocks`] finds them again by their offsets.

#![expect(unsafe_code, reason = "says which parts of a ring may lie in shared memory")]

pub mod cell;
pub mod head;
pub mod lane;

pub mod chain;
pub mod tickets;

#[cfg(test)]
mod testing;

use crate::segment::Shared;
use cell::Cell;

/// Where the blocks of a growing ring lie.
pub trait Blocks {
    /// Cells of a block: a power of two, at least 2.
    const CELLS: u64;

    /// The cells of the block at `offset`; `None` if there cannot be one.
    fn cells(&self, offset: u64) -> Option<&[Cell]>;

    /// The cell of an index below [`CELLS`](Self::CELLS) in the block at `offset`.
    #[inline(always)]
    fn cell(&self, offset: u64, index: u64) -> Option<&Cell> {
        self.cells(offset)?.get(index as usize)
    }
}

/// The first of up to `looks` looks that shows something, with a pause in between: without, loads that are under way
/// when the line comes are all done again, which took a quarter of a round trip.
#[inline(always)]
fn first_of<R>(looks: u32, mut look: impl FnMut() -> Option<R>) -> Option<R> {
    let mut seen = look();
    for _ in 1..looks {
        if seen.is_some() {
            break;
        }
        std::hint::spin_loop();
        seen = look();
    }
    seen
}

/// Makes the cells of a block that was memory of another use ready for a ring's first use of it.
pub fn wipe(cells: &[Cell]) {
    cells.iter().for_each(|cell| cell.state.store(0, crate::sync::Ordering::Relaxed));
}

// SAFETY: atomics of fixed width; any value of them is valid, and zeros are a cell never used.
unsafe impl Shared for cell::Cell {}
// SAFETY: atomics of fixed width and padding; zeros are a head at ticket 0 that nobody holds.
unsafe impl Shared for head::Head {}
// SAFETY: atomics of fixed width and padding; zeros are an empty lane.
unsafe impl Shared for lane::Lane {}
// SAFETY: atomics of fixed width and padding; zeros are a chain without blocks.
unsafe impl Shared for chain::Chain {}
// SAFETY: atomics of fixed width and padding; zeros are a ring that was not started.
unsafe impl Shared for tickets::TicketRing {}
