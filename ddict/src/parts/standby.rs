//! A replica of another node's part: takes that part's writes before its home shows them, and answers nobody else.
//!
//! It is a store with the settings of the part, whose server alone tells it what to do (see `replicas`). A write bears
//! a *version*; the home has one write of a key under way at a time, so of one key they come in their order, whatever
//! becomes of the order of others. A version is done once: those that the home has not called settled are remembered,
//! which is also what another home compares among replicas before it goes on (`succession`).
//!
//! A replica that could not take back what it had to take back has fallen behind. It knows that before its home does,
//! and never takes the part over.

use super::message::{self, Change, REPLICATED, Recent, Replicated, Whole, WriteHead};
use super::past::Past;
use super::serve::{is, lock, with_value};
use crate::error::Error;
use crate::store::{Exact, Options, Store, When};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tarragon_transport::{Fabric, Rank};

/// What a replica may hold beyond its part, so that what the part has room for it has too, and what is taken back: a
/// quarter, and so many bytes.
const SLACK_BYTES: u64 = 4 << 20;

pub(super) struct Standby {
    pub(super) store: Store,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    epoch: u32,
    /// Versions below are settled.
    settled: u64,
    /// The others that were done.
    recent: BTreeMap<u64, Recent>,
    past: Past,
    /// It could not do what it had to, and its home has gone on without it, or will.
    is_given_up: bool,
}

/// What a replica has when it takes its part over.
pub(super) struct Estate {
    /// Higher than all versions that it knows.
    pub(super) next: u64,
    /// Versions below are settled.
    pub(super) settled: u64,
    pub(super) recent: BTreeMap<u64, Recent>,
    pub(super) past: Past,
}

impl Standby {
    /// An empty one, for a part with these settings.
    pub(super) fn make(options: &Options) -> Result<Self, Error> {
        let memory_bytes = (options.memory_bytes / 4).saturating_add(SLACK_BYTES);
        let memory_bytes =
            memory_bytes.saturating_add(options.memory_bytes).min(crate::builder::MEMORY_BYTES_MAX);
        let store = Store::create(&Options { memory_bytes, ..options.clone() })?;
        Ok(Self { store, known: Mutex::default() })
    }

    /// Does a write, if it was not done before.
    pub(super) fn take(&self, head: &WriteHead, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut known = lock(&self.known);
        if head.epoch < known.epoch {
            return Err(Error::Damaged { what: "a write of a home that was given up", offset: 0 });
        }
        let taken = self.take_in(&mut known, head, key, value);
        // What could not be taken back, or brought up to date, is no replica any more, whoever knows of it.
        known.is_given_up |= taken.is_err() && (head.takes_back || head.mends);
        taken
    }

    fn take_in(&self, known: &mut Known, head: &WriteHead, key: &[u8], value: &[u8]) -> Result<(), Error> {
        known.epoch = head.epoch;
        known.settled = known.settled.max(head.settled);
        let settled = known.settled;
        known.recent = known.recent.split_off(&settled);
        if head.version < settled || known.recent.contains_key(&head.version) {
            return Ok(());
        }
        let checkpoint = head.checkpoint;
        let answer = match head.change {
            Change::Put(keep) => {
                self.store.put(key, checkpoint, value, When::Always, keep)?;
                is(true)
            }
            Change::Pop => self.store.remove(key, checkpoint, with_value)?.unwrap_or_else(|| is(true)),
            Change::Remove => {
                self.store.remove(key, checkpoint, |_| ())?;
                is(true)
            }
            Change::Withdraw => {
                self.store.put_exact(key, checkpoint, &Exact::Nothing)?;
                is(true)
            }
        };
        let (key, change, takes_back) = (key.to_vec(), head.change, head.takes_back);
        known.recent.insert(head.version, Recent { key, checkpoint, change, takes_back, write: head.write });
        match head.write {
            Some((rank, id)) if head.takes_back => known.past.forget(rank, id.number),
            Some((rank, id)) => known.past.note(rank, id, answer),
            None => {}
        }
        Ok(())
    }

    /// Does what concerns all keys.
    pub(super) fn take_whole(&self, whole: &Whole) -> Result<(), Error> {
        match *whole {
            Whole::Follow { checkpoint } => self.store.follow(checkpoint),
            Whole::Clear { checkpoint } => self.store.clear(checkpoint),
            Whole::Freeze(frozen) => self.store.freeze(frozen),
        }
    }

    /// Whether its home has gone on without it, so that it must not take its part over.
    pub(super) fn is_given_up(&self) -> bool {
        lock(&self.known).is_given_up
    }

    /// What it has done that may not be settled. From now on it refuses homes of earlier epochs.
    pub(super) fn tell_recent(&self, epoch: u32) -> Vec<(u64, Recent)> {
        let mut known = lock(&self.known);
        known.epoch = known.epoch.max(epoch);
        known.recent.iter().map(|(version, recent)| (*version, recent.clone())).collect()
    }

    /// The same of one that takes its part over.
    pub(super) fn take_over(&self, epoch: u32) -> Estate {
        let mut known = lock(&self.known);
        known.epoch = known.epoch.max(epoch);
        let last = known.recent.last_key_value().map_or(0, |(version, _)| version + 1);
        Estate {
            next: last.max(known.settled).max(1),
            settled: known.settled,
            recent: known.recent.clone(),
            past: std::mem::take(&mut known.past),
        }
    }

    /// Writes that were done and are not known to be settled.
    #[cfg(test)]
    fn under_way(&self) -> usize {
        lock(&self.known).recent.len()
    }
}

