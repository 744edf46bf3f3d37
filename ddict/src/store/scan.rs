//! Going through all keys: page after page, in the order of the paths read with their first bit on top.
//!
//! There a page's keys lie side by side, and stay so when it is split: so a place in that order says exactly which keys
//! were shown, whatever was split since, and a key that is there all the time is shown once.

use super::Store;
use super::entry::{Entry, INLINE_MAX};
use super::key::{self, Key};
use super::lookup::{Seen, TRIES_MAX, Which};
use super::page::{DEPTH_MAX, Page, order};
use crate::error::Error;
use std::ops::ControlFlow;

/// What is shown each key and its value.
pub(crate) type Each<'e> = &'e mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A key in a page, and where it lies in the order.
pub(super) struct Listed {
    pub(super) order: u64,
    pub(super) bytes: Vec<u8>,
}

impl Store {
    /// Shows the keys that a checkpoint sees in one page of a shard, from `cursor` (0 at first) on; returns the next
    /// cursor, `None` at the end. Values are shown if asked for, else empty bytes.
    pub(crate) fn scan(
        &self,
        shard: u32,
        checkpoint: u32,
        cursor: u64,
        values: bool,
        each: Each<'_>,
    ) -> Result<Option<u64>, Error> {
        self.admit_read(checkpoint)?;
        let (listed, next) = self.list_page(shard, cursor)?;
        for one in listed {
            let key = Key::new(&one.bytes, self.seed)?;
            let shown =
                if values { self.peek(&one.bytes, checkpoint)?.map(|(value, _)| value) } else { None };
            let is_there = shown.is_some()
                || !values && self.find(&key, Which::Seen(checkpoint))?.is_some_and(|it| it.has_value());
            if is_there && each(&one.bytes, shown.as_deref().unwrap_or_default()).is_break() {
                return Ok(None);
            }
        }
        Ok(next)
    }

    /// The keys of the page at `cursor`, each once, and where the next page begins.
    pub(super) fn list_page(&self, shard: u32, cursor: u64) -> Result<(Vec<Listed>, Option<u64>), Error> {
        for _ in 0..TRIES_MAX {
            let Some(page) = self.page_at_cursor(shard, cursor)? else { return Ok((Vec::new(), None)) };
            let Some(cover) = page.cover() else { return Err(self.damaged_page(page)) };
            let (begin, end) = cover.range();
            if !(begin..end).contains(&cursor) {
                // The directory is behind a split; whoever does it enters the new page soon, or is found dead.
                self.lock_page_of(page)?;
                continue;
            }
            let mut listed = Vec::new();
            for entry in &page.entries {
                self.list(entry, &mut listed)?;
            }
            if page.cover() != Some(cover) {
                continue;
            }
            // While a page is split, keys that are on their way out are still in it.
            listed.retain(|one: &Listed| (cursor..end).contains(&one.order));
            listed.sort_unstable_by(|a, b| (a.order, &a.bytes).cmp(&(b.order, &b.bytes)));
            listed.dedup_by(|a, b| a.bytes == b.bytes);
            return Ok((listed, (end < 1 << DEPTH_MAX).then_some(end)));
        }
        Err(super::damaged("the directory of an index", self.control))
    }

    fn page_at_cursor(&self, shard: u32, cursor: u64) -> Result<Option<&Page>, Error> {
        if cursor >= 1 << DEPTH_MAX {
            return Ok(None);
        }
        let path = u64::from((cursor as u32).reverse_bits());
        let directory = self.directory(self.shard_at(shard))?;
        self.page_at(self.page_in(directory, path)?).map(Some)
    }

    /// Waits for whoever changes a page.
    fn lock_page_of(&self, page: &Page) -> Result<(), Error> {
        let agent = self.segment.agent()?;
        drop(self.lock_this(&agent, self.offset_of(page), page));
        std::thread::yield_now();
        Ok(())
    }

    fn list(&self, entry: &Entry, listed: &mut Vec<Listed>) -> Result<(), Error> {
        loop {
            self.verify_entry(entry)?;
            let Some((_, seen)) = self.look(entry, None)? else { return Ok(()) };
            let hash = self.hash_of(entry);
            let bytes = self.key_of(&seen);
            if entry.is_still(seen.ctl) {
                let bytes = bytes.filter(|bytes| self.is_hash_of(hash, bytes));
                let bytes = bytes.ok_or_else(|| super::damaged("a key", self.offset_of(entry)))?;
                listed.push(Listed { order: order(key::path(hash)), bytes });
                return Ok(());
            }
        }
    }

    /// The key of an entry. Holds only if the entry is still the same afterwards.
    pub(super) fn key_of(&self, seen: &Seen<'_>) -> Option<Vec<u8>> {
        let (words, len) = (seen.entry.key(), seen.entry.meta().key_len());
        if len <= INLINE_MAX as u64 {
            let mut bytes = words.map(u64::to_le_bytes).concat();
            bytes.truncate(len as usize);
            return Some(bytes);
        }
        self.copied(words[0], len)
    }

    /// Calls `each` with every page of a shard, in their order. Of a page that is split meanwhile both are shown; keys
    /// that move just then may be seen in both, never in none.
    pub(super) fn each_page(
        &self,
        shard: u32,
        each: &mut dyn FnMut(u64, &Page) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut cursor, mut tries) = (0, 0);
        while let Some(page) = self.page_at_cursor(shard, cursor)? {
            let cover = page.cover().ok_or_else(|| self.damaged_page(page))?;
            if !(cover.range().0..cover.range().1).contains(&cursor) {
                self.lock_page_of(page)?;
                tries += 1;
                if tries > TRIES_MAX {
                    return Err(super::damaged("the directory of an index", self.control));
                }
                continue;
            }
            each(self.offset_of(page), page)?;
            // What it covers now: the half that was split off meanwhile comes next.
            cursor = page.cover().ok_or_else(|| self.damaged_page(page))?.range().1;
        }
        Ok(())
    }

    fn damaged_page(&self, page: &Page) -> Error {
        super::damaged("the head of a page", self.offset_of(page))
    }
}
