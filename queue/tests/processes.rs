//! Queues between processes, some of which are killed at random moments.
//!
//! `TARRAGON_TEST_LONG=1` kills 2000 instead of 100; the counts are printed.

#![expect(clippy::print_stdout, reason = "the kills are counted in what the tests print")]

mod child;

use child::{Role, role};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tarragon_queue::{Descriptor, Error, Queue};

type Bytes = Vec<u8>;

/// So little that producers run into it.
const MEMORY: u64 = 64 << 20;
/// Nobody may wait longer for the dead.
const BLOCKED_MAX: Duration = Duration::from_secs(1);
/// How often the kills may be done again because somebody waited longer: it is the machine, if it is not so each time.
const ATTEMPTS_MAX: usize = 3;
/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(30);

/// Kills in each of five settings.
fn kills() -> u64 {
    if std::env::var("TARRAGON_TEST_LONG").is_ok_and(|it| it == "1") { 400 } else { 20 }
}

/// An item that shows whether it is whole: producer, number, length, and bytes made of them. Every third is long.
fn item(producer: u64, n: u64) -> Bytes {
    let len = if n.is_multiple_of(3) { 200 + (n * 37 % 5000) as usize } else { 24 + (n % 80) as usize };
    let mut bytes = vec![(producer * 31 + n) as u8; len];
    bytes[..8].copy_from_slice(&producer.to_ne_bytes());
    bytes[8..16].copy_from_slice(&n.to_ne_bytes());
    bytes
}

/// Producer and number of an item, which must be whole.
fn whole(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (producer, n) = (word(0), word(8));
    assert_eq!(bytes, item(producer, n), "torn");
    (producer, n)
}

fn attach(descriptor: &str) -> Queue<Bytes> {
    descriptor.parse::<Descriptor>().expect("it was printed").attach().expect("the test has it")
}

/// Kills, by a function that tells how long a survivor waited at most; again, if that was too long.
fn nobody_waits_long(kill: impl Fn() -> Duration) {
    let waits = (0..ATTEMPTS_MAX).map(|_| kill()).take_while(|wait| *wait > BLOCKED_MAX);
    let waits: Vec<Duration> = waits.collect();
    assert!(waits.len() < ATTEMPTS_MAX, "a survivor waited for {waits:?}");
}

/// Not random enough for anything but this.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Self(now.as_nanos() as u64 | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn is_sound(queue: &Queue<Bytes>) {
    let audit = queue.audit();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

/// Puts items without end, or `count` of them: words are a queue, a producer, a count (0: without end).
#[test]
fn role_produces() {
    let Some(words) = role() else { return };
    let (producer, count): (u64, u64) =
        (words[1].parse().expect("a number"), words[2].parse().expect("a number"));
    let queue = attach(&words[0]);
    for n in 1.. {
        if queue.put(item(producer, n)).is_err() || n == count {
            return;
        }
    }
}

/// Moves items from one queue to another: words are both, and a way to take.
#[test]
fn role_consumes() {
    let Some(words) = role() else { return };
    let (from, to) = (attach(&words[0]), attach(&words[1]));
    loop {
        let moved = if words[2] == "ref" {
            from.get_ref().and_then(|item| {
                let mut loan = to.loan(item.len())?;
                loan.copy_from_slice(&item);
                loan.send()
            })
        } else {
            from.get().and_then(|item| to.put(item))
        };
        if let Err(error) = moved {
            assert!(matches!(error, Error::Closed | Error::Destroyed), "{error}");
            return;
        }
    }
}

#[test]
fn processes_stream_to_one_another_in_order() {
    const ITEMS: u64 = 5000;
    for strict in [false, true] {
        let queue = Queue::<Bytes>::builder().strict(strict).create().expect("shared memory");
        let descriptor = queue.descriptor().to_string();
        let (one, two) = (ITEMS.to_string(), ITEMS.to_string());
        let mut roles = [
            Role::start("role_produces", &[&descriptor, "0", &one]),
            Role::start("role_produces", &[&descriptor, "1", &two]),
        ];
        let mut next = [1, 1];
        for _ in 0..2 * ITEMS {
            let taken = queue.get_ref_timeout(LONG).expect("all arrive");
            let (producer, n) = whole(&taken);
            assert_eq!(n, next[producer as usize], "in order");
            next[producer as usize] += 1;
        }
        assert!(roles.iter_mut().all(Role::wait));
        assert!(queue.is_empty());
        is_sound(&queue);
    }
}

/// Takes items of a queue, each whole, in order, and without gaps.
struct Taker<'q> {
    queue: &'q Queue<Bytes>,
    seen: HashMap<u64, u64>,
    longest: Duration,
}

impl Taker<'_> {
    /// The producer of the next item.
    fn take(&mut self, limit: Duration) -> Option<u64> {
        let start = Instant::now();
        let taken = self.queue.get_ref_timeout(limit).ok()?;
        self.longest = self.longest.max(start.elapsed());
        let (from, n) = whole(&taken);
        let last = self.seen.entry(from).or_default();
        assert_eq!(n, *last + 1, "in order, from {from}");
        *last = n;
        Some(from)
    }
}

