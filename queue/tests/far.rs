//! A queue of ranks on several machines, which share no memory: what holds at home holds from afar, and what happens
//! when a rank dies.
//!
//! The machines are namespaces of this one. Each test starts a launcher with this program, which runs the one test
//! again in a role. Every process has a watchdog.

mod ranks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ranks::{leave, run, run_to_death, shared, until_gone, world};
use tarragon_queue::{Builder, Descriptor, Error, Queue, select};
use tarragon_testbed::{Ended, PATIENCE, die, role, say};
use tarragon_transport::{FabricError, Rank, World};

const SHORT: Duration = Duration::from_millis(200);

/// Who put it, in which thread, as which one.
type Item = (u32, u32, u64);

const PRODUCERS: u32 = 2;
const ITEMS: u64 = 300;

/// Takes until it is closed, and sees that each producer's items come in order.
fn drain(queue: &Queue<Item>) -> Vec<Item> {
    let mut last: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut got = Vec::new();
    loop {
        match queue.get_timeout(PATIENCE) {
            Ok(item) => {
                let before = last.insert((item.0, item.1), item.2);
                assert!(before.is_none_or(|before| before < item.2), "{item:?} after {before:?}");
                got.push(item);
            }
            Err(Error::Closed) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

/// All ranks put and take, two threads each; then one that is far from the queue closes it.
fn everybody_puts_and_takes(builder: Builder<Item>) {
    let world = world();
    let queue = shared(&world, builder);
    let rank = world.rank().0;
    let got: Vec<Item> = std::thread::scope(|scope| {
        let consumers = [(); 2].map(|()| scope.spawn(|| drain(&queue)));
        let producers = (0..PRODUCERS).map(|thread| {
            let queue = &queue;
            scope.spawn(move || (0..ITEMS).for_each(|i| queue.put((rank, thread, i)).expect("it is open")))
        });
        let producers: Vec<_> = producers.collect();
        producers.into_iter().for_each(|it| it.join().expect("all are in"));
        world.barrier_timeout(PATIENCE).expect("all come");
        if rank + 1 == world.size() {
            queue.close();
        }
        consumers.into_iter().flat_map(|it| it.join().expect("in order")).collect()
    });
    assert!(matches!(queue.put((0, 0, 0)), Err(Error::Closed)));
    assert!(queue.is_closed() && queue.is_empty());
    let bytes: Vec<u8> = got
        .iter()
        .flat_map(|(a, b, c)| [u64::from(*a), u64::from(*b), *c])
        .flat_map(u64::to_le_bytes)
        .collect();
    let all = world.all_gather(&bytes).expect("all are here").concat();
    let words: Vec<u64> = all.chunks(8).map(|it| u64::from_le_bytes(it.try_into().expect("eight"))).collect();
    let items: BTreeSet<&[u64]> = words.chunks(3).collect();
    let expected = u64::from(world.size() * PRODUCERS) * ITEMS;
    assert_eq!((items.len(), words.len() / 3), (expected as usize, expected as usize));
    say(&format!("rank {rank} saw all {expected}, took some: {}", !got.is_empty()));
    leave(&world, queue);
}

fn expect_all_saw(ended: &Ended, ranks: u32) {
    let all = u64::from(ranks * PRODUCERS) * ITEMS;
    let expected: Vec<String> =
        (0..ranks).map(|it| format!("rank {it} saw all {all}, took some: true")).collect();
    assert_eq!(ended.said(), expected, "{}", ended.text);
}

#[test]
fn items_of_two_machines_come_once_and_in_order() {
    let test = "items_of_two_machines_come_once_and_in_order";
    if role().is_some() {
        return everybody_puts_and_takes(Queue::builder());
    }
    let Some(ended) = run(2, 2, test) else { return };
    expect_all_saw(&ended, 4);
}

#[test]
fn items_of_three_machines_come_once_through_a_bound() {
    let test = "items_of_three_machines_come_once_through_a_bound";
    if role().is_some() {
        return everybody_puts_and_takes(Queue::builder().bounded(8));
    }
    let Some(ended) = run(3, 1, test) else { return };
    expect_all_saw(&ended, 3);
}

/// The promises of `put`, `get` and their kin, one by one, from another machine.
#[test]
fn a_far_handle_keeps_the_promises_of_a_near_one() {
    let test = "a_far_handle_keeps_the_promises_of_a_near_one";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<String>::builder().bounded(2));
        if world.rank() == Rank(1) {
            promises(&queue);
            say("they hold");
        }
        world.barrier_timeout(PATIENCE).expect("all come");
        if world.rank() == Rank(0) {
            assert_eq!((queue.get().expect("one is left"), queue.len()), ("left".to_owned(), 0));
        }
        return leave(&world, queue);
    }
    let Some(ended) = run(2, 1, test) else { return };
    assert_eq!(ended.said(), ["they hold"], "{}", ended.text);
}

fn promises(queue: &Queue<String>) {
    let text = queue.descriptor().to_string();
    assert!(text.starts_with("tarragon-queue:2:") && text.contains(":0:h0:"), "{text}");
    assert!(matches!(queue.try_get(), Err(Error::Empty)));
    let begin = Instant::now();
    assert!(matches!(queue.get_timeout(SHORT), Err(Error::Empty)));
    assert!(begin.elapsed() >= SHORT && begin.elapsed() < SHORT * 20, "{:?}", begin.elapsed());
    queue.put("one".to_owned()).expect("there is room");
    queue.try_put("two".to_owned()).expect("there is room");
    assert_eq!((queue.len(), queue.is_full(), queue.is_empty()), (2, true, false));
    assert!(matches!(queue.try_put("no".to_owned()), Err(Error::Full { bound: 2 })));
    let begin = Instant::now();
    assert!(matches!(queue.put_timeout("no".to_owned(), SHORT), Err(Error::Full { bound: 2 })));
    assert!(begin.elapsed() >= SHORT, "{:?}", begin.elapsed());
    std::thread::scope(|scope| {
        // It waits for room, and has it.
        let put = scope.spawn(|| queue.put("three".to_owned()));
        std::thread::sleep(SHORT);
        assert!(!put.is_finished());
        assert_eq!(queue.get().expect("it is there"), "one");
        put.join().expect("no panic").expect("there is room");
    });
    assert_eq!(&*queue.get_ref().expect("it is there"), b"two");
    assert_eq!(queue.get().expect("it is there"), "three");
    std::thread::scope(|scope| {
        let get = scope.spawn(|| queue.get());
        std::thread::sleep(SHORT);
        assert!(!get.is_finished());
        queue.put("late".to_owned()).expect("there is room");
        assert_eq!(get.join().expect("no panic").expect("it came"), "late");
    });
    // Four were put and none was called done.
    let begin = Instant::now();
    assert!(matches!(queue.join_timeout(SHORT), Err(Error::Unfinished { left: 4 })));
    assert!(begin.elapsed() >= SHORT, "{:?}", begin.elapsed());
    std::thread::scope(|scope| {
        let join = scope.spawn(|| queue.join());
        (0..4).for_each(|_| queue.task_done().expect("it was put"));
        join.join().expect("no panic").expect("all are done");
    });
    assert!(matches!(queue.task_done(), Err(Error::NotTaken { put: 4 })));
    let near = Queue::<u8>::new().expect("memory");
    assert!(matches!(select(&[&near, queue], Some(SHORT)), Err(Error::Empty)));
    queue.put("left".to_owned()).expect("there is room");
    assert_eq!(select(&[&near, queue], Some(PATIENCE)).expect("there is one"), 1);
    near.put(1).expect("there is room");
    assert_eq!(select(&[&near, queue], Some(PATIENCE)).expect("there is one"), 0);
    let other = queue.descriptor().attach::<String>().expect("once more");
    assert_eq!((other.len(), other.place()), (1, queue.place()));
    assert!(matches!(queue.descriptor().attach::<u64>(), Err(Error::Type { .. })));
    // A rank of no world that it knows.
    let parts: Vec<&str> = text.split(':').collect();
    let stranger = text.replace(parts[5], &"7".repeat(32)).parse::<Descriptor>().expect("a descriptor");
    let error = stranger.attach::<String>().expect_err("it is on another machine");
    assert!(matches!(&error, Error::Elsewhere { host, .. } if host == "h0"), "{error}");
    let gone = text.replace(parts[3], &"7".repeat(32)).parse::<Descriptor>().expect("a descriptor");
    assert!(matches!(gone.attach::<String>(), Err(Error::Segment(_))));
}

#[test]
fn large_items_cross_whole() {
    let test = "large_items_cross_whole";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<Vec<u8>>::builder().memory(16 << 20));
        let bytes = |i: usize| -> Vec<u8> { (0..i * 1_000_003).map(|at| (at * 31 + i) as u8).collect() };
        if world.rank() == Rank(1) {
            // More than the memory holds: it waits for the other side to take.
            for i in 0..8 {
                queue.put(bytes(i)).expect("there will be room");
            }
            let mut loan = queue.loan(3 << 20).expect("memory");
            loan.fill(7);
            loan.send().expect("there is room");
            let mut loan = queue.loan(3).expect("memory");
            loan.copy_from_slice(b"abc");
            loan.send().expect("there is room");
            assert!(matches!(queue.put(vec![0; 17 << 20]), Err(Error::TooLarge { .. })));
            world.barrier_timeout(PATIENCE).expect("all come");
            for i in 0..8 {
                assert!(queue.get().expect("it is there") == bytes(i), "{i}");
            }
            let item = queue.get_ref().expect("it is there");
            assert!(item.len() == 5 << 20 && item.iter().all(|&it| it == 9));
            say("they did");
        } else {
            (0..8).for_each(|i| assert!(queue.get().expect("it comes") == bytes(i), "{i}"));
            assert!(queue.get().expect("it comes") == vec![7; 3 << 20]);
            assert_eq!(queue.get().expect("it comes"), b"abc");
            world.barrier_timeout(PATIENCE).expect("all come");
            (0..8).for_each(|i| queue.put(bytes(i)).expect("there will be room"));
            queue.put(vec![9; 5 << 20]).expect("there will be room");
        }
        return leave(&world, queue);
    }
    let Some(ended) = run(2, 1, test) else { return };
    assert_eq!(ended.said(), ["they did"], "{}", ended.text);
}

