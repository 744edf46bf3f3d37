//! Blocks of cells in the memory of a process, for tests and models of the growing rings.

use super::Blocks;
use super::cell::Cell;
use super::head::Taker;
use crate::agent::AgentId;
use crate::sync::{AtomicU64, Ordering, fence};

/// A few blocks of `N` cells; their offsets count from 1.
pub(super) struct Store<const N: usize> {
    blocks: Vec<Vec<Cell>>,
    given: AtomicU64,
    /// What each agent has announced to take, plus one.
    taking: [AtomicU64; AGENTS],
}

/// Agents of a test, from 0.
const AGENTS: usize = 8;

/// A consumer of the ring whose blocks these are.
pub(super) struct Consumer<'a>(&'a [AtomicU64; AGENTS], AgentId);

impl Taker for Consumer<'_> {
    fn id(&self) -> AgentId {
        self.1
    }

    fn may_keep(&self) -> bool {
        true
    }

    fn begin(&self, ticket: u64) {
        self.0[usize::from(self.1.0)].store(ticket + 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn end(&self) {
        self.0[usize::from(self.1.0)].store(0, Ordering::Release);
    }

    fn is_taking(&self, other: AgentId) -> bool {
        fence(Ordering::SeqCst);
        self.0[usize::from(other.0)].load(Ordering::Acquire) != 0
    }
}

impl<const N: usize> Store<N> {
    pub(super) fn new(blocks: usize) -> Self {
        let cells = || (0..N).map(|_| Cell::default()).collect();
        Self {
            blocks: (0..blocks).map(|_| cells()).collect(),
            given: AtomicU64::new(0),
            taking: Default::default(),
        }
    }

    pub(super) fn consumer(&self, agent: u16) -> Consumer<'_> {
        Consumer(&self.taking, AgentId(agent))
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
