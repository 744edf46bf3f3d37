//! How long to wait for somebody who holds an entry, and when to ask whether he lives.

use super::entry::{Ctl, Entry};
use super::intent::{ENTRY, PAGE};
use super::page::{PAGE_BYTES, Page};
use super::{Store, damaged};
use crate::error::Error;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tarragon_transport::agent::AgentId;

/// Turns of a loop before the processor is given to others.
const SPINS: u32 = 128;
/// How often it is asked whether the owner lives.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// After this time it is asked whether an owner that lives really has the lock.
const TRUST_MAX: Duration = Duration::from_millis(300);
/// After this time an owner that lives, and still has not let go of what takes nanoseconds, is given up: it is
/// stopped, or the memory is damaged.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Of one waiter, over one operation.
#[derive(Default)]
pub(super) struct Patience {
    turns: u32,
    /// The lock that was waited for last, and since when.
    seen: Option<Ctl>,
    began: Option<Instant>,
    asked: Option<Instant>,
}

impl Patience {
    /// Waits a little for the owner of an entry to let go of it; settles what it left if it is dead.
    #[cold]
    pub(super) fn wait(&mut self, store: &Store, entry: &Entry, seen: Ctl) -> Result<(), Error> {
        self.turns += 1;
        if self.turns < SPINS {
            std::hint::spin_loop();
            return Ok(());
        }
        std::thread::yield_now();
        let now = Instant::now();
        let asked = *self.asked.get_or_insert(now);
        if now.duration_since(asked) < ASK_EVERY {
            return Ok(());
        }
        self.asked = Some(now);
        if store.segment.is_dead(seen.owner()) {
            store.recover();
            // Whoever held it was settled; if the lock is still there, and its number has not come to life again,
            // nobody set it: its bits were damaged.
            if store.segment.is_dead(seen.owner()) {
                let (locked, open) = (seen.0, seen.unlocked().0);
                let _ = entry.ctl.compare_exchange(locked, open, Ordering::AcqRel, Ordering::Relaxed);
            }
            return Ok(());
        }
        if self.seen != Some(seen) {
            // Somebody else's lock, or a later one of the same: no single one is held that long.
            (self.seen, self.began) = (Some(seen), Some(now));
        }
        let waited = now.duration_since(*self.began.get_or_insert(now));
        if waited > TRUST_MAX && !store.has_locked(seen.owner(), entry) {
            let _ =
                entry.ctl.compare_exchange(seen.0, seen.unlocked().0, Ordering::AcqRel, Ordering::Relaxed);
        } else if waited > WAIT_MAX {
            return Err(damaged("a lock that its owner does not let go of", store.offset_of(entry)));
        }
        Ok(())
    }
}

impl Store {
    /// Whether an agent that lives can have an entry's lock: another one than this thread's, which waits, that noted
    /// the entry before, or has its page. Else the lock is a flipped bit.
    fn has_locked(&self, owner: AgentId, entry: &Entry) -> bool {
        let at = self.offset_of(entry);
        let page = at - at % PAGE_BYTES;
        let is_mine = self.segment.agent().is_ok_and(|agent| agent.id == owner);
        let has_page = || self.segment.at::<Page>(page).is_some_and(|page| page.lock.owner() == Some(owner));
        let has_noted = |word, offset| self.segment.intent_of(owner, word) == offset;
        !is_mine && (has_noted(ENTRY, at) || has_noted(PAGE, page) && has_page())
    }
}
