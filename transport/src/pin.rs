//! A reader's hold on a block in place.
//!
//! A pin is a word in the reader's agent record that holds the block's offset. The reader stores it, passes a full
//! fence, and looks whether the block is still published; if not, it takes the pin back and starts over. Who
//! unpublishes a block retires it; before a retired block is freed, all pins of all living agents are looked through,
//! after a full fence. The reader's fence costs it nothing where the reclaimer can run one on all cores (`fence`);
//! readers are many, and a reclaimer looks once for many blocks. So either the reader sees that the block is no longer
//! published, or the reclaimer sees the pin. Pins of the dead do not count: recovery zeroes them, and a reclaimer that
//! finds memory short asks who lives.
//!
//! *Source*: Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects" (2004).

use crate::agent::Agent;
use crate::segment::Segment;
use crate::sync::{AtomicU64, Ordering, fence};

/// Pins one agent can have at once; beyond, readers must copy.
pub const PINS_MAX: usize = 1024;

/// A pin. Dropping it lets go; may be dropped by any thread.
pub struct Pin<'s> {
    slot: &'s AtomicU64,
}

impl<'s> Agent<'s> {
    /// Pins the block at `offset`; the caller must look *afterwards* whether it is still published. `None`: too many.
    #[inline(always)]
    pub fn pin(&self, offset: u64) -> Option<Pin<'s>> {
        let slot = &self.record.pins[self.local.pin_next.get() as usize % PINS_MAX];
        let slot = if slot.load(Ordering::Relaxed) == 0 { slot } else { self.find_free_pin()? };
        announce(slot, offset, self.segment.is_light);
        Some(Pin { slot })
    }

    /// Another pin that is free; the next search begins there. Raises `pins_high` before such a pin is used, so the
    /// fence in `announce` shows both to reclaimers. Stays low while it can: reclaimers look through all below.
    #[cold]
    fn find_free_pin(&self) -> Option<&'s AtomicU64> {
        let pins = &self.record.pins;
        let high = self.record.pins_high.load(Ordering::Relaxed).min(PINS_MAX as u64 - 1) as usize;
        let start = self.local.pin_next.get() as usize;
        let mut around = (0..=high).map(|step| (start + step) % (high + 1));
        let free = around.find(|&index| pins[index].load(Ordering::Relaxed) == 0);
        let found =
            free.or_else(|| (high + 1..PINS_MAX).find(|&it| pins[it].load(Ordering::Relaxed) == 0))?;
        if found > high {
            self.record.pins_high.store(found as u64, Ordering::Relaxed);
        }
        self.local.pin_next.set(found as u32);
        Some(&pins[found])
    }
}

impl Drop for Pin<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        withdraw(self.slot);
    }
}

impl Segment {
    /// The offsets that living agents have pinned, sorted, into `into`. Call it when the blocks in question are
    /// unpublished. `ask_who_lives` costs a system call per process with pins.
    pub(crate) fn pinned(&self, into: &mut Vec<u64>, ask_who_lives: bool) {
        into.clear();
        heavy(self.is_light);
        let mut lives = (u32::MAX, true);
        for (id, member, record) in self.agents() {
            let before = into.len();
            let high = record.pins_high.load(Ordering::Relaxed).min(PINS_MAX as u64 - 1) as usize;
            collect(&record.pins[..=high], into);
            if ask_who_lives && into.len() > before {
                if lives.0 != member {
                    lives = (member, !self.is_dead(id));
                }
                into.truncate(if lives.1 { into.len() } else { before });
            }
        }
        into.sort_unstable();
    }
}

/// The reader's half of the protocol: what it loads afterwards is not older than the pin.
#[inline(always)]
pub(crate) fn announce(slot: &AtomicU64, offset: u64, is_light: bool) {
    #[cfg(not(loom))]
    if is_light {
        slot.store(offset, Ordering::Relaxed);
        return std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
    let _ = is_light;
    slot.store(offset, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// The reclaimer's fence. The kernel cannot refuse what it granted when the segment was mapped; if it does all the
/// same, blocks may be freed under readers' hands, and ending is better.
pub(crate) fn heavy(is_light: bool) {
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    assert!(!is_light || crate::fence::all_processes(), "membarrier worked before");
    let _ = is_light;
}

/// Lets go. Release: pairs with the load in `collect`, so that what was read in place was read before it is freed.
#[inline(always)]
pub(crate) fn withdraw(slot: &AtomicU64) {
    slot.store(0, Ordering::Release);
}

/// The reclaimer's half: the pins there are. It has passed a full fence after the blocks were unpublished.
pub(crate) fn collect(pins: &[AtomicU64], into: &mut Vec<u64>) {
    into.extend(pins.iter().map(|it| it.load(Ordering::Acquire)).filter(|offset| *offset != 0));
}

#[cfg(all(test, loom))]
mod models {
    use super::{announce, collect, withdraw};
    use crate::sync::{AtomicU64, Ordering, fence};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    /// A root, a reader's pin, a block; loom fails if the block is freed while it is read.
    struct World {
        root: AtomicU64,
        pins: [AtomicU64; 1],
        block: UnsafeCell<u64>,
    }

    fn read(world: &World, pin: &AtomicU64) {
        if world.root.load(Ordering::Acquire) != 7 {
            return;
        }
        announce(pin, 7, false);
        if world.root.load(Ordering::Acquire) == 7 {
            world.block.with(|_| ());
        }
        withdraw(pin);
    }

    /// Unpublishes the block, and frees it if nobody pins it.
    fn retire(world: &World) {
        world.root.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        let mut pinned = Vec::new();
        collect(&world.pins, &mut pinned);
        if pinned.is_empty() {
            world.block.with_mut(|_| ());
        }
    }

    #[test]
    fn loom_a_pinned_block_is_not_freed() {
        loom::model(|| {
            let pins = [AtomicU64::new(0)];
            let world = Arc::new(World { root: AtomicU64::new(7), pins, block: UnsafeCell::new(0) });
            let shared = Arc::clone(&world);
            let reader = loom::thread::spawn(move || read(&shared, &shared.pins[0]));
            retire(&world);
            reader.join().unwrap();
        });
    }
}
