//! A payload in a block of the world's segment, while its receiver looks at it.
#![expect(unsafe_code, reason = "bytes of a mapping are reached by pointers")]

use crate::agent::Agent;
use crate::heap::Held;
use crate::segment::Segment;

/// A block that came with a message: held by this thread, and freed when this goes.
pub(super) struct Payload<'s> {
    segment: &'s Segment,
    agent: &'s Agent<'s>,
    held: Held,
    bytes: u64,
}

impl<'s> Payload<'s> {
    /// Takes the block at `offset`, whose first `bytes` bytes are the payload, from who published it. `None` if
    /// there is no such block.
    pub(super) fn take(agent: &'s Agent<'s>, offset: u64, bytes: u64) -> Option<Payload<'s>> {
        let segment = agent.segment;
        if segment.block_bytes(offset)? < bytes || segment.read(offset, bytes).is_null() {
            return None;
        }
        let held = segment.hold(agent, offset).ok()?;
        Some(Payload { segment, agent, held, bytes })
    }

    /// The payload, in place.
    pub(super) fn bytes(&self) -> &[u8] {
        let from = self.segment.read(self.held.block.offset, self.bytes);
        assert!(!from.is_null(), "what was inside when the block was taken is inside");
        // SAFETY: `Segment::read` vouches that so many bytes are mapped there while the segment is borrowed. Nobody
        // writes them: the sender stopped before it published the block, and the block is this thread's until freed.
        unsafe { std::slice::from_raw_parts(from, self.bytes as usize) }
    }
}

impl Drop for Payload<'_> {
    fn drop(&mut self) {
        self.segment.free(self.agent.record, self.held);
    }
}
