//! What a queue promises, promise by promise, by the threads of one process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tarragon_queue::{AnyQueue, Descriptor, Error, Queue, select};

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

/// The queues a promise is tried on: with lanes, and strict.
fn both<T: serde::Serialize + serde::de::DeserializeOwned + 'static>() -> [Queue<T>; 2] {
    [false, true].map(|strict| Queue::builder().strict(strict).create().expect("shared memory"))
}

fn is_sound<T: serde::Serialize + serde::de::DeserializeOwned + 'static>(queue: &Queue<T>) {
    let audit = queue.audit();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn items_of_each_kind_and_length_come_back() {
    for queue in both::<Vec<u8>>() {
        for len in (0..300).chain([4096, 100_000, 3 << 20]) {
            let item: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            queue.put(item.clone()).expect("there is room");
            assert_eq!(queue.get().expect("it was put"), item, "{len} bytes");
        }
        is_sound(&queue);
    }
    for queue in both::<(u64, Option<String>, Vec<u32>)>() {
        for len in [0, 1, 100, 10_000] {
            let item = (7, Some("x".repeat(len)), vec![1 << 30; len]);
            queue.put(item.clone()).expect("there is room");
            assert_eq!(queue.get().expect("it was put"), item);
        }
    }
    for queue in both::<f64>() {
        queue.put(2.5).expect("there is room");
        assert_eq!(queue.get_ref().expect("it was put").bytes(), 2.5_f64.to_ne_bytes());
    }
    for queue in both::<String>() {
        queue.put("ä".repeat(1000)).expect("there is room");
        assert_eq!(queue.get().expect("it was put"), "ä".repeat(1000));
    }
}

#[test]
fn a_queue_is_first_in_first_out_beyond_a_block() {
    for queue in both::<u64>() {
        for lap in 0..3 {
            (0..5000).for_each(|n| queue.put(lap * 10_000 + n).expect("there is room"));
            assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (5000, false, false));
            (0..5000).for_each(|n| assert_eq!(queue.get().expect("it was put"), lap * 10_000 + n));
            assert!(queue.is_empty());
        }
        assert!(matches!(queue.try_get(), Err(Error::Empty)));
        is_sound(&queue);
    }
}

#[test]
fn an_empty_queue_says_so_in_time() {
    for queue in both::<u64>() {
        assert!(matches!(queue.try_get(), Err(Error::Empty)));
        let start = Instant::now();
        assert!(matches!(queue.get_timeout(SOON), Err(Error::Empty)));
        assert!(start.elapsed() >= SOON);
    }
}

