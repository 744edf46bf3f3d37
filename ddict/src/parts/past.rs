//! What was answered to writes, as long as who asked may not have heard it: so that a write that is asked for once more
//! is answered as it was, and not done twice.
//!
//! A process numbers its writes, and says with each the lowest number that it still waits for. Answers to lower ones
//! are forgotten then: of each rank those of its threads that wait are kept, and those since its last write.

use super::message::WriteId;
use std::collections::{BTreeMap, HashMap};
use tarragon_transport::Rank;

#[derive(Default)]
pub(super) struct Past(HashMap<Rank, BTreeMap<u64, Vec<u8>>>);

impl Past {
    /// What was answered to a write, if it was done.
    pub(super) fn answer(&self, rank: Rank, number: u64) -> Option<&Vec<u8>> {
        self.0.get(&rank)?.get(&number)
    }

    /// A write was done.
    pub(super) fn note(&mut self, rank: Rank, id: WriteId, answer: Vec<u8>) {
        let answers = self.0.entry(rank).or_default();
        *answers = answers.split_off(&id.waits_from);
        answers.insert(id.number, answer);
    }

    /// It was taken back.
    pub(super) fn forget(&mut self, rank: Rank, number: u64) {
        if let Some(answers) = self.0.get_mut(&rank) {
            answers.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_until_they_were_heard() {
        let (mut past, rank) = (Past::default(), Rank(3));
        let id = |number, waits_from| WriteId { number, waits_from };
        past.note(rank, id(7, 7), vec![7]);
        past.note(rank, id(9, 7), vec![9]);
        past.note(Rank(4), id(1, 1), vec![1]);
        assert_eq!(past.answer(rank, 7), Some(&vec![7]));
        assert_eq!((past.answer(rank, 8), past.answer(Rank(4), 7)), (None, None));
        past.note(rank, id(10, 9), vec![10]);
        assert_eq!((past.answer(rank, 7), past.answer(rank, 9)), (None, Some(&vec![9])));
        past.forget(rank, 9);
        assert_eq!(past.answer(rank, 9), None);
        (11..10_000).for_each(|number| past.note(rank, id(number, number), Vec::new()));
        assert_eq!(past.0[&rank].len(), 1);
    }
}
