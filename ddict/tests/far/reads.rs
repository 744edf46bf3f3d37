//! Values of other nodes, read one-sidedly where they were found before.

use super::bed::{home_of, number, on_machines, on_mortal_machines, over, shared, value};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tarragon_ddict::{DDict, Error};
use tarragon_testbed::{PATIENCE, die, role, say, wait_until};
use tarragon_transport::{HandlerId, Rank, RemoteKey, World, wire};

/// Who gets this looks at its region until it is written to, and does nothing else.
const BUSY: HandlerId = HandlerId(1);
/// Who gets this dies.
const LAST_WORD: HandlerId = HandlerId(2);

fn words(key: u64) -> usize {
    [2, 3, 40, 2000, 9000][key as usize % 5]
}

/// Keys of the node of a rank, out of the first ones.
fn keys_of(world: &World, dict: &DDict<u64, Vec<u64>>, node: u32) -> Vec<u64> {
    (0..60).filter(|key| home_of(world, dict, key) == node).collect()
}

/// While a server is in a handler it answers nothing, but what was read before can be read.
#[test]
fn known_values_are_read_while_the_server_answers_nothing() {
    let test = "reads::known_values_are_read_while_the_server_answers_nothing";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, Vec<u64>>(&world, Rank(1), || {
        DDict::builder().memory(64 << 20).shards_per_node(3).create_on(&world).unwrap()
    });
    let keys = keys_of(&world, &dict, 0);
    let region = world.region(8).unwrap();
    let told = world.broadcast_bytes(Rank(0), &wire::encode(region.key()).unwrap()).unwrap();
    if world.rank() == Rank(0) {
        world.on(BUSY, move |_, _| {
            wait_until("the other has read", || {
                let mut word = [0; 8];
                region.read(0, &mut word).unwrap();
                word != [0; 8]
            });
        });
        keys.iter().for_each(|key| dict.put(key, value(*key, 1, words(*key))).unwrap());
    }
    world.barrier().unwrap();
    let mut reads = 0;
    if world.rank() == Rank(1) {
        let read = |key: &u64| assert_eq!(number(*key, &dict.get(key).unwrap().unwrap()), 1);
        keys.iter().for_each(read);
        world.send(Rank(0), BUSY, 0, &[]).unwrap();
        for _ in 0..5 {
            keys.iter().for_each(read);
        }
        assert!(keys.iter().all(|key| dict.get_ref(key).unwrap().unwrap().len() == words(*key)));
        let (key, _) = wire::head::<RemoteKey>(&told).unwrap();
        world.fabric().put(&key, 0, &[1; 8]).unwrap();
        reads = 7 * keys.len() as u64;
        // Each was counted, whoever knows of it.
        let stats = dict.stats().unwrap();
        assert_eq!(stats.shards.iter().map(|shard| shard.hits).sum::<u64>(), reads);
        for (shard, figures) in stats.shards.iter().enumerate() {
            let of_shard = keys.iter().filter(|key| dict.shard_of(*key).unwrap() == shard as u32).count();
            assert_eq!(figures.hits, 7 * of_shard as u64, "shard {shard}");
        }
    }
    world.barrier().unwrap();
    assert!(reads > 0 || world.rank() == Rank(0));
    over(world);
}

/// Values are changed, taken out, put again and crowded out of their memory while everybody reads them: each that is
/// read is whole, none is older than the last write that had returned, and nobody sees a key go back.
#[test]
fn far_reads_see_whole_values_that_never_go_back() {
    let test = "reads::far_reads_see_whole_values_that_never_go_back";
    if role().is_none() {
        return on_machines(2, 2, test);
    }
    let world = World::from_environment().unwrap();
    let (me, size) = (u64::from(world.rank().0), u64::from(world.size()));
    // So little that blocks are used again all the time.
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(8 << 20).create_on(&world).unwrap()
    });
    let mine = |key: &u64| key % size == me;
    let done = |key: u64| 1000 + key;
    for key in (0..10).filter(mine) {
        dict.put(&key, value(key, 0, words(key))).unwrap();
        dict.put(&done(key), value(done(key), 0, 2)).unwrap();
    }
    world.barrier().unwrap();
    let writes = 400;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in 1..=writes {
                for key in (0..10).filter(mine) {
                    let new = value(key, count, words(key + count / 50));
                    match count % 4 {
                        0 => dict.put(&key, &new).unwrap(),
                        1 => dict.update(&key, |_| Some(new.clone())).unwrap(),
                        2 => {
                            assert!(dict.remove(&key).unwrap());
                            dict.put(&key, &new).unwrap();
                        }
                        _ => dict.put_with(&key, new.len(), |it| it.copy_from_slice(&new)).unwrap(),
                    }
                    dict.put(&done(key), value(done(key), count, 2)).unwrap();
                }
                // Others get a turn, so that known values are often still there.
                std::thread::sleep(Duration::from_micros(count % 7 * 100));
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut seen, began) = ([0; 10], Instant::now());
                while seen.iter().any(|count| *count < writes) {
                    assert!(began.elapsed() < PATIENCE, "{seen:?}");
                    for key in 0..10 {
                        let least = number(done(key), &dict.get(&done(key)).unwrap().unwrap());
                        // Taken out for a moment.
                        let Some(now) = dict.get(&key).unwrap() else { continue };
                        let (now, last) = (number(key, &now), &mut seen[key as usize]);
                        assert!(now >= least.max(*last), "key {key}: {now} after {last}, {least} was done");
                        *last = now;
                    }
                }
            });
        }
    });
    world.barrier().unwrap();
    over(world);
}

