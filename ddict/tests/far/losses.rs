//! Servers that are lost while the others go on: their keys are served from replicas.
//!
//! Ranks are started by `srun`, which lets them die, one or two on each of a few machines.

use super::bed::{on_machines_with_slurm, on_mortal_machines, shared};
use super::replicas::{Random, bytes, number, operate};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tarragon_ddict::{DDict, Error};
use tarragon_testbed::{PATIENCE, die, role, say, wait_until};
use tarragon_transport::{Bootstrap, HandlerId, Launched, Losses, Rank, World};

type Dict = DDict<u64, Vec<u8>>;

/// A write of a rank that is to die was acknowledged: the tag is its key, the payload the number.
const ACKNOWLEDGED: HandlerId = HandlerId(1);
/// The sender has come so far.
const STAGE: HandlerId = HandlerId(2);
/// A rank that goes on has added to the counters.
const ADDED: HandlerId = HandlerId(3);

const KEYS: u64 = 40;

fn survivors() -> World {
    let losses = Losses::from_environment().limit(Duration::from_secs(2)).survived();
    World::join_with(&Bootstrap::Launched(Launched::new()), losses).unwrap()
}

/// What a rank hears of the others.
#[derive(Default)]
struct Heard {
    acknowledged: Mutex<BTreeMap<u64, u64>>,
    stages: Mutex<BTreeMap<Rank, u64>>,
    added: AtomicU64,
}

impl Heard {
    fn by(world: &World) -> Arc<Heard> {
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        world.on(ACKNOWLEDGED, move |_, message| {
            hears.acknowledged.lock().unwrap().insert(message.tag, number(message.payload));
        });
        let hears = Arc::clone(&heard);
        world.on(STAGE, move |_, message| {
            hears.stages.lock().unwrap().insert(message.source, message.tag);
        });
        let hears = Arc::clone(&heard);
        world.on(ADDED, move |_, message| {
            hears.added.fetch_add(message.tag, SeqCst);
        });
        world.barrier().unwrap();
        heard
    }

    /// Waits until these ranks have come as far as this one.
    fn meet(&self, world: &World, ranks: &[u32], stage: u64) {
        for &rank in ranks {
            world.send(Rank(rank), STAGE, stage, &[]).unwrap();
        }
        let all = || {
            let stages = self.stages.lock().unwrap();
            ranks.iter().all(|rank| stages.get(&Rank(*rank)).is_some_and(|it| *it >= stage))
        };
        wait_until("the others come as far", || {
            world.wait(Duration::from_millis(20));
            all()
        });
    }
}

/// What this rank has said in a barrier is out: otherwise the others might not pass it when this one is gone.
fn let_others_pass() {
    std::thread::sleep(Duration::from_millis(500));
}

/// A moment that differs each time.
fn moment(below: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) / 1000 % below
}

/// A rank's own keys, and what they are to have.
struct Mine<'d> {
    dict: &'d Dict,
    me: u64,
    size: u64,
    random: Random,
    model: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Mine<'_> {
    fn operate(&mut self) {
        let key = self.random.below(KEYS) * self.size + self.me;
        self.next += 1;
        operate(self.dict, &mut self.random, key, self.next, &mut self.model);
        let looked = self.random.below(KEYS) * self.size + self.me;
        assert_eq!(self.dict.get(&looked).unwrap(), self.model.get(&looked).cloned(), "{looked}");
        assert_eq!(self.dict.contains(&looked).unwrap(), self.model.contains_key(&looked), "{looked}");
    }

    fn expect_all(&self) {
        for key in (0..KEYS).map(|key| key * self.size + self.me) {
            assert_eq!(self.dict.get(&key).unwrap(), self.model.get(&key).cloned(), "{key}");
            assert_eq!(self.dict.bget(&key).unwrap(), self.model.get(&key).cloned(), "{key}");
        }
        let found = self.dict.filter(|key, _| key % self.size == self.me).unwrap().map(Result::unwrap);
        assert!(found.collect::<BTreeMap<_, _>>() == self.model);
    }
}

/// Writes, and is killed at a random moment amid that.
fn die_amid_writes(world: &World, dict: &Dict, counts: &DDict<u64, u64>) {
    let (me, size) = (u64::from(world.rank().0), u64::from(world.size()));
    let begun = AtomicU64::new(0);
    let end = 30 + moment(800);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("so many are put", || begun.load(SeqCst) >= end);
            die();
        });
        for number in 1.. {
            let key = 30_000 + number % KEYS * size + me;
            dict.put(&key, bytes(key, number)).unwrap();
            world.send(Rank(0), ACKNOWLEDGED, key, &number.to_le_bytes()).unwrap();
            counts.fetch_add(&(100 + number % 5), 1).unwrap();
            begun.fetch_add(1, SeqCst);
        }
    });
}

