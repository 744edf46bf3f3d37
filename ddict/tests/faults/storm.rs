//! Processes that do everything at once and are killed at random moments, while survivors go on.
//!
//! A key has one writer, which counts its writes in shared words: begun before, done after. So for each key it is known
//! at any time which values it may have; a reader anywhere checks that.

use super::bed::{Dict, assert_clean, promptly};
use super::contents::{Dice, contents, number_in};
use super::kills::is_long;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tarragon_ddict::{Descriptor, Error, persisted_ids};
use tarragon_faults::{Nursery, Role, Words, playing};

const TEST: &str = "faults::storm::random_kills";
const KEYS: usize = 500;
/// Processes that are killed, each again and again.
const WRITERS: usize = 3;
/// Room for about all values: now and then it is full.
const MEMORY: u64 = 5 << 20;
/// The longest life of a child, in microseconds.
const LIFE_MAX: u64 = 40_000;

/// What all processes of the test share.
struct World {
    dict: Dict,
    words: Words,
    writer: usize,
    folder: PathBuf,
    dice: Dice,
}

/// What a key has after its `number`th write: every fifth one removes it.
fn is_there(number: u64) -> bool {
    !number.is_multiple_of(5)
}

fn name(index: usize) -> String {
    let tail = if index.is_multiple_of(7) { " with a name that is too long for an entry" } else { "" };
    format!("key {index}{tail}")
}

fn value(index: usize, number: u64) -> Vec<u8> {
    let len = [16, 40, 300, 5000, 40_000, 24, 2000, 9000][(index as u64 * 3 + number) as usize % 8];
    contents(&name(index), number, len)
}

impl World {
    /// Writes begun, and writes done, of a key.
    fn counts(&self, index: usize) -> (u64, u64) {
        let word = self.words.word(index).load(SeqCst);
        (word >> 32, word & u64::from(u32::MAX))
    }

    fn count(&self, index: usize, begun: u64, done: u64) {
        self.words.word(index).store(begun << 32 | done, SeqCst);
    }

