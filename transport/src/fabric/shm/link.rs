//! The sending side of a lane: pushes messages whole or in parts, and keeps what handlers sent until there is room.

use std::collections::VecDeque;

use super::Shm;
use crate::agent::Agent;
use crate::copy;
use crate::error::{HeapError, SegmentError};
use crate::fabric::{BACKLOG_BYTES_MAX, FabricError};
use crate::heap::Block;
use crate::heap::entry::Entry;
use crate::lane::{CELL_WORDS, Lane, Words};
use crate::message::{Carriage, HEADER_WORDS, Header};
use crate::rank::Rank;
use crate::sync::Ordering;
use std::sync::atomic::Ordering::Relaxed;

/// What one rank knows of its lane to another.
#[derive(Default)]
pub(super) struct Link {
    /// The next ticket.
    pub(super) ticket: u64,
    /// A thread has pushed a part of a message: nobody else may push before the rest.
    pub(super) busy: bool,
    /// What handlers sent, in order.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// Blocks that the receiver may not have taken yet.
    underway: VecDeque<Underway>,
    underway_bytes: u64,
    /// Why what is kept could not be sent the last time.
    stuck: Option<Pushed>,
}

struct Kept {
    header: Header,
    payload: Vec<u8>,
    /// Bytes of it that were pushed.
    at: u64,
}

/// A block that was published.
struct Underway {
    ticket: u64,
    bytes: u64,
    block: Block,
}

/// How far a push came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pushed {
    /// The message is sent.
    All,
    /// The lane is full, or its share of the heap, until the receiver takes what has this ticket.
    Full { until: u64 },
    /// The heap is full. Nobody rings when it is not any more.
    MemoryFull,
    /// Another thread has its turn; rings when it ends.
    Busy,
}

/// The right to finish a message of which a part was pushed. Given back when it goes, also by a panic.
pub(super) struct Turn<'s> {
    pub(super) shm: &'s Shm,
    pub(super) to: Rank,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shm.link(self.to).busy = false;
        self.shm.ring_all(self.shm.seat);
    }
}

/// Words of an agent's intent: what a dead sender may have left. The first is the lane's number and 1 more, or 0.
pub(super) const INTENT_LANE: usize = 0;
pub(super) const INTENT_TICKET: usize = 1;
pub(super) const INTENT_OFFSET: usize = 2;

impl Link {
    /// Forgets what was kept, and says how many messages that was.
    fn give_up(&mut self) -> usize {
        self.kept_bytes = 0;
        std::mem::take(&mut self.kept).len()
    }

    /// The ticket that must be taken before the next cell can be used, or a block of so many bytes fits into the
    /// lane's share of the heap (one block always does).
    fn obstacle(&mut self, lane: &Lane<'_>, bytes: u64, share: u64) -> Option<u64> {
        if !lane.has_room(self.ticket) {
            return Some(lane.before(self.ticket));
        }
        while let Some(taken) = self.underway.pop_front_if(|first| lane.was_taken(first.ticket)) {
            self.underway_bytes -= taken.bytes;
        }
        let first = self.underway.front()?.ticket;
        (self.underway_bytes + bytes > share).then_some(first)
    }
}