/// The last of three ranks is killed at a random moment amid operations of all; then, if `all_but_one`, the second.
fn killed(replicas: u32, all_but_one: bool) {
    let world = survivors();
    let (me, size) = (u64::from(world.rank().0), u64::from(world.size()));
    let dict: Dict = shared(&world, Rank(1), || {
        let builder = DDict::builder().memory(64 << 20).shards_per_node(2).working_set(2);
        builder.replicas(replicas).create_on(&world).unwrap()
    });
    let counts = shared::<u64, u64>(&world, Rank(0), || {
        DDict::builder().memory(4 << 20).replicas(replicas).create_on(&world).unwrap()
    });
    let heard = Heard::by(&world);
    let mut mine = Mine { dict: &dict, me, size, random: Random(me + 7), model: BTreeMap::new(), next: 0 };
    let add = |key: u64| {
        counts.fetch_add(&key, 1).unwrap();
        world.send(Rank(0), ADDED, 1, &[]).unwrap();
    };
    let is_lost = |rank: u32| world.losses().iter().any(|loss| loss.rank == Rank(rank));
    let go_on_without = |mine: &mut Mine<'_>, rank: u32| {
        let mut after = 0;
        while after < 300 {
            mine.operate();
            add(mine.next % 5);
            after += u64::from(is_lost(rank));
        }
        mine.expect_all();
    };
    if me == 2 {
        die_amid_writes(&world, &dict, &counts);
    }
    go_on_without(&mut mine, 2);
    let mut others = vec![1 - world.rank().0];
    heard.meet(&world, &others, 1);
    if all_but_one {
        if me == 1 {
            die_amid_writes(&world, &dict, &counts);
        }
        go_on_without(&mut mine, 1);
        others.clear();
    }
    heard.meet(&world, &others, 2);
    if me == 0 {
        expect_acknowledged(&dict, &heard);
        assert_eq!(dict.len().unwrap(), dict.keys().count() as u64);
        let sum: u64 = (0..5).map(|key| counts.get(&key).unwrap().unwrap_or(0)).sum();
        // Each once, also those that were under way at the lost one.
        assert_eq!(sum, heard.added.load(SeqCst));
    }
    // A checkpoint, and all of it gone: by those who are left.
    if me == 0 {
        let dict = dict.clone();
        dict.checkpoint().unwrap();
        dict.put(&77, vec![1]).unwrap();
        dict.clear().unwrap();
        assert!(dict.is_empty().unwrap());
    }
    heard.meet(&world, &others, 3);
    say("all is there");
    heard.meet(&world, &others, 4);
    world.leave().unwrap();
}

/// What the killed ones were told to be written is there, or something newer of theirs.
fn expect_acknowledged(dict: &Dict, heard: &Heard) {
    let acknowledged = heard.acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    for (key, last) in acknowledged {
        let found = dict.get(&key).unwrap().unwrap_or_else(|| panic!("{key} is nowhere"));
        assert!(number(&found) >= last, "{key}: {} after {last}", number(&found));
        assert_eq!(found, bytes(key, number(&found)));
    }
}

#[test]
fn the_keys_of_a_killed_server_are_served_by_the_next_node() {
    let test = "losses::the_keys_of_a_killed_server_are_served_by_the_next_node";
    if role().is_some() {
        return killed(2, false);
    }
    // It dies at other moments each time.
    (0..3).for_each(|_| on_mortal_machines(3, 3, test, &["all is there"; 2]));
}

#[test]
fn where_all_nodes_keep_all_keys_one_is_enough() {
    let test = "losses::where_all_nodes_keep_all_keys_one_is_enough";
    if role().is_some() {
        return killed(3, true);
    }
    (0..2).for_each(|_| on_mortal_machines(3, 3, test, &["all is there"]));
}

/// Several ranks on each node: those beside the lost server, too, are served by the other node. Who waits for a key
/// of the lost one is woken by a put there.
#[test]
fn who_shares_a_node_with_a_lost_server_goes_on() {
    let test = "losses::who_shares_a_node_with_a_lost_server_goes_on";
    if role().is_none() {
        return on_mortal_machines(2, 4, test, &["went on"; 3]);
    }
    let world = survivors();
    let dict: Dict =
        shared(&world, Rank(0), || DDict::builder().memory(16 << 20).replicas(2).create_on(&world).unwrap());
    let heard = Heard::by(&world);
    let me = u64::from(world.rank().0);
    let others: Vec<u32> = [0, 1, 3].into_iter().filter(|rank| u64::from(*rank) != me).collect();
    for key in 0..20 {
        dict.put(&(100 * me + key), bytes(key, me)).unwrap();
    }
    world.barrier().unwrap();
    if me == 2 {
        let_others_pass();
        die();
    }
    // By a thread each, before the loss is known.
    std::thread::scope(|scope| {
        for key in 1000..1008 {
            let dict = dict.clone();
            scope.spawn(move || assert_eq!(dict.get_timeout(&key, PATIENCE).unwrap(), bytes(key, 5)));
        }
        wait_until("the loss", || {
            world.wait(Duration::from_millis(20));
            !world.losses().is_empty()
        });
        if me == 3 {
            (1000..1008).for_each(|key| dict.put(&key, bytes(key, 5)).unwrap());
        }
    });
    for key in (0..4).flat_map(|rank| (0..20).map(move |key| 100 * rank + key)) {
        assert_eq!(dict.get(&key).unwrap(), Some(bytes(key % 100, key / 100)), "{key}");
    }
    heard.meet(&world, &others, 1);
    assert_eq!(dict.pop(&(100 * me + 1)).unwrap(), Some(bytes(1, me)));
    heard.meet(&world, &others, 2);
    assert_eq!(dict.len().unwrap(), 4 * 20 + 8 - 3);
    heard.meet(&world, &others, 3);
    say("went on");
    heard.meet(&world, &others, 4);
    world.leave().unwrap();
}

