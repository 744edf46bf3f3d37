//! Memory of task records: chunks of 64 KiB in which records lie one behind the other.
//!
//! A batch makes tasks by the million, so a record costs a bump of an offset, not a call of the allocator, and a
//! chunk that has no live record goes back to its batch for the next tasks. What a record holds is `record`'s
//! question; this file only finds room and counts.
//!
//! # Who may write what
//! - Each thread that makes tasks of a batch has a *builder* for it, which owns the free end of an open chunk; no other
//!   thread touches it, but for [`Arena::close`], which is called only when nobody can make tasks.
//! - `live` counts what needs the chunk: each counted record (see `record`) until it is released, each handle of a
//!   plain record, each compiled batch with records here; plus [`BIAS`] while the chunk is open: the builder hands out
//!   records from the bias without touching the counter and gives the rest back when it closes the chunk.
//! - Whoever lowers `live` to zero owns the chunk alone and recycles it.
//!
//! A chunk is aligned to its size, so a record finds its chunk by masking its own address.
#![expect(
    unsafe_code,
    reason = "bump allocation of records of different types, and masking a pointer to its chunk"
)]

use super::extra::Extra;
use super::record::{Record, Ref};
use crate::cohort::Cohort;
use crate::shared::Shared;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::mem::size_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Size and alignment of a chunk in bytes; a record larger than this gets a chunk of its own.
const CHUNK_BYTES: usize = 64 * 1024;
/// Records start at multiples of this many bytes, so a chunk slot and 12 bits name one.
const UNIT_BYTES: usize = 16;
/// Bytes of empty chunks a batch keeps for its next tasks; beyond that they go back to the system.
const SPARE_BYTES_MAX: usize = 192 * 1024 * 1024;
/// What an open chunk holds in `live` beside its records.
const BIAS: usize = 1 << 32;

/// Head of a chunk; records follow it.
#[repr(C, align(64))]
pub(crate) struct Chunk {
    live: AtomicUsize,
    bytes: usize,
    shared: Arc<Shared>,
    /// Tag of the batch's data, so that a declaration can be checked with one load.
    space: u32,
    kept: Mutex<Kept>,
}

/// What goes when the chunk goes: cohorts that its tasks are in, and what few tasks declare.
#[derive(Default)]
struct Kept {
    cohorts: Vec<Arc<Cohort>>,
    /// Addresses stay while the vector grows.
    extras: Vec<std::pin::Pin<Box<Extra>>>,
}

/// A record's place within the chunks of one compiled batch: chunk slot × 4096 + offset ÷ 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compact(pub(crate) u32);

impl Compact {
    /// Stands for a node without a task.
    pub(crate) const NONE: Self = Self(u32::MAX);
    const OFFSET_BITS: u32 = (CHUNK_BYTES / UNIT_BYTES).trailing_zeros();

    pub(crate) fn new(slot: u32, record: NonNull<Record>) -> Self {
        let offset = record.addr().get() & (CHUNK_BYTES - 1);
        Self((slot << Self::OFFSET_BITS) | (offset / UNIT_BYTES) as u32)
    }
}

/// The chunks that a compiled batch's records lie in, each kept by one count.
#[derive(Default)]
pub(crate) struct ChunkTable(Vec<NonNull<Chunk>>);

// SAFETY: the pointers are only turned into records, which are shared under the rules of `record`.
unsafe impl Send for ChunkTable {}
// SAFETY: as above.
unsafe impl Sync for ChunkTable {}

impl ChunkTable {
    /// The record with this place.
    #[inline(always)]
    pub(crate) fn resolve(&self, place: Compact) -> Ref {
        let chunk = self.0[(place.0 >> Compact::OFFSET_BITS) as usize];
        let offset = (place.0 as usize & ((1 << Compact::OFFSET_BITS) - 1)) * UNIT_BYTES;
        // SAFETY: `Compact::new` took this offset from a record inside the chunk of that slot.
        Ref(unsafe { chunk.byte_add(offset).cast() })
    }

