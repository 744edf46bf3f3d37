//! How a porter takes items out, for one response.

use super::Porter;
use crate::bytes;
use crate::error::Error;
use crate::far::message::BATCH_BYTES;
use crate::far::waiting::Batch;
use crate::layout::{DESTROYED, NOT_AT_RING, OPEN, SEALED, Word};
use crate::parcel::Contents;
use std::sync::Arc;

impl Porter {
    /// Items for one response, and their lengths.
    pub(super) fn collect(&mut self, most: u32) -> Result<Option<Batch>, Error> {
        if let Some(item) = self.returned.pop_front() {
            let body = item.bytes().to_vec();
            let lens = vec![body.len() as u64];
            return Ok(Some(Batch { body, lens }));
        }
        let (mut body, mut lens, mut share) = (Vec::new(), Vec::new(), 1);
        if most > 1 {
            let (put, taken) = self.queue.view().counts();
            // What is there is for others as well.
            share = put.saturating_sub(taken) / (1 + self.guests.len() as u64);
        }
        loop {
            let before = body.len();
            match self.take_into(&mut body) {
                Ok(true) => lens.push((body.len() - before) as u64),
                Err(error) if lens.is_empty() => return Err(error),
                Ok(false) | Err(_) => break,
            }
            if lens.len() as u64 >= share.min(u64::from(most)) || body.len() >= BATCH_BYTES {
                break;
            }
        }
        Ok((!lens.is_empty()).then_some(Batch { body, lens }))
    }

    /// Takes an item and appends it; false: there is none now.
    fn take_into(&mut self, body: &mut Vec<u8>) -> Result<bool, Error> {
        let queue = Arc::clone(&self.queue);
        let view = queue.view();
        loop {
            // Before the look: what is put before the closing is found.
            let state = view.state();
            if state == DESTROYED {
                return Err(Error::Destroyed);
            }
            if view.has_item() {
                break;
            }
            match state {
                OPEN => return Ok(false),
                SEALED => return Err(Error::Closed),
                _ if self.holds_any() || view.seal().is_some() => return Ok(false),
                _ => {}
            }
        }
        let agent = queue.segment.agent()?;
        // Before the take: until it is known whose the item is, nobody finds the queue drained.
        agent.announce(Word::Entered as usize, NOT_AT_RING);
        let mut got = Contents::default();
        let taken = view.take_kept(&agent, &mut got);
        let Some((held, len)) = got.block.take() else {
            if let Ok(true) = taken {
                self.is_collecting = true;
                body.extend_from_slice(got.item.bytes());
            }
            self.release();
            return taken;
        };
        self.is_collecting = true;
        let copied = bytes::readable(&queue.segment, &held, len).map(|item| body.extend_from_slice(item));
        view.free(&agent, held);
        copied.map(|()| true)
    }
}
