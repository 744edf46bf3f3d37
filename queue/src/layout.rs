//! What of a queue lies in shared memory: the control part, and where its cells are found.
//!
//! # Shape
//! In *lanes* mode each producing thread has a chain of its own (see `transport::ring::chain`), found by the number of
//! its agent; consumers go round. Threads beyond [`LANES_MAX`], and all threads of a *strict* or *bounded* queue, put
//! to the one ticket ring. Items up to `INLINE_MAX` bytes lie in a cell; for a larger one the cell has offset and
//! length of a block of the heap.
//!
//! # Closing
//! A put announces itself in its agent's intent (`Entered`), and then looks whether the queue is open; both anew for
//! each attempt, so that nobody who waits for room counts. A consumer that finds the closed queue empty passes the
//! heavy fence, after which each put either is seen to have entered or sees that the queue is closed. If nobody has
//! entered, the consumer *seals* the queue and looks for the last time; else it waits for that put as for a locked
//! head, and settles it if it is dead. So after any consumer was told `Closed` no item can appear.
//!
//! # The notes of a put
//! `Block` and `Ticket` say where it puts, `Put` how far it is. A claim in the ring means something only while its
//! agent is at the ring (`Entered` says so): afterwards its block may be gone, see `transport::ring::tickets`. So `Put`
//! is 0 again before the agent leaves; but for an item in a block, whose `PUT_CLAIMED` stays until its block is let go,
//! and says then that the item is in, without a look at the cell.
//!
//! # Whose a block is
//! A block is in the producer's held table until its cell is published. A consumer notes it in its own held table
//! before it commits the take, and frees it in the end. See `settle` for those who die on the way.

#![expect(unsafe_code, reason = "says that the control part may lie in shared memory")]

use crate::descriptor::Home;
use crate::error::Error;
use crate::far::Far;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tarragon_transport::agent::{Agent, AgentId, AgentRecord};
use tarragon_transport::doorbell::Doorbell;
use tarragon_transport::lock::RobustLock;
use tarragon_transport::ring::Blocks;
use tarragon_transport::ring::cell::Cell;
use tarragon_transport::ring::chain::Chain;
use tarragon_transport::ring::head::{Head, Taker};
use tarragon_transport::ring::tickets::{TicketRing, Tickets};
use tarragon_transport::segment::{Segment, SegmentName, Shared};

/// Version of all that is described here and in `transport::ring`.
pub(crate) const LAYOUT: u32 = 6;
pub(crate) const KIND: &str = "queue";
/// Threads that have a lane of their own.
pub(crate) const LANES_MAX: usize = 64;
/// Cells of a block.
pub(crate) const CELLS: u64 = 256;
pub(crate) const BLOCK_BYTES: u64 = CELLS * size_of::<Cell>() as u64;

/// States of a queue.
pub(crate) const OPEN: u64 = 0;
/// No put begins any more.
pub(crate) const CLOSED: u64 = 1;
/// And none is under way: what is in now is all that will ever be taken.
pub(crate) const SEALED: u64 = 2;
pub(crate) const DESTROYED: u64 = 3;

/// Tag of an item that lies in its cell.
pub(crate) const INLINE: u32 = 0;
/// Tag of an item that lies in a block: its words are offset and length.
pub(crate) const IN_BLOCK: u32 = 1;

