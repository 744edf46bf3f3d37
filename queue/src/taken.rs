//! An item that was taken and is read in place.

use crate::bytes;
use crate::error::Error;
use crate::get::Got;
use crate::layout::Attached;
use crate::put::Wait;
use std::ops::Deref;
use tarragon_transport::agent::AgentRecord;
use tarragon_transport::heap::Held;
use tarragon_transport::ring::cell::Item;

/// An item in the caller's hands, as bytes in place: those of a `Vec<u8>`, a `String` or a number as they are, those of
/// another type as postcard encodes it. Its memory goes back when it is dropped, in any thread.
pub struct ItemRef<'q> {
    queue: &'q Attached,
    /// What was in the cell.
    pub(crate) item: Item,
    /// If the item is in a block: that, its length, and the record that it is held in.
    block: Option<(Held, u64, &'q AgentRecord)>,
}

impl<'q> ItemRef<'q> {
    /// No item yet.
    #[inline(always)]
    pub(crate) fn none(queue: &'q Attached) -> Self {
        Self { queue, item: Item::default(), block: None }
    }

    /// Takes the next item.
    #[inline(never)]
    pub(crate) fn take(&mut self, wait: Wait) -> Result<(), Error> {
        let mut got = Got { item: &mut self.item, block: None };
        let record = self.queue.take(wait, &mut got)?;
        self.block = got.block.map(|(held, len)| (held, len, record));
        // Checked here, so that reading it cannot fail.
        self.look().map(drop)
    }

    /// Its bytes, 64-byte aligned if there are more than fit into a cell (112).
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        if self.block.is_none() {
            return self.item.bytes();
        }
        self.look().expect("it was looked at when it was taken")
    }

    fn look(&self) -> Result<&[u8], Error> {
        match &self.block {
            None => Ok(self.item.bytes()),
            Some((held, len, _)) => bytes::readable(&self.queue.segment, held, *len),
        }
    }

    fn give_back(&mut self) {
        if let Some((held, _, record)) = self.block.take() {
            self.queue.segment.free(record, held);
            self.queue.view().control.space.ring();
        }
    }
}

impl Deref for ItemRef<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for ItemRef<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.block.is_some() {
            self.give_back();
        }
    }
}
