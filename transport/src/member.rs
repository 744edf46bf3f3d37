//! Who uses a segment, and which of them are dead.
//!
//! A *member* is a process. It claims a line (up to 4096) and a lock of the kernel on that line's byte of the file (an
//! open file description lock, dropped at death however it comes), under the `GATE` byte. Only that lock says who is
//! alive: never a pid.
//!
//! A line whose lock is gone while its `state` says that it is somebody's belongs to a dead member. It stays so, and
//! its agents' records with it, until a survivor has recovered them all; then the line is free again.
//!
//! # Recovery
//! One survivor at a time (another byte of the file, so that the kernel ends the turn of a survivor that dies), for
//! each agent of a dead member, each step such that doing it again does nothing:
//! 1. its pins are zeroed, those of all dead first, so that they hold up nobody; then `Settle` sees all dead together;
//! 2. `Settle` finishes or undoes what its intent says, then the intent is zeroed, the verb first: what follows frees
//!    blocks, and an intent that names a freed block must not be settled a second time;
//! 3. blocks it held are freed, and blocks it had retired, or marked to be freed later if somebody has them pinned;
//! 4. its spans have no owner any more; the heap's lock, if it had it, is repaired and let go;
//! 5. its record is free, at last its member's line.

use crate::agent::{AGENTS_MAX, AgentId, AgentRecord};
use crate::segment::plan::MEMBERS_MAX;
use crate::segment::{Segment, file};
use crate::sync::Ordering;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64 as Count, Ordering as Order};

/// What users of a segment do for a thread that died.
pub trait Settle {
    /// Finishes or undoes what the agent was doing, by its intent. Must release every lock it may hold and be
    /// idempotent: the survivor may die as well, at any instruction, and another one begins anew.
    ///
    /// Blocks the agent *holds* that were published must be let go (`AgentRecord::forget`) here, else they are freed
    /// afterwards. Blocks it unpublished and may not have retired yet are retired here ([`Segment::retire_for`]). Must
    /// not wait for a lock that another dead agent may hold.
    fn settle(&self, segment: &Segment, dead: AgentId, record: &AgentRecord);

    /// Called with all agents of all dead members, before any of them is settled: what they leave is as their death
    /// left it, but for what another survivor has done that died as well. Must be idempotent, and not wait.
    fn settle_together(&self, _dead: &[DeadAgent<'_>]) {}
}

/// An agent of a dead member.
pub struct DeadAgent<'s> {
    /// Its process's number.
    pub member: u32,
    /// Its number.
    pub id: AgentId,
    /// Its record.
    pub record: &'s AgentRecord,
}

impl Segment {
    /// Whether the process behind an agent is dead. A system call: ask only when stuck. True for ids that nobody has.
    pub fn is_dead(&self, agent: AgentId) -> bool {
        if agent.0 == 0 || agent.0 > AGENTS_MAX {
            return true;
        }
        match self.record(agent).state.load(Ordering::Acquire).checked_sub(1) {
            None => true,
            Some(member) => !u32::try_from(member).is_ok_and(|member| self.is_member_alive(member)),
        }
    }

    /// Whether the process behind a member's line lives. A system call.
    pub(crate) fn is_member_alive(&self, member: u32) -> bool {
        member == self.member || (member < MEMBERS_MAX && file::member_lives(&self.file, member))
    }

    /// Settles, then cleans up after, every agent of every dead member: frees what it held, takes over what it had
    /// retired, drops its pins, gives its spans back, frees its record. Returns how many agents. Several survivors may
    /// do so at once: they take turns.
    ///
    /// A system call per member; if any is dead, a scan of the heap as well. Waits while another process recovers.
    pub fn recover(&self, settle: &dyn Settle) -> usize {
        if self.dead_members().is_empty() {
            return 0;
        }
        let me = thread_number();
        if self.recovery.thread.load(Order::Relaxed) == me {
            // From within `Settle`: this thread has the turn already.
            return self.recover_in_turn(settle);
        }
        let settled = {
            let _turn = self.recovery.turn.lock().unwrap_or_else(PoisonError::into_inner);
            // Without the lock (the system refuses it) nobody may recover: two at once could undo one another's work.
            let Ok(_lock) = file::recovery(&self.file) else { return 0 };
            let _mine = Turn::of(&self.recovery.thread, me);
            self.recover_in_turn(settle)
        };
        // A walk over the heap, for which nobody need wait.
        if settled > 0
            && let Ok(agent) = self.agent()
        {
            self.tidy_heap(&agent);
        }
        settled
    }