/// The control part. Zeroed, and then filled in by its maker before anybody else attaches.
#[repr(C, align(128))]
pub(crate) struct Control {
    /// One of [`OPEN`], [`CLOSED`], [`SEALED`], [`DESTROYED`]; only rises.
    pub(crate) state: AtomicU64,
    /// 1: all go by the ring.
    pub(crate) is_strict: AtomicU64,
    /// The most items; 0: no bound.
    pub(crate) bound: AtomicU64,
    /// Hash of the items' type and encoding.
    pub(crate) type_hash: AtomicU64,
    /// Length of the ring's directory, which follows the control part: a power of two.
    pub(crate) entries: AtomicU64,
    /// Lanes below this number may have an owner.
    pub(crate) lanes: AtomicU64,
    /// 1: some producer found no lane, so consumers look at the ring as well.
    pub(crate) overflows: AtomicU64,
    /// Rung by puts.
    pub(crate) items: Doorbell,
    /// Rung by takes and by freed memory.
    pub(crate) space: Doorbell,
    /// Rung when all items are done.
    pub(crate) finished: Doorbell,
    /// Items done, and who said so last; see `tally`.
    pub(crate) done: Line,
    /// Items that dead processes had taken and not called done, and whose are being counted; see `tally`.
    pub(crate) lost: AtomicU64,
    /// How many of these were called done after all.
    pub(crate) forgiven: AtomicU64,
    /// Items called done for a rank of another node that died with them in its hands; see `far`.
    pub(crate) abandoned: AtomicU64,
    /// How many of both some `join` has told.
    pub(crate) reported: AtomicU64,
    /// Who makes the ring grow or shrink.
    pub(crate) growing: RobustLock,
    /// Of all who have no lane.
    pub(crate) ring: TicketRing,
    /// Of one agent each.
    pub(crate) chains: [Chain; LANES_MAX],
}

/// A word with a cache line of its own.
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) AtomicU64);

const _: () = assert!(size_of::<Control>() <= 16 << 10, "the control part stays small");

// SAFETY: made of atomics of fixed width, and of types of `transport` that are; zeros are an empty queue.
unsafe impl Shared for Control {}

/// Bytes of the control part and the directory of a queue with so much memory.
pub(crate) fn control_bytes(entries: u64) -> u64 {
    size_of::<Control>() as u64 + entries * size_of::<AtomicU64>() as u64
}

/// A queue that this process has attached.
pub(crate) struct Attached {
    pub(crate) segment: Arc<Segment>,
    pub(crate) name: String,
    /// Never changes.
    pub(crate) bound: u64,
    /// Never changes.
    pub(crate) is_strict: bool,
    /// Never changes.
    pub(crate) entries: u64,
    /// Where ranks of other nodes find it.
    pub(crate) home: Option<Home>,
    /// The queue is on another node, and this one, which is closed and empty, stands in for it: what is quick finds
    /// nothing to do here, and all else asks there.
    pub(crate) far: Option<Far>,
}

impl Attached {
    /// The control part, if the segment is that long.
    pub(crate) fn try_control(&self) -> Result<&Control, Error> {
        self.segment.at(self.segment.control()).ok_or(Error::Damaged)
    }

    /// The segment that the queue is known by.
    pub(crate) fn segment_name(&self) -> &SegmentName {
        self.far.as_ref().map_or_else(|| self.segment.name(), Far::segment)
    }

    /// Ends it for all: [`CLOSED`] or [`DESTROYED`].
    pub(crate) fn end(&self, state: u64) {
        let view = self.view();
        view.control.state.fetch_max(state, Ordering::SeqCst);
        view.ring_all();
        if state == DESTROYED {
            self.segment.unlink();
        }
    }

    /// Refuses a length of the directory that cannot be.
    pub(crate) fn check_entries(&self) -> Result<(), Error> {
        let offset = self.segment.control() + size_of::<Control>() as u64;
        let fits = self.segment.slice::<AtomicU64>(offset, self.entries).is_some();
        if fits && self.entries.is_power_of_two() { Ok(()) } else { Err(Error::Damaged) }
    }

    /// Its parts, for the time of one operation.
    #[inline(always)]
    pub(crate) fn view(&self) -> View<'_> {
        let control =
            self.segment.at(self.segment.control()).expect("it was there when the queue was attached");
        View { queue: self, segment: &self.segment, control }
    }
}

/// The parts of an attached queue.
#[derive(Clone, Copy)]
pub(crate) struct View<'s> {
    pub(crate) queue: &'s Attached,
    pub(crate) segment: &'s Segment,
    pub(crate) control: &'s Control,
}

