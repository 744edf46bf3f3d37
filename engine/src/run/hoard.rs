//! What a worker keeps for itself: ready nodes it need not share, until somebody else has nothing to do.
//!
//! Handing every ready node to a deque that others can steal from costs a fence per node. So a worker keeps most of
//! them in a hoard of its own, and shares some. But a body may run for an hour, and what its worker hoards must not
//! wait that long: while a worker is inside a body, others may *raid* its hoard.
//!
//! # Protocol
//! - The owner touches the hoard only between bodies: it sets `inside` before a body (release), and after it clears
//!   `inside`, passes a light fence and reads `raider`; if that is set, it waits until the raider is gone.
//! - A raider sets `raider` (one at a time, by compare-and-swap), passes a heavy fence, and reads `inside` (acquire).
//!   If it is set, the hoard is the raider's until it clears `raider` (release); else it clears it at once.
//!
//! Never both: if the raider saw `inside`, then the owner's clearing of it, and the read of `raider` after that, come
//! after the raider's store, so the owner waits. A thread that dies inside a raid is a bug that takes the process.
#![expect(unsafe_code, reason = "data owned in turn by the worker and a raider")]

use crate::sync::{AtomicBool, AtomicU32, Ordering, WatchedCell, heavy, light};

/// Data of one worker that others may reach while it is inside a body.
#[derive(Default)]
pub(crate) struct Hoard<T> {
    inside: AtomicBool,
    raider: AtomicBool,
    /// What the owner said of its data when it last entered a body; a hint.
    hidden: AtomicU32,
    data: WatchedCell<T>,
}

// SAFETY: the protocol above lets one thread at a time touch `data`.
unsafe impl<T: Send> Sync for Hoard<T> {}

impl<T> Hoard<T> {
    #[cfg(loom)]
    fn new(data: T) -> Self {
        Self {
            inside: AtomicBool::new(false),
            raider: AtomicBool::new(false),
            hidden: AtomicU32::new(0),
            data: WatchedCell::new(data),
        }
    }

    /// The owner's access, between bodies.
    ///
    /// # Safety
    /// The caller is the worker that owns this hoard and is outside of bodies; it does not nest this call.
    #[inline(always)]
    pub(crate) unsafe fn own<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: outside of bodies the hoard is the owner's, and calls do not nest.
        self.data.with_mut(|data| f(unsafe { &mut *data }))
    }

    /// The owner changes its hint, between bodies.
    #[inline]
    pub(crate) fn say(&self, hidden: u32) {
        self.hidden.store(hidden, Ordering::Release);
    }

    /// The owner goes into a body; `hidden` says how much it leaves behind, in its own terms (0: nothing).
    #[inline(always)]
    pub(crate) fn enter(&self, hidden: u32) {
        self.hidden.store(hidden, Ordering::Relaxed);
        self.inside.store(true, Ordering::Release);
    }

    /// The owner comes out of a body; waits for a raid under way (microseconds).
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.inside.store(false, Ordering::Relaxed);
        light();
        if self.raider.load(Ordering::Acquire) {
            self.wait_for_raider();
        }
    }

    #[cold]
    fn wait_for_raider(&self) {
        while self.raider.load(Ordering::Acquire) {
            #[cfg(not(loom))]
            std::thread::yield_now();
            #[cfg(loom)]
            loom::thread::yield_now();
        }
    }

    /// What the owner left behind when it last entered a body, or what the last raid left; it may be out of date.
    #[inline]
    pub(crate) fn hint(&self) -> u32 {
        self.hidden.load(Ordering::Acquire)
    }

    /// Another worker's access while the owner is inside a body; `None` if it is not, or somebody else is raiding.
    /// `f` also gives the hint that is true afterwards.
    pub(crate) fn raid<R>(&self, f: impl FnOnce(&mut T) -> (R, u32)) -> Option<R> {
        if self.raider.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return None;
        }
        heavy();
        let mut result = None;
        if self.inside.load(Ordering::Acquire) {
            // SAFETY: the owner is inside a body and will wait for `raider` before it touches the data again.
            let (taken, hint) = self.data.with_mut(|data| f(unsafe { &mut *data }));
            self.hidden.store(hint, Ordering::Relaxed);
            result = Some(taken);
        }
        self.raider.store(false, Ordering::Release);
        result
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;

    /// The owner works between two bodies while another raids: no moment belongs to both (loom's cell checks), and
    /// every item is taken once.
    #[test]
    fn loom_owner_and_raider_take_turns() {
        loom::model(|| {
            let hoard = Arc::new(Hoard::new(vec![1u32, 2]));
            hoard.enter(2);
            let raider = {
                let hoard = Arc::clone(&hoard);
                loom::thread::spawn(move || hoard.raid(|items| (items.pop(), items.len() as u32)).flatten())
            };
            hoard.leave();
            // SAFETY: this thread owns the hoard and is outside of bodies.
            let mine = unsafe { hoard.own(|items| items.pop()) };
            hoard.enter(1);
            let theirs = raider.join().expect("the raider ends");
            hoard.leave();
            // SAFETY: as above.
            let left = unsafe { hoard.own(std::mem::take) };
            let mut all: Vec<u32> = mine.into_iter().chain(theirs).chain(left).collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2]);
        });
    }
}
