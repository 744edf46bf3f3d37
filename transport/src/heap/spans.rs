//! Spans: who allocates from which, and how those with free blocks are found again.
//!
//! An agent owns at most one span of each class. Owners change under the heap's lock (taking), or by the owner's own
//! store of 0 (leaving), or in recovery. Who is short of memory takes entirely free spans from living owners (see
//! `empty`): so an owner says in its record that it uses its span (`taking`), and then looks whether its record still
//! names it. Whoever takes it away zeroes that name, passes a heavy fence, and then looks at `taking`: one of the two
//! sees the other. Who frees a block of a span that nobody owns counts; from a count worth it on
//! the span is put into the class's bitmap of partial spans. Count and bitmap are hints: a thread killed in between
//! loses at most that a span is found only when memory is short, by a walk.

use super::block::Span;
use super::class::{Class, PAGE};
use super::entry::{Entry, Tag, Unit};
use super::layout::{GROUP_UNITS, GROUP_WORDS, UNIT_BYTES};
use super::runs::{HeapGuard, Piece};
use super::{Block, Held};
use crate::agent::{Agent, AgentId, AgentRecord, Owned};
use crate::error::HeapError;
use crate::pin::{announce, withdraw};
use crate::segment::Segment;
use crate::sync::{AtomicU64, Ordering, fence};

/// An agent uses its span: until this goes, nobody takes it away.
struct Using<'a>(&'a AtomicU64);

impl Drop for Using<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        withdraw(self.0);
    }
}

/// An agent's span is another's by now.
#[cold]
pub(super) fn forget_span(agent: &Agent<'_>, class: Class) {
    let owned = agent.local.owned(class);
    owned.span.set(0);
    owned.free.borrow_mut().clear();
}

impl Segment {
    /// A block of the span this agent owns; `None` if it knows of no free one there.
    #[inline]
    pub(crate) fn take_block(&self, agent: &Agent<'_>, slot: usize, class: Class) -> Option<Held> {
        let _using = self.use_span(agent, class)?;
        let owned = agent.local.owned(class);
        let span = owned.span.get();
        let mut free = owned.free.borrow_mut();
        loop {
            let index = u32::from(free.pop()?);
            let word = self.tag(span, index)?;
            let tag = Tag::from_word(word.load(Ordering::Acquire));
            if tag.allocated {
                continue;
            }
            let shape = class.shape();
            let offset = span + shape.first + u64::from(index) * shape.size;
            agent.record.held[slot].store(Entry::new(offset, tag.generation).word(), Ordering::Relaxed);
            // Release: after the entry in the held table. A plain store: nobody else changes a free tag.
            word.store(Tag::allocated(tag.generation).word(), Ordering::Release);
            let block = Block { offset, generation: tag.generation };
            return Some(Held { block, slot: slot as u16 });
        }
    }

