//! From a key to its entry, without a lock and without a store.

use super::entry::{BLOCK, Ctl, EMPTY, Entry, FULL, INLINE_MAX, Meta, REMOVED, Slot};
use super::key::{self, Key, ShortKey};
use super::layout::{DESTROYED, ELSEWHERE, OFFSET, RETIRED, Root, Shard, Word, open};
use super::page::{PLACES, Page};
use super::{Store, damaged};
use crate::error::Error;
use std::sync::atomic::Ordering;

/// How often a lookup starts over before the index is taken for damaged. It does when a page was split meanwhile, and
/// then the page it came from knows the next one: a few times are many.
pub(super) const TRIES_MAX: u32 = 1 << 10;

/// What an entry showed, as one.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'s> {
    pub(super) entry: &'s Entry,
    pub(super) ctl: Ctl,
    pub(super) slot: Slot,
}

impl Seen<'_> {
    /// The value, if it lies in the entry: its bytes, zeros behind, and how many they are.
    #[inline(always)]
    pub(crate) fn short(&self) -> Option<([u8; INLINE_MAX], usize)> {
        let form = self.ctl.form();
        (form <= INLINE_MAX as u64).then(|| (self.slot.bytes(), form as usize))
    }

    /// Whether the value lies in a block.
    #[inline(always)]
    pub(crate) fn is_block(&self) -> bool {
        self.ctl.form() == BLOCK
    }

    /// Whether it shows a value, and not that the key was removed in its checkpoint.
    #[inline(always)]
    pub(super) fn has_value(&self) -> bool {
        self.ctl.form() != REMOVED
    }
}

/// Which checkpoints' entries count.
#[derive(Clone, Copy)]
pub(super) enum Which {
    /// The one that was written in this checkpoint.
    At(u32),
    /// The one that this checkpoint sees.
    Seen(u32),
}

/// Where a shard's directory is, and how many bits of a path choose a word of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) offset: u64,
    pub(super) depth: u32,
}

impl Directory {
    pub(super) fn word(self, index: u64) -> u64 {
        self.offset + 64 + index * 8
    }
}

/// The place `step` behind `place`, in the circle.
#[inline(always)]
fn after(place: usize, step: usize) -> usize {
    let at = place + step;
    if at >= PLACES as usize { at - PLACES as usize } else { at }
}

impl Entry {
    /// Whether the words of its key are these, at this moment.
    #[inline(always)]
    fn is_at(&self, words: [u64; 2]) -> bool {
        let key = self.key();
        (key[0] ^ words[0]) | (key[1] ^ words[1]) == 0
    }

    /// What it shows, if that is whole and of this key.
    #[inline(always)]
    fn seen(&self, words: [u64; 2], wanted: Meta) -> Option<Seen<'_>> {
        let ctl = self.load();
        let is_key = self.is_at(words) && self.meta() == wanted && ctl.state() == FULL;
        let slot = self.slot(ctl.side());
        (is_key && self.is_still(ctl) && ctl.is_sound(slot)).then_some(Seen { entry: self, ctl, slot })
    }
}

impl Store {
    #[inline(always)]
    pub(super) fn root(&self) -> &Root {
        self.at(self.control).expect("the control part begins with the root")
    }

    #[inline(always)]
    pub(super) fn shard_at(&self, index: u32) -> &Shard {
        let offset = self.control + super::layout::ROOT_BYTES + u64::from(index) * super::layout::SHARD_BYTES;
        self.at(offset).expect("the control part holds the shards")
    }

    #[inline(always)]
    pub(super) fn index_for(&self, hash: u64) -> u32 {
        match self.options.shards {
            1 => 0,
            shards => key::shard(hash, shards),
        }
    }

    #[inline(always)]
    pub(super) fn shard_for(&self, hash: u64) -> &Shard {
        self.shard_at(self.index_for(hash))
    }

