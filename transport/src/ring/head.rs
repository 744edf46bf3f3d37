//! Where the consumers of a ring are, and which of them is taking an item right now.
//!
//! # The protocol
//! One word holds the ticket that is to be taken next, and the agent that is taking it (0: nobody). A consumer takes
//! the lock by a compare-exchange that adds its number, copies the item, and commits and unlocks by *one* store. So a
//! consumer that dies before the store has taken nothing, and one that dies after it has the item. Only the owner
//! changes the word while there is one; a survivor who settles a dead owner puts 0 in its place.
//!
//! The compare-exchange compares the ticket too: what a consumer saw before in the cell of that ticket is still so,
//! since nobody took it in between.
//!
//! A consumer may hold the lock for some looks while it waits for an item, so that the arrival costs it no
//! compare-exchange. It never sleeps with it. So a locked head is a matter of moments, unless its owner was killed,
//! stopped or lost its core: others look again, ask whether it lives, and nap a millisecond at a time; nobody has to
//! tell them.

use crate::agent::AgentId;
use crate::sync::{AtomicU64, Ordering};

const OWNER_BITS: u32 = 13;
const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;

/// The consumers' end of a ring. Zeroed: the next ticket is 0.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Head {
    word: AtomicU64,
    /// The ring's: words that only the owner of the lock writes.
    pub(super) owned: [AtomicU64; 4],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Head>() == 64);

/// What a look at a head shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The ticket that is next.
    pub ticket: u64,
    /// Who is taking it.
    pub owner: Option<AgentId>,
}

impl Head {
    /// The ticket that is next, and who is taking it.
    #[inline(always)]
    pub fn look(&self) -> Sight {
        let word = self.word.load(Ordering::Acquire);
        let owner = (word & OWNER_MASK) as u16;
        Sight { ticket: word >> OWNER_BITS, owner: (owner != 0).then_some(AgentId(owner)) }
    }

    /// Takes the lock, if `ticket` is still next and nobody has it.
    #[inline(always)]
    pub(super) fn try_lock(&self, ticket: u64, agent: AgentId) -> bool {
        let free = ticket << OWNER_BITS;
        let locked = free | u64::from(agent.0);
        self.word.compare_exchange(free, locked, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The owner lets go; `ticket` is next: the one it locked, or after it has taken that, the one after.
    #[inline(always)]
    pub(super) fn unlock(&self, ticket: u64) {
        self.word.store(ticket << OWNER_BITS, Ordering::Release);
    }

    /// Sets the first ticket of a ring that nobody uses yet.
    pub(super) fn start(&self, ticket: u64) {
        self.word.store(ticket << OWNER_BITS, Ordering::Release);
    }

    /// Lets go for a dead owner: what it was taking is next again. True if it had the lock.
    pub fn release_for(&self, dead: AgentId) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let owned = word & OWNER_MASK == u64::from(dead.0);
        owned
            && self
                .word
                .compare_exchange(word, word & !OWNER_MASK, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}
