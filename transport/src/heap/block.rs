//! From an offset to the block that begins there: its tag, and changing that by compare-exchange.

use super::class::{Class, SPAN_HEAD_BYTES};
use super::entry::{Entry, Tag, Unit};
use super::layout::UNIT_BYTES;
use crate::agent::{Agent, AgentId};
use crate::segment::Segment;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A span, as its first unit says.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// Offset of its first byte.
    pub(crate) offset: u64,
    /// Its first unit.
    pub(crate) unit: u64,
    pub(crate) class: Class,
}

/// Where a block's tag is.
pub(crate) enum Place<'s> {
    /// In a span.
    Small { span: Span, index: u32, tag: &'s AtomicU32 },
    /// A run.
    Large { unit: u64, word: &'s AtomicU64 },
}

impl Segment {
    /// The block that begins at `offset`, allocated or not; `None` if none does.
    #[inline]
    pub(crate) fn place(&self, offset: u64) -> Option<Place<'_>> {
        let unit = self.unit_at(offset)?;
        let word = self.unit_word(unit);
        match Unit::from_word(word.load(Ordering::Acquire)) {
            Unit::Plain => None,
            Unit::Run { .. } => {
                let begins = offset == self.unit_offset(unit);
                begins.then_some(Place::Large { unit, word })
            }
            Unit::Span { class, distance } => {
                let unit = unit.checked_sub(distance)?;
                let span = Span { offset: self.unit_offset(unit), unit, class };
                let shape = class.shape();
                let inside = (offset - span.offset).checked_sub(shape.first)?;
                let index = (inside as u32) / shape.size as u32;
                if index >= shape.blocks || inside as u32 != index * shape.size as u32 {
                    return None;
                }
                Some(Place::Small { span, index, tag: self.tag(span.offset, index)? })
            }
        }
    }

    /// The tag of a span's block.
    #[inline(always)]
    pub(crate) fn tag(&self, span: u64, index: u32) -> Option<&AtomicU32> {
        self.at(span + SPAN_HEAD_BYTES + 4 * u64::from(index))
    }

    /// The word that says who owns a span.
    #[inline(always)]
    pub(crate) fn span_owner(&self, span: u64) -> Option<&AtomicU64> {
        self.at(span)
    }

    /// Whether an agent owns a span.
    pub(crate) fn owns(&self, agent: AgentId, span: &Span) -> bool {
        let owner = self.span_owner(span.offset);
        owner.is_some_and(|owner| owner.load(Ordering::Relaxed) == u64::from(agent.0))
    }

    /// The allocation at `offset` as an entry; `None` if it is not allocated. With whether it was dropped.
    pub(crate) fn entry(&self, offset: u64) -> Option<(Entry, bool)> {
        let tag = self.place(offset)?.load();
        tag.allocated.then(|| (Entry::new(offset, tag.generation), tag.dropped))
    }

    /// Bytes of a block, by its place.
    pub(crate) fn place_bytes(&self, place: &Place<'_>) -> u64 {
        match place {
            Place::Small { span, .. } => span.class.shape().size,
            Place::Large { unit, word } => {
                let Unit::Run { units, .. } = Unit::from_word(word.load(Ordering::Acquire)) else { return 0 };
                units.min(self.plan.units - unit) * UNIT_BYTES
            }
        }
    }

    /// Frees one allocation; does nothing if it is free already, or another allocation's. `agent` is this thread's,
    /// or one that is taken apart.
    pub(crate) fn free_entry(&self, agent: Option<&Agent<'_>>, entry: Entry) -> bool {
        match self.place(entry.offset()) {
            None => false,
            Some(Place::Large { unit, .. }) => self.free_run(agent, unit, entry),
            Some(place @ Place::Small { span, index, .. }) => {
                let freed = place.change(entry, Tag::next_free);
                if freed {
                    self.note_freed(agent, span, index);
                }
                freed
            }
        }
    }

    /// Gives up an allocation that somebody may have pinned: whoever scans the heap frees it.
    pub(crate) fn mark_dropped(&self, entry: Entry) {
        let Some(place) = self.place(entry.offset()) else { return };
        let drop_tag = |tag: Tag| Tag { dropped: true, ..tag };
        if place.change(entry, drop_tag) {
            self.heap().dropped.fetch_add(self.place_bytes(&place), Ordering::Relaxed);
        }
    }
}

impl Place<'_> {
    /// The tag now.
    #[inline(always)]
    pub(crate) fn load(&self) -> Tag {
        match self {
            Self::Small { tag, .. } => Tag::from_word(tag.load(Ordering::Acquire)),
            Self::Large { word, .. } => match Unit::from_word(word.load(Ordering::Acquire)) {
                Unit::Run { tag, .. } => tag,
                _ => Tag::free(0),
            },
        }
    }

    /// Changes the tag of exactly this allocation. False if it is another one's, or free, or changed already.
    pub(crate) fn change(&self, entry: Entry, change: impl Fn(Tag) -> Tag) -> bool {
        loop {
            // The word as it is, not as it should be: bits that mean nothing may be set where memory was damaged.
            let (word, old, units) = match self {
                Self::Small { tag, .. } => {
                    let word = tag.load(Ordering::Acquire);
                    (u64::from(word), Tag::from_word(word), 0)
                }
                Self::Large { word, .. } => {
                    let word = word.load(Ordering::Acquire);
                    let Unit::Run { tag, units } = Unit::from_word(word) else { return false };
                    (word, tag, units)
                }
            };
            let new = change(old);
            if !old.allocated || old.generation != entry.generation() || old == new {
                return false;
            }
            // Release: what its user wrote and read comes before its next allocation. SeqCst: pairs with the owner who
            // leaves a span, see `release_span`.
            let done = match self {
                Self::Small { tag, .. } => {
                    tag.compare_exchange(word as u32, new.word(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
                }
                Self::Large { word: place, .. } => {
                    let new = Unit::Run { tag: new, units }.word();
                    place.compare_exchange(word, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
                }
            };
            if done {
                return true;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Entry, Place, Tag, Unit};
    use crate::sync::{AtomicU64, Ordering};

    /// Bits that mean nothing once kept the compare-exchange from ever succeeding.
    #[test]
    fn a_damaged_word_is_freed_all_the_same() {
        let run = Unit::Run { tag: Tag::allocated(7), units: 3 }.word();
        let word = AtomicU64::new(run | 1 << 5);
        let place = Place::Large { unit: 0, word: &word };
        assert!(place.change(Entry::new(64, 7), Tag::next_free));
        assert!(!place.load().allocated);
        assert_eq!(word.load(Ordering::Relaxed) >> 36, 3);
    }
}
