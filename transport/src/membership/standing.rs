//! Membership as a fabric shows it, and what the watch's thread does at each look.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{CastOut, Change, Loss, Members, SIGNS};
use crate::fabric::{Fabric, FabricError, PeerState};
use crate::message::is_handling;
use crate::rank::Rank;

/// How often who waits for a decision looks who lives.
const LOOK: Duration = Duration::from_millis(50);

impl Fabric {
    /// The ranks that the world has lost, in the order in which rank 0 has declared them.
    pub fn losses(&self) -> Vec<Loss> {
        self.members().lock().log.clone()
    }

    /// The epoch of the last loss that this rank knows of; 0 as long as there is none.
    pub fn epoch(&self) -> u32 {
        self.members().epoch()
    }

    /// All members know of all losses up to this epoch: none of them takes anything from those ranks any more.
    pub fn settled_epoch(&self) -> u32 {
        self.members().settled.load(Ordering::Acquire)
    }

    /// The epoch in which a rank was declared lost, if it was; a load as long as nobody is.
    pub fn lost_in(&self, rank: Rank) -> Option<u32> {
        let word = if self.members().is_marked() { self.members().lost_word(rank) } else { 0 };
        (word != 0).then_some(word as u32)
    }

    /// Whether a rank is lost, or this one cast out: what was at hand may not hold any more. A load.
    pub fn is_disturbed(&self) -> bool {
        self.members().is_marked()
    }

    /// Why this rank is of the world no longer, if so.
    pub fn cast_out(&self) -> Option<CastOut> {
        self.members().cast_out()
    }

    /// Whether the world goes on without ranks that are lost.
    pub fn survives_losses(&self) -> bool {
        self.members().is_survived()
    }

    /// The error that says what has become of a rank that cannot be reached. Where losses are survived rank 0 decides
    /// that, and this waits for it, and moves communication on: two ranks that cannot reach one another would take each
    /// other for dead, and only one of them is right.
    ///
    /// # Panics
    /// Inside a handler, where it would wait for itself.
    pub fn fate_of(&self, rank: Rank) -> FabricError {
        assert!(!is_handling(), "a handler that waits for rank 0 would wait for itself");
        let members = self.members();
        loop {
            if self.way_peer(rank) == PeerState::Left {
                return FabricError::PeerLeft { rank };
            }
            if !members.is_survived() || members.cast_out().is_some() || members.lost_word(rank) != 0 {
                return members.error_of(rank);
            }
            self.check_peers();
            self.wait(LOOK);
        }
    }

    /// Has `listener` called for each change of membership, those that were before among them, in order, each once, by
    /// a thread of the world's. It must not wait for other ranks.
    pub fn on_change(&self, listener: impl Fn(&Fabric, &Change) + Send + Sync + 'static) {
        let mut state = self.members().lock();
        state.listeners.push((Arc::new(listener), 0, 0, false));
        self.members().call(&mut state);
        drop(state);
        self.rouse_watch();
    }

    /// One look of the watch. How long it may sleep then; `None` if this rank is cast out: no further look is needed.
    pub(crate) fn watch(&self, beats: &mut Beats) -> Option<Duration> {
        let members = self.members();
        self.look_for_signs(beats);
        self.find_dead();
        let now = Instant::now();
        let period = members.limit().map(|limit| limit / SIGNS);
        let is_due = period.is_some_and(|period| beats.last.is_none_or(|last| now - last >= period));
        if members.own == Rank(0) {
            self.judge(now);
        } else {
            self.report(now, is_due);
        }
        // Who has heard of a loss says so at once, when all here have been told.
        let told = members.epoch();
        self.bury_the_lost(beats);
        self.tell_listeners();
        let is_news = beats.epoch != told || beats.settled != self.settled_epoch();
        if members.cast_out().is_none() && (is_due || is_news) {
            (beats.last, beats.epoch, beats.settled) = (Some(now), told, self.settled_epoch());
            self.give_sign(told, is_news);
        }
        if members.cast_out().is_some() {
            return None;
        }
        Some(self.time_to_look(beats, period))
    }

