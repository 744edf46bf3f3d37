//! The blocks that cells lie in: got from the heap when a chain or the ring grows, given back when it shrinks.
//!
//! A chain shrinks by one block each time its producer needs another one. The ring shrinks when more than
//! [`SWOLLEN`] blocks are taken empty, down to [`SPARES_MAX`] of them: when a producer needs another one, for then the
//! other producers soon have nothing to do at the ring, and when a consumer finds nothing. And any agent that finds no
//! memory takes all that is empty off all chains and the ring, so that nobody who is idle keeps it.
//!
//! The words `Grow` and `Cells` of the agent's intent say which block is on its way; see `settle`.

use crate::error::Error;
use crate::layout::{
    AT_RING, BLOCK_BYTES, GROW_CHAIN, GROW_RING, NOT_AT_RING, SHRINK_CHAIN, SHRINK_RING, View, Word, note,
};
use tarragon_transport::HeapError;
use tarragon_transport::agent::{Agent, AgentId};
use tarragon_transport::heap::Held;
use tarragon_transport::ring::chain::{Chain, SPARES_MAX, SPARES_MIN};
use tarragon_transport::ring::{Blocks, wipe};

/// Empty blocks of the ring at which it is worth to shrink: each time costs a fence on all cores.
const SWOLLEN: u64 = 2 * SPARES_MAX;
/// Blocks that are taken off the ring with one such fence; a put may have to wait for so many.
const TURN: usize = 64;
/// Looks at producers that are at the ring, before shrinking is given up for now: some puts long.
const LOOKS_AT_RING: u32 = 100;

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

    /// Where memory is short: gives back the cells that are taken empty, of all chains and the ring. Whether there were
    /// any.
    #[cold]
    pub(crate) fn shrink_all(&self, agent: &Agent<'_>) -> bool {
        let surplus = |chain: &&Chain| chain.surplus(self, SPARES_MIN).is_some();
        let shrunk = self.chains().iter().filter(surplus);
        let shrunk = shrunk.filter(|chain| self.shrink_chain(agent, chain, SPARES_MIN, usize::MAX)).count();
        if shrunk > 0 {
            self.control.space.ring();
        }
        self.shrink_ring(agent, SPARES_MIN, SPARES_MIN) || shrunk > 0
    }

    /// Where a consumer finds nothing: gives back what a burst has left.
    #[inline(always)]
    pub(crate) fn shrink_idle(&self, agent: &Agent<'_>) {
        if self.has_ring() {
            self.shrink_ring(agent, SWOLLEN, SPARES_MAX);
        }
    }

    /// Gives blocks of the ring back that are taken empty, if they are more than `swollen`, until `spares` are left.
    /// Whether there was one. Does nothing while another agent, or this one, is at it.
    fn shrink_ring(&self, agent: &Agent<'_>, swollen: u64, spares: u64) -> bool {
        let mut shrunk = false;
        let mut least = swollen;
        while self.tickets().is_swollen(least) && self.control.growing.try_lock(agent) {
            let given_back = self.shrink_ring_locked(agent, spares);
            self.control.growing.unlock(agent);
            match given_back {
                Ok(0) => break,
                Ok(_) => (shrunk, least) = (true, spares),
                Err(putting) => {
                    self.doubt(putting);
                    break;
                }
            }
        }
        shrunk
    }

    /// Takes at most [`TURN`] blocks off the ring, as long as more than `spares` are empty; how many. `Err`: who is at
    /// the ring, and may look at them.
    #[cold]
    fn shrink_ring_locked(&self, agent: &Agent<'_>, spares: u64) -> Result<usize, AgentId> {
        let tickets = self.tickets();
        let limit = tickets.begin_shrink();
        let (word, looks) = (Word::Entered as usize, LOOKS_AT_RING);
        if let Some(putting) = self.segment.still_announced(word, AT_RING, looks) {
            return Err(putting);
        }
        let mut given_back = 0;
        while given_back < TURN
            && let Some(block) = tickets.surplus(limit, spares)
        {
            note(agent.record, Word::Cells, block);
            note(agent.record, Word::Grow, SHRINK_RING);
            let Ok(held) = self.segment.hold(agent, block) else { break };
            tickets.drop_oldest();
            note(agent.record, Word::Grow, 0);
            self.segment.free(agent.record, held);
            given_back += 1;
        }
        note(agent.record, Word::Grow, 0);
        if given_back > 0 {
            self.control.space.ring();
        }
        Ok(given_back)
    }

    /// Settles an agent that is in the way, if it is dead: nobody else may ever have to wait for it.
    fn doubt(&self, agent: AgentId) {
        if self.segment.is_dead(agent) {
            self.segment.recover(self);
        }
    }

    /// Makes room for more tickets in the ring. Its agent is not at the ring meanwhile.
    #[cold]
    pub(crate) fn grow_ring(&self, agent: &Agent<'_>) -> Result<Grown, Error> {
        note(agent.record, Word::Entered, NOT_AT_RING);
        self.control.growing.lock(agent, self);
        let (grown, putting) = self.grow_ring_locked(agent);
        self.control.growing.unlock(agent);
        if let Some(putting) = putting {
            self.doubt(putting);
        }
        agent.announce(Word::Entered as usize, AT_RING);
        grown
    }

    /// What became of it, and who kept the ring from shrinking.
    fn grow_ring_locked(&self, agent: &Agent<'_>) -> (Result<Grown, Error>, Option<AgentId>) {
        let tickets = self.tickets();
        if tickets.has_room() {
            return (Ok(Grown::Yes), None);
        }
        // While there is no room, everybody else soon comes here too, and is not at the ring either.
        let shrunk =
            if tickets.is_swollen(SWOLLEN) { self.shrink_ring_locked(agent, SPARES_MAX) } else { Ok(0) };
        let grown = if tickets.reuse() { Ok(Grown::Yes) } else { self.link_new(agent) };
        (grown, shrunk.err())
    }

    fn link_new(&self, agent: &Agent<'_>) -> Result<Grown, Error> {
        let tickets = self.tickets();
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
