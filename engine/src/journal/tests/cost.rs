//! What does a record cost? At most 1 µs to append with one input and one output, at most 3 µs to read again.
//!
//! Figures, not tests: a machine that does other things as well would make a limit fail. Bounded is what can be
//! counted: bytes and writes per record.

use super::*;

const COUNT: u32 = 100_000;

/// An entry as most are: paths of 40 bytes, no value.
fn plain(n: u32) -> Entry {
    let seen = |name: &str| Seen {
        path: format!("/scratch/project/run-00001/{name}-{n:06}.dat").into(),
        state: FileState {
            kind: Kind::File,
            bytes: 1 << 20,
            mtime_ns: 1_700_000_000_000_000_000,
            hash: None,
        },
    };
    let (inputs, outputs) = (vec![seen("in")], vec![seen("re")]);
    let identity = Identity(u128::from(n) << 64);
    Entry {
        identity,
        inputs,
        outputs,
        taken: vec![],
        value: None,
        streams: None,
        exit: 0,
        took_ns: 12_345_678,
    }
}

#[test]
fn a_record_is_small_and_shares_its_write() {
    let folder = folder();
    let path = folder.path().join("journal");
    let control = Control::new();
    let journal = control.open(&path, NEW, LIMITS);
    assert_eq!(plain(1).inputs[0].path.as_os_str().len(), 40);
    let count = 20_000;
    (0..count).for_each(|n| journal.append(&plain(n)).unwrap());
    journal.close().unwrap();
    let bytes = path.metadata().unwrap().len() / u64::from(count);
    assert!(bytes <= 160, "{bytes} bytes per record");
    let writes = control.get(|faults| faults.writes);
    assert!(writes < count as usize / 10, "{writes} writes for {count} records");
}

#[test]
fn figures() {
    if std::env::var_os("TARRAGON_TEST_LONG").is_none() {
        return say("skipped: costs of a journal: TARRAGON_TEST_LONG is not set");
    }
    let folder = folder();
    let path = folder.path().join("journal");
    let entries: Vec<Entry> = (0..COUNT).map(plain).collect();
    let journal = Journal::open(&path, NEW).unwrap();
    let start = Instant::now();
    entries.iter().for_each(|entry| journal.append(entry).unwrap());
    let appended = start.elapsed();
    journal.flush().unwrap();
    let written = start.elapsed();
    let start = Instant::now();
    (COUNT..COUNT + 1000).for_each(|n| journal.begun(plain(n).identity).unwrap());
    let begun = start.elapsed();
    journal.close().unwrap();
    drop(journal);
    let start = Instant::now();
    let journal = Journal::open(&path, RESUME).unwrap();
    let opened = start.elapsed();
    assert_eq!(journal.past_len(), COUNT as usize);
    say(&format!(
        "append: {} ns per record, {written:?} until all are written",
        appended.as_nanos() / u128::from(COUNT)
    ));
    say(&format!("begun: {} ns each", begun.as_nanos() / 1000));
    say(&format!("open: {opened:?} for {COUNT} records in {} bytes", path.metadata().unwrap().len()));
}
