//! Items that are sent ahead to a queue on another machine: all come, once and in order, whoever dies or closes it, and
//! no bound is passed.
//!
//! The machines are namespaces of this one. Every process has a watchdog.

mod ranks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use ranks::{leave, run, run_to_death, shared, until_gone, world};
use tarragon_queue::{Builder, Error, Queue};
use tarragon_testbed::{PATIENCE, die, role, say};
use tarragon_transport::{FabricError, Rank, World};

const SHORT: Duration = Duration::from_millis(100);

fn barrier(world: &World) {
    world.barrier_timeout(PATIENCE).expect("all come");
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) % n
    }
}

/// Who put it, as which one, and bytes that say so.
type Item = (u32, u64, Vec<u8>);

const PRODUCERS: u32 = 2;
const ITEMS: u64 = 1500;

fn item(producer: u32, number: u64) -> Item {
    // Some do not fit into a cell, a few not into a message with others.
    let len = match number % 50 {
        49 => 20_000,
        it if it % 7 == 6 => 300,
        it => it,
    };
    (producer, number, vec![(number + u64::from(producer)) as u8; len as usize])
}

/// Puts a producer's items by all ways there are.
fn produce(queue: &Queue<Item>, producer: u32) {
    let (mut dice, mut next) = (Dice(u64::from(producer)), 0);
    while next < ITEMS {
        let way = dice.below(4);
        let end = if way == 0 { next + 1 } else { ITEMS.min(next + 1 + dice.below(200)) };
        let items = (next..end).map(|it| item(producer, it));
        next = end;
        match way {
            0 => items.for_each(|it| queue.put(it).expect("it is open")),
            1 => {
                let mut puts = queue.puts().expect("it is there");
                items.for_each(|it| puts.put(it).expect("it is open"));
                if dice.below(2) == 0 {
                    puts.flush().expect("it is open");
                }
            }
            _ => queue.put_all(items).expect("it is open"),
        }
        if dice.below(8) == 0 {
            std::thread::sleep(Duration::from_micros(dice.below(2000)));
        }
    }
}

