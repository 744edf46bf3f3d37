//! Processes killed at random moments while they allocate, publish, retire, read and recover over an array of roots:
//! afterwards nothing is leaked, nothing dangles, no value is torn, and nobody waits for the dead.
//!
//! `TARRAGON_TEST_LONG=1` kills 2000 instead of 100.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at what it did not expect, and talks to its parent"
)]

mod child;

use child::{Child, role};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tarragon_transport::HeapError;
use tarragon_transport::agent::{Agent, AgentId, AgentRecord};
use tarragon_transport::lock::RobustLock;
use tarragon_transport::member::Settle;
use tarragon_transport::segment::{Segment, SegmentName, Spec};

const ROOTS: u64 = 48;
const SPEC: Spec = Spec { kind: "crash", layout: 1, control_bytes: ROOTS * 16, heap_bytes: 8 << 20 };
/// The intent's verb: words 1 to 3 are root, new block, old block.
const REPLACE: u64 = 1;

fn locks(segment: &Segment) -> &[RobustLock] {
    segment.slice(segment.control(), ROOTS).unwrap()
}

fn roots(segment: &Segment) -> &[AtomicU64] {
    segment.slice(segment.control() + ROOTS * 8, ROOTS).unwrap()
}

struct Roots;

impl Settle for Roots {
    fn settle(&self, segment: &Segment, dead: AgentId, record: &AgentRecord) {
        let [verb, root, new, old] = std::array::from_fn(|word| record.intent[word].load(Ordering::Acquire));
        if verb == REPLACE && roots(segment)[root as usize].load(Ordering::Acquire) == new {
            segment.forget_for(record, new);
            segment.retire_for(dead, record, old);
        }
        for lock in locks(segment) {
            lock.release_for(dead);
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn words(segment: &Segment, offset: u64) -> &[AtomicU64] {
    let bytes = segment.block_bytes(offset).expect("a reachable block is allocated");
    segment.slice(offset, bytes / 8).unwrap()
}

/// A new block at a root; the old one is retired.
fn replace(segment: &Segment, agent: &Agent<'_>, random: &mut Random) {
    let bytes = if random.below(8) == 0 { 1 + random.below(200_000) } else { 1 + random.below(6000) };
    let held = match segment.alloc(agent, bytes) {
        Ok(held) => held,
        Err(HeapError::Full { .. }) => {
            segment.recover(&Roots);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let (new, root) = (held.block.offset, random.below(ROOTS));
    let stamp = random.below(u64::MAX);
    words(segment, new).iter().for_each(|word| word.store(stamp, Ordering::Relaxed));
    let lock = &locks(segment)[root as usize];
    lock.lock(agent, &Roots);
    let place = &roots(segment)[root as usize];
    let old = place.load(Ordering::Acquire);
    for (word, value) in [(1, root), (2, new), (3, old), (0, REPLACE)] {
        agent.record.intent[word].store(value, Ordering::Release);
    }
    place.store(new, Ordering::Release);
    segment.forget(agent, held);
    segment.retire(agent, old);
    agent.record.intent[0].store(0, Ordering::Release);
    lock.unlock(agent);
}

fn look(segment: &Segment, agent: &Agent<'_>, root: u64) {
    let place = &roots(segment)[root as usize];
    loop {
        let offset = place.load(Ordering::Acquire);
        if offset == 0 {
            return;
        }
        let _pin = agent.pin(offset).unwrap();
        if place.load(Ordering::Acquire) != offset {
            continue;
        }
        let words = words(segment, offset);
        let stamp = words[0].load(Ordering::Relaxed);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == stamp), "torn or freed while pinned");
        return;
    }
}

fn work(segment: &Segment, seed: u64) {
    let agent = segment.agent().unwrap();
    let mut random = Random(seed | 1);
    loop {
        match random.below(200) {
            0 => {
                segment.recover(&Roots);
            }
            1..100 => replace(segment, &agent, &mut random),
            _ => look(segment, &agent, random.below(ROOTS)),
        }
    }
}

fn play(text: &str) {
    let mut parts = text.split('/');
    let file = parts.next().unwrap().to_owned();
    let numbers: Vec<u128> = parts.map(|it| it.parse().unwrap()).collect();
    let name = SegmentName { file, uid: numbers[0] };
    let segment = Segment::open(&name, SPEC.kind, SPEC.layout).unwrap();
    child::say("ready");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A parent that is gone must not leave this running.
            child::hear();
            std::process::exit(0);
        });
        for thread in 0..2 {
            let (segment, seed) = (&segment, numbers[1] as u64 ^ (thread << 40));
            scope.spawn(move || {
                // A failed check ends the process with a code that is no signal's.
                let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(segment, seed)));
                std::process::exit(if worked.is_err() { 7 } else { 0 });
            });
        }
    });
}

