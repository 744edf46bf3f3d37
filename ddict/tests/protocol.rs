//! The dictionary protocol, each verb once, in one process.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tarragon_ddict::{DDict, Error, Exchange};

const MEMORY: u64 = 32 << 20;

fn dict<K: 'static, V: 'static>() -> DDict<K, V> {
    DDict::builder().memory(MEMORY).create().unwrap()
}

#[test]
fn get_sees_what_was_put() {
    let dict = dict::<String, f64>();
    assert_eq!(dict.get("x").unwrap(), None);
    dict.put("x", 0.5).unwrap();
    dict.put(&"y".to_owned(), 1.5).unwrap();
    assert_eq!(dict.get("x").unwrap(), Some(0.5));
    assert_eq!(dict.get(&"y".to_owned()).unwrap(), Some(1.5));
    dict.put("x", 2.5).unwrap();
    assert_eq!(dict.get("x").unwrap(), Some(2.5));
    assert_eq!(dict.get_or("x", 0.0).unwrap(), 2.5);
    assert_eq!(dict.get_or("z", 7.0).unwrap(), 7.0);
    assert!(!dict.contains("z").unwrap());
    assert_eq!(dict.len().unwrap(), 2);
}

#[test]
fn borrowed_forms_find_the_key() {
    let bytes = dict::<Vec<u8>, u8>();
    bytes.put(&[1_u8, 2, 3][..], 1).unwrap();
    assert_eq!(bytes.get(&vec![1_u8, 2, 3]).unwrap(), Some(1));
    let pairs = dict::<(u32, String), u8>();
    pairs.put(&(1, "a".to_owned()), 2).unwrap();
    assert_eq!(pairs.get(&(1, "a".to_owned())).unwrap(), Some(2));
    assert_eq!(pairs.get(&(2, "a".to_owned())).unwrap(), None);
}

#[test]
fn remove_and_pop_take_keys_out() {
    let dict = dict::<u64, Vec<u8>>();
    dict.put(&1, vec![7; 1000]).unwrap();
    dict.put(&2, vec![8; 3]).unwrap();
    assert_eq!(dict.pop(&1).unwrap(), Some(vec![7; 1000]));
    assert_eq!(dict.pop(&1).unwrap(), None);
    assert!(dict.remove(&2).unwrap());
    assert!(!dict.remove(&2).unwrap());
    assert!(dict.is_empty().unwrap());
}

#[test]
fn one_of_many_pops_a_value() {
    let dict = dict::<u32, u32>();
    dict.multi_put((0..1000).map(|i| (i, i))).unwrap();
    let sum = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..1000 {
                    if let Some(value) = dict.pop(&i).unwrap() {
                        sum.fetch_add(u64::from(value), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), 499_500);
}

#[test]
fn put_if_absent_lets_one_win() {
    let dict = self::dict::<String, u32>();
    let wins: Vec<bool> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                scope.spawn({
                    let dict = &dict;
                    move || dict.put_if_absent("k", i).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(wins.iter().filter(|&&won| won).count(), 1);
    let winner = wins.iter().position(|&won| won).unwrap() as u32;
    assert_eq!(dict.get("k").unwrap(), Some(winner));
}

#[test]
fn compare_exchange_compares() {
    let dict = dict::<String, String>();
    let (a, b) = ("a".to_owned(), "b".repeat(500));
    assert_eq!(dict.compare_exchange("k", Some(&a), Some(&b)).unwrap(), Exchange::Other(None));
    assert_eq!(dict.compare_exchange("k", None, Some(&a)).unwrap(), Exchange::Done);
    assert_eq!(dict.compare_exchange("k", None, Some(&b)).unwrap(), Exchange::Other(Some(a.clone())));
    assert_eq!(dict.compare_exchange("k", Some(&a), Some(&b)).unwrap(), Exchange::Done);
    assert_eq!(dict.get("k").unwrap(), Some(b.clone()));
    assert!(dict.compare_exchange("k", Some(&b), None).unwrap().is_done());
    assert!(!dict.contains("k").unwrap());
}

#[test]
fn fetch_add_loses_nothing() {
    let dict = dict::<String, u64>();
    let floats = self::dict::<u8, f64>();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    dict.fetch_add("n", 3).unwrap();
                    floats.fetch_add(&1, 0.5).unwrap();
                }
            });
        }
    });
    assert_eq!(dict.get("n").unwrap(), Some(24_000));
    assert_eq!(floats.get(&1).unwrap(), Some(4000.0));
    assert_eq!(dict.fetch_add("n", u64::MAX).unwrap(), 24_000);
    assert_eq!(dict.get("n").unwrap(), Some(23_999), "integers wrap around");
}

