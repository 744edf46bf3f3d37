//! SIGINT and SIGTERM: once to stop in good order, twice to stop at once.
//!
//! The first signal cancels all runs and lets none start any more; the program goes on, sees its tasks cancelled, and
//! reports. The second ends it as if nobody had cared; then the supervisor ends what is left within a moment. After
//! SIGTERM the program has [`REPORT_MAX`] to end by itself once nothing runs, and is ended then.
//!
//! Who takes them, whose handlers are left alone, and what goes before the end, is [`tarragon_transport::signals`]'
//! matter. The office attends to them once processes are started: a program without processes simply ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tarragon_transport::signals::{Ending, end};

/// How long a program may report after SIGTERM.
const REPORT_MAX: Duration = Duration::from_secs(2);

/// A first signal came: nothing starts any more.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether nothing may start any more.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// A signal came, and runs are under way or not; returns if they are to be cancelled.
pub(super) fn came(signal: Ending, is_busy: bool) {
    let again = INTERRUPTED.swap(true, Ordering::AcqRel);
    if again || !is_busy {
        end(signal);
    }
}

/// All that ran has ended after SIGTERM: the program may report, and ends.
pub(super) fn terminate_soon() {
    let _ = std::thread::Builder::new().name("tarragon-end".to_string()).spawn(|| {
        std::thread::sleep(REPORT_MAX);
        end(Ending::Terminate);
    });
}
