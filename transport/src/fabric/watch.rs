//! How membership goes through each way: signs of life, accusations, what rank 0 decides. See `membership`.

use std::time::Duration;

use super::{Fabric, Way};
use crate::membership::{Beats, Members, Why};
use crate::message::Header;
use crate::rank::Rank;

/// How often the watch looks at a network at which no other thread may look, at least.
const LOOK: Duration = Duration::from_millis(500);

impl Fabric {
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// Lets the handler have a message, unless its sender is lost.
    pub(super) fn deliver(&self, header: &Header, payload: &[u8]) {
        if !self.members.refuses(header) {
            self.handlers.dispatch(self, &header.message(payload));
        }
    }

    /// Asks the system who lives, and has rank 0 hear of those who do not.
    pub(crate) fn find_dead(&self) -> Vec<Rank> {
        let dead = match &self.way {
            Way::Loopback(_) => Vec::new(),
            Way::Shm(shm) => shm.check_peers(),
            Way::Ucx(ucx) => ucx.check_peers(),
            Way::Mixed(mixed) => mixed.check_peers(),
        };
        let is_new = |is_new, rank: &Rank| self.members.found(*rank, Why::Ended) | is_new;
        if dead.iter().fold(false, is_new) {
            self.rouse_watch();
        }
        dead
    }

    /// Takes in the signs of others, and what rank 0 says.
    pub(crate) fn look_for_signs(&self, beats: &mut Beats) {
        match &self.way {
            Way::Loopback(_) => {}
            Way::Shm(shm) => shm.look_for_signs(&self.members, beats),
            Way::Ucx(ucx) => drop(ucx.pump()),
            Way::Mixed(mixed) => drop(mixed.network().pump()),
        }
    }

    /// Gives a sign of life, of one that knows of the losses up to `told`; with `is_news` others wait for it.
    pub(crate) fn give_sign(&self, told: u32, is_news: bool) {
        let network = match &self.way {
            Way::Loopback(_) => return,
            Way::Shm(shm) => return shm.give_sign(self.members.settled(), told, is_news),
            Way::Ucx(ucx) => ucx,
            Way::Mixed(mixed) => mixed.network(),
        };
        if self.rank() != Rank(0) {
            network.give_sign(told);
        } else if is_news {
            network.tell_settled();
        }
    }

    /// Tells rank 0 that a rank is gone.
    pub(crate) fn tell_suspicion(&self, rank: Rank) {
        match &self.way {
            Way::Loopback(_) => {}
            // It finds the same when it looks.
            Way::Shm(shm) => shm.raise_alarm(Rank(0)),
            Way::Ucx(ucx) => ucx.accuse(rank),
            Way::Mixed(mixed) => mixed.network().accuse(rank),
        }
    }

    /// Elsewhere: asks those of whom something is awaited and nothing comes through the network, and tells rank 0 who
    /// has not answered for the limit. Once in a third of it.
    pub(crate) fn look_for_silence(&self, limit: Duration, was_away: bool) {
        match &self.way {
            Way::Loopback(_) | Way::Shm(_) => {}
            Way::Ucx(ucx) => ucx.look_for_silence(limit, was_away),
            Way::Mixed(mixed) => mixed.network().look_for_silence(limit, was_away),
        }
    }

    /// At rank 0: tells all that a rank is lost.
    pub(crate) fn spread(&self, epoch: u32, rank: Rank, why: Why) {
        match &self.way {
            Way::Loopback(_) => {}
            Way::Shm(shm) => shm.spread(epoch, rank, why),
            Way::Ucx(ucx) => ucx.spread(epoch, rank, why),
            Way::Mixed(mixed) => mixed.network().spread(epoch, rank, why),
        }
    }

    /// A rank is lost: nothing goes there any more, and nothing comes.
    pub(crate) fn bury(&self, rank: Rank) {
        let is_ended = self.members.is_survived();
        match &self.way {
            Way::Loopback(_) => {}
            Way::Shm(shm) if is_ended => shm.end(rank),
            Way::Shm(_) => {}
            Way::Ucx(ucx) => ucx.lose(rank),
            Way::Mixed(mixed) => {
                mixed.network().lose(rank);
                if is_ended {
                    mixed.end(rank);
                }
            }
        }
    }

    /// The watch sleeps, unless it is called or `is_over`.
    pub(crate) fn sleep_watch(&self, pause: Duration, is_over: &dyn Fn() -> bool) {
        match &self.way {
            Way::Shm(shm) => shm.sleep_watch(pause, || self.members.take_call() || is_over()),
            Way::Ucx(_) => self.members.sleep(pause.min(LOOK)),
            Way::Loopback(_) | Way::Mixed(_) => self.members.sleep(pause),
        }
    }

    /// Wakes the watch.
    pub(crate) fn rouse_watch(&self) {
        self.members.rouse();
        if let Way::Shm(shm) = &self.way {
            shm.raise_alarm(shm.rank());
        }
    }
}