    /// Keeps `cohort` as long as any of these chunks.
    pub(crate) fn keep_cohort(&self, cohort: &Arc<Cohort>) {
        for chunk in &self.0 {
            // SAFETY: our count keeps the chunk.
            unsafe { (*chunk.as_ptr()).kept.lock().cohorts.push(Arc::clone(cohort)) };
        }
    }
}

impl Drop for ChunkTable {
    fn drop(&mut self) {
        for chunk in &self.0 {
            // SAFETY: the count was taken when the chunk got its slot, and nobody resolves places any more.
            unsafe { released(*chunk, 1) };
        }
    }
}

/// Gives each chunk a slot while a list is compiled.
#[derive(Default)]
pub(crate) struct ChunkSlots {
    table: ChunkTable,
    slots: HashMap<NonNull<Chunk>, u32, RandomState>,
    last: Option<NonNull<Chunk>>,
    last_slot: u32,
}

impl ChunkSlots {
    /// The record's place among the chunks seen so far; `None` when they are too many. The caller has a handle of the
    /// record, or keeps its plan.
    #[inline(always)]
    pub(crate) fn place(&mut self, task: Ref) -> Option<Compact> {
        let chunk = task.chunk();
        if self.last != Some(chunk) {
            self.last_slot = self.slot(chunk)?;
            self.last = Some(chunk);
        }
        Some(Compact::new(self.last_slot, task.0))
    }

    /// Whether the record lies in the same chunk as the one before, so that it is of the same batch.
    #[inline(always)]
    pub(crate) fn is_last(&self, task: Ref) -> bool {
        self.last == Some(task.chunk())
    }

    /// The record with this place.
    pub(crate) fn resolve(&self, place: Compact) -> Ref {
        self.table.resolve(place)
    }

    #[cold]
    fn slot(&mut self, chunk: NonNull<Chunk>) -> Option<u32> {
        let next = self.table.0.len() as u32;
        let slot = *self.slots.entry(chunk).or_insert(next);
        if slot == next {
            if next >= CHUNK_SLOTS_MAX - 1 {
                return None;
            }
            // SAFETY: the caller keeps a record of the chunk.
            unsafe { (*chunk.as_ptr()).live.fetch_add(1, Ordering::Relaxed) };
            self.table.0.push(chunk);
        }
        Some(slot)
    }

    pub(crate) fn finish(mut self) -> ChunkTable {
        self.table.0.shrink_to_fit();
        self.table
    }
}

/// Slots a [`Compact`] can tell apart.
const CHUNK_SLOTS_MAX: u32 = 1 << (32 - Compact::OFFSET_BITS);

/// The chunk a record lies in.
#[inline(always)]
pub(crate) fn chunk_of(record: NonNull<Record>) -> NonNull<Chunk> {
    record
        .map_addr(|a| {
            std::num::NonZero::new(a.get() & !(CHUNK_BYTES - 1)).expect("a chunk never lies at address zero")
        })
        .cast()
}

/// The batch a record belongs to; the caller holds the record, so its chunk lives.
#[inline(always)]
pub(crate) fn shared_of<'a>(record: NonNull<Record>) -> &'a Arc<Shared> {
    // SAFETY: a record that is not released keeps `live` above zero, so the head is initialised; callers hold one.
    unsafe { &(*chunk_of(record).as_ptr()).shared }
}

/// Tag of the data of the batch a record belongs to.
#[inline(always)]
pub(crate) fn space_of(record: NonNull<Record>) -> u32 {
    // SAFETY: as for `shared_of`.
    unsafe { (*chunk_of(record).as_ptr()).space }
}

/// One more handle of a plain record.
#[inline(always)]
pub(crate) fn retain(record: NonNull<Record>) {
    // SAFETY: the caller has a handle, so the chunk lives.
    unsafe { (*chunk_of(record).as_ptr()).live.fetch_add(1, Ordering::Relaxed) };
}