impl Blocks for View<'_> {
    const CELLS: u64 = CELLS;

    #[inline(always)]
    fn cells(&self, offset: u64) -> Option<&[Cell]> {
        if offset == 0 { None } else { self.segment.slice(offset, CELLS) }
    }

    #[inline(always)]
    fn cell(&self, offset: u64, index: u64) -> Option<&Cell> {
        if offset == 0 { None } else { self.segment.at(offset + index * size_of::<Cell>() as u64) }
    }
}

impl<'s> View<'s> {
    #[inline(always)]
    pub(crate) fn state(&self) -> u64 {
        self.control.state.load(Ordering::Acquire)
    }

    /// The ring.
    #[inline(always)]
    pub(crate) fn tickets(&self) -> Tickets<'_, Self> {
        let offset = self.segment.control() + size_of::<Control>() as u64;
        let directory = self.segment.slice(offset, self.queue.entries).unwrap_or(&[]);
        Tickets { ring: &self.control.ring, directory, blocks: self }
    }

    /// Whether the ring is in use.
    #[inline(always)]
    pub(crate) fn has_ring(&self) -> bool {
        self.queue.is_strict || self.control.overflows.load(Ordering::Relaxed) != 0
    }

    /// Whether items come from the first chain alone.
    #[inline(always)]
    pub(crate) fn has_one_chain(&self) -> bool {
        self.control.lanes.load(Ordering::Acquire) == 1 && !self.has_ring()
    }

    /// Chains that may be in use.
    #[inline(always)]
    pub(crate) fn chains(&self) -> &'s [Chain] {
        let lanes = self.control.lanes.load(Ordering::Acquire);
        &self.control.chains[..(lanes as usize).min(LANES_MAX)]
    }

    /// The heads that items are taken from, by place.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (usize, &Head)> {
        let chains = self.control.chains.iter().map(Chain::head);
        chains.chain([self.control.ring.head()]).enumerate()
    }

    /// Those from which an agent takes the next item, or died so: it has the lock, or keeps the head and has announced
    /// that ticket.
    pub(crate) fn heads_held_by(
        &self,
        agent: AgentId,
        record: &AgentRecord,
    ) -> impl Iterator<Item = (usize, &Head)> {
        self.heads().filter(move |&(place, head)| head.is_held_by(agent, taking(record, place)))
    }

    /// Items put ever, and of these, taken.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let of_ring = if self.has_ring() { self.tickets().counts() } else { (0, 0) };
        let all = self.chains().iter().filter(|it| it.place().0 != 0).map(Chain::counts::<Self>);
        all.fold(of_ring, |(put, taken), one| (put + one.0, taken + one.1))
    }

    /// Wakes all who wait for anything.
    pub(crate) fn ring_all(&self) {
        let bells = [&self.control.items, &self.control.space, &self.control.finished];
        bells.into_iter().for_each(Doorbell::ring_all);
    }
}

/// What the words of an agent's intent mean to a queue.
#[derive(Clone, Copy)]
pub(crate) enum Word {
    /// What it is putting: one of the `PUT_` constants.
    Put = 0,
    /// The block of the cell it puts to.
    Block = 1,
    /// The ticket.
    Ticket = 2,
    /// Offset of the item's block; 0: it is inline.
    Item = 3,
    /// What it is doing to the ring's or its chain's blocks: one of the `GROW_` constants.
    Grow = 4,
    /// Which block.
    Cells = 5,
    /// Not 0: it has begun a put, which `close` has not refused; announced before it looks at the queue's state. Says
    /// by [`AT_RING`] or [`NOT_AT_RING`] whether it looks at cells of the ring.
    Entered = 6,
    /// Not 0: it takes an item from a head that it keeps, see [`Consumer`]; announced before it looks whether it still
    /// does.
    Taking = 7,
    /// A cache: its lane plus one, or [`NO_LANE`].
    Lane = 14,
    /// A cache: how many items it has taken, to go round the lanes.
    Round = 15,
}

