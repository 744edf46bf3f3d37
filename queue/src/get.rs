//! The way out of a queue: from the chains in turn and from the ring, waiting for an item if need be.

use crate::error::Error;
use crate::layout::{
    Attached, CLOSED, Consumer, DESTROYED, IN_BLOCK, OPEN, RING, SEALED, View, Word, note, noted,
};
use crate::parcel::Contents;
use crate::put::Wait;
use crate::tally;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tarragon_transport::HeapError;
use tarragon_transport::agent::{Agent, AgentId, AgentRecord};
use tarragon_transport::doorbell::Woken;
use tarragon_transport::heap::Held;
use tarragon_transport::ring::cell::Item;
use tarragon_transport::ring::lane::Taken;

/// Takes from one chain before the next one is looked at first: so that no producer shuts out another.
const TURN: u64 = 32;
/// Looks before anything is said to others: an answer that is under way comes within them.
const LOOKS_AT_ONCE: u32 = 128;
/// Looks with the lock of the only chain in hand; a few cache misses long.
const LOOKS: u32 = 32;
/// Looks at a locked head before the core is given up.
const LOOKS_BUSY: u32 = 200;
/// Yields before the owner's life is doubted.
const YIELDS_BUSY: u32 = 220;
/// Time between doubts.
const DOUBT: Duration = Duration::from_millis(1);

/// What became of one attempt.
enum Attempt {
    Taken,
    Empty,
    /// Somebody is about to take the next item or to write it.
    Busy(AgentId),
    Failed(Error),
}

impl Attached {
    /// Takes the next item into `item`, if it is in a cell, and there is one place to look at; `may_look`: looks a
    /// while for it to come. False: nothing was done. As `put_quick`.
    #[inline(always)]
    pub(crate) fn take_quick(&self, item: &mut Item, may_look: bool) -> bool {
        let Some(agent) = self.segment.recent_agent() else { return false };
        let view = self.view();
        let is_inline = |item: &Item| {
            let is_inline = item.tag != IN_BLOCK;
            if is_inline {
                tally::taking(agent.record);
            }
            is_inline
        };
        let from = |place| Consumer { agent: &agent, place };
        let looks = if may_look { LOOKS_AT_ONCE } else { 1 };
        let taken = if self.is_strict {
            view.tickets().try_pop(&from(RING), looks, item, is_inline)
        } else if view.has_one_chain() {
            view.control.chains[0].try_pop(&view, &from(0), looks, item, is_inline)
        } else {
            return false;
        };
        if taken == Taken::Yes {
            tally::taken(agent.record);
            view.control.space.ring();
        }
        taken == Taken::Yes
    }

    /// Takes the next item into `got`; the record that its block is held in.
    #[inline(never)]
    pub(crate) fn take(&self, wait: Wait, got: &mut Contents) -> Result<&AgentRecord, Error> {
        let agent = self.segment.agent()?;
        let view = self.view();
        match view.attempt_take(&agent, got, 0) {
            Attempt::Taken => {}
            _ => view.take_waiting(&agent, got, wait)?,
        }
        view.control.space.ring();
        Ok(agent.record)
    }
}

