//! A map inside one process: `hashbrown` tables behind `parking_lot` locks, a lock per shard, as `dashmap` has it.

use super::{Ends, Plan, Store};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Shards; with two threads they rarely meet.
const SHARDS: usize = 64;

/// Each shard on cache lines of its own.
#[repr(align(128))]
struct Shard<V>(RwLock<HashMap<u64, V, RandomState>>);

/// The map; clones share it.
#[derive(Clone)]
pub(crate) struct Sharded {
    numbers: Arc<[Shard<u64>]>,
    values: Arc<[Shard<Vec<u8>>]>,
    state: RandomState,
}

impl Sharded {
    pub(crate) fn create(plan: Plan) -> Self {
        let state = RandomState::default();
        let keys = plan.keys as usize / SHARDS + 1;
        Self { numbers: shards(state.clone(), keys), values: shards(state.clone(), keys), state }
    }

    fn shard(&self, key: u64) -> usize {
        // The table takes its place from the low bits of the hash and its tag from the highest seven.
        (self.state.hash_one(key) >> 48) as usize % SHARDS
    }
}

fn shards<V>(state: RandomState, keys: usize) -> Arc<[Shard<V>]> {
    let shard = || Shard(RwLock::new(HashMap::with_capacity_and_hasher(keys, state.clone())));
    (0..SHARDS).map(|_| shard()).collect()
}

impl Store for Sharded {
    fn get(&mut self, key: u64) -> u64 {
        *self.numbers[self.shard(key)].0.read().get(&key).expect("every key is there")
    }

    fn set(&mut self, key: u64, value: u64) {
        self.numbers[self.shard(key)].0.write().insert(key, value);
    }

    fn pinned(&mut self, key: u64) -> Ends {
        Ends::of(self.values[self.shard(key)].0.read().get(&key).expect("every key is there"))
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        // Out of place, as every store here: who reads holds up nobody for as long as a copy takes.
        let value = value.to_vec();
        let old = self.values[self.shard(key)].0.write().insert(key, value);
        drop(old);
    }

    fn fetch_add(&mut self, key: u64) -> u64 {
        let mut shard = self.numbers[self.shard(key)].0.write();
        let value = shard.get_mut(&key).expect("every key is there");
        *value += 1;
        *value - 1
    }

    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>) {
        values.extend(keys.iter().map(|key| self.get(*key)));
    }
}