#[test]
fn a_bounded_queue_is_full_at_its_bound() {
    let queue = Queue::<u64>::builder().bounded(3).create().expect("shared memory");
    (0..3).for_each(|n| queue.try_put(n).expect("there is room"));
    assert!(queue.is_full());
    assert!(matches!(queue.try_put(3), Err(Error::Full { bound: 3 })));
    assert!(matches!(queue.put_timeout(3, SOON), Err(Error::Full { bound: 3 })));
    let other = queue.clone();
    let putter = std::thread::spawn(move || other.put(3));
    assert_eq!(queue.get_timeout(LONG).expect("it was put"), 0);
    putter.join().expect("the putter ends").expect("there was room");
    assert_eq!((1..4).map(|_| queue.get().expect("it was put")).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(!queue.is_full());
}

#[test]
fn a_put_waits_for_memory_and_gets_it() {
    let queue = Queue::<Vec<u8>>::builder().memory(8 << 20).create().expect("shared memory");
    let item = vec![1; 1 << 20];
    let fitting = (0..).take_while(|_| queue.try_put(item.clone()).is_ok()).count();
    assert!((5..8).contains(&fitting), "{fitting} of 1 MiB fit into 8 MiB");
    assert!(matches!(queue.try_put(item.clone()), Err(Error::Memory { .. })));
    assert!(matches!(queue.put_timeout(item.clone(), SOON), Err(Error::Memory { .. })));
    let other = queue.clone();
    let putter = std::thread::spawn(move || other.put_timeout(vec![2; 1 << 20], LONG));
    let mut taken: Vec<u8> = (0..=fitting).map(|_| queue.get_timeout(LONG).expect("it was put")[0]).collect();
    taken.sort_unstable();
    putter.join().expect("the putter ends").expect("memory was freed");
    assert!(taken.iter().filter(|&&byte| byte == 1).count() == fitting && taken[fitting] == 2);
    assert!(matches!(queue.put(vec![0; 9 << 20]), Err(Error::TooLarge { .. })));
    is_sound(&queue);
}

#[test]
fn small_items_fill_the_memory_and_then_wait() {
    for strict in [false, true] {
        let queue = Queue::<u64>::builder().memory(8 << 20).strict(strict).create().expect("shared memory");
        let fitting = (0..).take_while(|&n| queue.try_put(n).is_ok()).count() as u64;
        assert!((40_000..70_000).contains(&fitting), "{fitting}, strict: {strict}");
        assert_eq!(queue.len(), fitting);
        let other = queue.clone();
        let taker = std::thread::spawn(move || {
            (0..=fitting).for_each(|n| assert_eq!(other.get_timeout(LONG).expect("it was put"), n));
        });
        queue.put_timeout(fitting, LONG).expect("there was room again");
        taker.join().expect("the taker ends");
        is_sound(&queue);
    }
}

#[test]
fn a_loan_is_written_in_place_and_read_in_place() {
    for queue in both::<Vec<u8>>() {
        for len in [0, 8, 113, 1 << 20] {
            let mut loan = queue.loan(len).expect("there is memory");
            loan.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
            loan.send().expect("the queue is open");
            let item = queue.get_ref().expect("it was sent");
            assert_eq!(item.len(), len);
            assert!(item.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        }
        drop(queue.loan(1000).expect("there is memory"));
        assert!(queue.is_empty(), "a loan that is dropped is not sent");
        is_sound(&queue);
        queue.close();
        assert!(matches!(queue.loan(1), Err(Error::Closed)));
    }
}

#[test]
fn a_loan_of_a_closed_queue_goes_back() {
    for queue in both::<Vec<u8>>() {
        let loan = queue.loan(500).expect("there is memory");
        queue.close();
        assert!(matches!(loan.send(), Err(Error::Closed)));
        assert_eq!(queue.audit().blocks, 0);
    }
}

#[test]
fn items_in_hand_are_bounded_and_outlive_their_thread() {
    let queue = Queue::<Vec<u8>>::new().expect("shared memory");
    (0..300).for_each(|n| queue.put(vec![n as u8; 200]).expect("there is room"));
    let mut hand = Vec::new();
    let full = loop {
        match queue.get_ref() {
            Ok(item) => hand.push(item),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Held { max } if max == hand.len()), "{full}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(hand.iter().enumerate().all(|(n, item)| item.bytes() == vec![n as u8; 200]));
            drop(hand);
        });
    });
    (256..300).for_each(|n| assert_eq!(queue.get().expect("it was put"), vec![n as u8; 200]));
    is_sound(&queue);
}

#[test]
fn close_refuses_puts_drains_and_wakes_who_waits() {
    for queue in both::<u64>() {
        let (first, second) = (queue.clone(), queue.clone());
        let waiters = [std::thread::spawn(move || first.get()), std::thread::spawn(move || second.get())];
        std::thread::sleep(SOON);
        queue.close();
        for waiter in waiters {
            assert!(matches!(waiter.join().expect("it wakes"), Err(Error::Closed)));
        }
    }
    for queue in both::<u64>() {
        queue.put(1).expect("it is open");
        queue.close();
        queue.close();
        assert!(queue.is_closed());
        assert!(matches!(queue.put(2), Err(Error::Closed)));
        assert_eq!(queue.get().expect("it was put before"), 1);
        assert!(matches!(queue.get(), Err(Error::Closed)));
        assert!(matches!(queue.try_get(), Err(Error::Closed)));
    }
}

#[test]
fn close_wakes_who_waits_for_room() {
    let queue = Queue::<u64>::builder().bounded(1).create().expect("shared memory");
    queue.put(1).expect("there is room");
    let other = queue.clone();
    let putter = std::thread::spawn(move || other.put(2));
    std::thread::sleep(SOON);
    queue.close();
    assert!(matches!(putter.join().expect("it wakes"), Err(Error::Closed)));
}

