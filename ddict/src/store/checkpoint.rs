//! Checkpoints: which are kept, and what goes with one that retires.
//!
//! An entry bears the checkpoint it was written in. A checkpoint sees its own entries, and persistent ones of any older
//! checkpoint, the newest first. The root has the newest checkpoint anybody wrote to and the oldest that is kept; the
//! first write to a newer one moves both, under the root's lock, and sweeps: entries that no kept checkpoint sees go.
//! Killed in the middle of a sweep, it leaves entries that nobody sees until the next one.

use super::entry::FULL;
use super::layout::RETIRED;
use super::lookup::Seen;
use super::page::Page;
use super::patience::Patience;
use super::{REMOVED_FORM, Store};
use crate::error::Error;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tarragon_transport::agent::Agent;

/// How long who waits for keys sleeps before it looks again.
const NAP: Duration = Duration::from_millis(1);

/// An entry of a page, and whose it is.
struct Version<'s> {
    key: Vec<u8>,
    checkpoint: u32,
    seen: Seen<'s>,
}

impl Store {
    /// Makes `checkpoint` the newest. With `wait_for_keys`, waits until every key of those that retire was written
    /// anew, at most for the dictionary's timeout.
    #[cold]
    pub(super) fn advance(&self, agent: &Agent<'_>, checkpoint: u32) -> Result<(), Error> {
        let began = Instant::now();
        while let Some(key) = self.advance_now(agent, checkpoint)? {
            self.be_patient(began, &key)?;
        }
        Ok(())
    }

    /// Makes `checkpoint` the newest, or returns a key that must be written anew first.
    pub(crate) fn try_advance(&self, checkpoint: u32) -> Result<Option<Vec<u8>>, Error> {
        let agent = self.segment.agent()?;
        self.admit_read(checkpoint)?;
        self.admit_locked()?;
        if u64::from(checkpoint) <= self.root().newest.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.advance_now(&agent, checkpoint)
    }

    /// Makes `checkpoint` the newest, as another store with the same keys has done.
    pub(crate) fn follow(&self, checkpoint: u32) -> Result<(), Error> {
        let agent = self.segment.agent()?;
        self.admit()?;
        self.turn_to(&agent, checkpoint, false).map(drop)
    }

    fn advance_now(&self, agent: &Agent<'_>, checkpoint: u32) -> Result<Option<Vec<u8>>, Error> {
        self.turn_to(agent, checkpoint, self.options.wait_for_keys)
    }

    /// `waits`: keys that retire must be written anew first.
    fn turn_to(&self, agent: &Agent<'_>, checkpoint: u32, waits: bool) -> Result<Option<Vec<u8>>, Error> {
        let root = self.root();
        let limit = checkpoint.saturating_sub(self.options.working_set.saturating_sub(1));
        root.turn.lock(agent, self);
        if root.newest.load(Ordering::Relaxed) >= u64::from(checkpoint) {
            root.turn.unlock(agent);
            return self.admit_read(checkpoint).map(|()| None);
        }
        let missing = if waits { self.missing(limit) } else { Ok(None) };
        if !matches!(missing, Ok(None)) {
            root.turn.unlock(agent);
            return missing;
        }
        let is_retiring = u64::from(limit) > root.oldest.load(Ordering::Relaxed);
        root.newest.store(u64::from(checkpoint), Ordering::SeqCst);
        if is_retiring {
            root.flags.fetch_or(RETIRED, Ordering::SeqCst);
            root.oldest.store(u64::from(limit), Ordering::SeqCst);
        }
        let swept = if is_retiring { self.sweep(agent, limit) } else { Ok(()) };
        root.turn.unlock(agent);
        swept.map(|()| None)
    }

    fn be_patient(&self, began: Instant, key: &[u8]) -> Result<(), Error> {
        self.admit_locked()?;
        let waited_ms = began.elapsed().as_millis() as u64;
        if self.options.timeout_ms.is_some_and(|max| waited_ms >= max) {
            return Err(Error::Timeout { key: String::from_utf8_lossy(key).into_owned(), waited_ms });
        }
        std::thread::sleep(NAP);
        Ok(())
    }

    /// A key of a checkpoint below `limit` that is not persistent and has no newer entry.
    fn missing(&self, limit: u32) -> Result<Option<Vec<u8>>, Error> {
        let oldest = self.root().oldest.load(Ordering::Relaxed) as u32;
        let mut missing = None;
        for shard in 0..self.options.shards {
            self.each_page(shard, &mut |_, page| {
                let versions = self.versions(page)?;
                for (i, version) in versions.iter().enumerate() {
                    let is_last = versions.get(i + 1).is_none_or(|next| next.key != version.key);
                    let retires = (oldest..limit).contains(&version.checkpoint);
                    if retires && is_last && !version.seen.ctl.is_persistent() {
                        missing = Some(version.key.clone());
                    }
                }
                Ok(())
            })?;
        }
        Ok(missing)
    }

    /// Takes out what no checkpoint from `limit` on sees.
    fn sweep(&self, agent: &Agent<'_>, limit: u32) -> Result<(), Error> {
        for shard in 0..self.options.shards {
            self.each_page(shard, &mut |offset, page| {
                let locked = self.lock_this(agent, offset, page);
                let versions = self.versions(page)?;
                for (i, version) in versions.iter().enumerate() {
                    if is_unseen(&versions, i, limit) {
                        let mut patience = Patience::default();
                        // An entry that a writer of an old checkpoint changes just now goes with the next sweep.
                        self.take_out(agent, &locked, &version.seen, &mut patience)?;
                    }
                }
                drop(locked);
                self.segment.reclaim_if_due(agent);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The full entries of a page, by key and checkpoint.
    fn versions<'s>(&'s self, page: &'s Page) -> Result<Vec<Version<'s>>, Error> {
        let mut versions = Vec::new();
        for entry in page.entries.iter().filter(|entry| entry.load().state() == FULL) {
            let Some((checkpoint, seen)) = self.look(entry, None)? else { continue };
            let key = self.key_of(&seen);
            if let Some(key) = key.filter(|_| entry.is_still(seen.ctl)) {
                versions.push(Version { key, checkpoint, seen });
            }
        }
        versions.sort_unstable_by(|a, b| (&a.key, a.checkpoint).cmp(&(&b.key, b.checkpoint)));
        Ok(versions)
    }
}

/// Whether no checkpoint from `limit` on sees the version at `i`.
fn is_unseen(versions: &[Version<'_>], i: usize, limit: u32) -> bool {
    let version = &versions[i];
    if version.checkpoint >= limit {
        // A removal hides nothing once everything older is gone.
        let is_first = i == 0 || versions[i - 1].key != version.key;
        return version.checkpoint == limit && version.seen.ctl.form() == REMOVED_FORM && is_first;
    }
    if !version.seen.ctl.is_persistent() || version.seen.ctl.form() == REMOVED_FORM && is_oldest(versions, i)
    {
        return true;
    }
    let mut newer = versions[i + 1..].iter().take_while(|next| next.key == version.key);
    newer.any(|next| next.checkpoint <= limit && next.seen.ctl.is_persistent())
}

fn is_oldest(versions: &[Version<'_>], i: usize) -> bool {
    i == 0 || versions[i - 1].key != versions[i].key
}
