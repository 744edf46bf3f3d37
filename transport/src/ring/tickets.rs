//! A queue of many producers and many consumers in one strict order, that grows by blocks of cells.
//!
//! # Shape
//! Ticket t lies in cell t mod n of block t / n. The *directory*, an array of the caller, has the offset of block k at
//! k mod d. The *range* word says which blocks it has: those before `newest`, `count` of them. Numbers start at block
//! 1, so that 0 is older than every ticket.
//!
//! # States of a cell
//! A cell's state is a ticket, an agent, and a kind. Seen from ticket t:
//! | state | means | next, by whom |
//! |---|---|---|
//! | older ticket | empty | WRITING(t, a): producer a, by compare-exchange |
//! | WRITING(t, a) | a writes the item | FULL(t, a): a, by a store. POISON(t, a): who settles a, by compare-exchange |
//! | FULL(t, a) | the item is there | nothing: the head says that it is taken |
//! | POISON(t, a) | a died; there is no item | nothing: consumers step over it |
//! | newer ticket | long taken | - |
//!
//! States only grow while the ring has the block. A block serves one number at a time, and is given the next one only
//! when all its tickets are taken; so whoever stalled with an old ticket in hand finds a ticket as new or newer there,
//! and its compare-exchange fails. Of a block that has left the ring this is not so: see *Shrinking*.
//!
//! # Putting
//! From the tail, a hint that is never beyond the first empty cell, or from the ticket after the one it last tried to
//! claim, a producer walks to that cell and claims it by compare-exchange; there are no tickets but those claimed in a
//! cell, so none can be abandoned. It writes, publishes by one store, and moves the hint on; if nobody has put anything
//! since its own last item, only every `LAG` tickets. A put that begins after another has ended gets the higher
//! ticket: one order for all.
//!
//! # Taking
//! As in `lane`. A consumer that finds WRITING waits a moment and then asks whether that agent lives.
//!
//! # Growing
//! Under the caller's lock of growth. (a) The oldest block, if it is taken empty, else a new one, goes to
//! `directory[newest]`, which is no block's place yet; (b) `range` is stored: one word, so there is nothing between. A
//! reader of the directory looks at the range before and after: the entry was valid if its block was in both.
//!
//! # Shrinking
//! Under the same lock, the oldest blocks go back to the heap once they are taken empty. Their memory may be anything
//! then, so nobody may write there, nor believe what it reads there. A producer *is at the ring* from before it reads
//! the tail until it needs none of the cells it found there; the caller makes it say so where others see it.
//! 1. [`begin_shrink`](Tickets::begin_shrink) raises the tail to the head and keeps the number of the head's block, the
//!    *limit*. The tail only rises, so who comes to the ring from now on never finds a cell before the limit.
//! 2. The caller passes a full fence, and sees each producer once when it is not at the ring. If one stays there,
//!    maybe a dead one, it gives up for now. Else nobody is left who could have found a cell before the limit. (The
//!    limit does not move on with the head: who came after the fence may go for a cell that was the head's in step 1.)
//! 3. For each block below the limit, the caller holds it and notes which it is;
//!    [`drop_oldest`](Tickets::drop_oldest) stores `range`, which only moves on; then it frees the block.
//!
//! All others only read:
//! | who looks into a cell | why it is not misled |
//! |---|---|
//! | a producer | it is at the ring, so no block that it may reach is freed |
//! | a consumer that has the head's lock, or keeps it and is announced | the head's block is never below a limit |
//! | a consumer that tries for that lock | unless its ticket was the head's all along, the compare-exchange fails |
//! | a consumer that is told `Empty` or `Busy` | only if the head is where it was |
//! | `state`: readiness, counts, the end | looks at the range again: if the block is in it now, it was then |
//! | who settles a dead producer | that one is at the ring until it is settled; if it was not, its note is void |
//! | `item`: for a dead consumer with the lock; for audits | as with the lock; nobody uses the ring then |
//!
//! # Deaths
//! - Producer: before it claims, nothing has happened. A survivor finds by the *note* that each put leaves ([`Note`])
//!   which cell a dead one claimed. WRITING becomes POISON; later states mean that the item is in.
//! - Consumer: as in `lane`. The count of poisoned tickets is kept in two places that are written in turns, each with
//!   the ticket it is for; one with a ticket that is not taken yet does not count.
//! - In growing: a new block is in `held` of who died, and [`Tickets::is_linked`] says whether it is in the ring.
//! - In shrinking: a raised tail harms nobody. The block is in `held` as well: in the ring still, then it is let go; or
//!   not any more, then it is freed like all that the dead one held.

