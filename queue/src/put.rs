//! The way into a queue: into the cell of this thread's chain or of the ring, waiting for room if need be.

use crate::bytes;
use crate::error::Error;
use crate::growth::Grown;
use crate::layout::{
    AT_RING, Attached, CLOSED, IN_BLOCK, INLINE, LANES_MAX, NO_LANE, NOT_AT_RING, Noted, OPEN, PUT_CHAIN,
    SEALED, View, Word, note, noted,
};
use std::sync::atomic::Ordering;
use std::time::Instant;
use tarragon_transport::HeapError;
use tarragon_transport::agent::Agent;
use tarragon_transport::doorbell::Woken;
use tarragon_transport::heap::Held;
use tarragon_transport::ring::cell::INLINE_MAX;
use tarragon_transport::ring::chain::{Chain, Pushed, SPARES_MAX};

/// How long an operation may wait.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Not,
    Until(Instant),
    Ever,
}

impl Wait {
    pub(crate) fn may_wait(self) -> bool {
        !matches!(self, Self::Not)
    }

    /// For waiting: when to end. Call it only if it may wait at all.
    pub(crate) fn until(self) -> Option<Instant> {
        match self {
            Self::Not => Some(Instant::now()),
            Self::Until(until) => Some(until),
            Self::Ever => None,
        }
    }

    pub(crate) fn is_over(self) -> bool {
        self.until().is_some_and(|until| Instant::now() >= until)
    }
}

/// What became of one attempt.
enum Attempt {
    In,
    /// As many items as allowed are in.
    Full,
    /// So many bytes are needed, of so many.
    NoMemory(u64, u64),
}

/// What a cell is to hold.
#[derive(Clone, Copy)]
struct Content<'a> {
    tag: u32,
    bytes: &'a [u8],
    /// Offset of the item's block; 0: none.
    block: u64,
}

impl Attached {
    /// Puts an item of at most `INLINE_MAX` bytes where that takes no more than writing a cell: this thread has done so
    /// before, and its block is not full. False: nothing was done.
    ///
    /// All of it in the caller's frame, and nothing but a flag comes back: results that travel through memory cost as
    /// much as the put.
    #[inline(always)]
    pub(crate) fn put_quick(&self, item: &[u8]) -> bool {
        let Some(agent) = self.segment.recent_agent() else { return false };
        let view = self.view();
        agent.announce(Word::Entered as usize, if self.is_strict { AT_RING } else { NOT_AT_RING });
        if view.state() != OPEN {
            agent.withdraw(Word::Entered as usize);
            return false;
        }
        let is_in = if self.is_strict {
            note(agent.record, Word::Item, 0);
            let pushed = view.tickets().try_push(agent.id, self.bound, INLINE, item, &Noted(&agent));
            note(agent.record, Word::Put, 0);
            matches!(pushed, Pushed::Yes)
        } else {
            let lane = noted(agent.record, Word::Lane).wrapping_sub(1);
            let chain = view.control.chains.get(lane as usize);
            chain.is_some_and(|chain| chain.push_quick(&view, INLINE, item))
        };
        agent.withdraw(Word::Entered as usize);
        if is_in {
            view.control.items.ring();
        }
        is_in
    }

    /// Puts an item of these bytes: into the cell, or copied into a block.
    #[inline(never)]
    pub(crate) fn put_bytes(&self, item: &[u8], wait: Wait) -> Result<(), Error> {
        let agent = self.segment.agent()?;
        if item.len() <= INLINE_MAX {
            return self.view().put_content(&agent, Content { tag: INLINE, bytes: item, block: 0 }, wait);
        }
        self.put_large(&agent, item.len() as u64, wait, |into| {
            into.copy_from_slice(item);
            Ok(())
        })
    }

