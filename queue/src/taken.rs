//! An item that was taken and is read in place.

use crate::bytes;
use crate::encoding::decode;
use crate::error::Error;
use crate::get::Got;
use crate::layout::Attached;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use tarragon_transport::agent::AgentRecord;

/// An item in the caller's hands, as bytes in place: those of a `Vec<u8>`, a `String` or a number as they are, those of
/// another type as postcard encodes it. Its memory goes back when it is dropped, in any thread.
pub struct ItemRef<'q> {
    queue: &'q Attached,
    record: &'q AgentRecord,
    got: Got,
}

impl<'q> ItemRef<'q> {
    pub(crate) fn new(queue: &'q Attached, got: Got, record: &'q AgentRecord) -> Result<Self, Error> {
        let item = Self { queue, record, got };
        // Checked here, so that reading it cannot fail.
        item.look()?;
        Ok(item)
    }

    /// Its bytes, 64-byte aligned if there are more than fit into a cell (112).
    pub fn bytes(&self) -> &[u8] {
        self.look().expect("it was looked at when it was made")
    }

    #[inline(always)]
    fn look(&self) -> Result<&[u8], Error> {
        match &self.got.block {
            None => Ok(self.got.item.bytes()),
            Some((held, len)) => bytes::readable(&self.queue.segment, held, *len),
        }
    }

    /// The item itself.
    #[inline(always)]
    pub(crate) fn decode<T: DeserializeOwned + 'static>(self) -> Result<T, Error> {
        decode(self.bytes())
    }
}

impl Deref for ItemRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for ItemRef<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some((held, _)) = self.got.block.take() {
            self.queue.segment.free(self.record, held);
            self.queue.view().control.space.ring();
        }
    }
}
