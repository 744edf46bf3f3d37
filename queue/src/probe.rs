//! What tests see of another process. Users need nothing of it.

use crate::layout::{
    GROW_CHAIN, GROW_RING, PUT_CHAIN, PUT_CLAIMED, PUT_CLAIMING, SHRINK_CHAIN, SHRINK_RING, Word, noted,
};
use crate::queue::Queue;

impl<T> Queue<T> {
    /// What the first thread of a process is about, and what it holds, by names.
    #[doc(hidden)]
    pub fn under_way(&self, pid: u32) -> Vec<&'static str> {
        let queue = self.queue();
        let (segment, view) = (&queue.segment, queue.view());
        let mut found = Vec::new();
        let mut add = |name, is_so: bool| found.extend(is_so.then_some(name));
        add("attached", segment.is_member(pid));
        let Some(probe) = segment.probe(pid) else { return found };
        let (put, grow) = (noted(probe.record, Word::Put), noted(probe.record, Word::Grow));
        let (cells, tickets) = (noted(probe.record, Word::Cells), view.tickets());
        let takes_off = grow == SHRINK_RING && probe.record.holds(cells);
        let is_taking = view.heads_held_by(probe.id, probe.record).next().is_some();
        let keeps = view.heads().any(|(_, head)| head.look().keeper == Some(probe.id));
        add("registered", true);
        add("holding", probe.is_holding);
        add("heap locked", probe.is_in_heap);
        add("putting", put == PUT_CHAIN);
        add("claiming", put == PUT_CLAIMING);
        add("claimed", put == PUT_CLAIMED);
        add("linking", grow == GROW_CHAIN || grow == GROW_RING);
        add("shrinking", grow == SHRINK_CHAIN || grow == SHRINK_RING);
        add("leaving", takes_off && tickets.is_linked(cells));
        add("left", takes_off && !tickets.is_linked(cells));
        add("taking", is_taking);
        add("keeping", keeps);
        add("ring locked", view.control.growing.owner() == Some(probe.id));
        found
    }

    /// Blocks of cells that the ring has.
    #[doc(hidden)]
    pub fn ring_blocks(&self) -> u64 {
        let mut blocks = 0;
        self.queue().view().tickets().each_block(&mut |_| blocks += 1);
        blocks
    }

    /// Living members, and agents in use.
    #[doc(hidden)]
    pub fn participants(&self) -> (u32, usize) {
        let segment = &self.queue().segment;
        (segment.members(), segment.agents_in_use())
    }
}
