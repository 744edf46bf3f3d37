//! Dictionaries that span nodes: what one rank puts all others read, wherever it lies.

use super::bed::{on_machines, on_mortal_machines, over, shared};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tarragon_ddict::{Any, DDict, Descriptor, Error, Exchange};
use tarragon_testbed::{PATIENCE, die, role, say, wait_until};
use tarragon_transport::{HandlerId, Rank, World};

fn value(rank: u32, i: u64) -> Vec<u8> {
    let len = [0, 3, 17, 300, 20_000][i as usize % 5] + i as usize;
    (0..len).map(|byte| (byte as u64 * 31 + i + u64::from(rank)) as u8).collect()
}

fn all_kinds_of_verbs() {
    let world = World::from_environment().unwrap();
    let (me, size) = (world.rank().0, world.size());
    let dict = shared::<(u32, u64), Vec<u8>>(&world, Rank(1), || {
        DDict::builder().memory(64 << 20).shards_per_node(2).create_on(&world).unwrap()
    });
    assert_eq!(dict.shards(), 2 * world.nodes());
    for i in 0..100 {
        dict.put(&(me, i), value(me, i)).unwrap();
    }
    world.barrier().unwrap();
    // All see all, as copies and in place.
    for rank in 0..size {
        for i in 0..100 {
            let wanted = value(rank, i);
            assert_eq!(dict.get(&(rank, i)).unwrap().as_ref(), Some(&wanted), "{rank} {i}");
            assert_eq!(&*dict.get_ref(&(rank, i)).unwrap().unwrap(), &wanted[..]);
            assert_eq!(dict.get_verified(&(rank, i)).unwrap(), Some(wanted));
            assert!(dict.contains(&(rank, i)).unwrap());
        }
        assert_eq!(dict.get(&(rank, 100)).unwrap(), None);
        assert_eq!(dict.get_or(&(rank, 100), vec![7]).unwrap(), [7]);
    }
    // Each key once, and each on one node.
    let total = u64::from(size) * 100;
    assert_eq!(dict.len().unwrap(), total);
    let mut keys: Vec<(u32, u64)> = dict.keys().map(Result::unwrap).collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq((0..size).flat_map(|rank| (0..100).map(move |i| (rank, i)))));
    let local: Vec<u64> = all_of(&world, dict.local_len().unwrap());
    let nodes: BTreeMap<&str, u64> =
        world.ranks().map(|r| (world.host(r).unwrap(), local[r.index()])).collect();
    assert_eq!(nodes.values().sum::<u64>(), total);
    assert!(nodes.values().all(|keys| *keys > total / u64::from(world.nodes()) / 2), "{nodes:?}");
    assert_eq!(dict.local_keys().count() as u64, dict.local_len().unwrap());
    let by_shard: u64 = (0..dict.shards()).map(|shard| dict.pinned(shard).unwrap().len().unwrap()).sum();
    assert_eq!(by_shard, total);
    for key in dict.pinned(0).unwrap().keys().map(Result::unwrap) {
        assert_eq!(dict.shard_of(&key).unwrap(), 0);
    }
    let stats = dict.stats().unwrap();
    assert_eq!(stats.shards.iter().map(|shard| shard.keys).sum::<u64>(), total);
    assert_eq!(stats.capacity_bytes, u64::from(world.nodes()) * (64 << 20));
    let items: BTreeMap<(u32, u64), Vec<u8>> = dict.items().map(Result::unwrap).collect();
    assert_eq!(items.len() as u64, total);
    assert!(items.iter().all(|((rank, i), bytes)| *bytes == value(*rank, *i)));
    let few: Vec<((u32, u64), Vec<u8>)> =
        dict.filter(|key, _| key.1 == 7).unwrap().map(Result::unwrap).collect();
    assert!(few.into_iter().eq((0..size).map(|rank| ((rank, 7), value(rank, 7)))));
    world.barrier().unwrap();
    take_out_and_put_by_other_ways(&world, &dict);
    over(world);
}

