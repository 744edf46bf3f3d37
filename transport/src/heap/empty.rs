//! Spans without an allocated block, given back to the runs: nobody's, and those that living agents own and do not use.
//!
//! # Taking a span from its owner
//! Under the heap's lock: (1) the owner's record loses the span's name, by compare-exchange; (2) a heavy fence; (3) a
//! wait until the owner's `taking` is another span, so that the owner has seen (1) or has finished; (4) another look at
//! the tags: if all blocks are free the units are, else the span is nobody's.
//!
//! *Deaths and stops.* A span whose first word still names an agent, but whose agent's record does not name it, was
//! left between (1) and (4), by a death or because its owner did not run for [`YIELDS_MAX`] turns. The next who is
//! short of memory goes on at (2).

use super::block::Span;
use super::class::PAGE;
use super::runs::{HeapGuard, Piece};
use super::spans::forget_span;
use crate::agent::{Agent, AgentId};
use crate::pin::heavy;
use crate::segment::Segment;
use crate::sync::Ordering;

/// Turns that an owner gets to finish some ten instructions, before its span is left for the next time.
const YIELDS_MAX: u32 = 100;

impl Segment {
    /// Gives spans that are entirely free back to the runs: those that nobody owns, and where memory is short, those
    /// of living agents as well. Pages stay.
    pub(crate) fn give_back_empty(&self, agent: &Agent<'_>, from_owners: bool) {
        let lock = self.lock_heap(agent);
        let mut owned = Vec::new();
        self.walk(|piece| {
            let Piece::Span(span) = piece else { return };
            let is_owned = !self.owns(AgentId(0), &span);
            if is_owned && from_owners && self.is_stray(&span) {
                // Whatever it holds: nobody allocates from it any more.
                owned.extend(self.revoke(agent, &span).map(|owner| (span, owner)));
                return;
            }
            if span.class == PAGE || !self.is_empty(&span) {
                return;
            }
            if !is_owned {
                self.free_span_units(span.unit, span.class);
            } else if from_owners {
                owned.extend(self.revoke(agent, &span).map(|owner| (span, owner)));
            }
        });
        if !owned.is_empty() {
            heavy(self.is_light);
            owned.iter().for_each(|(span, owner)| self.finish_revoke(span, *owner, &lock));
        }
    }

    /// Whether a span's first word names an agent whose record does not name the span: it was left between (1) and (4).
    /// Under the lock: who takes or makes a span writes both under it.
    fn is_stray(&self, span: &Span) -> bool {
        let owner = self.span_owner(span.offset).map_or(0, |word| word.load(Ordering::Acquire));
        let Ok(owner) = u16::try_from(owner) else { return false };
        let name = &self.record(AgentId(owner)).spans[span.class.index()];
        owner != 0 && name.load(Ordering::Acquire) != span.offset
    }

    /// Step (1); the owner.
    fn revoke(&self, agent: &Agent<'_>, span: &Span) -> Option<AgentId> {
        let owner = self.span_owner(span.offset)?.load(Ordering::Acquire);
        let owner = AgentId(u16::try_from(owner).ok()?);
        let name = &self.record(owner).spans[span.class.index()];
        let _was_named = name.compare_exchange(span.offset, 0, Ordering::AcqRel, Ordering::Relaxed);
        if owner == agent.id && agent.local.owned(span.class).span.get() == span.offset {
            forget_span(agent, span.class);
        }
        Some(owner)
    }

    /// Steps (3) and (4).
    fn finish_revoke(&self, span: &Span, owner: AgentId, _lock: &HeapGuard<'_>) {
        let taking = &self.record(owner).taking;
        let mut yields = 0;
        while taking.load(Ordering::Acquire) == span.offset {
            if yields == YIELDS_MAX {
                return;
            }
            yields += 1;
            std::thread::yield_now();
        }
        let free = self.count_free(span);
        // Pages never become anything else.
        let is_given_back = free == span.class.shape().blocks && span.class != PAGE;
        if let Some(word) = self.span_owner(span.offset) {
            word.store(0, Ordering::Release);
        }
        if is_given_back {
            self.free_span_units(span.unit, span.class);
            return;
        }
        self.freed(span.unit).store(free, Ordering::Relaxed);
        if free >= span.class.shape().worth {
            self.note_partial(span);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::agent::AgentId;
    use crate::heap::block::Span;
    use crate::heap::class::Class;
    use crate::segment::{Segment, Spec};
    use crate::sync::Ordering;

    /// Once only entirely free spans were looked at: one with a live block was nobody's to allocate from for ever.
    #[test]
    fn a_span_left_by_a_dead_taker_is_found_again() {
        let spec = Spec { kind: "test", layout: 1, control_bytes: 64, heap_bytes: 8 << 20 };
        let segment = Segment::create(&spec).unwrap();
        let agent = segment.agent().unwrap();
        let live = segment.alloc(&agent, 64).unwrap();
        let class = Class::for_bytes(64).unwrap();
        let offset = agent.local.owned(class).span.get();
        let span = Span { offset, unit: segment.unit_at(offset).unwrap(), class };
        // What a taker that was killed after its first step leaves.
        agent.record.spans[class.index()].store(0, Ordering::Release);
        segment.give_back_empty(&agent, true);
        assert!(segment.owns(AgentId(0), &span));
        assert!(!segment.is_empty(&span));
        let next = segment.alloc(&agent, 64).unwrap();
        assert_eq!(agent.local.owned(class).span.get(), offset);
        segment.free(agent.record, next);
        segment.free(agent.record, live);
    }
}
