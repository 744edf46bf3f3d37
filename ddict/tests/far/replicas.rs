//! Keys that several nodes keep.

use super::bed::{expect_setting, on_machines, on_mortal_machines, over, shared};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tarragon_ddict::{DDict, Error, Exchange};
use tarragon_testbed::{PATIENCE, die, role, say, wait_until};
use tarragon_transport::{HandlerId, Rank, World};

type Dict = DDict<u64, Vec<u8>>;

pub(super) fn bytes(key: u64, number: u64) -> Vec<u8> {
    let len = [0, 3, 9, 16, 17, 300, 5000][(key + number) as usize % 7];
    let mut bytes: Vec<u8> = (0..len).map(|at| (at as u64 * 7 + key + number) as u8).collect();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes
}

pub(super) fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.last_chunk().expect("a number stands last"))
}

/// A sum over all keys and values.
fn digest(dict: &Dict, shards: std::ops::Range<u32>) -> [u64; 2] {
    let mut sum = [0_u64; 2];
    for shard in shards {
        for item in dict.pinned(shard).unwrap().items() {
            let (key, value) = item.unwrap();
            let mixed = value.iter().fold(key ^ 0x9E37_79B9_7F4A_7C15, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3).rotate_left(29)
            });
            sum = [sum[0] + 1, sum[1].wrapping_add(mixed)];
        }
    }
    sum
}

/// Sees that each replica has what its home has, at the handle's checkpoint. Nobody writes meanwhile.
fn expect_same_everywhere(world: &World, dict: &Dict, replicas: u32) {
    world.barrier().unwrap();
    let (nodes, here) = (world.nodes(), world.fabric().node_of(world.rank()).unwrap());
    let per_node = dict.shards() / nodes;
    let mut sums = vec![[u64::MAX; 2]; nodes as usize];
    sums[here as usize] = digest(dict, here * per_node..(here + 1) * per_node);
    for node in (0..nodes).filter(|node| *node != here) {
        let replica = dict.replica_of(node).unwrap();
        assert_eq!(replica.is_some(), (here + nodes - node) % nodes < replicas, "{node} on {here}");
        if let Some(replica) = replica {
            sums[node as usize] = digest(&replica, 0..per_node);
        }
    }
    let mine: Vec<u8> = sums.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    let all = world.all_gather(&mine).unwrap();
    // One rank of each node.
    let all: Vec<Vec<u8>> = world.node_leaders().into_iter().map(|rank| all[rank.index()].clone()).collect();
    for node in 0..nodes as usize {
        let of_node = |all: &Vec<u8>| all[node * 16..(node + 1) * 16].to_vec();
        let home = of_node(&all[node]);
        let same = all.iter().filter(|all| of_node(all) == home).count();
        assert_eq!(same as u32, replicas, "part {node}: {all:?}");
    }
    world.barrier().unwrap();
}

/// A small generator, so that a run can be repeated.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// One random operation on a key that this rank alone writes; what it answers is what the model says.
pub(super) fn operate(
    dict: &Dict,
    random: &mut Random,
    key: u64,
    number: u64,
    model: &mut BTreeMap<u64, Vec<u8>>,
) {
    let new = bytes(key, number);
    let before = model.get(&key).cloned();
    match random.below(9) {
        0 | 1 => dict.put(&key, &new).unwrap(),
        2 => dict.put_with(&key, new.len(), |place| place.copy_from_slice(&new)).unwrap(),
        3 => {
            assert_eq!(dict.put_if_absent(&key, &new).unwrap(), before.is_none());
            if before.is_some() {
                return;
            }
        }
        4 => {
            let expected = if random.below(2) == 0 { before.clone() } else { Some(vec![1]) };
            match dict.compare_exchange(&key, expected.as_ref(), Some(&new)).unwrap() {
                Exchange::Done => assert_eq!(expected, before),
                Exchange::Other(other) => {
                    assert_eq!(other, before);
                    return;
                }
            }
        }
        5 => dict
            .update(&key, |found| {
                assert_eq!(found, before);
                Some(new.clone())
            })
            .unwrap(),
        6 => dict.bput(&key, &new).unwrap(),
        7 => {
            assert_eq!(dict.pop(&key).unwrap(), before);
            model.remove(&key);
            return;
        }
        _ => {
            dict.update(&key, |_| None).unwrap();
            model.remove(&key);
            return;
        }
    }
    model.insert(key, new);
}

