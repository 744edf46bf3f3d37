//! Making a queue.

use crate::encoding::type_hash;
use crate::error::Error;
use crate::layout::{Attached, BLOCK_BYTES, KIND, LAYOUT, View, control_bytes};
use crate::queue::Queue;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use tarragon_transport::doorbell;
use tarragon_transport::segment::{Segment, Spec};

/// The memory bound of a queue that was given none: 1 GiB. Memory is used only when items need it.
pub(crate) const MEMORY_DEFAULT: u64 = 1 << 30;
/// The least: a few spans of the heap.
const MEMORY_MIN: u64 = 8 << 20;

/// What a queue is to be. Without any call: unbounded, first in first out per producer.
pub struct Builder<T> {
    bound: u64,
    is_strict: bool,
    memory: u64,
    name: String,
    items: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned + 'static> Builder<T> {
    pub(crate) fn new() -> Self {
        let (bound, is_strict, memory, name) = (0, false, MEMORY_DEFAULT, String::new());
        Self { bound, is_strict, memory, name, items: PhantomData }
    }

    /// Lets it hold `items` items at most (0: as many as its memory can); then puts wait. Such a queue is strict as
    /// well.
    pub fn bounded(mut self, items: u64) -> Self {
        self.bound = items;
        self
    }

    /// Gives all items one order over all producers: what was put before another put began is taken before it. Costs
    /// producers a compare-exchange on a line they share. Cells of a burst go back when they are taken empty: when
    /// somebody finds the queue empty, when more items are put, or when memory is short; 8 blocks of 256 cells stay.
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Bounds the memory of its items and cells, in bytes; then puts wait. At least 8 MiB are taken. Default: 1 GiB.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes.max(MEMORY_MIN);
        self
    }

    /// Names it, for people: the descriptor bears the name.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Makes it. Its memory goes when the last process that has it attached ends or drops its handles.
    ///
    /// # Errors
    /// `Segment` if shared memory is full or refused.
    pub fn create(self) -> Result<Queue<T>, Error> {
        self.make().map(Queue::of)
    }

    pub(crate) fn make(self) -> Result<Attached, Error> {
        let is_strict = self.is_strict || self.bound != 0;
        make(self.memory, self.bound, is_strict, type_hash::<T>(), self.name)
    }
}

/// A queue in this node's memory.
pub(crate) fn make(
    memory: u64,
    bound: u64,
    is_strict: bool,
    type_hash: u64,
    name: String,
) -> Result<Attached, Error> {
    doorbell::prepare();
    let entries = memory.div_ceil(BLOCK_BYTES).next_power_of_two();
    let control_bytes = control_bytes(entries);
    let spec = Spec { kind: KIND, layout: LAYOUT, control_bytes, heap_bytes: memory };
    let segment = Segment::create(&spec)?;
    let attached = Attached { segment, name, bound, is_strict, entries, home: None, far: None };
    let control = attached.try_control()?;
    control.bound.store(bound, Ordering::Relaxed);
    control.is_strict.store(u64::from(is_strict), Ordering::Relaxed);
    control.entries.store(entries, Ordering::Relaxed);
    control.ring.start::<View<'_>>();
    control.type_hash.store(type_hash, Ordering::Release);
    Ok(attached)
}