#[test]
fn join_waits_for_each_task() {
    for queue in both::<u64>() {
        queue.join().expect("nothing was put");
        assert!(matches!(queue.task_done(), Err(Error::NotTaken { put: 0 })));
        (0..300).for_each(|n| queue.put(n).expect("there is room"));
        assert!(matches!(queue.join_timeout(SOON), Err(Error::Unfinished { left: 300 })));
        let other = queue.clone();
        let worker = std::thread::spawn(move || {
            for _ in 0..300 {
                other.get().expect("it was put");
                other.task_done().expect("it was taken");
            }
        });
        queue.join_timeout(LONG).expect("all are done");
        worker.join().expect("the worker ends");
        assert!(queue.is_empty());
        assert!(matches!(queue.task_done(), Err(Error::NotTaken { put: 300 })));
    }
}

#[test]
fn descriptors_print_parse_and_attach() {
    let queue = Queue::<u64>::builder().name("jobs: first").create().expect("shared memory");
    let descriptor = queue.descriptor();
    let parsed: Descriptor = descriptor.to_string().parse().expect("it was printed");
    assert_eq!(parsed, descriptor);
    assert_eq!(parsed.name(), "jobs: first");
    let other = parsed.attach::<u64>().expect("it is there");
    queue.put(5).expect("there is room");
    assert_eq!(other.get().expect("it was put"), 5);
    assert!(matches!(parsed.attach::<u32>(), Err(Error::Type { .. })));
    assert!(matches!(parsed.attach::<Vec<u8>>(), Err(Error::Type { .. })));
    for text in ["", "tarragon-queue:1", "tarragon-queue:1:../x:0:0:", "tarragon-ddict:1:a:0:0:", "x"] {
        assert!(matches!(text.parse::<Descriptor>(), Err(Error::Descriptor { .. })), "{text}");
    }
}

#[test]
fn a_destroyed_queue_is_an_error_for_all() {
    for queue in both::<Vec<u8>>() {
        let descriptor = queue.descriptor();
        queue.put(vec![1; 1000]).expect("there is room");
        let other = queue.clone();
        let empty = Queue::<u64>::new().expect("shared memory");
        let waiting = empty.clone();
        let waiter = std::thread::spawn(move || waiting.get());
        std::thread::sleep(SOON);
        empty.destroy();
        assert!(matches!(waiter.join().expect("it wakes"), Err(Error::Destroyed)));
        queue.destroy();
        assert!(matches!(other.put(vec![]), Err(Error::Destroyed)));
        assert!(matches!(other.join(), Err(Error::Destroyed) | Ok(())));
        drop((queue, other));
        assert!(descriptor.attach::<Vec<u8>>().is_err());
    }
}

#[test]
fn a_queue_that_all_left_is_gone() {
    let queue = Queue::<u64>::new().expect("shared memory");
    let descriptor = queue.descriptor();
    drop(queue);
    assert!(matches!(descriptor.attach::<u64>(), Err(Error::Segment(_))));
}

#[test]
fn select_finds_the_queue_that_has_something() {
    let numbers = Queue::<u64>::new().expect("shared memory");
    let texts = Queue::<String>::builder().strict(true).create().expect("shared memory");
    let closed = Queue::<u8>::new().expect("shared memory");
    let all: [&dyn AnyQueue; 3] = [&numbers, &texts, &closed];
    assert!(matches!(select(&all, Some(SOON)), Err(Error::Empty)));
    for round in 0..20 {
        let (to_numbers, to_texts) = (numbers.clone(), texts.clone());
        let putter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(50 * round));
            if round % 2 == 0 { to_numbers.put(round) } else { to_texts.put(round.to_string()) }
        });
        let found = select(&all, Some(LONG)).expect("one is put");
        assert_eq!(found as u64, round % 2);
        if found == 0 {
            assert_eq!(numbers.get().expect("it was put"), round);
        } else {
            assert_eq!(texts.get().expect("it was put"), round.to_string());
        }
        putter.join().expect("the putter ends").expect("there is room");
    }
    closed.close();
    assert_eq!(select(&all, None).expect("one is closed"), 2);
}