#[test]
fn update_is_one_step() {
    let dict = dict::<String, Vec<u32>>();
    thread::scope(|scope| {
        for thread in 0..4 {
            let dict = &dict;
            scope.spawn(move || {
                for i in 0..100 {
                    let push = |list: Option<Vec<u32>>| {
                        let mut list = list.unwrap_or_default();
                        list.push(thread * 100 + i);
                        Some(list)
                    };
                    dict.update("list", push).unwrap();
                }
            });
        }
    });
    let mut list = dict.get("list").unwrap().unwrap();
    list.sort_unstable();
    assert_eq!(list, (0..400).collect::<Vec<_>>());
    dict.update("list", |_| None).unwrap();
    dict.update("nothing", |value| {
        assert_eq!(value, None);
        None
    })
    .unwrap();
    assert!(dict.is_empty().unwrap());
}

#[test]
fn put_with_writes_in_place_and_a_panic_puts_nothing() {
    let dict = dict::<String, Vec<f32>>();
    for len in [0, 1, 3, 4, 5, 1000, 100_000] {
        dict.put_with("k", len, |numbers| {
            assert_eq!(numbers.len(), len);
            numbers.iter_mut().zip(0..).for_each(|(number, i)| *number = i as f32);
        })
        .unwrap();
        let wanted: Vec<f32> = (0..len).map(|i| i as f32).collect();
        assert_eq!(dict.get("k").unwrap(), Some(wanted));
    }
    let before = dict.stats().unwrap().used_bytes;
    let panicked = thread::scope(|scope| {
        scope.spawn(|| dict.put_with("other", 100_000, |_| panic!("on purpose"))).join().is_err()
    });
    assert!(panicked);
    assert!(!dict.contains("other").unwrap());
    assert_eq!(dict.stats().unwrap().used_bytes, before);
    dict.put_slice("k", &[1.0, 2.0]).unwrap();
    assert_eq!(dict.get("k").unwrap(), Some(vec![1.0, 2.0]));
}

#[test]
fn get_ref_is_in_place_aligned_and_stays() {
    let dict = dict::<u32, Vec<f64>>();
    for len in [3, 8, 500, 300_000] {
        let old: Vec<f64> = (0..len).map(f64::from).collect();
        dict.put(&1, &old).unwrap();
        let held = dict.get_ref(&1).unwrap().unwrap();
        assert!(held.is_in_place());
        assert_eq!(held.as_ptr().addr() % 64, 0);
        dict.put(&1, vec![-1.0; 10]).unwrap();
        dict.remove(&1).unwrap();
        for i in 0..5 {
            dict.put(&(2 + i), vec![-2.0; len as usize]).unwrap();
        }
        assert_eq!(*held, *old, "what is held does not change");
    }
    let texts = self::dict::<u32, String>();
    texts.put_str(&1, "ä text that is long enough to lie in a block").unwrap();
    assert!(texts.get_ref(&1).unwrap().unwrap().starts_with('ä'));
    assert!(texts.get_ref(&2).unwrap().is_none());
}

#[test]
fn short_guards_may_be_moved() {
    let dict = dict::<u32, Vec<u128>>();
    for len in [0, 1, 2, 100] {
        dict.put(&1, vec![7; len]).unwrap();
        // Places that are 8 bytes apart, modulo 16.
        let held: Vec<(u8, _)> = (0..9).map(|i| (i, dict.get_ref(&1).unwrap().unwrap())).collect();
        let boxed: Vec<Box<(u64, _)>> =
            held.into_iter().map(|(i, it)| Box::new((u64::from(i), it))).collect();
        assert!(boxed.iter().all(|it| it.1[..] == vec![7; len]));
    }
}

#[test]
fn very_many_guards_of_a_thread_are_still_right() {
    let dict = dict::<u32, Vec<u32>>();
    for i in 0..3000 {
        dict.put(&i, vec![i; 200]).unwrap();
    }
    let held: Vec<_> = (0..3000).map(|i| dict.get_ref(&i).unwrap().unwrap()).collect();
    dict.clear().unwrap();
    assert!(held.iter().zip(0..).all(|(values, i)| values.iter().all(|&value| value == i)));
}

