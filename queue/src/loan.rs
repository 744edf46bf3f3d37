//! An item that is written in place, before it is put.

use crate::bytes;
use crate::error::Error;
use crate::layout::{Attached, OPEN, View};
use crate::parcel::{Contents, Parcel};
use crate::put::Wait;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use tarragon_transport::agent::Agent;
use tarragon_transport::ring::cell::INLINE_MAX;

/// Memory of a queue, to be written and then [sent](Loan::send): the item is not copied on its way.
///
/// Its bytes are whatever was there before. Belongs to the thread that asked for it; dropped, it goes back.
pub struct Loan<'q> {
    queue: &'q Attached,
    /// An item that will lie in its cell, so short that copying it costs less than a block; or the block of a long
    /// one, until it was sent.
    parcel: Parcel,
    not_send: PhantomData<*const ()>,
}

impl<'q> Loan<'q> {
    /// For an item that fits into a cell, while the queue is open.
    #[inline(always)]
    pub(crate) fn small(queue: &'q Attached, len: usize) -> Option<Self> {
        if len > INLINE_MAX || queue.view().state() != OPEN {
            return None;
        }
        let mut parcel = Parcel::new();
        parcel.item.resize(len);
        Some(Self { queue, parcel, not_send: PhantomData })
    }

    #[inline(never)]
    pub(crate) fn new(queue: &'q Attached, len: u64) -> Result<Self, Error> {
        let agent = queue.segment.agent()?;
        let held = if queue.far.is_some() {
            // Memory of this process's own, of which others give nothing back.
            queue.view().allocate_now(&agent, len).map_err(Error::of_heap)?
        } else {
            queue.view().check_open()?;
            queue.view().allocate(&agent, len, Wait::Ever)?
        };
        let mut parcel = Parcel::new();
        parcel.block = Some((held, len));
        Ok(Self { queue, parcel, not_send: PhantomData })
    }

    /// Puts the item. Waits while the queue is full.
    ///
    /// Costs the same for any length.
    ///
    /// # Errors
    /// `Closed`, `Destroyed`, `Segment`, `Damaged`; the memory goes back then.
    #[inline(always)]
    pub fn send(self) -> Result<(), Error> {
        if self.parcel.block.is_none() && self.queue.put_quick(self.parcel.item.bytes()) {
            return Ok(());
        }
        self.send_within(Wait::Ever)
    }

    /// Like [`send`](Self::send), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `send`; `Full` and `Memory` (for cells) if the time is over.
    pub fn send_timeout(self, timeout: Duration) -> Result<(), Error> {
        self.send_within(Wait::Until(Instant::now() + timeout))
    }

    #[inline(never)]
    fn send_within(mut self, wait: Wait) -> Result<(), Error> {
        if let Some(far) = &self.queue.far {
            return far.put(wait, |into| {
                into.extend_from_slice(&self);
                Ok(())
            });
        }
        let agent = self.agent()?;
        let Some((held, len)) = self.parcel.block.take() else {
            return self.queue.put_bytes(self.parcel.item.bytes(), wait);
        };
        self.queue.put_held(&agent, held, len, wait).map_err(|(error, held)| {
            self.parcel.block = Some((held, len));
            error
        })
    }

    fn agent(&self) -> Result<Agent<'q>, Error> {
        Ok(self.queue.segment.agent()?)
    }

    fn view(&self) -> View<'q> {
        self.queue.view()
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        let Some((held, len)) = &self.parcel.block else { return self.parcel.item.bytes() };
        bytes::readable(&self.queue.segment, held, *len).expect("the block was allocated with this length")
    }
}

impl DerefMut for Loan<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        let Contents { item, block } = &mut *self.parcel;
        let Some((held, len)) = block else { return item.bytes_mut() };
        bytes::writable(&self.queue.segment, held, *len).expect("the block was allocated with this length")
    }
}

impl Drop for Loan<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.parcel.block.is_some() {
            self.give_back();
        }
    }
}

impl Loan<'_> {
    fn give_back(&mut self) {
        // Without an agent (the thread is ending) the block goes back with the thread's other things.
        if let (Some((held, _)), Ok(agent)) = (self.parcel.block.take(), self.agent()) {
            self.view().free(&agent, held);
        }
    }
}
