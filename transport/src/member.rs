//! Who uses a segment, and which of them are dead.
//!
//! A *member* is a process. It claims a line (up to 4096) and a lock of the kernel on that line's byte of the file (an
//! open file description lock, dropped at death however it comes), under the `GATE` byte. Only that lock says who is
//! alive: never a pid.

use crate::agent::{AgentId, AgentRecord};
use crate::segment::Segment;

/// What users of a segment do for a thread that died.
pub trait Settle {
    /// Finishes or undoes what the agent was doing, by its intent. Must release every lock it may hold and be
    /// idempotent: the survivor may die as well, at any instruction, and another one begins anew.
    ///
    /// Blocks the agent *holds* that were published must be let go (`AgentRecord::forget`) here, else they are freed
    /// afterwards.
    fn settle(&self, segment: &Segment, dead: AgentId, record: &AgentRecord);
}

impl Segment {
    /// Whether the process behind an agent is dead. A system call: ask only when stuck. True for ids that nobody has.
    pub fn is_dead(&self, agent: AgentId) -> bool {
        let _ = agent;
        todo!()
    }

    /// Settles, then cleans up after, every agent of every dead member: frees what it held, takes over what it had
    /// retired, drops its pins, gives its spans back, frees its record. Returns how many agents. Several survivors may
    /// do so at once: each dead agent is done by one (a lock on its record, itself robust).
    pub fn recover(&self, settle: &dyn Settle) -> usize {
        let _ = settle;
        todo!()
    }

    /// Living members.
    pub fn members(&self) -> u32 {
        todo!()
    }
}
