//! Files of segments in their folder: made unseen, named, opened with distrust, swept. Knows nothing of what is inside.

use super::system::{lock_bytes, lock_of_another, unlock_bytes};
use crate::error::SegmentError;
use crate::segment::plan::MEMBERS_MAX;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::path::Arg;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Beginning of all names.
pub(crate) const PREFIX: &str = "tarragon-";
/// The byte that is held while a process attaches, detaches or sweeps; behind all data.
const GATE: u64 = 1 << 60;
/// The byte of the first member; the others' follow.
const FIRST: u64 = GATE + 1;
/// The byte that is held while a survivor recovers.
const RECOVERY: u64 = FIRST + MEMBERS_MAX as u64;
/// The byte of the first member that is about to end; the others' follow.
const LEAVING: u64 = RECOVERY + 1;
/// What to do when shared memory is full.
const HINT: &str = "ask for less, end what uses it, or name a larger folder in TARRAGON_SHM \
    (containers: start them with a larger --shm-size)";

/// The folder for segments: `TARRAGON_SHM`, or `/dev/shm`.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("TARRAGON_SHM").filter(|it| !it.is_empty()).map_or("/dev/shm".into(), PathBuf::from)
}

/// A lock on bytes of a file, let go when dropped.
pub(crate) struct ByteLock<'f> {
    file: &'f File,
    bytes: Range<u64>,
}

impl Drop for ByteLock<'_> {
    fn drop(&mut self) {
        let _cannot_fail = unlock_bytes(self.file.as_fd(), self.bytes.clone());
    }
}

/// Takes the gate; waits for whoever has it, for the microseconds of an attach or detach.
pub(crate) fn gate(file: &File) -> io::Result<ByteLock<'_>> {
    wait_for(file, GATE..GATE + 1)
}

/// Takes the gate if nobody has it.
pub(crate) fn try_gate(file: &File) -> io::Result<Option<ByteLock<'_>>> {
    let bytes = GATE..GATE + 1;
    Ok(lock_bytes(file.as_fd(), bytes.clone(), false)?.then_some(ByteLock { file, bytes }))
}

/// Takes the right to recover; waits while another survivor does so. A dead one's right is dropped by the kernel.
pub(crate) fn recovery(file: &File) -> io::Result<ByteLock<'_>> {
    wait_for(file, RECOVERY..RECOVERY + 1)
}

fn wait_for(file: &File, bytes: Range<u64>) -> io::Result<ByteLock<'_>> {
    lock_bytes(file.as_fd(), bytes.clone(), true)?;
    Ok(ByteLock { file, bytes })
}

/// Takes a member's byte for as long as the file is open; false if another process has it.
pub(crate) fn take_member(file: &File, member: u32) -> io::Result<bool> {
    lock_bytes(file.as_fd(), member_bytes(FIRST, member), false)
}

/// Lets go of a member's byte.
pub(crate) fn drop_member(file: &File, member: u32) {
    let _cannot_fail = unlock_bytes(file.as_fd(), member_bytes(FIRST, member));
}

/// Tells other processes that this one is about to end, for as long as the file is open.
pub(crate) fn mark_leaving(file: &File, member: u32) -> io::Result<bool> {
    lock_bytes(file.as_fd(), member_bytes(LEAVING, member), false)
}

/// Whether another process holds this member's byte. One system call.
pub(crate) fn member_lives(file: &File, member: u32) -> bool {
    is_locked(file, member_bytes(FIRST, member)).unwrap_or(true)
}

/// Whether any other process is a member that is not about to end. One system call or two, if none is about to end.
pub(crate) fn has_other_members(file: &File) -> bool {
    // In this order: asked the other way around, one that ended meanwhile would be a member that is not about to.
    let stays = |member| {
        !is_locked(file, member_bytes(LEAVING, member)).unwrap_or(false) && member_lives(file, member)
    };
    match lock_of_another(file.as_fd(), FIRST..RECOVERY) {
        Ok(None) => false,
        Ok(Some(found)) => {
            // The kernel shows one of them; only if that one leaves, all have to be looked at.
            let found = u32::try_from(found.start.saturating_sub(FIRST)).unwrap_or(0);
            stays(found) || (0..MEMBERS_MAX).any(stays)
        }
        Err(_) => true,
    }
}

fn is_locked(file: &File, bytes: Range<u64>) -> io::Result<bool> {
    lock_of_another(file.as_fd(), bytes).map(|found| found.is_some())
}

fn member_bytes(first: u64, member: u32) -> Range<u64> {
    first + u64::from(member)..first + u64::from(member) + 1
}

/// A new file in `folder`, without a name where the file system can do that. True if it has none yet.
///
/// A named one is seen by sweepers before it is locked; `settle_name` tells whether it survived that.
pub(crate) fn make(folder: &Path, name: &str) -> Result<(File, bool), SegmentError> {
    let mode = Mode::RUSR | Mode::WUSR;
    let unnamed = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(folder, unnamed, mode) {
        return Ok((File::from(fd), true));
    }
    let path = folder.join(name);
    let named = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(&path, named, mode) {
        Ok(fd) => Ok((File::from(fd), false)),
        Err(error) => Err(full_or_system(folder, 0, "create", &path, error.into())),
    }
}