#[cfg(test)]
mod tests;

use super::cell::{AHEAD, Cell, Item};
use super::chain::Pushed;
use super::head::{Approach, Head, Right, Taker};
use super::lane::Taken;
use super::{Blocks, first_of};
use crate::agent::AgentId;
use crate::sync::{AtomicU64, Ordering};

const KIND_BITS: u32 = 2;
const AGENT_BITS: u32 = 13;
const TICKET_SHIFT: u32 = KIND_BITS + AGENT_BITS;
const WRITING: u64 = 1;
const FULL: u64 = 2;
const POISON: u64 = 3;
const COUNT_BITS: u32 = 24;
/// Tickets by which the tail may stay behind a producer that is alone at it.
const LAG: u64 = 8;

/// Both ends of a ring. Zeroed: it must be [started](TicketRing::start).
#[derive(Default)]
#[repr(C)]
pub struct TicketRing {
    tail: Line,
    range: Line,
    head: Head,
}

#[derive(Default)]
#[repr(C, align(64))]
struct Line(AtomicU64);

/// Where a producer writes down what it is about to do, for those who settle its death.
pub trait Note {
    /// It will try to claim the cell of `ticket` in `block`. What it noted before is void.
    fn claiming(&self, block: u64, ticket: u64);
    /// It has claimed it.
    fn claimed(&self);
    /// The ticket it last tried to claim in this ring; 0: none.
    fn last(&self) -> u64;
}

/// A ring together with where its memory lies.
#[derive(Clone, Copy)]
pub struct Tickets<'r, B> {
    /// The ring.
    pub ring: &'r TicketRing,
    /// Its directory, whose length is a power of two: zeroed at first, always the same.
    pub directory: &'r [AtomicU64],
    /// Its blocks.
    pub blocks: &'r B,
}

/// What a look at a ticket shows.
enum Seen {
    Cell(u64),
    NotYet,
    Gone,
    Damaged,
}

impl TicketRing {
    /// Makes a zeroed ring ready, before anybody uses it.
    pub fn start<B: Blocks>(&self) {
        self.range.0.store(1 << COUNT_BITS, Ordering::Relaxed);
        self.head.start(B::CELLS);
        self.tail.0.store(B::CELLS, Ordering::Release);
    }

    /// The consumers' end.
    #[inline(always)]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// (Number after the newest block, how many blocks.)
    #[inline(always)]
    fn range(&self) -> (u64, u64) {
        let word = self.range.0.load(Ordering::Acquire);
        (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1))
    }
}

