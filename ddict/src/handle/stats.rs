//! How full a dictionary is, and how it is used.

use super::DDict;
use crate::error::Error;
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
    /// Bytes in use by replicas, of all nodes, beside the others.
    pub replica_bytes: u64,
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
    /// Bytes that can still be put into it, but for what blocks and index add. Shards share the memory: all of them
    /// say the same, and what is put into one is gone from each.
    pub free_bytes: u64,
    /// Reads of any process, since it was made, that found a key of it and showed its value: gets of every kind, but
    /// neither walks (`items`, `filter`, `persist`) nor updates. Also of processes that ended or were killed, and of
    /// other nodes, those that asked nobody among them (copies, one-sided reads) for the first 1024 shards.
    pub hits: u64,
    /// Times that a thread of any process slept for a key of it, since it was made.
    pub waits: u64,
}

impl<K, V> DDict<K, V> {
    /// How full it is, and how it is used, by all processes. A scan of the index and of the heap's table, and a load
    /// per shard and thread that ever used it; others may read and write meanwhile.
    ///
    /// # Errors
    /// `Gone`, `Retired`.
    pub fn stats(&self) -> Result<Stats, Error> {
        let at = self.at();
        let (usage, replica_bytes) = self.store().usage()?;
        let free_bytes = usage.capacity.saturating_sub(usage.allocated);
        let elsewhere = self.store().hits_elsewhere()?;
        let shard = |index: u32| {
            let figures = self.store().figures(index, at)?;
            let elsewhere = elsewhere.get(index as usize).copied().unwrap_or(0);
            Ok(ShardStats {
                keys: figures.keys,
                bytes: figures.value_bytes,
                pages: figures.pages,
                free_bytes,
                hits: figures.hits + elsewhere,
                waits: figures.waits,
            })
        };
        let shards = (0..self.shards()).map(shard).collect::<Result<_, Error>>()?;
        Ok(Stats {
            shards,
            capacity_bytes: usage.capacity,
            committed_bytes: usage.committed,
            used_bytes: usage.allocated,
            free_bytes,
            replica_bytes,
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
