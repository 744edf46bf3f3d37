//! Writing: find the entry, lock it, publish. The protocol is `entry`'s; what is noted for survivors, `intent`'s.
//!
//! A key that is there needs its entry's lock alone. A key that comes in or goes needs the page's lock; the order is
//! page, entry, directory.

use super::entry::{Ctl, EMPTY, Entry, FULL, INLINE_MAX, Meta, REMOVED, Slot, TOMB};
use super::intent::{self, ENTRY, INSERT, KEY, NEW, OLD, PAGE, REMOVE, UPDATE};
use super::key::{self, Key};
use super::layout::{COPIED, DESTROYED, FROZEN};
use super::lookup::{Seen, TRIES_MAX, Which};
use super::page::{PLACES, Page, SPLIT};
use super::patience::Patience;
use super::value::{Fresh, Pinned};
use super::{Keep, Store, When, damaged};
use crate::error::Error;
use std::sync::atomic::{Ordering, fence};
use tarragon_transport::agent::Agent;

/// A page whose lock this thread has; dropped, it lets go.
pub(super) struct Locked<'s> {
    pub(super) page: &'s Page,
    pub(super) offset: u64,
    agent: &'s Agent<'s>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.page.lock.unlock(self.agent);
    }
}

impl Store {
    /// Locks the entry if it still is as it was seen. `false`: look again.
    #[inline(always)]
    pub(super) fn lock_seen(
        &self,
        agent: &Agent<'_>,
        seen: &Seen<'_>,
        patience: &mut Patience,
    ) -> Result<bool, Error> {
        if seen.ctl.owner().0 != 0 {
            patience.wait(self, seen.entry, seen.ctl)?;
            return Ok(false);
        }
        intent::note(agent, ENTRY, self.offset_of(seen.entry));
        Ok(seen.entry.try_lock(seen.ctl, agent.id))
    }

    /// The same for who wants to change the key: an error if nothing may be written.
    #[inline(always)]
    pub(super) fn lock_entry(
        &self,
        agent: &Agent<'_>,
        seen: &Seen<'_>,
        patience: &mut Patience,
    ) -> Result<bool, Error> {
        if !self.lock_seen(agent, seen, patience)? {
            return Ok(false);
        }
        if let Err(error) = self.admit_locked() {
            seen.entry.unlock(agent.id);
            return Err(error);
        }
        Ok(true)
    }

    /// Gives a key whose value lies in its entry another one that does, if nothing stands in the way.
    #[inline(always)]
    pub(super) fn replace_fast(&self, agent: &Agent<'_>, seen: &Seen<'_>, value: &[u8], keep: Keep) -> bool {
        let is_short = seen.ctl.form() <= INLINE_MAX as u64 && value.len() <= INLINE_MAX;
        if !is_short || seen.ctl.owner().0 != 0 {
            return false;
        }
        intent::note(agent, ENTRY, self.offset_of(seen.entry));
        if !seen.entry.try_lock(seen.ctl, agent.id) {
            return false;
        }
        if self.root().flags.load(Ordering::Relaxed) & (DESTROYED | FROZEN) != 0 {
            seen.entry.unlock(agent.id);
            return false;
        }
        let slot = Slot::inline(value);
        seen.entry.prepare(seen.ctl, slot);
        seen.entry
            .publish(seen.ctl.next(FULL, value.len() as u64, self.is_persistent(keep), slot), self.is_light);
        true
    }