impl View<'_> {
    /// Takes the next item into `got` if there is one now, for an agent that keeps the queue from being sealed.
    ///
    /// False: there is none, or somebody is about to take or write it.
    pub(crate) fn take_kept(&self, agent: &Agent<'_>, got: &mut Contents) -> Result<bool, Error> {
        match self.attempt_take(agent, got, 0) {
            Attempt::Taken => {
                self.control.space.ring();
                Ok(true)
            }
            Attempt::Failed(error) => Err(error),
            Attempt::Empty => {
                self.shrink_idle(agent);
                Ok(false)
            }
            Attempt::Busy(owner) => {
                let mut looks = YIELDS_BUSY;
                // A dead one is settled; of one that lives more is known a moment later.
                self.wait_for(owner, &mut looks);
                Ok(false)
            }
        }
    }

    #[cold]
    fn take_waiting(&self, agent: &Agent<'_>, got: &mut Contents, wait: Wait) -> Result<(), Error> {
        let mut looks = 0;
        loop {
            // Before the look: what is put before the closing is found.
            let state = self.state();
            if state == DESTROYED {
                return Err(Error::Destroyed);
            }
            let attempt = self.attempt_take(agent, got, 0);
            if matches!(attempt, Attempt::Empty) {
                self.shrink_idle(agent);
            }
            let busy = match attempt {
                Attempt::Taken => return Ok(()),
                Attempt::Failed(error) => return Err(error),
                Attempt::Busy(owner) => Some(owner),
                Attempt::Empty if state == SEALED => return Err(Error::Closed),
                Attempt::Empty if state == CLOSED => match self.seal() {
                    None => continue,
                    putting => putting,
                },
                Attempt::Empty if matches!(wait, Wait::Not) => return Err(Error::Empty),
                Attempt::Empty => None,
            };
            if let Some(owner) = busy {
                let gives_up = matches!(wait, Wait::Not) && looks > YIELDS_BUSY;
                if gives_up || (looks > LOOKS_BUSY && !matches!(wait, Wait::Not) && wait.is_over()) {
                    return Err(Error::Empty);
                }
                self.wait_for(owner, &mut looks);
                continue;
            }
            looks = 0;
            if let Some(ended) = self.await_item(agent, got, wait) {
                return ended;
            }
        }
    }

    /// Says of a closed queue that no put is under way any more; else says who may be at one.
    #[cold]
    pub(crate) fn seal(&self) -> Option<AgentId> {
        let putting = self.segment.announced(Word::Entered as usize);
        if putting.is_none() {
            self.control.state.fetch_max(SEALED, Ordering::SeqCst);
        }
        putting
    }

    /// Waits until there is something to do; `None`: look again.
    fn await_item(&self, agent: &Agent<'_>, got: &mut Contents, wait: Wait) -> Option<Result<(), Error>> {
        let mut last = Attempt::Empty;
        let woken = self.control.items.wait(wait.until(), || {
            last = self.attempt_take(agent, got, LOOKS);
            !matches!(last, Attempt::Empty) || self.state() != OPEN
        });
        if woken == Woken::Rung && self.has_item() {
            self.control.items.ring();
        }
        match last {
            Attempt::Taken => Some(Ok(())),
            Attempt::Failed(error) => Some(Err(error)),
            _ if woken == Woken::Timeout => Some(Err(Error::Empty)),
            Attempt::Busy(_) | Attempt::Empty => None,
        }
    }

    /// One look at every chain and the ring; at the only chain, up to `looks` more.
    #[inline(always)]
    fn attempt_take(&self, agent: &Agent<'_>, got: &mut Contents, looks: u32) -> Attempt {
        let mut failed = None;
        let Contents { item, block } = got;
        let mut claim = |item: &Item| match self.claim(agent, item) {
            Ok(claimed) => {
                *block = claimed;
                tally::taking(agent.record);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        let chains = self.chains();
        let has_ring = self.has_ring();
        let from = |place| Consumer { agent, place };
        let taken = match chains {
            [] if has_ring => self.tickets().try_pop(&from(RING), 1, item, claim),
            [only] if !has_ring && looks == 0 => only.try_pop(self, &from(0), 1, item, claim),
            [only] if !has_ring => only.spin_pop(self, &from(0), looks, item, claim),
            _ => self.take_round(agent, item, &mut claim),
        };
        match taken {
            Taken::Yes => {
                tally::taken(agent.record);
                Attempt::Taken
            }
            Taken::Empty => Attempt::Empty,
            Taken::Busy(owner) => Attempt::Busy(owner),
            Taken::Refused => Attempt::Failed(failed.unwrap_or(Error::Damaged)),
            Taken::Damaged => Attempt::Failed(Error::Damaged),
        }
    }

    /// Looks at the chains from this thread's turn on, and at the ring among them.
    fn take_round(&self, agent: &Agent<'_>, item: &mut Item, claim: &mut dyn FnMut(&Item) -> bool) -> Taken {
        let chains = self.chains();
        let places = chains.len() + usize::from(self.has_ring());
        if places == 0 {
            return Taken::Empty;
        }
        let round = noted(agent.record, Word::Round);
        let first = (round / TURN) as usize % places;
        let mut busy = None;
        for place in (first..places).chain(0..first) {
            let taken = match chains.get(place) {
                Some(chain) => chain.try_pop(self, &Consumer { agent, place }, 1, item, &mut *claim),
                None => self.tickets().try_pop(&Consumer { agent, place: RING }, 1, item, &mut *claim),
            };
            match taken {
                Taken::Empty => {}
                Taken::Busy(owner) => busy = Some(owner),
                Taken::Yes => {
                    let next = if place == first { round + 1 } else { place as u64 * TURN + 1 };
                    note(agent.record, Word::Round, next);
                    return taken;
                }
                Taken::Refused | Taken::Damaged => return taken,
            }
        }
        busy.map_or(Taken::Empty, Taken::Busy)
    }

    /// Makes an item's block this agent's, before the take is committed.
    #[inline(always)]
    fn claim(&self, agent: &Agent<'_>, item: &Item) -> Result<Option<(Held, u64)>, Error> {
        if item.tag != IN_BLOCK {
            return Ok(None);
        }
        let held = self.segment.hold(agent, item.word(0)).map_err(|error| match error {
            HeapError::Held { max } => Error::Held { max },
            _ => Error::Damaged,
        })?;
        Ok(Some((held, item.word(1))))
    }

    /// Waits a moment for `owner` to finish what it is about; if it is dead, finishes it.
    pub(crate) fn wait_for(&self, owner: AgentId, looks: &mut u32) {
        *looks += 1;
        match *looks {
            ..LOOKS_BUSY => std::hint::spin_loop(),
            LOOKS_BUSY..YIELDS_BUSY => std::thread::yield_now(),
            _ if self.segment.is_dead(owner) => {
                self.segment.recover(self);
            }
            _ => std::thread::sleep(DOUBT),
        }
    }

    /// Whether somebody could take something now.
    pub(crate) fn has_item(&self) -> bool {
        self.chains().iter().any(|chain| chain.is_ready(self))
            || (self.has_ring() && self.tickets().is_ready())
    }

    /// If somebody died taking or writing the next item: finishes that.
    pub(crate) fn recover_heads(&self) {
        let sights = self.chains().iter().map(|chain| chain.head().look());
        let heads = sights.filter_map(|sight| sight.owner.or(sight.keeper));
        let of_ring = if self.has_ring() { self.tickets().busy() } else { None };
        if heads.chain(of_ring).any(|owner| self.segment.is_dead(owner)) {
            self.segment.recover(self);
        }
    }
}
