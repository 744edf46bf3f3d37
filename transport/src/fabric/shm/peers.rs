//! Who of the other ranks is there, and what is done after one that died.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::layout::{JOINED, LEFT, Map};
use super::link::{INTENT_LANE, INTENT_OFFSET, INTENT_TICKET};
use crate::agent::{AgentId, AgentRecord};
use crate::fabric::PeerState;
use crate::member::Settle;
use crate::rank::Rank;
use crate::segment::Segment;
use crate::sync::Ordering;

const HERE: u8 = 0;
const GONE: u8 = 1;
const DEAD: u8 = 2;

/// What this rank has found out about the others. Nobody comes back.
pub(super) struct Peers {
    states: Vec<AtomicU8>,
}

impl Peers {
    pub(super) fn new(size: u32) -> Peers {
        Peers { states: (0..size).map(|_| AtomicU8::new(HERE)).collect() }
    }

    pub(super) fn state(&self, rank: Rank) -> PeerState {
        match self.states[rank.index()].load(Relaxed) {
            HERE => PeerState::Here,
            GONE => PeerState::Left,
            _ => PeerState::Dead,
        }
    }

    /// Looks after all; settles what those newly found dead have left. Returns the dead, and which of them are new.
    pub(super) fn check(&self, map: &Map, own: Rank) -> (Vec<Rank>, Vec<Rank>) {
        let (mut dead, mut fresh) = (Vec::new(), Vec::new());
        for rank in (0..map.size).map(Rank).filter(|&rank| rank != own) {
            let found = match self.states[rank.index()].load(Relaxed) {
                HERE => look(map, rank),
                known => known,
            };
            let is_new = self.states[rank.index()].swap(found, Relaxed) == HERE && found == DEAD;
            fresh.extend(is_new.then_some(rank));
            dead.extend((found == DEAD).then_some(rank));
        }
        if !fresh.is_empty() {
            map.segment.recover(&Settlement { map });
        }
        (dead, fresh)
    }

    /// Says to all that this rank has left; it knows that of itself.
    pub(super) fn leave(&self, map: &Map, own: Rank) {
        map.line(own).state.store(LEFT, Ordering::Release);
        self.states[own.index()].store(GONE, Relaxed);
    }
}

fn look(map: &Map, rank: Rank) -> u8 {
    let line = map.line(rank);
    match line.state.load(Ordering::Acquire) {
        LEFT => GONE,
        // It may have left between the two looks.
        JOINED if !map.is_alive(rank) && line.state.load(Ordering::Acquire) == JOINED => DEAD,
        _ => HERE,
    }
}

/// Finishes what a dead sender was about.
struct Settlement<'m> {
    map: &'m Map,
}

impl Settle for Settlement<'_> {
    fn settle(&self, segment: &Segment, _dead: AgentId, record: &AgentRecord) {
        let word = |index: usize| record.intent[index].load(Ordering::Acquire);
        let number = word(INTENT_LANE);
        let lane = number.checked_sub(1).and_then(|number| self.map.lane(number));
        if lane.is_some_and(|lane| lane.was_sent(word(INTENT_TICKET))) {
            segment.forget_for(record, word(INTENT_OFFSET));
        }
        record.intent[INTENT_LANE].store(0, Ordering::Release);
    }
}