/// A value that a checkpoint has from an older one is not taken for its own; and whoever destroys a dictionary or
/// retires a checkpoint has done so for all readers.
#[test]
fn checkpoints_and_the_end_are_seen_by_who_asks_nobody() {
    let test = "reads::checkpoints_and_the_end_are_seen_by_who_asks_nobody";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(16 << 20).working_set(2).create_on(&world).unwrap()
    });
    let (keys, is_writer) = (keys_of(&world, &dict, 0), world.rank() == Rank(0));
    let later = dict.clone();
    later.checkpoint().unwrap();
    let write = |dict: &DDict<u64, Vec<u64>>, count| {
        if is_writer {
            keys.iter().for_each(|key| dict.put(key, value(*key, count, words(*key))).unwrap());
        }
        world.barrier().unwrap();
    };
    let expect = |dict: &DDict<u64, Vec<u64>>, count| {
        for key in &keys {
            assert_eq!(number(*key, &dict.get(key).unwrap().unwrap()), count, "key {key}");
        }
    };
    let expect_twice = |old: u64, new: u64| {
        for _ in 0..3 {
            expect(&dict, old);
            expect(&later, new);
        }
        world.barrier().unwrap();
    };
    write(&dict, 1);
    expect_twice(1, 1);
    write(&later, 2);
    expect_twice(1, 2);
    write(&dict, 3);
    expect_twice(3, 2);
    if is_writer {
        let last = later.clone();
        last.checkpoint().unwrap();
        last.put(&keys[0], value(keys[0], 4, 2)).unwrap();
    }
    world.barrier().unwrap();
    expect(&later, 2);
    assert!(keys.iter().all(|key| matches!(dict.get(key), Err(Error::Retired { .. }))));
    world.barrier().unwrap();
    if is_writer {
        dict.destroy();
    }
    world.barrier().unwrap();
    assert!(keys.iter().all(|key| matches!(later.get(key), Err(Error::Gone { .. }))));
    world.barrier().unwrap();
    over(world);
}

/// Readers of a server that is killed get every value right or an error that names it, and do not wait for ever.
#[test]
fn readers_of_a_killed_server_are_told() {
    let test = "reads::readers_of_a_killed_server_are_told";
    if role().is_none() {
        return on_mortal_machines(2, 3, test, &["told"]);
    }
    let world = World::from_environment().unwrap();
    let dict = shared::<u64, Vec<u64>>(&world, Rank(0), || {
        DDict::builder().memory(16 << 20).create_on(&world).unwrap()
    });
    world.on(LAST_WORD, |_, _| die());
    // One of the ranks has a node for itself, whichever; it reads of the other node.
    let leaders = world.node_leaders();
    let lone = leaders
        .iter()
        .position(|rank| world.ranks().filter(|it| world.host(*it) == world.host(*rank)).count() == 1);
    let (reader, victim) = (leaders[lone.unwrap()], leaders[1 - lone.unwrap()]);
    let keys = keys_of(&world, &dict, 1 - lone.unwrap() as u32);
    if world.rank() == victim {
        keys.iter().for_each(|key| dict.put(key, value(*key, 1, words(*key))).unwrap());
    }
    world.barrier().unwrap();
    if world.rank() != reader {
        // The victim dies, and the other of its node ends then.
        wait_until("the victim is dead", || {
            world.wait(Duration::from_millis(20));
            !world.fabric().check_peers().is_empty()
        });
        return;
    }
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for key in keys.iter().cycle() {
                    match dict.get(key) {
                        Ok(found) => assert_eq!(number(*key, &found.unwrap()), 1),
                        Err(error) => {
                            assert!(matches!(error, Error::Lost { rank, .. } if rank == victim.0), "{error}");
                            return;
                        }
                    }
                    reads.fetch_add(1, SeqCst);
                }
            });
        }
        wait_until("many are read", || reads.load(SeqCst) > 500);
        world.send(victim, LAST_WORD, 0, &[]).unwrap();
    });
    assert!(keys.iter().all(|key| matches!(dict.get(key), Err(Error::Lost { .. }))));
    say("told");
}
