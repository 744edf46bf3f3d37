//! What rank 0 decides: who is lost. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::Why;
use crate::rank::Rank;

/// What rank 0 knows of the others.
pub(super) struct Judge {
    limit: Option<Duration>,
    ranks: Vec<Watched>,
    /// Whom rank 0 has found gone itself.
    found: Vec<(Rank, Why)>,
    accusations: Vec<Accusation>,
    own: OwnLooks,
}

#[derive(Clone)]
struct Watched {
    /// The last sign of life.
    sign: Instant,
    /// Losses that it knows of.
    epoch: u32,
    /// Lost, or left.
    is_over: bool,
}

struct Accusation {
    by: Rank,
    of: Rank,
    at: Instant,
    doubt: Option<Doubt>,
}

/// An accusation for silence alone: it stands as long as it is repeated, and counts when it was repeated so long after
/// the accused has shown that it lives that its accuser would have heard of that.
struct Doubt {
    last: Instant,
    /// When the accused gave its first sign since.
    lived: Option<Instant>,
}

impl Doubt {
    fn is_confirmed(&self, limit: Duration) -> bool {
        self.lived.is_some_and(|lived| self.last.saturating_duration_since(lived) >= limit / CONFIRMED)
    }
}

/// A doubt is confirmed by a repetition such a part of the limit after the sign of the accused.
const CONFIRMED: u32 = 3;

/// Whether who looks was stopped itself since the last look (with all others maybe, by the user's terminal): it has not
/// heard of anybody meanwhile, so that is no silence of theirs. Looks come every third of the limit. One who is late so
/// often that it is slow rather than stopped does not put decisions off for longer than a limit.
pub(super) struct OwnLooks {
    last: Instant,
    away: Option<Instant>,
}

impl OwnLooks {
    pub(super) fn new(now: Instant) -> OwnLooks {
        OwnLooks { last: now, away: None }
    }

    pub(super) fn was_away(&mut self, limit: Option<Duration>, now: Instant) -> bool {
        let Some(limit) = limit else { return false };
        let last = std::mem::replace(&mut self.last, now);
        let is_late = now.saturating_duration_since(last) > limit / 2;
        let was_away = is_late && self.away.is_none_or(|away| now - away > 2 * limit);
        if was_away {
            self.away = Some(now);
        }
        was_away
    }
}

impl Judge {
    pub(super) fn new(size: u32, now: Instant) -> Judge {
        let ranks = vec![Watched { sign: now, epoch: 0, is_over: false }; size as usize];
        Judge { limit: None, ranks, found: Vec::new(), accusations: Vec::new(), own: OwnLooks::new(now) }
    }

    /// All have joined.
    pub(super) fn begin(&mut self, limit: Option<Duration>, now: Instant) {
        (self.limit, self.own) = (limit, OwnLooks::new(now));
        self.ranks.iter_mut().for_each(|it| it.sign = now);
    }

    /// A rank lives. Whether that may change something: it knows of more, or somebody waits to hear of it.
    pub(super) fn sign(&mut self, rank: Rank, epoch: u32, now: Instant) -> bool {
        let Some(watched) = self.ranks.get_mut(rank.index()) else { return false };
        watched.sign = now;
        for accusation in self.accusations.iter_mut().filter(|it| it.of == rank && now > it.at) {
            accusation.doubt.iter_mut().for_each(|doubt| _ = doubt.lived.get_or_insert(now));
        }
        let is_news = epoch > watched.epoch;
        watched.epoch = watched.epoch.max(epoch);
        is_news || !self.accusations.is_empty()
    }

    /// Rank 0 has found it gone.
    pub(super) fn find(&mut self, rank: Rank, why: Why) {
        self.found.push((rank, why));
    }

    pub(super) fn accuse(&mut self, by: Rank, of: Rank, now: Instant) {
        if let Some(accusation) = self.accusation(by, of, now) {
            accusation.doubt = None;
        }
    }