/// A server that is frozen amid writes and wakes up when its keys are served by another one: it reads and writes
/// nothing any more, also of what lies in its own memory.
#[test]
fn a_frozen_server_that_wakes_up_harms_nothing() {
    let test = "losses::a_frozen_server_that_wakes_up_harms_nothing";
    if role().is_none() {
        // UCX may end the one that wakes up before it says so: 1.13 ends a process that is to answer on a connection
        // that is broken (`ucp_get_req_handler`).
        return on_machines_with_slurm(3, 3, test, |said| {
            said == ["is out", "went on", "went on"] || said == ["went on"; 2]
        });
    }
    let world = survivors();
    let dict: Dict =
        shared(&world, Rank(1), || DDict::builder().memory(16 << 20).replicas(2).create_on(&world).unwrap());
    let heard = Heard::by(&world);
    let me = world.rank().0;
    (0..KEYS).filter(|key| key % 3 == u64::from(me)).for_each(|key| dict.put(&key, bytes(key, 1)).unwrap());
    world.barrier().unwrap();
    if me == 2 {
        let_others_pass();
        wake_up_later();
        // By now others have written.
        let begin = std::time::Instant::now();
        while world.cast_out().is_none() {
            assert!(begin.elapsed() < PATIENCE, "it is never cast out");
            for key in 0..KEYS {
                // What it still takes for the world tells it nothing old.
                if let Ok(found) = dict.put(&key, bytes(key, 3)).and_then(|()| dict.get(&key)) {
                    panic!("wrote {key} and read {found:?}");
                }
            }
        }
        (0..KEYS).for_each(|key| assert!(matches!(dict.get(&key), Err(Error::Lost { .. })), "{key}"));
        say("is out");
        return;
    }
    for key in 0..KEYS {
        dict.put(&key, bytes(key, 2)).unwrap();
        assert_eq!(dict.get(&key).unwrap(), Some(bytes(key, 2)));
    }
    // It wakes up, and says what it has to say.
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        world.wait(Duration::from_millis(50));
        (0..KEYS).for_each(|key| assert_eq!(dict.get(&key).unwrap(), Some(bytes(key, 2)), "{key}"));
    }
    heard.meet(&world, &[1 - me], 1);
    say("went on");
    heard.meet(&world, &[1 - me], 2);
    world.leave().unwrap();
}

/// Stops this process; another one has it go on when it was lost for a while.
fn wake_up_later() {
    let me = std::process::id();
    let script = format!("kill -STOP {me}; sleep 5; kill -CONT {me}");
    let mut waker = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    waker.wait().unwrap();
}

#[test]
fn without_replicas_the_keys_of_a_lost_server_are_gone() {
    let test = "losses::without_replicas_the_keys_of_a_lost_server_are_gone";
    if role().is_none() {
        return on_mortal_machines(2, 2, test, &["said so"]);
    }
    let world = survivors();
    let dict: Dict = shared(&world, Rank(0), || DDict::builder().memory(16 << 20).create_on(&world).unwrap());
    (0..20).for_each(|key| dict.put(&key, vec![1]).unwrap());
    world.barrier().unwrap();
    if world.rank() == Rank(1) {
        let_others_pass();
        die();
    }
    wait_until("the loss", || {
        world.wait(Duration::from_millis(20));
        !world.losses().is_empty()
    });
    let (mut there, mut gone) = (0, 0);
    for key in 0..20 {
        match dict.get(&key) {
            Ok(value) => {
                assert_eq!(value, Some(vec![1]));
                there += 1;
            }
            Err(error @ Error::Lost { .. }) => {
                let text = error.to_string();
                let named =
                    text.contains("on host h1 are lost with rank 1: rank 1 on host h1 is lost (epoch 1)");
                assert!(named && text.ends_with("no other node keeps them (see `replicas`)"), "{text}");
                gone += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(there > 0 && gone > 0, "{there} {gone}");
    say("said so");
    world.leave().unwrap();
}
