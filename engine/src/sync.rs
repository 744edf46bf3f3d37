//! Atomics and fences: the standard library's, or loom's when the crate is compiled for model checking.
//!
//! Only the protocols that loom checks (`schedule::ready`, `run::seats`, `run::hoard`) take their atomics from here;
//! everything else uses the standard library directly.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// The frequent side of an asymmetric fence: orders earlier stores before later loads, as seen by a thread that
/// calls [`heavy`]. Costs nothing where the kernel has `membarrier`, a full fence elsewhere.
///
/// *Source*: Dice, Huang, Yang, "Asymmetric Dekker Synchronization" (2001); membarrier(2).
#[inline(always)]
pub(crate) fn light() {
    #[cfg(not(loom))]
    if membarrier::AVAILABLE.load(Ordering::Relaxed) {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        return;
    }
    fence(Ordering::SeqCst);
}

/// The rare side of an asymmetric fence: every thread of this process passes a full fence before this returns.
/// Costs 1-20 µs (an interrupt to each core that runs a thread of the process).
pub(crate) fn heavy() {
    #[cfg(not(loom))]
    if membarrier::AVAILABLE.load(Ordering::Relaxed) && membarrier::all_threads() {
        return;
    }
    fence(Ordering::SeqCst);
}

/// Asks the kernel for `membarrier` once; called before the first worker starts.
///
/// Until it returns, both sides use full fences, which are always right.
pub(crate) fn prepare() {
    #[cfg(not(loom))]
    membarrier::register();
}

#[cfg(not(loom))]
mod membarrier {
    use super::{AtomicBool, Ordering};
    use rustix::thread::{MembarrierCommand, membarrier};
    use std::sync::Once;

    pub(super) static AVAILABLE: AtomicBool = AtomicBool::new(false);
    static ONCE: Once = Once::new();

    pub(super) fn register() {
        ONCE.call_once(|| {
            let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
            if registered && all_threads() {
                AVAILABLE.store(true, Ordering::SeqCst);
            }
        });
    }

    pub(super) fn all_threads() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

/// Says to those who pass often that somebody who came rarely is waiting for something.
///
/// The one who waits announces himself and then looks whether the thing has happened; those who make it happen do so
/// and then look at the notice. A heavy fence on the one side and a light one on the other keep both from missing each
/// other; whoever sees the notice takes the slow way.
#[derive(Default)]
pub(crate) struct Notice(AtomicUsize);

impl Notice {
    /// Changes the notice; the caller looks at the thing itself afterwards.
    pub(crate) fn announce(&self, value: usize) {
        self.0.store(value, Ordering::SeqCst);
        heavy();
    }

    /// Takes a notice back, or changes it for others who wait already.
    pub(crate) fn withdraw(&self, value: usize) {
        self.0.store(value, Ordering::SeqCst);
    }

    /// The notice, read after the thing has been made to happen.
    #[inline(always)]
    pub(crate) fn read(&self) -> usize {
        light();
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_a_notice_is_not_missed() {
        loom::model(|| {
            let notice = Arc::new(Notice::default());
            let happened = Arc::new(AtomicBool::new(false));
            let maker = {
                let (notice, happened) = (Arc::clone(&notice), Arc::clone(&happened));
                loom::thread::spawn(move || {
                    happened.store(true, Ordering::Release);
                    notice.read() != 0
                })
            };
            notice.announce(7);
            let seen = happened.load(Ordering::Acquire);
            let told = maker.join().expect("the maker ends");
            assert!(seen || told, "the waiter sleeps and nobody wakes it");
        });
    }
}

/// A cell that loom can watch: the closure gets a pointer to the contents.
#[cfg(not(loom))]
#[derive(Default)]
pub(crate) struct WatchedCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> WatchedCell<T> {
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell as WatchedCell;
