//! A queue of one producer that grows by blocks of cells; any number of consumers.
//!
//! # Shape
//! Blocks form a list, from the oldest to the one that the producer fills. The first cell of a block is its header: the
//! offset of the *next* block (0: none yet) and the block's *number*. Ticket t lies in cell t mod n of block t / n;
//! tickets with t mod n = 0 are never given, since headers are there. A cell's state is t + 1 once item t is in it.
//!
//! # Who may write what
//! | words | written by |
//! |---|---|
//! | cells, headers, `tail` but `oldest` | the producer |
//! | `oldest` | who has the `front` lock: the producer, or who takes blocks away |
//! | `head`, and in it the next ticket's block (two words, by its number mod 2) | who locked or keeps the head |
//!
//! *Taking* is as in `lane`. Who takes the last item of a block reads `next`, stores it in the word that the next
//! block's number chooses, and then commits: until then the word is nobody's, so a survivor does the same again.
//!
//! *Growing.* Before the producer publishes the last item of a block X it links the next block O: (a) chooses the
//! oldest one if that is taken empty and nobody else has the front's lock, else a new one; (b) `X.next = O`; (c) if it
//! was the oldest, moves `oldest` on; (d) `O.next = 0`, `O.number`. Then it publishes; so consumers who take the last
//! item find `next`. A short queue goes round in two blocks.
//!
//! *Shrinking.* After a burst, the producer gives blocks beyond [`SPARES_MAX`] that are taken empty back to the heap,
//! one at a time. Who waits for memory takes all such blocks off any chain, but the youngest, which the producer may
//! still have in its hands. Nobody ever waits for the front's lock: who does not get it does without. Consumers may
//! look into a block that has gone: what they see there is worth nothing, since their lock then fails; blocks stay
//! mapped.
//!
//! # Deaths
//! - Producer before (b): nothing has happened (a new block is still in its held table). Between (b) and (d): whoever
//!   goes on finds `X.next` set and does the rest again; `X.next == oldest` says that (c) is missing, and it says so
//!   only then, because (d) of X has cleared its `next`, and a block is never its own oldest. After the publishing:
//!   `tail` is behind by one item, [`Chain::resume`].
//! - With the front's lock: the producer between (b) and (c), then (c) is done for it before the lock is let go; else
//!   `oldest` says whether a block was taken away, [`Chain::release_front_for`].
//! - Consumer: as in `lane`.

#[cfg(test)]
mod tests;

use super::cell::{Cell, Item};
use super::head::{Approach, Head, Right, Taker};
use super::lane::Taken;
use super::{Blocks, first_of};
use crate::agent::AgentId;
use crate::sync::{AtomicU64, Ordering};

/// Blocks that are taken empty and kept for use.
pub const SPARES_MAX: u64 = 4;
/// Those that are kept even where memory is short: the block before the head's may be the tail still, for a moment or
/// until a dead producer's tail is moved on.
pub const SPARES_MIN: u64 = 1;

const NEXT: usize = 0;
const NUMBER: usize = 1;

/// Both ends of a chain. Zeroed: it has no blocks yet.
#[derive(Default)]
#[repr(C)]
pub struct Chain {
    tail: Tail,
    head: Head,
}

#[derive(Default)]
#[repr(C, align(64))]
struct Tail {
    ticket: AtomicU64,
    /// Block of `ticket`. 0: the chain was not started.
    block: AtomicU64,
    oldest: AtomicU64,
    owner: AtomicU64,
    /// The agent that may change `oldest`; 0: none.
    front: AtomicU64,
}

/// What became of an attempt to put an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It is in.
    Yes,
    /// A block must be linked first.
    Grow,
    /// As many items as allowed are in.
    Full,
    /// The ring's memory holds what cannot be.
    Damaged,
}

impl Chain {
    /// The consumers' end.
    #[inline(always)]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The agent whose chain it is; 0: nobody's yet.
    #[inline(always)]
    pub fn owner(&self) -> u64 {
        self.tail.owner.load(Ordering::Acquire)
    }