    /// Keeps the span this agent owns its own until the guard goes; `None` if it has none, or has lost it.
    #[inline(always)]
    fn use_span<'a>(&self, agent: &Agent<'a>, class: Class) -> Option<Using<'a>> {
        let span = agent.local.owned(class).span.get();
        if span == 0 {
            return None;
        }
        announce(&agent.record.taking, span, self.is_light);
        let using = Using(&agent.record.taking);
        if agent.record.spans[class.index()].load(Ordering::Relaxed) != span {
            forget_span(agent, class);
            return None;
        }
        Some(using)
    }

    /// Finds this agent a span with free blocks.
    #[cold]
    pub(crate) fn refill(&self, agent: &Agent<'_>, class: Class) -> Result<(), HeapError> {
        let owned = agent.local.owned(class);
        if let Some(_using) = self.use_span(agent, class) {
            if self.collect_free(owned, class) >= class.shape().worth {
                return Ok(());
            }
            self.release_span(agent, class);
        }
        if self.take_span(agent, class)? {
            return Ok(());
        }
        self.make_room(agent);
        if self.take_span(agent, class)? || self.take_any_span(agent, class) {
            return Ok(());
        }
        Err(self.full(class.shape().size))
    }

    /// Looks through the tags of the owned span; the number of free blocks.
    fn collect_free(&self, owned: &Owned, class: Class) -> u32 {
        let mut free = owned.free.borrow_mut();
        free.clear();
        let span = owned.span.get();
        // Downwards, so that the first ones are taken first.
        for index in (0..class.shape().blocks).rev() {
            let tag = self.tag(span, index).map(|it| Tag::from_word(it.load(Ordering::Acquire)));
            if tag.is_some_and(|tag| !tag.allocated) {
                free.push(index as u16);
            }
        }
        free.len() as u32
    }

    /// Takes a partial span, or makes one; false if there are no units for it.
    fn take_span(&self, agent: &Agent<'_>, class: Class) -> Result<bool, HeapError> {
        let lock = self.lock_heap(agent);
        while let Some(unit) = self.next_partial(class) {
            let span = Span { offset: self.unit_offset(unit), unit, class };
            if self.unit(unit) == (Unit::Span { class, distance: 0 }) && self.own_span(agent, &span, &lock) {
                return Ok(true);
            }
        }
        let units = class.shape().units;
        let unit = match self.take_units(units) {
            Some(unit) => unit,
            None => match self.grow(units) {
                Ok(true) => match self.take_units(units) {
                    Some(unit) => unit,
                    None => return Ok(false),
                },
                Ok(false) => return Ok(false),
                // Other spans may have blocks even if the system has no page more.
                Err(error) => {
                    drop(lock);
                    self.make_room(agent);
                    return match self.take_any_span(agent, class) || self.make_span_of_free(agent, class) {
                        true => Ok(true),
                        false => Err(error.into()),
                    };
                }
            },
        };
        self.make_span(agent, unit, class);
        Ok(true)
    }

    /// Makes a span of units that are free now; false if there are none.
    fn make_span_of_free(&self, agent: &Agent<'_>, class: Class) -> bool {
        let _lock = self.lock_heap(agent);
        let unit = self.take_units(class.shape().units);
        unit.inspect(|unit| self.make_span(agent, *unit, class)).is_some()
    }

    /// Makes a span of units taken before, owned by the agent. Under the lock.
    fn make_span(&self, agent: &Agent<'_>, unit: u64, class: Class) {
        let (shape, offset) = (class.shape(), self.unit_offset(unit));
        self.populate(offset, shape.units * UNIT_BYTES);
        agent.record.spans[class.index()].store(offset, Ordering::Release);
        if let Some(owner) = self.span_owner(offset) {
            owner.store(u64::from(agent.id.0), Ordering::Release);
        }
        let tag = Tag::free(self.new_generation()).word();
        for word in (0..shape.blocks).filter_map(|index| self.tag(offset, index)) {
            word.store(tag, Ordering::Relaxed);
        }
        if class == PAGE {
            self.zero(offset + shape.first, u64::from(shape.blocks) * shape.size);
        }
        self.freed(unit).store(0, Ordering::Relaxed);
        // The first word last: until it is there, all are free units for whoever repairs.
        for distance in (0..shape.units).rev() {
            let word = Unit::Span { class, distance }.word();
            self.unit_word(unit + distance).store(word, Ordering::Release);
        }
        let owned = agent.local.owned(class);
        owned.span.set(offset);
        let mut free = owned.free.borrow_mut();
        free.clear();
        free.extend((0..shape.blocks as u16).rev());
    }

    /// Takes a span that nobody owns, if it has free blocks. Under the lock.
    fn own_span(&self, agent: &Agent<'_>, span: &Span, _lock: &HeapGuard<'_>) -> bool {
        let Some(owner) = self.span_owner(span.offset).filter(|it| it.load(Ordering::Acquire) == 0) else {
            return false;
        };
        let owned = agent.local.owned(span.class);
        owned.span.set(span.offset);
        if self.collect_free(owned, span.class) == 0 {
            owned.span.set(0);
            return false;
        }
        self.populate(span.offset, span.class.shape().units * UNIT_BYTES);
        agent.record.spans[span.class.index()].store(span.offset, Ordering::Release);
        owner.store(u64::from(agent.id.0), Ordering::Release);
        true
    }

    /// The last resort: a walk for any span of the class with a free block.
    fn take_any_span(&self, agent: &Agent<'_>, class: Class) -> bool {
        let lock = self.lock_heap(agent);
        let mut taken = false;
        self.walk(|piece| {
            if let Piece::Span(span) = piece {
                taken = taken || (span.class == class && self.own_span(agent, &span, &lock));
            }
        });
        taken
    }

    /// Leaves the span the agent owns in a class and uses just now.
    fn release_span(&self, agent: &Agent<'_>, class: Class) {
        let owned = agent.local.owned(class);
        let span = owned.span.replace(0);
        let known = std::mem::take(&mut *owned.free.borrow_mut()).len() as u32;
        if let Some(unit) = self.unit_at(span) {
            self.leave_span(agent.id, &Span { offset: span, unit, class }, known);
        }
        agent.record.spans[class.index()].store(0, Ordering::Release);
    }

    fn leave_span(&self, owner: AgentId, span: &Span, free: u32) {
        let freed = self.freed(span.unit);
        freed.store(free, Ordering::Relaxed);
        let Some(word) = self.span_owner(span.offset) else { return };
        let mine = u64::from(owner.0);
        if word.compare_exchange(mine, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        // Who frees a block first counts, then looks for the owner; so one of the two sees that there are enough.
        fence(Ordering::SeqCst);
        if freed.load(Ordering::Relaxed) >= span.class.shape().worth {
            self.note_partial(span);
        }
    }

    /// Leaves all spans of an agent.
    pub(crate) fn release_spans(&self, agent: &Agent<'_>) {
        for class in Class::all() {
            if let Some(_using) = self.use_span(agent, class) {
                self.collect_free(agent.local.owned(class), class);
                self.release_span(agent, class);
            }
        }
    }

    /// Leaves all spans of a dead agent. Idempotent. Under the lock, so that nobody who is short of memory takes one at
    /// the same time and gives its units to others.
    pub(crate) fn release_spans_of(&self, agent: &Agent<'_>, dead: AgentId, record: &AgentRecord) {
        let _lock = self.lock_heap(agent);
        for class in Class::all() {
            let offset = record.spans[class.index()].load(Ordering::Acquire);
            let unit = self.unit_at(offset).filter(|unit| self.unit_offset(*unit) == offset);
            if let Some(unit) = unit
                && self.unit(unit) == (Unit::Span { class, distance: 0 })
            {
                let span = Span { offset, unit, class };
                if self.owns(dead, &span) {
                    self.leave_span(dead, &span, self.count_free(&span));
                }
            }
            record.spans[class.index()].store(0, Ordering::Release);
        }
        record.taking.store(0, Ordering::Release);
    }

    /// Whether no block of a span is allocated.
    pub(super) fn is_empty(&self, span: &Span) -> bool {
        let mut tags = (0..span.class.shape().blocks).filter_map(|index| self.tag(span.offset, index));
        tags.all(|it| !Tag::from_word(it.load(Ordering::Acquire)).allocated)
    }

    /// Free blocks of a span.
    pub(crate) fn count_free(&self, span: &Span) -> u32 {
        let tags = (0..span.class.shape().blocks).filter_map(|index| self.tag(span.offset, index));
        tags.filter(|it| !Tag::from_word(it.load(Ordering::Acquire)).allocated).count() as u32
    }

    /// After a block was freed: its owner takes it again first; others count it.
    pub(crate) fn note_freed(&self, agent: Option<&Agent<'_>>, span: Span, index: u32) {
        if let Some(agent) = agent {
            let owned = agent.local.owned(span.class);
            if owned.span.get() == span.offset {
                let mut free = owned.free.borrow_mut();
                if free.len() < span.class.shape().blocks as usize {
                    free.push(index as u16);
                }
                return;
            }
        }
        let freed = self.freed(span.unit).fetch_add(1, Ordering::SeqCst) + 1;
        if freed >= span.class.shape().worth && self.owns(AgentId(0), &span) {
            self.note_partial(&span);
        }
    }

    pub(super) fn note_partial(&self, span: &Span) {
        let bit = 1 << (span.unit % 64);
        let word =
            &self.group(span.unit).partial[span.class.index()][(span.unit % GROUP_UNITS / 64) as usize];
        if word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.heap().partial[span.class.index()].fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Takes a unit out of the bitmap of partial spans. Under the lock. Each call clears a bit or ends the search.
    fn next_partial(&self, class: Class) -> Option<u64> {
        let count = &self.heap().partial[class.index()];
        if count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let committed = self.committed();
        for start in (0..committed).step_by(GROUP_UNITS as usize) {
            let words = &self.group(start).partial[class.index()];
            for (step, word) in words.iter().enumerate().take(GROUP_WORDS) {
                let bits = word.load(Ordering::Relaxed);
                if bits == 0 {
                    continue;
                }
                word.fetch_and(!(bits & bits.wrapping_neg()), Ordering::AcqRel);
                let _none_left =
                    count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |count| count.checked_sub(1));
                let unit = start + step as u64 * 64 + u64::from(bits.trailing_zeros());
                return Some(unit.min(committed - 1));
            }
        }
        count.store(0, Ordering::Release);
        None
    }
}