#[test]
fn walks_give_each_key_once() {
    let dict = DDict::<u32, String>::builder().memory(MEMORY).shards_per_node(3).create().unwrap();
    let all: BTreeMap<u32, String> = (0..5000).map(|i| (i, format!("value {i}"))).collect();
    dict.extend(&all).unwrap();
    assert_eq!(dict.items().collect::<Result<BTreeMap<_, _>, _>>().unwrap(), all);
    let mut keys: Vec<u32> = dict.keys().map(Result::unwrap).collect();
    keys.sort_unstable();
    assert_eq!(keys, (0..5000).collect::<Vec<_>>());
    assert_eq!(dict.values().count(), 5000);
    assert_eq!(dict.local_keys().count() as u64, dict.local_len().unwrap());
}

#[test]
fn a_walk_beside_writers_gives_what_stays_exactly_once() {
    let dict = dict::<u32, u32>();
    dict.multi_put((0..2000).map(|i| (i, i))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 2000..20_000 {
                dict.put(&i, i).unwrap();
                dict.remove(&(i - 1000).max(2000)).unwrap();
            }
        });
        for _ in 0..10 {
            let mut kept: Vec<u32> = dict.keys().map(Result::unwrap).filter(|&key| key < 2000).collect();
            kept.sort_unstable();
            assert_eq!(kept, (0..2000).collect::<Vec<_>>());
        }
    });
}

#[test]
fn filter_gives_what_holds_in_order() {
    let dict = DDict::<(i32, String), i32>::builder().memory(MEMORY).shards_per_node(5).create().unwrap();
    for i in -500..500 {
        dict.put(&(i / 10, i.to_string()), i).unwrap();
    }
    let found: Vec<_> = dict.filter(|_, value| value % 3 == 0).unwrap().collect::<Result<_, _>>().unwrap();
    let mut wanted: Vec<((i32, String), i32)> =
        (-500..500).filter(|i| i % 3 == 0).map(|i| ((i / 10, i.to_string()), i)).collect();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn filter_leaves_out_what_changed_meanwhile() {
    let dict = dict::<u32, u32>();
    dict.multi_put((0..10).map(|i| (i, i))).unwrap();
    let found = dict.filter(|_, &value| value < 5).unwrap();
    dict.remove(&1).unwrap();
    dict.put(&2, 100).unwrap();
    dict.put(&3, 0).unwrap();
    assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), [(0, 0), (3, 0), (4, 4)]);
}

#[test]
fn batches_write_at_commit() {
    let dict = dict::<u32, Vec<u8>>();
    let mut batch = dict.batch_put();
    for i in 0..500 {
        batch.put(&i, vec![i as u8; i as usize]).unwrap();
    }
    batch.put(&7, vec![1]).unwrap();
    assert_eq!(batch.len(), 501);
    assert!(dict.is_empty().unwrap());
    batch.commit().unwrap();
    assert_eq!(dict.len().unwrap(), 500);
    assert_eq!(dict.get(&7).unwrap(), Some(vec![1]), "the later put holds");
    assert_eq!(dict.get(&499).unwrap(), Some(vec![499_u32 as u8; 499]));
    drop(dict.batch_put());
}

#[test]
fn multi_get_keeps_the_order() {
    let dict = dict::<String, u32>();
    dict.multi_put([("a".to_owned(), 1), ("b".to_owned(), 2)]).unwrap();
    assert_eq!(dict.multi_get(["b", "x", "a"]).unwrap(), [Some(2), None, Some(1)]);
    dict.bput("c", 3).unwrap();
    assert_eq!(dict.bget("c").unwrap(), Some(3));
}

#[test]
fn a_batch_that_fails_says_how_far_it_came() {
    let dict = DDict::<u32, Vec<u8>>::builder().memory(1 << 20).create().unwrap();
    let pairs = (0..100).map(|i| (i, vec![0; 100_000]));
    let Err(Error::Batch { written, total: 100, source }) = dict.multi_put(pairs) else { panic!() };
    assert!(matches!(*source, Error::Memory(_)));
    assert_eq!(dict.len().unwrap(), written as u64);
}