fn check(segment: &Arc<Segment>, round: u64) {
    segment.recover(&Roots);
    let agent = segment.agent().unwrap();
    segment.reclaim(&agent);
    let reachable: Vec<u64> =
        roots(segment).iter().map(|it| it.load(Ordering::Acquire)).filter(|it| *it != 0).collect();
    let audit = segment.audit(&mut |reach| reachable.iter().for_each(|offset| reach(*offset)));
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "round {round}: {audit:?}");
    assert_eq!(audit.blocks, reachable.len() as u64, "round {round}: blocks that nobody can reach");
    assert!(locks(segment).iter().all(|lock| lock.owner().is_none()), "round {round}: a lock is left");
    (0..ROOTS).for_each(|root| look(segment, &agent, root));
    assert_eq!(segment.members(), 1);
}

#[test]
fn killed_processes_leak_nothing_and_block_nobody() {
    let test = "killed_processes_leak_nothing_and_block_nobody";
    if let Some(text) = role(test) {
        return play(&text);
    }
    let kills = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 2000 } else { 100 };
    let segment = Segment::create(&SPEC).unwrap();
    let name = segment.name().clone();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut killed = 0;
    for round in 0..kills / 2 {
        let mut pair: Vec<Child> = (0..2)
            .map(|_| Child::start(test, &format!("{}/{}/{}", name.file, name.uid, random.below(u64::MAX))))
            .collect();
        pair.iter_mut().for_each(|child| assert_eq!(child.hear(), "ready"));
        for child in &mut pair {
            std::thread::sleep(Duration::from_micros(random.below(15_000)));
            child.kill_running();
            killed += 1;
        }
        check(&segment, round);
    }
    println!("killed: {killed}; leaked: 0; dangling: 0; torn: 0");
    let agent = segment.agent().unwrap();
    for root in roots(&segment) {
        segment.retire(&agent, root.swap(0, Ordering::AcqRel));
    }
    segment.reclaim(&agent);
    assert_eq!(segment.usage().allocated, 0);
}

#[test]
fn a_dead_owners_lock_is_taken_after_its_settlement() {
    let test = "a_dead_owners_lock_is_taken_after_its_settlement";
    if let Some(text) = role(test) {
        let (file, uid) = text.split_once('/').unwrap();
        let name = SegmentName { file: file.to_owned(), uid: uid.parse().unwrap() };
        let segment = Segment::open(&name, SPEC.kind, SPEC.layout).unwrap();
        let agent = segment.agent().unwrap();
        locks(&segment)[0].lock(&agent, &Roots);
        child::say("locked");
        child::hear();
        return;
    }
    let segment = Segment::create(&SPEC).unwrap();
    let mut owner = Child::start(test, &format!("{}/{}", segment.name().file, segment.name().uid));
    assert_eq!(owner.hear(), "locked");
    let agent = segment.agent().unwrap();
    let lock = &locks(&segment)[0];
    assert!(!lock.try_lock(&agent), "somebody living has it");
    let waiter = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let agent = segment.agent().unwrap();
            let lock = &locks(&segment)[0];
            lock.lock(&agent, &Roots);
            let owner = lock.owner();
            lock.unlock(&agent);
            owner == Some(agent.id)
        });
        std::thread::sleep(Duration::from_millis(5));
        owner.kill();
        waiter.join().unwrap()
    });
    assert!(waiter);
    assert_eq!(lock.owner(), None);
}

