//! The store against a map, with keys and values of every form; threads against one another.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

fn options() -> Options {
    Options {
        memory_bytes: 64 << 20,
        shards: 1,
        wait_for_keys: false,
        working_set: 1,
        timeout_ms: Some(10_000),
        checksums: true,
        types: 7,
        seed: None,
        replicas: 1,
    }
}

fn store(options: &Options) -> Store {
    Store::create(options).expect("a store")
}

/// A key by number: every fifth is long.
fn key(n: u64) -> Vec<u8> {
    match n % 5 {
        0 => format!("a key that does not fit into its entry, number {n}").into_bytes(),
        _ => n.to_le_bytes().to_vec(),
    }
}

/// A value whose bytes all follow from its number; `len` decides where it lies.
fn value(n: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (n as usize + i * 31) as u8).collect()
}

fn all(store: &Store, checkpoint: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut map = BTreeMap::new();
    for shard in 0..store.options().shards {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = store
                .scan(shard, checkpoint, at, true, &mut |key, value| {
                    assert!(map.insert(key.to_vec(), value.to_vec()).is_none(), "shown twice");
                    ControlFlow::Continue(())
                })
                .expect("a scan");
        }
    }
    map
}

#[derive(Clone, Debug)]
enum Op {
    Put(u64, usize),
    PutAbsent(u64, usize),
    Remove(u64),
    Append(u64),
    Get(u64),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let len = prop_oneof![Just(0usize), 0..18usize, 200..300usize, Just(5000usize)];
    let one = prop_oneof![
        6 => (0..300u64, len.clone()).prop_map(|(k, l)| Op::Put(k, l)),
        2 => (0..300u64, len).prop_map(|(k, l)| Op::PutAbsent(k, l)),
        3 => (0..300u64).prop_map(Op::Remove),
        1 => (0..300u64).prop_map(Op::Append),
        3 => (0..300u64).prop_map(Op::Get),
        1 => Just(Op::Clear),
    ];
    proptest::collection::vec(one, 1..600)
}

fn apply(store: &Store, map: &mut BTreeMap<Vec<u8>, Vec<u8>>, n: usize, op: &Op) {
    let keep = Keep::Default;
    match *op {
        Op::Put(k, len) => {
            let value = value(n as u64, len);
            store.put(&key(k), 0, &value, When::Always, keep).expect("a put");
            map.insert(key(k), value);
        }
        Op::PutAbsent(k, len) => {
            let value = value(n as u64, len);
            let is_new = store.put(&key(k), 0, &value, When::Absent, keep).expect("a put");
            assert_eq!(is_new, !map.contains_key(&key(k)));
            map.entry(key(k)).or_insert(value);
        }
        Op::Remove(k) => {
            assert_eq!(store.remove(&key(k), 0, <[u8]>::to_vec).expect("a removal"), map.remove(&key(k)));
        }
        Op::Append(k) => {
            let longer = |old: Option<&[u8]>| [old.unwrap_or_default(), b"+"].concat();
            store.update(&key(k), 0, &mut |old| Change::Write(longer(old))).expect("an update");
            let old = map.get(&key(k)).cloned();
            map.insert(key(k), longer(old.as_deref()));
        }
        Op::Get(k) => {
            assert_eq!(store.get(&key(k), 0, <[u8]>::to_vec).expect("a get").as_ref(), map.get(&key(k)));
            let pinned = store.pin_verified(&key(k), 0).expect("a pin");
            assert_eq!(pinned.as_deref(), map.get(&key(k)).map(Vec::as_slice));
        }
        Op::Clear if n.is_multiple_of(7) => {
            store.clear(0).expect("it is cleared");
            map.clear();
        }
        Op::Clear => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_are_those_of_a_map(ops in ops(), shards in 1..4u32) {
        let store = store(&Options { shards, ..options() });
        let mut map = BTreeMap::new();
        for (n, op) in ops.iter().enumerate() {
            apply(&store, &mut map, n, op);
        }
        prop_assert_eq!(store.len(0).expect("a length"), map.len() as u64);
        prop_assert_eq!(all(&store, 0), map);
        let audit = store.audit().expect("an audit");
        prop_assert!(audit.dangling.is_empty(), "{:?}", audit);
    }
}

#[test]
fn many_keys_split_pages_and_none_is_lost() {
    let store = store(&options());
    for n in 0..60_000u64 {
        store.put(&key(n), 0, &value(n, 8), When::Always, Keep::Default).expect("a put");
    }
    for n in 0..60_000u64 {
        assert_eq!(store.get(&key(n), 0, <[u8]>::to_vec).expect("a get"), Some(value(n, 8)), "{n}");
        assert!(!store.contains(&key(n + 60_000), 0).expect("a look"));
    }
    assert_eq!(store.len(0).expect("a length"), 60_000);
    assert_eq!(all(&store, 0).len(), 60_000);
    let audit = store.audit().expect("an audit");
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn threads_that_write_one_key_lose_no_addition() {
    let store = store(&options());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..20_000u64 {
                    let key = (n % 3).to_le_bytes();
                    let mut add = |old: Option<&[u8]>| {
                        let old = old.map_or(0, |b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
                        let mut bytes = [0; 16];
                        bytes[..8].copy_from_slice(&(old + 1).to_le_bytes());
                        Change::Short(bytes, 8)
                    };
                    store.update(&key, 0, &mut add).expect("an update");
                }
            });
        }
    });
    let sum: u64 = (0..3u64)
        .filter_map(|k| {
            store.get(&k.to_le_bytes(), 0, |b| u64::from_le_bytes(b.try_into().expect("8"))).expect("a get")
        })
        .sum();
    assert_eq!(sum, 80_000);
}

