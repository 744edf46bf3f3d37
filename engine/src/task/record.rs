//! A task as it lies in memory: a head of 48 bytes, the place of its value, its function and its arguments.
//!
//! # States
//! `status` goes `New → Running → Done | Failed | Skipped`, and to `Running` again when a compiled batch is run again.
//! The upper bit of the byte is the parity of the run that wrote it, so a new run needs no pass over the records: a
//! status of the other parity means "waiting". `Done` becomes `Empty` when the value has been dropped or moved out,
//! `Taken` when the user took it.
//!
//! # Who may write what
//! - Before compile: the owner of the `Task` alone (it is not `Clone`), through `&mut`.
//! - While its run is active: the worker that executes the task (a node is executed once per run).
//! - A record is *plain* if nothing in it needs `drop`: then its handles are counted in its chunk, and nobody asks who
//!   was the last. Every other record is *counted*, by itself:
//! - `counts`: low half, objects in the user's hands that can reach the value (*handles*); high half, other parts of
//!   the engine that need the record (*holds*: its compiled batch, argument slots of tasks in the same list).
//!   Whoever lowers both to zero releases the record.
//! - `uses`: argument slots that have yet to consume the value in this run, written by a plain store at its start.
//! - The value is written by the executing worker, read by consumers while `uses > 0`, by users under the gate of the
//!   cohort, and removed by whoever changes `Done` to `Empty` or `Taken` by compare-and-swap, which happens only
//!   when `uses` is zero and no handle is left (or by the user's `take`, under the gate, when `uses` is zero).
#![expect(unsafe_code, reason = "records of different types behind one head, with values in place")]

