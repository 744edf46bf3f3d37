//! A lock in shared memory whose dead owner is found. A word: the agent that holds it (four times), 0 if nobody.
//!
//! Spins about as long as a hand-over takes, then yields, then asks every millisecond whether the owner lives. A dead
//! owner's lock is not stolen by itself: [`Segment::recover`] is called, whose `Settle` repairs what it protects and
//! lets go of it, and then all go on. Only a lock that no `Settle` lets go of (its word was damaged, or its owner is
//! being settled by this very thread) is taken over as it is. Who then still believes to have it leaves it alone.
//!
//! | word | may be written by |
//! |---|---|
//! | 0 | anybody, to its own number, by compare-exchange |
//! | a living agent | that agent alone, to 0 |
//! | a dead agent | whoever recovers, to 0; or a waiter after recovery, to its own number; both by compare-exchange |

#![expect(unsafe_code, reason = "declares what may lie in shared memory")]

use crate::agent::{Agent, AgentId};
use crate::member::Settle;
use crate::segment::{Segment, Shared};
use crate::sync::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The lock.
#[repr(transparent)]
pub struct RobustLock(AtomicU64);

// SAFETY: one atomic of fixed width.
unsafe impl Shared for RobustLock {}

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
        self.0.compare_exchange(from, word(to), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Lets go of it. Does nothing if it says that this agent does not have it: then memory was damaged, and either
    /// another agent has taken it over as a dead owner's, or will, or these bytes are no lock any more.
    #[inline(always)]
    pub fn unlock(&self, agent: &Agent<'_>) {
        // Nobody else writes the word of a living owner, so no compare-exchange is needed for what memory says while it
        // is sound.
        if self.0.load(Ordering::Relaxed) == word(agent.id) {
            self.0.store(0, Ordering::Release);
        }
    }

    /// Who has it.
    pub fn owner(&self) -> Option<AgentId> {
        agent_in(self.0.load(Ordering::Acquire))
    }

    /// Lets go of it for `owner`, if that has it. For `Settle`. True if it had.
    pub fn release_for(&self, owner: AgentId) -> bool {
        self.0.compare_exchange(word(owner), 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// What a lock says that this agent has: its number four times, so that no flipped byte makes one agent another, or
/// makes an open lock that of a living one, which nobody would ever let go of.
#[inline(always)]
fn word(agent: AgentId) -> u64 {
    u64::from(agent.0) * 0x0001_0001_0001_0001
}

/// Who has a lock with this word; `None` if it is open or damaged.
fn agent_in(found: u64) -> Option<AgentId> {
    let agent = AgentId(found as u16);
    (found != 0 && found == word(agent)).then_some(agent)
}

/// A word that no agent writes is a damaged one.
fn is_owner_dead(segment: &Segment, owner: u64) -> bool {
    agent_in(owner).is_none_or(|id| segment.is_dead(id))
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

#[cfg(test)]
mod tests {
    use super::{AgentId, agent_in, word};
    #[cfg(not(loom))]
    use super::{AtomicU64, Ordering, RobustLock, Segment, Settle};

    #[cfg(not(loom))]
    struct Nothing;

    #[cfg(not(loom))]
    impl Settle for Nothing {
        fn settle(&self, _: &Segment, _: AgentId, _: &crate::agent::AgentRecord) {}
    }

    /// Once an assertion failed here: flipped bytes had made the heap hand out a page in which a lock lay.
    #[test]
    #[cfg(not(loom))]
    fn a_lock_overwritten_while_it_is_held_is_left_alone_and_taken_over() {
        let spec = crate::segment::Spec { kind: "test", layout: 1, control_bytes: 64, heap_bytes: 1 << 20 };
        let segment = Segment::create(&spec).unwrap();
        let agent = segment.agent().unwrap();
        let mine = word(agent.id);
        for damaged in [0, 1, mine ^ 1, mine ^ 0xff << 56, word(AgentId(4711)), u64::MAX] {
            let lock = RobustLock(AtomicU64::new(0));
            lock.lock(&agent, &Nothing);
            lock.0.store(damaged, Ordering::Relaxed);
            lock.unlock(&agent);
            assert_eq!(lock.0.load(Ordering::Relaxed), damaged, "it is not ours to write: {damaged:x}");
            lock.lock(&agent, &Nothing);
            assert_eq!(lock.owner(), Some(agent.id), "and nobody waits for ever: {damaged:x}");
            lock.unlock(&agent);
            assert_eq!(lock.owner(), None);
        }
    }

    #[test]
    fn a_flipped_byte_names_nobody() {
        assert_eq!(agent_in(0), None);
        for agent in [1, 2, 3, 255, 256, 4711, 8191].map(AgentId) {
            assert_eq!(agent_in(word(agent)), Some(agent));
            for flip in (0..8).flat_map(|byte| (1..256_u64).map(move |bits| bits << (8 * byte))) {
                assert_eq!(agent_in(word(agent) ^ flip), None, "{flip:x}");
                assert_eq!(agent_in(flip), None, "{flip:x}");
            }
        }
    }
}