/// Each takes out its own keys, which have the first hundred numbers.
fn take_out_and_put_by_other_ways(world: &World, dict: &DDict<(u32, u64), Vec<u8>>) {
    let (me, size) = (world.rank().0, world.size());
    for i in (0..100).step_by(2) {
        assert_eq!(dict.pop(&(me, i)).unwrap(), Some(value(me, i)));
        assert!(dict.remove(&(me, i + 1)).unwrap());
        assert!(!dict.remove(&(me, i + 1)).unwrap());
    }
    world.barrier().unwrap();
    assert_eq!(dict.len().unwrap(), 0);
    world.barrier().unwrap();
    // What is put at once, in place, or only where nothing is.
    let mut batch = dict.batch_put();
    (0..20).for_each(|i| batch.put(&(me, i), value(me, i)).unwrap());
    batch.commit().unwrap();
    dict.put_with(&(me, 50), 1000, |bytes| bytes.fill(me as u8)).unwrap();
    let firsts = (0..20).filter(|i| dict.put_if_absent(&(99, *i), vec![me as u8]).unwrap()).count();
    assert_eq!(all_of(world, firsts as u64).into_iter().sum::<u64>(), 20);
    assert_eq!(dict.get(&((me + 1) % size, 50)).unwrap(), Some(vec![((me + 1) % size) as u8; 1000]));
    let found = dict.multi_get([&(0, 3), &(0, 99), &(1, 4)]).unwrap();
    assert_eq!(found, [Some(value(0, 3)), None, Some(value(1, 4))]);
    world.barrier().unwrap();
    if me == 0 {
        dict.clear().unwrap();
        assert!(dict.is_empty().unwrap());
    }
    world.barrier().unwrap();
}

/// What all ranks say.
fn all_of(world: &World, number: u64) -> Vec<u64> {
    let all = world.all_gather(&number.to_le_bytes()).unwrap();
    all.into_iter().map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn verbs_reach_keys_on_two_machines() {
    let test = "nodes::verbs_reach_keys_on_two_machines";
    if role().is_some() {
        return all_kinds_of_verbs();
    }
    on_machines(2, 2, test);
}

#[test]
fn verbs_reach_keys_on_three_machines_of_srun() {
    let test = "nodes::verbs_reach_keys_on_three_machines_of_srun";
    if role().is_some() {
        return all_kinds_of_verbs();
    }
    on_mortal_machines(3, 3, test, &["over"; 3]);
}

/// What reads and writes as one step does so for all ranks: none of their changes is lost.
#[test]
fn changes_of_all_ranks_are_one_step_each() {
    let test = "nodes::changes_of_all_ranks_are_one_step_each";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let (me, size) = (world.rank().0, world.size());
        let dict = shared::<String, u64>(&world, Rank(0), || {
            DDict::builder().memory(4 << 20).create_on(&world).unwrap()
        });
        for i in 0..200 {
            dict.fetch_add(&format!("count {}", i % 8), 1).unwrap();
            dict.update(&format!("sum {}", i % 8), |sum| Some(sum.unwrap_or(0) + u64::from(me))).unwrap();
        }
        let mut won = 0;
        for i in 0..16 {
            let key = format!("owner {i}");
            match dict.compare_exchange(&key, None, Some(&u64::from(me))).unwrap() {
                Exchange::Done => won += 1,
                Exchange::Other(other) => assert!(other.is_some_and(|rank| rank < u64::from(size))),
            }
        }
        assert_eq!(all_of(&world, won).into_iter().sum::<u64>(), 16);
        for i in 0..8 {
            assert_eq!(dict.get(&format!("count {i}")).unwrap(), Some(25 * u64::from(size)));
            let sum = 25 * u64::from(size * (size - 1) / 2);
            assert_eq!(dict.get(&format!("sum {i}")).unwrap(), Some(sum));
        }
        world.barrier().unwrap();
        (0..8).for_each(|i| dict.update(&format!("sum {i}"), |_| None).unwrap());
        world.barrier().unwrap();
        assert!((0..8).all(|i| !dict.contains(&format!("sum {i}")).unwrap()));
        world.barrier().unwrap();
        return over(world);
    }
    on_machines(2, 2, test);
}

