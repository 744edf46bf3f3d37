//! Fresh pages before they are needed: a thread that makes memory and maps it while the caller does other things.
//!
//! Touching a page for the first time costs microseconds. A process maps what it takes from the heap in pieces of
//! 64 KiB, once; and after it has made the heap grow by some MiB it starts one thread that keeps the next ones ready.
//! The thread sleeps on a condition variable, holds nothing of the segment meanwhile, and ends with it.

use super::layout::UNIT_BYTES;
use crate::segment::{Segment, system};
use crate::sync::Ordering;
use std::sync::atomic::Ordering as Order;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// Units whose pages are mapped together.
const PIECE_UNITS: u64 = 4;
/// Bytes by which a process has made the heap grow before it starts the thread.
const GROWN_BYTES_MIN: u64 = 8 << 20;
/// Units kept ready beyond what is memory: 16 MiB.
const AHEAD_UNITS: u64 = 1024;

/// The thread's bell.
#[derive(Default)]
pub(crate) struct Ahead {
    shared: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    grown_bytes: u64,
    is_started: bool,
    is_wanted: bool,
    is_ended: bool,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    /// Notes that this process made the heap grow.
    pub(crate) fn grown(&self, segment: &Segment, bytes: u64) {
        let mut state = self.shared.state();
        state.grown_bytes += bytes;
        if state.grown_bytes < GROWN_BYTES_MIN {
            return;
        }
        state.is_wanted = true;
        if !state.is_started {
            let (bell, segment) = (Arc::clone(&self.shared), segment.this.clone());
            let thread = std::thread::Builder::new().name("tarragon-pages".to_owned());
            // Without the thread the callers map pages themselves.
            state.is_started = thread.spawn(move || serve(&bell, &segment)).is_ok();
        }
        self.shared.rung.notify_one();
    }

    /// Ends the thread, at its next look.
    pub(crate) fn end(&self) {
        self.shared.state().is_ended = true;
        self.shared.rung.notify_one();
    }
}

fn serve(bell: &Bell, segment: &Weak<Segment>) {
    loop {
        let mut state = bell.state();
        while !state.is_wanted && !state.is_ended {
            state = bell.rung.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_ended {
            return;
        }
        state.is_wanted = false;
        drop(state);
        let Some(segment) = segment.upgrade() else { return };
        segment.prepare_pages();
    }
}

impl Segment {
    /// Makes the next units memory and maps them; they join the heap when it grows next.
    fn prepare_pages(&self) {
        let committed = self.committed();
        let units = AHEAD_UNITS.min(self.plan.units - committed);
        let free = rustix::fs::statvfs(&self.folder).map_or(0, |it| it.f_bavail * it.f_frsize);
        let start = committed.next_multiple_of(PIECE_UNITS);
        // What others may need soon is left to them.
        let is_plenty = free / 8 >= units * UNIT_BYTES && start < committed + units;
        if is_plenty && self.commit_units(committed, units).is_ok() {
            self.populate_units(start, committed + units);
        }
    }

    /// Maps the pages of a part of the heap, where this process has not done so yet.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) {
        if let Some(start) = self.unit_at(offset) {
            self.populate_units(start, (start + bytes.div_ceil(UNIT_BYTES)).min(self.committed()));
        }
    }

    fn populate_units(&self, start: u64, end: u64) {
        let mut pieces = start / PIECE_UNITS..end.div_ceil(PIECE_UNITS);
        while let Some(first) = pieces.find(|piece| !self.note_populated(*piece)) {
            let mut last = first;
            while last + 1 < pieces.end && !self.note_populated(last + 1) {
                last += 1;
            }
            pieces.start = last + 1;
            let from = self.unit_offset(first * PIECE_UNITS);
            let units = ((last + 1) * PIECE_UNITS).min(self.plan.units) - first * PIECE_UNITS;
            let place = self.write(from, units * UNIT_BYTES);
            if !place.is_null() {
                system::populate(place, (units * UNIT_BYTES) as usize);
            }
        }
    }

    /// Notes a piece; true if it was noted before.
    fn note_populated(&self, piece: u64) -> bool {
        let Some(word) = self.populated.get((piece / 64) as usize) else { return true };
        let bit = 1 << (piece % 64);
        word.load(Order::Relaxed) & bit != 0 || word.fetch_or(bit, Order::Relaxed) & bit != 0
    }

    /// Zeroes words of the heap.
    pub(crate) fn zero(&self, offset: u64, bytes: u64) {
        let words = self.slice::<crate::sync::AtomicU64>(offset, bytes / 8).unwrap_or_default();
        words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}