/// Keeps an extra as long as the chunk of its record; returns where it is.
pub(crate) fn keep_extra(record: NonNull<Record>, extra: Box<Extra>) -> *mut Extra {
    let at = Box::into_raw(extra);
    // SAFETY: the box comes right from `into_raw`; the caller has the record, so the chunk lives.
    unsafe { (*chunk_of(record).as_ptr()).kept.lock().extras.push(Box::into_pin(Box::from_raw(at))) };
    at
}

/// Gives up one count of the record's chunk: a handle of a plain record, or a counted record that is released.
///
/// # Safety
/// The count was the caller's, and it touches neither record nor chunk again.
#[inline(always)]
pub(crate) unsafe fn released(chunk: NonNull<Chunk>, counts: usize) {
    // SAFETY: the count was held until now, so the head is still there.
    let before = unsafe { (*chunk.as_ptr()).live.fetch_sub(counts, Ordering::AcqRel) };
    if before == counts {
        // SAFETY: nothing in the chunk lives and no builder holds it, so it is ours alone.
        unsafe { recycle(chunk) };
    }
}

/// # Safety
/// `live` is zero: no record lives in the chunk and no builder owns its free end.
unsafe fn recycle(chunk: NonNull<Chunk>) {
    // SAFETY: as the function demands; the head is moved out once and dead afterwards.
    let Chunk { bytes, shared, kept, .. } = unsafe { chunk.read() };
    shared.arena.give_back(Raw { at: chunk.cast(), bytes });
    drop(kept);
}

/// Memory of a chunk without a head.
struct Raw {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory that nobody else refers to.
unsafe impl Send for Raw {}

impl Raw {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, CHUNK_BYTES).expect("chunk sizes are far below isize::MAX")
    }

    fn new(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the layout has a size above zero.
        let at = unsafe { alloc(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        Self { at, bytes }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, and owned.
        unsafe { dealloc(self.at.as_ptr(), Self::layout(self.bytes)) };
    }
}

/// Where a batch takes room for records, and keeps empty chunks.
pub(crate) struct Arena {
    /// Tells arenas apart, also from those that are gone.
    id: u64,
    builders: Mutex<Vec<Arc<Slot>>>,
    spare: Mutex<Vec<Raw>>,
}

/// A builder and whether a thread has it.
#[derive(Default)]
struct Slot {
    taken: AtomicBool,
    builder: UnsafeCell<Builder>,
}

// SAFETY: `builder` is touched by the thread that has the slot, or by `close` when no thread can make tasks.
unsafe impl Sync for Slot {}
// SAFETY: a builder's open chunk belongs to nobody else as far as its free end goes.
unsafe impl Send for Slot {}

#[derive(Default)]
struct Builder {
    /// The open chunk, if any: only this builder adds records to it.
    open: Option<NonNull<Chunk>>,
    next: usize,
    given: usize,
}

/// Slots that a thread has, given back when it ends.
struct Owned(Vec<Arc<Slot>>);

impl Drop for Owned {
    fn drop(&mut self) {
        LATEST.set((0, std::ptr::null()));
        self.0.iter().for_each(|slot| slot.taken.store(false, Ordering::Release));
    }
}

thread_local! {
    /// The arena this thread used last, and its slot there, which `OWNED` keeps.
    static LATEST: Cell<(u64, *const Slot)> = const { Cell::new((0, std::ptr::null())) };
    static OWNED: RefCell<Owned> = const { RefCell::new(Owned(Vec::new())) };
}

impl Arena {
    pub(crate) fn new() -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Self { id, builders: Mutex::default(), spare: Mutex::default() }
    }

    /// Room for one record and its payload; the caller writes the record before anyone else can see it.
    #[inline]
    pub(crate) fn room(&self, shared: &Arc<Shared>, layout: Layout) -> NonNull<Record> {
        let (id, slot) = LATEST.get();
        let slot = if id == self.id { slot } else { self.slot() };
        // SAFETY: the slot is this thread's: `LATEST` and `OWNED` are only set by it, and `OWNED` keeps the slot.
        unsafe { (*(*slot).builder.get()).room(self, shared, layout) }
    }

    /// This thread's slot, taken when it has none.
    #[cold]
    fn slot(&self) -> *const Slot {
        let mut builders = self.builders.lock();
        let mine = |owned: &mut Owned| {
            owned.0.retain(|slot| Arc::strong_count(slot) > 1);
            if let Some(slot) = owned.0.iter().find(|slot| builders.iter().any(|b| Arc::ptr_eq(b, slot))) {
                return Arc::as_ptr(slot);
            }
            let free = builders.iter().find(|slot| !slot.taken.swap(true, Ordering::Acquire)).cloned();
            let slot = free.unwrap_or_else(|| {
                let slot = Arc::new(Slot { taken: AtomicBool::new(true), ..Slot::default() });
                builders.push(Arc::clone(&slot));
                slot
            });
            owned.0.push(slot);
            Arc::as_ptr(&owned.0[owned.0.len() - 1])
        };
        let slot = OWNED.with_borrow_mut(mine);
        LATEST.set((self.id, slot));
        slot
    }

    /// Gives up all open chunks, which otherwise would keep the batch's memory alive for ever.
    ///
    /// # Safety
    /// No thread makes tasks of this batch now: it has no client, and none of its bodies runs.
    pub(crate) unsafe fn close(&self) {
        for slot in self.builders.lock().iter() {
            // SAFETY: as demanded.
            unsafe { (*slot.builder.get()).close() };
        }
    }

    fn give_back(&self, raw: Raw) {
        let mut spare = self.spare.lock();
        if raw.bytes == CHUNK_BYTES && spare.len() * CHUNK_BYTES < SPARE_BYTES_MAX {
            spare.push(raw);
        }
    }
}

