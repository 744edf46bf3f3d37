//! Attaching and leaving many times leaves nothing behind.

use super::bed::{Dict, assert_clean};
use super::contents::{contents, number_in};
use super::kills::is_long;
use super::process::{files_of, part_of, start};
use std::time::Duration;
use tarragon_ddict::Descriptor;

const HANDLES: u64 = 10_000;
/// Processes that attach: in the quick form, in the long form.
const PROCESSES: (u64, u64) = (200, 10_000);
/// Processes at once.
const TOGETHER: u64 = 4;

/// What must be as before.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    used_bytes: u64,
    committed_bytes: u64,
    participants: (u32, usize),
    files: usize,
    descriptors: usize,
    mappings: usize,
}

impl Footprint {
    fn of(dict: &Dict) -> Self {
        let stats = dict.stats().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            used_bytes: stats.used_bytes,
            committed_bytes: stats.committed_bytes,
            participants: dict.participants(),
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            mappings: maps.lines().filter(|line| line.contains("/dev/shm/")).count(),
            files: files_of(std::process::id()).len(),
        }
    }
}

fn made() -> Dict {
    let dict = Dict::builder().memory(4 << 20).create().unwrap();
    for key in ["one", "two", "three"] {
        dict.put(key, contents(key, 1, 3000)).unwrap();
    }
    dict
}

/// Attaches, changes something and takes it back.
fn visit(descriptor: &Descriptor) {
    let dict: Dict = descriptor.attach().unwrap();
    assert_eq!(number_in("two", &dict.get_ref("two").unwrap().unwrap()), Some(1));
    let key = format!("visit {}", std::process::id());
    dict.put(key.as_str(), contents(&key, 1, 3000)).unwrap();
    assert!(dict.remove(key.as_str()).unwrap());
}

/// In a process that keeps a handle all the time, and in one that does not.
#[test]
fn handles_come_and_go() {
    const TEST: &str = "faults::cycles::handles_come_and_go";
    if let Some(argument) = part_of(TEST) {
        let descriptor = argument.parse().unwrap();
        return come_and_go(&made(), &descriptor);
    }
    let dict = made();
    let before = (dict.participants(), dict.stats().unwrap().used_bytes);
    // Of a dictionary of its own, and of this one: then each handle maps it anew.
    let text = start(TEST, &dict.descriptor().to_string(), None).succeed(Duration::from_secs(120));
    assert_eq!((dict.participants(), dict.stats().unwrap().used_bytes), before);
    assert_clean(&dict);
    text.lines().filter(|line| line.contains("handles")).for_each(|line| println!("{line}"));
}

fn come_and_go(own: &Dict, other: &Descriptor) {
    for descriptor in [&own.descriptor(), other] {
        (0..100).for_each(|_| visit(descriptor));
        let before = Footprint::of(own);
        (0..HANDLES).for_each(|_| visit(descriptor));
        let after = Footprint::of(own);
        // Some blocks wait to be freed with others.
        let slack = after.used_bytes.abs_diff(before.used_bytes);
        assert!(slack <= 64 * 4096, "{slack} bytes");
        assert_eq!(Footprint { used_bytes: before.used_bytes, ..after }, before);
        println!("\n{HANDLES} handles: {before:?}");
    }
    assert_clean(own);
}

#[test]
fn processes_come_and_go() {
    const TEST: &str = "faults::cycles::processes_come_and_go";
    if let Some(argument) = part_of(TEST) {
        return visit(&argument.parse().unwrap());
    }
    let dict = made();
    let text = dict.descriptor().to_string();
    let round = |count: u64| {
        for _ in 0..count.div_ceil(TOGETHER) {
            let players: Vec<_> = (0..TOGETHER).map(|_| start(TEST, &text, None)).collect();
            players.into_iter().for_each(|player| {
                player.succeed(Duration::from_secs(30));
            });
        }
    };
    round(3 * TOGETHER);
    let before = (dict.participants(), dict.stats().unwrap().used_bytes);
    let count = if is_long() { PROCESSES.1 } else { PROCESSES.0 };
    round(count);
    assert_eq!((dict.participants(), dict.stats().unwrap().used_bytes), before);
    assert_clean(&dict);
    println!("{count} processes, {TOGETHER} at once: {before:?}");
}
