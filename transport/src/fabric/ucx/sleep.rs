//! How a rank's threads sleep until the network, or another thread, has something for them.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{Ucx, worker};
use crate::doorbell::spin;
use crate::fabric::FabricError;

/// The longest sleep without a look, in milliseconds.
const NAP_MS: u64 = 500;

/// Who sleeps.
pub(super) struct Sleepers {
    /// Held by the thread that sleeps on the library's descriptor.
    poller: Mutex<()>,
    /// It is about to sleep, or sleeps: whoever uses the library wakes it, since the library may want a look.
    is_polling: AtomicBool,
    /// Wakes it.
    bell: std::os::fd::OwnedFd,
    /// Counts the times that handlers ran, or the poller rose.
    turns: Mutex<u64>,
    others: Condvar,
    others_count: AtomicUsize,
}

impl Sleepers {
    pub(super) fn new() -> Result<Sleepers, FabricError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            FabricError::Network { verb: "make an event descriptor", why: error.to_string() }
        })?;
        Ok(Sleepers {
            poller: Mutex::new(()),
            is_polling: AtomicBool::new(false),
            bell,
            turns: Mutex::new(0),
            others: Condvar::new(),
            others_count: AtomicUsize::new(0),
        })
    }

    /// This thread has used the library: the one that sleeps on its descriptor must look again.
    pub(super) fn nudge(&self) {
        if self.is_polling.load(Ordering::SeqCst) {
            // Full means that it is rung already.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Handlers have run: others may wait for what they did.
    pub(super) fn delivered(&self) {
        self.nudge();
        self.wake_others();
    }

    fn wake_others(&self) {
        if self.others_count.load(Ordering::SeqCst) > 0 {
            *self.turns.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.others.notify_all();
        }
    }
}

impl Ucx {
    /// Waits until there is something to deliver, another thread has delivered, or `timeout` is over: spins for about
    /// what a wake-up costs, then sleeps.
    pub(in crate::fabric) fn sleep(&self, timeout: Duration) {
        if self.spins {
            let until = Instant::now().checked_add(timeout);
            if spin(until, &mut || self.has_work()) {
                return;
            }
        }
        self.sleep_for(timeout);
    }

    /// Sleeps until the network has something or another thread has delivered.
    pub(in crate::fabric) fn sleep_for(&self, timeout: Duration) {
        let timeout = timeout.min(Duration::from_millis(NAP_MS));
        let sleepers = &self.sleepers;
        sleepers.others_count.fetch_add(1, Ordering::SeqCst);
        let turns = sleepers.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // The poller rises before it takes `turns`: either it is found gone here, or it wakes who waits here.
        let poller = match sleepers.poller.try_lock() {
            Ok(poller) => poller,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                let waited = sleepers.others.wait_timeout(turns, timeout);
                drop(waited);
                sleepers.others_count.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        };
        drop(turns);
        sleepers.others_count.fetch_sub(1, Ordering::SeqCst);
        sleepers.is_polling.store(true, Ordering::SeqCst);
        self.poll(timeout);
        sleepers.is_polling.store(false, Ordering::SeqCst);
        drop(poller);
        sleepers.wake_others();
    }

    fn poll(&self, timeout: Duration) {
        {
            let mut engine = self.lock();
            engine.pump();
            if engine.is_ready() || !engine.arm() {
                drop(engine);
                std::thread::yield_now();
                return;
            }
        }
        let bell = self.sleepers.bell.as_fd();
        let events = worker::borrow(self.events, self);
        let mut fds = [PollFd::new(&events, PollFlags::IN), PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        let time = rustix::event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()) as _,
        };
        // Interrupted or not, the caller looks again.
        let _ = poll(&mut fds, Some(&time));
        // Empty means that nobody rang.
        let _ = rustix::io::read(bell, &mut [0_u8; 8]);
    }
}
