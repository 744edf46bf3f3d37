//! Whose hands the items are in: what each process took and has not yet called done, for the case that it is killed.
//!
//! # What is counted
//! Each agent's record has a *tally*: items it took, and calls of `task_done`. Threads of a process may call for one
//! another, so only the sum over a process's agents means something; a record whose tally is uneven stays with its
//! process when its thread ends. When a process is found dead, the items it took less those it called done are added,
//! once, to the queue's `lost`. For `join` an item is over when it is done or lost.
//!
//! # Taking
//! With the head's lock in hand, or announced as its keeper, `TAKING` becomes the count with this item; then the take
//! is committed; then `TAKEN` follows. Of a dead agent that still has a head's lock, or keeps a head whose next ticket
//! it has announced, `TAKEN` is right, else the higher of the two.
//!
//! # Calling done
//! `done` in the control part is a count and the agent that raised it last. Before an agent raises it to n + 1 it notes
//! n + 1 in `AT` and its own count in `DOING`; afterwards `DONE` follows. Whoever raises it next tells the one before
//! that it was seen, in `CONFIRMED` of its tally, which only rises. So the call of a dead agent counts if `done` still
//! says so or it was confirmed.
//!
//! # Counting a dead process
//! One survivor at a time. Agents are made sure of first; then one store adds to `lost` and marks it with the member;
//! then the tallies are evened out by raising the lower count; then the mark goes. A survivor who finds a mark evens
//! that member's tallies out and adds nothing.

use crate::layout::{Control, View};
use std::sync::atomic::Ordering;
use tarragon_transport::agent::{Agent, AgentId, AgentRecord, TALLY_WORDS};
use tarragon_transport::member::DeadAgent;

/// Items taken.
const TAKEN: usize = 0;
/// Calls of `task_done`.
const DONE: usize = 1;
const TAKING: usize = 2;
const DOING: usize = 3;
const AT: usize = 4;
const CONFIRMED: usize = 5;
/// Bits of an agent or a member beside a count.
const MARK_BITS: u32 = 13;
const MARK_MAX: u64 = (1 << MARK_BITS) - 1;

fn get(record: &AgentRecord, word: usize) -> u64 {
    record.tally[word].load(Ordering::Acquire)
}

fn set(record: &AgentRecord, word: usize, value: u64) {
    record.tally[word].store(value, Ordering::Release);
}

/// With the lock of a head in hand: its item will be this agent's by the commit.
#[inline(always)]
pub(crate) fn taking(record: &AgentRecord) {
    let taken = record.tally[TAKEN].load(Ordering::Relaxed);
    record.tally[TAKING].store(taken + 1, Ordering::Release);
}

/// After the commit.
#[inline(always)]
pub(crate) fn taken(record: &AgentRecord) {
    record.tally[TAKEN].store(record.tally[TAKING].load(Ordering::Relaxed), Ordering::Release);
}

/// Count and mark of a word.
fn split(word: u64) -> (u64, u64) {
    (word >> MARK_BITS, word & MARK_MAX)
}

fn marked(count: u64, mark: u64) -> u64 {
    count << MARK_BITS | mark
}

impl Control {
    /// Calls of `task_done` that counted.
    pub(crate) fn done(&self) -> u64 {
        split(self.done.0.load(Ordering::Acquire)).0
    }

    /// Items that dead processes had taken and not called done.
    pub(crate) fn lost(&self) -> u64 {
        split(self.lost.load(Ordering::Acquire)).0
    }

    /// Whether a call of `task_done` too many is for an item that counted as lost: at most once for each.
    pub(crate) fn forgive(&self) -> bool {
        let lost = self.lost() + self.abandoned.load(Ordering::Acquire);
        let next = |forgiven| (forgiven < lost).then(|| forgiven + 1);
        self.forgiven.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

impl View<'_> {
    /// Raises `done` from `before`, if it is that still.
    pub(crate) fn raise_done(&self, agent: &Agent<'_>, before: u64) -> bool {
        let done = &self.control.done.0;
        let (count, last) = split(done.load(Ordering::Acquire));
        if count != before {
            return false;
        }
        if last != 0 && last != u64::from(agent.id.0) {
            let tally = self.segment.tally_of(AgentId(last as u16));
            tally[CONFIRMED].fetch_max(count, Ordering::AcqRel);
        }
        let own = get(agent.record, DONE) + 1;
        set(agent.record, AT, count + 1);
        set(agent.record, DOING, own);
        let raised = marked(count + 1, u64::from(agent.id.0));
        let old = marked(count, last);
        let is_raised = done.compare_exchange(old, raised, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if is_raised {
            set(agent.record, DONE, own);
        } else {
            set(agent.record, DOING, own - 1);
        }
        is_raised
    }

    /// Counts what dead members leave undone. Idempotent.
    pub(crate) fn count_lost(&self, dead: &[DeadAgent<'_>]) {
        let of = |mark: u64| dead.iter().filter(move |it| u64::from(it.member) + 1 == mark);
        let lost = &self.control.lost;
        let finish = |mark: u64| {
            of(mark).for_each(|it| it.record.even_out());
            lost.store(marked(self.control.lost(), 0), Ordering::Release);
        };
        match split(lost.load(Ordering::Acquire)) {
            (_, 0) => {}
            (_, mark) => finish(mark),
        }
        for agent in dead {
            let mark = u64::from(agent.member) + 1;
            if mark > MARK_MAX {
                continue;
            }
            of(mark).for_each(|it| self.make_sure(it.id, it.record));
            if of(mark).all(|it| it.record.is_even()) {
                continue;
            }
            let sum = |word| of(mark).fold(0_u64, |sum, it| sum.wrapping_add(get(it.record, word)));
            let undone = sum(TAKEN).wrapping_sub(sum(DONE)).cast_signed().max(0).cast_unsigned();
            lost.store(marked(self.control.lost() + undone, mark), Ordering::Release);
            finish(mark);
        }
    }

    /// Makes the counts of a dead agent right, which may have died taking an item or calling it done. Idempotent; its
    /// heads must be locked still.
    fn make_sure(&self, dead: AgentId, record: &AgentRecord) {
        if self.heads_held_by(dead, record).next().is_some() {
            set(record, TAKING, get(record, TAKEN));
        } else {
            set(record, TAKEN, get(record, TAKEN).max(get(record, TAKING)));
        }
        if get(record, DOING) > get(record, DONE) {
            let at = get(record, AT);
            let is_last = self.control.done.0.load(Ordering::Acquire) == marked(at, u64::from(dead.0));
            // Looked at second: it is confirmed before the word changes.
            if is_last || get(record, CONFIRMED) >= at {
                set(record, DONE, get(record, DOING));
            } else {
                set(record, DOING, get(record, DONE));
            }
        }
    }
}

const _: () = assert!(CONFIRMED < TALLY_WORDS);
