//! Copies of a key on every node: `bput` and `bget`.

use super::bed::{home_of, number, on_machines, on_mortal_machines, over, shared, value};
use std::time::{Duration, Instant};
use tarragon_ddict::{DDict, Error};
use tarragon_testbed::{PATIENCE, die, role, say, wait_until};
use tarragon_transport::{HandlerId, Rank, World};

const KEYS: u64 = 24;

fn words(key: u64) -> usize {
    [2, 3, 40, 30_000][key as usize % 4]
}

/// What every rank sees of all keys, by `bget` and by `get`.
fn expect(world: &World, dict: &DDict<u64, Vec<u64>>, wanted: impl Fn(u64) -> Option<u64>) {
    world.barrier().unwrap();
    for key in 0..KEYS {
        let [copy, real] = [dict.bget(&key), dict.get(&key)].map(|it| it.unwrap().map(|it| number(key, &it)));
        assert_eq!((copy, real), (wanted(key), wanted(key)), "key {key}");
    }
    world.barrier().unwrap();
}

/// A copy is read on each node, is no key there, and goes before anything else changes its key.
#[test]
fn copies_are_no_keys_and_follow_every_write() {
    let test = "copies::copies_are_no_keys_and_follow_every_write";
    if role().is_none() {
        return on_machines(3, 1, test);
    }
    let world = World::from_environment().unwrap();
    let me = u64::from(world.rank().0);
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(64 << 20).shards_per_node(2).working_set(2).create_on(&world).unwrap()
    });
    let mine = |key: &u64| key % 3 == me;
    assert_eq!(dict.bget(&0).unwrap(), None);
    world.barrier().unwrap();
    for round in 0..3 {
        (0..KEYS)
            .filter(mine)
            .for_each(|key| dict.bput(&key, value(key, round, words(key + round))).unwrap());
        expect(&world, &dict, |_| Some(round));
    }
    assert_eq!(dict.len().unwrap(), KEYS);
    assert_eq!(dict.keys().count() as u64, KEYS);
    assert_eq!(
        dict.items().map(Result::unwrap).filter(|(key, it)| number(*key, it) == 2).count() as u64,
        KEYS
    );
    let local: Vec<Vec<u8>> = world.all_gather(&dict.local_len().unwrap().to_le_bytes()).unwrap();
    let local = local.into_iter().map(|it| u64::from_le_bytes(it.try_into().unwrap()));
    assert_eq!(local.sum::<u64>(), KEYS);
    let stats = dict.stats().unwrap();
    assert_eq!(stats.shards.iter().map(|shard| shard.keys).sum::<u64>(), KEYS);
    let bytes: u64 = (0..KEYS).map(|key| 8 * words(key + 2) as u64).sum();
    assert_eq!(stats.shards.iter().map(|shard| shard.bytes).sum::<u64>(), bytes);
    expect(&world, &dict, |_| Some(2));
    // Each way to write, from each rank: so by processes of the key's own node and of others.
    let next = |key: &u64| (key + 1) % 3 == me;
    for key in (0..KEYS).filter(next) {
        let (old, new) = (value(key, 2, words(key + 2)), value(key, 10, 5));
        match key / 3 % 6 {
            0 => dict.put(&key, new).unwrap(),
            1 => dict.update(&key, |_| Some(new.clone())).unwrap(),
            2 => assert!(dict.compare_exchange(&key, Some(&old), Some(&new)).unwrap().is_done()),
            3 => dict.put_with(&key, 5, |it| it.copy_from_slice(&new)).unwrap(),
            4 => assert!(dict.remove(&key).unwrap()),
            _ => assert_eq!(dict.pop(&key).unwrap(), Some(old)),
        }
    }
    expect(&world, &dict, |key| (key / 3 % 6 < 4).then_some(10));
    (0..KEYS).filter(mine).for_each(|key| dict.bput(&key, value(key, 11, words(key))).unwrap());
    expect(&world, &dict, |_| Some(11));
    in_later_checkpoints(&world, &dict);
    over(world);
}

/// A later checkpoint sees what was broadcast before it, and not what is written after.
fn in_later_checkpoints(world: &World, dict: &DDict<u64, Vec<u64>>) {
    let me = world.rank().0;
    if me == 0 {
        dict.checkpoint().unwrap();
        dict.put(&0, value(0, 12, 3)).unwrap();
        dict.bput(&1, value(1, 12, 3)).unwrap();
    }
    world.barrier().unwrap();
    let later = dict.clone();
    later.sync_to_newest().unwrap();
    expect(world, &later, |key| Some(if key < 2 { 12 } else { 11 }));
    if me != 0 {
        let seen = |key: u64| dict.bget(&key).unwrap().map(|it| number(key, &it));
        assert!((0..KEYS).all(|key| seen(key) == Some(11)));
    }
    world.barrier().unwrap();
    if me == 1 {
        later.bput(&2, value(2, 13, 3)).unwrap();
        later.clear().unwrap();
    }
    expect(world, &later, |_| None);
    if me == 2 {
        later.freeze().unwrap();
        assert!(matches!(later.bput(&0, value(0, 1, 2)), Err(Error::Frozen { .. })));
    }
    expect(world, &later, |_| None);
}