/// Gives an unnamed file its name. False if the name is taken.
pub(crate) fn give_name(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let linked = rustix::fs::linkat(rustix::fs::CWD, unnamed, rustix::fs::CWD, path, AtFlags::SYMLINK_FOLLOW);
    match linked {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file that should be a segment: a plain file of this user, and not a link.
pub(crate) fn open(path: &Path, kind: &'static str) -> Result<File, SegmentError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let foreign =
        |found: &str| SegmentError::Foreign { path: path.to_owned(), wanted: kind, found: found.into() };
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SegmentError::Gone { name }),
        Err(source) => return Err(SegmentError::System { verb: "look at", path: path.to_owned(), source }),
    };
    if !meta.is_file() {
        return Err(foreign("it is not a plain file"));
    }
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(SegmentError::Owner { path: path.to_owned(), owner: meta.uid(), user });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(foreign("other users may open it"));
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(rustix::io::Errno::NOENT) => Err(SegmentError::Gone { name }),
        Err(error) => Err(SegmentError::System { verb: "open", path: path.to_owned(), source: error.into() }),
    }
}

/// Makes a range of the file memory. All or nothing; idempotent.
pub(crate) fn commit(file: &File, folder: &Path, bytes: Range<u64>) -> Result<(), SegmentError> {
    let needed = bytes.end - bytes.start;
    loop {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), bytes.start, needed) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(full_or_system(folder, needed, "commit memory in", folder, error.into()));
            }
        }
    }
}

/// As [`commit`], but leaves so many bytes of the folder free, or a sixty-fourth of it if that is less.
pub(crate) fn commit_leaving(
    file: &File,
    folder: &Path,
    bytes: Range<u64>,
    left: u64,
) -> Result<(), SegmentError> {
    if let Ok(all) = rustix::fs::statvfs(folder) {
        let (needed, free) = (bytes.end - bytes.start, all.f_bavail * all.f_frsize);
        if free < needed + left.min(all.f_blocks * all.f_frsize / 64) {
            return Err(SegmentError::Full { dir: folder.to_owned(), needed, free, hint: HINT });
        }
    }
    commit(file, folder, bytes)
}

/// The error for a call that failed: `Full` if it was for want of space.
pub(crate) fn full_or_system(
    folder: &Path,
    needed: u64,
    verb: &'static str,
    path: &Path,
    source: io::Error,
) -> SegmentError {
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::ENOMEM | libc::EDQUOT) => {
            let free = rustix::fs::statvfs(folder).map_or(0, |it| it.f_bavail * it.f_frsize);
            SegmentError::Full { dir: folder.to_owned(), needed, free, hint: HINT }
        }
        _ => SegmentError::System { verb, path: path.to_owned(), source },
    }
}

/// Whether `path` still names this file. Allocates nothing if the path is a C string.
pub(crate) fn is_named(file: &File, path: impl Arg) -> bool {
    let (Ok(ours), Ok(theirs)) = (rustix::fs::fstat(file), rustix::fs::lstat(path)) else { return false };
    (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
}

/// Removes the name if it still names this file. Call it with the gate held. Allocates nothing if the path is a C
/// string.
pub(crate) fn remove_name(file: &File, path: impl Arg + Copy) {
    if is_named(file, path) {
        let _gone_already = rustix::fs::unlink(path);
    }
}

/// Removes the leftovers of dead programs of this user from a folder, the first time this process sees the folder.
/// Files that cannot be looked into are left alone.
pub(crate) fn sweep_once(folder: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut swept = SWEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if swept.insert(folder.to_owned()) {
        sweep(folder);
    }
}

fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_name(&entry.file_name().to_string_lossy()) {
            sweep_file(&entry.path());
        }
    }
}

/// Whether a file is called as segments are: prefix, kind, and user, pid, start time and count of its maker.
fn is_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let numbers = rest.rsplitn(5, '-').take(4).filter(|it| it.parse::<u64>().is_ok()).count();
    numbers == 4 && rest.split('-').count() >= 5
}

/// Whether a file begins as segments do, or with nothing yet: its maker died early.
fn is_segment(file: &File) -> bool {
    let mut start = [0; 8];
    let read = std::os::unix::fs::FileExt::read_at(file, &mut start, 0);
    read.is_ok_and(|read| read == 0 || start == [0; 8] || start == super::plan::MAGIC)
}

/// Unlinks a segment that no process holds a lock on. Live processes hold their member's byte, or the gate. Other
/// programs' files are not even opened if they are not called like ours: closing one drops locks of this process on it.
fn sweep_file(path: &Path) {
    let Ok(file) = open(path, "a segment") else { return };
    if !is_segment(&file) {
        return;
    }
    if let Ok(true) = lock_bytes(file.as_fd(), GATE..RECOVERY + 1, false) {
        remove_name(&file, path);
    }
}
