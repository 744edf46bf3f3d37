//! How far the clocks of other ranks are ahead of this one's, so that times of one run stand on one line.
//!
//! A rank tells times by its monotonic clock, which ranks of one machine share and those of two machines do not. Home
//! asks each rank of a run that is measured a few times what its clock says ([`ASKS`]), from the start of the run on:
//! the answer is from some moment between question and answer, so half a round trip is how far the middle may be wrong.
//! The best answer counts until a better one comes, one in doubt more as it gets older, since clocks drift ([`DRIFT`]).
//! Clocks that may be one are taken for one: then the times of all ranks are exact.
//!
//! *Source:* Mills, "Network Time Protocol Version 4", RFC 5905, sections 8 and 10 (offset and delay, the clock filter,
//! dispersion).

use parking_lot::Mutex;

/// Questions in a row; the shortest round trip of so few is near the shortest there is.
const ASKS: u32 = 8;
/// How much the rates of two clocks differ: 15 parts per million (RFC 5905, PHI).
const DRIFT: u64 = 15;

/// The clocks of all ranks, by rank. Times are nanoseconds.
pub(super) struct Clocks(Mutex<Box<[Clock]>>);

#[derive(Clone, Default)]
struct Clock {
    /// When the question was asked that has no answer yet.
    asked: Option<u64>,
    /// Questions to follow.
    left: u32,
    best: Option<Sample>,
}

/// An answer.
#[derive(Clone, Copy)]
struct Sample {
    offset: Offset,
    at: u64,
}

/// How far a clock is ahead, and how far that may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offset {
    pub(super) ahead: i64,
    pub(super) within: u64,
}

impl Sample {
    fn of(asked: u64, there: u64, now: u64) -> Sample {
        let trip = now.saturating_sub(asked);
        let ahead = i128::from(there) - i128::from(asked) - i128::from(trip / 2);
        let ahead = ahead.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        Sample { offset: Offset { ahead, within: trip.div_ceil(2) }, at: now }
    }

    /// How far it may be wrong at some time, before or after.
    fn within(&self, time: u64) -> u64 {
        let drift = time.abs_diff(self.at) / 1_000_000 * DRIFT;
        self.offset.within.saturating_add(drift)
    }
}

impl Clocks {
    pub(super) fn new(ranks: u32) -> Clocks {
        Clocks(Mutex::new(vec![Clock::default(); ranks as usize].into()))
    }

    /// The clock of a rank is to be asked for; true if the first question goes out `now`.
    pub(super) fn ask(&self, rank: u32, now: u64) -> bool {
        let mut clocks = self.0.lock();
        let Some(clock) = clocks.get_mut(rank as usize) else { return false };
        clock.left = ASKS - 1;
        let is_free = clock.asked.is_none();
        clock.asked.get_or_insert(now);
        is_free
    }

    /// The clock of a rank said `there` when it was asked at this time; true if it is asked again `now`.
    pub(super) fn told(&self, rank: u32, asked: u64, there: u64, now: u64) -> bool {
        let mut clocks = self.0.lock();
        let Some(clock) = clocks.get_mut(rank as usize) else { return false };
        if clock.asked != Some(asked) {
            return false;
        }
        let new = Sample::of(asked, there, now);
        if clock.best.is_none_or(|best| new.offset.within <= best.within(now)) {
            clock.best = Some(new);
        }
        let again = clock.left > 0;
        clock.left = clock.left.saturating_sub(1);
        clock.asked = again.then_some(now);
        again
    }

    /// How far the clock of a rank is ahead between two times; `None` if it has never said anything.
    pub(super) fn of(&self, rank: u32, from: u64, to: u64) -> Option<Offset> {
        let best = self.0.lock().get(rank as usize)?.best?;
        let within = best.within(from).max(best.within(to));
        if best.offset.ahead.unsigned_abs() <= best.offset.within {
            return Some(Offset { ahead: 0, within: 0 });
        }
        Some(Offset { ahead: best.offset.ahead, within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_counts() {
        let clocks = Clocks::new(2);
        assert!(clocks.ask(1, 1000));
        // The clock is 5 000 000 ahead; ways there and back take 90 and 10, then 6 and 4, then 500 and 0.
        assert!(clocks.told(1, 1000, 5_001_090, 1100));
        assert_eq!(clocks.of(1, 1100, 1100), Some(Offset { ahead: 5_000_040, within: 50 }));
        assert!(clocks.told(1, 1100, 5_001_106, 1110));
        assert!(clocks.told(1, 1110, 5_001_610, 1610));
        assert_eq!(clocks.of(1, 1610, 1610), Some(Offset { ahead: 5_000_001, within: 5 }));
    }

    #[test]
    fn so_many_questions_are_asked_and_others_are_not_heard() {
        let clocks = Clocks::new(2);
        assert!(clocks.ask(1, 0));
        assert!(!clocks.ask(1, 5), "one is open");
        assert!(!clocks.told(1, 7, 0, 8) && !clocks.told(2, 0, 0, 8), "nobody has asked that");
        assert_eq!(clocks.of(1, 8, 8), None);
        let again = (0..).take_while(|i| clocks.told(1, i * 10, 0, (i + 1) * 10)).count() as u32;
        assert_eq!(again, ASKS - 1);
        assert!(clocks.ask(1, 100), "the next round");
    }

    /// An answer of a day ago is worth less than a slower one of now.
    #[test]
    fn an_old_answer_gives_way() {
        let clocks = Clocks::new(1);
        let within = |now| clocks.of(0, now, now).map(|offset| offset.within);
        let (ahead, day) = (1 << 50, 86_400_000_000_000);
        clocks.ask(0, 0);
        for i in 0..u64::from(ASKS) {
            clocks.told(0, i * 10, ahead + i * 10 + 5, i * 10 + 10);
        }
        assert_eq!(within(80), Some(5));
        assert_eq!(within(80 + day), Some(5 + 86_400_000 * DRIFT));
        assert_eq!(clocks.of(0, 80, 80 + day), clocks.of(0, 80 + day, 80), "the longer way counts");
        clocks.ask(0, day);
        assert!(clocks.told(0, day, ahead + day + 300_000, day + 1_000_000));
        assert_eq!(
            clocks.of(0, day + 1_000_000, day + 1_000_000),
            Some(Offset { ahead: (1 << 50) - 200_000, within: 500_000 })
        );
        assert!(clocks.told(0, day + 1_000_000, ahead, day + 3_000_000));
        assert_eq!(within(day + 3_000_000), Some(500_030), "a slower answer of the same day does not count");
    }

    #[test]
    fn clocks_that_may_be_one_are_one() {
        let clocks = Clocks::new(1);
        clocks.ask(0, 1000);
        clocks.told(0, 1000, 1900, 2000);
        assert_eq!(clocks.of(0, 2000, 2000), Some(Offset { ahead: 0, within: 0 }));
        for there in [0, u64::MAX] {
            clocks.ask(0, 3000);
            clocks.told(0, 3000, there, 3000);
        }
        assert!(clocks.of(0, u64::MAX, u64::MAX).is_some(), "no clock is too far away");
    }
}
