//! How a rank's threads sleep until the network, or another thread, has something for them.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::Ucx;
use super::worker::{self, Armed};
use crate::doorbell::spin;
use crate::fabric::FabricError;

/// The longest sleep without a look, in milliseconds.
const NAP_MS: u64 = 2000;
/// Looks in succession that find the library busy and move nothing before who wants to sleep does so all the same.
const BUSY_MAX: u32 = 64;
/// How long then, in microseconds: twice as long each time, from 1 to so many. Nothing wakes it but other threads.
const BUSY_NAP_US_MAX: u64 = 2048;
/// How long a library lets sleep that cannot wake who sleeps, in milliseconds.
const BLIND_NAP_MS: u64 = 10;

/// Who sleeps.
pub(super) struct Sleepers {
    /// Held by the thread that sleeps on the library's descriptor.
    poller: Mutex<()>,
    /// Looks of it in succession that found the library busy and moved nothing.
    busy: AtomicU32,
    /// It is about to sleep, or sleeps: whoever uses the library wakes it, since the library may want a look.
    is_polling: AtomicBool,
    /// Wakes it.
    bell: std::os::fd::OwnedFd,
    /// Who waits for the poller, or for a thread that delivers, sleeps here.
    turn: Mutex<()>,
    others: Condvar,
    others_count: AtomicUsize,
    /// Counts the times that handlers ran.
    deliveries: AtomicU64,
}

impl Sleepers {
    pub(super) fn new() -> Result<Sleepers, FabricError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            FabricError::Network { verb: "make an event descriptor", why: error.to_string() }
        })?;
        Ok(Sleepers {
            poller: Mutex::new(()),
            busy: AtomicU32::new(0),
            is_polling: AtomicBool::new(false),
            bell,
            turn: Mutex::new(()),
            others: Condvar::new(),
            others_count: AtomicUsize::new(0),
            deliveries: AtomicU64::new(0),
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
        self.deliveries.fetch_add(1, Ordering::SeqCst);
        self.nudge();
        self.wake_others();
    }

    fn wake_others(&self) {
        if self.others_count.load(Ordering::SeqCst) > 0 {
            // Who has found nothing new sleeps before this goes on.
            drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
            self.others.notify_all();
        }
    }
}

impl Ucx {
    /// How often handlers have run.
    pub(in crate::fabric) fn deliveries(&self) -> u64 {
        self.sleepers.deliveries.load(Ordering::SeqCst)
    }

    /// Waits until there is something to deliver, more was delivered than `seen`, or `timeout` is over: spins for about
    /// what a wake-up costs, then sleeps.
    pub(in crate::fabric) fn sleep(&self, timeout: Duration, seen: u64) {
        let is_new = || self.deliveries() != seen;
        if self.spins {
            let until = Instant::now().checked_add(timeout);
            if spin(until, &mut || is_new() || self.has_work()) {
                return;
            }
        }
        self.sleep_unless(timeout, is_new);
    }

    /// Sleeps until the network has something or another thread has delivered, unless `is_new`: what other threads do
    /// is asked of it once they can see that this one sleeps.
    pub(in crate::fabric) fn sleep_unless(&self, timeout: Duration, is_new: impl Fn() -> bool) {
        let timeout = timeout.min(Duration::from_millis(NAP_MS));
        let sleepers = &self.sleepers;
        sleepers.others_count.fetch_add(1, Ordering::SeqCst);
        let turn = sleepers.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The poller rises before it takes `turn`: either it is found gone here, or it wakes who waits here.
        let poller = match sleepers.poller.try_lock() {
            Ok(poller) => poller,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                if !is_new() {
                    drop(sleepers.others.wait_timeout(turn, timeout));
                }
                sleepers.others_count.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        };
        drop(turn);
        sleepers.others_count.fetch_sub(1, Ordering::SeqCst);
        sleepers.is_polling.store(true, Ordering::SeqCst);
        self.poll(timeout, is_new);
        sleepers.is_polling.store(false, Ordering::SeqCst);
        drop(poller);
        sleepers.wake_others();
    }

    /// Whether the poller may sleep, for how long, and whether the library wakes it. One that is busy for long is let
    /// alone for a while: what it waits for may never come, and no core is to burn for it.
    fn prepare(&self, timeout: Duration, is_new: impl Fn() -> bool) -> Option<(Armed, Duration)> {
        let mut engine = self.lock();
        let has_moved = engine.pump();
        if is_new() || engine.is_ready() {
            return None;
        }
        let armed = engine.arm();
        let before = if has_moved { 0 } else { self.sleepers.busy.load(Ordering::Relaxed) };
        let busy = if armed == Armed::Busy { before.saturating_add(1) } else { 0 };
        // The poller alone counts.
        self.sleepers.busy.store(busy, Ordering::Relaxed);
        let nap = match armed {
            Armed::Yes => return Some((armed, timeout)),
            Armed::Busy if before < BUSY_MAX => return None,
            Armed::Busy => Duration::from_micros(1 << (before - BUSY_MAX).min(BUSY_NAP_US_MAX.ilog2())),
            Armed::No => Duration::from_millis(BLIND_NAP_MS),
        };
        Some((armed, timeout.min(nap)))
    }

    fn poll(&self, timeout: Duration, is_new: impl Fn() -> bool) {
        let Some((armed, timeout)) = self.prepare(timeout, is_new) else {
            std::thread::yield_now();
            return;
        };
        let bell = self.sleepers.bell.as_fd();
        let events = worker::borrow(self.events, self);
        let mut fds = [PollFd::from_borrowed_fd(bell, PollFlags::IN), PollFd::new(&events, PollFlags::IN)];
        let count = if armed == Armed::Yes { 2 } else { 1 };
        let time = rustix::event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()) as _,
        };
        // Interrupted or not, the caller looks again.
        let _ = poll(&mut fds[..count], Some(&time));
        // Empty means that nobody rang.
        let _ = rustix::io::read(bell, &mut [0_u8; 8]);
    }
}