fn random_operations(replicas: u32) {
    let world = World::from_environment().unwrap();
    let (me, size) = (u64::from(world.rank().0), u64::from(world.size()));
    let dict: Dict = shared(&world, Rank(1), || {
        let builder = DDict::builder().memory(64 << 20).shards_per_node(2).working_set(2);
        builder.replicas(replicas).create_on(&world).unwrap()
    });
    let counts = shared::<u64, u64>(&world, Rank(0), || {
        DDict::builder().memory(4 << 20).replicas(replicas).create_on(&world).unwrap()
    });
    let (mut random, mut model) = (Random(me + 77), BTreeMap::new());
    for round in 0..3 {
        for step in 0..400 {
            let key = random.below(60) * size + me;
            operate(&dict, &mut random, key, round * 1000 + step, &mut model);
            let looked = random.below(60) * size + me;
            assert_eq!(dict.get(&looked).unwrap(), model.get(&looked).cloned(), "{looked}");
            assert_eq!(dict.bget(&looked).unwrap(), model.get(&looked).cloned(), "{looked}");
            if step.is_multiple_of(4) {
                counts.fetch_add(&random.below(5), 1).unwrap();
            }
        }
        expect_same_everywhere(&world, &dict, replicas);
        let all: Vec<u64> = model.keys().copied().collect();
        let keys = world.all_gather(&(all.len() as u64).to_le_bytes()).unwrap();
        let keys: u64 = keys.into_iter().map(|it| u64::from_le_bytes(it.try_into().unwrap())).sum();
        // A key counts once.
        assert_eq!((dict.len().unwrap(), dict.keys().count() as u64), (keys, keys));
        let found = dict.filter(|key, _| key % size == me).unwrap().map(Result::unwrap);
        assert!(found.collect::<BTreeMap<_, _>>() == model);
        let stats = dict.stats().unwrap();
        assert_eq!(stats.shards.iter().map(|shard| shard.keys).sum::<u64>(), keys);
        assert_eq!(stats.capacity_bytes, u64::from(world.nodes()) * (64 << 20));
        assert!(stats.replica_bytes > 0);
        let sums: u64 = (0..5).map(|key| counts.get(&key).unwrap().unwrap_or(0)).sum();
        assert_eq!(sums, (round + 1) * 100 * size);
        world.barrier().unwrap();
        // All go on together; values are carried.
        dict.checkpoint().unwrap();
    }
    world.barrier().unwrap();
    concern_all_keys(&world, &dict, replicas);
    over(world);
}

/// `clear`, `freeze`, `persist`, and what waits for keys.
fn concern_all_keys(world: &World, dict: &Dict, replicas: u32) {
    if world.rank() == Rank(2) {
        dict.freeze().unwrap();
    }
    world.barrier().unwrap();
    for key in 0..6 {
        assert!(matches!(dict.put(&key, vec![1]), Err(Error::Frozen { .. })));
        assert!(matches!(dict.bput(&key, vec![1]), Err(Error::Frozen { .. })));
    }
    if world.rank() == Rank(1) {
        let folder = tempfile::tempdir().unwrap();
        let id = dict.persist(folder.path()).unwrap();
        let back = Dict::restore(folder.path(), id).unwrap();
        assert_eq!(back.len().unwrap(), dict.len().unwrap());
    }
    world.barrier().unwrap();
    if world.rank() == Rank(0) {
        dict.unfreeze().unwrap();
        dict.clear().unwrap();
    }
    expect_same_everywhere(world, dict, replicas);
    assert!(dict.is_empty().unwrap());
    world.barrier().unwrap();
    let me = u64::from(world.rank().0);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|key| dict.put(&(me * 100 + key), bytes(key, 1)).unwrap()));
        let next = (me + 1) % u64::from(world.size());
        for key in 0..20 {
            let key = next * 100 + key;
            assert_eq!(dict.get_timeout(&key, PATIENCE).unwrap(), bytes(key % 100, 1));
        }
    });
    expect_same_everywhere(world, dict, replicas);
}

#[test]
fn two_nodes_of_three_keep_each_key() {
    let test = "replicas::two_nodes_of_three_keep_each_key";
    if role().is_some() {
        return random_operations(2);
    }
    on_machines(3, 1, test);
}

