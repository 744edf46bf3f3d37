//! Sleeping until a key is written.
//!
//! A table of cells, one for many keys: a sequence number, and whether somebody may sleep. Who waits says so, reads the
//! number, looks for the key, and sleeps while the number stays. Who wrote a key looks afterwards whether somebody may
//! sleep (who waits runs the fence between the two for both); if so it takes that back, changes the number and wakes
//! all of the cell. So whoever looked too early finds the number changed. Nothing has to be taken back after a death: a
//! waiter killed costs one wake-up that nobody needed, and for a writer killed between its store and the wake-up,
//! sleepers look again by themselves.

use super::Store;
use super::key::Key;
use super::layout::{ROOT_BYTES, SHARD_BYTES, WAITERS, Waiters};
use crate::error::Error;
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The longest sleep without looking again.
const NAP: Duration = Duration::from_millis(250);

/// State of a key's waiters, see `Store::watch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watch(pub(crate) u32);

impl Store {
    #[inline(always)]
    fn waiters(&self, hash: u64) -> &Waiters {
        self.waiters_at(hash >> 32 & (WAITERS - 1))
    }

    fn waiters_at(&self, index: u64) -> &Waiters {
        let table = self.control + ROOT_BYTES + u64::from(self.options.shards) * SHARD_BYTES;
        self.at(table + index * 8).expect("the control part holds the waiters")
    }

    /// Wakes those who wait for the key; after its publication.
    #[inline(always)]
    pub(super) fn wake(&self, hash: u64) {
        let cell = self.waiters(hash);
        if cell.sleeping.load(Ordering::Relaxed) != 0 {
            wake_all(cell);
        }
    }

    /// Wakes all who wait for any key.
    pub(super) fn wake_everybody(&self) {
        for index in 0..WAITERS {
            wake_all(self.waiters_at(index));
        }
    }

    /// What `wait` needs to miss nothing.
    pub(crate) fn watch(&self, key: &[u8]) -> Watch {
        let Ok(key) = Key::new(key, self.seed) else { return Watch(0) };
        let cell = self.waiters(key.hash);
        let sequence = cell.sequence.load(Ordering::SeqCst);
        cell.sleeping.store(1, Ordering::SeqCst);
        self.segment.fence_all();
        Watch(sequence)
    }

    /// Sleeps until the key may have changed, or the deadline: look again afterwards. `seen`: from `watch`, taken
    /// before the last look.
    pub(crate) fn wait(&self, key: &[u8], seen: Watch, deadline: Option<Instant>) -> Result<(), Error> {
        let key = Key::new(key, self.seed)?;
        self.count_wait(key.hash);
        self.sleep(self.waiters(key.hash), seen, deadline);
        self.admit()
    }

    /// Counts a wait that somebody else does for the key.
    pub(crate) fn note_wait(&self, key: &[u8]) {
        if let Ok(key) = Key::new(key, self.seed) {
            self.count_wait(key.hash);
        }
    }

    /// The word to sleep at while it is what `watch` gave.
    pub(crate) fn sequence_of(&self, key: &[u8]) -> Option<&AtomicU32> {
        Key::new(key, self.seed).ok().map(|key| &self.waiters(key.hash).sequence)
    }

    fn sleep(&self, cell: &Waiters, seen: Watch, deadline: Option<Instant>) {
        let left = deadline.map_or(NAP, |at| at.saturating_duration_since(Instant::now()).min(NAP));
        let left = rustix::fs::Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        // Woken, changed before, interrupted or late: all mean to look again.
        let _ = futex::wait(&cell.sequence, futex::Flags::empty(), seen.0, Some(&left));
    }
}

fn wake_all(cell: &Waiters) {
    cell.sleeping.store(0, Ordering::SeqCst);
    cell.sequence.fetch_add(1, Ordering::SeqCst);
    // Nobody there is fine, and nothing else can go wrong.
    let _ = futex::wake(&cell.sequence, futex::Flags::empty(), i32::MAX as u32);
}