/// One that takes item after item is sent several; what it does not look at, others get.
#[test]
fn items_that_a_rank_keeps_come_back_for_others() {
    let test = "items_that_a_rank_keeps_come_back_for_others";
    const ALL: u64 = 3000;
    const FIRST: u64 = 1000;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder());
        if world.rank() == Rank(0) {
            (0..ALL).for_each(|i| queue.put(i).expect("there is room"));
        }
        world.barrier_timeout(PATIENCE).expect("all come");
        let mut got = Vec::new();
        if world.rank() == Rank(1) {
            queue.fetch_ahead(64);
            got.extend((0..FIRST).map(|_| queue.get().expect("they are there")));
            assert!(got.is_sorted());
        }
        world.barrier_timeout(PATIENCE).expect("all come");
        if world.rank() == Rank(2) {
            got.extend((FIRST..ALL).map(|_| queue.get_timeout(PATIENCE / 4).expect("the rest")));
            assert!(matches!(queue.try_get(), Err(Error::Empty)));
            say(&format!("{} came", got.len()));
        }
        return leave(&world, queue);
    }
    let Some(ended) = run(3, 1, test) else { return };
    assert_eq!(ended.said(), ["2000 came"], "{}", ended.text);
}

/// Takes with several threads, and dies in the midst of it.
fn take_and_die(queue: &Queue<u64>, enough: u64) -> ! {
    let taken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let item = queue.get().expect("they are there");
                    if taken.fetch_add(1, SeqCst).is_multiple_of(100) {
                        say(&format!("dead has {item}"));
                    }
                }
            });
        }
        while taken.load(SeqCst) < enough {
            std::thread::yield_now();
        }
        die()
    })
}

