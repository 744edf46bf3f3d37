//! Hits and waits are those of all processes, and outlive them.

use crate::process::{Other, hear, role};
use std::time::Duration;
use tarragon_ddict::{DDict, Descriptor, ShardStats, Stats};

type Dict = DDict<u64, u64>;

const KEYS: u64 = 64;
const SHARDS: u32 = 4;

fn create() -> Dict {
    let dict = Dict::builder().memory(16 << 20).shards_per_node(SHARDS).create().unwrap();
    dict.multi_put((0..KEYS).map(|key| (key, key))).unwrap();
    dict
}

/// Reads each key so many times, and sleeps once for one that never comes.
fn read(dict: &Dict, times: u64) {
    for key in (0..times).flat_map(|_| 0..KEYS) {
        assert_eq!(dict.get(&key).unwrap(), Some(key));
    }
    assert_eq!(dict.get(&KEYS).unwrap(), None);
    dict.get_timeout(&KEYS, Duration::from_millis(1)).unwrap_err();
}

fn figures(dict: &Dict, figure: fn(&ShardStats) -> u64) -> Vec<u64> {
    dict.stats().unwrap().shards.iter().map(figure).collect()
}

#[test]
fn hits_and_waits_of_all_processes_are_counted_and_outlive_them() {
    if let Some((times, text)) = role() {
        let dict = text.parse::<Descriptor>().unwrap().attach::<u64, u64>().unwrap();
        read(&dict, times.parse().unwrap());
        println!("READ");
        hear();
        return;
    }
    let dict = create();
    let text = dict.descriptor().to_string();
    let start = |times| {
        let test = "stats::hits_and_waits_of_all_processes_are_counted_and_outlive_them";
        let mut other = Other::start(test, times, &text);
        other.line("READ");
        other
    };
    let mut keys = vec![0; SHARDS as usize];
    (0..KEYS).for_each(|key| keys[dict.shard_of(&key).unwrap() as usize] += 1);
    let check = |times: u64, sleepers: u64, what: &str| {
        let wanted: Vec<u64> = keys.iter().map(|keys| keys * times).collect();
        assert_eq!(figures(&dict, |shard| shard.hits), wanted, "{what}");
        let waits = figures(&dict, |shard| shard.waits);
        let home = dict.shard_of(&KEYS).unwrap() as usize;
        assert!(waits[home] >= sleepers, "{what}: {waits:?}");
        assert_eq!(waits.iter().sum::<u64>(), waits[home], "{what}");
    };
    check(0, 0, "nobody read");
    read(&dict, 1);
    check(1, 1, "this process");
    let (leaving, mut killed) = (start("2"), start("4"));
    check(7, 3, "and two that live");
    killed.kill();
    check(7, 3, "one was killed");
    assert!(dict.recover() > 0);
    check(7, 3, "and recovered");
    let mut leaving = leaving;
    leaving.say("end");
    leaving.finish();
    check(7, 3, "the other one left");
    // Whose records these two use again.
    let (mut next, mut last) = (start("8"), start("16"));
    next.kill();
    last.kill();
    check(31, 5, "and two more");
}

#[test]
fn every_kind_of_get_is_a_hit_once_and_a_walk_is_none() {
    let dict = DDict::<String, Vec<u8>>::builder().memory(4 << 20).create().unwrap();
    let long = "a key that does not fit into its entry";
    for (key, bytes) in [("short", 4), (long, 4), ("copied", 100), ("pinned", 5000)] {
        dict.put(key, vec![7; bytes]).unwrap();
        let hits = |read: &dyn Fn()| {
            let before = dict.stats().unwrap().shards[0].hits;
            read();
            dict.stats().unwrap().shards[0].hits - before
        };
        let gets: [(&str, &dyn Fn()); 6] = [
            ("get", &|| assert!(dict.get(key).unwrap().is_some())),
            ("get_ref", &|| assert!(dict.get_ref(key).unwrap().is_some())),
            ("get_or", &|| assert!(!dict.get_or(key, Vec::new()).unwrap().is_empty())),
            ("get_timeout", &|| assert!(!dict.get_timeout(key, Duration::ZERO).unwrap().is_empty())),
            ("get_verified", &|| assert!(dict.get_verified(key).unwrap().is_some())),
            ("multi_get", &|| assert!(dict.multi_get([key]).unwrap()[0].is_some())),
        ];
        for (name, get) in gets {
            assert_eq!(hits(get), 1, "{name} of {key}");
        }
        let others: [(&str, &dyn Fn()); 5] = [
            ("a miss", &|| assert!(dict.get("nothing").unwrap().is_none())),
            ("contains", &|| assert!(dict.contains(key).unwrap())),
            ("items", &|| assert!(dict.items().all(|it| it.is_ok()))),
            ("filter", &|| assert!(dict.filter(|_, _| true).unwrap().all(|it| it.is_ok()))),
            ("update", &|| dict.update(key, |value| value).unwrap()),
        ];
        for (name, other) in others {
            assert_eq!(hits(other), 0, "{name} of {key}");
        }
    }
}

/// Once it was two: the short way counted it, and then found that it had to be copied.
#[test]
fn a_get_ref_that_has_to_copy_is_a_hit_once() {
    let hits = |stats: Stats| stats.shards[0].hits;
    let wide = DDict::<u64, Vec<u128>>::builder().memory(4 << 20).create().unwrap();
    for key in 0..8 {
        wide.put(&key, vec![7; 1]).unwrap();
        let value = wide.get_ref(&key).unwrap().unwrap();
        assert_eq!((&value[..], value.is_in_place()), (&[7_u128][..], false));
        drop(value);
        assert_eq!(hits(wide.stats().unwrap()), key + 1);
    }
}

#[test]
fn shards_share_what_is_free() {
    let dict = create();
    let stats = dict.stats().unwrap();
    assert!(stats.shards.iter().all(|shard| shard.free_bytes == stats.free_bytes));
}