    fn time_to_look(&self, beats: &Beats, period: Option<Duration>) -> Duration {
        let members = self.members();
        let now = Instant::now();
        let mut next = period.map(|period| beats.last.unwrap_or(now) + period);
        let state = members.lock();
        let silence = match members.own {
            Rank(0) => state.judge.next_silence(),
            _ => members.limit().map(|limit| state.heard + limit),
        };
        next = next.into_iter().chain(silence).min();
        let long = Duration::from_secs(3600);
        next.map_or(long, |next| next.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    /// At rank 0: declares who is lost, and says when all know.
    fn judge(&self, now: Instant) {
        let members = self.members();
        for rank in (1..self.size()).map(Rank) {
            if self.way_peer(rank) == PeerState::Left {
                members.lock().judge.leave(rank);
            }
        }
        loop {
            let mut state = members.lock();
            let Some((rank, why)) = state.judge.verdict(now) else { break };
            let epoch = state.log.len() as u32 + 1;
            drop(state);
            members.lose(epoch, rank, why);
            self.spread(epoch, rank, why);
        }
        let state = members.lock();
        let epoch = members.epoch();
        if state.judge.is_settled(epoch) {
            members.settled.fetch_max(epoch, Ordering::AcqRel);
        }
    }

    /// Elsewhere: tells rank 0 who was found gone, and who is silent; finds that nothing comes from rank 0.
    fn report(&self, now: Instant, is_due: bool) {
        let members = self.members();
        let mut state = members.lock();
        let is_away = state.own.was_away(members.limit(), now);
        if is_away && !members.is_survived() {
            state.heard = state.heard.max(now);
        }
        let silence = now.saturating_duration_since(state.heard);
        let found = state.found[state.reported..].to_vec();
        state.reported = state.found.len();
        drop(state);
        let is_over = self.way_peer(Rank(0)) == PeerState::Left;
        if !is_over && members.limit().is_some_and(|limit| silence >= limit) {
            members.leave_the_world(CastOut::Silence);
        }
        for rank in found {
            if members.lost_word(rank) == 0 {
                self.tell_suspicion(rank);
            }
        }
        if let Some(limit) = members.limit().filter(|_| is_due || is_away) {
            self.look_for_silence(limit, is_away);
        }
    }

    /// Takes connections to the lost away, and ends their processes on this node.
    fn bury_the_lost(&self, beats: &mut Beats) {
        let lost: Vec<Rank> =
            self.members().lock().log[beats.buried..].iter().map(|loss| loss.rank).collect();
        beats.buried += lost.len();
        lost.into_iter().for_each(|rank| self.bury(rank));
    }

    /// Tells listeners what they were not told. No lock is held meanwhile.
    fn tell_listeners(&self) {
        let members = self.members();
        let mut at = 0;
        loop {
            let mut state = members.lock();
            let (log, settled) = (state.log.clone(), members.settled.load(Ordering::Acquire));
            let Some((listener, losses, known, is_told)) = state.listeners.get_mut(at) else { return };
            let fresh = log[*losses..].iter().cloned().map(Change::Lost);
            let settled = settled.min(log.len() as u32);
            let settles = (settled > *known).then_some(Change::Settled(settled));
            let out = members.cast_out().filter(|_| !*is_told).map(Change::CastOut);
            let changes: Vec<Change> = fresh.chain(settles).chain(out).collect();
            (*losses, *known) = (log.len(), settled.max(*known));
            *is_told |= members.cast_out().is_some();
            let listener = Arc::clone(listener);
            drop(state);
            changes.iter().for_each(|change| listener(self, change));
            at += 1;
        }
    }
}

/// What the watch remembers between looks.
#[derive(Default)]
pub(crate) struct Beats {
    /// When this rank gave its last sign, and what it knew then.
    last: Option<Instant>,
    epoch: u32,
    settled: u32,
    /// Losses that this rank has done with.
    buried: usize,
    /// The last signs of others, where they lie in shared memory.
    pub(crate) seen: Vec<u64>,
}

impl Members {
    /// Sleeps until something is to be looked at, for so long at most.
    pub(crate) fn sleep(&self, timeout: Duration) {
        let state = self.lock();
        let is_quiet = |state: &mut super::State| !state.is_called;
        let (mut state, _) = self
            .called
            .wait_timeout_while(state, timeout, is_quiet)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.is_called = false;
    }

    /// Whether the watch was called since this was last asked.
    pub(crate) fn take_call(&self) -> bool {
        std::mem::take(&mut self.lock().is_called)
    }

    /// Ends a sleep.
    pub(crate) fn rouse(&self) {
        let mut state = self.lock();
        self.call(&mut state);
    }
}
