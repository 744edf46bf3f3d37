//! A real file system that is full, and has space again later.

use super::*;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A small file system in memory, gone when dropped.
struct Tmpfs(TempDir);

impl Tmpfs {
    /// `None` where mounting is not permitted.
    fn mount() -> Option<Tmpfs> {
        let folder = folder();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then(|| Tmpfs(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Busy as long as a process that another test is just starting has our files open.
        let unmount = || Command::new("umount").arg(self.0.path()).output();
        wait_until("it is unmounted", || unmount().is_ok_and(|output| output.status.success()));
    }
}

#[test]
fn a_journal_recovers_when_a_full_disk_has_space_again() {
    let Some(disk) = Tmpfs::mount() else { return say("skipped: tmpfs: mounting is not permitted") };
    let path = disk.path("journal");
    fs::write(disk.path("ballast"), vec![1; 40 << 10]).unwrap();
    let limits = Limits { unwritten_bytes_max: 8000, retry: Duration::from_millis(20), ..LIMITS };
    let open = |file: &File| file.try_clone().map(|file| Box::new(file) as Box<dyn Disk>);
    let options = Options { sync: Sync::Every(Duration::from_secs(1)), ..NEW };
    let journal = Journal::open_with(&path, options, limits, open).unwrap();
    let mut appended = Vec::new();
    let mut n = 0;
    while n < 200 || journal.error().is_none() {
        assert!(n < 1000, "20 KiB are full by now");
        appended.extend(journal.append(&entry(n)).is_ok().then_some(n));
        n += 1;
    }
    let refused = u64::from(n) - appended.len() as u64;
    let message = journal.error().expect("the disk is full").to_string();
    assert!(message.contains("No space left on device"), "{message}");
    fs::remove_file(disk.path("ballast")).unwrap();
    wait_until("it recovers", || journal.error().is_none());
    journal.append(&entry(2000)).unwrap();
    appended.push(2000);
    match journal.close() {
        Ok(()) => assert_eq!(refused, 0),
        Err(JournalError::Incomplete { missing, .. }) => assert_eq!(missing, refused),
        Err(error) => panic!("{error}"),
    }
    drop(journal);
    let journal = Journal::open(&path, RESUME).unwrap();
    assert_eq!((remembered(&journal, 2001), journal.dropped_bytes()), (appended, 0));
}

#[test]
fn a_journal_cannot_begin_on_a_full_disk() {
    let Some(disk) = Tmpfs::mount() else { return say("skipped: tmpfs: mounting is not permitted") };
    assert!(fs::write(disk.path("ballast"), vec![1; 100 << 10]).is_err());
    let error = Journal::open(&disk.path("journal"), NEW).err().expect("there is no space");
    assert!(matches!(error, JournalError::Io { operation: "create", .. }), "{error}");
    assert!(!disk.path("journal").exists(), "nothing half-made stays");
}
