//! What tests see of another process: what it holds at this moment. Users need nothing of it.

use crate::agent::AgentId;
use crate::agent::AgentRecord;
use crate::segment::{Segment, file};
use crate::sync::Ordering;

/// What a process holds in a segment.
#[doc(hidden)]
pub struct Probe<'s> {
    /// Its first agent.
    pub id: AgentId,
    /// That agent's record.
    pub record: &'s AgentRecord,
    /// Whether it holds blocks that are not yet published.
    pub is_holding: bool,
    /// Whether it has pins.
    pub is_pinning: bool,
    /// Whether it has the heap's lock.
    pub is_in_heap: bool,
}

impl Segment {
    /// Whether a process is a member, by its pid.
    #[doc(hidden)]
    pub fn is_member(&self, pid: u32) -> bool {
        self.member_of(pid).is_some()
    }

    /// What the first thread of a process holds; `None` if it has no agent.
    #[doc(hidden)]
    pub fn probe(&self, pid: u32) -> Option<Probe<'_>> {
        let member = self.member_of(pid)?;
        let (id, _, record) = self.agents().find(|(_, of, _)| *of == member)?;
        Some(Probe {
            id,
            record,
            is_holding: record.held.iter().any(|it| it.load(Ordering::Acquire) != 0),
            is_pinning: record.pins.iter().any(|it| it.load(Ordering::Acquire) != 0),
            is_in_heap: self.heap().lock.owner() == Some(id),
        })
    }

    /// Calls `act` while this process holds what is held to attach and to leave.
    #[doc(hidden)]
    pub fn with_gate<R>(&self, act: impl FnOnce() -> R) -> R {
        let _gate = file::gate(&self.file);
        act()
    }

    /// How many agents are in use, living or dead.
    #[doc(hidden)]
    pub fn agents_in_use(&self) -> usize {
        self.agents().count()
    }

    fn member_of(&self, pid: u32) -> Option<u32> {
        let high = self.header().members_high.load(Ordering::Acquire) as u32;
        (0..high).find(|&member| {
            let line = self.line(member);
            line.state.load(Ordering::Acquire) != 0 && line.pid.load(Ordering::Relaxed) == u64::from(pid)
        })
    }
}