    /// The next write of one of this writer's keys.
    fn write(&mut self) {
        let index = self.dice.below((KEYS / WRITERS) as u64) as usize * WRITERS + self.writer;
        let (key, (_, done)) = (name(index), self.counts(index));
        let number = done + 1;
        self.count(index, number, done);
        let result = if is_there(number) {
            let bytes = value(index, number);
            match self.dice.below(4) {
                0 => self.dict.put_with(key.as_str(), bytes.len(), |place| place.copy_from_slice(&bytes)),
                1 => self.dict.update(key.as_str(), |_| Some(bytes.clone())),
                _ => self.dict.put(key.as_str(), &bytes),
            }
        } else if self.dice.below(2) == 0 {
            self.dict.pop(key.as_str()).map(|_| ())
        } else {
            self.dict.remove(key.as_str()).map(|_| ())
        };
        match result {
            Ok(()) => self.count(index, number, number),
            // Nothing was written.
            Err(Error::Memory(_)) => self.count(index, done, done),
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads any key: it has one of the values that it may have.
    fn read(&mut self) {
        let index = self.dice.below(KEYS as u64) as usize;
        let key = name(index);
        let (_, oldest) = self.counts(index);
        let found = match self.dice.below(3) {
            0 => self.dict.get_verified(key.as_str()).unwrap().map(|it| number_in(&key, &it)),
            1 => self.dict.get(key.as_str()).unwrap().map(|it| number_in(&key, &it)),
            _ => self.dict.get_ref(key.as_str()).unwrap().map(|it| number_in(&key, &it)),
        };
        let (newest, _) = self.counts(index);
        match found {
            Some(number) => {
                let number = number.unwrap_or_else(|| panic!("{key} is torn"));
                assert!((oldest..=newest).contains(&number), "{key}: {number} of {oldest} to {newest}");
            }
            None => assert!((oldest..=newest).any(|it| !is_there(it)), "{key} is lost: {oldest} to {newest}"),
        }
    }

    fn work(&mut self) {
        match self.dice.below(1000) {
            0..2 => {
                self.dict.persist(&self.folder).unwrap();
            }
            2..5 => {
                for item in self.dict.items() {
                    let (key, bytes) = item.unwrap();
                    assert!(number_in(&key, &bytes).is_some(), "{key} is torn");
                }
            }
            5..600 => self.write(),
            _ => self.read(),
        }
    }

    /// After its writer was killed: a key has its old value or its new one. Says so to the next writer.
    fn settle(&mut self, index: usize) {
        let (begun, done) = self.counts(index);
        let found = promptly(|| self.dict.get_verified(name(index).as_str())).unwrap();
        let number = found.as_deref().map(|bytes| number_in(&name(index), bytes).expect("whole"));
        let fits = |it: u64| number == is_there(it).then_some(it);
        assert!(fits(begun) || fits(done), "{}: {number:?}, begun {begun}, done {done}", name(index));
        let now = if fits(begun) { begun } else { done };
        self.count(index, now, now);
    }
}

fn join(argument: &str) -> World {
    let lines: Vec<&str> = argument.lines().collect();
    let writer = lines[0].parse().unwrap();
    World {
        words: Words::open(lines[1].as_ref()).unwrap(),
        dict: lines[2].parse::<Descriptor>().unwrap().attach().unwrap(),
        folder: PathBuf::from(lines[3]).join(lines[0]),
        writer,
        dice: Dice::new(u64::from(std::process::id())),
    }
}

/// Kills one writer after the other; what it had begun is done or not.
fn kill_writers(argument: &str, kills: u64) {
    let mut world = join(argument);
    let mut nursery = Nursery::start(&Role::new(TEST).with_argument(argument)).unwrap();
    for kill in 0..kills {
        let life = Duration::from_micros(world.dice.below(LIFE_MAX));
        nursery.kill_after(life).unwrap();
        if kill % 3 == 0 {
            promptly(|| world.dict.recover());
        }
        for index in (world.writer..KEYS / WRITERS * WRITERS).step_by(WRITERS) {
            world.settle(index);
        }
    }
}

#[test]
fn random_kills() {
    if let Some(part) = playing(TEST) {
        part.serve(join, World::work);
    }
    let folder = tempfile::tempdir().unwrap();
    let words = Words::create().unwrap();
    let dict = Dict::builder().memory(MEMORY).shards_per_node(2).create().unwrap();
    let argument = |writer: usize| {
        let (words, folder) = (words.path(), folder.path());
        format!("{writer}\n{}\n{}\n{}", words.display(), dict.descriptor(), folder.display())
    };
    (0..WRITERS).for_each(|writer| std::fs::create_dir(folder.path().join(writer.to_string())).unwrap());
    let kills = if is_long() { 1000 } else { 30 };
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let longest = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_on(&argument(0), &is_over, &reads));
        let killers: Vec<_> = (0..WRITERS)
            .map(&argument)
            .map(|argument| scope.spawn(move || kill_writers(&argument, kills)))
            .collect();
        let ends: Vec<_> = killers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, SeqCst);
        let longest = reader.join().unwrap();
        ends.into_iter().for_each(|end| end.unwrap());
        longest
    });
    dict.recover();
    let mut world = join(&argument(0));
    (0..KEYS / WRITERS * WRITERS).for_each(|index| world.settle(index));
    let there = (0..KEYS).filter(|index| is_there(world.counts(*index).1)).count();
    assert_eq!(dict.len().unwrap(), there as u64);
    assert_clean(&dict);
    let restored =
        (0..WRITERS).map(|writer| restore_all(&folder.path().join(writer.to_string()))).sum::<usize>();
    let writes: u64 = (0..KEYS).map(|index| world.counts(index).1).sum();
    println!(
        "random: {} kills, {writes} writes, {} reads by a survivor, the longest {longest:?}, {restored} persisted",
        kills * WRITERS as u64,
        reads.load(SeqCst)
    );
}

/// A survivor that reads all the time, and is never held up; its longest operation.
fn read_on(argument: &str, is_over: &AtomicBool, reads: &AtomicU64) -> Duration {
    let mut world = join(argument);
    let mut longest = Duration::ZERO;
    while !is_over.load(SeqCst) {
        let began = Instant::now();
        promptly(|| world.read());
        longest = longest.max(began.elapsed());
        reads.fetch_add(1, SeqCst);
    }
    longest
}

/// Whatever was persisted before a kill can be read, whole. How many there were.
fn restore_all(folder: &std::path::Path) -> usize {
    let ids = persisted_ids(folder).unwrap();
    for &id in ids.iter().rev().take(3) {
        let dict = Dict::restore(folder, id).unwrap();
        for item in dict.items() {
            let (key, bytes) = item.unwrap();
            assert!(number_in(&key, &bytes).is_some(), "{key} is torn");
        }
    }
    ids.len()
}
