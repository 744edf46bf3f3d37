//! Reading values of other nodes one-sidedly, where they were found before.
//!
//! # How
//! A part's server shows its segment to the fabric (`Fabric::show`). What it answers to a get says where the value lies
//! (`store::spot`): a *spot*, the place of the entry's control word and what that said. The reader keeps some spots,
//! and the values that came with them as long as there is room. The next get of such a key reads the word alone and
//! takes the value that is kept, or reads the value's block beside it, both asked for at once and waited for once.
//! Whatever does not fit means to ask the server, which tells the new spot.
//!
//! # Why what is taken is right
//! Taken is a value whose entry's word is the spot's, and whose bytes have the hash of those that came with the spot.
//!
//! - *It is this value.* A kept one came with the spot. Of another the hash (64 bits, of the value as the server sent
//!   it) says so, whatever has become of the block: nobody who frees or reuses blocks knows of remote readers, and none
//!   needs to.
//! - *It is current.* The word is eight aligned bytes, read at some moment of the call. Each publication of an entry,
//!   that it is empty or another key's among them, gives the word another version. So at that moment the entry shows
//!   what it showed when the spot was told. It is the only entry of its key and checkpoint: spots are told of entries
//!   of the reader's own checkpoint alone. While a page is split two entries are, and then both show the same, and
//!   the old one changes its word before anybody can write to the new one.
//! - *The version does not come round.* A spot is used for [`AGE_MAX`] at most; in that time nobody writes a key 2^32
//!   times, and if somebody did, the hash would still say whether the value is the same.
//! - *It is not another segment's.* Where a segment was shown zeros are read when it is gone, and no word that showed a
//!   value is zero.
//!
//! The order in which word and block are read does not matter. A get sees a dictionary that was destroyed, or a retired
//! checkpoint, in this node's part, which was told.
//!
//! # Bounds
//! [`SPOTS`] spots in a process and dictionary, each in the slot that its key's hash chooses: the last one stays. Of
//! values up to [`KEPT_BYTES_MAX`] so many are kept that they are at most [`ALL_KEPT_BYTES_MAX`] together; values up to
//! [`BYTES_MAX`] are read where they lie. A key whose spot was found changed is asked for the next time, after the next
//! vain try the next three times, and so on up to 63: what changes all the time costs no more than to ask. Where memory
//! cannot be shown, everything is asked for.
//!
//! # Deaths
//! A network without RDMA needs the server's process: when that dies, a read fails, the question that follows too, and
//! its error names it.

use super::far::Far;
use super::message::{Reply, Verb};
use crate::error::Error;
use crate::store::{Buffer, Pinned, Spot};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tarragon_transport::RemoteKey;
use xxhash_rust::xxh3::xxh3_64;

/// Spots that are kept; a power of two.
const SPOTS: usize = 1 << 14;
/// The largest value that is read one-sidedly.
const BYTES_MAX: usize = 256 << 10;
/// How long a spot is used.
const AGE_MAX: Duration = Duration::from_secs(30);
/// Gets that ask after so many vain tries.
const PENALTY_MAX: u8 = 63;
/// The largest value that is kept, and the most bytes of all of them.
const KEPT_BYTES_MAX: usize = 64 << 10;
const ALL_KEPT_BYTES_MAX: usize = 64 << 20;

/// What a process knows of where values of other nodes lie.
pub(super) struct Reads {
    /// By node the key of its part's memory; none where it cannot be shown.
    shown: Box<[OnceLock<Option<RemoteKey>>]>,
    slots: OnceLock<Box<[Slot]>>,
    /// Bytes of the values that are kept.
    kept_bytes: AtomicUsize,
}

type Slot = Mutex<Option<Box<Known>>>;

/// A key's spot.
struct Known {
    key: Box<[u8]>,
    at: Place,
    /// Gets that ask before the spot is tried again, and how many after the next vain try.
    asks: u8,
    penalty: u8,
}