    /// Puts an item of `len` bytes that `write` writes.
    pub(crate) fn put_large(
        &self,
        agent: &Agent<'_>,
        len: u64,
        wait: Wait,
        write: impl FnOnce(&mut [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut held = self.view().allocate(agent, len, wait)?;
        let written = bytes::writable(&self.segment, &mut held, len).and_then(write);
        match written {
            Ok(()) => self.put_held(agent, held, len, wait).map_err(|(error, held)| {
                self.view().free(agent, held);
                error
            }),
            Err(error) => {
                self.view().free(agent, held);
                Err(error)
            }
        }
    }

    /// Puts a block that this agent holds. After an error it still does.
    pub(crate) fn put_held(
        &self,
        agent: &Agent<'_>,
        held: Held,
        len: u64,
        wait: Wait,
    ) -> Result<(), (Error, Held)> {
        let words = words_of(&held, len);
        let content = Content { tag: IN_BLOCK, bytes: &words, block: held.block.offset };
        let put = self.view().put_content(agent, content, wait);
        // Only now may the intent go: while the block is held, it says whether it was published.
        if put.is_ok() {
            self.segment.forget(agent, held);
        }
        note(agent.record, Word::Put, 0);
        put.map_err(|error| (error, held))
    }
}

impl Attached {
    /// Puts an item if there is room now, for an agent that keeps the queue from being sealed and goes on doing so;
    /// `is_return`: one that the agent took from it, which a closed queue takes back.
    pub(crate) fn put_kept(&self, agent: &Agent<'_>, item: &[u8], is_return: bool) -> Result<(), Error> {
        let view = self.view();
        if item.len() <= INLINE_MAX {
            return view.put_kept(agent, Content { tag: INLINE, bytes: item, block: 0 }, is_return);
        }
        let len = item.len() as u64;
        let mut held = view.allocate_now(agent, len).map_err(Error::of_heap)?;
        let words = words_of(&held, len);
        let content = Content { tag: IN_BLOCK, bytes: &words, block: held.block.offset };
        let written = bytes::writable(&self.segment, &mut held, len).map(|into| into.copy_from_slice(item));
        let put = written.and_then(|()| view.put_kept(agent, content, is_return));
        match put {
            Ok(()) => self.segment.forget(agent, held),
            Err(_) => view.free(agent, held),
        }
        note(agent.record, Word::Put, 0);
        put
    }
}

/// What the cell of an item in a block says.
fn words_of(held: &Held, len: u64) -> [u8; 16] {
    let mut words = [0; 16];
    words[..8].copy_from_slice(&held.block.offset.to_ne_bytes());
    words[8..].copy_from_slice(&len.to_ne_bytes());
    words
}

impl View<'_> {
    /// See [`Attached::put_kept`].
    fn put_kept(&self, agent: &Agent<'_>, content: Content<'_>, is_return: bool) -> Result<(), Error> {
        let lane = self.lane_of(agent);
        agent.announce(Word::Entered as usize, if lane.is_some() { NOT_AT_RING } else { AT_RING });
        let may_return = is_return && self.state() == CLOSED;
        let may = if may_return { Ok(()) } else { self.check_open() };
        let attempt = may.and_then(|()| match lane {
            Some(chain) => self.attempt_chain(agent, chain, content),
            None => self.attempt_ring(agent, content),
        });
        agent.announce(Word::Entered as usize, NOT_AT_RING);
        match attempt? {
            Attempt::In => {
                self.control.items.ring();
                Ok(())
            }
            Attempt::Full => Err(Error::Full { bound: self.queue.bound }),
            Attempt::NoMemory(needed, capacity) => Err(Error::Memory { needed, capacity }),
        }
    }

    /// A block for an item, waiting for memory if need be.
    pub(crate) fn allocate(&self, agent: &Agent<'_>, len: u64, wait: Wait) -> Result<Held, Error> {
        let mut result = self.allocate_now(agent, len);
        if matches!(result, Err(HeapError::Full { .. })) && !matches!(wait, Wait::Not) {
            self.control.space.sleep(wait.until(), || {
                self.segment.recover(self);
                result = self.allocate_now(agent, len);
                self.state() != OPEN || !matches!(result, Err(HeapError::Full { .. }))
            });
            if result.is_ok() {
                // There may be more for others who wait.
                self.control.space.ring();
            }
        }
        let held = result.map_err(Error::of_heap);
        if held.is_err() { self.check_open().and(held) } else { held }
    }

    #[inline(always)]
    pub(crate) fn allocate_now(&self, agent: &Agent<'_>, len: u64) -> Result<Held, HeapError> {
        match self.segment.alloc(agent, len) {
            Err(HeapError::Full { .. }) if self.shrink_all(agent) => self.segment.alloc(agent, len),
            result => result,
        }
    }

    /// Frees a block that this agent holds, and tells those who wait for memory.
    pub(crate) fn free(&self, agent: &Agent<'_>, held: Held) {
        self.segment.free(agent.record, held);
        self.control.space.ring();
    }

    #[inline(always)]
    fn put_content(&self, agent: &Agent<'_>, content: Content<'_>, wait: Wait) -> Result<(), Error> {
        match self.attempt(agent, content)? {
            Attempt::In => {
                self.control.items.ring();
                Ok(())
            }
            failed => self.put_waiting(agent, content, wait, failed),
        }
    }

    #[cold]
    fn put_waiting(
        &self,
        agent: &Agent<'_>,
        content: Content<'_>,
        wait: Wait,
        failed: Attempt,
    ) -> Result<(), Error> {
        let mut last = Ok(failed);
        if !matches!(wait, Wait::Not) {
            let waits_for_memory = matches!(last, Ok(Attempt::NoMemory(..)));
            let ready = || {
                if waits_for_memory {
                    self.segment.recover(self);
                }
                last = self.attempt(agent, content);
                matches!(last, Ok(Attempt::In) | Err(_))
            };
            let space = &self.control.space;
            let until = wait.until();
            let woken = if waits_for_memory { space.sleep(until, ready) } else { space.wait(until, ready) };
            if woken == Woken::Rung {
                // Others may wait for what room is left.
                space.ring();
            }
        }
        match last? {
            Attempt::In => {
                self.control.items.ring();
                Ok(())
            }
            Attempt::Full => Err(Error::Full { bound: self.queue.bound }),
            Attempt::NoMemory(needed, capacity) => Err(Error::Memory { needed, capacity }),
        }
    }

    /// One attempt, if the queue is open; see `layout` on closing.
    #[inline(always)]
    fn attempt(&self, agent: &Agent<'_>, content: Content<'_>) -> Result<Attempt, Error> {
        let lane = self.lane_of(agent);
        agent.announce(Word::Entered as usize, if lane.is_some() { NOT_AT_RING } else { AT_RING });
        let attempt = self.check_open().and_then(|()| match lane {
            Some(chain) => self.attempt_chain(agent, chain, content),
            None => self.attempt_ring(agent, content),
        });
        agent.withdraw(Word::Entered as usize);
        attempt
    }

    #[inline(always)]
    fn attempt_chain(
        &self,
        agent: &Agent<'_>,
        chain: &Chain,
        content: Content<'_>,
    ) -> Result<Attempt, Error> {
        loop {
            if content.block != 0 {
                let (block, ticket) = chain.place();
                note(agent.record, Word::Put, 0);
                note(agent.record, Word::Block, block);
                note(agent.record, Word::Ticket, ticket);
                note(agent.record, Word::Item, content.block);
                note(agent.record, Word::Put, PUT_CHAIN);
            }
            match chain.try_push(self, content.tag, content.bytes) {
                Pushed::Yes => return Ok(Attempt::In),
                Pushed::Grow => {}
                Pushed::Full | Pushed::Damaged => return Err(Error::Damaged),
            }
            self.shrink_chain(agent, chain, SPARES_MAX, 1);
            if let Grown::NoMemory(needed, capacity) = self.grow_chain(agent, chain)? {
                return Ok(Attempt::NoMemory(needed, capacity));
            }
        }
    }

    #[inline(always)]
    fn attempt_ring(&self, agent: &Agent<'_>, content: Content<'_>) -> Result<Attempt, Error> {
        note(agent.record, Word::Item, content.block);
        loop {
            let (tag, bytes) = (content.tag, content.bytes);
            let pushed = self.tickets().try_push(agent.id, self.queue.bound, tag, bytes, &Noted(agent));
            // What it says of a block that is in must stay until that is let go.
            if content.block == 0 || !matches!(pushed, Pushed::Yes) {
                note(agent.record, Word::Put, 0);
            }
            match pushed {
                Pushed::Yes => return Ok(Attempt::In),
                Pushed::Full => return Ok(Attempt::Full),
                Pushed::Damaged => return Err(Error::Damaged),
                Pushed::Grow => {}
            }
            if let Grown::NoMemory(needed, capacity) = self.grow_ring(agent)? {
                return Ok(Attempt::NoMemory(needed, capacity));
            }
        }
    }

    /// This agent's chain; `None`: it puts to the ring.
    #[inline(always)]
    fn lane_of(&self, agent: &Agent<'_>) -> Option<&Chain> {
        if self.queue.is_strict {
            return None;
        }
        match noted(agent.record, Word::Lane) {
            0 => self.find_lane(agent),
            lane => self.control.chains.get((lane - 1) as usize),
        }
    }

    /// The chain of this agent's number, or a new one, or none.
    #[cold]
    fn find_lane(&self, agent: &Agent<'_>) -> Option<&Chain> {
        let chains = &self.control.chains;
        let own = chains.iter().position(|chain| chain.owner() == u64::from(agent.id.0));
        let lane =
            own.or_else(|| chains.iter().position(|chain| chain.owner() == 0 && chain.claim(agent.id)));
        match lane {
            Some(lane) => {
                self.control.lanes.fetch_max(lane as u64 + 1, Ordering::AcqRel);
                note(agent.record, Word::Lane, lane as u64 + 1);
            }
            None => {
                self.control.overflows.store(1, Ordering::SeqCst);
                note(agent.record, Word::Lane, NO_LANE);
            }
        }
        lane.and_then(|lane| chains.get(lane))
    }

    /// Refuses what comes after the end.
    #[inline(always)]
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.state() {
            OPEN => Ok(()),
            CLOSED | SEALED => Err(Error::Closed),
            _ => Err(Error::Destroyed),
        }
    }
}

const _: () = assert!(LANES_MAX < NO_LANE as usize);
