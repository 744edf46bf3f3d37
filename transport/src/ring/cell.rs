//! The place of one item: a state word, what the item is, and up to 112 bytes of it; the first 48 share its line.
//!
//! The state says whose turn it is; its meaning is the ring's. The rest is written only by the one whose turn it is,
//! before a release store of the state, and read only after an acquire load of it. All of it is read and written by
//! words, so a cell in damaged memory gives wrong bytes and nothing worse.

use crate::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// How many cells before it is written a cell is fetched.
pub(super) const AHEAD: u64 = 4;

/// The most bytes that fit into a cell.
pub const INLINE_MAX: usize = 112;
/// The most that fit into its first cache line.
pub const LINE_MAX: usize = 48;

/// A cell. Zeroed: never used.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Cell {
    pub(super) state: AtomicU64,
    meta: AtomicU64,
    words: [AtomicU64; INLINE_MAX / 8],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Cell>() == 128);

/// What a cell held, copied out.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// What it is: the user's meaning.
    pub tag: u32,
    len: u32,
    bytes: [u8; INLINE_MAX],
}

impl Default for Item {
    fn default() -> Self {
        Self { tag: 0, len: 0, bytes: [0; INLINE_MAX] }
    }
}

impl Item {
    /// Its bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..(self.len as usize).min(INLINE_MAX)]
    }

    /// Makes it `len` bytes long, at most [`INLINE_MAX`]; they are whatever was there before.
    #[inline(always)]
    pub fn resize(&mut self, len: usize) {
        self.len = len.min(INLINE_MAX) as u32;
    }

    /// Its bytes, to be written.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..(self.len as usize).min(INLINE_MAX)]
    }

    /// Its `index`th word of eight bytes; 0 beyond its end.
    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        let bytes = self.bytes().get(index * 8..index * 8 + 8);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
    }
}

impl Cell {
    /// Writes an item; the state is the caller's to store afterwards.
    ///
    /// # Panics
    /// More than [`INLINE_MAX`] bytes.
    #[inline(always)]
    pub(super) fn write(&self, tag: u32, bytes: &[u8]) {
        assert!(bytes.len() <= INLINE_MAX, "{} bytes do not fit into a cell", bytes.len());
        let (whole, rest) = bytes.as_chunks::<8>();
        let store = |at: usize, bytes: &[u8; 8]| {
            self.words[at].store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        };
        // Eight of them without a loop.
        let beyond = match whole {
            [a, b, c, d, e, f, g, h, rest @ ..] => {
                store(0, a);
                store(1, b);
                store(2, c);
                store(3, d);
                store(4, e);
                store(5, f);
                store(6, g);
                store(7, h);
                rest
            }
            all => all,
        };
        let first = whole.len() - beyond.len();
        beyond.iter().enumerate().for_each(|(at, word)| store(first + at, word));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.words[whole.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
        self.meta.store(u64::from(tag) << 32 | bytes.len() as u64, Ordering::Relaxed);
    }

    /// Brings the lines that an item of `len` bytes lies in to this thread's core, to be written soon.
    #[inline(always)]
    pub(super) fn prefetch(&self, len: usize) {
        prefetch::for_writing(&self.state);
        if len > LINE_MAX {
            prefetch::for_writing(&self.words[LINE_MAX / 8]);
        }
    }

    /// Copies the item out; the caller has seen in the state that it is there.
    #[inline(always)]
    pub(super) fn read(&self, item: &mut Item) {
        let meta = self.meta.load(Ordering::Relaxed);
        item.tag = (meta >> 32) as u32;
        item.len = (meta as u32).min(INLINE_MAX as u32);
        let (chunks, _) = item.bytes.as_chunks_mut::<8>();
        let mut load = |from: usize, to: usize| {
            for (chunk, word) in chunks[from..to].iter_mut().zip(&self.words[from..to]) {
                *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            }
        };
        // Whole steps without a loop; what is beyond the end is nobody's.
        load(0, 2);
        if item.len > 16 {
            load(2, 8);
        }
        if item.len > 64 {
            load(8, INLINE_MAX / 8);
        }
    }

    /// A word of the payload, for cells that hold something else than an item.
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[index]
    }
}
