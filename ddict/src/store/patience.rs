//! How long to wait for somebody who holds an entry, and when to ask whether he lives.

use super::entry::{Ctl, Entry};
use super::{Store, damaged};
use crate::error::Error;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Turns of a loop before the processor is given to others.
const SPINS: u32 = 128;
/// How often it is asked whether the owner lives.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// After this time an owner that lives, and still has not let go of what takes nanoseconds, is given up: it is
/// stopped, or the memory is damaged.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Of one waiter, over one operation.
#[derive(Default)]
pub(super) struct Patience {
    turns: u32,
    began: Option<Instant>,
    asked: Option<Instant>,
}

impl Patience {
    /// Waits a little for the owner of an entry to let go of it; settles what it left if it is dead.
    #[cold]
    pub(super) fn wait(&mut self, store: &Store, entry: &Entry, seen: Ctl) -> Result<(), Error> {
        self.turns += 1;
        if self.turns < SPINS {
            std::hint::spin_loop();
            return Ok(());
        }
        std::thread::yield_now();
        let now = Instant::now();
        let asked = *self.asked.get_or_insert(now);
        if now.duration_since(asked) < ASK_EVERY {
            return Ok(());
        }
        self.asked = Some(now);
        if store.segment.is_dead(seen.owner()) {
            store.recover();
            // Whoever held it was settled; if the lock is still there, nobody set it: its bits were damaged.
            let _ =
                entry.ctl.compare_exchange(seen.0, seen.unlocked().0, Ordering::AcqRel, Ordering::Relaxed);
        } else if now.duration_since(*self.began.get_or_insert(now)) > WAIT_MAX {
            return Err(damaged("a lock that its owner does not let go of", store.offset_of(entry)));
        }
        Ok(())
    }
}