#[test]
fn more_producers_than_lanes_lose_nothing_and_keep_their_order() {
    const PRODUCERS: u64 = 80;
    const ITEMS: u64 = 100;
    let queue = Queue::<(u64, u64)>::new().expect("shared memory");
    let barrier = std::sync::Barrier::new(PRODUCERS as usize);
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (queue, barrier) = (&queue, &barrier);
            scope.spawn(move || {
                queue.put((producer, 0)).expect("there is room");
                // All live at once, so that they cannot share lanes.
                barrier.wait();
                (1..ITEMS).for_each(|n| queue.put((producer, n)).expect("there is room"));
            });
        }
        let mut next = [0; PRODUCERS as usize];
        for _ in 0..PRODUCERS * ITEMS {
            let (producer, n) = queue.get_timeout(LONG).expect("all arrive");
            assert_eq!(n, next[producer as usize], "in order");
            next[producer as usize] += 1;
        }
    });
    assert!(queue.is_empty());
    is_sound(&queue);
}

#[test]
fn many_threads_share_the_items_out() {
    const ITEMS: u64 = 20_000;
    for queue in both::<Vec<u8>>() {
        let sum = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for producer in 0..3_u64 {
                let queue = &queue;
                scope.spawn(move || {
                    for n in 0..ITEMS {
                        let len = 16 + (n as usize * 31) % 300;
                        let mut item = vec![n as u8; len];
                        item[..8].copy_from_slice(&producer.to_ne_bytes());
                        item[8..16].copy_from_slice(&n.to_ne_bytes());
                        queue.put(item).expect("there is room");
                    }
                });
            }
            for _ in 0..3 {
                let (queue, sum) = (&queue, &sum);
                scope.spawn(move || {
                    let mut last = [None; 3];
                    for _ in 0..ITEMS {
                        let item = queue.get_timeout(LONG).expect("all arrive");
                        let word = |at: usize| u64::from_ne_bytes(item[at..at + 8].try_into().expect("8"));
                        let (producer, n) = (word(0) as usize, word(8));
                        assert!(item[16..].iter().all(|&byte| byte == n as u8), "torn");
                        assert!(last[producer] < Some(n), "in order");
                        last[producer] = Some(n);
                        sum.fetch_add(n, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * ITEMS * (ITEMS - 1) / 2);
        is_sound(&queue);
    }
}

#[test]
fn a_strict_queue_has_one_order_over_all_producers() {
    let queue = Queue::<u64>::builder().strict(true).create().expect("shared memory");
    let turn = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for producer in 0..3 {
            let (queue, turn) = (&queue, &turn);
            scope.spawn(move || {
                for n in (producer..900).step_by(3) {
                    while turn.load(Ordering::Acquire) != n {
                        std::thread::yield_now();
                    }
                    queue.put(n).expect("there is room");
                    turn.store(n + 1, Ordering::Release);
                }
            });
        }
    });
    (0..900).for_each(|n| assert_eq!(queue.get().expect("it was put"), n));
}

#[test]
fn threads_that_come_and_go_use_their_lanes_again() {
    let queue = Queue::<u64>::new().expect("shared memory");
    for round in 0..200 {
        let other = queue.clone();
        std::thread::spawn(move || other.put(round)).join().expect("it ends").expect("there is room");
    }
    let mut all: Vec<u64> = (0..200).map(|_| queue.get().expect("it was put")).collect();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    assert!(queue.audit().blocks <= 4, "a lane or two: {:?}", queue.audit());
}

#[test]
fn who_waits_uses_no_processor() {
    let queues = both::<u64>();
    let full = Queue::<u64>::builder().bounded(1).create().expect("shared memory");
    full.put(1).expect("there is room");
    let empty = Queue::<u64>::new().expect("shared memory");
    let used = std::thread::scope(|scope| {
        let waiters = [
            scope.spawn(|| cpu_of(|| drop(queues[0].get_timeout(Duration::from_secs(1))))),
            scope.spawn(|| cpu_of(|| drop(queues[1].get_timeout(Duration::from_secs(1))))),
            scope.spawn(|| cpu_of(|| drop(full.put_timeout(2, Duration::from_secs(1))))),
            scope.spawn(|| cpu_of(|| drop(select(&[&queues[0], &empty], Some(Duration::from_secs(1)))))),
        ];
        waiters.map(|waiter| waiter.join().expect("it ends"))
    });
    assert!(used.iter().all(|&one| one < Duration::from_millis(5)), "{used:?} in a second each");
}

/// Processor time this thread uses in `work`.
fn cpu_of(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let before = now();
    work();
    now() - before
}
