//! Dictionaries in files: what comes back, what is written again, what is refused, and what a kill leaves.

use crate::process::{Other, hear, role};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_ddict::{Any, DDict, Error, PersistId, Persisted, persisted_ids, remove_persisted};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

type Dict = DDict<u32, Vec<u8>>;

fn dict() -> Dict {
    DDict::builder().memory(32 << 20).shards_per_node(2).create().unwrap()
}

fn items(dict: &Dict) -> BTreeMap<u32, Vec<u8>> {
    dict.items().collect::<Result<_, _>>().unwrap()
}

fn value(key: u32) -> Vec<u8> {
    (0..key * 13 % 3000).map(|i| (i * key) as u8).collect()
}

fn filled() -> Dict {
    let dict = dict();
    dict.multi_put((0..300).map(|key| (key, value(key)))).unwrap();
    dict
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()).collect();
    files.retain(|path| !path.ends_with("lock"));
    files.sort();
    files
}

#[test]
fn what_was_persisted_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let dict = filled();
    let id = dict.persist(dir.path()).unwrap();
    assert_eq!(persisted_ids(dir.path()).unwrap(), [id]);
    let all = items(&dict);
    drop(dict);
    let back = Dict::restore(dir.path(), id).unwrap();
    assert_eq!(items(&back), all);
    assert_eq!(back.shards(), 2);
    let other = Dict::builder().memory(16 << 20).shards_per_node(3).restore(dir.path(), id).unwrap();
    assert_eq!((items(&other), other.shards()), (all.clone(), 3));
    let read_only = Persisted::<u32, Vec<u8>>::open(dir.path(), id).unwrap();
    assert_eq!(read_only.len(), 300);
    assert_eq!(read_only.items().collect::<Result<BTreeMap<_, _>, _>>().unwrap(), all);
    assert_eq!(read_only.get(&299).unwrap(), Some(value(299)));
    assert_eq!(read_only.get(&300).unwrap(), None);
    assert!(read_only.contains(&0).unwrap());
}

#[test]
fn only_what_changed_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let dict = dict();
    dict.multi_put((0..20).map(|key| (key, vec![key as u8; 100_000]))).unwrap();
    let first = dict.persist(dir.path()).unwrap();
    let second = dict.persist(dir.path()).unwrap();
    dict.put(&3, vec![99; 100_000]).unwrap();
    dict.remove(&4).unwrap();
    dict.put(&5, vec![6; 100_000]).unwrap();
    let third = dict.persist(dir.path()).unwrap();
    assert_eq!([first, second, third], [1, 2, 3].map(PersistId));
    let sizes: Vec<u64> = files(dir.path())
        .iter()
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("values-"))
        .map(|path| path.metadata().unwrap().len() / 100_000)
        .collect();
    assert_eq!(sizes, [20, 1], "one file of all, none for the second, one value for the third");
    assert_eq!(items(&Dict::restore(dir.path(), third).unwrap()), items(&dict));
    let old = Dict::restore(dir.path(), first).unwrap();
    assert_eq!((old.get(&3).unwrap().unwrap()[0], old.len().unwrap()), (3, 20));
}

#[test]
fn each_checkpoint_is_persisted_as_it_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let dict = DDict::<u32, u32>::builder().memory(4 << 20).working_set(2).create().unwrap();
    dict.put(&1, 1).unwrap();
    let old = dict.clone();
    dict.checkpoint().unwrap();
    dict.put(&1, 2).unwrap();
    let ids = [old.persist(dir.path()).unwrap(), dict.persist(dir.path()).unwrap()];
    let values = ids.map(|id| DDict::<u32, u32>::restore(dir.path(), id).unwrap().get(&1).unwrap().unwrap());
    assert_eq!(values, [1, 2]);
}