    /// Gives a key that is there another value. `false`: the entry changed meanwhile, look again.
    #[inline(always)]
    pub(super) fn replace<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        seen: &Seen<'s>,
        fresh: &mut Fresh<'s>,
        keep: Keep,
        patience: &mut Patience,
        when: When,
    ) -> Result<bool, Error> {
        if when != When::Copied && self.has_copied_key(seen) {
            return self.give_up(self.hash_of(seen.entry)).map(|()| false);
        }
        if !self.lock_entry(agent, seen, patience)? {
            return Ok(false);
        }
        let persistent = self.is_persistent(keep);
        let old = Self::block_of(seen.ctl, seen.slot);
        let next = seen.ctl.next(FULL, fresh.form, persistent, fresh.slot);
        if fresh.block() == 0 && old.is_none() {
            seen.entry.prepare(seen.ctl, fresh.slot);
            seen.entry.publish(next, self.is_light);
            return Ok(true);
        }
        intent::note(agent, NEW, fresh.block());
        intent::note(agent, OLD, old.unwrap_or(0));
        intent::begin(agent, UPDATE, seen.ctl);
        seen.entry.prepare(seen.ctl, fresh.slot);
        seen.entry.publish(next, self.is_light);
        fresh.published();
        if let Some(old) = old {
            self.segment.retire(agent, old);
        }
        intent::end(agent);
        self.segment.reclaim_if_due(agent);
        Ok(true)
    }

    /// Whether the key of an entry, as it was seen, may have copies. Wrong only where the entry has changed since.
    #[inline(always)]
    fn has_copied_key(&self, seen: &Seen<'_>) -> bool {
        self.root().flags.load(Ordering::Relaxed) & COPIED != 0 && self.is_copied(self.hash_of(seen.entry))
    }

    /// Puts a key in that is not there. `false`: it is there now.
    #[inline(never)]
    pub(super) fn insert<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        key: &Key<'_>,
        checkpoint: u32,
        fresh: &mut Fresh<'s>,
        keep: Keep,
        when: When,
    ) -> Result<bool, Error> {
        let mut key_block = if key.is_inline() { None } else { Some(self.fresh_key(agent, key.bytes)?) };
        let locked = loop {
            let locked = self.lock_page(agent, key.hash)?;
            self.admit_locked()?;
            if self.probe(locked.page, key, Which::At(checkpoint))?.is_some() {
                return Ok(false);
            }
            if when != When::Copied && self.is_copied(key.hash) {
                drop(locked);
                return self.give_up(key.hash).map(|()| false);
            }
            if locked.page.live() < SPLIT {
                break locked;
            }
            self.split(agent, locked, key.hash)?;
        };
        let entry = self.room(locked.page, key.hash)?;
        let before = entry.load();
        let words = key_block.as_ref().map_or(key.words, |block| [block.block(), key.hash]);
        intent::note(agent, ENTRY, self.offset_of(entry));
        intent::note(agent, NEW, fresh.block());
        intent::note(agent, KEY, key_block.as_ref().map_or(0, Fresh::block));
        intent::begin(agent, INSERT, before);
        fence(Ordering::Release);
        entry.meta.store(Meta::new(checkpoint, key.bytes.len() as u64, words).0, Ordering::Relaxed);
        entry.key[0].store(words[0], Ordering::Relaxed);
        entry.key[1].store(words[1], Ordering::Relaxed);
        entry.prepare(before, fresh.slot);
        entry.publish(before.next(FULL, fresh.form, self.is_persistent(keep), fresh.slot), self.is_light);
        fresh.published();
        if let Some(block) = &mut key_block {
            block.published();
        }
        locked.page.set_live(locked.page.live() + 1);
        intent::end(agent);
        Ok(true)
    }

    /// The first entry of a key's chain that no key has.
    fn room<'s>(&self, page: &'s Page, hash: u64) -> Result<&'s Entry, Error> {
        let mut places = (0..PLACES).map(|step| page.entry(key::place(hash), step));
        let free = places.find(|entry| entry.load().state() != FULL);
        free.ok_or_else(|| damaged("the count of a page", self.offset_of(page)))
    }

    /// Locks the page that covers the hash.
    pub(super) fn lock_page<'s>(&'s self, agent: &'s Agent<'s>, hash: u64) -> Result<Locked<'s>, Error> {
        let (mut offset, mut page) = self.page_for(hash)?;
        for _ in 0..TRIES_MAX {
            let locked = self.lock_this(agent, offset, page);
            if self.covers(page, hash)? {
                return Ok(locked);
            }
            drop(locked);
            page = self.next_page(page, hash)?;
            offset = self.offset_of(page);
        }
        Err(damaged("the directory of an index", self.control))
    }

    /// Locks this page.
    pub(super) fn lock_this<'s>(&'s self, agent: &'s Agent<'s>, offset: u64, page: &'s Page) -> Locked<'s> {
        intent::note(agent, PAGE, offset);
        page.lock.lock(agent, self);
        Locked { page, offset, agent }
    }

    /// Takes a key's entry out, in a page that this thread has locked; its last value stays pinned.
    ///
    /// `None`: the entry changed meanwhile, look again.
    pub(super) fn take_out<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        locked: &Locked<'s>,
        seen: &Seen<'s>,
        patience: &mut Patience,
    ) -> Result<Option<Pinned<'s>>, Error> {
        if !self.lock_entry(agent, seen, patience)? {
            return Ok(None);
        }
        let value = if seen.has_value() { self.pin_seen(seen) } else { Ok(Some(Pinned::empty())) };
        let value = match value {
            Ok(Some(value)) => value,
            other => {
                seen.entry.unlock(agent.id);
                return other;
            }
        };
        let old = Self::block_of(seen.ctl, seen.slot).unwrap_or(0);
        let is_long = seen.entry.meta().key_len() > INLINE_MAX as u64;
        let key_block = if is_long { seen.entry.key()[0] } else { 0 };
        intent::note(agent, OLD, old);
        intent::note(agent, KEY, key_block);
        intent::begin(agent, REMOVE, seen.ctl);
        seen.entry.publish(seen.ctl.next(TOMB, 0, false, Slot::default()), self.is_light);
        for block in [old, key_block].into_iter().filter(|block| *block != 0) {
            self.segment.retire(agent, block);
        }
        locked.page.set_live(locked.page.live().saturating_sub(1));
        tidy(locked.page, seen.entry);
        intent::end(agent);
        Ok(Some(value))
    }

    /// Notes in an entry that its key is removed in this checkpoint, while older ones still have it.
    pub(super) fn removed<'s>(agent: &'s Agent<'s>) -> Fresh<'s> {
        Fresh::without_block(agent, Slot::default(), REMOVED)
    }

    pub(super) fn is_persistent(&self, keep: Keep) -> bool {
        keep == Keep::Persistent || !self.options.wait_for_keys
    }
}

/// Makes entries that nobody needs any more for a chain empty, from `removed` backwards.
pub(super) fn tidy(page: &Page, removed: &Entry) {
    let Some(mut at) = page.entries.iter().position(|entry| std::ptr::eq(entry, removed)) else { return };
    let places = PLACES as usize;
    for _ in 0..places {
        let ctl: Ctl = page.entries[at].load();
        if ctl.state() != TOMB || page.entries[(at + 1) % places].load().state() != EMPTY {
            return;
        }
        page.entries[at].publish(ctl.next(EMPTY, 0, false, Slot::default()), false);
        at = (at + places - 1) % places;
    }
}
