//! A predicate is sent to the shards; what they find comes back in the order of the keys.
//!
//! Each shard is searched by a thread of its own (as many at once as there are processors) and gives the keys it found,
//! sorted; the values stay where they are until their turn comes.

use super::{DDict, decoded};
use crate::encoding::{Key, Value, decode};
use crate::error::Error;
use crate::handle::iterate::{Walk, key_of};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::FusedIterator;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Keys of one shard, sorted backwards: the first is the last, to be popped.
type Found = Vec<Box<[u8]>>;

/// What [`DDict::filter`] found, in the order of the keys.
pub struct Filtered<'d, K, V, F> {
    dict: &'d DDict<K, V>,
    predicate: F,
    checkpoint: u32,
    shards: Vec<Found>,
    /// The next key of each shard that has one.
    heads: BinaryHeap<Reverse<(Box<[u8]>, usize)>>,
}

impl<K: Key, V: Value> DDict<K, V> {
    /// The keys and values for which `predicate` holds, in the order of the keys: that of their encodings, which is the
    /// natural one of numbers, texts, and tuples and structs of them.
    ///
    /// All shards are searched now, each by a thread; the found keys are held in memory, the values are read when their
    /// turn comes. One that changed meanwhile is given if the predicate still holds; one that is gone is left out.
    ///
    /// # Errors
    /// `Gone`, `Retired`, `Decode`.
    ///
    /// # Panics
    /// If `predicate` does.
    pub fn filter<F>(&self, predicate: F) -> Result<Filtered<'_, K, V, F>, Error>
    where
        F: Fn(&K, &V) -> bool + Sync,
    {
        let checkpoint = self.at();
        let search = |shard: u32| self.search(shard, checkpoint, &predicate);
        let mut shards = self.for_each_shard(search)?;
        let heads = (0..)
            .zip(&mut shards)
            .filter_map(|(index, found)| Some(Reverse((found.pop()?, index))))
            .collect();
        Ok(Filtered { dict: self, predicate, checkpoint, shards, heads })
    }

    fn search<F>(&self, shard: u32, checkpoint: u32, predicate: &F) -> Result<Found, Error>
    where
        F: Fn(&K, &V) -> bool,
    {
        let mut walk = Walk::with_values(self.store(), checkpoint, shard..shard + 1);
        let mut found = Vec::new();
        let matching = |key: &[u8], value: &[u8]| {
            let holds = predicate(&key_of(key)?, &decoded(key, decode(value))?);
            Ok(holds.then(|| Box::from(key)))
        };
        while let Some(key) = walk.next_item(matching)? {
            found.push(key);
        }
        found.sort_unstable();
        found.reverse();
        Ok(found)
    }

    /// Does something for each shard, on as many threads as there are processors; results in the order of the shards.
    fn for_each_shard<R: Send>(&self, work: impl Fn(u32) -> Result<R, Error> + Sync) -> Result<Vec<R>, Error>
    where
        Self: Sync,
    {
        let shards = self.inner.shards;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(shards as usize);
        if threads <= 1 {
            return (0..shards).map(work).collect();
        }
        let next = AtomicU32::new(0);
        let results = Mutex::new(Vec::with_capacity(shards as usize));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    // Only hands out numbers; the results go through the lock.
                    while let shard = next.fetch_add(1, Ordering::Relaxed)
                        && shard < shards
                    {
                        let result = work(shard);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push((shard, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_unstable_by_key(|(shard, _)| *shard);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

impl<K: Key, V: Value, F: Fn(&K, &V) -> bool> Filtered<'_, K, V, F> {
    fn read(&self, key: &[u8]) -> Result<Option<(K, V)>, Error> {
        let Some((value, _)) = self.dict.store().peek(key, self.checkpoint)? else { return Ok(None) };
        let pair = (key_of(key)?, decoded(key, decode(&value))?);
        Ok((self.predicate)(&pair.0, &pair.1).then_some(pair))
    }
}

impl<K: Key, V: Value, F: Fn(&K, &V) -> bool> Iterator for Filtered<'_, K, V, F> {
    type Item = Result<(K, V), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Reverse((key, shard)) = self.heads.pop()?;
            if let Some(next) = self.shards[shard].pop() {
                self.heads.push(Reverse((next, shard)));
            }
            if let Some(pair) = self.read(&key).transpose() {
                return Some(pair);
            }
        }
    }
}

impl<K: Key, V: Value, F: Fn(&K, &V) -> bool> FusedIterator for Filtered<'_, K, V, F> {}
