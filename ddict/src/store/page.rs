//! A page of the index: a line of its own, and 63 entries probed in a circle from a key's place.
//!
//! A page *covers* the hashes whose path ends in its prefix of `depth` bits. Pages are never given back, so a reader
//! who comes late finds entries there, and sees by the cover that they are not for its key.

use super::entry::Entry;
use super::layout::{open, seal};
use std::sync::atomic::{AtomicU64, Ordering};
use tarragon_transport::lock::RobustLock;

/// Entries of a page.
pub(super) const PLACES: u64 = 63;
/// Keys in a page from which on it is split before another one comes in. Fuller pages make longer chains: at 36, a key
/// that is there is found at the first look in three of four cases, and takes about 150 bytes with all around it.
pub(super) const SPLIT: u64 = 36;
/// Bits of a path; a page cannot be split further.
pub(super) const DEPTH_MAX: u32 = 32;
pub(super) const PAGE_BYTES: u64 = 4096;

/// Which paths a page is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cover {
    pub(super) depth: u32,
    pub(super) prefix: u64,
}

impl Cover {
    #[inline(always)]
    pub(super) fn covers(self, path: u64) -> bool {
        path & ((1 << self.depth) - 1) == self.prefix
    }

    fn pack(self) -> u64 {
        seal(self.prefix << 8 | u64::from(self.depth))
    }

    #[inline(always)]
    fn unpack(word: u64) -> Option<Self> {
        let word = open(word)?;
        let cover = Self { depth: (word & 0xff) as u32, prefix: word >> 8 };
        (cover.depth <= DEPTH_MAX && cover.prefix < 1 << cover.depth).then_some(cover)
    }

    /// The half that stays in the page when it is split, and the half that goes.
    pub(super) fn halves(self) -> [Self; 2] {
        let depth = self.depth + 1;
        [Self { depth, prefix: self.prefix }, Self { depth, prefix: self.prefix | 1 << self.depth }]
    }

    /// Where the hashes it covers begin, and where the next ones do, if paths are read with the first bit on top:
    /// there a page's paths lie side by side, and stay so when it is split.
    pub(super) fn range(self) -> (u64, u64) {
        let begin = u64::from((self.prefix as u32).reverse_bits());
        (begin, begin + (1 << (DEPTH_MAX - self.depth)))
    }
}

/// Where a path lies in the order of `Cover::range`.
pub(super) fn order(path: u64) -> u64 {
    u64::from((path as u32).reverse_bits())
}

/// The page.
#[repr(C, align(4096))]
pub(super) struct Page {
    /// Changed by one store when half of the keys have gone to another page.
    cover: AtomicU64,
    /// Held while keys come in or go out.
    pub(super) lock: RobustLock,
    /// The page that the last split made.
    sibling: AtomicU64,
    /// Keys in it.
    live: AtomicU64,
    pad: [AtomicU64; 4],
    pub(super) entries: [Entry; PLACES as usize],
}

const _: () = assert!(size_of::<Page>() as u64 == PAGE_BYTES);

impl Page {
    /// What it covers; `None`: damaged.
    #[inline(always)]
    pub(super) fn cover(&self) -> Option<Cover> {
        Cover::unpack(self.cover.load(Ordering::Acquire))
    }

    pub(super) fn set_cover(&self, cover: Cover) {
        self.cover.store(cover.pack(), Ordering::SeqCst);
    }

    pub(super) fn sibling(&self) -> Option<u64> {
        open(self.sibling.load(Ordering::Acquire))
    }

    pub(super) fn set_sibling(&self, offset: u64) {
        self.sibling.store(seal(offset), Ordering::Release);
    }

    /// Keys in it, exact while its lock is held.
    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn set_live(&self, live: u64) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// Counts its keys anew.
    pub(super) fn recount(&self) {
        let full = self.entries.iter().filter(|e| e.load().state() == super::entry::FULL);
        self.set_live(full.count() as u64);
    }

    /// The entry `step` places behind `place`.
    #[inline(always)]
    pub(super) fn entry(&self, place: u64, step: u64) -> &Entry {
        let at = place + step;
        let at = if at >= PLACES { at - PLACES } else { at };
        &self.entries[at as usize % PLACES as usize]
    }

    /// Makes it as new, for this cover. Nobody else may know it.
    pub(super) fn clear(&self, cover: Cover) {
        for entry in &self.entries {
            for word in entry.slots.iter().flatten().chain(&entry.key).chain([&entry.meta, &entry.ctl]) {
                word.store(0, Ordering::Relaxed);
            }
        }
        self.sibling.store(0, Ordering::Relaxed);
        self.set_live(0);
        self.set_cover(cover);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_share_the_range_of_the_whole() {
        let mut cover = Cover { depth: 0, prefix: 0 };
        assert_eq!(cover.range(), (0, 1 << 32));
        for _ in 0..DEPTH_MAX {
            let [stay, go] = cover.halves();
            assert_eq!(
                (stay.range().0, stay.range().1, go.range().1),
                (cover.range().0, go.range().0, cover.range().1)
            );
            assert!(go.covers(go.prefix) && !stay.covers(go.prefix) && cover.covers(go.prefix));
            cover = go;
        }
        assert_eq!(order(cover.prefix), cover.range().0);
    }
}
