//! How a worker that has nothing to do finds work: its own deque, runs with roots, what came from outside, others'
//! deques, and at last others' hoards; or gives up its seat. What it does with what it found is `worker`'s question.

use super::node::Run;
use super::pool::{Piece, Seat};
use super::solo::{ALONE, patience};
use super::worker::{Kept, Worker};
use crate::ranks::Ranks;
use crossbeam_deque::Steal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks around before a searcher leaves; about 20 µs in all, the cost of a wake-up.
const LOOKS: u32 = 32;
/// Pauses between two looks at most: each look takes cache lines from workers that have work.
const PAUSES_MAX: u32 = 64;

/// How long a searcher receives from other ranks before it leaves that to others.
const RECEIVE_MAX: Duration = Duration::from_micros(100);
/// Looks at what has come between two at what other workers have.
const RECEIVE_LOOKS: u32 = 16;

/// What a searcher found.
pub(super) enum Found {
    Piece(Piece),
    /// Roots of this run are to be had.
    Roots(u32, Arc<Run>),
    /// It is in the hoard now.
    Hoarded,
}

/// How a search ended.
pub(super) enum Search {
    Found(Found),
    /// The seat is given up.
    Left,
    /// The seat is given up, but somebody walks alone and should be looked at again soon.
    Watch,
}

impl Worker<'_> {
    /// Finds work, or gives up the seat.
    pub(super) fn search(&self) -> Search {
        loop {
            self.watch();
            // What comes from other ranks is a message away: there is no use in looking at the same places for long.
            let looks = if self.pool.ranks_at_work().is_some_and(Ranks::spins) { 1 } else { LOOKS };
            for look in 0..looks {
                if let Some(found) = self.find() {
                    return self.has(found);
                }
                (0..PAUSES_MAX.min(1 << look.min(31))).for_each(|_| std::hint::spin_loop());
                if look % 8 == 7 {
                    std::thread::yield_now();
                }
            }
            if let Some(ranks) = self.pool.ranks() {
                ranks.steal();
            }
            if let Some(found) = self.receive() {
                return self.has(found);
            }
            if let Some(found) = self.raid(self.watch()) {
                self.pool.seats.found();
                self.wake_another();
                return Search::Found(found);
            }
            if self.pool.seats.leave(|| self.pool.is_work()) {
                if let Some(ranks) = self.pool.ranks_at_work() {
                    ranks.stand_back();
                }
                // Asked last: who takes a run says so first.
                return if self.walkers().next().is_some() { Search::Watch } else { Search::Left };
            }
        }
    }

    /// Ends the search: somebody must go on with it while there is more, be it in a hoard or with a walker.
    fn has(&self, found: Found) -> Search {
        if self.pool.seats.found() && (self.pool.is_work() || self.is_hidden_work()) {
            self.wake_another();
        }
        Search::Found(found)
    }

    /// For a moment receives what other ranks send, until that gives work.
    fn receive(&self) -> Option<Found> {
        let ranks = self.pool.ranks_at_work().filter(|ranks| ranks.spins())?;
        let since = Instant::now();
        while since.elapsed() < RECEIVE_MAX {
            for _ in 0..RECEIVE_LOOKS {
                if ranks.receive_some() > 0
                    && let Some(found) = self.find()
                {
                    return Some(found);
                }
                std::hint::spin_loop();
            }
            if let Some(found) = self.find() {
                return Some(found);
            }
        }
        None
    }

    /// Workers that walk alone: their places, and their hints.
    fn walkers(&self) -> impl Iterator<Item = (usize, u32)> {
        let hints = self.pool.places.iter().map(|seat| seat.hoard.hint());
        hints.enumerate().filter(|(_, hint)| hint & ALONE != 0)
    }

    /// Whether somebody seems to keep work.
    fn is_hidden_work(&self) -> bool {
        self.pool.places.iter().any(|seat| seat.hoard.hint() != 0)
    }

    /// Looks at all who walk alone; place and hint of one that has been at one node for too long.
    pub(super) fn watch(&self) -> Option<(usize, u32)> {
        let mut stuck = None;
        for (place, hint) in self.walkers() {
            let mut watched = self.pool.watched.lock();
            let (seen, since) = &mut watched[place];
            if *seen != hint {
                (*seen, *since) = (hint, Instant::now());
            } else if since.elapsed() >= patience(hint & !ALONE) {
                stuck = Some((place, hint));
            }
        }
        stuck
    }

    /// Looks once at everything that can be taken without asking.
    pub(super) fn find(&self) -> Option<Found> {
        if let Some(piece) = self.deque.pop() {
            return Some(Found::Piece(piece));
        }
        if let Some((slot, run)) = self.pool.run_with_roots() {
            return Some(Found::Roots(slot, run));
        }
        if let Some(piece) = self.pool.take_outside(self.deque) {
            return Some(Found::Piece(piece));
        }
        self.others().find_map(|seat| {
            loop {
                match seat.stealer.steal_batch_and_pop(self.deque) {
                    Steal::Success(piece) => return Some(Found::Piece(piece)),
                    Steal::Empty => return None,
                    Steal::Retry => std::hint::spin_loop(),
                }
            }
        })
    }

    fn others(&self) -> impl Iterator<Item = &Seat> {
        let n = self.pool.places.len();
        (1..n).map(move |i| &*self.pool.places[(self.place + i) % n])
    }

    /// Takes half of what a worker keeps that is inside a body; opens the run of a `walker` that has been at one node
    /// for too long.
    pub(super) fn raid(&self, walker: Option<(usize, u32)>) -> Option<Found> {
        for (place, seat) in self.pool.places.iter().enumerate() {
            let hint = seat.hoard.hint();
            let stands = hint & ALONE == 0 || walker == Some((place, hint));
            if place == self.place || hint == 0 || !stands {
                continue;
            }
            if let Some(kept) = seat.hoard.raid(Kept::give_half).flatten() {
                self.own(|mine| *mine = kept);
                return Some(Found::Hoarded);
            }
        }
        None
    }
}
