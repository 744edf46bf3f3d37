//! How full a dictionary is, and how it is used.

use super::DDict;
use crate::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use tarragon_transport::heap::Audit;

/// Figures of a dictionary, see [`DDict::stats`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// By shard.
    pub shards: Vec<ShardStats>,
    /// The most bytes it may grow to: index and values.
    pub capacity_bytes: u64,
    /// Bytes that are memory already.
    pub committed_bytes: u64,
    /// Bytes in use: whole blocks, so somewhat more than was put.
    pub used_bytes: u64,
    /// Bytes that can still be put, but for what blocks and index add. All shards share them.
    pub free_bytes: u64,
}

/// Figures of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ShardStats {
    /// Keys that the handle's checkpoint sees.
    pub keys: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Pages of its index, each of 4096 bytes.
    pub pages: u64,
    /// Times that a thread of this process slept for a key of it, through this handle and its clones.
    pub waits: u64,
}

impl<K, V> DDict<K, V> {
    /// How full it is. A scan of the index and of the heap's table; others may write meanwhile.
    ///
    /// # Errors
    /// `Gone`, `Retired`.
    pub fn stats(&self) -> Result<Stats, Error> {
        let at = self.at();
        let shard = |(index, waits): (u32, &AtomicU64)| {
            let figures = self.store().figures(index, at)?;
            Ok(ShardStats {
                keys: figures.keys,
                bytes: figures.value_bytes,
                pages: figures.pages,
                // A count; nothing is read by it.
                waits: waits.load(Ordering::Relaxed),
            })
        };
        let shards = (0..).zip(&self.inner.waits).map(shard).collect::<Result<_, Error>>()?;
        let usage = self.store().usage();
        Ok(Stats {
            shards,
            capacity_bytes: usage.capacity,
            committed_bytes: usage.committed,
            used_bytes: usage.allocated,
            free_bytes: usage.capacity.saturating_sub(usage.allocated),
        })
    }

    /// Compares memory in use with what the index leads to: blocks that nothing leads to, and entries that lead to no
    /// block. Nobody may write meanwhile, and nothing may be pinned; then both are none, whoever was killed at whatever
    /// moment, once [`DDict::recover`] was called. A scan of everything.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn audit(&self) -> Result<Audit, Error> {
        self.store().audit()
    }
}
