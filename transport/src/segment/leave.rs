//! What this process leaves when it ends, by itself or by a signal: the names of segments that nobody else uses.
//!
//! Statics are not dropped at exit, and nothing is at a signal's default action, so what is open then is listed here.
//!
//! # Who leaves last
//! Processes that share a segment often end together: a terminal's Ctrl-C goes to all of them. Each would see the
//! others alive still, and none remove the name. So who is about to end *marks* itself first, by the lock on one more
//! byte of the file that the kernel drops at its end as it does the member's; then takes the gate, and removes the name
//! if nobody is a member who is not marked. Marks come before gates, so whoever has the gate last sees all marks.
//!
//! # Bounds
//! The gate may be with a process that is stopped: [`LEAVING_MAX`] for all segments together, then names stay for the
//! sweep of the next start. A gate that was taken to remove a name is kept to the end of the process: another thread
//! may be inside of it, for which it is the same lock. The list's lock, under which segments get their names, is kept
//! too before a signal's end: until the process is dead, other threads would make more of them.
//!
//! # In a handler
//! A signal's handler runs [`all`], which therefore allocates nothing. It shares the list's lock with threads that
//! enter or leave; these hold the signals back meanwhile, so a handler never interrupts who has the lock.

use super::{file, system};
use crate::signals;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a process that ends tries to remove the names of its segments.
const LEAVING_MAX: Duration = Duration::from_secs(1);
/// How long it sleeps between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(1);

static OPEN: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// A segment that is open in this process.
struct Entry {
    number: u64,
    /// A forked child has the list of its parent, and leaves nothing of that.
    pid: u32,
    member: u32,
    file: Arc<File>,
    path: CString,
    is_left: AtomicBool,
}

/// While it lives, the segment is left when the process ends.
pub(super) struct Listed(u64);

/// Lists a segment of which this process is a member, and calls `name`, which gives it its name if it has none. Call it
/// with the gate held.
pub(super) fn list<R>(file: &Arc<File>, path: &Path, member: u32, name: impl FnOnce() -> R) -> (Listed, R) {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        system::at_exit(at_exit);
        signals::before_end(before_end);
    });
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    // A path with a zero byte is none that a file was opened by.
    let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    let file = Arc::clone(file);
    let entry =
        Entry { number, pid: std::process::id(), member, file, path, is_left: AtomicBool::new(false) };
    let _held_back = signals::hold_back();
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.push(entry);
    let named = name();
    (Listed(number), named)
}

impl Drop for Listed {
    fn drop(&mut self) {
        let _held_back = signals::hold_back();
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let place = open.iter().position(|entry| entry.number == self.0);
        let _entry = place.map(|place| open.swap_remove(place));
        // The lock goes before the entry does, which may close a file.
        drop(open);
    }
}

/// What runs after this hook may still drop segments, so the lock is let go.
extern "C" fn at_exit() {
    // A handler on this thread would wait for the lock that this thread has.
    let _held_back = signals::hold_back();
    drop(all());
}

/// Other threads may go on until the process is dead: they name nothing any more.
fn before_end() {
    std::mem::forget(all());
}

/// Leaves all segments, within [`LEAVING_MAX`]. The process ends after this.
fn all() -> Option<MutexGuard<'static, Vec<Entry>>> {
    let deadline = Instant::now() + LEAVING_MAX;
    let open = lock_until(deadline)?;
    let own = std::process::id();
    let ours = || open.iter().filter(|entry| entry.pid == own);
    ours().for_each(Entry::mark);
    // Each is tried in each round: one that is stuck keeps no other from being left.
    while ours().filter(|entry| !entry.leave()).count() > 0 && Instant::now() < deadline {
        signals::all_is_tried();
        std::thread::sleep(TRY_AGAIN);
    }
    Some(open)
}

/// `try_lock` is one compare-and-swap, so that a handler may call it.
fn lock_until(deadline: Instant) -> Option<MutexGuard<'static, Vec<Entry>>> {
    loop {
        match OPEN.try_lock() {
            Ok(open) => return Some(open),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(TRY_AGAIN),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

impl Entry {
    fn mark(&self) {
        // Without the mark (the system refuses the lock) others that end now may leave the name to the sweep.
        let _ = file::mark_leaving(&self.file, self.member);
    }

    /// False if somebody else has the gate.
    fn leave(&self) -> bool {
        if self.is_left.load(Ordering::Relaxed) {
            return true;
        }
        match file::try_gate(&self.file) {
            Ok(None) => return false,
            Ok(Some(gate)) if !file::has_other_members(&self.file) => {
                file::remove_name(&self.file, self.path.as_c_str());
                std::mem::forget(gate);
            }
            // Others stay, or the system refuses the lock.
            Ok(Some(_)) | Err(_) => {}
        }
        self.is_left.store(true, Ordering::Relaxed);
        true
    }
}