/// Several ranks on each node, of which one does the writes, and every node keeps every key.
#[test]
fn all_nodes_keep_each_key() {
    let test = "replicas::all_nodes_keep_each_key";
    if role().is_some() {
        return random_operations(3);
    }
    on_machines(3, 2, test);
}

/// With `wait_for_keys` a checkpoint comes when all keys are written anew, on replicas too.
#[test]
fn replicas_follow_checkpoints_that_wait_for_keys() {
    let test = "replicas::replicas_follow_checkpoints_that_wait_for_keys";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    let world = World::from_environment().unwrap();
    let me = u64::from(world.rank().0);
    let dict: Dict = shared(&world, Rank(0), || {
        let builder = DDict::builder().memory(16 << 20).wait_for_keys(true).timeout(PATIENCE);
        builder.replicas(2).create_on(&world).unwrap()
    });
    dict.pput(&(1000 + me), vec![7]).unwrap();
    for checkpoint in 0..12 {
        for key in (0..20).filter(|key| key % 2 == me) {
            dict.put(&key, bytes(key, checkpoint)).unwrap();
        }
        for key in 0..20 {
            assert_eq!(dict.get(&key).unwrap(), Some(bytes(key, checkpoint)));
        }
        expect_same_everywhere(&world, &dict, 2);
        dict.checkpoint().unwrap();
    }
    assert_eq!(dict.get(&(1001 - me)).unwrap(), Some(vec![7]));
    world.barrier().unwrap();
    over(world);
}

/// A write that the home has no room for is nowhere; and a replica has room for what the home has.
#[test]
fn a_write_that_fails_is_on_no_node() {
    let test = "replicas::a_write_that_fails_is_on_no_node";
    if role().is_none() {
        return on_machines(2, 1, test);
    }
    let world = World::from_environment().unwrap();
    let me = u64::from(world.rank().0);
    let dict: Dict =
        shared(&world, Rank(0), || DDict::builder().memory(1 << 20).replicas(2).create_on(&world).unwrap());
    let (mut put, mut full) = (BTreeMap::new(), 0);
    for round in 0..3 {
        for key in (0..60).map(|key| 2 * key + me) {
            let value = vec![(key + round) as u8; 40_000];
            match dict.put(&key, &value) {
                Ok(()) => drop(put.insert(key, value)),
                Err(error) => {
                    assert!(matches!(error, Error::Memory(_)), "{error}");
                    full += 1;
                }
            }
        }
        let large = dict.put(&(2000 + me), vec![1; 3 << 20]);
        assert!(matches!(large, Err(Error::Memory(_))), "{large:?}");
        for key in (0..60).map(|key| 2 * key + me) {
            assert_eq!(dict.get(&key).unwrap().as_ref(), put.get(&key), "{key}");
        }
        expect_same_everywhere(&world, &dict, 2);
    }
    assert!(full > 60, "{full}");
    expect_setting(DDict::<u64, u64>::builder().replicas(3).create_on(&world), "replicas", 3);
    expect_setting(DDict::<u64, u64>::builder().replicas(0).create_on(&world), "replicas", 0);
    expect_setting(DDict::<u64, u64>::builder().replicas(2).create(), "replicas", 2);
    world.barrier().unwrap();
    over(world);
}

/// That a write was acknowledged: the tag is its key, the payload its number.
const ACKNOWLEDGED: HandlerId = HandlerId(1);
/// What a replica has, see `digest`.
const DIGEST: HandlerId = HandlerId(2);
/// Rank 0 has seen all; and that rank 1 has heard so.
const SEEN: HandlerId = HandlerId(3);

/// What rank 0 hears of the others.
#[derive(Default)]
struct Heard {
    /// By key, the number that was acknowledged last.
    acknowledged: Mutex<BTreeMap<u64, u64>>,
    digest: Mutex<Vec<u8>>,
    is_over: AtomicBool,
}

impl Heard {
    fn by(world: &World) -> Arc<Heard> {
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        world.on(ACKNOWLEDGED, move |_, message| {
            hears.acknowledged.lock().unwrap().insert(message.tag, number(message.payload));
        });
        let hears = Arc::clone(&heard);
        world.on(DIGEST, move |_, message| *hears.digest.lock().unwrap() = message.payload.to_vec());
        let hears = Arc::clone(&heard);
        world.on(SEEN, move |_, _| hears.is_over.store(true, SeqCst));
        heard
    }
}

