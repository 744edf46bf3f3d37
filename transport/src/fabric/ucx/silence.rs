//! Whether a peer says nothing although something of it is awaited. Pure: time is an argument.
//!
//! | state | means | ends |
//! |---|---|---|
//! | quiet | nothing is awaited of it, or it was heard since the last look | a look finds neither |
//! | asked, since *t* | it was asked whether it is there | it is heard, or nothing is awaited any more; or: |
//! | unheard | nothing has come from it for as long as is granted | it is heard, or declared lost |
//!
//! Only `Engine` writes here, under its lock: `heard` with whatever comes from the peer, `look` by the watch.

use std::time::{Duration, Instant};

/// What is on its way is granted a millisecond for so many bytes, beyond the limit: an answer comes behind it.
const BYTES_PER_MS: u64 = 10_000;

/// A peer's silence.
#[derive(Default)]
pub(super) struct Silence {
    /// Since the last look.
    was_heard: bool,
    /// When it was asked.
    since: Option<Instant>,
}

/// What is to be done about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    Nothing,
    /// It is to be asked whether it is there.
    Ask,
    /// It has been silent for too long.
    Unheard,
}

impl Silence {
    /// Something has come from it.
    pub(super) fn heard(&mut self) {
        self.was_heard = true;
    }

    /// A look. `awaited` is the bytes on their way to it or from it, `None` if nothing is awaited of it. A silence
    /// counts anew if this rank `was_away`.
    pub(super) fn look(
        &mut self,
        awaited: Option<u64>,
        limit: Duration,
        was_away: bool,
        now: Instant,
    ) -> Finding {
        let was_heard = std::mem::take(&mut self.was_heard);
        let Some(bytes) = awaited.filter(|_| !was_heard) else {
            self.since = None;
            return Finding::Nothing;
        };
        let granted = limit + Duration::from_millis(bytes / BYTES_PER_MS);
        match self.since.filter(|_| !was_away) {
            None => {
                self.since = Some(now);
                Finding::Ask
            }
            Some(since) if now.saturating_duration_since(since) >= granted => Finding::Unheard,
            Some(_) => Finding::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(9);

    /// What looks find at these seconds, before which the peer was heard or not.
    fn looks(awaited: Option<u64>, at: &[(u64, bool)]) -> Vec<Finding> {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let look = |&(second, is_heard): &(u64, bool)| {
            if is_heard {
                silence.heard();
            }
            silence.look(awaited, LIMIT, false, begin + Duration::from_secs(second))
        };
        at.iter().map(look).collect()
    }

    #[test]
    fn who_is_asked_once_and_not_heard_for_the_limit_is_unheard_until_it_is() {
        use Finding::{Ask, Nothing, Unheard};
        let at = [(3, false), (6, false), (9, false), (12, false), (15, false), (18, true), (21, false)];
        assert_eq!(looks(Some(0), &at), [Ask, Nothing, Nothing, Unheard, Unheard, Nothing, Ask]);
    }

    #[test]
    fn who_is_heard_or_not_awaited_is_not_asked() {
        let at = [(3, true), (6, true), (9, true)];
        assert_eq!(looks(Some(0), &at), [Finding::Nothing; 3]);
        assert_eq!(looks(None, &at.map(|(second, _)| (second, false))), [Finding::Nothing; 3]);
    }

    #[test]
    fn an_answer_may_come_behind_much_that_is_on_its_way() {
        let at = [(0, false), (18, false), (19, false)];
        let found = looks(Some(10_000 * BYTES_PER_MS), &at);
        assert_eq!(found, [Finding::Ask, Finding::Nothing, Finding::Unheard]);
    }

    /// As by Ctrl-Z: it may have been stopped, too.
    #[test]
    fn who_was_away_asks_anew() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let mut look =
            |second, was_away| silence.look(Some(0), LIMIT, was_away, begin + Duration::from_secs(second));
        assert_eq!(look(3, false), Finding::Ask);
        assert_eq!(look(100, true), Finding::Ask);
        assert_eq!(look(103, false), Finding::Nothing);
        assert_eq!(look(109, false), Finding::Unheard);
    }
}
