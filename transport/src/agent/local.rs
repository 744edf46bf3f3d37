//! What a process remembers of its own agents: caches, which need no repair when they are lost.

#![expect(unsafe_code, reason = "hands a thread's memory from one thread to the next")]

use super::AgentRecord;
use crate::heap::class::{CLASS_COUNT, Class};
use std::cell::{Cell, RefCell};

/// A thread's memory of its agent. Used by one thread at a time.
pub(crate) struct Local {
    /// The agent; 0: none at the moment.
    pub(crate) id: Cell<u16>,
    /// The agent's record in the segment's mapping; null: none at the moment.
    pub(crate) record: Cell<*const AgentRecord>,
    /// Where the last pin was found free.
    pub(crate) pin_next: Cell<u32>,
    /// Where the last held entry was found free.
    pub(crate) held_next: Cell<u32>,
    /// Entries at the front of the retired table.
    pub(crate) retired: Cell<usize>,
    /// Bytes of their blocks.
    pub(crate) retired_bytes: Cell<u64>,
    /// Entries at which the next reclaim is worth it.
    pub(crate) reclaim_at: Cell<usize>,
    /// Bytes at which the next reclaim is worth it.
    pub(crate) reclaim_at_bytes: Cell<u64>,
    /// Reclaims so far.
    pub(crate) reclaims: Cell<u32>,
    /// The spans it owns.
    pub(crate) spans: [Owned; CLASS_COUNT],
    /// For `reclaim`: the pins of all.
    pub(crate) pinned: RefCell<Vec<u64>>,
}

/// A span the agent owns.
pub(crate) struct Owned {
    /// Its offset; 0: none.
    pub(crate) span: Cell<u64>,
    /// Blocks of it that are free, the one freed last at the end. May name one that is not.
    pub(crate) free: RefCell<Vec<u16>>,
}

impl Local {
    pub(crate) fn new() -> Self {
        Self {
            id: Cell::new(0),
            record: Cell::new(std::ptr::null()),
            pin_next: Cell::new(0),
            held_next: Cell::new(0),
            retired: Cell::new(0),
            retired_bytes: Cell::new(0),
            reclaim_at: Cell::new(0),
            reclaim_at_bytes: Cell::new(0),
            reclaims: Cell::new(0),
            spans: std::array::from_fn(|_| Owned { span: Cell::new(0), free: RefCell::default() }),
            pinned: RefCell::default(),
        }
    }

    /// The span it owns in `class`.
    #[inline(always)]
    pub(crate) fn owned(&self, class: Class) -> &Owned {
        &self.spans[class.index()]
    }
}

/// The agents of this process in one segment.
///
/// Boxes stay where they are until the segment goes: threads hold pointers to them.
#[derive(Default)]
pub(crate) struct Locals {
    all: Vec<Slot>,
}

struct Slot {
    local: Box<Local>,
    in_use: bool,
}

// SAFETY: a `Local` is used by the one thread that `Locals::take` gave it to, until `give_back`; both are called
// under the mutex around `Locals`, which orders one thread's use before the next one's.
unsafe impl Send for Slot {}

impl Locals {
    /// One nobody uses, preferring one that has an agent (with guards that are still about); makes one if needed.
    pub(crate) fn take(&mut self) -> *const Local {
        let free = self.all.iter().enumerate().filter(|(_, slot)| !slot.in_use);
        let best = free.max_by_key(|(_, slot)| slot.local.id.get() != 0).map(|(index, _)| index);
        let index = best.unwrap_or_else(|| {
            self.all.push(Slot { local: Box::new(Local::new()), in_use: false });
            self.all.len() - 1
        });
        let slot = &mut self.all[index];
        slot.in_use = true;
        &raw const *slot.local
    }

    /// Says that its thread needs it no more.
    pub(crate) fn give_back(&mut self, local: *const Local) {
        if let Some(slot) = self.all.iter_mut().find(|slot| std::ptr::eq(&raw const *slot.local, local)) {
            slot.in_use = false;
        }
    }

    /// All that have an agent.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = &Local> {
        self.all.iter().map(|slot| &*slot.local).filter(|local| local.id.get() != 0)
    }
}