/// Writes one key after the other, and tells rank 0 of each that was acknowledged; until it has gone on for a while
/// without the dead one.
fn write_until_it_is_known(world: &World, dict: &Dict, count: &AtomicU64) {
    let (me, mut vain) = (u64::from(world.rank().0), 0);
    for number in 1.. {
        let key = number % 40 * 3 + me;
        match dict.put(&key, bytes(key, number)) {
            Ok(()) => world.send(Rank(0), ACKNOWLEDGED, key, &number.to_le_bytes()).unwrap(),
            Err(Error::Lost { rank: 2, .. }) => vain += 1,
            Err(error) => panic!("{error}"),
        }
        count.fetch_add(1, SeqCst);
        if vain > 200 {
            return;
        }
    }
}

/// A server is killed in the midst of writes of all: what it had acknowledged the replica of its part has; the others
/// go on, and agree.
#[test]
fn what_a_killed_server_acknowledged_is_on_the_next_node() {
    let test = "replicas::what_a_killed_server_acknowledged_is_on_the_next_node";
    if role().is_none() {
        // It dies at other moments each time.
        return (0..3).for_each(|_| on_mortal_machines(3, 3, test, &["all is there", "it was seen"]));
    }
    let world = World::from_environment().unwrap();
    let dict: Dict =
        shared(&world, Rank(0), || DDict::builder().memory(32 << 20).replicas(2).create_on(&world).unwrap());
    let heard = Heard::by(&world);
    world.barrier().unwrap();
    let count = AtomicU64::new(0);
    if world.rank() == Rank(2) {
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        let enough = 50 + u64::from(nanos) / 1000 % 1500;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                wait_until("so many are put", || count.load(SeqCst) >= enough);
                die();
            });
            write_until_it_is_known(&world, &dict, &count);
        });
    }
    write_until_it_is_known(&world, &dict, &count);
    if world.rank() == Rank(1) {
        // What the dead one had begun here is over soon.
        wait_until("rank 0 has what this replica has", || {
            let digest = digest(&dict.replica_of(0).unwrap().unwrap(), 0..1);
            let digest: Vec<u8> = digest.iter().flat_map(|word| word.to_le_bytes()).collect();
            world.send(Rank(0), DIGEST, 0, &digest).unwrap();
            world.wait(Duration::from_millis(20));
            heard.is_over.load(SeqCst)
        });
        say("it was seen");
        world.send(Rank(0), SEEN, 0, &[]).unwrap();
        return world.fabric().flush().unwrap();
    }
    expect_acknowledged(&world, &dict, &heard);
    say("all is there");
    world.send(Rank(1), SEEN, 0, &[]).unwrap();
    // Rank 1 has heard it when it says the same.
    wait_until("rank 1 has heard that", || {
        world.wait(Duration::from_millis(20));
        heard.is_over.load(SeqCst)
    });
}

/// What rank 0 finds, in homes that live and in the replica of the other one.
fn expect_acknowledged(world: &World, dict: &Dict, heard: &Heard) {
    wait_until("the replica of this part has what its home has", || {
        world.wait(Duration::from_millis(20));
        let home: Vec<u8> = digest(dict, 0..1).iter().flat_map(|word| word.to_le_bytes()).collect();
        *heard.digest.lock().unwrap() == home
    });
    let replica = dict.replica_of(2).unwrap().unwrap();
    let acknowledged = heard.acknowledged.lock().unwrap().clone();
    let mut of_replica = 0;
    for (key, last) in &acknowledged {
        let is_lost = dict.shard_of(key).unwrap() == 2;
        let found = if is_lost { replica.get(key).unwrap() } else { dict.get(key).unwrap() };
        let found = found.unwrap_or_else(|| panic!("{key} is nowhere, lost: {is_lost}"));
        assert!(number(&found) >= *last, "{key}: {} after {last}, lost: {is_lost}", number(&found));
        assert_eq!(found, bytes(*key, number(&found)));
        of_replica += u64::from(is_lost);
    }
    assert!(of_replica > 10 && acknowledged.len() > 100, "{of_replica} of {}", acknowledged.len());
    assert!(matches!(dict.len(), Err(Error::Lost { rank: 2, .. })));
}
