//! The dictionary of bytes: keys and values as they lie in shared memory. Encodings and types are the handle's matter.
//!
//! In reading order: `layout` (what lies where), `key` (hashes), `entry` (a key's line, and the protocol of it),
//! `page`, `lookup` (reading), `tally` (hits), `value` (bytes and pins), `write`, `split` (growing), `checkpoint`,
//! `wait`, `scan`, `copies` (of keys, on other nodes), `exact` (writes that repeat those of another store), `spot`
//! (where other nodes read); and `intent` with `settle`: how nothing is lost when a process is killed.

mod checkpoint;
mod copies;
mod create;
mod entry;
mod exact;
mod figures;
mod intent;
mod key;
mod layout;
mod lookup;
mod page;
mod patience;
mod probe;
mod scan;
mod settle;
mod split;
mod spot;
mod tally;
mod value;
mod wait;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use exact::Exact;
pub(crate) use key::ShortKey;
pub(crate) use layout::SHARDS_MAX;
pub(crate) use lookup::Seen;
pub(crate) use spot::Spot;
pub(crate) use value::{Buffer, Pinned};
pub(crate) use wait::Watch;

use crate::error::Error;
use entry::{BLOCK, INLINE_MAX, REMOVED as REMOVED_FORM};
use key::Key;
use layout::{DESTROYED, FROZEN};
use lookup::Which;
use patience::Patience;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tarragon_transport::agent::Agent;
use tarragon_transport::segment::{Mapping, Segment, SegmentName};
use value::Fresh;

/// The longest key, in encoded bytes.
pub(crate) const KEY_BYTES_MAX: usize = (1 << 16) - 1;

/// What a dictionary is made with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Options {
    /// The most bytes its heap may grow to (index and values).
    pub(crate) memory_bytes: u64,
    /// Parts that have their own index.
    pub(crate) shards: u32,
    /// Whether a key that is not there is waited for, and must be written anew in each checkpoint.
    pub(crate) wait_for_keys: bool,
    /// Checkpoints that are kept, at least 1.
    pub(crate) working_set: u32,
    /// How long a wait may last if the caller does not say.
    pub(crate) timeout_ms: Option<u64>,
    /// Whether values beyond `CHECKSUM_BYTES_MAX` have checksums too.
    pub(crate) checksums: bool,
    /// Hash of the names and encodings of the types of keys and values.
    pub(crate) types: u64,
    /// What hashes begin with, if that must be the same as another store's.
    pub(crate) seed: Option<u64>,
    /// Nodes that keep each key.
    pub(crate) replicas: u32,
}

/// When a put writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum When {
    /// Whatever is there.
    Always,
    /// Only if the key is not there.
    Absent,
    /// Whatever is there, by who gives the key copies (see `copies`).
    Copied,
}

/// How a value is kept over checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Keep {
    /// As the dictionary's `wait_for_keys` says: with it in this checkpoint only, else carried forward.
    Default,
    /// Carried forward to later checkpoints (`pput`).
    Persistent,
}

/// What `Store::update` does with what it was shown.
pub(crate) enum Change {
    /// Nothing.
    Leave,
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Writes the first bytes of these, as many as the number says: no memory is allocated.
    Short([u8; 16], u8),
    /// Takes the key out.
    Remove,
}

/// How full it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ShardFigures {
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
    pub(crate) pages: u64,
    pub(crate) hits: u64,
    pub(crate) waits: u64,
}

/// A dictionary of bytes, mapped. `Send + Sync`; one per process and dictionary (clones of an `Arc`).
pub(crate) struct Store {
    segment: Arc<Segment>,
    /// Of the segment.
    mapping: Mapping,
    is_light: bool,
    options: Options,
    /// Offset of the control part.
    control: u64,
    seed: u64,
    /// No agent was to be had to count hits in.
    is_uncounted: AtomicBool,
    /// Who is asked before a key that has copies is changed, see `copies`.
    give_up: Option<copies::GiveUp>,
}

