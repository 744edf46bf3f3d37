//! Counting reads that found their value, and sleeps for keys, of all processes.
//!
//! A read may neither wait for a line that others write nor write one that others read. So a *hit* is counted in the
//! reader's own agent record, one word for each shard, by a plain load and store; `stats` adds the records up. Records
//! outlive their agents with what was counted in them (see `transport::agent`), so nobody's end, a kill included, loses
//! a count. Measured (1000 keys of 8 bytes, one thread): 23 instructions on top of 174 of a get, 3 to 5 ns of 17 on one
//! machine, 1 ns of 11 to 13 on another. That is worth an exact count by shard; what is counted less often would need a
//! counter for it as well.
//!
//! A thread that never wrote nor pinned has no agent: its first hit claims one (a record of 36 KiB). Where none is to
//! be had (8191 threads have theirs, or there is no memory for the record) its hits are not counted, since a read must
//! not fail for that.
//!
//! Reads of other nodes' keys that ask nobody, of copies and one-sided ones, are counted likewise on the reader's node,
//! in the store of copies there, by the number of the shard among all. A dictionary with more than [`COUNTS`] shards in
//! all counts such reads of the first ones alone.
//!
//! A *wait* costs a system call anyhow: it is counted in a word of the shard that all share.

use super::Store;
use std::sync::atomic::Ordering;
use tarragon_transport::SegmentError;
use tarragon_transport::agent::COUNTS;

impl Store {
    /// Counts a read that found a value, by the hash of its key.
    #[inline(always)]
    pub(crate) fn count_hit(&self, hash: u64) {
        let shard = self.index_for(hash) as usize;
        if !self.segment.count(shard) {
            self.count_anyhow(shard);
        }
    }

    /// Counts a read of another node's key that asked nobody, by the number of its shard among all.
    pub(crate) fn count_elsewhere(&self, shard: u32) {
        let shard = shard as usize;
        if shard < COUNTS && !self.segment.count(shard) {
            self.count_anyhow(shard);
        }
    }

    /// What was counted so, for so many shards.
    pub(crate) fn hits_elsewhere(&self, shards: u32) -> Vec<u64> {
        (0..(shards as usize).min(COUNTS)).map(|shard| self.segment.counted(shard)).collect()
    }

    /// The same for a thread that has no agent, or that used others meanwhile.
    #[cold]
    #[inline(never)]
    fn count_anyhow(&self, shard: usize) {
        // Only spares later reads a vain search; nothing else is read by it.
        if self.is_uncounted.load(Ordering::Relaxed) {
            return;
        }
        match self.segment.agent() {
            Ok(_) => {
                self.segment.count(shard);
            }
            Err(SegmentError::ThreadEnds) => {}
            Err(_) => self.is_uncounted.store(true, Ordering::Relaxed),
        }
    }

    /// Counts a sleep for a key.
    pub(super) fn count_wait(&self, hash: u64) {
        // A count; nothing is read by it.
        self.shard_for(hash).waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads of a shard that found their value.
    pub(super) fn hits(&self, shard: u32) -> u64 {
        self.segment.counted(shard as usize)
    }

    /// Sleeps for keys of a shard.
    pub(super) fn waits(&self, shard: u32) -> u64 {
        self.shard_at(shard).waits.load(Ordering::Relaxed)
    }
}
