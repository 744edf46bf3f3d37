//! Work stealing between ranks: a rank with nothing to do runs ready tasks of another.
//!
//! # Shape
//! Placement decides where a task belongs, and it goes on belonging there: its edges, its value, its failure and its
//! output are that rank's. A *thief* is sent copies of ready tasks, with all their arguments as values, runs them and
//! returns what came of them; the *victim* ends their nodes as if they had run there. So no third rank hears of it, and
//! what a rank knows of a list does not change while it runs.
//!
//! | message | from → to | says |
//! |---|---|---|
//! | `Steal` | thief → victim | has so many idle workers and free GPUs; how long the last gift took to come |
//! | `Gift` | victim → thief | tasks, or that there is nothing to have |
//! | `Wrote` | thief → victim | some of what a process of a gift has written, after its end |
//! | `Returned` | thief → victim | what came of some tasks of a gift |
//! | `Recall` | victim → thief | tasks of a gift are cancelled |
//!
//! # When a thief asks
//! When a worker searches in vain, or the last task of a gift or of its own part has ended, while a list is under way
//! on several ranks; one rank at a time. Refused by [`SWEEP_MAX`] ranks, the last of them home, it rests for a while,
//! longer each time, up to [`REST_MAX`]; whoever listens wakes up when
//! that is over. It is quiet once home says that no list is under way, until one starts. So
//! ranks with nothing to do exchange some hundred messages a second while a list runs, and none otherwise.
//!
//! # What a victim gives
//! Of what waits while all its workers are busy, at most half, the oldest; only tasks whose place the user has not
//! chosen, and of lists without a journal. Of processes, and of functions that hold cpus, memory or GPUs, as many as
//! the thief has cpus and GPUs free. Of others, how many is weighed by what it has seen of the list: what a task takes
//! (thieves tell), and what it takes to write one with its arguments, which grows with their bytes. Tasks that take
//! less than four times what writing them does are not given away; of others so many that the thief is busy for four
//! times as long as a gift takes to come. Of a list of which nothing is known a thief gets one task for each idle
//! worker. A
//! list with nothing worth giving rests, longer each time.
//!
//! # Who may write what
//! `Thief` and `Victim` are each under a lock that is not held while anything is sent or any code of the user's runs.
//! A node that was given away is in `Victim::given` until its `Returned` comes; it counts as running meanwhile.
//!
//! # Deaths
//! Where losses are survived, a victim puts back what a lost thief had, and a thief lets go of what a lost victim gave.
//! Else a lost rank ends the world: home ends what it gave away with an error that names the rank. A victim that dies
//! takes
//! the list with it; what a thief returns then is for nobody.

mod thief;
mod victim;

use super::Ranks;
use super::message::Came;
use crate::outputs::Portion;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thief::Thief;
use victim::Victim;

pub(super) use victim::Price;

/// After the start of a list nobody is asked: short lists are over by then.
const FIRST: Duration = Duration::from_micros(500);
/// Ranks asked one after the other before a rest.
const SWEEP_MAX: u32 = 8;
/// The first rest; twice as long each time.
const REST_MIN: Duration = Duration::from_micros(200);
/// The longest one.
const REST_MAX: Duration = Duration::from_millis(20);
/// Tasks in one gift.
const GIFT_MAX: usize = 256;
/// Bytes of a gift after which no task is added.
const GIFT_BYTES: usize = 1 << 20;

/// A `Steal`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ask {
    /// Workers with nothing to do.
    idle: u32,
    /// GPUs that nobody holds, in `UNITS`.
    gpus: u64,
    /// From the last question that was answered with tasks to that answer; 0: there was none.
    latency_ns: u64,
}

/// Head of a `Gift`; the tasks follow as in a part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Gift {
    Nothing {
        /// No list is under way at the victim.
        is_over: bool,
    },
    Tasks {
        /// The list that they are of.
        list: u64,
    },
}

/// Head of a `Wrote`; the bytes follow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Wrote {
    place: u32,
    portion: Portion,
}

/// One task in a `Returned`, which begins with what a task took in nanoseconds (0: not known yet): its place in the
/// gift, how it came out, and how many bytes its value, output and error have, which follow.
#[derive(Debug, Serialize, Deserialize)]
struct Back {
    place: u32,
    came: Came,
    /// How long it ran, and on which lane, if the batch measures.
    took_ns: u64,
    lane: u32,
    lens: [u64; 3],
}

/// What one rank does as a thief and as a victim.
pub(super) struct Stealing {
    thief: Mutex<Thief>,
    victim: Mutex<Victim>,
    /// No list that can be stolen from is under way, as far as this rank knows.
    is_quiet: AtomicBool,
}

impl Stealing {
    pub(super) fn new() -> Self {
        Self { thief: Mutex::new(Thief::new()), victim: Mutex::default(), is_quiet: AtomicBool::new(true) }
    }
}

impl Ranks {
    /// Asks another rank for work, if this one has nothing to do and it is time.
    #[inline]
    pub(crate) fn steal(&self) {
        if !self.stealing.is_quiet.load(Ordering::Relaxed) {
            self.steal_now(true);
        }
    }

    /// As [`steal`](Self::steal), by the thread that listens, which then sleeps no longer than
    /// [`until_due`](Self::until_due) says.
    pub(super) fn steal_when_due(&self) {
        if !self.stealing.is_quiet.load(Ordering::Relaxed) {
            self.steal_now(false);
        }
    }
}