#[test]
fn a_damaged_lock_word_hangs_nobody() {
    let segment = Segment::create(&SPEC).unwrap();
    let agent = segment.agent().unwrap();
    let words: &[AtomicU64] = segment.slice(segment.control(), ROOTS).unwrap();
    for garbage in [8191, 4000, u64::MAX, 1 << 40] {
        words[0].store(garbage, Ordering::Relaxed);
        locks(&segment)[0].lock(&agent, &Roots);
        assert_eq!(locks(&segment)[0].owner(), Some(agent.id));
        locks(&segment)[0].unlock(&agent);
    }
}

#[test]
fn locks_exclude_threads_and_processes() {
    let test = "locks_exclude_threads_and_processes";
    const COUNTS: u64 = 20_000;
    let count = |segment: &Segment| {
        let agent = segment.agent().unwrap();
        let (lock, sum) = (&locks(segment)[0], &roots(segment)[0]);
        for _ in 0..COUNTS {
            lock.lock(&agent, &Roots);
            sum.store(sum.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            lock.unlock(&agent);
        }
    };
    if let Some(text) = role(test) {
        let (file, uid) = text.split_once('/').unwrap();
        let name = SegmentName { file: file.to_owned(), uid: uid.parse().unwrap() };
        return count(&Segment::open(&name, SPEC.kind, SPEC.layout).unwrap());
    }
    let segment = Segment::create(&SPEC).unwrap();
    let mut other = Child::start(test, &format!("{}/{}", segment.name().file, segment.name().uid));
    std::thread::scope(|scope| {
        scope.spawn(|| count(&segment));
        scope.spawn(|| count(&segment));
    });
    assert!(other.wait().success());
    assert_eq!(roots(&segment)[0].load(Ordering::Relaxed), 3 * COUNTS);
}

#[test]
fn flipped_bits_crash_and_hang_nobody() {
    let test = "flipped_bits_crash_and_hang_nobody";
    if role(test).is_some() {
        // In a process of its own: a flipped bit may leave a lock with somebody who will never let go of it.
        let started = Instant::now();
        let mut random = Random(0x1234_5678_9abc_def1);
        for _ in 0..60 {
            scramble(&mut random);
        }
        child::say(&format!("done in {:?}", started.elapsed()));
        child::hear();
        std::process::exit(0);
    }
    let mut other = Child::start(test, "go");
    assert!(other.hear().starts_with("done"));
    other.say("end");
    assert!(other.wait().success());
}

/// Flips bits in the heap's words and tables, then allocates and frees. Any answer will do that is an answer.
fn scramble(random: &mut Random) {
    let segment = Segment::create(&Spec { heap_bytes: 4 << 20, ..SPEC }).unwrap();
    let agent = segment.agent().unwrap();
    let mut live = Vec::new();
    for _ in 0..200 {
        let held = segment.alloc(&agent, 1 + random.below(20_000));
        live.extend(held.map(|held| {
            segment.forget(&agent, held);
            held.block.offset
        }));
        if random.below(2) == 0 && !live.is_empty() {
            let offset = live.swap_remove(random.below(live.len() as u64) as usize);
            segment.retire(&agent, offset);
        }
    }
    let first = live.iter().min().copied().unwrap() & !((2 << 20) - 1);
    for _ in 0..20 {
        // The words of the heap but for its lock, whose owner lives; or tables before the heap; or tags in it.
        let at = match random.below(3) {
            0 => 2048 + 16 + 8 * random.below(20),
            1 => first - 8 * (1 + random.below(1024)),
            _ => first + 8 * random.below(64 << 10),
        };
        let word = segment.at::<AtomicU64>(at).expect("inside the segment");
        word.fetch_xor(1 << random.below(64), Ordering::Relaxed);
    }
    for offset in live {
        segment.block_bytes(offset);
        segment.retire(&agent, offset);
        if let Ok(held) = segment.alloc(&agent, 1 + random.below(100_000)) {
            segment.forget(&agent, held);
            segment.retire(&agent, held.block.offset);
        }
    }
    segment.reclaim(&agent);
    segment.recover(&Roots);
    segment.usage();
    segment.audit(&mut |_| {});
}
