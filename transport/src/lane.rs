//! A lane: cells that one rank fills and another empties, in a circle. Payloads in the heap are left to others.
//!
//! # States of a cell
//! Ticket t uses cell t mod n in lap t div n. The cell's `lap` word is 2k when it is empty and waits for lap k, 2k+1
//! when it is full with what came in lap k; so zeroed memory is an empty lane.
//!
//! | from | to | who | how |
//! |---|---|---|---|
//! | 2k | 2k+1 | the sender | writes the words, then stores `lap` (release) |
//! | 2k+1 | 2k+2 | the receiver | copies the words out, then stores `lap` (release) |
//!
//! Each side knows its next ticket by itself, and each step of a cell belongs to one side, so there is no shared index
//! and no read-modify-write. Threads of one rank take turns by a lock of that rank.
//!
//! # Deaths
//! A sender killed before its store of `lap` has sent nothing, one killed after it has sent all. A receiver killed at
//! any time takes nothing from anybody alive: nobody else reads what was sent to it.
//!
//! # Waiting for room
//! A sender that finds the lane full stores 1 to `wanted`, passes a full fence, looks again, and sleeps at its bell.
//! The receiver empties cells, passes a full fence, and looks at `wanted`; if set, it clears it and rings. So one of
//! them sees what the other has stored.

use crate::prefetch;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Words of a cell that carry something.
pub(crate) const CELL_WORDS: usize = 15;

/// What a cell carries.
pub(crate) type Words = [u64; CELL_WORDS];

/// One message's place: two cache lines, the first of which has all of a short one.
#[repr(C, align(128))]
pub(crate) struct Cell {
    lap: AtomicU64,
    words: [AtomicU64; CELL_WORDS],
}

/// What a lane has besides its cells.
#[repr(C, align(64))]
pub(crate) struct LaneLine {
    wanted: AtomicU32,
}

/// A lane in shared memory, seen from either side.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'s> {
    pub(crate) line: &'s LaneLine,
    pub(crate) cells: &'s [Cell],
}

