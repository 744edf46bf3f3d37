//! Very many keys over two nodes, and values too large for a page of a walk.

use super::bed::{on_machines, over, shared};
use tarragon_ddict::DDict;
use tarragon_testbed::role;
use tarragon_transport::{Rank, World};

/// A million keys are counted, walked over once each, and found from both nodes.
#[test]
fn a_million_keys_lie_on_two_nodes() {
    let test = "many::a_million_keys_lie_on_two_nodes";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    const KEYS: u64 = 1_000_000;
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, u64>(&world, Rank(0), || {
        DDict::builder().memory(256 << 20).shards_per_node(4).create_on(&world).unwrap()
    });
    // Each puts the keys of its own node, and some of the other's.
    let near = dict.shards() / 2 * world.fabric().node_of(world.rank()).unwrap();
    let is_near = |key: &u64| (near..near + dict.shards() / 2).contains(&dict.shard_of(key).unwrap());
    for key in (0..KEYS).filter(|key| if key.is_multiple_of(200) { !is_near(key) } else { is_near(key) }) {
        dict.put(&key, key * 3).unwrap();
    }
    world.barrier().unwrap();
    assert_eq!(dict.len().unwrap(), KEYS);
    let local = dict.local_len().unwrap();
    assert!((KEYS * 49 / 100..KEYS * 51 / 100).contains(&local), "{local}");
    let mut seen = vec![false; KEYS as usize];
    for item in dict.items() {
        let (key, value) = item.unwrap();
        assert_eq!(value, key * 3);
        assert!(!std::mem::replace(&mut seen[key as usize], true), "{key} came twice");
    }
    assert!(seen.into_iter().all(|seen| seen));
    let mut hits = 0;
    for key in (0..KEYS).step_by(97) {
        assert_eq!(dict.get(&key).unwrap(), Some(key * 3));
        hits += 1;
    }
    world.barrier().unwrap();
    let stats = dict.stats().unwrap();
    assert_eq!(stats.shards.iter().map(|shard| shard.hits).sum::<u64>(), 2 * hits);
    assert_eq!(stats.shards.iter().map(|shard| shard.keys).sum::<u64>(), KEYS);
    world.barrier().unwrap();
    over(world);
}

/// Large values of another node come whole in a walk, among small ones.
#[test]
fn walks_bring_large_values_of_another_node() {
    let test = "many::walks_bring_large_values_of_another_node";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(128 << 20).create_on(&world).unwrap()
    });
    let value = |key: u64| vec![key; if key.is_multiple_of(3) { 40_000 + key as usize } else { 5 }];
    if world.rank() == Rank(0) {
        (0..120).for_each(|key| dict.put(&key, value(key)).unwrap());
    }
    world.barrier().unwrap();
    let mut keys: Vec<u64> = Vec::new();
    for item in dict.items() {
        let (key, found) = item.unwrap();
        assert!(found == value(key), "{key}");
        keys.push(key);
    }
    keys.sort_unstable();
    assert!(keys.into_iter().eq(0..120));
    world.barrier().unwrap();
    over(world);
}