/// Takes until it is closed; each producer's items come in order, and whole.
fn drain(queue: &Queue<Item>) -> Vec<(u32, u64)> {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let mut got = Vec::new();
    loop {
        match queue.get_timeout(PATIENCE) {
            Ok(one) => {
                let (producer, number) = (one.0, one.1);
                assert!(one == item(producer, number), "{producer} {number}");
                let before = last.insert(producer, number);
                assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
                got.push((producer, number));
            }
            Err(Error::Closed) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

fn everybody_puts_and_takes(builder: Builder<Item>) {
    let world = world();
    let queue = shared(&world, builder);
    let rank = world.rank().0;
    let got: Vec<(u32, u64)> = std::thread::scope(|scope| {
        let consumer = scope.spawn(|| drain(&queue));
        let queue = &queue;
        let producers: Vec<_> =
            (0..PRODUCERS).map(|it| scope.spawn(move || produce(queue, rank * PRODUCERS + it))).collect();
        producers.into_iter().for_each(|it| it.join().expect("all are in"));
        barrier(&world);
        if rank == 1 {
            queue.close();
        }
        consumer.join().expect("in order")
    });
    let error = queue.put_all([item(0, 0)]).expect_err("it is closed");
    assert!(
        matches!(&error, Error::Partly { put: 0, source } if matches!(**source, Error::Closed)),
        "{error}"
    );
    let bytes: Vec<u8> =
        got.iter().flat_map(|it| [u64::from(it.0), it.1]).flat_map(u64::to_le_bytes).collect();
    let all = world.all_gather(&bytes).expect("all are here").concat();
    let words: Vec<u64> = all.chunks(8).map(|it| u64::from_le_bytes(it.try_into().expect("eight"))).collect();
    let items: BTreeSet<&[u64]> = words.chunks(2).collect();
    let expected = (u64::from(world.size() * PRODUCERS) * ITEMS) as usize;
    assert_eq!((items.len(), words.len() / 2), (expected, expected));
    say(&format!("rank {rank} saw all"));
    leave(&world, queue);
}

fn expect_all_saw(machines: u32, slots: u32, test: &'static str, builder: fn() -> Builder<Item>) {
    if role().is_some() {
        return everybody_puts_and_takes(builder());
    }
    let Some(ended) = run(machines, slots, test) else { return };
    let expected: Vec<String> = (0..machines * slots).map(|it| format!("rank {it} saw all")).collect();
    assert_eq!(ended.said(), expected, "{}", ended.text);
}

#[test]
fn items_of_three_machines_come_once_and_in_order() {
    expect_all_saw(3, 1, "items_of_three_machines_come_once_and_in_order", Queue::builder);
}

#[test]
fn items_come_once_and_in_order_through_a_bound() {
    let test = "items_come_once_and_in_order_through_a_bound";
    expect_all_saw(3, 1, test, || Queue::builder().bounded(8));
}

#[test]
fn items_of_one_machine_come_once_and_in_order() {
    expect_all_saw(1, 3, "items_of_one_machine_come_once_and_in_order", || Queue::builder().bounded(64));
}

/// What a killed producer has sent is there from the first one on, and all that it had flushed.
#[test]
fn a_killed_producer_leaves_a_beginning() {
    let test = "a_killed_producer_leaves_a_beginning";
    const FLUSHED: u64 = 5000;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<(u32, u64)>::builder().bounded(100));
        let rank = world.rank().0;
        if rank == 1 {
            let mut puts = queue.puts().expect("it is there");
            (0..FLUSHED).for_each(|it| puts.put((1, it)).expect("it is open"));
            puts.flush().expect("it is open");
            std::thread::scope(|scope| {
                scope.spawn(|| (FLUSHED..u64::MAX).for_each(|it| puts.put((1, it)).expect("it is open")));
                std::thread::sleep(SHORT);
                die()
            })
        } else if rank == 2 {
            queue.put_all((0..FLUSHED).map(|it| (2, it))).expect("it is open");
            until_gone(&world, Rank(1));
            queue.close();
        } else {
            let mut next = [0_u64; 3];
            while let Ok((producer, number)) = queue.get() {
                assert_eq!(number, next[producer as usize], "of {producer}");
                next[producer as usize] += 1;
            }
            assert!(next[1] >= FLUSHED, "{next:?}");
            say(&format!("all of rank 2: {}", next[2] == FLUSHED));
            until_gone(&world, Rank(2));
        }
        drop(queue);
        // Rank 1 cannot be waited for.
        let _ = world.leave();
        return;
    }
    let Some(ended) = run_to_death(3, test) else { return };
    assert_eq!(ended.said(), ["all of rank 2: true"], "{}", ended.text);
}

/// Each item is with a consumer that lives, or was taken by the dead one.
#[test]
fn a_killed_consumer_holds_up_no_producer() {
    let test = "a_killed_consumer_holds_up_no_producer";
    const ALL: u64 = 4000;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder().bounded(16));
        if world.rank() == Rank(1) {
            (0..ALL / 8).for_each(|_| assert!(queue.get().is_ok()));
            say(&format!("taken {}", ALL / 8));
            die()
        } else if world.rank() == Rank(2) {
            queue.put_all(0..ALL).expect("it is open");
            match queue.join_timeout(PATIENCE / 2) {
                Err(Error::Abandoned { items }) => say(&format!("abandoned {items}")),
                other => panic!("{other:?}, {} left", queue.len()),
            }
            queue.close();
        } else {
            let mut got = BTreeSet::new();
            while let Ok(item) = queue.get() {
                assert!(got.insert(item), "{item} came twice");
                queue.task_done().expect("it was put");
                std::thread::sleep(Duration::from_micros(50));
                if got.len() as u64 == ALL / 2 {
                    // What the other one is to take before its end comes from afar, and is not to be taken from it.
                    until_gone(&world, Rank(1));
                }
            }
            say(&format!("missing {}", ALL - got.len() as u64));
            until_gone(&world, Rank(2));
        }
        drop(queue);
        let _ = world.leave();
        return;
    }
    let Some(ended) = run_to_death(3, test) else { return };
    let said = ended.said();
    let number = |word: &str| said.iter().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
    assert_eq!(number("abandoned "), number("missing "), "{}", ended.text);
    assert_eq!(number("taken "), Some((ALL / 8).to_string()), "{}", ended.text);
    assert!(number("missing ").is_some(), "{}", ended.text);
}

/// A third one closes it: who sends hears how many are in, and these come.
#[test]
fn a_close_refuses_what_is_on_its_way_and_says_how_much() {
    let test = "a_close_refuses_what_is_on_its_way_and_says_how_much";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder().bounded(8));
        let got = AtomicU64::new(0);
        if world.rank() == Rank(1) {
            let mut puts = queue.puts().expect("it is there");
            let refused = (0..).find_map(|it| puts.put(it).err()).expect("it is closed");
            assert!(matches!(refused, Error::Closed), "{refused}");
            assert!(matches!(puts.flush(), Err(Error::Closed)));
            got.store(puts.count_in(), SeqCst);
        } else if world.rank() == Rank(2) {
            // Somebody has to wait for room by then.
            std::thread::sleep(SHORT);
            queue.close();
            assert!(matches!(queue.put(0), Err(Error::Closed)));
        } else {
            for expected in 0.. {
                match queue.get() {
                    Ok(item) => assert_eq!(item, expected),
                    Err(Error::Closed) => {
                        got.store(expected, SeqCst);
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mine = got.load(SeqCst).to_le_bytes();
        let all = world.all_gather(&mine).expect("all are here");
        assert_eq!(all[0], all[1], "what was taken and what is in");
        say("the same");
        return leave(&world, queue);
    }
    let Some(ended) = run(3, 1, test) else { return };
    assert_eq!(ended.said(), ["the same"; 3], "{}", ended.text);
}

/// Far ones that send as fast as they can, and a near one: each gets its turn, and the bound holds.
#[test]
fn nobody_is_kept_out_of_a_bounded_queue_and_it_is_never_over_full() {
    let test = "nobody_is_kept_out_of_a_bounded_queue_and_it_is_never_over_full";
    const EACH: u64 = 200;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u32>::builder().bounded(4));
        let rank = world.rank().0;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                let mut puts = queue.puts().expect("it is there");
                while puts.put(rank).is_ok() && !is_over.load(SeqCst) {}
            });
            if rank == 0 {
                let mut got = [0_u64; 3];
                while got.iter().any(|it| *it < EACH) {
                    assert!(queue.len() <= 4, "{}", queue.len());
                    got[queue.get().expect("they come") as usize] += 1;
                }
                say("each had its turn");
                queue.close();
            }
            producer.join().expect("no panic");
            is_over.store(true, SeqCst);
        });
        return leave(&world, queue);
    }
    let Some(ended) = run(3, 1, test) else { return };
    assert_eq!(ended.said(), ["each had its turn"], "{}", ended.text);
}

