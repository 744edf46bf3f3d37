//! Torn and damaged journals: whole records before the damage count, nothing after it does, and nothing panics.

use super::super::file;
use super::*;
use proptest::prelude::*;
use std::fs;

/// Opens `bytes` as a journal, and once more to see that mending it changed nothing. Returns the entries, and how many
/// bytes were cut off.
fn open_bytes(bytes: &[u8]) -> Result<(Vec<u32>, u64), JournalError> {
    let folder = folder();
    let path = folder.path().join("journal");
    fs::write(&path, bytes).unwrap();
    let entries = |opened: &file::Opened| {
        let mut found: Vec<u32> = opened.past.values().map(|it| (it.identity.0 >> 64) as u32).collect();
        found.sort_unstable();
        assert!(found.iter().all(|&n| *opened.past[&entry(n).identity] == entry(n)), "a wrong entry");
        found
    };
    let first = file::open(&path, true)?;
    assert_eq!(first.end, path.metadata().unwrap().len());
    let found = (entries(&first), first.dropped_bytes);
    // Closing would not be enough: a process that another test is just starting may have the file open, too.
    first.file.unlock().unwrap();
    drop(first);
    let second = file::open(&path, true).expect("it was mended");
    assert_eq!((entries(&second), second.dropped_bytes), (found.0.clone(), 0));
    Ok(found)
}

fn journal_bytes(count: u32) -> (Vec<u8>, Vec<u64>) {
    let folder = folder();
    let path = folder.path().join("journal");
    let ends = write_journal(&path, count);
    (fs::read(&path).unwrap(), ends)
}

#[test]
fn every_prefix_has_exactly_its_whole_records() {
    let (bytes, ends) = journal_bytes(4);
    for length in 0..=bytes.len() {
        let whole = ends.iter().rposition(|&end| end <= length as u64);
        let kept = whole.map_or(0, |whole| ends[whole]);
        let expected: Vec<u32> = (0..whole.unwrap_or(0) as u32).collect();
        assert_eq!(open_bytes(&bytes[..length]).unwrap(), (expected, length as u64 - kept), "{length} bytes");
    }
}

#[test]
fn a_torn_journal_goes_on() {
    let (bytes, ends) = journal_bytes(3);
    for length in [3, ends[0], ends[1] + 1, ends[2] + 2, ends[3] - 1] {
        let folder = folder();
        let path = folder.path().join("journal");
        fs::write(&path, &bytes[..length as usize]).unwrap();
        let journal = Journal::open(&path, RESUME).unwrap();
        let mut expected = remembered(&journal, 9);
        journal.append(&entry(8)).unwrap();
        journal.close().unwrap();
        drop(journal);
        expected.push(8);
        let journal = Journal::open(&path, RESUME).unwrap();
        assert_eq!((remembered(&journal, 9), journal.dropped_bytes()), (expected, 0));
    }
}

#[test]
fn what_follows_a_damaged_record_is_dropped() {
    let (mut bytes, ends) = journal_bytes(5);
    bytes[ends[2] as usize + 10] ^= 1;
    let left = bytes.len() as u64 - ends[2];
    assert_eq!(open_bytes(&bytes).unwrap(), (vec![0, 1], left));
}

#[test]
fn garbage_and_zeros_at_the_end_are_dropped() {
    let (bytes, _) = journal_bytes(2);
    for tail in [vec![0; 5000], vec![0xff; 5000], b"x".to_vec()] {
        let found = open_bytes(&[&bytes[..], &tail].concat()).unwrap();
        assert_eq!(found, (vec![0, 1], tail.len() as u64));
    }
}

#[test]
fn a_record_at_another_place_or_of_another_journal_is_not_believed() {
    let (bytes, ends) = journal_bytes(2);
    let (other, _) = journal_bytes(2);
    let at = |index: usize| ends[index] as usize..ends[index + 1] as usize;
    let doubled = [&bytes[..], &bytes[at(1)]].concat();
    assert_eq!(open_bytes(&doubled).unwrap().0, [0, 1]);
    let swapped = [&bytes[..ends[0] as usize], &bytes[at(1)], &bytes[at(0)]].concat();
    assert_eq!(open_bytes(&swapped).unwrap().0, [0; 0]);
    let mixed = [&bytes[..ends[1] as usize], &other[at(1)]].concat();
    assert_eq!(open_bytes(&mixed).unwrap().0, [0], "the other journal's second record");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_never_give_a_wrong_record(
        flips in prop::collection::vec((0_usize..10_000, 0_u32..8), 1..4),
    ) {
        let (mut bytes, ends) = journal_bytes(3);
        let places: Vec<usize> = flips.iter().map(|(at, _)| at % bytes.len()).collect();
        let intact = bytes.clone();
        for (&at, (_, bit)) in places.iter().zip(&flips) {
            bytes[at] ^= 1 << bit;
        }
        // Two flips may undo each other.
        let first = bytes.iter().zip(&intact).position(|(now, before)| now != before);
        let first = first.map_or(u64::MAX, |at| at as u64);
        match open_bytes(&bytes) {
            Ok((found, _)) => {
                let whole = ends.iter().rposition(|&end| end <= first).expect("a flip in the header is an error");
                prop_assert_eq!(found, (0..whole as u32).collect::<Vec<_>>());
            }
            Err(JournalError::DamagedHeader { .. } | JournalError::NotAJournal { .. }) => {
                prop_assert!(first < ends[0]);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_bytes_after_a_header_are_cut_off(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let (bytes, _) = journal_bytes(0);
        let found = open_bytes(&[&bytes[..], &tail].concat()).unwrap();
        prop_assert_eq!(found, (vec![], tail.len() as u64));
    }
}