pub(crate) const NO_LANE: u64 = u64::MAX;
/// Entered, and looks at cells of the ring: blocks of it stay.
pub(crate) const AT_RING: u64 = 1;
/// Entered, and needs no cell of the ring: it puts to its chain, or waits for the ring to grow.
pub(crate) const NOT_AT_RING: u64 = 2;
/// Puts to its chain: published if the cell says so.
pub(crate) const PUT_CHAIN: u64 = 1;
/// Tries to claim a cell of the ring.
pub(crate) const PUT_CLAIMING: u64 = 2;
/// Has claimed it: published if it is not WRITING any more.
pub(crate) const PUT_CLAIMED: u64 = 3;
/// Written by who settles: the claim is not published, and never will be.
pub(crate) const PUT_VOID: u64 = 4;
/// Links a new block to its chain.
pub(crate) const GROW_CHAIN: u64 = 1;
/// Takes the oldest block out of a chain, whose front it has locked.
pub(crate) const SHRINK_CHAIN: u64 = 2;
/// Links a new block to the ring.
pub(crate) const GROW_RING: u64 = 3;
/// Takes the oldest block out of the ring, whose lock of growth it has.
pub(crate) const SHRINK_RING: u64 = 4;

/// Writes a word of an intent, visible to survivors before all that comes later.
#[inline(always)]
pub(crate) fn note(record: &AgentRecord, word: Word, value: u64) {
    record.intent[word as usize].store(value, Ordering::Release);
}

/// Reads one.
#[inline(always)]
pub(crate) fn noted(record: &AgentRecord, word: Word) -> u64 {
    record.intent[word as usize].load(Ordering::Acquire)
}

/// The place of the ring among those that items are taken from; those of the chains are before it.
pub(crate) const RING: usize = LANES_MAX;
/// Bits of a place, plus one, below the ticket in [`Word::Taking`].
const PLACE_BITS: u32 = 7;
const _: () = assert!(RING + 1 < 1 << PLACE_BITS);

/// The ticket that an agent has announced to take from a place whose head it keeps.
fn taking(record: &AgentRecord, place: usize) -> Option<u64> {
    let word = noted(record, Word::Taking);
    is_at(word, place).then_some(word >> PLACE_BITS)
}

fn is_at(word: u64, place: usize) -> bool {
    word & ((1 << PLACE_BITS) - 1) == place as u64 + 1
}

/// An agent that takes from a place, as the rings want it.
pub(crate) struct Consumer<'a, 's> {
    pub(crate) agent: &'a Agent<'s>,
    pub(crate) place: usize,
}

impl Taker for Consumer<'_, '_> {
    #[inline(always)]
    fn id(&self) -> AgentId {
        self.agent.id
    }

    #[inline(always)]
    fn may_keep(&self) -> bool {
        self.agent.segment.announces_freely()
    }

    #[inline(always)]
    fn begin(&self, ticket: u64) {
        self.agent.announce(Word::Taking as usize, ticket << PLACE_BITS | (self.place as u64 + 1));
    }

    #[inline(always)]
    fn end(&self) {
        self.agent.withdraw(Word::Taking as usize);
    }

    fn is_taking(&self, other: AgentId) -> bool {
        is_at(self.agent.segment.announced_by(other, Word::Taking as usize), self.place)
    }
}

/// An agent's intent, as the ring wants it.
pub(crate) struct Noted<'a, 's>(pub(crate) &'a Agent<'s>);

impl tarragon_transport::ring::tickets::Note for Noted<'_, '_> {
    #[inline(always)]
    fn claiming(&self, block: u64, ticket: u64) {
        note(self.0.record, Word::Put, 0);
        note(self.0.record, Word::Block, block);
        note(self.0.record, Word::Ticket, ticket);
        note(self.0.record, Word::Put, PUT_CLAIMING);
    }

    #[inline(always)]
    fn claimed(&self) {
        note(self.0.record, Word::Put, PUT_CLAIMED);
    }

    #[inline(always)]
    fn last(&self) -> u64 {
        noted(self.0.record, Word::Ticket)
    }
}
