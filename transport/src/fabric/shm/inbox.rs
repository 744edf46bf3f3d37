//! The receiving side of a rank's lanes: takes messages out, checks them, and hands them to their handlers.

use std::sync::TryLockError;
use std::time::Duration;

use super::payload::Payload;
use super::{INLINE_BYTES_MAX, MEMORY_LOOK_MS, Shm};
use crate::agent::Agent;
use crate::error::SegmentError;
use crate::fabric::Fabric;
use crate::lane::{Lane, Words};
use crate::message::{Assembly, Carriage, HEADER_WORDS, Header, Malformed, is_handling};
use crate::rank::Rank;
use crate::sync::Ordering;

/// Messages of one lane that are delivered before the next lane has its turn.
const BATCH_MAX: usize = 64;

/// Where this rank is in each of its lanes.
pub(super) struct Inbox {
    sources: Vec<Source>,
}

#[derive(Default)]
struct Source {
    ticket: u64,
    assembly: Assembly,
}

impl Inbox {
    pub(super) fn new(size: u32) -> Inbox {
        Inbox { sources: (0..size).map(|_| Source::default()).collect() }
    }
}

impl Shm {
    pub(in crate::fabric) fn progress(&self, fabric: &Fabric) -> usize {
        if is_handling() {
            return 0;
        }
        let mut inbox = match self.inbox.try_lock() {
            Ok(inbox) => inbox,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return 0,
        };
        self.send_all_kept();
        let sources = inbox.sources.iter_mut().zip(0..);
        let ran = sources.map(|(source, number)| self.take_batch(fabric, source, Rank(number))).sum();
        drop(inbox);
        if ran > 0 {
            self.delivered();
        }
        ran
    }

    /// Says that handlers have run: other threads of this rank may wait for what they did, each for something else.
    pub(in crate::fabric) fn delivered(&self) {
        self.delivered.fetch_add(1, Ordering::SeqCst);
        self.map.line(self.seat).bell.ring_sleepers();
    }

    /// How often handlers have run.
    pub(in crate::fabric) fn deliveries(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// Wakes all threads of this rank that sleep.
    pub(in crate::fabric) fn rouse(&self) {
        self.delivered.fetch_add(1, Ordering::SeqCst);
        self.ring_all(self.seat);
    }

    /// Sleeps until there is something to deliver, or more was delivered than `seen`; spins first if `spins`.
    pub(in crate::fabric) fn sleep(&self, timeout: Duration, seen: u64, spins: bool) {
        let slice = if self.want_room() { Duration::from_millis(MEMORY_LOOK_MS) } else { timeout };
        let is_new = || self.deliveries() != seen;
        self.sleep_at_bell(timeout.min(slice), spins, || is_new() || self.has_work());
    }

    /// Whether `progress` would find something. True while another thread makes progress.
    pub(in crate::fabric) fn has_work(&self) -> bool {
        let inbox = match self.inbox.try_lock() {
            Ok(inbox) => inbox,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                std::thread::yield_now();
                return true;
            }
        };
        let sources = inbox.sources.iter().zip(0..);
        let mut waiting =
            sources.map(|(source, number)| self.lane(Rank(number), self.seat).is_full_at(source.ticket));
        waiting.any(|waits| waits) || self.can_send_kept()
    }

    /// Delivers what has come from one rank, up to a bound.
    fn take_batch(&self, fabric: &Fabric, source: &mut Source, from: Rank) -> usize {
        let lane = self.lane(from, self.seat);
        let first = source.ticket;
        let mut ran = 0;
        while source.ticket - first < BATCH_MAX as u64 {
            let Some(words) = lane.peek(source.ticket) else { break };
            match self.take(fabric, source, &lane, from, &words) {
                Ok(Some(delivered)) => ran += usize::from(delivered),
                Ok(None) => break,
                Err(malformed) => fabric.handlers.refuse(malformed),
            }
        }
        if source.ticket != first && lane.take_want() {
            self.ring_all(from);
        }
        ran
    }

    /// Takes one message; its cell is empty afterwards. Returns whether a handler's turn has come; `None` if this
    /// thread cannot take it now, for want of memory for its own record: it stays where it is.
    fn take(
        &self,
        fabric: &Fabric,
        source: &mut Source,
        lane: &Lane<'_>,
        from: Rank,
        words: &Words,
    ) -> Result<Option<bool>, Malformed> {
        let mut release = || {
            lane.release(source.ticket);
            source.ticket += 1;
        };
        let [a, b, c, d, offset, bytes, ..] = *words;
        let header = match Header::decode([a, b, c, d], self.member(from)) {
            Ok(header) => header,
            Err(malformed) => {
                release();
                return Err(malformed);
            }
        };
        if header.carriage == Carriage::Inline {
            release();
            let payload = inline(&header, words)?;
            fabric.deliver(&header, &payload.0[..payload.1]);
            return Ok(Some(true));
        }
        let wrong = Malformed::Length { found: bytes, wanted: header.bytes };
        let agent = self.map.segment.agent();
        if matches!(agent, Err(SegmentError::Full { .. })) {
            return Ok(None);
        }
        let payload = agent.as_ref().ok().and_then(|agent: &Agent<'_>| Payload::take(agent, offset, bytes));
        release();
        let payload = payload.ok_or(wrong)?;
        match header.carriage {
            Carriage::Chunk => match source.assembly.add(header, payload.bytes())? {
                None => return Ok(Some(false)),
                Some((header, whole)) => {
                    drop(payload);
                    fabric.deliver(&header, &whole);
                }
            },
            _ if bytes != header.bytes => return Err(wrong),
            _ => fabric.deliver(&header, payload.bytes()),
        }
        Ok(Some(true))
    }
}

/// The payload in a cell's words, copied out, and how many bytes of it count.
fn inline(header: &Header, words: &Words) -> Result<([u8; INLINE_BYTES_MAX], usize), Malformed> {
    if header.bytes > INLINE_BYTES_MAX as u64 {
        return Err(Malformed::Length { found: INLINE_BYTES_MAX as u64, wanted: header.bytes });
    }
    let mut bytes = [0; INLINE_BYTES_MAX];
    for (to, word) in bytes.chunks_mut(8).zip(&words[HEADER_WORDS..]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok((bytes, header.bytes as usize))
}
