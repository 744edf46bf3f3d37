//! What a rank sleeps at, and its peers wake it with.
//!
//! The sleeper stores 1 to `sleeping`, passes a full fence, and looks for work a last time before it sleeps on
//! `rings`. Who has made work passes a full fence and looks at `sleeping`; if set, it clears it, counts `rings` up and
//! wakes all. So either the sleeper sees the work or the ringer sees the sleeper. Any number of rings before the
//! sleeper runs cost one system call. A ringer killed between its work and the wake leaves the sleeper to find the work
//! after [`SLEEP_MS_MAX`].

use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::sync::{AtomicU32, Ordering, fence};

/// The longest sleep without looking, in milliseconds.
const SLEEP_MS_MAX: u64 = 250;
/// How long to look for work before sleeping: about what a wake-up costs.
const SPIN: Duration = Duration::from_micros(20);

/// The bell of a rank.
#[repr(C)]
pub(crate) struct Bell {
    rings: AtomicU32,
    sleeping: AtomicU32,
}

impl Bell {
    /// Wakes who sleeps here. What there is to find must have been stored before.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) == 0 || self.sleeping.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        self.rings.fetch_add(1, Ordering::Release);
        // A wake-up that fails is one that nobody waits for.
        let _ = futex::wake(&self.rings, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Waits until `found` says so, a ring, or `timeout`. `spins` false: without looking long before it sleeps, as is
    /// right when there are more ranks than processors.
    pub(super) fn wait(&self, timeout: Duration, spins: bool, found: impl Fn() -> bool) {
        let begin = Instant::now();
        while spins && begin.elapsed() < SPIN.min(timeout) {
            if found() {
                return;
            }
            std::hint::spin_loop();
        }
        let rings = self.rings.load(Ordering::Acquire);
        self.sleeping.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if found() {
            return;
        }
        let left = timeout.saturating_sub(begin.elapsed()).min(Duration::from_millis(SLEEP_MS_MAX));
        let left = futex::Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        // Rung, timed out, interrupted, or rung before: the caller looks again in each case.
        let _ = futex::wait(&self.rings, futex::Flags::empty(), rings, Some(&left));
    }
}