/// Producers are killed; one is not. What each put arrives whole, in order, without gaps; nobody waits for the dead.
#[test]
fn killed_producers_tear_nothing_and_stop_nobody() {
    for (strict, bound) in [(false, 0), (true, 0), (true, 20)] {
        nobody_waits_long(|| kill_producers(strict, bound));
    }
}

fn kill_producers(strict: bool, bound: u64) -> Duration {
    let builder = Queue::<Bytes>::builder().strict(strict).bounded(bound).memory(MEMORY);
    let queue = builder.create().expect("shared memory");
    let descriptor = queue.descriptor().to_string();
    let mut dice = Dice::new();
    let steady = Role::start("role_produces", &[&descriptor, "0", "0"]);
    let mut taker = Taker { queue: &queue, seen: HashMap::new(), longest: Duration::ZERO };
    // It starts as slowly as it likes.
    taker.take(LONG).expect("the steady one begins");
    taker.longest = Duration::ZERO;
    for producer in 1..=kills() {
        let doomed = Role::start("role_produces", &[&descriptor, &producer.to_string(), "0"]);
        while taker.take(LONG).expect("the steady one goes on") != producer {}
        for _ in 0..dice.roll(3000) {
            taker.take(LONG).expect("the steady one goes on");
        }
        doomed.kill();
    }
    let longest = taker.longest;
    drop(steady);
    while taker.take(Duration::from_millis(300)).is_some() {}
    is_sound(&queue);
    let items: u64 = taker.seen.values().sum();
    println!("strict {strict}, bound {bound}: {} killed, {items} items, longest wait {longest:?}", kills());
    longest
}

/// Consumers are killed; one is not. Each item is moved at most once, and none is lost but those in dead hands.
#[test]
fn killed_consumers_lose_only_what_they_had_taken() {
    for strict in [false, true] {
        nobody_waits_long(|| kill_consumers(strict));
    }
}

/// What was moved from one queue to the other, and how long that took at most.
struct Moved<'q> {
    to: &'q Queue<Bytes>,
    items: HashSet<u64>,
    longest: Duration,
}

impl Moved<'_> {
    fn take(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        let Ok(taken) = self.to.get_timeout(limit) else { return false };
        self.longest = self.longest.max(start.elapsed());
        let (_, n) = whole(&taken);
        assert!(self.items.insert(n), "item {n} twice");
        true
    }
}

fn kill_consumers(strict: bool) -> Duration {
    let [from, to] = [(); 2].map(|()| Queue::builder().strict(strict).create().expect("shared memory"));
    let names = [from.descriptor().to_string(), to.descriptor().to_string()];
    let mut dice = Dice::new();
    let steady = Role::start("role_consumes", &[&names[0], &names[1], "copy"]);
    let mut moved = Moved { to: &to, items: HashSet::new(), longest: Duration::ZERO };
    let (mut put, mut taken) = (1, 1);
    from.put(item(0, put)).expect("there is room");
    assert!(moved.take(LONG), "the steady one begins");
    moved.longest = Duration::ZERO;
    for kill in 0..kills() {
        let way = if kill % 2 == 0 { "ref" } else { "copy" };
        let doomed = Role::start("role_consumes", &[&names[0], &names[1], way]);
        let until = Instant::now() + Duration::from_micros(5000 + dice.roll(20_000));
        while Instant::now() < until {
            if put < taken + 100 {
                put += 1;
                from.put(item(0, put)).expect("there is room");
            } else if moved.take(LONG) {
                taken += 1;
            } else {
                // All that is missing was in dead hands.
                taken = put;
            }
        }
        doomed.kill();
    }
    let longest = moved.longest;
    while moved.take(BLOCKED_MAX) {}
    drop(steady);
    let lost = put - moved.items.len() as u64;
    assert!(lost <= kills(), "{lost} of {put} lost by {} kills", kills());
    assert!(from.is_empty() && to.is_empty());
    is_sound(&from);
    is_sound(&to);
    println!(
        "strict {strict}: {} killed, {put} items, {lost} in dead hands, longest wait {longest:?}",
        kills()
    );
    longest
}

/// Takes six numbers, three of them in a thread that ends, calls two done in another such thread; and waits.
#[test]
fn role_takes() {
    let Some(words) = role() else { return };
    let descriptor: Descriptor = words[0].parse().expect("it was printed");
    let queue: Queue<u64> = descriptor.attach().expect("the test has it");
    let take = || (0..3).for_each(|_| assert!(queue.get().is_ok()));
    take();
    std::thread::scope(|scope| scope.spawn(take).join().expect("there are six"));
    let done = || (0..2).for_each(|_| queue.task_done().expect("it was taken"));
    std::thread::scope(|scope| scope.spawn(done).join().expect("they were taken"));
    let signal: Queue<u64> = words[1].parse::<Descriptor>().expect("it was printed").attach().expect("it is");
    signal.put(1).expect("there is room");
    loop {
        std::thread::park();
    }
}