    #[inline(always)]
    pub(super) fn directory(&self, shard: &Shard) -> Result<Directory, Error> {
        let word = open(shard.directory.load(Ordering::Acquire));
        let word = word.ok_or_else(|| damaged("the root of an index", self.control))?;
        Ok(Directory { offset: word & !63, depth: (word & 63) as u32 })
    }

    /// Offset of the page that a directory names for a path.
    #[inline(always)]
    pub(super) fn page_in(&self, directory: Directory, path: u64) -> Result<u64, Error> {
        let offset = directory.word(path & ((1 << directory.depth) - 1));
        let word = self.at::<Word>(offset).and_then(|w| open(w.0.load(Ordering::Acquire)));
        word.ok_or_else(|| damaged("a word of a directory", offset))
    }

    #[inline(always)]
    pub(super) fn page_at(&self, offset: u64) -> Result<&Page, Error> {
        self.at(offset).ok_or_else(|| damaged("the place of a page", offset))
    }

    /// The page for a key, found through the directory.
    #[inline(always)]
    pub(super) fn page_for(&self, hash: u64) -> Result<(u64, &Page), Error> {
        let directory = self.directory(self.shard_for(hash))?;
        let offset = self.page_in(directory, key::path(hash))?;
        Ok((offset, self.page_at(offset)?))
    }