    /// Makes it `agent`'s, if it is nobody's. A chain keeps its owner's number for good.
    pub fn claim(&self, agent: AgentId) -> bool {
        let owner = u64::from(agent.0);
        self.tail.owner.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Puts an item at the end. Only the producer may call it.
    ///
    /// Costs a store per eight bytes and two more. The consumers' doorbell is the caller's to ring.
    ///
    /// # Panics
    /// More than [`INLINE_MAX`](super::cell::INLINE_MAX) bytes.
    #[inline(always)]
    pub fn try_push<B: Blocks>(&self, blocks: &B, tag: u32, bytes: &[u8]) -> Pushed {
        let ticket = self.tail.ticket.load(Ordering::Relaxed);
        let block = self.tail.block.load(Ordering::Relaxed);
        let Some(cells) = blocks.cells(block) else {
            return if block == 0 { Pushed::Grow } else { Pushed::Damaged };
        };
        let last = ticket & (B::CELLS - 1) == B::CELLS - 1;
        if last && let Err(pushed) = self.prepare_next(blocks, cells, ticket) {
            return pushed;
        }
        let cell = at::<B>(cells, ticket);
        cell.write(tag, bytes);
        // Pairs with the acquire load in `holds`.
        cell.state.store(ticket + 1, Ordering::Release);
        self.advance::<B>(cells, ticket);
        Pushed::Yes
    }

    /// Puts an item as [`try_push`](Self::try_push) does, where that takes no more than writing a cell. False: it did
    /// nothing.
    #[inline(always)]
    pub fn push_quick<B: Blocks>(&self, blocks: &B, tag: u32, bytes: &[u8]) -> bool {
        let ticket = self.tail.ticket.load(Ordering::Relaxed);
        let index = ticket & (B::CELLS - 1);
        let block = self.tail.block.load(Ordering::Relaxed);
        if index == B::CELLS - 1 {
            return false;
        }
        let Some(cell) = blocks.cell(block, index) else { return false };
        cell.write(tag, bytes);
        // Pairs with the acquire load in `holds`.
        cell.state.store(ticket + 1, Ordering::Release);
        self.tail.ticket.store(ticket + 1, Ordering::Release);
        true
    }

    /// Where the next item will be put: block and ticket, as [`holds`] understands them.
    #[inline(always)]
    pub fn place(&self) -> (u64, u64) {
        (self.tail.block.load(Ordering::Relaxed), self.tail.ticket.load(Ordering::Relaxed))
    }

    fn advance<B: Blocks>(&self, cells: &[Cell], ticket: u64) {
        if ticket & (B::CELLS - 1) < B::CELLS - 1 {
            self.tail.ticket.store(ticket + 1, Ordering::Release);
        } else {
            self.tail.block.store(cells[0].word(NEXT).load(Ordering::Relaxed), Ordering::Release);
            self.tail.ticket.store(ticket + 2, Ordering::Release);
        }
    }

    /// Steps (a) to (d), as far as they are not done.
    #[cold]
    fn prepare_next<B: Blocks>(&self, blocks: &B, cells: &[Cell], ticket: u64) -> Result<(), Pushed> {
        let oldest = self.tail.oldest.load(Ordering::Relaxed);
        let mut next = cells[0].word(NEXT).load(Ordering::Relaxed);
        if next == 0 {
            next = self.reuse_oldest(blocks, cells)?;
        } else if next == oldest {
            self.move_oldest_on(blocks);
        }
        let header = &blocks.cells(next).ok_or(Pushed::Damaged)?[0];
        header.word(NEXT).store(0, Ordering::Release);
        header.word(NUMBER).store(ticket / B::CELLS + 1, Ordering::Release);
        Ok(())
    }

    /// Steps (a) to (c) with the oldest block, if it is taken empty.
    fn reuse_oldest<B: Blocks>(&self, blocks: &B, cells: &[Cell]) -> Result<u64, Pushed> {
        let owner = AgentId(self.owner() as u16);
        if !self.lock_front(owner) {
            return Err(Pushed::Grow);
        }
        let oldest = self.tail.oldest.load(Ordering::Relaxed);
        let reused = match number(blocks, oldest) {
            None => Err(Pushed::Damaged),
            Some(number) if number >= self.head.look().ticket / B::CELLS => Err(Pushed::Grow),
            Some(_) => {
                cells[0].word(NEXT).store(oldest, Ordering::Release);
                self.move_oldest_on(blocks);
                Ok(oldest)
            }
        };
        self.unlock_front();
        reused
    }

    fn move_oldest_on<B: Blocks>(&self, blocks: &B) {
        if let Some(cells) = blocks.cells(self.tail.oldest.load(Ordering::Relaxed)) {
            self.tail.oldest.store(cells[0].word(NEXT).load(Ordering::Relaxed), Ordering::Release);
        }
    }

    /// Takes the right to take the oldest blocks away, unless another agent has it.
    pub fn lock_front(&self, agent: AgentId) -> bool {
        let mine = u64::from(agent.0);
        self.tail.front.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives it back.
    pub fn unlock_front(&self) {
        self.tail.front.store(0, Ordering::Release);
    }

    /// For those who settle `dead`: if it had the front's lock, finishes what it was about, calls `taking` with the
    /// oldest block (which it may have been about to take away, and has not), and lets go. Idempotent.
    pub fn release_front_for<B: Blocks>(&self, blocks: &B, dead: AgentId, taking: impl FnOnce(u64)) {
        let mine = u64::from(dead.0);
        if self.tail.front.load(Ordering::Acquire) != mine {
            return;
        }
        let (oldest, tail) =
            (self.tail.oldest.load(Ordering::Acquire), self.tail.block.load(Ordering::Acquire));
        let next = blocks.cells(tail).map(|cells| cells[0].word(NEXT).load(Ordering::Acquire));
        if self.owner() == mine && oldest != 0 && next == Some(oldest) {
            self.move_oldest_on(blocks);
        }
        taking(oldest);
        let _by_another = self.tail.front.compare_exchange(mine, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Links a new block, whose cells were [wiped](super::wipe), after [`Pushed::Grow`]. The caller holds the block
    /// and lets go of it afterwards; killed in between, [`is_linked`](Self::is_linked) says what to do.
    pub fn link<B: Blocks>(&self, blocks: &B, block: u64) -> Result<(), Pushed> {
        let tail = self.tail.block.load(Ordering::Relaxed);
        if tail != 0 {
            let cells = blocks.cells(tail).ok_or(Pushed::Damaged)?;
            cells[0].word(NEXT).store(block, Ordering::Release);
            return Ok(());
        }
        let header = &blocks.cells(block).ok_or(Pushed::Damaged)?[0];
        header.word(NEXT).store(0, Ordering::Relaxed);
        header.word(NUMBER).store(0, Ordering::Relaxed);
        self.tail.oldest.store(block, Ordering::Relaxed);
        self.tail.ticket.store(1, Ordering::Relaxed);
        self.head.owned[0].store(block, Ordering::Relaxed);
        self.head.start(1);
        self.tail.block.store(block, Ordering::Release);
        Ok(())
    }

    /// Whether [`link`](Self::link) of this block, the last one that the dead producer tried, has happened.
    pub fn is_linked<B: Blocks>(&self, blocks: &B, block: u64) -> bool {
        let tail = self.tail.block.load(Ordering::Acquire);
        let next = blocks.cells(tail).map(|cells| cells[0].word(NEXT).load(Ordering::Acquire));
        tail == block || next == Some(block)
    }

    /// A block that is taken empty and more than the `spares` that are kept for use, of which there is at least one:
    /// the caller, who has the front's lock, holds it, calls [`drop_oldest`](Self::drop_oldest), and frees it.
    pub fn surplus<B: Blocks>(&self, blocks: &B, spares: u64) -> Option<u64> {
        if self.tail.block.load(Ordering::Acquire) == 0 {
            return None;
        }
        let oldest = self.tail.oldest.load(Ordering::Relaxed);
        let number = number(blocks, oldest)?;
        (number + spares.max(SPARES_MIN) < self.head.look().ticket / B::CELLS).then_some(oldest)
    }

    /// Takes the oldest block, the [surplus](Self::surplus) one, out of the chain.
    pub fn drop_oldest<B: Blocks>(&self, blocks: &B) {
        self.move_oldest_on(blocks);
    }

    /// Takes the next item, if there is one at one of so many `looks`. `claim` sees it before it is committed, and may
    /// refuse it.
    #[inline(always)]
    pub fn try_pop<B: Blocks>(
        &self,
        blocks: &B,
        taker: &impl Taker,
        looks: u32,
        item: &mut Item,
        mut claim: impl FnMut(&Item) -> bool,
    ) -> Taken {
        loop {
            let (ticket, is_kept) = match self.head.approach(taker) {
                Approach::Free(ticket) => (ticket, false),
                Approach::Kept(ticket) => (ticket, true),
                Approach::Busy(other) => return Taken::Busy(other),
            };
            let taken = self.pop_at(blocks, (ticket, is_kept), taker, looks, item, &mut claim);
            if is_kept {
                taker.end();
            }
            if let Some(taken) = taken {
                return taken;
            }
        }
    }

    /// `None`: another one was faster.
    #[inline(always)]
    fn pop_at<B: Blocks>(
        &self,
        blocks: &B,
        (ticket, is_kept): (u64, bool),
        taker: &impl Taker,
        looks: u32,
        item: &mut Item,
        claim: &mut impl FnMut(&Item) -> bool,
    ) -> Option<Taken> {
        let block = self.head.owned[parity::<B>(ticket)].load(Ordering::Relaxed);
        let Some(cell) = blocks.cell(block, ticket & (B::CELLS - 1)) else { return Some(Taken::Empty) };
        if first_of(looks, || holds_ticket(cell, ticket).then_some(())).is_none() {
            return Some(Taken::Empty);
        }
        let right = self.head.right(ticket, is_kept, taker)?;
        Some(self.finish(blocks, (block, cell), right, taker, item, claim))
    }

    /// Like [`try_pop`](Self::try_pop), but holds the lock and looks up to `looks` times for an item to come: its
    /// arrival costs no compare-exchange then.
    #[inline(always)]
    pub fn spin_pop<B: Blocks>(
        &self,
        blocks: &B,
        taker: &impl Taker,
        looks: u32,
        item: &mut Item,
        mut claim: impl FnMut(&Item) -> bool,
    ) -> Taken {
        let (ticket, is_kept) = match self.head.approach(taker) {
            Approach::Free(ticket) => (ticket, false),
            Approach::Kept(ticket) => (ticket, true),
            Approach::Busy(other) => return Taken::Busy(other),
        };
        let Some(right) = self.head.right(ticket, is_kept, taker) else { return Taken::Empty };
        let block = self.head.owned[parity::<B>(ticket)].load(Ordering::Relaxed);
        let cell = blocks.cell(block, ticket & (B::CELLS - 1));
        let found = cell.filter(|cell| (0..looks).any(|_| holds_ticket(cell, ticket)));
        let taken = match found {
            Some(cell) => self.finish(blocks, (block, cell), right, taker, item, &mut claim),
            None => {
                self.head.give_back(right);
                Taken::Empty
            }
        };
        if is_kept {
            taker.end();
        }
        taken
    }

    #[inline(always)]
    fn finish<B: Blocks>(
        &self,
        blocks: &B,
        (block, cell): (u64, &Cell),
        right: Right,
        taker: &impl Taker,
        item: &mut Item,
        claim: &mut impl FnMut(&Item) -> bool,
    ) -> Taken {
        cell.read(item);
        if !claim(item) {
            self.head.give_back(right);
            return Taken::Refused;
        }
        let mut next = right.ticket + 1;
        if next & (B::CELLS - 1) == 0 {
            // `None` cannot be: a cell of that block was just read.
            let block = blocks.cell(block, 0).map_or(0, |header| header.word(NEXT).load(Ordering::Relaxed));
            self.head.owned[parity::<B>(next)].store(block, Ordering::Relaxed);
            next += 1;
        }
        self.head.commit(right, next, taker);
        Taken::Yes
    }

    #[inline(always)]
    fn cells_of<'b, B: Blocks>(&self, blocks: &'b B, ticket: u64) -> Option<&'b [Cell]> {
        blocks.cells(self.head.owned[parity::<B>(ticket)].load(Ordering::Relaxed))
    }

    /// Whether the next item is there and nobody is taking it.
    #[inline(always)]
    pub fn is_ready<B: Blocks>(&self, blocks: &B) -> bool {
        let sight = self.head.look();
        sight.owner.is_none()
            && self.cells_of(blocks, sight.ticket).is_some_and(|it| arrived::<B>(it, sight.ticket))
    }

    /// The next item, whether or not somebody is taking it. For those who settle a dead consumer, which had the lock.
    pub fn peek<B: Blocks>(&self, blocks: &B) -> Option<Item> {
        let ticket = self.head.look().ticket;
        let cells = self.cells_of(blocks, ticket).filter(|cells| arrived::<B>(cells, ticket))?;
        let mut item = Item::default();
        at::<B>(cells, ticket).read(&mut item);
        Some(item)
    }

    /// Items that were put ever, and of these, taken.
    pub fn counts<B: Blocks>(&self) -> (u64, u64) {
        let taken = items_before::<B>(self.head.look().ticket);
        (items_before::<B>(self.tail.ticket.load(Ordering::Acquire)).max(taken), taken)
    }

    /// Makes the producer's words right after a producer died. Idempotent.
    pub fn resume<B: Blocks>(&self, blocks: &B) {
        loop {
            let (block, ticket) = self.place();
            // The two words of `advance` are stored one after the other: with the new block and the old ticket, the
            // ticket is the old block's last.
            if block != 0 && number(blocks, block) == Some(ticket / B::CELLS + 1) {
                self.tail.ticket.store(ticket + 2, Ordering::Release);
                continue;
            }
            match blocks.cells(block).filter(|_| holds(blocks, block, ticket)) {
                Some(cells) => self.advance::<B>(cells, ticket),
                None => return,
            }
        }
    }

    /// Calls `visit` with the offset of each block of the chain, while its producer does nothing.
    pub fn each_block<B: Blocks>(&self, blocks: &B, visit: &mut dyn FnMut(u64)) {
        let tail = self.tail.block.load(Ordering::Acquire);
        let mut block = self.tail.oldest.load(Ordering::Acquire);
        let mut after_tail = false;
        while tail != 0
            && block != 0
            && let Some(cells) = blocks.cells(block)
        {
            visit(block);
            let next = cells[0].word(NEXT).load(Ordering::Acquire);
            // The one linked after the tail is the last; it may be the oldest again, if the producer died linking it.
            if after_tail || (block == tail && next == self.tail.oldest.load(Ordering::Acquire)) {
                return;
            }
            after_tail = block == tail;
            block = next;
        }
    }

    /// Calls `visit` with each item that is in the chain, while nobody uses it.
    pub fn each_item<B: Blocks>(&self, blocks: &B, visit: &mut dyn FnMut(&Item)) {
        let mut ticket = self.head.look().ticket;
        let mut cells = self.cells_of(blocks, ticket);
        while let Some(here) = cells.filter(|here| arrived::<B>(here, ticket)) {
            let mut item = Item::default();
            at::<B>(here, ticket).read(&mut item);
            visit(&item);
            ticket += 1;
            if ticket & (B::CELLS - 1) == 0 {
                cells = blocks.cells(here[0].word(NEXT).load(Ordering::Acquire));
                ticket += 1;
            }
        }
    }
}

/// Whether the item with this ticket was published in this block, by a producer that has put none since.
pub fn holds<B: Blocks>(blocks: &B, block: u64, ticket: u64) -> bool {
    blocks.cells(block).is_some_and(|cells| arrived::<B>(cells, ticket))
}

#[inline(always)]
fn at<B: Blocks>(cells: &[Cell], ticket: u64) -> &Cell {
    &cells[(ticket & (B::CELLS - 1)) as usize]
}

/// Pairs with the release store in `try_push`.
#[inline(always)]
fn arrived<B: Blocks>(cells: &[Cell], ticket: u64) -> bool {
    holds_ticket(at::<B>(cells, ticket), ticket)
}

#[inline(always)]
fn holds_ticket(cell: &Cell, ticket: u64) -> bool {
    cell.state.load(Ordering::Acquire) == ticket + 1
}

fn number<B: Blocks>(blocks: &B, block: u64) -> Option<u64> {
    blocks.cells(block).map(|cells| cells[0].word(NUMBER).load(Ordering::Relaxed))
}

/// Which of the head's words has the block of a ticket.
#[inline(always)]
fn parity<B: Blocks>(ticket: u64) -> usize {
    ((ticket / B::CELLS) & 1) as usize
}

/// Items with lower tickets: all but those of the headers.
fn items_before<B: Blocks>(ticket: u64) -> u64 {
    ticket.saturating_sub(ticket / B::CELLS + 1)
}