fn damaged(what: &'static str, offset: u64) -> Error {
    Error::Damaged { what, offset }
}

impl Store {
    /// Its memory.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(crate) fn name(&self) -> &SegmentName {
        self.segment.name()
    }

    /// What it was made with.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Whether it was not destroyed.
    pub(crate) fn is_there(&self) -> bool {
        self.admit().is_ok()
    }

    /// Whether it still is.
    #[inline(always)]
    fn admit(&self) -> Result<(), Error> {
        if self.root().flags.load(Ordering::Relaxed) & DESTROYED == 0 { Ok(()) } else { Err(self.gone()) }
    }

    #[inline(always)]
    fn admit_read(&self, checkpoint: u32) -> Result<(), Error> {
        let root = self.root();
        let is_gone = root.flags.load(Ordering::Relaxed) & DESTROYED != 0;
        if is_gone || u64::from(checkpoint) < root.oldest.load(Ordering::Relaxed) {
            return Err(if is_gone { self.gone() } else { self.retired(checkpoint) });
        }
        Ok(())
    }

    /// Whether it may be written to; the first write to a checkpoint makes it the newest.
    #[inline(always)]
    fn admit_write(&self, agent: &Agent<'_>, checkpoint: u32) -> Result<(), Error> {
        self.admit_read(checkpoint)?;
        self.admit_locked()?;
        if u64::from(checkpoint) > self.root().newest.load(Ordering::Relaxed) {
            self.advance(agent, checkpoint)?;
        }
        Ok(())
    }

    /// Whether it may be written to, asked once more by who has a lock.
    #[inline(always)]
    fn admit_locked(&self) -> Result<(), Error> {
        match self.root().flags.load(Ordering::Relaxed) & (DESTROYED | FROZEN) {
            0 => Ok(()),
            flags if flags & DESTROYED != 0 => Err(self.gone()),
            _ => Err(Error::Frozen { name: self.name().file.clone() }),
        }
    }

    #[cold]
    fn gone(&self) -> Error {
        Error::Gone { name: self.name().file.clone() }
    }

    #[cold]
    fn retired(&self, checkpoint: u32) -> Error {
        let oldest = self.root().oldest.load(Ordering::Relaxed) as u32;
        Error::Retired { checkpoint, oldest, kept: self.options.working_set }
    }

    /// The hash of a short key.
    #[inline(always)]
    pub(crate) fn hash(&self, key: ShortKey) -> u64 {
        key.hash(self.seed)
    }

    /// Gives a short key that is there, with a value in its entry, another one that fits there, if nothing stands in
    /// the way; else nothing is done, and `put` says what does.
    #[inline(always)]
    pub(crate) fn put_short(&self, key: ShortKey, checkpoint: u32, value: &[u8], keep: Keep) -> bool {
        let hash = self.hash(key);
        let Some(seen) = self.hit(key, hash, checkpoint) else { return false };
        self.put_seen(&seen, hash, value, keep)
    }

    /// The same for an entry as it was seen: false if it changed meanwhile.
    #[inline(always)]
    pub(crate) fn put_seen(&self, seen: &Seen<'_>, hash: u64, value: &[u8], keep: Keep) -> bool {
        let Some(agent) = self.segment.recent_agent().filter(|_| !self.is_asked_first(hash)) else {
            return false;
        };
        let is_done = self.replace_fast(&agent, seen, value, keep);
        if is_done {
            self.wake(hash);
        }
        is_done
    }

    /// Shows the value of a key to `read`, if it is there. The bytes are 64-byte aligned if they are more than 16.
    /// `read` is called once. Counted as a hit.
    pub(crate) fn get<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let key = Key::new(key, self.seed)?;
        let mut read = read;
        self.admit_read(checkpoint)?;
        loop {
            let Some(seen) = self.find(&key, Which::Seen(checkpoint))? else { return Ok(None) };
            let form = seen.ctl.form();
            if form <= INLINE_MAX as u64 {
                self.count_hit(key.hash);
                return Ok(Some(read(&seen.slot.bytes()[..form as usize])));
            }
            if form != BLOCK {
                return Ok(None);
            }
            match self.show(&seen, read)? {
                Ok(shown) => {
                    self.count_hit(key.hash);
                    return Ok(Some(shown));
                }
                Err(again) => read = again,
            }
        }
    }

    /// The value in place. Counted as a hit.
    pub(crate) fn pin(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        let key = Key::new(key, self.seed)?;
        let Some((pinned, _)) = self.pin_with(&key, checkpoint)? else { return Ok(None) };
        self.count_hit(key.hash);
        Ok(Some(pinned))
    }

    /// The value in place, and how it is kept, for who goes through all of them: no hit.
    pub(crate) fn peek(&self, key: &[u8], checkpoint: u32) -> Result<Option<(Pinned<'_>, Keep)>, Error> {
        let key = Key::new(key, self.seed)?;
        let keep = |seen: Seen<'_>| if seen.ctl.is_persistent() { Keep::Persistent } else { Keep::Default };
        Ok(self.pin_with(&key, checkpoint)?.map(|(pinned, seen)| (pinned, keep(seen))))
    }

    /// As `pin`, and compares the checksum; an error if it is not that of the value as it was put. A value without
    /// one (see `Options::checksums`) passes.
    pub(crate) fn pin_verified(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        let short = Key::new(key, self.seed)?;
        let Some((pinned, seen)) = self.pin_with(&short, checkpoint)? else { return Ok(None) };
        if self.checksum_of(&seen).is_some_and(|sum| sum != Self::checksum(&pinned)) {
            return Err(Error::Checksum { key: String::from_utf8_lossy(key).into_owned() });
        }
        self.count_hit(short.hash);
        Ok(Some(pinned))
    }

    fn pin_with(&self, key: &Key<'_>, checkpoint: u32) -> Result<Option<(Pinned<'_>, Seen<'_>)>, Error> {
        self.admit_read(checkpoint)?;
        loop {
            let found = self.find(key, Which::Seen(checkpoint))?;
            let Some(seen) = found.filter(Seen::has_value) else { return Ok(None) };
            if let Some(pinned) = self.pin_seen(&seen)? {
                return Ok(Some((pinned, seen)));
            }
        }
    }

    /// Whether the key is there.
    pub(crate) fn contains(&self, key: &[u8], checkpoint: u32) -> Result<bool, Error> {
        self.admit_read(checkpoint)?;
        let key = Key::new(key, self.seed)?;
        Ok(self.find(&key, Which::Seen(checkpoint))?.is_some_and(|seen| seen.has_value()))
    }

    /// Writes; whether it did (`When`).
    pub(crate) fn put(
        &self,
        key: &[u8],
        checkpoint: u32,
        value: &[u8],
        when: When,
        keep: Keep,
    ) -> Result<bool, Error> {
        let agent = self.segment.agent()?;
        let key = Key::new(key, self.seed)?;
        self.admit_write(&agent, checkpoint)?;
        let mut fresh = self.fresh(&agent, value)?;
        self.put_fresh(&agent, &key, checkpoint, &mut fresh, when, keep)
    }

    /// Writes a value of `len` bytes that `fill` makes in place. If `fill` panics or fails nothing is written.
    pub(crate) fn put_with<E>(
        &self,
        key: &[u8],
        checkpoint: u32,
        len: u64,
        keep: Keep,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let agent = self.segment.agent()?;
        let key = Key::new(key, self.seed)?;
        self.admit_write(&agent, checkpoint)?;
        match self.fresh_with(&agent, len, fill)? {
            Ok(mut fresh) => {
                self.put_fresh(&agent, &key, checkpoint, &mut fresh, When::Always, keep).map(|_| Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    #[inline(always)]
    fn put_fresh<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        key: &Key<'_>,
        checkpoint: u32,
        fresh: &mut Fresh<'s>,
        when: When,
        keep: Keep,
    ) -> Result<bool, Error> {
        let mut patience = Patience::default();
        loop {
            if when == When::Absent
                && self.find(key, Which::Seen(checkpoint))?.is_some_and(|seen| seen.has_value())
            {
                return Ok(false);
            }
            let done = match self.find(key, Which::At(checkpoint))? {
                Some(seen) if when == When::Absent && seen.has_value() => return Ok(false),
                Some(seen) => self.replace(agent, &seen, fresh, keep, &mut patience, when)?,
                None => self.insert(agent, key, checkpoint, fresh, keep, when)?,
            };
            if done {
                break;
            }
        }
        self.wake(key.hash);
        Ok(true)
    }

    /// Shows the value to `change` and does what it says, as one step: nobody writes the key in between. `change` may
    /// be called again if the key changed meanwhile, and sees the newest value.
    pub(crate) fn update(
        &self,
        key: &[u8],
        checkpoint: u32,
        change: &mut dyn FnMut(Option<&[u8]>) -> Change,
    ) -> Result<(), Error> {
        let agent = self.segment.agent()?;
        let key = Key::new(key, self.seed)?;
        let mut patience = Patience::default();
        loop {
            self.admit_write(&agent, checkpoint)?;
            let found = self.find(&key, Which::Seen(checkpoint))?;
            let value = match &found {
                Some(seen) if seen.has_value() => match self.pin_seen(seen)? {
                    Some(value) => Some(value),
                    None => continue,
                },
                _ => None,
            };
            let mut fresh = match change(value.as_deref()) {
                Change::Leave => return Ok(()),
                Change::Remove => {
                    let (seen, when) = (found.as_ref(), When::Always);
                    if self.remove_seen(&agent, &key, checkpoint, seen, &mut patience, when)?.is_some() {
                        return Ok(());
                    }
                    continue;
                }
                Change::Write(bytes) => self.fresh(&agent, &bytes)?,
                Change::Short(bytes, len) => self.fresh(&agent, &bytes[..usize::from(len)])?,
            };
            // An older checkpoint's value stays, and this one gets an entry of its own.
            let own = match found.filter(|seen| seen.entry.meta().checkpoint() == checkpoint) {
                Some(own) => Some(own),
                None => match self.find(&key, Which::At(checkpoint))? {
                    // Written since the look.
                    Some(own) if own.has_value() => continue,
                    removed => removed,
                },
            };
            let done = match own {
                Some(seen) => {
                    self.replace(&agent, &seen, &mut fresh, Keep::Default, &mut patience, When::Always)?
                }
                None => self.insert(&agent, &key, checkpoint, &mut fresh, Keep::Default, When::Always)?,
            };
            if done {
                self.wake(key.hash);
                return Ok(());
            }
        }
    }

    /// Takes the key out and shows its last value to `read`.
    pub(crate) fn remove<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        self.remove_when(key, checkpoint, When::Always, read)
    }

    /// The same, for who gives keys copies too (see `When`).
    pub(crate) fn remove_when<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        when: When,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let agent = self.segment.agent()?;
        let key = Key::new(key, self.seed)?;
        let mut patience = Patience::default();
        loop {
            self.admit_write(&agent, checkpoint)?;
            let found = self.find(&key, Which::Seen(checkpoint))?.filter(Seen::has_value);
            if found.is_none() {
                return Ok(None);
            }
            if let Some(value) =
                self.remove_seen(&agent, &key, checkpoint, found.as_ref(), &mut patience, when)?
            {
                return Ok(Some(read(&value)));
            }
        }
    }

    /// Removes a key as it was seen; its last value. `None`: it changed meanwhile, look again.
    fn remove_seen<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        key: &Key<'_>,
        checkpoint: u32,
        found: Option<&Seen<'s>>,
        patience: &mut Patience,
        when: When,
    ) -> Result<Option<Pinned<'s>>, Error> {
        let Some(seen) = found else { return Ok(Some(Pinned::empty())) };
        if when != When::Copied && self.is_copied(key.hash) {
            return self.give_up(key.hash).map(|()| None);
        }
        if self.root().newest.load(Ordering::Relaxed) > 0 {
            return self.remove_later(agent, key, checkpoint, seen, patience, when);
        }
        let taken = {
            let locked = self.lock_page(agent, key.hash)?;
            match self.probe(locked.page, key, Which::At(checkpoint))? {
                Some(now) if now.ctl.same(seen.ctl) && std::ptr::eq(now.entry, seen.entry) => {
                    self.take_out(agent, &locked, &now, patience)?
                }
                _ => None,
            }
        };
        self.segment.reclaim_if_due(agent);
        Ok(taken)
    }

    /// The same where several checkpoints are kept: the entry of this one says that the key was removed.
    fn remove_later<'s>(
        &'s self,
        agent: &'s Agent<'s>,
        key: &Key<'_>,
        checkpoint: u32,
        seen: &Seen<'s>,
        patience: &mut Patience,
        when: When,
    ) -> Result<Option<Pinned<'s>>, Error> {
        let Some(value) = self.pin_seen(seen)? else { return Ok(None) };
        let mut removed = Self::removed(agent);
        let done = if seen.entry.meta().checkpoint() == checkpoint {
            self.replace(agent, seen, &mut removed, Keep::Persistent, patience, when)?
        } else {
            self.insert(agent, key, checkpoint, &mut removed, Keep::Persistent, when)?
        };
        Ok(done.then_some(value))
    }

    /// Takes all keys that the checkpoint sees out.
    pub(crate) fn clear(&self, checkpoint: u32) -> Result<(), Error> {
        // Also where there is nothing to take out: it is a write.
        self.admit_write(&self.segment.agent()?, checkpoint)?;
        for shard in 0..self.options.shards {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                let (listed, next) = self.list_page(shard, at)?;
                for one in listed {
                    self.remove(&one.bytes, checkpoint, |_| ())?;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// The hash of any key.
    #[inline]
    pub(crate) fn hash_of_key(&self, key: &[u8]) -> u64 {
        Key::new(key, self.seed).map_or(0, |key| key.hash)
    }

    /// Which shard a key belongs to.
    pub(crate) fn shard_of(&self, key: &[u8]) -> u32 {
        Key::new(key, self.seed).map_or(0, |key| key::shard(key.hash, self.options.shards))
    }

    /// Stops, or allows, writes. Once it is frozen, no write is under way any more.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        self.admit()?;
        let flags = &self.root().flags;
        if !frozen {
            flags.fetch_and(!FROZEN, Ordering::SeqCst);
            return Ok(());
        }
        flags.fetch_or(FROZEN, Ordering::SeqCst);
        // Who has a lock now may have looked at the flag before; who locks later looks afterwards.
        self.segment.fence_all();
        let agent = self.segment.agent()?;
        for shard in 0..self.options.shards {
            self.each_page(shard, &mut |offset, page| {
                drop(self.lock_this(&agent, offset, page));
                let mut patience = Patience::default();
                for entry in &page.entries {
                    while entry.load().owner().0 != 0 {
                        patience.wait(self, entry, entry.load())?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.root().flags.load(Ordering::Relaxed) & FROZEN != 0
    }

    /// Ends it for everybody: all waiting and all later operations fail with `Gone`.
    pub(crate) fn destroy(&self) {
        self.root().flags.fetch_or(DESTROYED, Ordering::SeqCst);
        self.segment.unlink();
        self.wake_everybody();
    }

    /// Finishes or undoes what dead processes left; how many threads of theirs.
    pub(crate) fn recover(&self) -> usize {
        self.segment.recover(self)
    }
}
