//! Reading values of other nodes one-sidedly, where they were found before.
//!
//! # How
//! A part's server shows its segment to the fabric (`Fabric::show`). What it answers to a get says where the value lies
//! (`store::spot`): a *spot*, the place of the entry's control word and what that said. The reader keeps some spots;
//! the next get of such a key reads the word, and the value's block beside it, both asked for at once and waited for
//! once. Whatever does not fit means to ask the server, which tells the new spot.
//!
//! # Why what is taken is right
//! Taken is a value whose entry's word is the spot's, and whose bytes have the hash of those that came with the spot.
//!
//! - *It is this value.* The hash (64 bits, of the value as the server sent it) says so, whatever has become of the
//!   block: nobody who frees or reuses blocks knows of remote readers, and none needs to. A value that lies in its
//!   entry came with the spot and is not read again.
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
//! [`SPOTS`] spots in a process and dictionary, each in the slot that its key's hash chooses: the last one stays.
//! Values up to [`BYTES_MAX`]. A key whose spot was found changed is asked for the next time, after the next vain try
//! the next three times, and so on up to 63: what changes all the time costs no more than to ask. Where memory cannot
//! be shown, everything is asked for.
//!
//! # Deaths
//! A network without RDMA needs the server's process: when that dies, a read fails, the question that follows too, and
//! its error names it.

use super::far::Far;
use super::message::{Reply, Verb};
use crate::error::Error;
use crate::store::{Buffer, Pinned, Spot};
use std::sync::{Mutex, OnceLock, PoisonError};
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
/// A value that lies in its entry has at most so many bytes.
const SHORT_MAX: usize = 16;

/// What a process knows of where values of other nodes lie.
pub(super) struct Reads {
    /// By node the key of its part's memory; none where it cannot be shown.
    shown: Box<[OnceLock<Option<RemoteKey>>]>,
    slots: OnceLock<Box<[Slot]>>,
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

#[derive(Clone, Copy)]
struct Place {
    checkpoint: u32,
    spot: Spot,
    len: usize,
    hash: u64,
    /// The value, if it lies in its entry.
    short: [u8; SHORT_MAX],
    since: Instant,
}

impl Reads {
    pub(super) fn of(nodes: usize) -> Self {
        Self { shown: (0..nodes).map(|_| OnceLock::new()).collect(), slots: OnceLock::new() }
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
            Some(known.at)
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
        self.with_slot(hash, |slot| match slot {
            Some(known) if *known.key == *key => known.at = at,
            other => *other = Some(Box::new(Known { key: key.into(), at, asks: 0, penalty: 0 })),
        });
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
        let Some(shown) = self.shown(node) else {
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
                if let Some(spot) = spot.filter(|_| body.len() <= BYTES_MAX) {
                    let mut short = [0; SHORT_MAX];
                    if spot.block == 0 && body.len() <= SHORT_MAX {
                        short[..body.len()].copy_from_slice(&body);
                    }
                    let (len, since) = (body.len(), Instant::now());
                    let at = Place { checkpoint, spot, len, hash: xxh3_64(&body), short, since };
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
        let (mut word, mut value) = ([0; 8], Buffer::new(place.len));
        let cell = (place.spot.cell, &mut word[..]);
        if place.spot.block == 0 {
            self.fabric.get_all(shown, &mut [cell]).ok()?;
            let is_same = place.spot.is_shown_by(u64::from_ne_bytes(word));
            return is_same.then(|| Pinned::copy_of(&place.short[..place.len]));
        }
        self.fabric.get_all(shown, &mut [cell, (place.spot.block, value.bytes_mut())]).ok()?;
        let is_same = place.spot.is_shown_by(u64::from_ne_bytes(word)) && xxh3_64(&value) == place.hash;
        is_same.then(|| Pinned::of(value))
    }
}