#[test]
fn what_was_not_persistent_comes_back_so() {
    let dir = tempfile::tempdir().unwrap();
    let create = || {
        let dict = Dict::builder().memory(8 << 20).wait_for_keys(true).timeout(Duration::from_millis(50));
        dict.create().unwrap()
    };
    let dict = create();
    for bytes in [8, 1000] {
        dict.put(&bytes, vec![1; bytes as usize]).unwrap();
        dict.pput(&(bytes + 1), vec![2; bytes as usize]).unwrap();
    }
    let check = |dict: &Dict| {
        dict.checkpoint().unwrap();
        for bytes in [8, 1000] {
            assert_eq!(dict.get(&(bytes + 1)).unwrap(), Some(vec![2; bytes as usize]));
            assert!(!dict.contains(&bytes).unwrap(), "{bytes}");
        }
    };
    let id = dict.persist(dir.path()).unwrap();
    check(&dict);
    let back = Dict::restore(dir.path(), id).unwrap();
    assert_eq!(back.len().unwrap(), 4);
    let again = back.persist(dir.path()).unwrap();
    check(&back);
    check(&Dict::restore(dir.path(), again).unwrap());
    // Where keys are not waited for, every value is persistent.
    let elsewhere = Dict::builder().memory(8 << 20).restore(dir.path(), id).unwrap();
    elsewhere.checkpoint().unwrap();
    assert_eq!(elsewhere.len().unwrap(), 4);
    // As before: the next checkpoint but one waits for the keys that are not persistent.
    let back = Dict::restore(dir.path(), id).unwrap();
    back.checkpoint().unwrap();
    back.put(&8, vec![]).unwrap();
    back.checkpoint().unwrap();
    let error = back.put(&8, vec![]).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    back.rollback().unwrap();
    back.put(&1000, vec![]).unwrap();
    back.checkpoint().unwrap();
    back.put(&8, vec![]).unwrap();
}

/// A list of one inline entry, as version 1 of the format wrote it.
fn first_version(list: &[u8]) -> Vec<u8> {
    let mut list = list[..list.len() - 16].to_vec();
    list[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let sum = xxh3_64(&list[..56]);
    list[56..64].copy_from_slice(&sum.to_le_bytes());
    let mut at = 64;
    for _name in 0..2 {
        at += 4 + u32::from_le_bytes(list[at..at + 4].try_into().unwrap()) as usize;
    }
    list[at] &= 0x7f;
    let hash = xxh3_128(&list);
    list.extend(hash.to_le_bytes());
    list
}

#[test]
fn lists_of_the_first_version_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let dict = Dict::builder().memory(8 << 20).wait_for_keys(true).create().unwrap();
    dict.put(&1, vec![5]).unwrap();
    let id = dict.persist(dir.path()).unwrap();
    let path = dir.path().join(format!("id-{:016x}", id.0));
    let list = first_version(&fs::read(&path).unwrap());
    fs::write(&path, &list).unwrap();
    let back = Dict::restore(dir.path(), id).unwrap();
    back.checkpoint().unwrap();
    assert_eq!(back.get(&1).unwrap(), Some(vec![5]), "all were persistent then");
    let mut newer = list;
    newer[8] = 3;
    let sum = xxh3_64(&newer[..56]);
    newer[56..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, newer).unwrap();
    let error = Dict::restore(dir.path(), id).unwrap_err().to_string();
    assert!(error.contains("newer than this program") && error.contains("id-"), "{error}");
}

#[test]
fn mixed_values_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let dict = DDict::<String, Any>::builder().memory(4 << 20).create().unwrap();
    dict.put("n", &5_u64).unwrap();
    dict.put("row", &vec![1.5_f64; 100]).unwrap();
    let id = dict.persist(dir.path()).unwrap();
    let back = DDict::<String, Any>::restore(dir.path(), id).unwrap();
    assert_eq!(back.get::<Vec<f64>, _>("row").unwrap(), Some(vec![1.5; 100]));
    assert!(back.get::<u32, _>("n").is_err());
}

#[test]
fn wrong_numbers_and_types_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let id = filled().persist(dir.path()).unwrap();
    let error = Dict::restore(dir.path(), PersistId(7)).unwrap_err();
    assert!(error.to_string().contains("no persisted dictionary 7; it holds 1"), "{error}");
    let error = DDict::<u32, String>::restore(dir.path(), id).unwrap_err();
    assert!(matches!(error, Error::Types { .. }), "{error}");
    let error = Persisted::<u64, Vec<u8>>::open(dir.path(), id).err().unwrap();
    assert!(matches!(error, Error::Types { .. }), "{error}");
    assert_eq!(persisted_ids(dir.path().join("nowhere")).unwrap(), []);
}

