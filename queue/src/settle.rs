//! What is done for a thread that was killed while it used a queue.
//!
//! | it died | what is so | what is done |
//! |---|---|---|
//! | putting to its chain | the cell says whether the item is in | its block is freed, or let go |
//! | putting to the ring | as above, or WRITING | WRITING becomes poison, first noting that the item is not in |
//! | taking | it has the head (`View::heads_held_by`), perhaps the item's block | both let go: the item is still in |
//! | with items not called done | its tally says how many | they count as lost, see `tally` |
//! | after a take | the block is in its held table alone | freed with the rest of that |
//! | growing | the chain or ring says whether it has the block | the block is let go, or freed |
//! | shrinking any chain | it has the front's lock; `oldest` says whether the block is in | as above, lock let go |
//! | shrinking the ring | the ring says whether it has the block | as above |
//! | growing or shrinking the ring | it has the lock of that | let go: the range is one word, so nothing is half done |
//!
//! All of it may be done again by another survivor: each step looks at what is so.

use crate::layout::{
    AT_RING, GROW_CHAIN, GROW_RING, IN_BLOCK, PUT_CHAIN, PUT_CLAIMED, PUT_CLAIMING, PUT_VOID, SHRINK_CHAIN,
    SHRINK_RING, View, Word, note, noted,
};
use tarragon_transport::agent::{AgentId, AgentRecord};
use tarragon_transport::member::{DeadAgent, Settle};
use tarragon_transport::ring::cell::Item;
use tarragon_transport::ring::chain;
use tarragon_transport::segment::Segment;

impl Settle for View<'_> {
    fn settle_together(&self, dead: &[DeadAgent<'_>]) {
        self.count_lost(dead);
    }

    fn settle(&self, segment: &Segment, dead: AgentId, record: &AgentRecord) {
        self.settle_take(segment, dead, record);
        self.settle_growth(segment, dead, record);
        self.settle_put(segment, dead, record);
        for chain in self.control.chains.iter().filter(|it| it.owner() == u64::from(dead.0)) {
            chain.resume(self);
        }
        self.control.growing.release_for(dead);
        // Who waited for what it was about looks again.
        self.ring_all();
    }
}

impl View<'_> {
    fn settle_take(&self, segment: &Segment, dead: AgentId, record: &AgentRecord) {
        let leave = |item: Option<Item>| {
            if let Some(item) = item.filter(|item| item.tag == IN_BLOCK) {
                segment.forget_for(record, item.word(0));
            }
        };
        for (place, _) in self.heads_held_by(dead, record) {
            let chain = self.control.chains.get(place);
            leave(chain.map_or_else(|| self.tickets().peek(), |chain| chain.peek(self)));
        }
        for (_, head) in self.heads() {
            head.release_for(dead);
        }
    }

    fn settle_growth(&self, segment: &Segment, dead: AgentId, record: &AgentRecord) {
        let (block, grow) = (noted(record, Word::Cells), noted(record, Word::Grow));
        for chain in &self.control.chains {
            chain.release_front_for(self, dead, |oldest| {
                if grow == SHRINK_CHAIN && oldest == block {
                    segment.forget_for(record, block);
                }
            });
        }
        let mut own = self.control.chains.iter().filter(|it| it.owner() == u64::from(dead.0));
        let is_linked = match grow {
            GROW_CHAIN => own.any(|chain| chain.is_linked(self, block)),
            GROW_RING | SHRINK_RING => self.tickets().is_linked(block),
            _ => false,
        };
        if is_linked {
            segment.forget_for(record, block);
        }
    }

    fn settle_put(&self, segment: &Segment, dead: AgentId, record: &AgentRecord) {
        let (block, ticket) = (noted(record, Word::Block), noted(record, Word::Ticket));
        let tickets = self.tickets();
        // Else its block may have left the ring.
        let is_at_ring = noted(record, Word::Entered) == AT_RING;
        let is_writing = || is_at_ring && tickets.is_writing(dead, block, ticket);
        let is_in = match noted(record, Word::Put) {
            PUT_CHAIN => chain::holds(self, block, ticket),
            PUT_CLAIMING | PUT_CLAIMED | PUT_VOID if is_writing() => {
                note(record, Word::Put, PUT_VOID);
                tickets.poison(dead, block, ticket);
                false
            }
            PUT_CLAIMED => true,
            _ => false,
        };
        if is_in && noted(record, Word::Item) != 0 {
            segment.forget_for(record, noted(record, Word::Item));
        }
    }
}
