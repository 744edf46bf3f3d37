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
//!
//! # Keeping the head
//! A consumer that has taken many items with nobody in between *keeps* the head: with its last unlock it leaves its
//! number in the word, and a bit that says so. From then on it takes by plain stores alone, and others must *recall*
//! the head before they may take.
//!
//! | word | written by |
//! |---|---|
//! | `word`: free or locked | as above |
//! | `word`: kept by k | k, while announced: the next ticket, by a store. All: take k off, by a compare-exchange |
//! | `recalls` | who recalls: +1 |
//! | `granted` | who keeps: `recalls` as it was before that |
//! | `takers` | the owner of the lock: who took last, and how many in a row |
//!
//! *The keeper takes.* (1) It announces the ticket ([`Taker::begin`]) and passes a light fence; (2) it looks whether
//! `recalls` is `granted` still, and then whether the word is as before; if not, it withdraws and takes itself off;
//! (3) it copies the item and commits by a store of the word with the next ticket; (4) it withdraws ([`Taker::end`]).
//!
//! *Another recalls.* (1) It has seen the word w, kept by k; (2) it raises `recalls`; (3) it passes the heavy fence;
//! (4) if k is announced, it waits for k as for an owner; else (5) it takes k off by a compare-exchange of w.
//!
//! *No item is taken twice.* After (3) the keeper is seen as announced, or it sees the raised count and takes nothing
//! more by this grant. A new grant comes only with the commit of a take under the lock, so with a higher ticket than
//! that of w; then (5) fails, as it does if the keeper has taken anything since (1).
//!
//! *Recalls stay rare*: each doubles how many items in a row a consumer must have taken before it keeps the head, up to
//! `KEEP_AFTER` times 2^`DOUBLINGS_MAX`, which take longer than a hundred recalls.
//!
//! *Deaths.* A keeper that is not announced is no hindrance. One that died announced, with the ticket it announced
//! still the next one, has not taken it; with a later one, it has. Who settles it takes it off the word. An agent's
//! number may come to another thread while the word says that it keeps the head: then that thread does.

use crate::agent::AgentId;
use crate::sync::{AtomicU64, Ordering};

const OWNER_BITS: u32 = 13;
const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;
/// The agent keeps the head, and takes an item only while it is announced.
const KEPT: u64 = 1 << OWNER_BITS;
const TICKET_SHIFT: u32 = OWNER_BITS + 1;
const COUNT_BITS: u32 = 48;

/// Items in a row after which a consumer keeps the head that nobody has ever recalled.
#[cfg(not(loom))]
pub(super) const KEEP_AFTER: u64 = 32;
#[cfg(loom)]
pub(super) const KEEP_AFTER: u64 = 1;
/// How often that doubles.
const DOUBLINGS_MAX: u64 = 12;

/// The consumers' end of a ring. Zeroed: the next ticket is 0.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Head {
    word: AtomicU64,
    /// The ring's: words that only the owner of the lock, or the announced keeper, writes.
    pub(super) owned: [AtomicU64; 4],
    recalls: AtomicU64,
    granted: AtomicU64,
    takers: AtomicU64,
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
    /// Who keeps the head, and may be taking it.
    pub keeper: Option<AgentId>,
}

impl Sight {
    #[inline(always)]
    fn of(word: u64) -> Self {
        let agent = (word & OWNER_MASK) as u16;
        let agent = (agent != 0).then_some(AgentId(agent));
        let (owner, keeper) = if word & KEPT == 0 { (agent, None) } else { (None, agent) };
        Self { ticket: word >> TICKET_SHIFT, owner, keeper }
    }
}

/// A consumer, and how it says that it is taking an item from a ring that it keeps.
pub trait Taker {
    /// Its number.
    fn id(&self) -> AgentId;
    /// Whether announcing is cheaper than a lock: only then it keeps a head.
    fn may_keep(&self) -> bool;
    /// Announces that it takes the item of this ticket from this ring. What it loads afterwards is not older, as seen
    /// by who asks with [`is_taking`](Self::is_taking).
    fn begin(&self, ticket: u64);
    /// Says that this is over; who sees that sees what was done.
    fn end(&self);
    /// Whether another agent has announced that it takes from this ring, dead or alive. Who announces it during the
    /// call sees what was stored before.
    fn is_taking(&self, other: AgentId) -> bool;
}

/// How a consumer comes to a head, and the ticket that is next.
pub(super) enum Approach {
    /// It must take the lock before it takes the item.
    Free(u64),
    /// It keeps the head and is announced: nobody else takes the item until it [ends](Taker::end) that.
    Kept(u64),
    /// Another one is there.
    Busy(AgentId),
}

/// The right to take the next item.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub(super) ticket: u64,
    is_kept: bool,
}

impl Head {
    /// The ticket that is next, and who is taking it.
    #[inline(always)]
    pub fn look(&self) -> Sight {
        Sight::of(self.word.load(Ordering::Acquire))
    }