impl Shm {
    /// Sends from inside a handler: now if there is room, else later.
    pub(super) fn post(&self, to: Rank, header: Header, payload: &[u8]) -> Result<(), FabricError> {
        let mut link = self.link(to);
        let mut at = 0;
        if self.send_kept(&mut link, to)? == Pushed::All {
            let pushed = self.push(&mut link, to, &header, payload, &mut at)?;
            if pushed == Pushed::All {
                return Ok(());
            }
            link.stuck = Some(pushed);
        }
        let (bytes, max) = (link.kept_bytes, BACKLOG_BYTES_MAX);
        // The rest of a message of which a part is out must be kept in any case.
        if at == 0 && bytes.saturating_add(header.bytes) > max {
            return Err(FabricError::Backlog { rank: self.member(to), bytes, max });
        }
        link.kept_bytes += header.bytes;
        link.kept.push_back(Kept { header, payload: payload.to_vec(), at });
        self.kept.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Forgets what was kept for a rank, and says whether that was anything.
    pub(super) fn give_up(&self, to: Rank) -> bool {
        let mut link = self.link(to);
        let count = link.give_up();
        self.kept.fetch_sub(count, Relaxed);
        count > 0
    }

    /// Sends what is kept for all who have room.
    pub(super) fn send_all_kept(&self) {
        // Counted with the link locked: who has found something kept there finds it here.
        if self.kept.load(Relaxed) == 0 {
            return;
        }
        for to in (0..self.map.size).map(Rank) {
            let Ok(mut link) = self.links[to.index()].try_lock() else { continue };
            if !link.kept.is_empty() {
                // An error here is that of memory, and comes again when somebody sends or flushes.
                let _ = self.send_kept(&mut link, to);
            }
        }
    }

    /// Whether something is kept for which there is room now.
    pub(super) fn can_send_kept(&self) -> bool {
        self.any_stuck(|lane, stuck| matches!(stuck, Pushed::Full { until } if lane.was_taken(until)))
    }

    /// Says to the receivers of what is kept that this rank is about to sleep. Returns whether something waits for
    /// memory, of which nobody tells.
    pub(super) fn want_room(&self) -> bool {
        self.any_stuck(|lane, stuck| {
            lane.want();
            stuck == Pushed::MemoryFull
        })
    }

    fn any_stuck(&self, mut is_it: impl FnMut(&Lane<'_>, Pushed) -> bool) -> bool {
        let ranks = (0..self.map.size).map(Rank);
        let found = ranks.filter(|&to| {
            // Who has the lock is about to send, and looks after what is kept.
            let Ok(link) = self.links[to.index()].try_lock() else { return false };
            let stuck = link.stuck.filter(|_| !link.kept.is_empty());
            stuck.is_some_and(|stuck| is_it(&self.lane(self.seat, to), stuck))
        });
        found.count() > 0
    }

    /// Sends what is kept as far as there is room.
    pub(super) fn send_kept(&self, link: &mut Link, to: Rank) -> Result<Pushed, FabricError> {
        if link.busy {
            return Ok(Pushed::Busy);
        }
        while let Some(mut kept) = link.kept.pop_front() {
            let pushed = self.push(link, to, &kept.header, &kept.payload, &mut kept.at);
            if let Ok(Pushed::All) = pushed {
                link.kept_bytes = link.kept_bytes.saturating_sub(kept.header.bytes);
                self.kept.fetch_sub(1, Relaxed);
                continue;
            }
            link.kept.push_front(kept);
            link.stuck = pushed.as_ref().ok().copied();
            return pushed;
        }
        Ok(Pushed::All)
    }

    /// Pushes the payload from byte `at` on as far as there is room, and counts `at` up.
    pub(super) fn push(
        &self,
        link: &mut Link,
        to: Rank,
        header: &Header,
        payload: &[u8],
        at: &mut u64,
    ) -> Result<Pushed, FabricError> {
        let lane = self.lane(self.seat, to);
        if payload.len() <= super::INLINE_BYTES_MAX {
            if let Some(until) = link.obstacle(&lane, 0, u64::MAX) {
                return Ok(Pushed::Full { until });
            }
            let (words, count) = inline(header, payload);
            lane.push(link.ticket, &words[..count]);
            link.ticket += 1;
            lane.prefetch(link.ticket);
            self.ring(to);
            return Ok(Pushed::All);
        }
        let agent = match self.map.segment.agent() {
            Ok(agent) => agent,
            // A thread that has none yet needs memory for it, too.
            Err(SegmentError::Full { .. }) if self.has_payloads() => return Ok(Pushed::MemoryFull),
            Err(error) => return Err(error.into()),
        };
        let total = payload.len() as u64;
        while *at < total {
            let bytes = (total - *at).min(self.chunk_bytes());
            if let Some(until) = link.obstacle(&lane, bytes, self.share) {
                return Ok(Pushed::Full { until });
            }
            let chunk = &payload[*at as usize..(*at + bytes) as usize];
            let carriage = if bytes == total { Carriage::Block } else { Carriage::Chunk };
            let header = Header { carriage, at: *at, ..*header };
            if !self.push_block(link, &agent, to, &header, chunk)? {
                return Ok(Pushed::MemoryFull);
            }
            *at += bytes;
            self.ring(to);
        }
        Ok(Pushed::All)
    }

    /// Pushes a block; there is room in the lane. False if there is no memory now.
    fn push_block(
        &self,
        link: &mut Link,
        agent: &Agent<'_>,
        to: Rank,
        header: &Header,
        chunk: &[u8],
    ) -> Result<bool, FabricError> {
        let segment = &self.map.segment;
        let held = match segment.alloc(agent, chunk.len() as u64) {
            Ok(held) => held,
            Err(HeapError::Full { .. } | HeapError::Segment(SegmentError::Full { .. }))
                if self.has_payloads() =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let (lane, offset) = (self.lane(self.seat, to), held.block.offset);
        copy::write(segment, offset, chunk).expect("an allocated block lies inside");
        let intent = &agent.record.intent;
        intent[INTENT_TICKET].store(link.ticket, Ordering::Relaxed);
        intent[INTENT_OFFSET].store(offset, Ordering::Relaxed);
        intent[INTENT_LANE].store(self.map.lane_number(self.seat, to) + 1, Ordering::Release);
        let [a, b, c, d] = header.encode();
        lane.push(link.ticket, &[a, b, c, d, offset, chunk.len() as u64]);
        segment.forget(agent, held);
        intent[INTENT_LANE].store(0, Ordering::Release);
        let bytes = chunk.len() as u64;
        link.underway.push_back(Underway { ticket: link.ticket, bytes, block: held.block });
        link.underway_bytes += bytes;
        link.ticket += 1;
        Ok(true)
    }

    /// Frees the blocks that a dead receiver has not taken. One that it was about to take may be free already, by
    /// `Segment::recover`, and something else by now: only the allocation that was sent is freed.
    pub(super) fn bury(&self, dead: Rank) {
        let lane = self.lane(self.seat, dead);
        let mut link = self.link(dead);
        link.underway_bytes = 0;
        for Underway { ticket, block, .. } in std::mem::take(&mut link.underway) {
            if !lane.was_taken(ticket) {
                self.map.segment.free_entry(None, Entry::new(block.offset, block.generation));
            }
        }
    }

    /// Whether memory can become free by waiting: payloads are on their way somewhere.
    fn has_payloads(&self) -> bool {
        self.map.segment.usage().allocated > 0
    }
}

/// The words of a message that fits into a cell, and how many they are.
fn inline(header: &Header, payload: &[u8]) -> (Words, usize) {
    let mut words = [0; CELL_WORDS];
    words[..HEADER_WORDS].copy_from_slice(&header.encode());
    for (word, bytes) in words[HEADER_WORDS..].iter_mut().zip(payload.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    (words, HEADER_WORDS + payload.len().div_ceil(8))
}