/// A rank that waits for a key hears of it, whoever puts it; else the timeout ends it.
#[test]
fn keys_of_other_nodes_are_waited_for() {
    let test = "nodes::keys_of_other_nodes_are_waited_for";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let (me, size) = (world.rank().0, world.size());
        let dict = shared::<(u32, u32), u64>(&world, Rank(0), || {
            let builder = DDict::builder().memory(4 << 20).wait_for_keys(true).timeout(PATIENCE);
            builder.create_on(&world).unwrap()
        });
        // Hundreds of keys of all nodes, from two threads; they are put in the reverse order.
        std::thread::scope(|scope| {
            for half in 0..2 {
                let (dict, next) = (dict.clone(), (me + 1) % size);
                scope.spawn(move || {
                    for i in (half..200).step_by(2) {
                        assert_eq!(dict.get(&(next, i)).unwrap(), Some(u64::from(i)));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(50));
            for i in (0..200).rev() {
                dict.put(&(me, i), u64::from(i)).unwrap();
            }
        });
        let begin = Instant::now();
        for i in 0..4 {
            let late = dict.get_timeout(&(77, i), Duration::from_millis(30));
            assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
        }
        assert!(begin.elapsed() >= Duration::from_millis(120));
        world.barrier().unwrap();
        // Who waits when it is destroyed is told.
        if me == 0 {
            std::thread::sleep(Duration::from_millis(100));
            dict.destroy();
        } else {
            for i in 0..4 {
                let gone = dict.get(&(88, i));
                assert!(matches!(gone, Err(Error::Gone { .. })), "{gone:?}");
            }
        }
        world.barrier().unwrap();
        return over(world);
    }
    on_machines(2, 2, test);
}

/// Checkpoints, freezing, persisted files and values of several types are those of one dictionary.
#[test]
fn the_whole_is_one_dictionary() {
    let test = "nodes::the_whole_is_one_dictionary";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let me = world.rank().0;
        let dict = shared::<u64, u64>(&world, Rank(0), || {
            DDict::builder().memory(4 << 20).working_set(2).create_on(&world).unwrap()
        });
        if me == 0 {
            (0..50).for_each(|i| dict.put(&i, i).unwrap());
            dict.checkpoint().unwrap();
            dict.put(&0, 100).unwrap();
            dict.checkpoint().unwrap();
            dict.put(&1, 200).unwrap();
        }
        world.barrier().unwrap();
        // The first is retired on every node, though only one key was written.
        for i in 0..50 {
            assert!(matches!(
                dict.get(&i),
                Err(Error::Retired { checkpoint: 0, oldest: 1, .. }) | Ok(Some(_))
            ));
        }
        if me != 0 {
            let retired = (0..50).map(|i| dict.get(&i));
            assert!(retired.into_iter().all(|it| matches!(it, Err(Error::Retired { .. }))));
            assert_eq!(dict.sync_to_newest().unwrap(), 2);
        }
        let all: Vec<Option<u64>> = (0..50).map(|i| dict.get(&i).unwrap()).collect();
        let wanted = |i| [100, 200].get(i as usize).copied().unwrap_or(i);
        assert!(all.into_iter().eq((0..50).map(|i| Some(wanted(i)))));
        world.barrier().unwrap();
        if me == 1 {
            dict.freeze().unwrap();
        }
        world.barrier().unwrap();
        assert!(dict.is_frozen());
        assert!((0..20).all(|i| matches!(dict.put(&i, 0), Err(Error::Frozen { .. }))));
        world.barrier().unwrap();
        if me == 1 {
            // One rank's folder has the keys of all nodes.
            let folder = tempfile::tempdir().unwrap();
            let id = dict.persist(folder.path()).unwrap();
            let back = DDict::<u64, u64>::restore(folder.path(), id).unwrap();
            assert_eq!(back.len().unwrap(), 50);
            assert!((0..50).all(|i| back.get(&i).unwrap() == Some(wanted(i))));
            dict.unfreeze().unwrap();
        }
        world.barrier().unwrap();
        let mixed = shared::<String, Any>(&world, Rank(1), || {
            DDict::builder().memory(4 << 20).create_on(&world).unwrap()
        });
        mixed.put::<u64, _>(&format!("number {me}"), &5).unwrap();
        mixed.put::<String, _>(&format!("text {me}"), &"five".to_owned()).unwrap();
        world.barrier().unwrap();
        for rank in 0..world.size() {
            assert_eq!(mixed.get::<u64, _>(&format!("number {rank}")).unwrap(), Some(5));
            let wrong = mixed.get::<u64, _>(&format!("text {rank}"));
            assert!(matches!(wrong, Err(Error::ValueType { .. })), "{wrong:?}");
        }
        world.barrier().unwrap();
        return over(world);
    }
    on_machines(2, 2, test);
}

/// Segments of dictionaries on this machine.
fn segments() -> usize {
    let names = std::fs::read_dir("/dev/shm").unwrap().map(|it| it.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().contains("ddict")).count()
}

/// Errors of another node are those of this one; and its memory is free when nobody has the dictionary open any more.
#[test]
fn memory_of_another_node_is_bounded_and_given_back() {
    let test = "nodes::memory_of_another_node_is_bounded_and_given_back";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let dict = shared::<u64, Vec<u8>>(&world, Rank(0), || {
            DDict::builder().memory(1 << 20).create_on(&world).unwrap()
        });
        if world.rank() == Rank(0) {
            let full: Vec<Error> = (0..100).filter_map(|i| dict.put(&i, vec![1; 100_000]).err()).collect();
            assert!(full.len() > 70, "{}", full.len());
            assert!(full.iter().all(|error| matches!(error, Error::Memory(_))), "{full:?}");
            let large = (0..8).filter_map(|i| dict.put(&i, vec![1; 2 << 20]).err()).count();
            assert_eq!(large, 8);
        }
        world.barrier().unwrap();
        assert!(segments() > 0, "no segment has this name");
        // What is no question is answered by an error, and harms nobody.
        let fabric = world.shared_fabric();
        for bytes in [&[][..], &[0xff; 40], &[0; 40], &[1; 17]] {
            let request = fabric.request(Rank(0), HandlerId(0xED00), bytes).unwrap();
            assert!(request.wait(PATIENCE).unwrap().is_some(), "no answer to {bytes:?}");
        }
        assert!(dict.len().unwrap() > 0);
        world.barrier().unwrap();
        let text = dict.descriptor().to_string();
        drop(dict);
        wait_until("the memory is given back", || {
            world.progress();
            segments() == 0
        });
        world.barrier().unwrap();
        let gone = text.parse::<Descriptor>().unwrap().attach::<u64, Vec<u8>>();
        assert!(matches!(gone, Err(Error::Gone { .. })), "{gone:?}");
        // Settings that cannot be are refused on each node, and nothing stays.
        let refused = DDict::<u64, u64>::builder().memory(1).create_on(&world);
        assert!(matches!(refused, Err(Error::Setting { .. })), "{refused:?}");
        world.barrier().unwrap();
        return over(world);
    }
    on_machines(2, 2, test);
    let elsewhere: Descriptor = "ddict:2:a:1:2:u64:u64:b:0:77:0:h0:a:1:ac:5:1:h1:c:2:cc:6".parse().unwrap();
    assert_eq!(elsewhere.to_string(), "ddict:2:a:1:2:u64:u64:b:0:77:0:h0:a:1:ac:5:1:h1:c:2:cc:6");
    for wrong in
        ["ddict:2:a:1:2:u64:u64:b:0", "ddict:2:a:1:2:u64:u64:b:0:77", "ddict:2:a:1:2:u64:u64:b:0:77:0:h0:a:1"]
    {
        assert!(matches!(wrong.parse::<Descriptor>(), Err(Error::Descriptor { .. })));
    }
}

