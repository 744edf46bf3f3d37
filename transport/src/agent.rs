//! What one thread of one member holds in a segment, written where survivors find it.
//!
//! An *agent* is a record of 36 KiB that a thread claims at its first use of a segment and keeps until it ends (a
//! record with pins or an uneven tally stays with the process until they are gone, and serves another thread).
//! Everything a thread can leave unfinished stands in it:
//! - the *intent*: 16 words whose meaning is the user's (ddict, queue); written before the deed;
//! - *held* blocks: allocated, not yet published: freed if the thread dies;
//! - *retired* blocks: unpublished, not yet freed because somebody may have pinned them;
//! - *pins*: blocks it reads in place;
//! - *spans*: pieces of the heap only it allocates from.
//!
//! Its *counts* are the user's too; only its thread adds to them: counting is a plain store to a line that
//! nobody else writes. They stay when the record is let go, by its thread or by a survivor, and its next thread counts
//! on; so the sum over all records is that of everybody who ever counted.
//!
//! A record is claimed by a compare-exchange of its `state` from 0 to the member, and let go by a store of 0: by its
//! process when the thread has ended and nothing is left in it, or by a survivor that has cleaned up after a death.

#![expect(unsafe_code, reason = "a thread reaches its own caches by a pointer")]

mod local;
mod record;
mod seat;

use crate::error::SegmentError;
use crate::pin;
use crate::segment::{Segment, file, plan};
use crate::sync::{AtomicU64, Ordering};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::{PoisonError, Weak};

pub(crate) use local::{Local, Locals, Owned};
pub use record::AgentRecord;
pub(crate) use record::RETIRED_MAX;
pub use seat::Seat;

/// Number of an agent in its segment: 1 to 8191, fits the 13 bits that locks have for their owner. 0: nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AgentId(pub u16);

/// Agents one segment can have.
pub const AGENTS_MAX: u16 = 8191;
/// Words of an intent.
pub const INTENT_WORDS: usize = 16;
/// Words of a tally: a cache line.
pub const TALLY_WORDS: usize = 8;
/// Counts of the user's in each record.
pub const COUNTS: usize = 1024;
/// Blocks one agent can hold at once.
pub const HELD_MAX: usize = 256;

/// This thread's agent. Not `Send`.
pub struct Agent<'s> {
    /// Its segment.
    pub segment: &'s Segment,
    /// Its number.
    pub id: AgentId,
    /// Its record.
    pub record: &'s AgentRecord,
    pub(crate) local: &'s Local,
    not_send: PhantomData<*const ()>,
}

impl Agent<'_> {
    /// Says in `word` of the intent that it is about something, and by `about` (not 0) what: what it loads afterwards
    /// is not older, as seen by who looks with [`Segment::announced`]. A store where the kernel has `membarrier`.
    #[inline(always)]
    pub fn announce(&self, word: usize, about: u64) {
        pin::announce(&self.record.intent[word % INTENT_WORDS], about, self.segment.is_light);
    }

    /// Adds 1 to one of its counts, see [`Segment::count`].
    #[inline(always)]
    pub fn count(&self, which: usize) {
        self.record.add_one(which);
    }

    /// Says that it is over: who sees that sees what was done.
    #[inline(always)]
    pub fn withdraw(&self, word: usize) {
        pin::withdraw(&self.record.intent[word % INTENT_WORDS]);
    }
}

/// Segments a thread finds its agent for without a search.
const RECENT: usize = 4;

thread_local! {
    /// Segments' serials and this thread's memory there; by serial. Serial 0: empty.
    static CURRENT: [Cell<(u64, *const Local)>; RECENT] =
        const { [const { Cell::new((0, std::ptr::null())) }; RECENT] };
    /// All segments this thread has an agent in.
    static TABLE: RefCell<Table> = const { RefCell::new(Table(Vec::new())) };
}

/// Releases a thread's agents when the thread ends.
struct Table(Vec<(u64, *const Local, Weak<Segment>)>);

impl Drop for Table {
    fn drop(&mut self) {
        let _destroyed =
            CURRENT.try_with(|recent| recent.iter().for_each(|it| it.set((0, std::ptr::null()))));
        for (_, local, segment) in self.0.drain(..) {
            if let Some(segment) = segment.upgrade() {
                segment.leave(local);
            }
        }
    }
}

impl Segment {
    /// Adds 1 to a count of this thread's agent, if it was used a moment ago; whether it did. Some 20 instructions.
    #[inline(always)]
    pub fn count(&self, which: usize) -> bool {
        let recent = CURRENT.try_with(|recent| recent[self.serial as usize % RECENT].get());
        let Some((_, local)) = recent.ok().filter(|(serial, _)| *serial == self.serial) else { return false };
        // SAFETY: as in `agent_at`.
        let local = unsafe { &*local };
        // SAFETY: null, or a record in this segment's mapping, which lives as long as the segment.
        let Some(record) = (unsafe { local.record.get().as_ref() }) else { return false };
        record.add_one(which);
        true
    }

