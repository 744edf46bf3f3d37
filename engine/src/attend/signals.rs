//! SIGINT and SIGTERM: once to stop in good order, twice to stop at once.
//!
//! The first signal cancels all runs and lets none start any more; the program goes on, sees its tasks cancelled, and
//! reports. The second ends it as if nobody had cared; then the supervisor ends what is left within a moment. After
//! SIGTERM the program has [`REPORT_MAX`] to end by itself once nothing runs, and is ended then.
//!
//! Only signals with their default action are taken, and only once processes are started: a program that handles them
//! itself, or is to ignore them, keeps its ways, and one without processes simply ends.

use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{emulate_default_handler, pipe};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a program may report after SIGTERM.
const REPORT_MAX: Duration = Duration::from_secs(2);

/// A first signal came: nothing starts any more.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static TAKEN: Mutex<Option<[UnixStream; 2]>> = Mutex::new(None);

/// Whether nothing may start any more.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Takes the signals that nobody else has; the streams get a byte for each SIGINT, and each SIGTERM.
pub(super) fn take() -> Option<[UnixStream; 2]> {
    let mut taken = TAKEN.lock();
    if taken.is_none() {
        let int = one(SIGINT)?;
        let term = one(SIGTERM)?;
        *taken = Some([int, term]);
    }
    let [int, term] = taken.as_ref()?;
    Some([int.try_clone().ok()?, term.try_clone().ok()?])
}

/// A stream that gets a byte for each of these signals; one that gets none if the signal is somebody else's.
fn one(signal: i32) -> Option<UnixStream> {
    let (read, write) = UnixStream::pair().ok()?;
    read.set_nonblocking(true).ok()?;
    if is_default(signal) {
        pipe::register(signal, write).ok()?;
    } else {
        // Kept open, so that the end of it is no signal.
        std::mem::forget(write);
    }
    Some(read)
}

/// Whether the signal has its default action.
fn is_default(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let has = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
        mask >> (signal - 1) & 1 == 1
    };
    !has("SigCgt:") && !has("SigIgn:")
}

/// A signal came, and runs are under way or not; true if they are to be cancelled.
pub(super) fn came(terminates: bool, is_busy: bool) -> bool {
    let again = INTERRUPTED.swap(true, Ordering::AcqRel);
    if again || !is_busy {
        end(terminates);
    }
    true
}

/// All that ran has ended after SIGTERM: the program may report, and ends.
pub(super) fn terminate_soon() {
    let _ = std::thread::Builder::new().name("tarragon-end".to_string()).spawn(|| {
        std::thread::sleep(REPORT_MAX);
        end(true);
    });
}

/// Ends the program as the signal would have.
fn end(terminates: bool) {
    // It does not return but where the signal is blocked.
    let _ = emulate_default_handler(if terminates { SIGTERM } else { SIGINT });
}