#[derive(Clone)]
struct Place {
    checkpoint: u32,
    spot: Spot,
    len: usize,
    hash: u64,
    /// The value, if it is kept.
    kept: Option<Arc<[u8]>>,
    since: Instant,
}

impl Reads {
    pub(super) fn of(nodes: usize) -> Self {
        let shown = (0..nodes).map(|_| OnceLock::new()).collect();
        Self { shown, slots: OnceLock::new(), kept_bytes: AtomicUsize::new(0) }
    }

    fn with_slot<R>(&self, hash: u64, act: impl FnOnce(&mut Option<Box<Known>>) -> R) -> R {
        let slots = self.slots.get_or_init(|| (0..SPOTS).map(|_| Mutex::new(None)).collect());
        let slot = &slots[(hash >> 13) as usize % SPOTS];
        act(&mut slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the value of a key may still lie, if that is worth a try.
    fn place(&self, hash: u64, key: &[u8], checkpoint: u32) -> Option<Place> {
        self.slots.get()?;
        self.with_slot(hash, |slot| {
            let known = slot.as_mut().filter(|known| *known.key == *key)?;
            let is_old = known.at.since.elapsed() > AGE_MAX || known.at.checkpoint != checkpoint;
            if is_old || known.asks > 0 {
                known.asks = known.asks.saturating_sub(1);
                return None;
            }
            Some(known.at.clone())
        })
    }

    /// The key's value was found there, or not.
    fn note(&self, hash: u64, key: &[u8], is_found: bool) {
        self.with_slot(hash, |slot| {
            let Some(known) = slot.as_mut().filter(|known| *known.key == *key) else { return };
            if is_found {
                known.penalty /= 2;
            } else {
                known.penalty = (known.penalty * 2 + 1).min(PENALTY_MAX);
                known.asks = known.penalty;
            }
        });
    }

    fn learn(&self, hash: u64, key: &[u8], at: Place) {
        self.with_slot(hash, |slot| {
            if let Some(old) = slot.as_ref().and_then(|known| known.at.kept.as_ref()) {
                self.kept_bytes.fetch_sub(old.len(), Ordering::Relaxed);
            }
            match slot {
                Some(known) if *known.key == *key => known.at = at,
                other => *other = Some(Box::new(Known { key: key.into(), at, asks: 0, penalty: 0 })),
            }
        });
    }

    /// The value as it is kept, if there is room.
    fn keep(&self, value: &[u8], is_short: bool) -> Option<Arc<[u8]>> {
        // A count; nothing else is read by it. What lies in an entry is always kept: it lies nowhere else.
        let all = self.kept_bytes.fetch_add(value.len(), Ordering::Relaxed) + value.len();
        if is_short || value.len() <= KEPT_BYTES_MAX && all <= ALL_KEPT_BYTES_MAX {
            return Some(value.into());
        }
        self.kept_bytes.fetch_sub(value.len(), Ordering::Relaxed);
        None
    }
}

impl Far {
    /// The value of a key of another node; whether it was read one-sidedly, so that the node does not know.
    pub(super) fn get(
        &self,
        node: u32,
        checkpoint: u32,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<(Pinned<'static>, bool)>, Error> {
        // Of a part that was taken over nobody shows the memory.
        let shown = if self.is_moved(node) { None } else { self.shown(node) };
        let Some(shown) = shown else {
            return Ok(self
                .value(node, Verb::Get { checkpoint, verified: false }, key)?
                .map(|value| (value, false)));
        };
        if let Some(place) = self.reads.place(hash, key, checkpoint) {
            let value = self.read(shown, &place);
            self.reads.note(hash, key, value.is_some());
            if let Some(value) = value {
                return Ok(Some((value, true)));
            }
        }
        match self.ask(node, Verb::Find { checkpoint }, key, &[])? {
            (Reply::Found(spot), body) => {
                let is_there = body.len() <= BYTES_MAX && !self.is_moved(node);
                if let Some(spot) = spot.filter(|_| is_there) {
                    let kept = self.reads.keep(&body, spot.block == 0);
                    let (len, since) = (body.len(), Instant::now());
                    let at = Place { checkpoint, spot, len, hash: xxh3_64(&body), kept, since };
                    self.reads.learn(hash, key, at);
                }
                Ok(Some((Pinned::copy_of(&body), false)))
            }
            (Reply::Nothing, _) => Ok(None),
            _ => Err(self.odd(node)),
        }
    }

    /// The key of a node's memory; asked for once.
    fn shown(&self, node: u32) -> Option<&RemoteKey> {
        let ask = || match self.ask(node, Verb::Show, &[], &[]) {
            Ok((Reply::Shown(key), _)) => Some(key),
            // What is wrong, if something is, the next question says.
            _ => None,
        };
        self.reads.shown[node as usize].get_or_init(ask).as_ref()
    }

    /// What lies at a place, if it is the value that lay there.
    fn read(&self, shown: &RemoteKey, place: &Place) -> Option<Pinned<'static>> {
        let mut word = [0; 8];
        let cell = (place.spot.cell, &mut word[..]);
        if let Some(kept) = &place.kept {
            self.fabric.get_all(shown, &mut [cell]).ok()?;
            let is_same = place.spot.is_shown_by(u64::from_ne_bytes(word));
            return is_same.then(|| Pinned::copy_of(kept));
        }
        let mut value = Buffer::new(place.len);
        self.fabric.get_all(shown, &mut [cell, (place.spot.block, value.bytes_mut())]).ok()?;
        let is_same = place.spot.is_shown_by(u64::from_ne_bytes(word)) && xxh3_64(&value) == place.hash;
        is_same.then(|| Pinned::of(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kept: Option<Arc<[u8]>>, checkpoint: u32) -> Place {
        let spot = super::super::message::head(&[1, 2, 3]).expect("three small numbers").0;
        Place { checkpoint, spot, len: 5, hash: 0, kept, since: Instant::now() }
    }

    #[test]
    fn values_that_are_kept_are_bounded_and_counted() {
        let reads = Reads::of(1);
        let value = vec![0; KEPT_BYTES_MAX];
        assert!(reads.keep(&[0; KEPT_BYTES_MAX + 1], false).is_none());
        for i in 0..2 * (ALL_KEPT_BYTES_MAX / KEPT_BYTES_MAX) as u64 {
            reads.learn(i << 13, &i.to_le_bytes(), place(reads.keep(&value, false), 0));
        }
        assert_eq!(reads.kept_bytes.load(Ordering::Relaxed), ALL_KEPT_BYTES_MAX);
        assert!(reads.keep(b"one more", false).is_none());
        // One of an entry is, and another key in the same slot makes room.
        let short = reads.keep(b"x", true);
        reads.learn(0, b"another", place(short, 0));
        assert_eq!(reads.kept_bytes.load(Ordering::Relaxed), ALL_KEPT_BYTES_MAX - KEPT_BYTES_MAX + 1);
        assert!(reads.place(0, &0_u64.to_le_bytes(), 0).is_none());
        assert!(reads.keep(b"one more", false).is_some());
    }

    #[test]
    fn spots_that_are_found_changed_are_tried_less_and_less() {
        let reads = Reads::of(1);
        reads.learn(7, b"key", place(None, 3));
        assert!(reads.place(7, b"other", 3).is_none() && reads.place(7, b"key", 2).is_none());
        let asks_until_try = || (0..100).take_while(|_| reads.place(7, b"key", 3).is_none()).count();
        let mut asks = Vec::new();
        for _ in 0..8 {
            asks.push(asks_until_try());
            reads.note(7, b"key", false);
            reads.learn(7, b"key", place(None, 3));
        }
        assert_eq!(asks, [0, 1, 3, 7, 15, 31, 63, 63]);
        assert_eq!(asks_until_try(), 63);
        (0..6).for_each(|_| reads.note(7, b"key", true));
        reads.note(7, b"key", false);
        assert_eq!(asks_until_try(), 1);
    }
}
