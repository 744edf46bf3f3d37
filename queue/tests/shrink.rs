//! A strict queue after bursts: its blocks of cells go back to the heap, and nothing else changes.

mod child;

use child::{Role, role};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};
use tarragon_queue::{Descriptor, Error, Queue};

/// Producer, number, when its put began, when the producer's put before had ended.
type Item = (u64, u64, u64, u64);

/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(30);
/// Items of a block of cells.
const CELLS: u64 = 256;
/// The most blocks of cells that a strict queue keeps when it is empty: eight spares, and the one in use.
const KEPT_MAX: u64 = 9;
const BURST: u64 = 1_000_000;

fn strict() -> Queue<u64> {
    Queue::<u64>::builder().strict(true).create().expect("shared memory")
}

fn attach(descriptor: &str) -> Queue<Item> {
    descriptor.parse::<Descriptor>().expect("it was printed").attach().expect("the test has it")
}

fn put_burst(queue: &Queue<u64>) {
    (0..BURST).for_each(|n| queue.put(n).expect("there is room"));
    assert!(queue.ring_blocks() >= BURST / CELLS, "a burst needs many blocks");
}

fn get_burst(queue: &Queue<u64>) {
    (0..BURST).for_each(|n| assert_eq!(queue.get().expect("it was put"), n));
}

/// Allocated blocks of the heap; nothing may have been lost.
fn allocated<T: serde::Serialize + serde::de::DeserializeOwned + 'static>(queue: &Queue<T>) -> u64 {
    let audit = queue.audit();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
    audit.blocks
}

#[test]
fn who_finds_nothing_gives_back_what_a_burst_has_left() {
    let queue = strict();
    let before = allocated(&queue);
    for burst in 0..3 {
        put_burst(&queue);
        get_burst(&queue);
        assert!(matches!(queue.try_get(), Err(Error::Empty)));
        let after = allocated(&queue);
        assert!(after <= before + KEPT_MAX, "{after} blocks after burst {burst}, {before} before all");
    }
}

/// A consumer that is never told that there is nothing: then who puts gives back, soon.
#[test]
fn who_puts_gives_back_what_a_burst_has_left() {
    const PUTS: u64 = BURST / 50;
    let queue = strict();
    let before = allocated(&queue);
    for burst in 0..3 {
        put_burst(&queue);
        queue.put(BURST).expect("there is room");
        get_burst(&queue);
        for n in BURST..BURST + PUTS {
            queue.put(n + 1).expect("there is room");
            assert_eq!(queue.get().expect("it was put"), n);
        }
        let after = allocated(&queue);
        assert!(after <= before + KEPT_MAX, "{after} blocks after burst {burst}, {before} before all");
        assert_eq!(queue.get().expect("it was put"), BURST + PUTS);
    }
}

/// Bursts of fewer blocks than are kept do not go to the heap and back.
#[test]
fn small_bursts_keep_their_blocks() {
    let queue = strict();
    let burst = || {
        (0..8 * CELLS).for_each(|n| queue.put(n).expect("there is room"));
        (0..8 * CELLS).for_each(|n| assert_eq!(queue.get().expect("it was put"), n));
        assert!(matches!(queue.try_get(), Err(Error::Empty)));
        queue.ring_blocks()
    };
    assert!((0..20).all(|_| burst() == 8));
}

/// Takes items until the queue is closed.
#[test]
fn role_drains() {
    let Some(words) = role() else { return };
    let queue: Queue<u64> = words[0].parse::<Descriptor>().expect("it was printed").attach().expect("it is");
    while queue.get().is_ok() {}
}