#[test]
fn readers_see_whole_values_while_writers_replace_remove_and_split() {
    let store = store(&options());
    let stop = AtomicBool::new(false);
    let check = |bytes: &[u8]| assert!(bytes.windows(2).all(|w| w[1] == w[0].wrapping_add(31)), "torn");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|w| {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..30_000u64 {
                        let k = key((n * 7 + w) % 2000);
                        match n % 11 {
                            0 => drop(store.remove(&k, 0, |_| ()).expect("a removal")),
                            _ => {
                                let len = [8, 16, 40, 700][n as usize % 4];
                                store.put(&k, 0, &value(n, len), When::Always, Keep::Default).expect("a put");
                            }
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut pins = Vec::new();
                for n in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    store.get(&key(n % 2000), 0, check).expect("a get");
                    if let Some(pin) = store.pin(&key(n * 3 % 2000), 0).expect("a pin") {
                        check(&pin);
                        pins.push(pin);
                    }
                    if pins.len() == 30 {
                        pins.iter().for_each(|pin| check(pin));
                        pins.clear();
                    }
                }
            });
        }
        for writer in writers {
            writer.join().expect("a writer");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let audit = store.audit().expect("an audit");
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn a_scan_shows_what_is_there_all_the_time_once() {
    let store = store(&options());
    let stays: BTreeSet<_> = (0..3000u64).map(key).collect();
    for key in &stays {
        store.put(key, 0, b"stays", When::Always, Keep::Default).expect("a put");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 3000..40_000u64 {
                store.put(&key(n), 0, b"comes", When::Always, Keep::Default).expect("a put");
            }
        });
        for _ in 0..20 {
            let seen: BTreeSet<_> = all(&store, 0).into_keys().filter(|key| stays.contains(key)).collect();
            assert_eq!(seen.len(), stays.len());
        }
    });
}

