//! A lock in shared memory whose dead owner is found. A word: the agent that holds it, 0 if nobody.
//!
//! Spins about as long as a hand-over takes, then yields, then asks every millisecond whether the owner lives. A dead
//! owner's lock is not stolen by itself: [`Segment::recover`] is called, whose `Settle` repairs what it protects and
//! lets go of it, and then all go on. Only a lock that no `Settle` lets go of (its word was damaged, or its owner is
//! being settled by this very thread) is taken over as it is.
//!
//! | word | may be written by |
//! |---|---|
//! | 0 | anybody, to its own number, by compare-exchange |
//! | a living agent | that agent alone, to 0 |
//! | a dead agent | whoever recovers, to 0; or a waiter after recovery, to its own number; both by compare-exchange |

use crate::agent::{Agent, AgentId};
use crate::member::Settle;
use crate::segment::{Segment, Shared};
use crate::sync::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The lock.
#[repr(transparent)]
pub struct RobustLock(AtomicU64);

#[expect(unsafe_code, reason = "declares what may lie in shared memory")]
mod shared {
    // SAFETY: one atomic of fixed width.
    unsafe impl super::Shared for super::RobustLock {}
}

/// Looks before the first yield: some hundred nanoseconds, a hand-over between cores.
const SPINS: u32 = 64;
/// Yields before the waiter sleeps between looks.
const YIELDS: u32 = 64;
/// Sleep between looks.
const NAP: Duration = Duration::from_micros(50);
/// Time between questions whether the owner lives.
const DOUBT: Duration = Duration::from_millis(1);

impl RobustLock {
    /// Takes it; waits if needed. `settle` repairs if its owner is found dead.
    ///
    /// Not reentrant: an agent that has it waits for itself for ever.
    #[inline]
    pub fn lock(&self, agent: &Agent<'_>, settle: &dyn Settle) {
        if !self.try_lock(agent) {
            self.lock_slowly(agent.segment, agent.id, &mut || {
                agent.segment.recover(settle);
            });
        }
    }

    /// As `lock`, for locks whose new owner repairs what they protect itself. True if the old owner is dead.
    pub(crate) fn lock_or_take_over(&self, agent: &Agent<'_>) -> bool {
        !self.try_lock(agent) && self.lock_slowly(agent.segment, agent.id, &mut || {})
    }

    /// True if it was taken over from a dead owner.
    #[cold]
    fn lock_slowly(&self, segment: &Segment, mine: AgentId, recover: &mut dyn FnMut()) -> bool {
        let mut asked = Instant::now();
        let mut looks = 0_u32;
        loop {
            let owner = self.0.load(Ordering::Relaxed);
            if owner == 0 && self.exchange(0, mine) {
                return false;
            }
            pause(&mut looks);
            if looks > SPINS && asked.elapsed() >= DOUBT {
                asked = Instant::now();
                if owner != 0 && is_owner_dead(segment, owner) {
                    recover();
                    let still = self.0.load(Ordering::Relaxed) == owner && is_owner_dead(segment, owner);
                    if still && self.exchange(owner, mine) {
                        return true;
                    }
                }
            }
        }
    }

    /// Takes it if nobody has it.
    #[inline(always)]
    pub fn try_lock(&self, agent: &Agent<'_>) -> bool {
        self.exchange(0, agent.id)
    }

    /// Acquire: pairs with the release in `unlock`, or with the kernel's lock that told of the owner's death.
    #[inline(always)]
    fn exchange(&self, from: u64, to: AgentId) -> bool {
        self.0.compare_exchange(from, u64::from(to.0), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Lets go of it.
    #[inline(always)]
    pub fn unlock(&self, agent: &Agent<'_>) {
        debug_assert_eq!(self.0.load(Ordering::Relaxed), u64::from(agent.id.0), "unlocked by its owner");
        self.0.store(0, Ordering::Release);
    }

    /// Who has it.
    pub fn owner(&self) -> Option<AgentId> {
        let word = self.0.load(Ordering::Acquire);
        u16::try_from(word).ok().filter(|id| *id != 0).map(AgentId)
    }

    /// Lets go of it for `owner`, if that has it. For `Settle`. True if it had.
    pub fn release_for(&self, owner: AgentId) -> bool {
        self.0.compare_exchange(u64::from(owner.0), 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// A number that no agent can have is a damaged word.
fn is_owner_dead(segment: &Segment, owner: u64) -> bool {
    u16::try_from(owner).map_or(true, |id| segment.is_dead(AgentId(id)))
}

fn pause(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    if *looks <= SPINS {
        std::hint::spin_loop();
    } else if *looks <= SPINS + YIELDS {
        std::thread::yield_now();
    } else {
        std::thread::sleep(NAP);
    }
}
