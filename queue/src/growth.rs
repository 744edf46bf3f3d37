//! The blocks that cells lie in: got from the heap when a chain or the ring grows, given back when a chain shrinks.
//!
//! A chain shrinks by one block each time its producer needs another one; and any agent that finds no memory takes all
//! that is empty off all chains, so that no idle producer keeps it. The ring's blocks stay the ring's.
//!
//! The words `Grow` and `Cells` of the agent's intent say which block is on its way; see `settle`.

use crate::error::Error;
use crate::layout::{BLOCK_BYTES, GROW_CHAIN, GROW_RING, SHRINK_CHAIN, View, Word, note};
use tarragon_transport::HeapError;
use tarragon_transport::agent::Agent;
use tarragon_transport::heap::Held;
use tarragon_transport::ring::chain::{Chain, SPARES_MIN};
use tarragon_transport::ring::{Blocks, wipe};

/// Whether there is room for cells now.
pub(crate) enum Grown {
    Yes,
    /// Not enough memory: bytes needed, and the bound.
    NoMemory(u64, u64),
}

impl View<'_> {
    /// Links a new block to this agent's chain, whose blocks in use are full.
    #[cold]
    pub(crate) fn grow_chain(&self, agent: &Agent<'_>, chain: &Chain) -> Result<Grown, Error> {
        let held = match self.new_block(agent) {
            Ok(held) => held,
            Err(HeapError::Full { needed, capacity, .. }) => return Ok(Grown::NoMemory(needed, capacity)),
            Err(error) => return Err(Error::of_heap(error)),
        };
        note(agent.record, Word::Cells, held.block.offset);
        note(agent.record, Word::Grow, GROW_CHAIN);
        let linked = chain.link(self, held.block.offset);
        if linked.is_ok() {
            self.segment.forget(agent, held);
        }
        note(agent.record, Word::Grow, 0);
        linked.map(|()| Grown::Yes).map_err(|_| Error::Damaged)
    }

    /// Gives blocks of a chain back that are taken empty, as long as more than `spares` of them are left, at most
    /// `count`. Whether there was one. Does nothing while another agent is at it.
    #[cold]
    pub(crate) fn shrink_chain(&self, agent: &Agent<'_>, chain: &Chain, spares: u64, count: usize) -> bool {
        if !chain.lock_front(agent.id) {
            return false;
        }
        let mut given_back = 0;
        while given_back < count
            && let Some(block) = chain.surplus(self, spares)
        {
            note(agent.record, Word::Cells, block);
            note(agent.record, Word::Grow, SHRINK_CHAIN);
            let Ok(held) = self.segment.hold(agent, block) else { break };
            chain.drop_oldest(self);
            note(agent.record, Word::Grow, 0);
            self.segment.free(agent.record, held);
            given_back += 1;
        }
        note(agent.record, Word::Grow, 0);
        chain.unlock_front();
        given_back > 0
    }

    /// Where memory is short: gives back the cells that are taken empty, of all chains. Whether there were any.
    #[cold]
    pub(crate) fn shrink_all(&self, agent: &Agent<'_>) -> bool {
        let surplus = |chain: &&Chain| chain.surplus(self, SPARES_MIN).is_some();
        let shrunk = self.chains().iter().filter(surplus);
        let shrunk = shrunk.filter(|chain| self.shrink_chain(agent, chain, SPARES_MIN, usize::MAX)).count();
        if shrunk > 0 {
            self.control.space.ring();
        }
        shrunk > 0
    }

    /// Makes room for more tickets in the ring.
    #[cold]
    pub(crate) fn grow_ring(&self, agent: &Agent<'_>) -> Result<Grown, Error> {
        self.control.growing.lock(agent, self);
        let grown = self.grow_ring_locked(agent);
        self.control.growing.unlock(agent);
        grown
    }

    fn grow_ring_locked(&self, agent: &Agent<'_>) -> Result<Grown, Error> {
        let tickets = self.tickets();
        if tickets.has_room() || tickets.reuse() {
            return Ok(Grown::Yes);
        }
        let held = match self.new_block(agent) {
            Ok(held) => held,
            Err(HeapError::Full { needed, capacity, .. }) => return Ok(Grown::NoMemory(needed, capacity)),
            Err(error) => return Err(Error::of_heap(error)),
        };
        note(agent.record, Word::Cells, held.block.offset);
        note(agent.record, Word::Grow, GROW_RING);
        let linked = tickets.link(held.block.offset);
        if linked {
            self.segment.forget(agent, held);
        }
        note(agent.record, Word::Grow, 0);
        if !linked {
            self.segment.free(agent.record, held);
            return Ok(Grown::NoMemory(0, self.segment.usage().capacity));
        }
        Ok(Grown::Yes)
    }

    fn new_block(&self, agent: &Agent<'_>) -> Result<Held, HeapError> {
        let held = self.allocate_now(agent, BLOCK_BYTES)?;
        // `None` cannot be: the heap lies inside the segment, and blocks are aligned to 64 bytes at least.
        self.cells(held.block.offset).map(wipe);
        Ok(held)
    }
}