/// More than the queue's memory holds waits for room; one that never fits is refused, with what was before it in.
#[test]
fn full_memory_is_waited_for_and_what_is_too_large_is_refused() {
    let test = "full_memory_is_waited_for_and_what_is_too_large_is_refused";
    const COUNT: usize = 100;
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<Vec<u8>>::builder().memory(16 << 20));
        let bytes = |i: usize| vec![i as u8; 200_000];
        if world.rank() == Rank(1) {
            let mut puts = queue.puts().expect("it is there");
            for i in 0..COUNT {
                puts.put(bytes(i)).expect("it may wait");
                if let Err(late) = puts.flush_timeout(SHORT) {
                    assert!(matches!(late, Error::OnTheirWay { items: 1 }), "{late}");
                    say("full");
                    break;
                }
            }
            let sent = puts.count_in() as usize + 1;
            barrier(&world);
            (sent..COUNT).for_each(|i| puts.put(bytes(i)).expect("there will be room"));
            puts.flush().expect("there will be room");
            assert_eq!(puts.count_in(), COUNT as u64);
            drop(puts);
            barrier(&world);
            let error = queue
                .put_all([bytes(0), bytes(1), vec![0; 17 << 20], bytes(3)])
                .expect_err("one is too large");
            let is_right = |source: &Error| matches!(source, Error::TooLarge { .. });
            assert!(matches!(&error, Error::Partly { put: 2, source } if is_right(source)), "{error}");
        } else {
            barrier(&world);
            (0..COUNT).for_each(|i| assert!(queue.get().expect("it comes") == bytes(i), "{i}"));
            barrier(&world);
            (0..2).for_each(|i| assert!(queue.get().expect("it comes") == bytes(i), "{i}"));
            barrier(&world);
            assert!(queue.is_empty());
        }
        if world.rank() == Rank(1) {
            barrier(&world);
        }
        return leave(&world, queue);
    }
    let Some(ended) = run(2, 1, test) else { return };
    assert_eq!(ended.said(), ["full"], "{}", ended.text);
}

/// Who waits for room or for a flush at a rank that is killed, or leaves, hears which one that was.
#[test]
fn a_killed_server_is_named_to_who_sends_ahead() {
    let test = "a_killed_server_is_named_to_who_sends_ahead";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder().bounded(10));
        barrier(&world);
        if world.rank() == Rank(0) {
            std::thread::sleep(SHORT);
            die();
        }
        let error = queue.put_all(0..).expect_err("the rank is dead");
        let Error::Partly { put, source } = &error else { panic!("{error}") };
        assert!(
            matches!(&**source, Error::Lost { rank: 0, source, .. }
            if matches!(**source, FabricError::PeerDead { rank: Rank(0) })),
            "{error}"
        );
        say(&format!("at most ten were in: {}", *put <= 10));
        let _ = world.leave();
        return;
    }
    let Some(ended) = run_to_death(2, test) else { return };
    assert_eq!(ended.said(), ["at most ten were in: true"], "{}", ended.text);
}

#[test]
fn a_server_that_leaves_is_named_to_who_sends_ahead() {
    let test = "a_server_that_leaves_is_named_to_who_sends_ahead";
    if role().is_some() {
        let world = world();
        let queue = shared(&world, Queue::<u64>::builder().bounded(10));
        barrier(&world);
        if world.rank() == Rank(0) {
            std::thread::sleep(SHORT);
            world.leave().expect("in good order");
            return;
        }
        let error = queue.put_all(0..).expect_err("the rank has left");
        let is_left = |source: &Error| {
            matches!(source, Error::Lost { rank: 0, source, .. }
            if matches!(**source, FabricError::PeerLeft { .. }))
        };
        assert!(matches!(&error, Error::Partly { put: 10, source } if is_left(source)), "{error}");
        let _ = world.leave();
        assert!(matches!(queue.puts().map(drop), Err(Error::Departed { .. })));
        return say("told");
    }
    let Some(ended) = run(2, 1, test) else { return };
    assert_eq!(ended.said(), ["told"], "{}", ended.text);
}