/// Takes what comes until it is closed, and calls each done; the items. Beyond `share` only when rank 1 is gone.
fn take_and_finish(world: &World, queue: &Queue<u64>, share: usize) -> BTreeSet<u64> {
    let mut got = BTreeSet::new();
    loop {
        if got.len() == share {
            until_gone(world, Rank(1));
        }
        match queue.get() {
            Ok(item) => {
                assert!(got.insert(item), "{item} came twice");
                queue.task_done().expect("it was put");
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(Error::Closed) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A rank is killed while its threads take. Each item is with another rank, or counted as one that it had taken.
#[test]
fn a_killed_consumer_loses_no_item_on_its_way() {
    let test = "a_killed_consumer_loses_no_item_on_its_way";
    const ALL: u64 = 3000;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder());
        if world.rank() == Rank(1) {
            take_and_die(&queue, ALL / 4);
        } else if world.rank() == Rank(0) {
            (0..ALL).for_each(|i| queue.put(i).expect("there is room"));
            // Until the last item is with somebody who lives, or is counted.
            match queue.join_timeout(PATIENCE / 2) {
                Err(Error::Abandoned { items }) => say(&format!("abandoned {items}")),
                other => panic!("{other:?}, {} left", queue.len()),
            }
            queue.close();
            // Who drains it leaves first.
            until_gone(&world, Rank(2));
        } else {
            say(&format!("missing {}", ALL - take_and_finish(&world, &queue, ALL as usize / 2).len() as u64));
        }
        drop(queue);
        // Rank 1 cannot be waited for.
        let _ = world.leave();
        return;
    }
    let Some(ended) = run_to_death(3, test) else { return };
    let said = ended.said();
    let number = |word: &str| -> u64 {
        let line = said.iter().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("no `{word}`: {}", ended.text)).trim().parse().expect("a number")
    };
    let missing = number("missing");
    assert_eq!(number("abandoned"), missing, "{}", ended.text);
    assert!(missing >= ALL / 4, "{}", ended.text);
    assert!(said.iter().filter(|line| line.starts_with("dead has")).count() >= 5, "{}", ended.text);
}

/// Whoever waits for a queue whose rank is killed is told which one that was.
#[test]
fn a_killed_server_is_named_to_all_who_wait() {
    let test = "a_killed_server_is_named_to_all_who_wait";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder().bounded(1));
        if world.rank() == Rank(1) {
            queue.put(1).expect("there is room");
        }
        world.barrier_timeout(PATIENCE).expect("all come");
        if world.rank() == Rank(0) {
            std::thread::sleep(SHORT);
            die();
        }
        // One waits for room, the other one, which takes what is there, for an item; and both for all to be done.
        let ends = std::thread::scope(|scope| {
            let join = scope.spawn(|| queue.join());
            let end = if world.rank() == Rank(1) {
                (0..).find_map(|i| queue.put(i).err())
            } else {
                (0..).find_map(|_| queue.get().err())
            };
            [end, join.join().expect("no panic").err(), queue.try_put(1).err()]
        });
        for error in ends {
            let error = error.expect("the rank is dead");
            let Error::Lost { rank: 0, host, source } = &error else { panic!("{error}") };
            assert!(matches!(**source, FabricError::PeerDead { rank: Rank(0) }) && host == "h0", "{error}");
            if world.rank() == Rank(1) {
                say(&error.to_string());
            }
        }
        assert!(queue.is_closed() && queue.is_empty());
        // The launcher may end the last one as soon as a second one ends: who has something to say goes first.
        if world.rank() == Rank(2) {
            until_gone(&world, Rank(1));
        }
        let _ = world.leave();
        return;
    }
    let Some(ended) = run_to_death(3, test) else { return };
    let expected = ["the queue lives on h0 and is served by rank 0 there: rank 0 is dead"; 3];
    assert_eq!(ended.said(), expected, "{}", ended.text);
}