use super::chunk::{self, Chunk};
use super::extra::Extra;
pub(crate) use super::keep::Kept;
use crate::body::Call;
use crate::data::Access;
use crate::function::Code;
use std::cell::{RefCell, UnsafeCell};
use std::mem::{MaybeUninit, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Accesses that fit in the head; more of them, or a name, go to an [`Extra`].
const INLINE_MAX: usize = 4;
const HANDLE: u64 = 1;
const HOLD: u64 = 1 << 32;

/// How far a task has come; see the module's page.
pub(crate) mod state {
    pub(crate) const NEW: u8 = 0;
    pub(crate) const RUNNING: u8 = 2;
    pub(crate) const DONE: u8 = 3;
    pub(crate) const EMPTY: u8 = 4;
    pub(crate) const TAKEN: u8 = 5;
    pub(crate) const FAILED: u8 = 6;
    pub(crate) const SKIPPED: u8 = 7;
    /// Never in a record: it is done on another rank, says its cohort.
    pub(crate) const ELSEWHERE: u8 = 8;
    /// The parity bit of the run that wrote the status.
    pub(crate) const PARITY: u8 = 0x80;
}

const EXTRA: u8 = 1;
/// The arguments given by value were moved into the body.
const GIVEN: u8 = 2;
/// Function and arguments are dropped.
const DROPPED: u8 = 4;
/// Nothing in the record needs to be dropped; see the module's page.
const PLAIN: u8 = 8;
/// It is not called by whichever worker finds it ready, but attended to: a process, or a function with limits.
const ATTENDED: u8 = 16;
/// It may be called again with the same arguments.
const KEEPS: u8 = 32;
/// It was submitted and waits to be compiled.
const QUEUED: u8 = 64;
/// Somebody is to be told when it ends; see `shared::Awaited`.
const WATCHED: u8 = 128;

#[repr(C, align(16))]
pub(crate) struct Record {
    pub(crate) code: &'static Code,
    counts: AtomicU64,
    /// Id of the cohort the task was compiled in; 0 before.
    pub(crate) cohort: AtomicU32,
    pub(crate) uses: AtomicU32,
    /// Index in the list of its cohort.
    pub(crate) index: AtomicU32,
    pub(crate) status: AtomicU8,
    flags: AtomicU8,
    inline_len: AtomicU8,
    declared: UnsafeCell<Declared>,
}

union Declared {
    inline: [Access; INLINE_MAX],
    extra: *mut Extra,
}

const _: () = assert!(size_of::<Record>() == 48);

/// A record with the types of its value, function and argument slots.
#[repr(C)]
pub(crate) struct Full<V, F, S> {
    head: Record,
    value: UnsafeCell<MaybeUninit<V>>,
    pub(crate) function: UnsafeCell<F>,
    pub(crate) slots: UnsafeCell<S>,
}

/// A record by address, without saying who keeps it alive: each holder's doc says that.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ref(pub(crate) NonNull<Record>);

// SAFETY: a record is shared between threads under the rules of the module's page; what it holds is Send + Sync
// (`Code` is only made for such types).
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Ref {
    /// Writes a new record that one handle (its `Task`) refers to.
    pub(crate) fn create<V, F, S>(
        shared: &std::sync::Arc<crate::shared::Shared>,
        code: &'static Code,
        function: F,
        slots: S,
    ) -> Self {
        let at = shared.arena.room(shared, std::alloc::Layout::new::<Full<V, F, S>>());
        let attended = if code.command.is_some() { ATTENDED | KEEPS } else { 0 };
        let plain = code.inputs.is_none() && !code.value_needs_drop && !code.args_need_drop;
        let head = Record {
            code,
            counts: AtomicU64::new(HANDLE),
            cohort: AtomicU32::new(0),
            uses: AtomicU32::new(0),
            index: AtomicU32::new(u32::MAX),
            status: AtomicU8::new(state::NEW),
            flags: AtomicU8::new(if plain { PLAIN } else { attended }),
            inline_len: AtomicU8::new(0),
            declared: UnsafeCell::new(Declared { inline: [Access::NONE; INLINE_MAX] }),
        };
        let full = at.cast::<Full<V, F, S>>();
        // SAFETY: `room` gave memory of this layout that nobody else knows; each field is written once.
        unsafe {
            let p = full.as_ptr();
            (&raw mut (*p).head).write(head);
            (&raw mut (*p).function).write(UnsafeCell::new(function));
            (&raw mut (*p).slots).write(UnsafeCell::new(slots));
        }
        Self(at)
    }

    #[inline(always)]
    pub(crate) fn head<'a>(self) -> &'a Record {
        // SAFETY: every holder of a `Ref` keeps the record from being released while it uses it.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn chunk(self) -> NonNull<Chunk> {
        chunk::chunk_of(self.0)
    }

    #[inline(always)]
    pub(crate) fn shared<'a>(self) -> &'a std::sync::Arc<crate::shared::Shared> {
        chunk::shared_of(self.0)
    }

    /// The place of the value.
    #[inline(always)]
    pub(crate) fn value<V>(self) -> *mut V {
        let full = self.0.cast::<Full<V, (), ()>>();
        // SAFETY: `Full` is `repr(C)`, so the offset of `value` depends on `V` alone; the record is live.
        unsafe { UnsafeCell::raw_get(&raw const (*full.as_ptr()).value).cast() }
    }

    /// The record with its types.
    ///
    /// # Safety
    /// The record was created with exactly these types, and is live.
    #[inline(always)]
    pub(crate) unsafe fn full<'a, V, F, S>(self) -> &'a Full<V, F, S> {
        // SAFETY: as demanded.
        unsafe { self.0.cast().as_ref() }
    }

    // ── who refers to it ────────────────────────────────────────────────────────────────────────────────────

    /// Whether its handles are counted in its chunk, and nothing in it needs to be dropped.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        self.head().flags.load(Ordering::Relaxed) & PLAIN != 0
    }

    /// Whether the engine attends to it; see `attend`.
    #[inline(always)]
    pub(crate) fn is_attended(self) -> bool {
        self.head().flags.load(Ordering::Relaxed) & ATTENDED != 0
    }

    /// From now on it is attended to. The caller owns the task.
    pub(crate) fn attend(self) {
        self.head().flags.fetch_or(ATTENDED, Ordering::Relaxed);
    }

    /// Whether its arguments must stay as they are for another attempt.
    #[inline(always)]
    pub(crate) fn keeps_arguments(self) -> bool {
        self.head().flags.load(Ordering::Relaxed) & KEEPS != 0
    }

    /// From now on its arguments stay as they are. The caller owns the task.
    pub(crate) fn keep_arguments(self) {
        self.head().flags.fetch_or(KEEPS, Ordering::Relaxed);
    }

    /// Whether it was submitted and waits to be compiled.
    pub(crate) fn is_queued(self) -> bool {
        self.head().flags.load(Ordering::Acquire) & QUEUED != 0
    }

    /// It is submitted; false if it was before.
    pub(crate) fn queue(self) -> bool {
        self.head().flags.fetch_or(QUEUED, Ordering::AcqRel) & QUEUED == 0
    }

    /// Whether somebody is to be told when it ends.
    #[inline(always)]
    pub(crate) fn is_watched(self) -> bool {
        self.head().flags.load(Ordering::Relaxed) & WATCHED != 0
    }

    pub(crate) fn watch(self, on: bool) {
        let flags = &self.head().flags;
        if on {
            flags.fetch_or(WATCHED, Ordering::AcqRel)
        } else {
            flags.fetch_and(!WATCHED, Ordering::AcqRel)
        };
    }

    /// It is not queued any more.
    pub(crate) fn unqueue(self) {
        self.head().flags.fetch_and(!QUEUED, Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn add_handle(self) {
        if self.is_plain() {
            return chunk::retain(self.0);
        }
        let before = self.head().counts.fetch_add(HANDLE, Ordering::Relaxed);
        assert!(before as u32 != u32::MAX, "more than 2^32 handles of one task");
    }

    /// Drops one handle; the last one may drop the value, or the record.
    #[inline]
    pub(crate) fn drop_handle(self) {
        if self.is_plain() {
            // SAFETY: the handle was ours, and it goes.
            return unsafe { chunk::released(self.chunk(), 1) };
        }
        self.drop_counted();
    }

    #[inline(never)]
    fn drop_counted(self) {
        let counts = &self.head().counts;
        let mut now = counts.load(Ordering::Acquire);
        loop {
            if now == HANDLE {
                counts.store(0, Ordering::Relaxed);
                return self.release();
            }
            // The last handle becomes a hold, so that the record stays while we look at its value.
            let last = now as u32 == 1;
            let next = if last { now + HOLD - HANDLE } else { now - HANDLE };
            match counts.compare_exchange_weak(now, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) if last => {
                    self.value_unwanted();
                    return self.drop_hold();
                }
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    fn value_unwanted(self) {
        let head = self.head();
        let status = head.status.load(Ordering::Acquire) & !state::PARITY;
        if status == state::NEW {
            return;
        }
        if let Some(cohort) = self.cohort() {
            cohort.value_unwanted(self);
        }
    }

    /// The cohort the task was compiled in, if it was; the caller holds the record.
    pub(crate) fn cohort<'a>(self) -> Option<&'a crate::cohort::Cohort> {
        match self.head().cohort.load(Ordering::Acquire) {
            0 => None,
            id => Some(self.shared().cohorts.get(id)),
        }
    }

    /// Turns the handle inside an argument slot into a hold: the producer is in the same list.
    pub(crate) fn handle_to_hold(self) {
        debug_assert!(!self.is_plain());
        self.head().counts.fetch_add(HOLD - HANDLE, Ordering::AcqRel);
    }

    /// It becomes part of a compiled batch. The caller owns or borrows the task, so only handles change meanwhile.
    #[inline(always)]
    pub(crate) fn add_hold(self) {
        self.head().counts.fetch_add(HOLD, Ordering::Relaxed);
    }

    pub(crate) fn index(self) -> u32 {
        self.head().index.load(Ordering::Relaxed)
    }

    pub(crate) fn drop_hold(self) {
        if self.head().counts.fetch_sub(HOLD, Ordering::AcqRel) == HOLD {
            self.release();
        }
    }

    #[inline(always)]
    pub(crate) fn handles(self) -> u32 {
        self.head().counts.load(Ordering::Acquire) as u32
    }

    /// Nobody refers to the record any more: drop all it holds and count it out of its chunk.
    ///
    /// Its arguments may hold the last reference to other records, and those to others: they wait in a list, so that
    /// a long chain needs no deep stack.
    fn release(self) {
        thread_local! {
            static WAITING: RefCell<Option<Vec<Ref>>> = const { RefCell::new(None) };
        }
        if self.head().code.inputs.is_none() {
            return self.release_one();
        }
        let nested = WAITING.with_borrow_mut(|waiting| match waiting {
            Some(list) => {
                list.push(self);
                true
            }
            None => {
                *waiting = Some(Vec::new());
                false
            }
        });
        if nested {
            return;
        }
        let mut next = Some(self);
        while let Some(task) = next {
            task.release_one();
            next = WAITING.with_borrow_mut(|waiting| {
                let task = waiting.as_mut().and_then(Vec::pop);
                if task.is_none() {
                    *waiting = None;
                }
                task
            });
        }
    }

    fn release_one(self) {
        let chunk = self.chunk();
        if self.head().code.value_needs_drop {
            self.drop_value_if_done();
        }
        self.drop_arguments();
        // SAFETY: nothing touches the record after this.
        unsafe { chunk::released(chunk, 1) };
    }

    /// Drops function and arguments, once.
    fn drop_arguments(self) {
        let head = self.head();
        if head.flags.load(Ordering::Relaxed) & DROPPED == 0 {
            head.flags.fetch_or(DROPPED, Ordering::Relaxed);
            // SAFETY: the task never runs again, so the slots are ours; the flag says that they are gone.
            unsafe { (head.code.drop_args)(self) };
        }
    }

    /// Its compiled batch is gone, so the task never runs again: drops the arguments, and the record unless a handle
    /// is left. For counted records.
    pub(crate) fn abandon(self) {
        self.drop_arguments();
        self.drop_hold();
    }

    /// Whether it has ended in the run that writes statuses of this parity.
    #[inline(always)]
    pub(crate) fn has_ended(self, parity: u8) -> bool {
        let status = self.head().status.load(Ordering::Acquire);
        status & state::PARITY == parity && status & !state::PARITY > state::RUNNING
    }

    // ── its value ───────────────────────────────────────────────────────────────────────────────────────────

    /// Drops the value if there is one; true if this call did it.
    pub(crate) fn drop_value_if_done(self) -> bool {
        let dropped = self.claim_value();
        if dropped {
            self.drop_claimed();
        }
        dropped
    }

    /// Marks a value as gone; true if the caller must now drop it.
    pub(crate) fn claim_value(self) -> bool {
        let status = &self.head().status;
        let now = status.load(Ordering::Acquire);
        if now & !state::PARITY != state::DONE {
            return false;
        }
        let empty = (now & state::PARITY) | state::EMPTY;
        status.compare_exchange(now, empty, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Drops a value that came too late to be anybody's: the caller has just called the body of a task that counts as
    /// failed.
    pub(crate) fn drop_late_value(self) {
        if self.head().code.value_needs_drop {
            // SAFETY: the body has just put it there, and no status says so, so nobody else looks at it.
            unsafe { (self.head().code.drop_value)(self) };
        }
    }

    /// Drops a value that the caller has just claimed.
    pub(crate) fn drop_claimed(self) {
        // SAFETY: the claim made the caller the only one who may remove the value.
        unsafe { (self.head().code.drop_value)(self) };
    }

    /// Moves the value out if it is there; `mark` says what is left behind.
    ///
    /// # Safety
    /// `V` is the type of the value, and nobody reads it: no use is pending, or the caller has the only one.
    pub(crate) unsafe fn move_value<V>(self, mark: u8) -> Option<V> {
        let head = self.head();
        let status = head.status.load(Ordering::Acquire);
        if status & !state::PARITY != state::DONE {
            return None;
        }
        let left = (status & state::PARITY) | mark;
        head.status.compare_exchange(status, left, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        // SAFETY: the exchange made us the only one who may remove the value.
        Some(unsafe { self.value::<V>().read() })
    }

    /// One argument slot has consumed (or will never consume) the value in this run.
    #[inline(always)]
    pub(crate) fn used(self) {
        let uses = &self.head().uses;
        if uses.load(Ordering::Acquire) == 1 {
            uses.store(0, Ordering::Release);
        } else if uses.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if !self.is_plain() && self.handles() == 0 {
            self.drop_value_if_done();
        }
    }

    // ── its arguments ───────────────────────────────────────────────────────────────────────────────────────

    /// Calls the body.
    #[inline(always)]
    pub(crate) fn call(self, call: &Call<'_>) -> crate::body::Verdict {
        // SAFETY: the run executes each node once, so this worker alone touches function, slots and value place.
        unsafe { (self.head().code.call)(self, call) }
    }

    /// Lets go of other tasks' results without calling the body.
    pub(crate) fn pass(self) {
        // SAFETY: as for `call`.
        unsafe { (self.head().code.pass)(self) };
    }

    /// Marks the by-value arguments as moved into the body.
    pub(crate) fn arguments_given(self) {
        self.head().flags.fetch_or(GIVEN, Ordering::Relaxed);
    }

    /// Whether the arguments have moved into the body or are dropped.
    pub(crate) fn are_arguments_gone(self) -> bool {
        self.head().flags.load(Ordering::Acquire) & (GIVEN | DROPPED) != 0
    }

    pub(crate) fn were_arguments_given(self) -> bool {
        self.head().flags.load(Ordering::Relaxed) & GIVEN != 0
    }

    // ── what it declared ────────────────────────────────────────────────────────────────────────────────────

    /// Adds a declared access.
    ///
    /// # Safety
    /// The caller owns the task mutably and it is not compiled.
    #[inline(always)]
    pub(crate) unsafe fn declare(self, access: Access) {
        let head = self.head();
        let len = usize::from(head.inline_len.load(Ordering::Relaxed));
        if head.flags.load(Ordering::Relaxed) & EXTRA == 0 && len < INLINE_MAX {
            // SAFETY: without `EXTRA` the union holds `inline`, and nobody else looks at it now.
            let inline = unsafe { &mut (*head.declared.get()).inline };
            inline[len] = access;
            head.inline_len.store(len as u8 + 1, Ordering::Relaxed);
            return reads_first(&mut inline[..=len]);
        }
        // SAFETY: as demanded of the caller.
        unsafe { self.declare_more(access) };
    }

    /// # Safety
    /// As [`declare`](Self::declare).
    #[cold]
    unsafe fn declare_more(self, access: Access) {
        // SAFETY: as demanded of the caller.
        let accesses = unsafe { &mut self.extra_mut().accesses };
        accesses.push(access);
        reads_first(accesses);
    }

    /// The task's extras, made when missing.
    ///
    /// # Safety
    /// The caller owns the task mutably and it is not compiled.
    pub(crate) unsafe fn extra_mut<'a>(self) -> &'a mut Extra {
        let head = self.head();
        // SAFETY: the caller alone looks at the declarations now; the union holds what `EXTRA` says.
        unsafe {
            if head.flags.load(Ordering::Relaxed) & EXTRA == 0 {
                let len = usize::from(head.inline_len.load(Ordering::Relaxed));
                let accesses = (&(*head.declared.get()).inline)[..len].to_vec();
                (*head.declared.get()).extra = chunk::keep_extra(self.0, Box::new(Extra::with(accesses)));
                head.flags.fetch_or(EXTRA, Ordering::Relaxed);
            }
            &mut *(*head.declared.get()).extra
        }
    }

    #[inline(always)]
    pub(crate) fn extra<'a>(self) -> Option<&'a Extra> {
        let head = self.head();
        if head.flags.load(Ordering::Relaxed) & EXTRA == 0 {
            return None;
        }
        // SAFETY: `EXTRA` is set, so the union holds a box; it changes only through `&mut Task` before compile.
        Some(unsafe { &*(*head.declared.get()).extra })
    }

    pub(crate) fn accesses<'a>(self) -> &'a [Access] {
        if let Some(extra) = self.extra() {
            return &extra.accesses;
        }
        let head = self.head();
        // SAFETY: without `EXTRA` the union holds `inline`; it changes only through `&mut Task` before compile.
        unsafe { &(&(*head.declared.get()).inline)[..usize::from(head.inline_len.load(Ordering::Relaxed))] }
    }

    /// Adds the declared accesses to `all`.
    #[inline(always)]
    pub(crate) fn add_accesses(self, all: &mut Vec<Access>) {
        let head = self.head();
        if head.flags.load(Ordering::Relaxed) & EXTRA != 0 {
            return all.extend_from_slice(self.accesses());
        }
        // A copy of known length, cut afterwards, is cheaper than one of unknown length.
        let len = all.len() + usize::from(head.inline_len.load(Ordering::Relaxed));
        // SAFETY: without `EXTRA` the union holds `inline`; it changes only through `&mut Task` before compile.
        all.extend_from_slice(unsafe { &(*head.declared.get()).inline });
        all.truncate(len);
    }

    /// The user's name for the task, or the path of its function.
    pub(crate) fn name(self) -> String {
        match self.extra().and_then(|e| e.name.as_deref()) {
            Some(name) => name.to_string(),
            None => (self.head().code.name)().to_string(),
        }
    }
}

/// Moves a read that has just been added before the writes, where compile expects it.
#[inline(always)]
fn reads_first(accesses: &mut [Access]) {
    let Some((last, before)) = accesses.split_last() else { return };
    if last.reads() && before.last().is_some_and(|a| a.writes()) {
        let writes = before.iter().rev().take_while(|a| a.writes()).count();
        let from = before.len() - writes;
        accesses[from..].rotate_right(1);
    }
}
