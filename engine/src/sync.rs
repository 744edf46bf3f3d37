//! Atomics and fences: the standard library's, or loom's when the crate is compiled for model checking.
//!
//! Only the protocols that loom checks (`schedule::ready`, `run::seats`, `run::raid`) take their atomics from here;
//! everything else uses the standard library directly.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

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
#[cfg(not(loom))]
pub(crate) fn prepare() {
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