#[test]
fn clear_takes_all_out() {
    let dict = dict::<u32, Vec<u8>>();
    for _ in 0..20 {
        dict.multi_put((0..100).map(|i| (i, vec![0; 100_000]))).unwrap();
        dict.clear().unwrap();
        assert!(dict.is_empty().unwrap());
        assert_eq!(dict.keys().count(), 0);
    }
}

#[test]
fn a_frozen_dictionary_is_read_only() {
    let dict = dict::<String, u32>();
    dict.put("k", 1).unwrap();
    dict.freeze().unwrap();
    assert!(dict.is_frozen());
    let is_frozen = |result: Result<(), Error>| matches!(result, Err(Error::Frozen { .. }));
    assert!(is_frozen(dict.put("k", 2)));
    assert!(is_frozen(dict.pput("k", 2)));
    assert!(is_frozen(dict.remove("k").map(|_| ())));
    assert!(is_frozen(dict.pop("k").map(|_| ())));
    assert!(is_frozen(dict.fetch_add("k", 2).map(|_| ())));
    assert!(is_frozen(dict.put_if_absent("l", 2).map(|_| ())));
    assert!(is_frozen(dict.clear()));
    assert_eq!(dict.get("k").unwrap(), Some(1));
    dict.unfreeze().unwrap();
    dict.put("k", 2).unwrap();
    assert_eq!(dict.get("k").unwrap(), Some(2));
}

#[test]
fn shards_part_the_keys() {
    let dict = DDict::<u32, u32>::builder().memory(MEMORY).shards_per_node(4).create().unwrap();
    dict.multi_put((0..1000).map(|i| (i, i))).unwrap();
    assert_eq!(dict.shards(), 4);
    let mut seen = 0;
    for shard in 0..4 {
        let part = dict.pinned(shard).unwrap();
        assert!(part.len().unwrap() > 100, "keys are spread");
        assert_eq!(part.keys().count() as u64, part.len().unwrap());
        for item in part.items() {
            let (key, value) = item.unwrap();
            assert_eq!(dict.shard_of(&key).unwrap(), shard);
            assert_eq!(part.get(&key).unwrap(), Some(value));
            seen += 1;
        }
    }
    assert_eq!(seen, 1000);
    let elsewhere = (dict.shard_of(&5).unwrap() + 1) % 4;
    let part = dict.pinned(elsewhere).unwrap();
    assert!(matches!(part.put(&5, 0), Err(Error::OtherShard { shard, .. }) if shard == elsewhere));
    assert!(matches!(dict.pinned(4), Err(Error::NoShard { shard: 4, shards: 4 })));
}

#[test]
fn stats_count() {
    let dict = DDict::<u32, Vec<u8>>::builder().memory(MEMORY).shards_per_node(2).create().unwrap();
    dict.multi_put((0..100).map(|i| (i, vec![0; 1000]))).unwrap();
    let stats = dict.stats().unwrap();
    assert_eq!(stats.shards.iter().map(|shard| shard.keys).sum::<u64>(), 100);
    assert_eq!(stats.shards.iter().map(|shard| shard.bytes).sum::<u64>(), 100_000);
    assert!(stats.used_bytes >= 100_000 && stats.used_bytes + stats.free_bytes == stats.capacity_bytes);
    assert!(dict.with_timeout(Some(Duration::ZERO)).wait_for_key(&1000).is_err());
}

#[test]
fn nothing_leaks() {
    let dict = dict::<u32, Vec<u8>>();
    for round in 0..5_u32 {
        for i in 0..500 {
            dict.put(&i, vec![round as u8; (i * 37 % 5000) as usize]).unwrap();
            dict.update(&i, |value| {
                value.map(|mut it| {
                    it.push(1);
                    it
                })
            })
            .unwrap();
        }
        (0..250).for_each(|i| assert!(dict.remove(&(i * 2)).unwrap()));
    }
    let audit = dict.audit().unwrap();
    assert!(audit.dangling.is_empty(), "{audit:?}");
    dict.recover();
}

#[test]
fn keys_name_data() {
    let (one, other) = (dict::<String, u32>(), dict::<String, u32>());
    assert_eq!(one.key("k").unwrap(), one.clone().key(&"k".to_owned()).unwrap());
    assert_ne!(one.key("k").unwrap(), one.key("l").unwrap());
    assert_ne!(one.key("k").unwrap(), other.key("k").unwrap());
    assert_eq!(one.key("k").unwrap().uid, one.uid());
    assert_eq!(one.key("k").unwrap().bytes, b"k");
}