/// As above, but it leaves in good order: what nobody took stays at home.
#[test]
fn a_server_that_leaves_holds_up_nobody() {
    let test = "a_server_that_leaves_holds_up_nobody";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder());
        world.barrier_timeout(PATIENCE).expect("all come");
        if world.rank() == Rank(0) {
            std::thread::sleep(SHORT);
            world.leave().expect("in good order");
            assert!(matches!(queue.try_get(), Err(Error::Empty)));
            return;
        }
        let error = queue.get().expect_err("nobody puts");
        let Error::Lost { rank: 0, source, .. } = &error else { panic!("{error}") };
        assert!(matches!(**source, FabricError::PeerLeft { .. }), "{error}");
        let _ = world.leave();
        let error = queue.get().expect_err("it is out of reach");
        assert!(matches!(error, Error::Departed { .. }), "{error}");
        return say("told");
    }
    let Some(ended) = run(2, 1, test) else { return };
    assert_eq!(ended.said(), ["told"], "{}", ended.text);
}

/// One producer and one consumer of small items, each way; says with `--no-capture` what they cost.
#[test]
fn many_small_items_cross_each_way() {
    let test = "many_small_items_cross_each_way";
    const ITEMS: u32 = 2_000;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<Vec<u8>>::builder());
        let back = shared(&world, Queue::<Vec<u8>>::builder());
        let (is_home, item) = (world.rank() == Rank(0), vec![7u8; 64]);
        let per = |what: &str, begin: Instant| {
            let us = begin.elapsed().as_secs_f64() * 1e6 / f64::from(ITEMS);
            say(&format!("{what}: {us:.1} us per item"));
        };
        let barrier = || world.barrier_timeout(PATIENCE).expect("all come");
        barrier();
        let begin = Instant::now();
        for _ in 0..ITEMS {
            if is_home {
                back.put(queue.get().expect("it comes")).expect("there is room");
            } else {
                queue.put(item.clone()).expect("there is room");
                back.get().expect("it comes");
            }
        }
        if !is_home {
            per("put, answered from home, get", begin);
        }
        barrier();
        let begin = Instant::now();
        for _ in 0..ITEMS {
            if is_home {
                queue.get().expect("it comes");
            } else {
                queue.put(item.clone()).expect("there is room");
            }
        }
        if is_home {
            per("puts from afar", begin);
            (0..2 * ITEMS).for_each(|_| queue.put(item.clone()).expect("there is room"));
        }
        barrier();
        let begin = Instant::now();
        if !is_home {
            (0..ITEMS).for_each(|_| assert_eq!(queue.get().expect("it is there"), item));
            per("gets from afar of what is there", begin);
            let begin = Instant::now();
            queue.fetch_ahead(64);
            (0..ITEMS).for_each(|_| assert_eq!(queue.get().expect("it is there"), item));
            per("the same, fetched ahead", begin);
        }
        barrier();
        drop(back);
        return leave(&world, queue);
    }
    let Some(ended) = run(2, 1, test) else { return };
    println!("{}", ended.said().join("\n"));
    assert_eq!(ended.said().len(), 4, "{}", ended.text);
}
