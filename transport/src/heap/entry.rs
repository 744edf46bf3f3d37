//! Words of the heap: a block's tag, a unit's word, an entry that names one allocation of one block.
//!
//! | word | bits |
//! |---|---|
//! | tag (32) | 0 allocated, 1 dropped, 4-31 generation |
//! | unit (64), run | 0-2 kind, 3 allocated, 4 dropped, 8-35 generation, 36-63 units |
//! | unit (64), span | 0-2 kind, 8-15 class, 16-23 distance to the span's first unit, 24-34 both again |
//! | entry (64) | 0-27 generation, 28-63 offset / 64; zero: none |
//!
//! *Dropped* is an allocated block that its last user has retired and whose place in a table of retired blocks was
//! given up; whoever scans the heap frees it when nobody pins it.

use super::class::Class;

const GENERATION_BITS: u32 = 28;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const KIND_RUN: u64 = 1;
const KIND_SPAN: u64 = 2;

/// Which allocation of which block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(u64);

impl Entry {
    #[inline(always)]
    pub(crate) fn new(offset: u64, generation: u32) -> Self {
        Self((offset / 64) << GENERATION_BITS | u64::from(generation & GENERATION_MASK))
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        (word >> GENERATION_BITS != 0).then_some(Self(word))
    }

    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn offset(self) -> u64 {
        (self.0 >> GENERATION_BITS) * 64
    }

    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        self.0 as u32 & GENERATION_MASK
    }
}

/// A block's state, in a span or as a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    pub(crate) generation: u32,
    pub(crate) allocated: bool,
    pub(crate) dropped: bool,
}

impl Tag {
    pub(crate) fn allocated(generation: u32) -> Self {
        Self { generation, allocated: true, dropped: false }
    }

    pub(crate) fn free(generation: u32) -> Self {
        Self { generation: generation & GENERATION_MASK, allocated: false, dropped: false }
    }

    pub(crate) fn next_free(self) -> Self {
        Self::free(self.generation.wrapping_add(1))
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u32) -> Self {
        Self { generation: word >> 4, allocated: word & 1 != 0, dropped: word & 2 != 0 }
    }

    #[inline(always)]
    pub(crate) fn word(self) -> u32 {
        self.generation << 4 | u32::from(self.dropped) << 1 | u32::from(self.allocated)
    }
}

/// What a unit's word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Free, or inside a run.
    Plain,
    /// The first of a run. Of one that is free it says nothing more.
    Run { tag: Tag, units: u64 },
    /// One of a span's.
    Span { class: Class, distance: u64 },
}

impl Unit {
    /// Words that cannot be are plain.
    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Self {
        match word & 7 {
            KIND_RUN => Self::Run {
                tag: Tag {
                    generation: (word >> 8) as u32 & GENERATION_MASK,
                    allocated: word & 8 != 0,
                    dropped: word & 16 != 0,
                },
                units: word >> 36,
            },
            KIND_SPAN => {
                let span = |class| Self::Span { class, distance: word >> 16 & 0xff };
                let span = Class::from_number(word >> 8 & 0xff).map(span);
                span.filter(|span| span.word() == word).unwrap_or(Self::Plain)
            }
            _ => Self::Plain,
        }
    }

    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        match self {
            Self::Plain => 0,
            Self::Run { tag, units } => {
                let bits = u64::from(tag.allocated) << 3 | u64::from(tag.dropped) << 4;
                KIND_RUN | bits | u64::from(tag.generation) << 8 | units << 36
            }
            Self::Span { class, distance } => {
                let class = class.index() as u64;
                // All twice: a flipped byte must not make it a span of another class, whose tags lie in values.
                KIND_SPAN | class << 8 | distance << 16 | (class | distance << 5) << 24
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Entry, Tag, Unit};

    #[test]
    fn words_say_what_was_put_in() {
        let last = (1_u64 << 42) - 64;
        let entry = Entry::new(last, 0x0fff_ffff);
        assert_eq!((entry.offset(), entry.generation()), (last, 0x0fff_ffff));
        assert_eq!(Entry::from_word(entry.word()), Some(entry));
        assert_eq!(Entry::from_word(0x0fff_ffff), None);
        let dropped = Tag { generation: 0x0fff_fffe, allocated: true, dropped: true };
        for tag in [dropped, Tag::allocated(0), dropped.next_free(), dropped.next_free().next_free()] {
            assert_eq!(Tag::from_word(tag.word()), tag);
            let run = Unit::Run { tag, units: (1 << 28) - 1 };
            assert_eq!(Unit::from_word(run.word()), run);
        }
        for class in Class::all() {
            let span = Unit::Span { class, distance: 63 };
            assert_eq!(Unit::from_word(span.word()), span);
        }
        let word = Unit::Span { class: super::super::class::PAGE, distance: 3 }.word();
        for flip in (0..8).flat_map(|byte| (1..256_u64).map(move |bits| bits << (8 * byte))) {
            let found = Unit::from_word(word ^ flip);
            assert!(
                !matches!(found, Unit::Span { .. } | Unit::Run { units: 1.., .. }),
                "{flip:x}: {found:?}"
            );
        }
        assert_eq!(Unit::from_word(0), Unit::Plain);
        assert_eq!(Unit::from_word(2 | 0xff00), Unit::Plain);
    }
}