/// Does a write that came from the home `source`, and tells it.
pub(super) fn write(fabric: &Fabric, standby: Option<&Standby>, source: Rank, head: &WriteHead, rest: &[u8]) {
    let gone = || Error::Gone { name: String::new() };
    let taken = match (standby, rest.split_at_checked(head.key as usize)) {
        (Some(standby), Some((key, value))) => standby.take(head, key, value),
        (Some(_), None) => Err(Error::Damaged { what: "a write from another rank", offset: 0 }),
        (None, _) => Err(gone()),
    };
    let fault = taken.err().map(|error| message::Fault::of(&error));
    let done = Replicated { part: head.home, node: head.node, fault };
    // Who has begun it and is gone needs no answer.
    let _ = fabric.send(source, REPLICATED, head.version, &message::bytes(&done));
}

#[cfg(test)]
mod tests {
    use super::super::message::WriteId;
    use super::*;
    use crate::store::Keep;

    fn standby(working_set: u32) -> Standby {
        let options = Options {
            memory_bytes: 1 << 20,
            shards: 1,
            wait_for_keys: false,
            working_set,
            timeout_ms: None,
            checksums: false,
            types: 1,
            seed: Some(5),
            replicas: 2,
        };
        Standby::make(&options).expect("memory")
    }

    fn head(version: u64, settled: u64, change: Change) -> WriteHead {
        let write = Some((Rank(0), WriteId { number: version, waits_from: settled }));
        let (part, home, node, epoch, checkpoint) = (1, 2, 1, 0, 0);
        WriteHead {
            part,
            home,
            node,
            epoch,
            version,
            settled,
            checkpoint,
            change,
            takes_back: false,
            mends: false,
            key: 1,
            write,
        }
    }

    fn value(standby: &Standby, key: &[u8]) -> Option<Vec<u8>> {
        standby.store.get(key, 0, <[u8]>::to_vec).expect("it is there")
    }

    #[test]
    fn a_write_that_comes_again_is_done_once() {
        let standby = standby(1);
        let put = Change::Put(Keep::Default);
        standby.take(&head(1, 1, put), b"a", b"first").expect("room");
        standby.take(&head(2, 1, put), b"b", b"other").expect("room");
        standby.take(&head(1, 1, put), b"a", b"again").expect("room");
        assert_eq!(value(&standby, b"a").as_deref(), Some(&b"first"[..]));
        standby.take(&head(3, 3, Change::Remove), b"a", b"").expect("room");
        assert_eq!(standby.under_way(), 1);
        // Settled ones are not done again either.
        standby.take(&head(2, 1, put), b"b", b"again").expect("room");
        standby.take(&head(1, 1, put), b"a", b"again").expect("room");
        assert_eq!(value(&standby, b"b").as_deref(), Some(&b"other"[..]));
        assert_eq!(value(&standby, b"a"), None);
        assert!(lock(&standby.known).past.answer(Rank(0), 3).is_some());
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let standby = standby(2);
        let put = Change::Put(Keep::Default);
        standby.take(&head(1, 1, put), b"a", b"old").expect("room");
        let later = |version, change, takes_back| WriteHead {
            checkpoint: 1,
            takes_back,
            ..head(version, version, change)
        };
        standby.take(&later(2, put, false), b"a", b"new").expect("room");
        assert_eq!(standby.store.get(b"a", 1, <[u8]>::to_vec).expect("it is there"), Some(b"new".to_vec()));
        let mut back = later(3, Change::Withdraw, true);
        back.write = Some((Rank(0), WriteId { number: 2, waits_from: 2 }));
        standby.take(&back, b"a", b"").expect("room");
        assert_eq!(standby.store.get(b"a", 1, <[u8]>::to_vec).expect("it is there"), Some(b"old".to_vec()));
        assert_eq!(standby.store.exact(b"a", 1).expect("it is there"), Exact::Nothing);
        assert!(lock(&standby.known).past.answer(Rank(0), 2).is_none());
    }

    #[test]
    fn one_that_cannot_take_back_has_fallen_behind() {
        let standby = standby(1);
        let (put, large) = (Change::Put(Keep::Default), vec![1; 8 << 20]);
        // The home takes back what it has not done: this one is as good as before.
        assert!(standby.take(&head(1, 1, put), b"a", &large).is_err() && !standby.is_given_up());
        let back = WriteHead { takes_back: true, ..head(2, 2, put) };
        assert!(standby.take(&back, b"a", &large).is_err() && standby.is_given_up());
    }

    #[test]
    fn who_takes_over_goes_on_where_the_home_was() {
        let standby = standby(1);
        let put = Change::Put(Keep::Default);
        standby.take(&head(4, 3, put), b"a", b"new").expect("room");
        standby.take(&head(7, 3, Change::Pop), b"a", b"").expect("room");
        let told: Vec<u64> = standby.tell_recent(256).into_iter().map(|(version, _)| version).collect();
        let estate = standby.take_over(256);
        assert_eq!((estate.next, estate.settled, told), (8, 3, vec![4, 7]));
        assert_eq!(estate.recent[&7].change, Change::Pop);
        // Who asked for the removal and asks again hears what was removed.
        assert_eq!(estate.past.answer(Rank(0), 7), Some(&with_value(b"new")));
        assert!(standby.take(&head(8, 3, put), b"a", b"late").is_err() && !standby.is_given_up());
    }

    #[test]
    fn a_home_that_was_given_up_is_refused() {
        let standby = standby(1);
        let put = Change::Put(Keep::Default);
        standby.take(&WriteHead { epoch: 1, ..head(1, 1, put) }, b"a", b"new").expect("room");
        assert!(standby.take(&head(2, 1, put), b"a", b"old").is_err());
        assert_eq!(value(&standby, b"a").as_deref(), Some(&b"new"[..]));
    }
}