impl<'r, B: Blocks> Tickets<'r, B> {
    /// Puts an item at the end, if fewer than `bound` are in (0: no bound).
    ///
    /// Costs a compare-exchange and a store per eight bytes; another compare-exchange if others put as well. The
    /// doorbell is the caller's to ring.
    ///
    /// # Panics
    /// More than [`INLINE_MAX`](super::cell::INLINE_MAX) bytes.
    #[inline(always)]
    pub fn try_push(&self, agent: AgentId, bound: u64, tag: u32, bytes: &[u8], note: &impl Note) -> Pushed {
        let hint = self.ring.tail.0.load(Ordering::Acquire);
        let own = note.last().wrapping_add(1);
        let mut ticket = if own.wrapping_sub(hint) <= LAG { own } else { hint };
        loop {
            if bound != 0 && ticket.saturating_sub(self.ring.head.look().ticket) >= bound {
                return Pushed::Full;
            }
            let block = match self.find(ticket) {
                Seen::Cell(block) => block,
                Seen::NotYet => return Pushed::Grow,
                Seen::Gone => {
                    ticket = self.ring.head.look().ticket.max(ticket + 1);
                    continue;
                }
                Seen::Damaged => return Pushed::Damaged,
            };
            let Some(cell) = self.cell(block, ticket) else { return Pushed::Damaged };
            if let Some(later) = self.cell(block, ticket + AHEAD) {
                later.prefetch(bytes.len());
            }
            let state = cell.state.load(Ordering::Acquire);
            if state >> TICKET_SHIFT >= ticket {
                ticket += 1;
                continue;
            }
            note.claiming(block, ticket);
            let writing = pack(ticket, agent, WRITING);
            if cell.state.compare_exchange(state, writing, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            note.claimed();
            cell.write(tag, bytes);
            // Pairs with the acquire load in `try_pop`.
            cell.state.store(pack(ticket, agent, FULL), Ordering::Release);
            if ticket != own || ticket - hint >= LAG {
                let _ =
                    self.ring.tail.0.compare_exchange(hint, ticket + 1, Ordering::AcqRel, Ordering::Relaxed);
            }
            return Pushed::Yes;
        }
    }

    /// Takes the next item, if there is one at one of so many `looks`. `claim` sees it before it is committed, and may
    /// refuse it.
    #[inline(always)]
    pub fn try_pop(
        &self,
        taker: &impl Taker,
        looks: u32,
        item: &mut Item,
        mut claim: impl FnMut(&Item) -> bool,
    ) -> Taken {
        loop {
            let (ticket, is_kept) = match self.ring.head.approach(taker) {
                Approach::Free(ticket) => (ticket, false),
                Approach::Kept(ticket) => (ticket, true),
                Approach::Busy(other) => return Taken::Busy(other),
            };
            let taken = self.pop_at((ticket, is_kept), taker, looks, item, &mut claim);
            if is_kept {
                taker.end();
            }
            if let Some(taken) = taken {
                return taken;
            }
        }
    }

    /// `None`: another one was faster, or there was a ticket to step over.
    #[inline(always)]
    fn pop_at(
        &self,
        (ticket, is_kept): (u64, bool),
        taker: &impl Taker,
        looks: u32,
        item: &mut Item,
        claim: &mut impl FnMut(&Item) -> bool,
    ) -> Option<Taken> {
        let is_next = || self.ring.head.look().ticket == ticket;
        let cell = match self.find(ticket) {
            Seen::Cell(block) => self.cell(block, ticket),
            Seen::NotYet => return Some(Taken::Empty),
            Seen::Gone if !is_next() => return None,
            Seen::Gone | Seen::Damaged => return Some(Taken::Damaged),
        };
        let Some(cell) = cell else { return Some(Taken::Damaged) };
        match first_of(looks, || kind_of(cell.state.load(Ordering::Acquire), ticket)) {
            Some((FULL, _)) => {
                let right = self.ring.head.right(ticket, is_kept, taker)?;
                Some(self.finish(cell, right, taker, item, claim))
            }
            Some((POISON, _)) => {
                self.skip(self.ring.head.right(ticket, is_kept, taker)?, taker);
                None
            }
            Some((WRITING, writer)) => is_next().then_some(Taken::Busy(writer)),
            Some(_) => None,
            None => is_next().then_some(Taken::Empty),
        }
    }

    #[inline(always)]
    fn finish(
        &self,
        cell: &Cell,
        right: Right,
        taker: &impl Taker,
        item: &mut Item,
        claim: &mut impl FnMut(&Item) -> bool,
    ) -> Taken {
        cell.read(item);
        if !claim(item) {
            self.ring.head.give_back(right);
            return Taken::Refused;
        }
        self.ring.head.commit(right, right.ticket + 1, taker);
        Taken::Yes
    }

    /// Steps over a poisoned ticket.
    #[cold]
    fn skip(&self, right: Right, taker: &impl Taker) {
        let ticket = right.ticket;
        let [first, first_count, second, second_count] = &self.ring.head.owned;
        let (first_at, second_at) = (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
        // The one that counts is the newer one of those that are taken.
        let keep_first = first_at < ticket && (second_at >= ticket || first_at > second_at);
        let (old, place, count) = if keep_first {
            (first_count.load(Ordering::Relaxed), second, second_count)
        } else {
            let none = second_at == 0 || second_at >= ticket;
            (if none { 0 } else { second_count.load(Ordering::Relaxed) }, first, first_count)
        };
        count.store(old + 1, Ordering::Release);
        place.store(ticket, Ordering::Release);
        self.ring.head.commit(right, ticket + 1, taker);
    }

    /// Poisoned tickets among those taken.
    fn skipped(&self) -> u64 {
        loop {
            let before = self.ring.head.look().ticket;
            let words = [0, 1, 2, 3].map(|at| self.ring.head.owned[at].load(Ordering::Acquire));
            if self.ring.head.look().ticket == before {
                let counted = [(words[0], words[1]), (words[2], words[3])];
                let taken = counted.into_iter().filter(|&(ticket, _)| ticket != 0 && ticket < before);
                return taken.max().map_or(0, |(_, count)| count);
            }
        }
    }

    /// Whether the next item is there, or a poisoned ticket to step over, and nobody is taking it.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        let (owner, next) = self.next();
        owner.is_none() && next.is_some_and(|(kind, _)| kind != WRITING)
    }

    /// Who takes the next item, or else writes it.
    pub fn busy(&self) -> Option<AgentId> {
        let (owner, next) = self.next();
        let writer = next.filter(|(kind, _)| *kind == WRITING).map(|(_, agent)| agent);
        owner.or(writer)
    }

    /// Who takes the next item, and what its cell says: kind and agent.
    #[inline(always)]
    fn next(&self) -> (Option<AgentId>, Option<(u64, AgentId)>) {
        loop {
            let sight = self.ring.head.look();
            let next = self.state(sight.ticket).and_then(|state| kind_of(state, sight.ticket));
            if next.is_some() || self.ring.head.look().ticket == sight.ticket {
                return (sight.owner, next);
            }
        }
    }

    /// Whether `bound` items are in.
    pub fn is_full(&self, bound: u64) -> bool {
        bound != 0 && self.end().saturating_sub(self.ring.head.look().ticket) >= bound
    }

    /// The next item, whether or not somebody is taking it. For those who settle a dead consumer, which had the lock.
    pub fn peek(&self) -> Option<Item> {
        self.item(self.ring.head.look().ticket)
    }

    /// Items that were put ever, and of these, taken. One that is being written counts as put.
    pub fn counts(&self) -> (u64, u64) {
        let end = self.end();
        let skipped = self.skipped();
        let head = self.ring.head.look().ticket;
        let before = |ticket: u64| (ticket - B::CELLS).saturating_sub(skipped);
        (before(end.max(head)), before(head))
    }

    /// The first ticket that nobody has claimed.
    fn end(&self) -> u64 {
        let mut ticket = self.ring.tail.0.load(Ordering::Acquire).max(self.ring.head.look().ticket);
        loop {
            match self.state(ticket) {
                Some(state) if state >> TICKET_SHIFT >= ticket => ticket += 1,
                None if self.is_gone(ticket) => {
                    let head = self.ring.head.look().ticket;
                    // The head is in the ring or after it, unless memory is damaged.
                    if head <= ticket {
                        return ticket;
                    }
                    ticket = head;
                }
                _ => return ticket,
            }
        }
    }

    /// For those who settle `dead`, which was at the ring and had noted there that it claims `ticket` in `block`:
    /// whether it still writes the item.
    pub fn is_writing(&self, dead: AgentId, block: u64, ticket: u64) -> bool {
        let state = self.cell(block, ticket).map(|cell| cell.state.load(Ordering::Acquire));
        state == Some(pack(ticket, dead, WRITING))
    }

    /// Poisons the ticket that `dead` was writing; does nothing if it was not. Idempotent.
    pub fn poison(&self, dead: AgentId, block: u64, ticket: u64) {
        if let Some(cell) = self.cell(block, ticket) {
            let (writing, poison) = (pack(ticket, dead, WRITING), pack(ticket, dead, POISON));
            let _ = cell.state.compare_exchange(writing, poison, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Whether there is room for a ticket more, under the lock of growth.
    pub fn has_room(&self) -> bool {
        self.end() < self.ring.range().0 * B::CELLS
    }

    /// After [`Pushed::Grow`], under the lock of growth, if there is [no room](Self::has_room) yet: makes some by using
    /// the oldest block again. False: a new block must be [linked](Self::link).
    pub fn reuse(&self) -> bool {
        let (newest, count) = self.ring.range();
        let oldest = newest - count;
        if count == 0 || self.ring.head.look().ticket / B::CELLS <= oldest {
            return false;
        }
        let block = self.entry(oldest).load(Ordering::Relaxed);
        self.entry(newest).store(block, Ordering::Release);
        self.ring.range.0.store((newest + 1) << COUNT_BITS | count, Ordering::Release);
        true
    }

    /// Whether more than `spares` blocks are taken empty.
    pub fn is_swollen(&self, spares: u64) -> bool {
        self.surplus(self.ring.head.look().ticket / B::CELLS, spares).is_some()
    }

    /// Step 1 of shrinking, under the lock of growth: the limit.
    pub fn begin_shrink(&self) -> u64 {
        let head = self.ring.head.look().ticket;
        self.ring.tail.0.fetch_max(head, Ordering::SeqCst);
        head / B::CELLS
    }

    /// The oldest block, under the lock of growth, if it and `spares` more are below `limit`.
    pub fn surplus(&self, limit: u64, spares: u64) -> Option<u64> {
        let (newest, count) = self.ring.range();
        let oldest = newest.saturating_sub(count);
        (count > 0 && oldest + spares < limit.min(newest)).then(|| self.entry(oldest).load(Ordering::Relaxed))
    }

    /// Takes the oldest block, the [surplus](Self::surplus) one, out of the ring; step 3 of shrinking.
    pub fn drop_oldest(&self) {
        let (newest, count) = self.ring.range();
        self.ring.range.0.store(newest << COUNT_BITS | count.saturating_sub(1), Ordering::SeqCst);
    }

    /// Links a new block, whose cells were [wiped](super::wipe), under the lock of growth. False if the directory is
    /// full. The caller holds the block and lets go of it afterwards.
    pub fn link(&self, block: u64) -> bool {
        let (newest, count) = self.ring.range();
        if count >= self.directory.len() as u64 {
            return false;
        }
        self.entry(newest).store(block, Ordering::Release);
        self.ring.range.0.store((newest + 1) << COUNT_BITS | (count + 1), Ordering::Release);
        true
    }

    /// Whether a block is in the ring.
    pub fn is_linked(&self, block: u64) -> bool {
        let mut linked = false;
        self.each_block(&mut |one| linked |= one == block);
        linked
    }

    /// Calls `visit` with the offset of each block, while nobody grows the ring.
    pub fn each_block(&self, visit: &mut dyn FnMut(u64)) {
        let (newest, count) = self.ring.range();
        let count = count.min(newest).min(self.directory.len() as u64);
        (newest - count..newest).for_each(|number| visit(self.entry(number).load(Ordering::Acquire)));
    }

    /// Calls `visit` with each item that is in the ring, while nobody uses it.
    pub fn each_item(&self, visit: &mut dyn FnMut(&Item)) {
        let (head, end) = (self.ring.head.look().ticket, self.end());
        (head..end).filter_map(|ticket| self.item(ticket)).for_each(|item| visit(&item));
    }

    /// The item of a ticket whose block cannot leave the ring.
    fn item(&self, ticket: u64) -> Option<Item> {
        let Seen::Cell(block) = self.find(ticket) else { return None };
        let cell = self.cell(block, ticket)?;
        let kind = kind_of(cell.state.load(Ordering::Acquire), ticket)?;
        let mut item = Item::default();
        cell.read(&mut item);
        (kind.0 == FULL).then_some(item)
    }

    #[inline(always)]
    fn entry(&self, number: u64) -> &'r AtomicU64 {
        &self.directory[number as usize & (self.directory.len() - 1)]
    }

    /// The block of a ticket.
    #[inline(always)]
    fn find(&self, ticket: u64) -> Seen {
        let number = ticket / B::CELLS;
        let (newest, _) = self.ring.range();
        if number >= newest {
            return Seen::NotYet;
        }
        let block = self.entry(number).load(Ordering::Acquire);
        if self.is_gone(ticket) {
            return Seen::Gone;
        }
        if block == 0 { Seen::Damaged } else { Seen::Cell(block) }
    }

    #[inline(always)]
    fn cell(&self, block: u64, ticket: u64) -> Option<&'r Cell> {
        self.blocks.cells(block)?.get((ticket & (B::CELLS - 1)) as usize)
    }

    /// The state of a ticket's cell, if the ring has its block.
    #[inline(always)]
    fn state(&self, ticket: u64) -> Option<u64> {
        let Seen::Cell(block) = self.find(ticket) else { return None };
        let state = self.cell(block, ticket)?.state.load(Ordering::Acquire);
        (!self.is_gone(ticket)).then_some(state)
    }

    /// Whether the ring had the block of a ticket, and has it no more.
    #[inline(always)]
    fn is_gone(&self, ticket: u64) -> bool {
        let (newest, count) = self.ring.range();
        ticket / B::CELLS < newest.saturating_sub(count)
    }
}

fn pack(ticket: u64, agent: AgentId, kind: u64) -> u64 {
    ticket << TICKET_SHIFT | u64::from(agent.0) << KIND_BITS | kind
}

/// The kind of a state and its agent, if it is of this ticket.
fn kind_of(state: u64, ticket: u64) -> Option<(u64, AgentId)> {
    let agent = state >> KIND_BITS & ((1 << AGENT_BITS) - 1);
    (state >> TICKET_SHIFT == ticket).then_some((state & ((1 << KIND_BITS) - 1), AgentId(agent as u16)))
}