#[test]
fn another_process_that_takes_gives_back_what_a_burst_has_left() {
    let queue = strict();
    let mut drains = Role::start("role_drains", &[&queue.descriptor().to_string()]);
    for burst in 0..5 {
        (0..BURST / 4).for_each(|n| queue.put(n).expect("there is room"));
        let end = Instant::now() + LONG;
        // It gives up while a put is under way, perhaps the last one: so there is one more now and then.
        while !queue.is_empty() || queue.ring_blocks() > KEPT_MAX {
            let blocks = queue.ring_blocks();
            assert!(Instant::now() < end, "{blocks} blocks after burst {burst}");
            std::thread::sleep(Duration::from_millis(1));
            queue.put(burst).expect("there is room");
        }
    }
    queue.close();
    assert!(drains.wait());
    allocated(&queue);
}

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Puts so many items, in bursts of up to 16 blocks; waits for the consumers in between.
fn produce(queue: &Queue<Item>, producer: u64, count: u64) {
    let (mut ended, mut left) = (now(), 0);
    for n in 0..count {
        if left == 0 {
            let end = Instant::now() + LONG;
            while queue.len() > CELLS / 2 {
                assert!(Instant::now() < end, "nobody takes items");
                yield_now();
            }
            left = 1 + (n * 7919 + producer * 104_729) % (16 * CELLS);
        }
        left -= 1;
        queue.put((producer, n, now(), ended)).expect("there is room");
        ended = now();
    }
}

/// What one consumer has seen of the order.
#[derive(Default)]
struct Order {
    /// When the last put began of those whose items came so far.
    latest: u64,
    /// By producer: the number of its last item, and `latest` when that came.
    last: HashMap<u64, (u64, u64)>,
}

impl Order {
    /// An item comes: after all of its producer before it, and not after one whose put began when its own had ended.
    fn add(&mut self, (producer, n, began, ended_before): Item) {
        if let Some((before, latest)) = self.last.insert(producer, (n, self.latest)) {
            assert!(n > before, "{n} of {producer} after {before}");
            let is_late = n == before + 1 && ended_before < latest;
            assert!(
                !is_late,
                "{before} of {producer} came after what was put {} ns later",
                latest - ended_before
            );
        }
        self.latest = self.latest.max(began);
    }
}

/// Takes items until the queue is closed, and tells which.
fn consume(queue: &Queue<Item>, taken: impl Fn(u64, u64)) {
    let mut order = Order::default();
    while let Ok(item) = queue.get() {
        order.add(item);
        taken(item.0, item.1);
    }
}

#[test]
fn role_puts_bursts() {
    let Some(words) = role() else { return };
    produce(&attach(&words[0]), words[1].parse().expect("a number"), words[2].parse().expect("a number"));
}

#[test]
fn role_takes_bursts() {
    let Some(words) = role() else { return };
    let told: Queue<(u64, u64)> =
        words[1].parse::<Descriptor>().expect("it was printed").attach().expect("it is");
    consume(&attach(&words[0]), |producer, n| told.put((producer, n)).expect("there is room"));
    told.close();
}

/// Two threads and another process put bursts, two threads and another process take: one order over all, each item
/// once, while blocks come and go.
#[test]
fn one_order_while_the_ring_grows_and_shrinks() {
    const ITEMS: u64 = 100_000;
    const FALLS: u64 = 5;
    let queue = Queue::<Item>::builder().strict(true).create().expect("shared memory");
    let told = Queue::<(u64, u64)>::new().expect("shared memory");
    let names = [queue.descriptor().to_string(), told.descriptor().to_string()];
    let mut puts = Role::start("role_puts_bursts", &[&names[0], "2", &ITEMS.to_string()]);
    let mut takes = Role::start("role_takes_bursts", &[&names[0], &names[1]]);
    let seen = std::sync::Mutex::new(HashSet::new());
    let see = |producer, n| {
        assert!(seen.lock().expect("nobody panics in it").insert((producer, n)), "{n} of {producer} twice");
    };
    let (mut falls, mut blocks) = (0, 0);
    std::thread::scope(|scope| {
        let (queue, told) = (&queue, &told);
        let producers = [0, 1].map(|producer| scope.spawn(move || produce(queue, producer, ITEMS)));
        (0..2).for_each(|_| drop(scope.spawn(|| consume(queue, see))));
        scope.spawn(|| {
            while let Ok((producer, n)) = told.get_timeout(LONG) {
                see(producer, n)
            }
        });
        while !producers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let found = queue.ring_blocks();
            falls += u64::from(found < blocks);
            blocks = found;
            std::thread::sleep(Duration::from_micros(100));
        }
        assert!(puts.wait());
        queue.close();
    });
    assert!(takes.wait());
    let seen = seen.into_inner().expect("nobody panics in it");
    assert_eq!(seen.len() as u64, 3 * ITEMS, "each item came");
    assert!(falls >= FALLS, "the ring shrank {falls} times");
    allocated(&queue);
}

