//! Gangs: a function that several ranks run at once, with messages between them.
//!
//! # Shape
//! A task with [`ranks(n)`](crate::Task::ranks) is placed on one rank, its *leader*, and is a task like any other
//! there: its edges, its value, its failure and its output are that rank's. When it starts, the leader has it run by
//! the n - 1 ranks after its own as well: its *members* are the leader, member 0, and those. Each gets a copy of the
//! call with all arguments, as a gift between ranks does (see `steal`), waits for what the task holds (a cpu at least),
//! and says so; the leader then lets all go on. A member runs the body with the same arguments and with its place in a
//! `transport::Group`, by which the bodies talk to each other without the engine.
//!
//! | message | from → to | says |
//! |---|---|---|
//! | `Muster` | leader → member | take part in a gang: its number, its ranks, the call |
//! | in the group: `SEATED` | member → leader | it holds what it needs and waits |
//! | in the group: `GO` | leader → member | all do |
//! | in the group: `RETURNED` | member → leader | how its body came out, and what it wrote |
//! | `Recall` | leader → member | the task is cancelled, or over its time |
//!
//! # Why it cannot deadlock
//! Members are mustered one after the other, in ascending order of ranks, the leader first: whoever waits for a rank
//! holds lower ones only, so of gangs that wait for each other's ranks the one that holds the highest can go on. What
//! else runs on a rank ends without a gang. At its rank a member comes before all that waits there, since others wait
//! with cpus in their hands.
//!
//! # What comes of it
//! The value is what member 0 returned; the others' are dropped. If a body fails, the task has failed: the gang is
//! closed, so that members that wait for that one do not wait for ever, and the cause is that of the member that failed
//! first, with its rank. What members wrote follows in their order. Another attempt is another gang. The time of a
//! timeout begins when all members are there.
//!
//! # Who may write what
//! `Gangs` under its locks, which are not held while anything is sent or any code of the user's runs. A member's plan
//! is the clerk's; its place in the group goes with it.
//!
//! # Deaths
//! Whoever waits for the member of a lost rank hears of it from the group, and the attempt has failed. Where others go
//! on without that rank another gang is mustered, which is no further attempt (see `attend::bodies`).

mod handle;
mod hold;
mod leader;
mod member;

pub use handle::{Gang, GangError};
pub(crate) use hold::{Far, Holding};
pub(crate) use leader::{Role, join};
pub(crate) use member::OfPlan;

use super::Ranks;
use super::message::{self, Came, Kind};
use crate::run::Run;
use crate::task::record::Ref;
use member::Member;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};
use tarragon_transport::Rank;

/// Tags of a group's messages that are the engine's; the user's are below.
const SEATED: u64 = 1 << 32;
const GO: u64 = SEATED + 1;
const RETURNED: u64 = SEATED + 2;
const HOLDS: u64 = SEATED + 3;

/// Head of a `Muster`; the call follows as in a gift of one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Muster {
    ranks: Vec<u32>,
    member: u32,
}

/// Head of a `RETURNED`: how it came out, and how many bytes its output and error have, which follow.
#[derive(Debug, Serialize, Deserialize)]
struct Returned {
    came: Came,
    lens: [u64; 2],
}

/// The gangs of this rank.
#[derive(Default)]
pub(super) struct Gangs {
    next: AtomicU32,
    /// Those that it leads, by number.
    led: Mutex<HashMap<u64, Led>>,
    /// Those that it is a member of.
    joined: Mutex<HashMap<u64, Weak<Member>>>,
}

/// A gang as its leader's rank knows it.
struct Led {
    run: Arc<Run>,
    task: Ref,
    gang: Arc<Gang>,
}

impl Ranks {
    /// Tasks that gangs run are not wanted any more: bodies are asked to return, and do not wait for each other.
    pub(crate) fn stop_gangs(&self, run: &Arc<Run>, task: Ref) {
        let of_task = |led: &Led| led.task == task && Arc::ptr_eq(&led.run, run);
        let stopped: Vec<(u64, Arc<Gang>)> = {
            let led = self.gangs.led.lock();
            let stopped = led.iter().filter(|(_, led)| of_task(led));
            stopped.map(|(number, led)| (*number, Arc::clone(&led.gang))).collect()
        };
        for (number, gang) in stopped {
            gang.close();
            self.dismiss(number, &gang);
        }
    }

    /// Recalls what the members of a gang run.
    fn dismiss(&self, number: u64, gang: &Gang) {
        for rank in gang.ranks().into_iter().skip(1) {
            self.tell(Rank(rank), Kind::Recall, number, &message::bytes(&None::<u32>));
        }
    }
}