    /// The entry of a short key in the first checkpoint, if it is there and nothing stands in the way; else `find` says
    /// what does. Most reads and writes end here.
    ///
    /// The words that lead here are not checked: only the key's own entry has its key, its checkpoint and a sound
    /// `ctl`, wherever it was found; and after a miss `find` looks at everything.
    #[inline(always)]
    pub(crate) fn hit(&self, key: ShortKey, hash: u64, checkpoint: u32) -> Option<Seen<'_>> {
        let flags = self.root().flags.load(Ordering::Relaxed) & (DESTROYED | RETIRED | ELSEWHERE);
        if flags | u64::from(checkpoint) != 0 {
            return None;
        }
        let directory = self.shard_for(hash).directory.load(Ordering::Acquire) & OFFSET;
        let index = key::path(hash) & ((1 << (directory & 63)) - 1);
        let word = self.at::<Word>((directory & !63) + 64 + index * 8)?;
        let page = self.at::<Page>(word.0.load(Ordering::Acquire) & OFFSET)?;
        let (wanted, words) = (Meta::new(0, key.len(), key.words()), key.words());
        // The key is at its place or the next one almost always; which of both is no branch, since it is a lottery.
        let place = key::place(hash) as usize;
        let near = page.entries.get(after(place, usize::from(!page.entries.get(place)?.is_at(words))))?;
        if let Some(seen) = near.seen(words, wanted) {
            return Some(seen);
        }
        for step in 0..PLACES as usize {
            let entry = page.entries.get(after(place, step))?;
            if let Some(seen) = entry.seen(words, wanted) {
                return Some(seen);
            }
            if entry.load().state() == EMPTY {
                return None;
            }
        }
        None
    }

    /// The entry of a key.
    #[inline(always)]
    pub(super) fn find(&self, key: &Key<'_>, which: Which) -> Result<Option<Seen<'_>>, Error> {
        let (_, page) = self.page_for(key.hash)?;
        match self.probe(page, key, which)? {
            Some(seen) => Ok(Some(seen)),
            None => self.find_further(page, key, which),
        }
    }

    /// After a miss: whether the page was the right one, and whole.
    #[inline(never)]
    fn find_further<'s>(
        &'s self,
        mut page: &'s Page,
        key: &Key<'_>,
        which: Which,
    ) -> Result<Option<Seen<'s>>, Error> {
        for _ in 0..TRIES_MAX {
            if self.covers(page, key.hash)? {
                self.verify(page, key)?;
                return Ok(None);
            }
            page = self.next_page(page, key.hash)?;
            if let Some(seen) = self.probe(page, key, which)? {
                return Ok(Some(seen));
            }
        }
        Err(damaged("the directory of an index", self.control))
    }

    pub(super) fn covers(&self, page: &Page, hash: u64) -> Result<bool, Error> {
        let cover = page.cover().ok_or_else(|| damaged("the head of a page", self.offset_of(page)))?;
        Ok(cover.covers(key::path(hash)))
    }

    /// The page to look into when `page`, found a while ago, does not cover the hash any more: the one that the
    /// directory names now, or, while whoever splits the page has not entered it there, the one it made.
    pub(super) fn next_page(&self, page: &Page, hash: u64) -> Result<&Page, Error> {
        let (_, now) = self.page_for(hash)?;
        if !std::ptr::eq(now, page) {
            return Ok(now);
        }
        let sibling = page.sibling().ok_or_else(|| damaged("the head of a page", self.offset_of(page)))?;
        self.page_at(sibling)
    }

    pub(super) fn offset_of<T>(&self, thing: &T) -> u64 {
        let base = std::ptr::from_ref(self.root()) as u64;
        (std::ptr::from_ref(thing) as u64).wrapping_sub(base).wrapping_add(self.control)
    }

    #[inline(always)]
    pub(super) fn probe<'s>(
        &'s self,
        page: &'s Page,
        key: &Key<'_>,
        which: Which,
    ) -> Result<Option<Seen<'s>>, Error> {
        match which {
            // Nothing is older than the first checkpoint.
            Which::At(checkpoint) | Which::Seen(checkpoint @ 0) => self.probe_at(page, key, checkpoint),
            Which::Seen(checkpoint) => self.probe_seen(page, key, checkpoint),
        }
    }

    #[inline(always)]
    fn probe_at<'s>(
        &'s self,
        page: &'s Page,
        key: &Key<'_>,
        checkpoint: u32,
    ) -> Result<Option<Seen<'s>>, Error> {
        let place = key::place(key.hash);
        // With its check, so that no flipped bit makes another key this one. That of a long key has its block in it.
        let wanted = Meta::new(checkpoint, key.bytes.len() as u64, key.words).0;
        let ignored = if key.is_inline() { 0 } else { 16 };
        for step in 0..PLACES {
            let entry = page.entry(place, step);
            loop {
                let ctl = entry.load();
                if ctl.state() != FULL {
                    if ctl.state() == EMPTY {
                        return Ok(None);
                    }
                    break;
                }
                if entry.meta().0 << ignored != wanted << ignored || !self.is_key(entry, key) {
                    break;
                }
                let slot = entry.slot(ctl.side());
                if entry.is_still(ctl) {
                    return self.sound(entry, ctl, slot).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// The newest entry of the key that the checkpoint sees: of a persistent value any that is not newer, of another
    /// one its own. Goes through the whole chain.
    #[inline(never)]
    fn probe_seen<'s>(
        &'s self,
        page: &'s Page,
        key: &Key<'_>,
        checkpoint: u32,
    ) -> Result<Option<Seen<'s>>, Error> {
        let place = key::place(key.hash);
        let mut best: Option<(u32, Seen<'s>)> = None;
        for step in 0..PLACES {
            let entry = page.entry(place, step);
            let Some((at, seen)) = self.look(entry, Some(key))? else {
                if entry.load().state() == EMPTY {
                    break;
                }
                continue;
            };
            let counts = at == checkpoint || at < checkpoint && seen.ctl.is_persistent();
            if counts && best.is_none_or(|(older, _)| older < at) {
                best = Some((at, seen));
            }
        }
        Ok(best.map(|(_, seen)| seen).filter(Seen::has_value))
    }

    /// What an entry shows if it is full (and, given a key, has that one), and its checkpoint.
    pub(super) fn look<'s>(
        &'s self,
        entry: &'s Entry,
        key: Option<&Key<'_>>,
    ) -> Result<Option<(u32, Seen<'s>)>, Error> {
        loop {
            let ctl = entry.load();
            let (meta, slot) = (entry.meta(), entry.slot(ctl.side()));
            let is_meant =
                key.is_none_or(|k| meta.key_len() == k.bytes.len() as u64 && self.is_key(entry, k));
            let is_meant = is_meant && (key.is_none() || meta.is_sound(entry.key()));
            if !entry.is_still(ctl) {
                continue;
            }
            if ctl.state() != FULL || !is_meant {
                return Ok(None);
            }
            return Ok(Some((meta.checkpoint(), self.sound(entry, ctl, slot)?)));
        }
    }

    /// Whether the entry has the key; its length was compared. Holds only if the entry is still the same afterwards.
    #[inline(always)]
    fn is_key(&self, entry: &Entry, key: &Key<'_>) -> bool {
        let words = entry.key();
        if key.is_inline() {
            words == key.words
        } else {
            words[1] == key.hash && self.is_long_key(words[0], key.bytes)
        }
    }

    #[inline(never)]
    fn is_long_key(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(words) = self.segment.slice::<Word>(offset, bytes.len().div_ceil(8) as u64) else {
            return false;
        };
        words
            .iter()
            .zip(bytes.chunks(8))
            .all(|(word, chunk)| word.0.load(Ordering::Relaxed).to_le_bytes()[..chunk.len()] == *chunk)
    }

    #[inline(always)]
    fn sound<'s>(&self, entry: &'s Entry, ctl: Ctl, slot: Slot) -> Result<Seen<'s>, Error> {
        if ctl.is_sound(slot) && ctl.form() <= REMOVED {
            Ok(Seen { entry, ctl, slot })
        } else {
            Err(damaged("an entry", self.offset_of(entry)))
        }
    }

    /// Whether the entries that a key was looked for in, in vain, are as somebody wrote them.
    fn verify(&self, page: &Page, key: &Key<'_>) -> Result<(), Error> {
        for step in 0..PLACES {
            let entry = page.entry(key::place(key.hash), step);
            let ctl = self.verify_entry(entry)?;
            if ctl.state() == EMPTY {
                break;
            }
            self.verify_long_key(entry, ctl, key)?;
        }
        Ok(())
    }

    /// Whether a key in a block, that has the hash of the one that was not found, is as somebody wrote it.
    fn verify_long_key(&self, entry: &Entry, ctl: Ctl, key: &Key<'_>) -> Result<(), Error> {
        let (words, len) = (entry.key(), entry.meta().key_len());
        if ctl.state() != FULL || len <= INLINE_MAX as u64 || words[1] != key.hash {
            return Ok(());
        }
        let is_sound = self.copied(words[0], len).is_some_and(|bytes| self.is_hash_of(words[1], &bytes));
        if is_sound || !entry.is_still(ctl) {
            return Ok(());
        }
        Err(damaged("a key", self.offset_of(entry)))
    }

    /// Whether these bytes have this hash.
    pub(super) fn is_hash_of(&self, hash: u64, bytes: &[u8]) -> bool {
        Key::new(bytes, self.seed).is_ok_and(|key| key.hash == hash)
    }

    pub(super) fn verify_entry(&self, entry: &Entry) -> Result<Ctl, Error> {
        loop {
            let ctl = entry.load();
            let (meta, key, slot) = (entry.meta(), entry.key(), entry.slot(ctl.side()));
            if !entry.is_still(ctl) {
                continue;
            }
            let is_sound =
                ctl.is_sound(slot) && (ctl.state() != FULL || meta.is_sound(key)) && ctl.state() <= 2;
            return is_sound.then_some(ctl).ok_or_else(|| damaged("an entry", self.offset_of(entry)));
        }
    }

    /// The block of a value, if it has one.
    pub(super) fn block_of(ctl: Ctl, slot: Slot) -> Option<u64> {
        (ctl.state() == FULL && ctl.form() == BLOCK).then(|| slot.offset())
    }
}
