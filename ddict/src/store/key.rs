//! A key as the index sees it: its hash, and the two words that stand for it in an entry.

use super::entry::{INLINE_MAX, words};
use super::page::PLACES;
use crate::error::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A key's bytes, hashed.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) hash: u64,
    /// The key itself, or (where its block is: not known yet, hash).
    pub(super) words: [u64; 2],
}

/// A key that fits into its entry.
#[derive(Clone, Copy)]
pub(crate) struct ShortKey {
    words: [u64; 2],
    len: u64,
}

impl ShortKey {
    /// `None`: longer than 16 bytes.
    #[inline(always)]
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= INLINE_MAX).then(|| Self { words: words(bytes), len: bytes.len() as u64 })
    }

    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        self.words
    }

    #[inline(always)]
    pub(super) fn len(self) -> u64 {
        self.len
    }

    #[inline(always)]
    pub(super) fn hash(self, seed: u64) -> u64 {
        hash_short(self.words, self.len, seed)
    }
}

impl<'a> Key<'a> {
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8], seed: u64) -> Result<Self, Error> {
        if bytes.len() <= INLINE_MAX {
            let words = words(bytes);
            return Ok(Self { bytes, hash: hash_short(words, bytes.len() as u64, seed), words });
        }
        Self::long(bytes, seed)
    }

    fn long(bytes: &'a [u8], seed: u64) -> Result<Self, Error> {
        if bytes.len() > super::KEY_BYTES_MAX {
            return Err(Error::KeyTooLong { bytes: bytes.len() as u64, max: super::KEY_BYTES_MAX as u64 });
        }
        let hash = xxh3_64_with_seed(bytes, seed);
        Ok(Self { bytes, hash, words: [0, hash] })
    }

    #[inline(always)]
    pub(super) fn is_inline(&self) -> bool {
        self.bytes.len() <= INLINE_MAX
    }
}

/// The hash of a key that lies in its entry.
#[inline(always)]
pub(super) fn hash_short(words: [u64; 2], len: u64, seed: u64) -> u64 {
    let first = fold(words[0] ^ seed, words[1] ^ 0x9E37_79B9_7F4A_7C15 ^ seed.rotate_left(32));
    fold(first ^ len ^ 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB)
}

/// Both halves of a product. *Source*: Wang Yi, wyhash.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Where in its page a key is looked for first.
#[inline(always)]
pub(super) fn place(hash: u64) -> u64 {
    ((hash & 0xffff) * PLACES) >> 16
}

/// The bits that choose a page, the lowest first.
#[inline(always)]
pub(super) fn path(hash: u64) -> u64 {
    hash >> 16 & 0xffff_ffff
}

/// Which of `shards` a key belongs to.
#[inline(always)]
pub(super) fn shard(hash: u64, shards: u32) -> u32 {
    (((hash >> 48) * u64::from(shards)) >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_keys_spread_evenly() {
        let mut places = [0u32; PLACES as usize];
        let mut paths = [0u32; 64];
        for i in 0..64_000u64 {
            let bytes = i.to_le_bytes();
            let key = Key::new(&bytes, 12345).expect("short");
            places[place(key.hash) as usize] += 1;
            paths[(path(key.hash) & 63) as usize] += 1;
        }
        assert!(places.iter().all(|n| (800..1250).contains(n)), "{places:?}");
        assert!(paths.iter().all(|n| (800..1250).contains(n)), "{paths:?}");
    }

    #[test]
    fn a_key_beyond_the_bound_is_refused() {
        assert!(matches!(
            Key::new(&vec![0; 65_536], 0),
            Err(Error::KeyTooLong { bytes: 65_536, max: 65_535 })
        ));
        assert!(Key::new(&[0; 65_535], 0).is_ok());
    }
}
