//! A reader's hold on a block in place.
//!
//! A pin is a word in the reader's agent record that holds the block's offset. The reader stores it, passes a full
//! fence, and looks whether the block is still published; if not, it takes the pin back and starts over. Who
//! unpublishes a block retires it; before a retired block is freed, all pins of all living agents are looked through,
//! after a full fence. So either the reader sees that the block is no longer published, or the reclaimer sees the pin.
//! Pins of the dead do not count.

use crate::agent::{Agent, AgentRecord};
use crate::sync::AtomicU64;

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
        let _ = offset;
        todo!()
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let _ = (self.slot, std::mem::size_of::<AgentRecord>());
        todo!()
    }
}