    /// A count of all agents, those that left or died among them. A load per record that was ever claimed.
    pub fn counted(&self, which: usize) -> u64 {
        let high = self.header().agents_high.load(Ordering::Acquire).min(u64::from(AGENTS_MAX)) as u16;
        let counts = (1..=high).map(|id| &self.record(AgentId(id)).counts[which % COUNTS]);
        counts.fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }

    /// This thread's agent; claims one at first use. 1-3 ns afterwards (a thread-local table).
    ///
    /// # Errors
    /// `Agents` if too many threads use the segment, `Full` if its record finds no memory, `ThreadEnds` in destructors
    /// of thread-local values.
    #[inline(always)]
    pub fn agent(&self) -> Result<Agent<'_>, SegmentError> {
        let recent = CURRENT.try_with(|recent| recent[self.serial as usize % RECENT].get());
        match recent {
            Ok((serial, local)) if serial == self.serial => Ok(self.agent_at(local)),
            _ => self.find_agent(),
        }
    }

    /// This thread's agent if it was used a moment ago. What `agent` does first; no error to hand on.
    #[inline(always)]
    pub fn recent_agent(&self) -> Option<Agent<'_>> {
        let (serial, local) = CURRENT.try_with(|recent| recent[self.serial as usize % RECENT].get()).ok()?;
        (serial == self.serial).then(|| self.agent_at(local))
    }

    #[inline(always)]
    fn agent_at(&self, local: *const Local) -> Agent<'_> {
        // SAFETY: pointers beside this segment's serial came from its `Locals`, which keep the box as long as the
        // segment lives; only this thread was given it, and only a shared reference to cells is made.
        let local = unsafe { &*local };
        // SAFETY: null, or a record in this segment's mapping, which lives as long as the segment.
        match unsafe { local.record.get().as_ref() } {
            Some(record) => {
                let id = AgentId(local.id.get());
                Agent { segment: self, id, record, local, not_send: PhantomData }
            }
            None => self.agent_of(local),
        }
    }

    /// The agent that a process's memory belongs to.
    #[inline(always)]
    pub(crate) fn agent_of<'s>(&'s self, local: &'s Local) -> Agent<'s> {
        let id = AgentId(local.id.get());
        Agent { segment: self, id, record: self.record(id), local, not_send: PhantomData }
    }

    /// The record of an agent. Numbers above the last are taken for the last.
    #[inline(always)]
    pub(crate) fn record(&self, id: AgentId) -> &AgentRecord {
        let offset = plan::AGENTS + u64::from(id.0.min(AGENTS_MAX)) * plan::AGENT_BYTES;
        self.at(offset).expect("the agents lie inside every segment")
    }

    /// A word of what an agent notes before it acts, for who waits for something that it seems to hold.
    pub fn intent_of(&self, agent: AgentId, word: usize) -> u64 {
        self.record(agent).intent[word % INTENT_WORDS].load(Ordering::Acquire)
    }

    /// An agent's tally, which the user's protocol may let others write to.
    pub fn tally_of(&self, agent: AgentId) -> &[AtomicU64; TALLY_WORDS] {
        &self.record(agent).tally
    }

    /// An agent that has [announced](Agent::announce) in `word` of its intent what it is about, and has not yet ended
    /// it; maybe a dead one. What was stored before the call is seen by all who announce from now on. 1-20 µs.
    pub fn announced(&self, word: usize) -> Option<AgentId> {
        pin::heavy(self.is_light);
        let mut agents = self.agents();
        agents.find(|(.., it)| it.intent[word % INTENT_WORDS].load(Ordering::Acquire) != 0).map(|(id, ..)| id)
    }

    /// What an agent, maybe a dead one, has [announced](Agent::announce) in `word` of its intent; 0: nothing. If it
    /// announces anything during the call, it sees what was stored before. 1-20 µs.
    pub fn announced_by(&self, agent: AgentId, word: usize) -> u64 {
        pin::heavy(self.is_light);
        self.intent_of(agent, word)
    }

    /// Whether to announce costs a store and no fence.
    #[inline(always)]
    pub fn announces_freely(&self) -> bool {
        self.is_light
    }

    /// An agent that has announced `about` in `word` of its intent since before the call, maybe a dead one: looks up to
    /// `looks` times for who is about that to end it. Who announces it during the call sees what was stored before
    /// it, and does not count once it was seen without. 1-20 µs, and the looks.
    pub fn still_announced(&self, word: usize, about: u64, looks: u32) -> Option<AgentId> {
        pin::heavy(self.is_light);
        let mut left = looks;
        let mut agents = self.agents();
        let mut stays = |record: &AgentRecord| {
            let word = &record.intent[word % INTENT_WORDS];
            while word.load(Ordering::Acquire) == about {
                if left == 0 {
                    return true;
                }
                left -= 1;
                std::hint::spin_loop();
            }
            false
        };
        agents.find(|(.., record)| stays(record)).map(|(id, ..)| id)
    }

    /// Agents that are in use, with their members, as far as the memory says so.
    pub(crate) fn agents(&self) -> impl Iterator<Item = (AgentId, u32, &AgentRecord)> {
        let high = self.header().agents_high.load(Ordering::Acquire).min(u64::from(AGENTS_MAX)) as u16;
        (1..=high).filter_map(|number| {
            let record = self.record(AgentId(number));
            let state = record.state.load(Ordering::Acquire);
            let member = u32::try_from(state.checked_sub(1)?).ok()?;
            Some((AgentId(number), member, record))
        })
    }

    #[cold]
    fn find_agent(&self) -> Result<Agent<'_>, SegmentError> {
        let found = TABLE.try_with(|table| {
            let mut table = table.borrow_mut();
            let known =
                table.0.iter().find(|(serial, ..)| *serial == self.serial).map(|(_, local, _)| *local);
            let local = match known {
                Some(local) => local,
                None => {
                    table.0.retain(|(_, _, segment)| segment.strong_count() > 0);
                    let local = self.join()?;
                    table.0.push((self.serial, local, self.this.clone()));
                    local
                }
            };
            CURRENT.with(|recent| recent[self.serial as usize % RECENT].set((self.serial, local)));
            Ok(local)
        });
        let local = found.unwrap_or(Err(SegmentError::ThreadEnds))?;
        Ok(self.agent_at(local))
    }

    /// Memory for this thread, with an agent.
    fn join(&self) -> Result<*const Local, SegmentError> {
        let mut locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        let pointer = locals.take();
        // SAFETY: it lives as long as the segment, and was given to this thread just now.
        let local = unsafe { &*pointer };
        if local.id.get() == 0 {
            match self.claim() {
                Ok(id) => {
                    local.id.set(id.0);
                    local.record.set(self.record(id));
                }
                Err(error) => {
                    locals.give_back(pointer);
                    return Err(error);
                }
            }
        }
        Ok(pointer)
    }

    /// Claims a record nobody uses; makes one more memory if there is none.
    fn claim(&self) -> Result<AgentId, SegmentError> {
        let high = &self.header().agents_high;
        let mut next = 1;
        loop {
            let known = high.load(Ordering::Acquire).min(u64::from(AGENTS_MAX)) as u16;
            while next <= known {
                if self.try_claim(AgentId(next)) {
                    return Ok(AgentId(next));
                }
                next += 1;
            }
            if next > AGENTS_MAX {
                return Err(SegmentError::Agents { max: u32::from(AGENTS_MAX) });
            }
            let start = plan::AGENTS + u64::from(next) * plan::AGENT_BYTES;
            file::commit(&self.file, &self.folder, start..start + plan::AGENT_BYTES)?;
            high.fetch_max(u64::from(next), Ordering::AcqRel);
        }
    }

    fn try_claim(&self, id: AgentId) -> bool {
        let record = self.record(id);
        let mine = u64::from(self.member) + 1;
        let claimed = record.state.load(Ordering::Relaxed) == 0
            && record.state.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if claimed {
            record.clear_intent();
        }
        claimed
    }

    /// The thread behind `local` ends.
    fn leave(&self, local: *const Local) {
        let mut locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = self.agent_at(local);
        self.empty_agent(&agent);
        if !agent.record.has_guards() && agent.record.is_even() {
            self.release_agent(&agent);
        }
        locals.give_back(local);
    }

    /// Gives back what only caches or waits: spans, retired blocks.
    fn empty_agent(&self, agent: &Agent<'_>) {
        agent.record.clear_intent();
        self.release_spans(agent);
        self.reclaim(agent);
        self.drop_retired(agent);
    }

    fn release_agent(&self, agent: &Agent<'_>) {
        agent.local.id.set(0);
        agent.local.record.set(std::ptr::null());
        agent.record.state.store(0, Ordering::Release);
    }

    /// Releases all agents of this process, when the segment goes. Guards cannot be about: they borrow it.
    pub(crate) fn release_agents(&self) {
        let locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        for local in locals.claimed() {
            let agent = self.agent_of(local);
            // Leaked guards: what they held is freed.
            self.clean_tables(agent.record, Some(&agent));
            self.empty_agent(&agent);
            agent.record.even_out();
            self.release_agent(&agent);
        }
    }
}
