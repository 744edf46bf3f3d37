//! A full page gives half of its keys to a new one, while others read and write.
//!
//! # Protocol
//! Who has the page's lock:
//! 1. makes sure that the directory has words for pages of the next depth;
//! 2. takes a new page, which nobody knows, and its lock;
//! 3. locks every entry that is to go, and copies it (value and key stay where they are);
//! 4. names the new page as the old one's sibling, and *commits* by one store of the old page's cover;
//! 5. makes the old entries tombs, enters the new page in the directory, and lets go of both pages.
//!
//! # Why nobody sees a wrong value
//! Until 5 an old entry still shows its value, and no writer can change it: it is locked. A writer reaches the copy
//! only through the directory, or through the sibling after it found no entry in the old page: both after the tomb. So
//! while two entries have the key, they have the same value. Who finds nothing in a page looks at its cover
//! *afterwards*, so it never takes a key that went for one that is not there.
//!
//! # Deaths
//! Before 4 the old page's cover says that nothing happened: the survivor unlocks the entries, and the new page is
//! freed as a held block. From 4 on the survivor does 5 once more; each step of it can be done twice.

use super::entry::{Entry, FULL, Slot, TOMB};
use super::intent::{self, DIRECTORY, Intent, PAGE, PAGE2, SHARD, SPLIT, STAGE};
use super::key::{self, hash_short};
use super::layout::{DirectoryHead, Shard, Word, seal};
use super::lookup::{Directory, Seen};
use super::page::{Cover, DEPTH_MAX, PLACES, Page};
use super::patience::Patience;
use super::write::{Locked, tidy};
use super::{Store, damaged};
use crate::error::Error;
use std::sync::atomic::Ordering;
use tarragon_transport::agent::{Agent, AgentId, AgentRecord};

