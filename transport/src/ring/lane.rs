//! A queue of one producer in a fixed array of cells; any number of consumers.
//!
//! # The protocol
//! Tickets count items from 0; ticket t lies in cell t mod n. A cell's state is t + 1 once item t is in it. The
//! producer alone writes cells: payload first, then the state by a release store; no other store is needed for an item
//! to arrive, and the producer reads no word of the consumers but when the array looks full. Consumers never write a
//! cell: the head (see `head`) says what is taken, and the producer overwrites the cells before it.
//!
//! # Deaths
//! - The producer before the state: the item was never there. After it: it arrives. Its `tail` may be one too low then;
//!   who goes on in its place calls [`Lane::resume`] first.
//! - A consumer: see `head`; a survivor calls [`Head::release_for`].

#[cfg(test)]
mod tests;

use super::cell::{Cell, Item};
use super::head::Head;
use crate::agent::AgentId;
use crate::sync::{AtomicU64, Ordering};

/// Both ends of a lane; its cells lie elsewhere (a power of two of them, zeroed at first, always the same). Zeroed:
/// empty.
#[derive(Default)]
#[repr(C)]
pub struct Lane {
    tail: Tail,
    /// The consumers' end.
    pub head: Head,
}

/// The producer's own line.
#[derive(Default)]
#[repr(C, align(64))]
struct Tail {
    ticket: AtomicU64,
    /// The head when it was last looked at.
    head_seen: AtomicU64,
}

/// What became of an attempt to take an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is in the caller's hands.
    Yes,
    /// There is none.
    Empty,
    /// Another agent is about to take the next one, or to write it.
    Busy(AgentId),
    /// The caller refused it; it is still there.
    Refused,
    /// The ring's memory holds what cannot be.
    Damaged,
}

impl Lane {
    /// Puts an item at the end; false if the array is full. Only the producer may call it.
    ///
    /// Costs a store per eight bytes and two more, and no read-modify-write. The consumers' doorbell is the caller's to
    /// ring.
    ///
    /// # Panics
    /// More than [`INLINE_MAX`](super::cell::INLINE_MAX) bytes, or a number of cells that is no power of two.
    #[inline(always)]
    pub fn try_push(&self, cells: &[Cell], tag: u32, bytes: &[u8]) -> bool {
        assert!(cells.len().is_power_of_two(), "a lane has a power of two of cells");
        let ticket = self.tail.ticket.load(Ordering::Relaxed);
        if ticket.wrapping_sub(self.tail.head_seen.load(Ordering::Relaxed)) >= cells.len() as u64 {
            let head = self.head.look().ticket;
            self.tail.head_seen.store(head, Ordering::Relaxed);
            if ticket.wrapping_sub(head) >= cells.len() as u64 {
                return false;
            }
        }
        let cell = place(cells, ticket);
        cell.write(tag, bytes);
        // Pairs with the acquire load in `arrived`.
        cell.state.store(ticket + 1, Ordering::Release);
        self.tail.ticket.store(ticket + 1, Ordering::Release);
        true
    }

    /// Takes the next item into `item`, if there is one.
    #[inline(always)]
    pub fn try_pop(&self, cells: &[Cell], agent: AgentId, item: &mut Item) -> Taken {
        loop {
            let sight = self.head.look();
            if let Some(owner) = sight.owner {
                return Taken::Busy(owner);
            }
            if !arrived(cells, sight.ticket) {
                return Taken::Empty;
            }
            if self.head.try_lock(sight.ticket, agent) {
                return self.finish(cells, sight.ticket, item);
            }
        }
    }

    /// Takes the next item into `item`; holds the lock and looks up to `looks` times for it to come.
    pub fn spin_pop(&self, cells: &[Cell], agent: AgentId, looks: u32, item: &mut Item) -> Taken {
        let sight = self.head.look();
        if let Some(owner) = sight.owner {
            return Taken::Busy(owner);
        }
        if !self.head.try_lock(sight.ticket, agent) {
            return Taken::Empty;
        }
        for _ in 0..looks {
            if arrived(cells, sight.ticket) {
                return self.finish(cells, sight.ticket, item);
            }
        }
        self.head.unlock(sight.ticket);
        Taken::Empty
    }

    fn finish(&self, cells: &[Cell], ticket: u64, item: &mut Item) -> Taken {
        place(cells, ticket).read(item);
        self.head.unlock(ticket + 1);
        Taken::Yes
    }

    /// Whether it has no item, not even one that another consumer is taking. By the count: see [`Self::is_ready`].
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an item is there and no other consumer is taking it.
    #[inline(always)]
    pub fn is_ready(&self, cells: &[Cell]) -> bool {
        let sight = self.head.look();
        sight.owner.is_none() && arrived(cells, sight.ticket)
    }

    /// Items in it.
    pub fn len(&self) -> u64 {
        let head = self.head.look().ticket;
        self.tail.ticket.load(Ordering::Acquire).saturating_sub(head)
    }

    /// Makes the producer's words right after a producer died; the new producer, or who settles the dead one, calls it.
    pub fn resume(&self, cells: &[Cell]) {
        let ticket = self.tail.ticket.load(Ordering::Acquire);
        if place(cells, ticket).state.load(Ordering::Acquire) == ticket + 1 {
            self.tail.ticket.store(ticket + 1, Ordering::Release);
        }
    }
}

#[inline(always)]
fn place(cells: &[Cell], ticket: u64) -> &Cell {
    &cells[ticket as usize & (cells.len() - 1)]
}

/// Pairs with the release store in `try_push`.
#[inline(always)]
fn arrived(cells: &[Cell], ticket: u64) -> bool {
    place(cells, ticket).state.load(Ordering::Acquire) == ticket + 1
}