/// What is restored from changed files must be an error that names a file, or all that was persisted.
fn check_damage(dir: &Path, id: PersistId, all: &BTreeMap<u32, Vec<u8>>, what: &str) -> bool {
    let small = Dict::builder().memory(8 << 20);
    let refused = match small.restore(dir, id) {
        Ok(back) => {
            assert_eq!(items(&back), *all, "{what}");
            false
        }
        Err(Error::Torn { path, .. } | Error::File { path, .. }) => {
            assert!(path.starts_with(dir), "{what}");
            true
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let read = Persisted::<u32, Vec<u8>>::open(dir, id)
        .and_then(|it| it.items().collect::<Result<BTreeMap<_, _>, _>>());
    assert_eq!(read.is_err(), refused, "{what}");
    refused
}

#[test]
fn torn_and_damaged_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dict = filled();
    dict.persist(dir.path()).unwrap();
    dict.put(&1, vec![1; 1000]).unwrap();
    let id = dict.persist(dir.path()).unwrap();
    let all = items(&dict);
    let mut refused = 0;
    for path in files(dir.path()) {
        let is_old_list = path.ends_with(format!("id-{:016x}", 1));
        let whole = fs::read(&path).unwrap();
        // Between values lie zeros that nothing reads, so the middle is the next byte that is none.
        let middle = (whole.len() / 2..).find(|&at| whole[at] != 0).unwrap();
        let places = [0, 8, 12, 30, 60, 64, 70, 100, middle, whole.len() - 17, whole.len() - 1];
        for at in places {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let what = format!("byte {at} of {path:?} turned");
            let is_refused = check_damage(dir.path(), id, &all, &what);
            assert_eq!(is_refused, !is_old_list, "{what}");
            fs::write(&path, &whole[..at]).unwrap();
            let what = format!("{path:?} cut at {at}");
            let is_refused = check_damage(dir.path(), id, &all, &what);
            assert_eq!(is_refused, !is_old_list, "{what}");
            refused += usize::from(is_refused);
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(refused >= 30, "{refused}");
    assert!(!check_damage(dir.path(), id, &all, "all as it was"));
}

#[test]
fn a_damaged_newest_list_stops_no_persist() {
    let dir = tempfile::tempdir().unwrap();
    let dict = filled();
    let first = dict.persist(dir.path()).unwrap();
    fs::write(dir.path().join(format!("id-{:016x}", first.0)), b"torn").unwrap();
    let second = dict.persist(dir.path()).unwrap();
    assert_eq!(items(&Dict::restore(dir.path(), second).unwrap()), items(&dict));
}

#[test]
fn a_missing_values_file_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let dict = filled();
    let first = dict.persist(dir.path()).unwrap();
    fs::remove_file(dir.path().join(format!("values-{:016x}", first.0))).unwrap();
    let error = Dict::restore(dir.path(), first).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    let second = dict.persist(dir.path()).unwrap();
    assert_eq!(items(&Dict::restore(dir.path(), second).unwrap()), items(&dict));
}

#[test]
fn what_was_left_half_written_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dict = filled();
    let first = dict.persist(dir.path()).unwrap();
    let left = [dir.path().join("new-1-0"), dir.path().join(format!("values-{:016x}", 9))];
    left.iter().for_each(|path| fs::write(path, b"half").unwrap());
    assert_eq!(persisted_ids(dir.path()).unwrap(), [first]);
    assert_eq!(dict.persist(dir.path()).unwrap(), PersistId(2));
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn a_kill_at_any_time_leaves_whole_numbers() {
    if let Some((directory, rounds)) = role() {
        let dict = filled();
        for round in 0..rounds.parse::<u32>().unwrap() {
            dict.put(&(round % 50), vec![round as u8; 200_000]).unwrap();
            dict.persist(&directory).unwrap();
            println!("ROUND {round}");
        }
        hear();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut newest = 0;
    for round in 0..12_u64 {
        let mut other = Other::start(
            "persist::a_kill_at_any_time_leaves_whole_numbers",
            dir.path().to_str().unwrap(),
            "1000",
        );
        other.line("ROUND ");
        std::thread::sleep(std::time::Duration::from_micros(round * 733));
        other.kill();
        let ids = persisted_ids(dir.path()).unwrap();
        assert!(ids.len() > newest, "at least one more");
        newest = ids.len();
        let last = Persisted::<u32, Vec<u8>>::open(dir.path(), *ids.last().unwrap()).unwrap();
        assert_eq!(last.items().filter(|it| it.is_ok()).count(), 300);
    }
    for id in persisted_ids(dir.path()).unwrap() {
        let one = Persisted::<u32, Vec<u8>>::open(dir.path(), id).unwrap();
        assert!(one.items().all(|it| it.is_ok()), "{id}");
    }
}

/// Three numbers that share values: removing any of them leaves the others whole.
#[test]
fn what_others_share_stays_when_a_number_is_removed() {
    let values = |dir: &Path| {
        let names = files(dir).into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        names.filter_map(|name| name.strip_prefix("values-")?.parse().ok()).collect::<Vec<u64>>()
    };
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let dir = tempfile::tempdir().unwrap();
        let dict = dict();
        let mut all = Vec::new();
        for round in 0..3_u8 {
            dict.put(&u32::from(round), vec![round; 1000]).unwrap();
            dict.persist(dir.path()).unwrap();
            all.push(items(&dict));
        }
        assert_eq!(values(dir.path()), [1, 2, 3]);
        for (gone, id) in order.into_iter().enumerate() {
            remove_persisted(dir.path(), PersistId(id)).unwrap();
            let mut left = order[gone + 1..].to_vec();
            left.sort_unstable();
            assert_eq!(
                persisted_ids(dir.path()).unwrap(),
                left.iter().map(|id| PersistId(*id)).collect::<Vec<_>>()
            );
            for &id in &left {
                let back = Dict::restore(dir.path(), PersistId(id)).unwrap();
                assert_eq!(items(&back), all[id as usize - 1], "{order:?}");
            }
            let newest = left.last().copied().unwrap_or(0);
            assert_eq!(
                values(dir.path()),
                (1..=newest).collect::<Vec<_>>(),
                "{order:?}: no more than is needed"
            );
        }
    }
}

#[test]
fn a_number_that_is_not_there_cannot_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let error = remove_persisted(&nowhere, PersistId(1)).unwrap_err();
    assert!(matches!(error, Error::NotPersisted { .. }), "{error}");
    assert!(!nowhere.exists());
}

#[test]
fn values_of_an_unreadable_list_stay() {
    let dir = tempfile::tempdir().unwrap();
    let dict = filled();
    let ids = [dict.persist(dir.path()).unwrap(), dict.persist(dir.path()).unwrap()];
    let path = dir.path().join(format!("id-{:016x}", ids[1].0));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, b"torn").unwrap();
    remove_persisted(dir.path(), ids[0]).unwrap();
    fs::write(&path, whole).unwrap();
    assert_eq!(items(&Dict::restore(dir.path(), ids[1]).unwrap()), items(&dict));
}