impl Store {
    /// Splits a page whose lock this thread has. Lets go of it.
    pub(super) fn split<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        locked: Locked<'s>,
        hash: u64,
    ) -> Result<(), Error> {
        let cover = locked.page.cover().ok_or_else(|| damaged("the head of a page", locked.offset))?;
        let [stay, go] = cover.halves();
        if stay.depth > DEPTH_MAX {
            return Err(damaged("a page that cannot be split", locked.offset));
        }
        let shard = self.shard_for(hash);
        if self.directory(shard)?.depth < stay.depth {
            self.grow(agent, shard, stay.depth)?;
        }
        let held = self.segment.alloc_page(agent)?;
        let offset = held.block.offset;
        let moved = self.page_at(offset).and_then(|new| {
            new.clear(go);
            intent::note(agent, PAGE2, offset);
            intent::note(agent, SHARD, u64::from(key::shard(hash, self.options.shards)));
            new.lock.try_lock(agent);
            intent::note(agent, STAGE, SPLIT | u64::from(cover.depth) << 32);
            self.copy_half(agent, locked.page, new, go).map(|()| new)
        });
        let new = match moved {
            Ok(new) => new,
            Err(error) => {
                self.let_go(agent.id, locked.page);
                intent::end(agent);
                if let Ok(new) = self.page_at(offset) {
                    new.lock.release_for(agent.id);
                }
                self.segment.free(agent.record, held);
                return Err(error);
            }
        };
        locked.page.set_sibling(offset);
        locked.page.set_cover(stay);
        self.segment.forget(agent, held);
        let finished = self.finish(agent, shard, locked.page, (offset, new, go));
        // First the end, then the lock: once others use the new page, nothing of this may be done again.
        intent::end(agent);
        new.lock.unlock(agent);
        finished
    }

    /// Locks and copies the entries that go.
    fn copy_half(&self, agent: &Agent<'_>, page: &Page, new: &Page, go: Cover) -> Result<(), Error> {
        let mut patience = Patience::default();
        let mut count = 0;
        for entry in &page.entries {
            while let Some((_, seen)) = self.look(entry, None)? {
                let hash = self.hash_of(entry);
                if !go.covers(key::path(hash)) {
                    break;
                }
                if !self.lock_seen(agent, &seen, &mut patience)? {
                    continue;
                }
                copy(&seen, place_in(new, hash).ok_or_else(|| damaged("a page", self.offset_of(page)))?);
                count += 1;
                break;
            }
        }
        new.set_live(count);
        Ok(())
    }

    /// Step 5, by who has the locks of both pages, or settles somebody who had them.
    fn finish(
        &self,
        agent: &Agent<'_>,
        shard: &Shard,
        page: &Page,
        (offset, _, go): (u64, &Page, Cover),
    ) -> Result<(), Error> {
        for entry in &page.entries {
            let ctl = entry.load();
            if ctl.state() == FULL && go.covers(key::path(self.hash_of(entry))) {
                entry.publish(ctl.next(TOMB, 0, false, Slot::default()), self.is_light);
            }
        }
        for entry in page.entries.iter().rev() {
            tidy(page, entry);
        }
        page.recount();
        self.enter(agent, shard, offset, go)
    }

    /// Makes the directory's words for a cover lead to its page.
    fn enter(&self, agent: &Agent<'_>, shard: &Shard, page: u64, cover: Cover) -> Result<(), Error> {
        self.with_directory_locked(agent, shard, |directory| {
            let mut index = cover.prefix;
            while index < 1 << directory.depth {
                let word = self.segment.at::<Word>(directory.word(index));
                let word = word.ok_or_else(|| damaged("a directory", directory.offset))?;
                word.0.store(seal(page), Ordering::Release);
                index += 1 << cover.depth;
            }
            Ok(())
        })
    }

    /// Makes a directory of at least `depth` bits. The old one stays: late readers may still look into it.
    fn grow(&self, agent: &Agent<'_>, shard: &Shard, depth: u32) -> Result<(), Error> {
        while self.directory(shard)?.depth < depth {
            let old = self.directory(shard)?;
            let words = 1u64 << (old.depth + 1);
            let held = self.segment.alloc(agent, 64 + words * 8)?;
            let new = Directory { offset: held.block.offset, depth: old.depth + 1 };
            let mut is_used = false;
            let changed = self.with_directory_locked(agent, shard, |now| {
                if now != old {
                    return Ok(());
                }
                intent::note(agent, DIRECTORY, new.offset);
                self.double(old, new)?;
                shard.directory.store(seal(new.offset | u64::from(new.depth)), Ordering::SeqCst);
                is_used = true;
                self.segment.forget(agent, held);
                intent::note(agent, DIRECTORY, 0);
                Ok(())
            });
            if !is_used {
                intent::note(agent, DIRECTORY, 0);
                self.segment.free(agent.record, held);
            }
            changed?;
        }
        Ok(())
    }

    fn double(&self, old: Directory, new: Directory) -> Result<(), Error> {
        let words = |d: Directory| self.segment.slice::<Word>(d.word(0), 1 << d.depth);
        let (from, to) = (words(old), words(new));
        let (Some(from), Some(to)) = (from, to) else { return Err(damaged("a directory", old.offset)) };
        for (word, source) in to.iter().zip(from.iter().chain(from)) {
            word.0.store(source.0.load(Ordering::Acquire), Ordering::Relaxed);
        }
        let head = self.segment.at::<DirectoryHead>(new.offset).expect("it was allocated");
        head.previous.store(seal(old.offset), Ordering::Relaxed);
        Ok(())
    }

    /// Calls `change` with the directory while nobody else changes it. While somebody is settled this thread may have
    /// the lock already.
    fn with_directory_locked(
        &self,
        agent: &Agent<'_>,
        shard: &Shard,
        change: impl FnOnce(Directory) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let is_mine = shard.lock.owner() == Some(agent.id);
        if !is_mine {
            shard.lock.lock(agent, self);
        }
        let changed = self.directory(shard).and_then(change);
        if !is_mine {
            shard.lock.unlock(agent);
        }
        changed
    }

    /// Opens every entry of a page that `agent` has locked.
    pub(super) fn let_go(&self, agent: AgentId, page: &Page) {
        for entry in &page.entries {
            entry.unlock(agent);
        }
    }

    /// Hash of the key in a full entry.
    pub(super) fn hash_of(&self, entry: &Entry) -> u64 {
        let (words, len) = (entry.key(), entry.meta().key_len());
        if len <= super::entry::INLINE_MAX as u64 { hash_short(words, len, self.seed) } else { words[1] }
    }

    /// Settles a split that a dead agent began.
    pub(super) fn settle_split(
        &self,
        agent: &Agent<'_>,
        record: &AgentRecord,
        intent: &Intent,
    ) -> Result<(), Error> {
        let page = self.page_at(intent.word(PAGE))?;
        let offset = intent.word(PAGE2);
        let cover = page.cover().ok_or_else(|| damaged("the head of a page", intent.word(PAGE)))?;
        if cover.depth == intent.before() {
            return Ok(());
        }
        let new = self.page_at(offset)?;
        let go = new.cover().ok_or_else(|| damaged("the head of a page", offset))?;
        self.segment.forget_for(record, offset);
        let shard = self.shard_at(intent.word(SHARD) as u32 % self.options.shards);
        self.finish(agent, shard, page, (offset, new, go))
    }
}

/// Copies an entry that its writer has locked, both slots, into one that nobody knows.
fn copy(seen: &Seen<'_>, to: &Entry) {
    let from = seen.entry;
    to.meta.store(from.meta().0, Ordering::Relaxed);
    for (word, value) in to.key.iter().zip(from.key()) {
        word.store(value, Ordering::Relaxed);
    }
    for (side, slot) in to.slots.iter().enumerate() {
        let value = from.slot(side).0;
        slot[0].store(value[0], Ordering::Relaxed);
        slot[1].store(value[1], Ordering::Relaxed);
    }
    to.ctl.store(seen.ctl.unlocked().0, Ordering::Release);
}

fn place_in(page: &Page, hash: u64) -> Option<&Entry> {
    let mut places = (0..PLACES).map(|step| page.entry(key::place(hash), step));
    places.find(|entry| entry.load().state() != FULL)
}
