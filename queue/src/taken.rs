//! An item that was taken and is read in place.

use crate::bytes;
use crate::error::Error;
use crate::layout::Attached;
use crate::parcel::Parcel;
use crate::put::Wait;
use std::ops::Deref;
use tarragon_transport::agent::AgentRecord;
use tarragon_transport::ring::cell::INLINE_MAX;

/// An item in the caller's hands, as bytes in place: those of a `Vec<u8>`, a `String` or a number as they are, those of
/// another type as postcard encodes it. Its memory goes back when it is dropped, in any thread.
pub struct ItemRef<'q> {
    queue: &'q Attached,
    pub(crate) parcel: Parcel,
    /// If the item is in a block: the record that this is held in.
    record: Option<&'q AgentRecord>,
}

impl<'q> ItemRef<'q> {
    /// No item yet.
    #[inline(always)]
    pub(crate) fn none(queue: &'q Attached) -> Self {
        Self { queue, parcel: Parcel::new(), record: None }
    }

    /// Takes the next item.
    #[inline(never)]
    pub(crate) fn take(&mut self, wait: Wait) -> Result<(), Error> {
        if let Some(far) = &self.queue.far {
            return far.get(wait, |item| self.copy(item));
        }
        let record = self.queue.take(wait, &mut self.parcel)?;
        self.record = self.parcel.block.is_some().then_some(record);
        // Checked here, so that reading it cannot fail.
        self.look().map(drop)
    }

    /// Makes it these bytes, in memory of this process's own.
    fn copy(&mut self, item: &[u8]) -> Result<(), Error> {
        if item.len() <= INLINE_MAX {
            self.parcel.item.resize(item.len());
            self.parcel.item.bytes_mut().copy_from_slice(item);
            return Ok(());
        }
        let agent = self.queue.segment.agent()?;
        let len = item.len() as u64;
        let mut held = self.queue.view().allocate_now(&agent, len).map_err(Error::of_heap)?;
        let written = bytes::writable(&self.queue.segment, &mut held, len);
        let written = written.map(|into| into.copy_from_slice(item));
        self.parcel.block = Some((held, len));
        self.record = Some(agent.record);
        written
    }

    /// Its bytes, 64-byte aligned if there are more than fit into a cell (112).
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        if self.record.is_none() {
            return self.parcel.item.bytes();
        }
        self.look().expect("it was looked at when it was taken")
    }

    fn look(&self) -> Result<&[u8], Error> {
        match &self.parcel.block {
            None => Ok(self.parcel.item.bytes()),
            Some((held, len)) => bytes::readable(&self.queue.segment, held, *len),
        }
    }

    fn give_back(&mut self) {
        if let (Some((held, _)), Some(record)) = (self.parcel.block.take(), self.record.take()) {
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
        if self.record.is_some() {
            self.give_back();
        }
    }
}
