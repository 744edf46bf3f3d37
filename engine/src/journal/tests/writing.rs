//! Appending from many threads: when it returns, what it waits for, and what happens when the disk fails.

use super::super::{RECORD_BYTES_MAX, VALUE_BYTES_MAX};
use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const EACH: Options = Options { sync: Sync::EachRecord, ..NEW };
const PROMPT: Limits = Limits { retry: Duration::from_millis(5), ..LIMITS };

fn reopen(path: &Path, limit: u32) -> Vec<u32> {
    let journal = Journal::open(path, RESUME).unwrap();
    assert_eq!(journal.dropped_bytes(), 0, "nothing half-written stays");
    remembered(&journal, limit)
}

#[test]
fn many_threads_append() {
    let folder = folder();
    for (name, sync) in [("never", Sync::Never), ("always", Sync::Every(Duration::ZERO))] {
        let path = folder.path().join(name);
        let limits = Limits { unwritten_bytes_max: 20_000, ..LIMITS };
        let journal = Control::new().open(&path, Options { sync, ..NEW }, limits);
        thread::scope(|scope| {
            for first in 0..8 {
                let journal = &journal;
                scope.spawn(move || (0..400).for_each(|n| journal.append(&entry(n * 8 + first)).unwrap()));
            }
        });
        journal.close().unwrap();
        drop(journal);
        assert_eq!(reopen(&path, 4000).len(), 3200);
    }
}

#[test]
fn a_record_comes_to_the_file_by_itself() {
    let folder = folder();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, NEW).unwrap();
    let before = path.metadata().unwrap().len();
    journal.append(&entry(0)).unwrap();
    wait_until("it is written", || path.metadata().unwrap().len() > before && journal.waiting() == 0);
}

#[test]
fn what_gathers_is_written_at_once() {
    let folder = folder();
    let control = Control::new();
    let limits = Limits { gather: PATIENCE * 10, ..LIMITS };
    let journal = control.open(&folder.path().join("journal"), NEW, limits);
    for n in 0..100 {
        journal.append(&entry(n)).unwrap();
        if n.is_multiple_of(20) {
            // Time enough for a writer that does not wait for more.
            thread::sleep(Duration::from_millis(5));
        }
    }
    journal.flush().unwrap();
    assert_eq!(control.get(|faults| faults.writes), 1, "one write for a hundred records");
    journal.close().unwrap();
}

#[test]
fn nobody_who_waits_has_to_wait_for_more_records() {
    let folder = folder();
    let limits = Limits { gather: PATIENCE * 2, ..LIMITS };
    let journal = Control::new().open(&folder.path().join("journal"), NEW, limits);
    let start = Instant::now();
    for n in 0..200 {
        journal.append(&entry(n)).unwrap();
        journal.flush().unwrap();
        journal.begun(entry(n).identity).unwrap();
    }
    assert!(start.elapsed() < limits.gather, "somebody waited as long as the writer gathers");
}

#[test]
fn a_large_buffer_is_not_gathered_further() {
    let folder = folder();
    let control = Control::new();
    let limits = Limits { gather: PATIENCE * 10, gather_bytes: 1000, ..LIMITS };
    let journal = control.open(&folder.path().join("journal"), NEW, limits);
    (0..20).for_each(|n| journal.append(&entry(n)).unwrap());
    wait_until("it is written", || control.get(|faults| faults.writes) > 0);
}

#[test]
fn appends_that_wait_share_one_sync() {
    let folder = folder();
    let path = folder.path().join("journal");
    let control = Control::new();
    let journal = control.open(&path, EACH, LIMITS);
    control.set(|faults| faults.holds_syncs = true);
    let returned = &AtomicU32::new(0);
    thread::scope(|scope| {
        let journal = &journal;
        let append = move |n| {
            journal.append(&entry(n)).unwrap();
            returned.fetch_add(1, Ordering::Relaxed);
        };
        scope.spawn(move || append(0));
        wait_until("the first is being synced", || control.get(|faults| faults.syncs) == 1);
        (1..9).for_each(|n| drop(scope.spawn(move || append(n))));
        wait_until("the others are accepted", || journal.waiting() == 8);
        assert_eq!(returned.load(Ordering::Relaxed), 0, "nothing is on the disk yet");
        control.set(|faults| faults.holds_syncs = false);
    });
    assert_eq!(control.get(|faults| (faults.writes, faults.syncs)), (2, 2));
    drop(journal);
    assert_eq!(reopen(&path, 10).len(), 9);
}