/// Who gets this dies.
const LAST_WORD: HandlerId = HandlerId(1);

/// Keys of a machine whose server is killed are lost by name, the others stay.
#[test]
fn a_lost_server_is_named() {
    let test = "nodes::a_lost_server_is_named";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let dict = shared::<u64, u64>(&world, Rank(0), || {
            DDict::builder().memory(4 << 20).create_on(&world).unwrap()
        });
        world.on(LAST_WORD, |_, _| die());
        if world.rank() == Rank(1) {
            (0..100).for_each(|i| dict.put(&i, i).unwrap());
        }
        world.barrier().unwrap();
        if world.rank() == Rank(0) {
            // Only now that the other needs not be heard of any more.
            world.send(Rank(1), LAST_WORD, 0, &[]).unwrap();
        }
        wait_until("it is known", || {
            world.wait(Duration::from_millis(50));
            !world.fabric().check_peers().is_empty()
        });
        let local = dict.shards() / 2;
        for i in 0..100 {
            let found = dict.get(&i);
            if dict.shard_of(&i).unwrap() < local {
                assert_eq!(found.unwrap(), Some(i));
            } else {
                let error = found.unwrap_err();
                assert!(matches!(&error, Error::Lost { rank: 1, host, .. } if host == "h1"), "{error}");
            }
        }
        assert!(matches!(dict.len(), Err(Error::Lost { rank: 1, .. })));
        drop(dict);
        return say("the rest stayed");
    }
    on_mortal_machines(2, 2, test, &["the rest stayed"]);
}