#[test]
fn join_tells_of_items_in_dead_hands_and_waits_for_no_one_dead() {
    for strict in [false, true] {
        let queue = Queue::<u64>::builder().strict(strict).create().expect("shared memory");
        let signal = Queue::<u64>::new().expect("shared memory");
        (0..8).for_each(|n| queue.put(n).expect("there is room"));
        let words = [queue.descriptor().to_string(), signal.descriptor().to_string()];
        let role = Role::start("role_takes", &[&words[0], &words[1]]);
        signal.get_timeout(LONG).expect("it takes six");
        (0..2).for_each(|_| assert!(queue.get().is_ok()));
        queue.task_done().expect("it was taken");
        assert!(matches!(queue.join_timeout(BLOCKED_MAX / 2), Err(Error::Unfinished { left: 5 })));
        role.kill();
        assert!(matches!(queue.join_timeout(BLOCKED_MAX / 2), Err(Error::Unfinished { left: 1 })));
        queue.task_done().expect("it was taken");
        std::thread::scope(|scope| {
            let joins = [(); 2].map(|()| scope.spawn(|| queue.join_timeout(LONG)));
            let told = joins.into_iter().filter_map(|join| join.join().expect("it ends").err());
            let told: Vec<_> = told.collect();
            let is_right = told.iter().all(|it| matches!(it, Error::Abandoned { items: 4 }));
            assert!(is_right && !told.is_empty(), "{told:?}");
        });
        queue.join_timeout(LONG).expect("it was told");
        queue.put(9).expect("there is room");
        assert!(matches!(queue.join_timeout(Duration::ZERO), Err(Error::Unfinished { left: 1 })));
        assert_eq!(queue.get().expect("it was put"), 9);
        queue.task_done().expect("it was taken");
        queue.join_timeout(LONG).expect("nothing new was abandoned");
    }
}

/// Puts numbers until that is an error.
#[test]
fn role_counts() {
    let Some(words) = role() else { return };
    let descriptor: Descriptor = words[0].parse().expect("it was printed");
    let queue: Queue<u64> = descriptor.attach().expect("the test has it");
    let error = (0..).find_map(|n| queue.put(n).err());
    assert!(matches!(error, Some(Error::Closed)), "{error:?}");
}

/// A producer is stopped wherever it is, and the queue closed: if a get says `Closed`, the producer puts nothing more,
/// whether it goes on or is killed.
#[test]
fn no_item_appears_after_closed_was_told() {
    let (mut dice, mut under_way) = (Dice::new(), 0);
    for round in 0..5 * kills() {
        let queue = Queue::<u64>::builder().strict(round % 2 == 0).bounded(round % 4 * 50);
        let queue = queue.create().expect("shared memory");
        let mut role = Role::start("role_counts", &[&queue.descriptor().to_string()]);
        let mut next = 0;
        let until = Instant::now() + Duration::from_micros(10_000 + dice.roll(10_000));
        while Instant::now() < until || next == 0 {
            next += u64::from(queue.get_timeout(LONG).expect("it counts") == next);
        }
        role.stop();
        queue.close();
        let ended = std::iter::repeat_with(|| queue.try_get()).find_map(|it| match it {
            Ok(n) => (n != next).then(|| panic!("{n} after {next}")).or_else(|| {
                next += 1;
                None
            }),
            Err(error) => Some(error),
        });
        under_way += u64::from(matches!(ended, Some(Error::Empty)));
        if round % 3 == 0 {
            role.kill();
        } else {
            role.go_on();
            if matches!(ended, Some(Error::Closed)) {
                assert!(role.wait());
            }
        }
        let is_told = matches!(ended, Some(Error::Closed));
        let last = std::iter::from_fn(|| queue.get_timeout(LONG).ok()).count();
        assert!(last <= 1 && !(is_told && last > 0), "{last} items after {ended:?} in round {round}");
        assert!(matches!(queue.try_get(), Err(Error::Closed)));
        assert_eq!(queue.audit().leaked.len(), 0);
    }
    println!("{} producers stopped, {under_way} of them in a put", 5 * kills());
}

/// What is left of a queue whose users were all killed can be attached as long as nobody has swept it.
#[test]
fn a_queue_whose_users_were_all_killed_is_whole() {
    let queue = Queue::<Bytes>::new().expect("shared memory");
    let descriptor = queue.descriptor();
    let role = Role::start("role_produces", &[&descriptor.to_string(), "0", "0"]);
    while queue.len() < 1000 {
        std::thread::yield_now();
    }
    drop(queue);
    role.kill();
    let queue = descriptor.attach::<Bytes>().expect("nobody has swept it");
    for n in 1..=queue.len() {
        assert_eq!(whole(&queue.try_get().expect("it was put")), (0, n));
    }
    assert!(matches!(queue.try_get(), Err(Error::Empty)));
    is_sound(&queue);
    drop(queue);
    assert!(matches!(descriptor.attach::<Bytes>(), Err(Error::Segment(_))), "the last one has left");
}