impl Builder {
    #[inline(always)]
    fn room(&mut self, arena: &Arena, shared: &Arc<Shared>, layout: Layout) -> NonNull<Record> {
        let align = layout.align().max(UNIT_BYTES);
        assert!(align <= 4096, "a task's arguments and results may ask for alignments of at most 4096 bytes");
        let start = self.next.next_multiple_of(align);
        if let Some(chunk) = self.open
            && start + layout.size() <= CHUNK_BYTES
        {
            self.next = start + layout.size();
            self.given += 1;
            // SAFETY: `start` lies inside the chunk.
            return unsafe { chunk.byte_add(start).cast() };
        }
        self.new_chunk(arena, shared, layout, align)
    }

    #[cold]
    fn new_chunk(
        &mut self,
        arena: &Arena,
        shared: &Arc<Shared>,
        layout: Layout,
        align: usize,
    ) -> NonNull<Record> {
        let first = size_of::<Chunk>().next_multiple_of(align);
        let bytes = (first + layout.size()).next_multiple_of(UNIT_BYTES).max(CHUNK_BYTES);
        let spare = if bytes == CHUNK_BYTES { arena.spare.lock().pop() } else { None };
        let raw = spare.unwrap_or_else(|| Raw::new(bytes));
        let chunk: NonNull<Chunk> = raw.at.cast();
        let live = if bytes == CHUNK_BYTES { BIAS } else { 1 };
        std::mem::forget(raw);
        // SAFETY: fresh memory of at least the head's size and alignment.
        unsafe {
            chunk.write(Chunk {
                live: AtomicUsize::new(live),
                bytes,
                shared: Arc::clone(shared),
                space: shared.space.tag(),
                kept: Mutex::default(),
            });
        }
        if bytes == CHUNK_BYTES {
            self.close();
            *self = Self { open: Some(chunk), next: first + layout.size(), given: 1 };
        }
        // SAFETY: `first` lies inside the chunk.
        unsafe { chunk.byte_add(first).cast() }
    }

    fn close(&mut self) {
        if let Some(chunk) = self.open.take() {
            // SAFETY: the bias not given to records is ours; we forget the chunk here.
            unsafe { released(chunk, BIAS - self.given) };
        }
    }
}