/// With `wait_for_keys` a copy is for its checkpoint alone; who asks for it in the next one waits for the next.
#[test]
fn a_copy_is_for_its_checkpoint() {
    let test = "copies::a_copy_is_for_its_checkpoint";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        let builder = DDict::builder().memory(32 << 20).wait_for_keys(true).timeout(PATIENCE);
        builder.create_on(&world).unwrap()
    });
    for checkpoint in 0..30 {
        if world.rank() == Rank(0) {
            (0..4).for_each(|key| dict.bput(&key, value(key, checkpoint, 16_000)).unwrap());
        }
        for key in 0..4 {
            // Who comes early waits.
            assert_eq!(number(key, &dict.bget(&key).unwrap().unwrap()), checkpoint, "key {key}");
        }
        let none = dict.with_timeout_of(Duration::from_millis(1)).bget(&99);
        assert!(matches!(none, Err(Error::Timeout { .. })), "{none:?}");
        world.barrier().unwrap();
        dict.checkpoint().unwrap();
    }
    world.barrier().unwrap();
    over(world);
}

trait WithTimeout {
    fn with_timeout_of(&self, timeout: Duration) -> Self;
}

impl WithTimeout for DDict<u64, Vec<u64>> {
    fn with_timeout_of(&self, timeout: Duration) -> Self {
        self.clone().with_timeout(Some(timeout))
    }
}

/// While a key is broadcast and put all the time, `bget` shows whole values, none older than the last write that has
/// returned, and nobody sees a key go back.
#[test]
fn copies_are_never_older_than_the_last_write() {
    let test = "copies::copies_are_never_older_than_the_last_write";
    if role().is_none() {
        return on_machines(2, 2, test);
    }
    let world = World::from_environment().unwrap();
    let (me, size) = (u64::from(world.rank().0), u64::from(world.size()));
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(16 << 20).create_on(&world).unwrap()
    });
    // Of each key one rank is the writer, which says in another key what it has done.
    let done = |key: u64| 1000 + key;
    for key in (0..8).filter(|key| key % size == me) {
        dict.put(&done(key), value(done(key), 0, 2)).unwrap();
        dict.bput(&key, value(key, 0, 2)).unwrap();
    }
    world.barrier().unwrap();
    let writes = 200;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in 1..=writes {
                for key in (0..8).filter(|key| key % size == me) {
                    let new = value(key, count, [2, 50, 3, 3000][(count % 4) as usize]);
                    match count % 3 {
                        0 => dict.put(&key, &new).unwrap(),
                        1 => dict.bput(&key, &new).unwrap(),
                        _ => dict.update(&key, |_| Some(new.clone())).unwrap(),
                    }
                    dict.put(&done(key), value(done(key), count, 2)).unwrap();
                }
            }
        });
        let (mut seen, began) = ([0; 8], Instant::now());
        while seen.iter().any(|count| *count < writes) {
            assert!(began.elapsed() < PATIENCE, "{seen:?}");
            for key in 0..8 {
                let least = number(done(key), &dict.get(&done(key)).unwrap().unwrap());
                let now = number(key, &dict.bget(&key).unwrap().unwrap());
                let last = &mut seen[key as usize];
                assert!(now >= least.max(*last), "key {key}: {now} after {last}, {least} was done");
                *last = now;
            }
        }
    });
    world.barrier().unwrap();
    over(world);
}

/// Who gets this dies.
const LAST_WORD: HandlerId = HandlerId(1);

/// A server that dies on the way of copies cuts nobody off; when a home's dies its copies are still read.
#[test]
fn copies_survive_servers() {
    let test = "copies::copies_survive_servers";
    if role().is_none() {
        return on_mortal_machines(4, 4, test, &["copies are there"; 3]);
    }
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(16 << 20).create_on(&world).unwrap()
    });
    world.on(LAST_WORD, |_, _| die());
    let of_home = |home| (0..200).filter(|key| home_of(&world, &dict, key) == home).collect::<Vec<u64>>();
    let homes: Vec<Vec<u64>> = (0..4).map(of_home).collect();
    if world.rank() == Rank(3) {
        (0..200).for_each(|key| dict.bput(&key, value(key, 1, words(key))).unwrap());
    }
    world.barrier().unwrap();
    if world.rank() == Rank(0) {
        // In the tree of root 0 rank 1 stands between it and rank 3; it dies in the midst of broadcasts.
        for (count, key) in homes[0].iter().enumerate() {
            if count == 3 {
                world.send(Rank(1), LAST_WORD, 0, &[]).unwrap();
            }
            dict.bput(key, value(*key, 2, words(*key))).unwrap();
        }
        dict.put(&1000, value(1000, 1, 2))
            .unwrap_or_else(|error| assert!(matches!(error, Error::Lost { .. })));
    }
    wait_until("its death is known", || {
        world.wait(Duration::from_millis(20));
        world.fabric().check_peers().contains(&Rank(1))
    });
    if world.rank() != Rank(1) {
        wait_until("all of it has come", || {
            homes[0].iter().all(|key| number(*key, &dict.bget(key).unwrap().unwrap()) == 2)
        });
        for key in &homes[1] {
            assert_eq!(number(*key, &dict.bget(key).unwrap().unwrap()), 1);
            for lost in [dict.put(key, value(*key, 3, 2)), dict.bput(key, value(*key, 3, 2))] {
                assert!(matches!(lost, Err(Error::Lost { rank: 1, .. })), "{lost:?}");
            }
        }
        let own = &homes[world.rank().0 as usize][10];
        dict.bput(own, value(*own, 4, 2)).unwrap();
        assert_eq!(number(*own, &dict.bget(own).unwrap().unwrap()), 4);
        say("copies are there");
    }
    // Not before the others have looked: a rank that leaves is no server either.
    wait_until("the others have done it", || {
        world.wait(Duration::from_millis(1));
        [0, 2, 3].iter().all(|rank| {
            let own = homes[*rank][10];
            number(own, &dict.bget(&own).unwrap().unwrap()) == 4
        })
    });
    std::thread::sleep(Duration::from_millis(300));
}