    fn recover_in_turn(&self, settle: &dyn Settle) -> usize {
        // Settling needs an agent: who has none leaves it to others, rather than to undo what only had to be finished.
        if self.agent().is_err() {
            return 0;
        }
        let members = {
            // Who leaves lets go of its line and of its lock; between the two it would look dead.
            let Ok(_gate) = file::gate(&self.file) else { return 0 };
            self.dead_members()
        };
        if members.is_empty() {
            return 0;
        }
        let of_dead = |member: &u32| members.contains(member);
        for (.., record) in self.agents().filter(|(_, member, _)| of_dead(member)) {
            record.pins.iter().for_each(|pin| pin.store(0, Ordering::Release));
        }
        let dead = self.agents().filter(|(_, member, _)| of_dead(member));
        let dead: Vec<_> = dead.map(|(id, member, record)| DeadAgent { member, id, record }).collect();
        settle.settle_together(&dead);
        let mut settled = 0;
        for (id, _, record) in self.agents().filter(|(_, member, _)| of_dead(member)) {
            settled += usize::from(self.recover_agent(id, record, settle));
        }
        for member in members {
            let has_agents = self.agents().any(|(_, of, _)| of == member);
            if !has_agents && member < MEMBERS_MAX {
                self.line(member).state.store(0, Ordering::Release);
            }
        }
        settled
    }

    /// False if this process is at it already, further up this thread's stack.
    fn recover_agent(&self, id: AgentId, record: &AgentRecord, settle: &dyn Settle) -> bool {
        {
            let mut in_progress = self.in_progress();
            if in_progress.contains(&id) {
                return false;
            }
            in_progress.push(id);
        }
        let _done = Progress { segment: self, id };
        settle.settle(self, id, record);
        record.clear_intent();
        self.clean_tables(record, None);
        if let Ok(agent) = self.agent() {
            self.release_spans_of(&agent, id, record);
        }
        self.repair_heap_lock(id);
        record.state.store(0, Ordering::Release);
        true
    }

    fn in_progress(&self) -> std::sync::MutexGuard<'_, Vec<AgentId>> {
        self.recovering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Members whose lock is gone but whose line, or an agent, is not free: including numbers that cannot be.
    fn dead_members(&self) -> Vec<u32> {
        let high = self.header().members_high.load(Ordering::Acquire).min(u64::from(MEMBERS_MAX)) as u32;
        let used = (0..high).filter(|&member| self.line(member).state.load(Ordering::Acquire) != 0);
        used.filter(|&member| !self.is_member_alive(member)).collect()
    }

    /// Living members.
    pub fn members(&self) -> u32 {
        let high = self.header().members_high.load(Ordering::Acquire).min(u64::from(MEMBERS_MAX)) as u32;
        let used = (0..high).filter(|&member| self.line(member).state.load(Ordering::Acquire) != 0);
        used.filter(|&member| self.is_member_alive(member)).count() as u32
    }
}

/// Says which thread recovers, until dropped (also by a panic in `Settle`).
struct Turn<'s>(&'s Count);

impl<'s> Turn<'s> {
    fn of(thread: &'s Count, me: u64) -> Self {
        thread.store(me, Order::Relaxed);
        Self(thread)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(0, Order::Relaxed);
    }
}

/// An agent that is being settled, until dropped.
struct Progress<'s> {
    segment: &'s Segment,
    id: AgentId,
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.segment.in_progress().retain(|id| *id != self.id);
    }
}

/// A number for this thread, never 0.
fn thread_number() -> u64 {
    static NEXT: Count = Count::new(1);
    thread_local!(static MINE: u64 = NEXT.fetch_add(1, Order::Relaxed));
    MINE.try_with(|mine| *mine).unwrap_or(u64::MAX)
}