impl Lane<'_> {
    fn place(&self, ticket: u64) -> (&Cell, u64) {
        let count = self.cells.len() as u64;
        (&self.cells[(ticket % count) as usize], 2 * (ticket / count))
    }

    /// The ticket that used the cell of this one in the lap before.
    pub(crate) fn before(&self, ticket: u64) -> u64 {
        ticket.saturating_sub(self.cells.len() as u64)
    }

    /// Whether the sender can use this ticket.
    pub(crate) fn has_room(&self, ticket: u64) -> bool {
        let (cell, empty) = self.place(ticket);
        cell.lap.load(Ordering::Acquire) == empty
    }

    /// Whether the receiver has taken what the sender sent with this ticket.
    pub(crate) fn was_taken(&self, ticket: u64) -> bool {
        let (cell, empty) = self.place(ticket);
        cell.lap.load(Ordering::Acquire) > empty + 1
    }

    /// Whether something was ever sent with this ticket.
    pub(crate) fn was_sent(&self, ticket: u64) -> bool {
        let (cell, empty) = self.place(ticket);
        cell.lap.load(Ordering::Acquire) > empty
    }

    /// Sends the first words with a ticket for which there is room.
    pub(crate) fn push(&self, ticket: u64, words: &[u64]) {
        let (cell, empty) = self.place(ticket);
        cell.words.iter().zip(words).for_each(|(to, &from)| to.store(from, Ordering::Relaxed));
        // Pairs with the load in `peek`.
        cell.lap.store(empty + 1, Ordering::Release);
    }

    /// Brings the cell of a ticket, which is to be sent soon, to this thread's core: the receiver has written it last.
    pub(crate) fn prefetch(&self, ticket: u64) {
        prefetch::for_reading(&self.place(ticket).0.lap);
    }

    /// What came with this ticket; `None` if nothing yet.
    pub(crate) fn peek(&self, ticket: u64) -> Option<Words> {
        let (cell, empty) = self.place(ticket);
        if cell.lap.load(Ordering::Acquire) != empty + 1 {
            return None;
        }
        Some(std::array::from_fn(|index| cell.words[index].load(Ordering::Relaxed)))
    }

    /// Whether something came with this ticket.
    pub(crate) fn is_full_at(&self, ticket: u64) -> bool {
        let (cell, empty) = self.place(ticket);
        cell.lap.load(Ordering::Acquire) == empty + 1
    }

    /// Empties the cell that `peek` has shown.
    pub(crate) fn release(&self, ticket: u64) {
        let (cell, empty) = self.place(ticket);
        // Pairs with the load in `has_room`.
        cell.lap.store(empty + 2, Ordering::Release);
    }

    /// Says that the sender is about to sleep for want of room; it must look again afterwards.
    pub(crate) fn want(&self) {
        self.line.wanted.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the sender asked to be woken when there is room, since this was last asked. To be asked after cells
    /// were released.
    pub(crate) fn take_want(&self) -> bool {
        fence(Ordering::SeqCst);
        self.line.wanted.load(Ordering::Relaxed) != 0 && self.line.wanted.swap(0, Ordering::Relaxed) != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn cells(count: usize) -> Vec<Cell> {
        let cell = || Cell { lap: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
        (0..count).map(|_| cell()).collect()
    }

    #[test]
    fn what_is_sent_comes_once_in_order_and_a_full_lane_has_no_room() {
        let (cells, line) = (cells(2), LaneLine { wanted: AtomicU32::new(0) });
        let lane = Lane { line: &line, cells: &cells };
        for lap in 0..3 {
            let first = 2 * lap;
            lane.push(first, &[first]);
            assert!(lane.was_sent(first) && !lane.was_sent(first + 1));
            lane.push(first + 1, &[first + 1]);
            assert!(!lane.has_room(first + 2));
            assert_eq!(lane.peek(first).map(|words| words[0]), Some(first));
            assert!(!lane.was_taken(first));
            lane.release(first);
            assert!(lane.was_taken(first) && lane.has_room(first + 2) && !lane.has_room(first + 3));
            assert_eq!(lane.peek(first + 1).map(|words| words[0]), Some(first + 1));
            lane.release(first + 1);
            assert_eq!(lane.peek(first + 2), None);
        }
    }

    #[test]
    fn two_threads_lose_nothing() {
        const COUNT: u64 = 100_000;
        let (cells, line) = (cells(8), LaneLine { wanted: AtomicU32::new(0) });
        let lane = Lane { line: &line, cells: &cells };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for ticket in 0..COUNT {
                    while !lane.has_room(ticket) {
                        std::thread::yield_now();
                    }
                    lane.push(ticket, &[ticket; CELL_WORDS]);
                }
            });
            for ticket in 0..COUNT {
                let words = loop {
                    match lane.peek(ticket) {
                        Some(words) => break words,
                        None => std::thread::yield_now(),
                    }
                };
                lane.release(ticket);
                assert_eq!(words, [ticket; CELL_WORDS]);
            }
        });
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;

    struct Memory {
        cells: Vec<Cell>,
        line: LaneLine,
        bell: AtomicU32,
    }

    impl Memory {
        fn new(count: usize) -> Arc<Memory> {
            let cell = || Cell { lap: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
            let cells = (0..count).map(|_| cell()).collect();
            Arc::new(Memory { cells, line: LaneLine { wanted: AtomicU32::new(0) }, bell: AtomicU32::new(0) })
        }

        fn lane(&self) -> Lane<'_> {
            Lane { line: &self.line, cells: &self.cells }
        }
    }

    /// The receiver empties the only cell once; a sender that went to sleep for it has been rung.
    #[test]
    fn loom_a_sender_is_not_left_asleep() {
        loom::model(|| {
            let memory = Memory::new(1);
            memory.lane().push(0, &[7]);
            let receiver = {
                let memory = memory.clone();
                loom::thread::spawn(move || {
                    let lane = memory.lane();
                    assert_eq!(lane.peek(0).map(|words| words[0]), Some(7));
                    lane.release(0);
                    if lane.take_want() {
                        memory.bell.store(1, Ordering::Release);
                    }
                })
            };
            memory.lane().want();
            let sees_room = memory.lane().has_room(1);
            receiver.join().expect("the receiver ends");
            assert!(sees_room || memory.bell.load(Ordering::Acquire) == 1);
        });
    }

    /// Words come whole.
    #[test]
    fn loom_a_full_cell_shows_what_was_written() {
        loom::model(|| {
            let memory = Memory::new(1);
            let sender = {
                let memory = memory.clone();
                loom::thread::spawn(move || memory.lane().push(0, &[3, 4]))
            };
            if let Some(words) = memory.lane().peek(0) {
                assert_eq!(words[..2], [3, 4]);
                memory.lane().release(0);
                assert!(memory.lane().has_room(1));
            }
            sender.join().expect("the sender ends");
        });
    }
}