/// Puts numbers without end.
#[test]
fn role_counts() {
    let Some(words) = role() else { return };
    let descriptor: Descriptor = words[0].parse().expect("it was printed");
    let queue: Queue<Vec<u8>> = descriptor.attach().expect("the test has it");
    let producer: u64 = words[1].parse().expect("a number");
    for n in 0.. {
        queue.put(number(producer, n)).expect("there is room");
    }
}

fn number(producer: u64, n: u64) -> Vec<u8> {
    [producer, n].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// What the items of the test below must look like: each producer's numbers from 0 on, and zeros.
#[derive(Default)]
struct Seen(HashMap<u64, u64>);

impl Seen {
    fn add(&mut self, item: &[u8]) {
        if item.len() == ZEROS {
            assert!(item.iter().all(|byte| *byte == 0), "somebody wrote to a block that has left");
            return;
        }
        let word = |at: usize| u64::from_ne_bytes(item[at..at + 8].try_into().expect("eight bytes"));
        let next = self.0.entry(word(0)).or_default();
        assert_eq!(word(8), *next, "of {}", word(0));
        *next += 1;
    }

    /// To the end, or to an item that a stopped producer was writing.
    fn drain(&mut self, queue: &Queue<Vec<u8>>) {
        let items = (0..=queue.len()).map_while(|_| queue.try_get().ok());
        items.for_each(|item| self.add(&item));
    }
}

/// As long as a block of cells.
const ZEROS: usize = 32 << 10;

/// A producer is stopped wherever it is, again and again, while another one lets the ring grow and shrink, and has what
/// left used for items. As long as the first one is at the ring its blocks stay; killed there, it keeps them no longer.
#[test]
fn a_stopped_producer_keeps_its_blocks_and_a_dead_one_does_not() {
    const STOPS: u64 = 60;
    const STOPPED_MAX: Duration = Duration::from_millis(200);
    let queue = Queue::<Vec<u8>>::builder().strict(true).create().expect("shared memory");
    let name = queue.descriptor().to_string();
    let start = |number: u64| Role::start("role_counts", &[&name, &number.to_string()]);
    let mut seen = Seen::default();
    let (mut put, mut at_ring, mut killed) = (0, 0, 0);
    let mut producer = start(1);
    for stop in 0..STOPS {
        (0..100 + stop * 37 % CELLS).for_each(|_| seen.add(&queue.get_timeout(LONG).expect("it goes on")));
        producer.stop();
        let (dies, goes_on) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // Stopped with a lock in hand it would be waited for.
            let timer = scope.spawn(|| {
                std::thread::park_timeout(STOPPED_MAX);
                if !dies.load(Ordering::Acquire) {
                    goes_on.store(true, Ordering::Release);
                    producer.go_on();
                }
            });
            seen.drain(&queue);
            (0..12 * CELLS).for_each(|n| queue.put(number(0, put + n)).expect("there is room"));
            put += 12 * CELLS;
            seen.drain(&queue);
            // Else it was stopped writing an item, behind which the others are.
            let is_empty = queue.is_empty() && !goes_on.load(Ordering::Acquire);
            let is_at_ring = is_empty && queue.ring_blocks() > KEPT_MAX;
            at_ring += u64::from(is_at_ring);
            dies.store(is_at_ring && at_ring % 2 == 0, Ordering::Release);
            (0..40).for_each(|_| queue.put(vec![0; ZEROS]).expect("there is room"));
            timer.thread().unpark();
        });
        if dies.into_inner() {
            producer.kill();
            (0..2).for_each(|_| seen.drain(&queue));
            let blocks = queue.ring_blocks();
            assert!(blocks <= KEPT_MAX, "{blocks} blocks after {killed} kills");
            killed += 1;
            producer = start(killed + 1);
        }
    }
    println!("stopped {STOPS} times, {at_ring} times at the ring, {killed} times killed there");
    assert!((1..STOPS).contains(&at_ring), "it was at the ring {at_ring} times of {STOPS}");
}