#[test]
fn every_period_is_synced_once_and_never_is_never() {
    let folder = folder();
    for (name, sync, expected) in [
        ("hourly", Sync::Every(Duration::from_secs(3600)), 1),
        ("never", Sync::Never, 0),
        ("forever", Sync::Every(Duration::MAX), 1),
    ] {
        let control = Control::new();
        let journal = control.open(&folder.path().join(name), Options { sync, ..NEW }, LIMITS);
        for n in 0..5 {
            journal.append(&entry(n)).unwrap();
            wait_until("it is written", || journal.waiting() == 0);
        }
        assert_eq!(control.get(|faults| faults.syncs), 0, "{name}: before the end");
        journal.close().unwrap();
        assert_eq!(control.get(|faults| faults.syncs), expected, "{name}");
    }
    let control = Control::new();
    let sync = Sync::Every(Duration::from_millis(20));
    let journal = control.open(&folder.path().join("often"), Options { sync, ..NEW }, LIMITS);
    journal.append(&entry(0)).unwrap();
    wait_until("it is synced", || control.get(|faults| faults.syncs) == 1);
    journal.close().unwrap();
}

#[test]
fn flush_syncs_unless_that_is_never_asked() {
    let folder = folder();
    for (name, sync, expected) in
        [("hourly", Sync::Every(Duration::from_secs(3600)), 1), ("never", Sync::Never, 0)]
    {
        let control = Control::new();
        let journal = control.open(&folder.path().join(name), Options { sync, ..NEW }, LIMITS);
        journal.append(&entry(0)).unwrap();
        journal.flush().unwrap();
        assert_eq!((journal.waiting(), control.get(|faults| faults.syncs)), (0, expected), "{name}");
        journal.flush().unwrap();
        assert_eq!(control.get(|faults| faults.syncs), expected, "{name}: nothing new to sync");
    }
}

