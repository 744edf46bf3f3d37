//! Which keys have copies on other nodes, so that nobody changes such a key before the copies are gone.
//!
//! A table of cells, one for many keys. The thread that gives a key copies sets its cell first and writes the key's
//! value afterwards; it alone sets cells and clears them. Every other writer looks at the cell after it has loaded what
//! the entry shows (for a key that comes in: after it has the page's lock) and before it takes the entry; where the
//! cell is set it has the copies given up, and looks at the entry again. So a writer that found the cell clear either
//! publishes before the value that gets copies, or fails to take the entry, which has changed. One that is killed
//! anywhere leaves no copy of an older value behind a newer one.

use super::layout::{COPIED, COPIED_CELLS, ELSEWHERE, REPLICATED, ROOT_BYTES, SHARD_BYTES, WAITERS};
use super::{Store, damaged, key::Key};
use crate::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};

/// Has the copies of a cell's keys given up, and returns when they are gone.
pub(crate) type GiveUp = Box<dyn Fn(u32) -> Result<(), Error> + Send + Sync>;

fn cell(hash: u64) -> u32 {
    (hash >> 20 & (COPIED_CELLS - 1)) as u32
}

impl Store {
    /// Who is asked before a key that has copies is changed.
    pub(crate) fn ask_before_change(&mut self, give_up: GiveUp) {
        self.give_up = Some(give_up);
    }

    fn copied_at(&self, cell: u32) -> &AtomicU32 {
        let table = self.control + ROOT_BYTES + u64::from(self.options.shards) * SHARD_BYTES + WAITERS * 8;
        self.at(table + u64::from(cell) * 4).expect("the control part holds the cells")
    }

    /// Whether a key with this hash may have copies on other nodes.
    #[inline(always)]
    pub(super) fn is_copied(&self, hash: u64) -> bool {
        self.root().flags.load(Ordering::Acquire) & COPIED != 0 && self.is_cell_set(hash)
    }

    /// Whether a process may not just change a key with this hash.
    #[inline(always)]
    pub(super) fn is_asked_first(&self, hash: u64) -> bool {
        match self.root().flags.load(Ordering::Acquire) & (COPIED | REPLICATED) {
            0 => false,
            COPIED => self.is_cell_set(hash),
            _ => true,
        }
    }

    #[inline(never)]
    fn is_cell_set(&self, hash: u64) -> bool {
        self.copied_at(cell(hash)).load(Ordering::Acquire) != 0
    }

    /// Has the copies of keys with this hash given up.
    #[cold]
    #[inline(never)]
    pub(super) fn give_up(&self, hash: u64) -> Result<(), Error> {
        match &self.give_up {
            Some(give_up) => give_up(cell(hash)),
            None => Err(damaged("the table of copies", self.control)),
        }
    }

    /// The cell of a key.
    pub(crate) fn cell_of(&self, key: &[u8]) -> Result<u32, Error> {
        Key::new(key, self.seed).map(|key| cell(key.hash))
    }

    /// Whether keys of a cell have copies.
    pub(crate) fn has_copies(&self, cell: u32) -> bool {
        self.copied_at(cell).load(Ordering::Acquire) != 0
    }

    /// Has all processes ask who serves the part before they read it here.
    pub(crate) fn set_elsewhere(&self) {
        self.root().flags.fetch_or(ELSEWHERE, Ordering::SeqCst);
    }

    /// Says that keys of a cell have copies from now on, or have none any more.
    pub(crate) fn set_copied(&self, cell: u32, is_copied: bool) {
        if is_copied {
            self.root().flags.fetch_or(COPIED, Ordering::SeqCst);
        }
        self.copied_at(cell).store(u32::from(is_copied), Ordering::SeqCst);
    }

    /// Whether no checkpoint after this one has an entry of the key.
    pub(crate) fn is_newest(&self, key: &[u8], checkpoint: u32) -> Result<bool, Error> {
        let (agent, key) = (self.segment.agent()?, Key::new(key, self.seed)?);
        let locked = self.lock_page(&agent, key.hash)?;
        for entry in &locked.page.entries {
            if self.look(entry, Some(&key))?.is_some_and(|(at, _)| at > checkpoint) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An error if this checkpoint cannot be read.
    pub(crate) fn check_read(&self, checkpoint: u32) -> Result<(), Error> {
        self.admit_read(checkpoint)
    }
}

const _: () = assert!(COPIED_CELLS.is_power_of_two());
