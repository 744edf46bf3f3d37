//! Journals from outside: what is appended is there when the journal is opened again, whatever happened in between.

mod cost;
mod crash;
mod damage;
mod full_disk;
mod identity;
mod opening;
mod state;
mod writing;

use super::disk::Disk;
use super::{
    Entry, FileState, Hash, Identity, Journal, JournalError, Kind, LIMITS, Limits, Options, Seen, Streams,
    Sync, hash_of_value,
};
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a test waits for what must come, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);

const RESUME: Options = Options { resume: true, sync: Sync::Never, content_hash: false };
const NEW: Options = Options { resume: false, ..RESUME };

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// An entry of its own for every `n`, with all fields in use.
fn entry(n: u32) -> Entry {
    let seen = |name: &str, hash| Seen {
        path: format!("/a/folder/with/a/longer/name/{name}.{n:06}").into(),
        state: FileState { kind: Kind::File, bytes: u64::from(n), mtime_ns: 1_700_000_000_000_000_000, hash },
    };
    Entry {
        identity: Identity(u128::from(n) << 64 | 7),
        inputs: vec![seen("input", None)],
        outputs: vec![seen("result", Some(Hash::Content([n as u8; 16])))],
        taken: vec![hash_of_value(&n.to_le_bytes())],
        value: n.is_multiple_of(2).then(|| n.to_le_bytes().to_vec()),
        streams: n
            .is_multiple_of(3)
            .then(|| Streams { stdout: seen("out", None), stderr: seen("err", None) }),
        exit: n as i32 - 3,
        took_ns: u64::from(n) * 1000,
    }
}

/// The `n`s of the entries below `limit` that a journal remembers; each must be as it was appended.
fn remembered(journal: &Journal, limit: u32) -> Vec<u32> {
    let is_there = |n: &u32| {
        let past = journal.past(entry(*n).identity);
        past.is_some_and(|past| {
            assert_eq!(*past, entry(*n));
            true
        })
    };
    let found: Vec<u32> = (0..limit).filter(is_there).collect();
    assert_eq!(journal.past_len(), found.len(), "entries that nobody appended");
    found
}

/// Writes a new journal with `entry(0)` to `entry(count - 1)`; returns where each record ends.
fn write_journal(path: &Path, count: u32) -> Vec<u64> {
    let journal = Journal::open(path, NEW).unwrap();
    let end = || path.metadata().unwrap().len();
    let mut ends = vec![end()];
    for n in 0..count {
        journal.append(&entry(n)).unwrap();
        journal.flush().unwrap();
        ends.push(end());
    }
    journal.close().unwrap();
    ends
}

/// Says something even if the test succeeds: that it was skipped, or a figure.
fn say(line: &str) {
    // Nobody reads it if it cannot be written.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Waits until `condition` holds.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a [`Faulty`] disk does.
#[derive(Debug)]
struct Faults {
    /// Bytes that the file can have.
    room: u64,
    /// Bytes that one write takes at most.
    bytes_max: usize,
    /// A write of more than `room` leaves a torn record that cannot be cut off.
    cuts: bool,
    syncs_fail: bool,
    /// Writing waits while this is set.
    holds_writes: bool,
    /// Syncing waits while this is set.
    holds_syncs: bool,
    /// How many writes and syncs were tried.
    writes: usize,
    syncs: usize,
}

/// A file that fails on command.
struct Faulty {
    file: File,
    faults: Arc<(Mutex<Faults>, Condvar)>,
}

impl Disk for Faulty {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<usize> {
        let mut faults = self.faults.0.lock();
        faults.writes += 1;
        self.faults.1.wait_while_for(&mut faults, |faults| faults.holds_writes, PATIENCE);
        let room = usize::try_from(faults.room.saturating_sub(position)).unwrap_or(usize::MAX);
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(room).min(faults.bytes_max);
        self.file.write_at(&bytes[..count], position)
    }

    fn cut(&mut self, end: u64) -> io::Result<()> {
        if self.faults.0.lock().cuts { self.file.cut(end) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut faults = self.faults.0.lock();
        faults.syncs += 1;
        self.faults.1.wait_while_for(&mut faults, |faults| faults.holds_syncs, PATIENCE);
        if faults.syncs_fail { Err(io::Error::other("EIO")) } else { Ok(()) }
    }
}

/// What a test holds of a [`Faulty`] disk.
#[derive(Clone)]
struct Control(Arc<(Mutex<Faults>, Condvar)>);

impl Control {
    fn new() -> Control {
        let faults = Faults {
            room: u64::MAX,
            bytes_max: usize::MAX,
            cuts: true,
            syncs_fail: false,
            holds_writes: false,
            holds_syncs: false,
            writes: 0,
            syncs: 0,
        };
        Control(Arc::new((Mutex::new(faults), Condvar::new())))
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.0.lock());
        self.0.1.notify_all();
    }

    fn get<T>(&self, what: impl FnOnce(&Faults) -> T) -> T {
        what(&self.0.0.lock())
    }

    fn open(&self, path: &Path, options: Options, limits: Limits) -> Journal {
        let faults = self.0.clone();
        let disk = |file: &File| Ok(Box::new(Faulty { file: file.try_clone()?, faults }) as Box<dyn Disk>);
        Journal::open_with(path, options, limits, disk).unwrap()
    }
}