/// A rank that is killed while it puts has put some values whole, in their order, and keeps nothing.
#[test]
fn a_killed_client_harms_nobody() {
    let test = "nodes::a_killed_client_harms_nobody";
    if role().is_some() {
        let world = World::from_environment().unwrap();
        let dict = shared::<u64, Vec<u8>>(&world, Rank(0), || {
            DDict::builder().memory(64 << 20).create_on(&world).unwrap()
        });
        let whole = |i: u64| vec![i as u8; 1 + i as usize % 3000];
        if world.rank() == Rank(3) {
            let count = AtomicU64::new(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    wait_until("hundreds are put", || count.load(SeqCst) > 300);
                    die();
                });
                for i in 0.. {
                    dict.put(&i, whole(i)).unwrap();
                    count.store(i, SeqCst);
                }
            });
        }
        wait_until("it is known", || {
            world.wait(Duration::from_millis(50));
            !world.fabric().check_peers().is_empty()
        });
        let put = (0..).find(|i| !dict.contains(i).unwrap()).unwrap();
        assert!(put > 300, "{put}");
        for i in 0..put {
            assert_eq!(dict.get(&i).unwrap(), Some(whole(i)));
        }
        assert!((put..put + 20).all(|i| !dict.contains(&i).unwrap()));
        let mine = (1 << 40) + u64::from(world.rank().0) * 1000;
        (0..200).for_each(|i| dict.put(&(mine + i), whole(i)).unwrap());
        assert!((0..200).all(|i| dict.pop(&(mine + i)).unwrap() == Some(whole(i))));
        drop(dict);
        wait_until("the memory is given back", || {
            world.progress();
            segments() == 0
        });
        say("it is whole");
        world.leave().unwrap();
        return;
    }
    on_mortal_machines(2, 4, test, &["it is whole"; 3]);
}