#[test]
fn checkpoints_see_what_was_written_up_to_them() {
    let store = store(&Options { working_set: 2, ..options() });
    let put = |k: u64, at, v: &[u8]| store.put(&key(k), at, v, When::Always, Keep::Default).map(drop);
    let get = |k: u64, at| {
        store.get(&key(k), at, <[u8]>::to_vec).map(|v| v.map(|v| String::from_utf8(v).expect("text")))
    };
    put(1, 0, b"zero").expect("a put");
    put(2, 0, b"kept").expect("a put");
    put(1, 1, b"one").expect("a put");
    assert_eq!(get(1, 0).expect("a get").as_deref(), Some("zero"));
    assert_eq!(get(1, 1).expect("a get").as_deref(), Some("one"));
    assert_eq!(get(2, 1).expect("a get").as_deref(), Some("kept"));
    store.remove(&key(2), 1, |_| ()).expect("a removal");
    assert_eq!(get(2, 0).expect("a get").as_deref(), Some("kept"));
    assert_eq!(get(2, 1).expect("a get"), None);
    put(3, 2, b"two").expect("a put");
    assert!(matches!(get(1, 0), Err(Error::Retired { checkpoint: 0, oldest: 1, kept: 2 })));
    assert!(matches!(put(1, 0, b"late"), Err(Error::Retired { .. })));
    assert_eq!(get(1, 2).expect("a get").as_deref(), Some("one"));
    put(4, 9, b"nine").expect("a put");
    assert_eq!(get(1, 9).expect("a get").as_deref(), Some("one"));
    assert_eq!(get(2, 9).expect("a get"), None);
    assert_eq!(all(&store, 9).len(), 3);
    let audit = store.audit().expect("an audit");
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn a_frozen_or_destroyed_store_takes_nothing() {
    let store = store(&options());
    let put = || store.put(b"k", 0, b"v", When::Always, Keep::Default);
    store.freeze(true).expect("it is frozen");
    assert!(matches!(put(), Err(Error::Frozen { .. })));
    store.freeze(false).expect("it is not");
    assert!(put().expect("a put"));
    store.destroy();
    assert!(matches!(put(), Err(Error::Gone { .. })));
    assert!(matches!(store.get(b"k", 0, |_| ()), Err(Error::Gone { .. })));
}

#[test]
fn a_filler_that_panics_or_fails_leaves_nothing() {
    let store = store(&options());
    let failed = store.put_with(b"k", 0, 1000, Keep::Default, |_| Err("no")).expect("no error of ours");
    assert_eq!(failed, Err("no"));
    let panics = std::panic::AssertUnwindSafe(|| {
        store.put_with(b"k", 0, 1000, Keep::Default, |_| -> Result<(), ()> { panic!("no") })
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(store.len(0).expect("a length"), 0);
    let audit = store.audit().expect("an audit");
    assert!(audit.leaked.is_empty(), "{audit:?}");
}

#[test]
fn what_idle_threads_gave_up_does_not_fill_the_memory() {
    let store = store(&Options { memory_bytes: 64 << 20, ..options() });
    let (turn, next) = (std::sync::Mutex::new(()), std::sync::Barrier::new(25));
    std::thread::scope(|scope| {
        for thread in 0..24u64 {
            let (store, turn, next) = (&store, &turn, &next);
            scope.spawn(move || {
                let put = |n| {
                    let value = value(n, 900_000);
                    store.put(&thread.to_le_bytes(), 0, &value, When::Always, Keep::Default)
                };
                let puts: Result<Vec<_>, _> = {
                    let _mine = turn.lock();
                    (0..5).map(put).collect()
                };
                // All stay alive until the last one has written.
                next.wait();
                assert!(puts.is_ok(), "thread {thread}: {puts:?}");
            });
        }
        next.wait();
    });
    assert_eq!(store.len(0).expect("a length"), 24);
}

#[test]
fn a_freeze_is_over_when_no_write_is_under_way() {
    let store = store(&options());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                for n in 0u64.. {
                    let _frozen =
                        store.put(&key(n % 50 + thread), 0, &value(n, 40), When::Always, Keep::Default);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for _ in 0..200 {
            store.freeze(true).expect("it is frozen");
            let before = all(&store, 0);
            std::thread::yield_now();
            assert_eq!(before, all(&store, 0));
            store.freeze(false).expect("it is not");
        }
        stop.store(true, Ordering::Relaxed);
    });
}