#[test]
fn a_kill_while_numbers_are_removed_leaves_whole_ones() {
    if let Some((directory, rounds)) = role() {
        let dict = filled();
        for round in 0..rounds.parse::<u32>().unwrap() {
            dict.put(&(round % 50), vec![round as u8; 200_000]).unwrap();
            let id = dict.persist(&directory).unwrap();
            println!("ROUND {round}");
            if id.0 > 3 {
                remove_persisted(&directory, persisted_ids(&directory).unwrap()[0]).unwrap();
            }
        }
        hear();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12_u64 {
        let test = "persist::a_kill_while_numbers_are_removed_leaves_whole_ones";
        let mut other = Other::start(test, dir.path().to_str().unwrap(), "1000");
        (0..6).for_each(|_| drop(other.line("ROUND ")));
        std::thread::sleep(Duration::from_micros(round * 97));
        other.kill();
        let ids = persisted_ids(dir.path()).unwrap();
        assert!(ids.len() >= 2, "{ids:?}");
        for id in ids {
            let one = Persisted::<u32, Vec<u8>>::open(dir.path(), id).unwrap();
            assert_eq!(one.items().filter(|it| it.is_ok()).count(), 300, "{id}");
        }
    }
    // What the killed ones left goes with the last number.
    for id in persisted_ids(dir.path()).unwrap() {
        remove_persisted(dir.path(), id).unwrap();
    }
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

/// A file system of 1 MiB in a directory; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|it| it.status.success());
        mounted.then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_older_numbers_whole() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a_full_disk_leaves_older_numbers_whole cannot mount a tmpfs here");
        return;
    };
    let dir = disk.0.path().join("saved");
    let dict = dict();
    dict.multi_put((0..5).map(|key| (key, vec![key as u8; 100_000]))).unwrap();
    let first = dict.persist(&dir).unwrap();
    let all = items(&dict);
    dict.multi_put((5..20).map(|key| (key, vec![key as u8; 100_000]))).unwrap();
    let error = dict.persist(&dir).unwrap_err();
    assert!(
        matches!(&error, Error::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    assert_eq!(persisted_ids(&dir).unwrap(), [first]);
    assert!(files(&dir).iter().all(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("new-")));
    assert_eq!(items(&Dict::restore(&dir, first).unwrap()), all);
    (5..20).for_each(|key| assert!(dict.remove(&key).unwrap()));
    let second = dict.persist(&dir).unwrap();
    assert_eq!(items(&Dict::restore(&dir, second).unwrap()), all);
}
