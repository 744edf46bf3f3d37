//! Blocks of cells in the memory of a process, for tests and models of the growing rings.

use super::Blocks;
use super::cell::Cell;
use crate::sync::{AtomicU64, Ordering};

/// A few blocks of `N` cells; their offsets count from 1.
pub(super) struct Store<const N: usize> {
    blocks: Vec<Vec<Cell>>,
    given: AtomicU64,
}

impl<const N: usize> Store<N> {
    pub(super) fn new(blocks: usize) -> Self {
        let cells = || (0..N).map(|_| Cell::default()).collect();
        Self { blocks: (0..blocks).map(|_| cells()).collect(), given: AtomicU64::new(0) }
    }

    /// A new block, if one is left.
    pub(super) fn give(&self) -> Option<u64> {
        let block = self.given.fetch_add(1, Ordering::AcqRel) + 1;
        (block <= self.blocks.len() as u64).then_some(block)
    }

    /// How many were asked for.
    #[cfg(not(loom))]
    pub(super) fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }
}

impl<const N: usize> Blocks for Store<N> {
    const CELLS: u64 = N as u64;

    fn cells(&self, offset: u64) -> Option<&[Cell]> {
        self.blocks.get((offset as usize).checked_sub(1)?).map(Vec::as_slice)
    }
}
