//! An item that is written in place, before it is put.

use crate::bytes;
use crate::error::Error;
use crate::layout::{Attached, View};
use crate::put::Wait;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use tarragon_transport::agent::Agent;
use tarragon_transport::heap::Held;

/// Memory of a queue, to be written and then [sent](Loan::send): the item is not copied on its way.
///
/// Its bytes are whatever was there before. Belongs to the thread that asked for it; dropped, it goes back.
pub struct Loan<'q> {
    queue: &'q Attached,
    /// `None` once it was sent.
    held: Option<Held>,
    len: u64,
    not_send: PhantomData<*const ()>,
}

impl<'q> Loan<'q> {
    pub(crate) fn new(queue: &'q Attached, len: u64) -> Result<Self, Error> {
        let agent = queue.segment.agent()?;
        let held = queue.view().allocate(&agent, len, Wait::Ever)?;
        Ok(Self { queue, held: Some(held), len, not_send: PhantomData })
    }

    /// Puts the item. Waits while the queue is full.
    ///
    /// Costs the same for any length.
    ///
    /// # Errors
    /// `Closed`, `Destroyed`, `Segment`, `Damaged`; the memory goes back then.
    pub fn send(self) -> Result<(), Error> {
        self.send_within(Wait::Ever)
    }

    /// Like [`send`](Self::send), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `send`; `Full` and `Memory` (for cells) if the time is over.
    pub fn send_timeout(self, timeout: Duration) -> Result<(), Error> {
        self.send_within(Wait::Until(Instant::now() + timeout))
    }

    fn send_within(mut self, wait: Wait) -> Result<(), Error> {
        let agent = self.agent()?;
        let held = self.held.take().ok_or(Error::Damaged)?;
        self.queue.put_held(&agent, held, self.len, wait).map_err(|(error, held)| {
            self.held = Some(held);
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

    fn deref(&self) -> &[u8] {
        let held = self.held.as_ref().expect("a loan that was sent is gone");
        bytes::readable(&self.queue.segment, held, self.len)
            .expect("the block was allocated with this length")
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let held = self.held.as_mut().expect("a loan that was sent is gone");
        bytes::writable(&self.queue.segment, held, self.len)
            .expect("the block was allocated with this length")
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        // Without an agent (the thread is ending) the block goes back with the thread's other things.
        if let (Some(held), Ok(agent)) = (self.held.take(), self.agent()) {
            self.view().free(&agent, held);
        }
    }
}
