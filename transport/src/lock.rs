//! A lock in shared memory whose dead owner is found. A word: the agent that holds it, 0 if nobody.
//!
//! Spins about as long as a hand-over takes, then yields, then asks every millisecond whether the owner lives. A dead
//! owner's lock is not stolen by itself: [`Segment::recover`] is called, whose `Settle` repairs what it protects and
//! lets go of it, and then all go on.

use crate::agent::Agent;
use crate::member::Settle;
use crate::sync::AtomicU64;

/// The lock.
#[repr(transparent)]
pub struct RobustLock(AtomicU64);

impl RobustLock {
    /// Takes it; waits if needed. `settle` repairs if its owner is found dead.
    pub fn lock(&self, agent: &Agent<'_>, settle: &dyn Settle) {
        let _ = (agent, settle, &self.0);
        todo!()
    }

    /// Takes it if nobody has it.
    pub fn try_lock(&self, agent: &Agent<'_>) -> bool {
        let _ = agent;
        todo!()
    }

    /// Lets go of it.
    pub fn unlock(&self, agent: &Agent<'_>) {
        let _ = agent;
        todo!()
    }

    /// Who has it; 0: nobody.
    pub fn owner(&self) -> Option<crate::agent::AgentId> {
        todo!()
    }

    /// Lets go of it for `owner`, if that has it. For `Settle`.
    pub fn release_for(&self, owner: crate::agent::AgentId) -> bool {
        let _ = owner;
        todo!()
    }
}