#[test]
fn a_full_buffer_makes_appending_wait() {
    let folder = folder();
    let path = folder.path().join("journal");
    let control = Control::new();
    control.set(|faults| faults.holds_writes = true);
    let limits = Limits { unwritten_bytes_max: 1500, ..LIMITS };
    let journal = control.open(&path, NEW, limits);
    let appended = &AtomicU32::new(0);
    thread::scope(|scope| {
        let (journal, control) = (&journal, control.clone());
        scope.spawn(move || {
            for n in 0..50 {
                journal.append(&entry(n)).unwrap();
                appended.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("the bound is near", || journal.waiting() >= 4);
        thread::sleep(Duration::from_millis(50));
        assert!(appended.load(Ordering::Relaxed) < 10, "no more than the bound is accepted");
        control.set(|faults| faults.holds_writes = false);
    });
    journal.close().unwrap();
    drop(journal);
    assert_eq!(reopen(&path, 60).len(), 50);
}

#[test]
fn a_record_larger_than_the_bound_goes_alone() {
    let folder = folder();
    let limits = Limits { unwritten_bytes_max: 10, ..LIMITS };
    let journal = Control::new().open(&folder.path().join("journal"), NEW, limits);
    (0..5).for_each(|n| journal.append(&entry(n)).unwrap());
    journal.close().unwrap();
}

#[test]
fn what_is_too_large_is_refused_and_the_rest_goes_on() {
    let folder = folder();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, NEW).unwrap();
    let value = Entry { value: Some(vec![0; VALUE_BYTES_MAX + 1]), ..entry(3) };
    assert!(matches!(journal.append(&value), Err(JournalError::ValueTooLarge { .. })));
    let path_of = |_| Seen { path: "x".repeat(4000).into(), state: FileState::MISSING };
    let paths = Entry { inputs: (0..RECORD_BYTES_MAX / 4000 + 1).map(path_of).collect(), ..entry(4) };
    assert!(matches!(journal.append(&paths), Err(JournalError::RecordTooLarge { .. })));
    let largest = Entry { value: Some(vec![1; VALUE_BYTES_MAX]), ..entry(5) };
    journal.append(&largest).unwrap();
    journal.append(&entry(1)).unwrap();
    journal.close().unwrap();
    assert!(matches!(journal.append(&entry(2)), Err(JournalError::Closed { .. })));
    drop(journal);
    let journal = Journal::open(&path, RESUME).unwrap();
    assert_eq!(journal.past_len(), 2);
    assert_eq!(*journal.past(entry(5).identity).unwrap(), largest);
}

#[test]
fn short_writes_are_continued() {
    let folder = folder();
    let path = folder.path().join("journal");
    let control = Control::new();
    control.set(|faults| faults.bytes_max = 7);
    let journal = control.open(&path, NEW, LIMITS);
    (0..20).for_each(|n| journal.append(&entry(n)).unwrap());
    journal.close().unwrap();
    drop(journal);
    assert_eq!(reopen(&path, 30).len(), 20);
}

#[test]
fn a_full_disk_keeps_whole_records_and_recovers() {
    for cuts in [true, false] {
        let folder = folder();
        let path = folder.path().join("journal");
        let control = Control::new();
        control.set(|faults| (faults.room, faults.cuts) = (500, cuts));
        let limits = Limits { unwritten_bytes_max: 4000, ..PROMPT };
        let journal = control.open(&path, NEW, limits);
        let accepted = (0..100).filter(|&n| journal.append(&entry(n)).is_ok()).count() as u32;
        assert!((5..100).contains(&accepted), "some wait, some are refused: {accepted}");
        let refused_now = 100 - accepted;
        assert!(matches!(journal.error(), Some(JournalError::Failing { refused, waiting, .. })
                if refused == u64::from(refused_now) && waiting > 0));
        assert!(matches!(journal.flush(), Err(JournalError::Failing { .. })));
        if cuts {
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join("copy");
            std::fs::copy(&path, &copy).unwrap();
            assert!(!reopen(&copy, 100).is_empty(), "some fitted");
        }
        control.set(|faults| faults.room = u64::MAX);
        wait_until("it recovers", || journal.error().is_none());
        journal.append(&entry(200)).unwrap();
        journal.flush().unwrap();
        let error = journal.close().unwrap_err();
        assert!(
            matches!(error, JournalError::Incomplete { missing, .. } if missing == u64::from(refused_now))
        );
        drop(journal);
        let mut expected: Vec<u32> = (0..accepted).collect();
        expected.push(200);
        assert_eq!(reopen(&path, 201), expected, "without gaps before the refused ones");
    }
}

#[test]
fn closing_a_full_disk_tells_what_is_missing() {
    let folder = folder();
    let path = folder.path().join("journal");
    let control = Control::new();
    control.set(|faults| faults.room = 500);
    let journal = control.open(&path, NEW, LIMITS);
    (0..10).for_each(|n| drop(journal.append(&entry(n))));
    let error = journal.close().unwrap_err();
    drop(journal);
    let found = reopen(&path, 10);
    assert_eq!(found, (0..found.len() as u32).collect::<Vec<_>>());
    let left = 10 - found.len() as u64;
    assert!(matches!(error, JournalError::Incomplete { missing, .. } if missing == left), "{error}");
}

#[test]
fn closing_writes_what_waited_and_what_came_since() {
    let folder = folder();
    let path = folder.path().join("journal");
    let control = Control::new();
    control.set(|faults| faults.room = 500);
    let journal = control.open(&path, NEW, Limits { retry: PATIENCE * 10, ..LIMITS });
    (0..10).for_each(|n| journal.append(&entry(n)).unwrap());
    wait_until("writing fails", || journal.error().is_some());
    (10..15).for_each(|n| journal.append(&entry(n)).unwrap());
    control.set(|faults| faults.room = u64::MAX);
    journal.close().unwrap();
    drop(journal);
    assert_eq!(reopen(&path, 20).len(), 15);
}

#[test]
fn nobody_waits_for_a_full_disk() {
    let folder = folder();
    let control = Control::new();
    control.set(|faults| faults.room = 0);
    let journal = control.open(&folder.path().join("journal"), EACH, LIMITS);
    assert!(matches!(journal.append(&entry(0)), Err(JournalError::Failing { waiting: 1, .. })));
    assert!(matches!(journal.begun(Identity(0)), Err(JournalError::Failing { .. })));
    assert!(matches!(journal.flush(), Err(JournalError::Failing { .. })));
    assert!(matches!(journal.close(), Err(JournalError::Incomplete { missing: 2, .. })));
}

#[test]
fn a_disk_that_does_not_sync_is_not_trusted_again() {
    let folder = folder();
    let control = Control::new();
    let journal = control.open(&folder.path().join("journal"), EACH, PROMPT);
    journal.append(&entry(0)).unwrap();
    control.set(|faults| faults.syncs_fail = true);
    assert!(matches!(journal.append(&entry(1)), Err(JournalError::Disk { missing: 1, .. })));
    // The next sync says that all is well, and that says nothing about the pages of the first.
    control.set(|faults| faults.syncs_fail = false);
    assert!(matches!(journal.append(&entry(2)), Err(JournalError::Disk { missing: 2, .. })));
    assert!(matches!(journal.flush(), Err(JournalError::Disk { .. })));
    assert!(matches!(journal.close(), Err(JournalError::Disk { missing: 2, .. })));
}

/// A disk that panics.
struct Broken;

impl Disk for Broken {
    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("a bug of ours")
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_of_the_writer_is_an_error_and_no_hang() {
    let folder = folder();
    let path = folder.path().join("journal");
    let journal = Journal::open_with(&path, EACH, LIMITS, |_| Ok(Box::new(Broken))).unwrap();
    assert!(journal.append(&entry(0)).is_err());
    assert!(journal.append(&entry(1)).is_err());
    assert!(journal.flush().is_err());
    assert!(matches!(journal.close(), Err(JournalError::Disk { missing: 1, .. })));
}

#[test]
fn closing_while_others_append_loses_nothing_that_was_accepted() {
    let folder = folder();
    for round in 0..20 {
        let path = folder.path().join(round.to_string());
        let journal = Control::new().open(&path, NEW, Limits { unwritten_bytes_max: 2000, ..LIMITS });
        let accepted: u32 = thread::scope(|scope| {
            let append =
                |first: u32| (0..200).take_while(|n| journal.append(&entry(n * 4 + first)).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|first| scope.spawn(move || append(first))).collect();
            wait_until("some are appended", || path.metadata().unwrap().len() > 1000);
            journal.close().unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap() as u32).sum()
        });
        drop(journal);
        assert_eq!(reopen(&path, 800).len() as u32, accepted);
    }
}
