//! Items that ranks of other nodes sent ahead and that are not in the queue yet: what a porter keeps of them.
//!
//! See the page above on credits. An *inflow* is one sender's items in their order; only the first one is ever tried,
//! so what is in is always the beginning of what was sent.

use super::message::{Heard, Refusal, items};
use super::waiting::Item;
use crate::error::Error;
use std::collections::VecDeque;
use std::sync::Arc;
use tarragon_transport::Rank;

/// Bytes that all inflows of a queue may have on their way or here, as long as each has its least.
const BYTES_ALL: u64 = 16 << 20;
/// The most bytes of one.
const WINDOW_MAX: u64 = 1 << 20;
/// The least bytes of one, which it may send before it has heard anything.
pub(super) const WINDOW_MIN: u64 = 64 << 10;

/// What one sender has sent.
struct Inflow {
    rank: Rank,
    number: u64,
    waiting: VecDeque<Item>,
    /// Items that are in the queue.
    put: u64,
    told: u64,
    /// It was told so, and nothing more of it gets in.
    is_refused: bool,
}

/// What a sender is to hear.
pub(super) struct Word {
    pub(super) rank: Rank,
    pub(super) number: u64,
    pub(super) heard: Heard,
}

/// All inflows of a queue.
#[derive(Default)]
pub(super) struct Inflows {
    all: Vec<Inflow>,
    /// Whose turn it is to be first.
    first: usize,
}

impl Inflows {
    /// More of a sender, who is a new one if it was not heard of before.
    pub(super) fn take_in(&mut self, rank: Rank, number: u64, body: Vec<u8>, lens: &[u64]) {
        let at = self.all.iter().position(|it| (it.rank, it.number) == (rank, number));
        let at = at.unwrap_or_else(|| {
            let (waiting, put, told, is_refused) = (VecDeque::new(), 0, 0, false);
            self.all.push(Inflow { rank, number, waiting, put, told, is_refused });
            self.all.len() - 1
        });
        let inflow = &mut self.all[at];
        let Some(all) = items(&body, lens).filter(|_| !inflow.is_refused) else { return };
        let lens: Vec<usize> = all.iter().map(|it| it.len()).collect();
        let (response, mut start) = (Arc::new(body), 0);
        for len in lens {
            let place = start..start + len;
            start = place.end;
            inflow.waiting.push_back(Item { response: Arc::clone(&response), place });
        }
    }

    /// A sender sends nothing more, and waits for nothing.
    pub(super) fn end(&mut self, rank: Rank, number: u64) {
        self.all.retain(|it| (it.rank, it.number) != (rank, number));
    }

    /// A rank is gone, and what of it was not in.
    pub(super) fn part_from(&mut self, rank: Rank) {
        self.all.retain(|it| it.rank != rank);
    }

    pub(super) fn are_waiting(&self) -> bool {
        self.all.iter().any(|it| !it.waiting.is_empty())
    }

    /// Puts what there is room for; the next time another sender is first if there was not enough.
    pub(super) fn serve(&mut self, mut put: impl FnMut(&[u8]) -> Result<(), Error>) -> Vec<Word> {
        let (count, mut words, mut is_full) = (self.all.len(), Vec::new(), false);
        let window = (BYTES_ALL / count.max(1) as u64).clamp(WINDOW_MIN, WINDOW_MAX);
        for step in 0..count {
            let inflow = &mut self.all[(self.first + step) % count];
            let mut refusal = None;
            while !is_full && let Some(item) = inflow.waiting.front() {
                match put(item.bytes()) {
                    Ok(()) => inflow.put += 1,
                    Err(Error::Full { .. }) => {
                        is_full = true;
                        break;
                    }
                    // Another one's item may be smaller.
                    Err(Error::Memory { .. }) => break,
                    Err(error) => {
                        refusal = Some(error.into());
                        break;
                    }
                }
                inflow.waiting.pop_front();
            }
            words.extend(inflow.word(window, refusal));
        }
        if is_full {
            self.first = (self.first + 1) % count.max(1);
        }
        words
    }

    /// Refuses all.
    pub(super) fn refuse(&mut self) -> Vec<Word> {
        let refuse = |it: &mut Inflow| it.word(0, Some(Refusal::Leaves));
        self.all.iter_mut().filter(|it| !it.is_refused).filter_map(refuse).collect()
    }
}

impl Inflow {
    /// What is new, if anything is.
    fn word(&mut self, window: u64, refusal: Option<Refusal>) -> Option<Word> {
        let is_new = self.put > self.told || refusal.is_some();
        self.told = self.put;
        if refusal.is_some() {
            self.is_refused = true;
            self.waiting.clear();
        }
        let heard = Heard { put: self.put, window, refusal };
        is_new.then_some(Word { rank: self.rank, number: self.number, heard })
    }
}

#[cfg(test)]
mod tests {
    use super::{Inflows, Word};
    use crate::error::Error;
    use tarragon_transport::Rank;

    fn put_of(words: &[Word]) -> Vec<(u64, u64, bool)> {
        words.iter().map(|it| (it.number, it.heard.put, it.heard.refusal.is_some())).collect()
    }

    #[test]
    fn each_sender_gets_room_in_turn_and_its_items_in_order() {
        let mut inflows = Inflows::default();
        inflows.take_in(Rank(1), 7, b"abc".to_vec(), &[1, 1, 1]);
        inflows.take_in(Rank(2), 7, b"xy".to_vec(), &[1, 1]);
        let mut got = Vec::new();
        for _ in 0..3 {
            // Room for one at a time.
            let mut room = 1;
            let _words = inflows.serve(|item| {
                if room == 0 {
                    return Err(Error::Full { bound: 1 });
                }
                room -= 1;
                got.extend_from_slice(item);
                Ok(())
            });
        }
        assert_eq!(got, b"axb");
        assert!(inflows.are_waiting());
        inflows.part_from(Rank(1));
        assert_eq!(put_of(&inflows.serve(|_| Ok(()))), [(7, 2, false)]);
        assert!(!inflows.are_waiting());
    }

    #[test]
    fn after_a_refused_item_none_of_that_sender_gets_in() {
        let mut inflows = Inflows::default();
        inflows.take_in(Rank(1), 1, b"abc".to_vec(), &[1, 1, 1]);
        let words = inflows.serve(|item| if item == b"a" { Ok(()) } else { Err(Error::Closed) });
        assert_eq!(put_of(&words), [(1, 1, true)]);
        inflows.take_in(Rank(1), 1, b"d".to_vec(), &[1]);
        assert!(inflows.serve(|_| unreachable!("it was refused")).is_empty() && inflows.refuse().is_empty());
        // Lengths that cannot be are not looked at.
        inflows.take_in(Rank(1), 2, b"d".to_vec(), &[3]);
        assert!(!inflows.are_waiting());
    }
}