    /// `by` hears nothing of `of`; it says so again as long as that is so.
    pub(super) fn doubt(&mut self, by: Rank, of: Rank, now: Instant) {
        let is_new = self.accusations.iter().all(|it| (it.by, it.of) != (by, of));
        let Some(accusation) = self.accusation(by, of, now) else { return };
        match &mut accusation.doubt {
            Some(doubt) => doubt.last = now,
            // It has accused it for more before.
            none => *none = is_new.then_some(Doubt { last: now, lived: None }),
        }
    }

    /// The accusation of one by another, made if need be; none of those who are of the world no longer.
    fn accusation(&mut self, by: Rank, of: Rank, now: Instant) -> Option<&mut Accusation> {
        if self.is_over(by) || self.is_over(of) {
            return None;
        }
        let found = self.accusations.iter().position(|it| (it.by, it.of) == (by, of));
        let at = found.unwrap_or(self.accusations.len());
        if found.is_none() {
            self.accusations.push(Accusation { by, of, at: now, doubt: None });
        }
        self.accusations.get_mut(at)
    }

    /// It was declared lost.
    pub(super) fn lose(&mut self, rank: Rank) {
        self.leave(rank);
    }

    /// It has left: not watched any more.
    pub(super) fn leave(&mut self, rank: Rank) {
        if let Some(watched) = self.ranks.get_mut(rank.index()) {
            watched.is_over = true;
        }
        self.accusations.retain(|it| it.by != rank && it.of != rank);
        self.found.retain(|(other, _)| *other != rank);
    }

    fn is_over(&self, rank: Rank) -> bool {
        self.ranks.get(rank.index()).is_none_or(|it| it.is_over)
    }

    /// The next one to be declared lost, if any is.
    pub(super) fn verdict(&mut self, now: Instant) -> Option<(Rank, Why)> {
        if self.own.was_away(self.limit, now) {
            self.ranks.iter_mut().for_each(|it| it.sign = it.sign.max(now));
            // Nor was that a sign of those who stand in accusations.
            for accusation in &mut self.accusations {
                accusation.at = accusation.at.max(now);
                accusation.doubt.iter_mut().for_each(|doubt| *doubt = Doubt { last: now, lived: None });
            }
        }
        if let Some(limit) = self.limit {
            let is_repeated = |it: &Doubt| now.saturating_duration_since(it.last) < limit;
            self.accusations.retain(|it| it.doubt.as_ref().is_none_or(is_repeated));
        }
        if let Some(&found) = self.found.iter().find(|(rank, _)| !self.is_over(*rank)) {
            return Some(found);
        }
        let limit = self.limit;
        let is_silent = |it: &Watched| limit.is_some_and(|limit| now.duration_since(it.sign) >= limit);
        let silent = self.ranks.iter().skip(1).position(|it| !it.is_over && is_silent(it));
        if let Some(at) = silent {
            return Some((Rank(at as u32 + 1), Why::Silent));
        }
        let sign = |rank: Rank| self.ranks[rank.index()].sign;
        let is_alive = |rank: Rank, since: Instant| rank == Rank(0) || sign(rank) > since;
        let is_confirmed = |limit| move |it: &Doubt| it.is_confirmed(limit);
        let counts = |it: &&Accusation| {
            limit.is_none_or(|limit| {
                let is_sure = it.doubt.as_ref().is_none_or(is_confirmed(limit));
                is_sure && is_alive(it.of, it.at) && is_alive(it.by, it.at)
            })
        };
        let apart = self.accusations.iter().find(counts)?;
        let count = |rank: Rank| self.accusations.iter().filter(|it| it.by == rank || it.of == rank).count();
        let loser =
            if (count(apart.by), apart.by) > (count(apart.of), apart.of) { apart.by } else { apart.of };
        Some((loser, Why::Apart))
    }

    /// Whether all that are left know of all losses up to this epoch.
    pub(super) fn is_settled(&self, epoch: u32) -> bool {
        self.ranks.iter().skip(1).all(|it| it.is_over || it.epoch >= epoch)
    }

    /// When the first of those whose signs are missing is silent for too long.
    pub(super) fn next_silence(&self) -> Option<Instant> {
        let limit = self.limit?;
        self.ranks.iter().skip(1).filter(|it| !it.is_over).map(|it| it.sign + limit).min()
    }
}