    /// Comes to the head to take an item.
    #[inline(always)]
    pub(super) fn approach(&self, taker: &impl Taker) -> Approach {
        let word = self.word.load(Ordering::Acquire);
        if word & (KEPT | OWNER_MASK) == KEPT | u64::from(taker.id().0) {
            let ticket = word >> TICKET_SHIFT;
            taker.begin(ticket);
            if self.is_granted(word) {
                return Approach::Kept(ticket);
            }
            taker.end();
            self.let_go(word);
        }
        self.approach_shared(taker)
    }

    /// Comes to a head that somebody else may keep.
    fn approach_shared(&self, taker: &impl Taker) -> Approach {
        loop {
            let word = self.word.load(Ordering::Acquire);
            let sight = Sight::of(word);
            match (sight.owner, sight.keeper) {
                (Some(owner), _) => return Approach::Busy(owner),
                (None, None) => return Approach::Free(sight.ticket),
                (None, Some(keeper)) if keeper != taker.id() && !self.recall(keeper, taker) => {
                    return Approach::Busy(keeper);
                }
                (None, Some(_)) => self.let_go(word),
            }
        }
    }

    /// Whether this agent, which is announced, keeps the head as it was seen and nobody has recalled it. The word is
    /// looked at last: if it still says so, the grant that was read is this agent's.
    #[inline(always)]
    fn is_granted(&self, word: u64) -> bool {
        let recalls = self.recalls.load(Ordering::Acquire);
        recalls == self.granted.load(Ordering::Acquire) && self.word.load(Ordering::Acquire) == word
    }

    /// Whether the keeper was not about to take an item, and takes none any more while the word is as it was seen.
    #[cold]
    fn recall(&self, keeper: AgentId, taker: &impl Taker) -> bool {
        self.recalls.fetch_add(1, Ordering::SeqCst);
        !taker.is_taking(keeper)
    }

    /// Takes the keeper off the word, if it is as it was seen.
    #[cold]
    fn let_go(&self, word: u64) {
        let free = word >> TICKET_SHIFT << TICKET_SHIFT;
        let _by_another = self.word.compare_exchange(word, free, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The right to take the item of `ticket`, if it is still next. `is_kept`: as [approached](Self::approach).
    #[inline(always)]
    pub(super) fn right(&self, ticket: u64, is_kept: bool, taker: &impl Taker) -> Option<Right> {
        (is_kept || self.try_lock(ticket, taker.id())).then_some(Right { ticket, is_kept })
    }

    /// The item was taken: `next` is next.
    #[inline(always)]
    pub(super) fn commit(&self, right: Right, next: u64, taker: &impl Taker) {
        let kept = next << TICKET_SHIFT | KEPT | u64::from(taker.id().0);
        if right.is_kept || self.is_worth_keeping(taker) {
            self.word.store(kept, Ordering::Release);
        } else {
            self.unlock(next);
        }
    }

    /// The item was not taken.
    #[inline(always)]
    pub(super) fn give_back(&self, right: Right) {
        if !right.is_kept {
            self.unlock(right.ticket);
        }
    }

    /// With the lock in hand: counts a take, and grants the head if there were enough in a row.
    #[inline(always)]
    fn is_worth_keeping(&self, taker: &impl Taker) -> bool {
        let mine = u64::from(taker.id().0) << COUNT_BITS;
        let last = self.takers.load(Ordering::Relaxed);
        let count = if last >> COUNT_BITS << COUNT_BITS == mine { last - mine + 1 } else { 1 };
        self.takers.store(mine | count, Ordering::Relaxed);
        let recalls = self.recalls.load(Ordering::Acquire);
        if count < KEEP_AFTER << recalls.min(DOUBLINGS_MAX) || !taker.may_keep() {
            return false;
        }
        self.takers.store(0, Ordering::Relaxed);
        // Pairs with the acquire load in `is_granted`: who sees this grant sees the lock before it in the word.
        self.granted.store(recalls, Ordering::Release);
        true
    }

    /// Takes the lock, if `ticket` is still next and nobody has it.
    #[inline(always)]
    pub(super) fn try_lock(&self, ticket: u64, agent: AgentId) -> bool {
        let free = ticket << TICKET_SHIFT;
        let locked = free | u64::from(agent.0);
        self.word.compare_exchange(free, locked, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The owner lets go; `ticket` is next: the one it locked, or after it has taken that, the one after.
    #[inline(always)]
    pub(super) fn unlock(&self, ticket: u64) {
        self.word.store(ticket << TICKET_SHIFT, Ordering::Release);
    }

    /// Sets the first ticket of a ring that nobody uses yet.
    pub(super) fn start(&self, ticket: u64) {
        self.word.store(ticket << TICKET_SHIFT, Ordering::Release);
    }

    /// For those who settle `dead`: whether it was about to take the next item and has not. `announced` is the ticket
    /// that it had announced to take from this ring.
    pub fn is_held_by(&self, dead: AgentId, announced: Option<u64>) -> bool {
        let sight = self.look();
        sight.owner == Some(dead) || (sight.keeper == Some(dead) && announced == Some(sight.ticket))
    }

    /// Lets go for a dead owner or keeper: what it was taking is next again. True if it was there.
    pub fn release_for(&self, dead: AgentId) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let owned = word & OWNER_MASK == u64::from(dead.0);
        let free = word >> TICKET_SHIFT << TICKET_SHIFT;
        owned && self.word.compare_exchange(word, free, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
