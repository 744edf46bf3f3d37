//! What ranks tell one another, as bytes: heads in postcard, and a value behind them as it is.

use super::goods::Lens;
use super::seats::Holder;
use super::told::Told;
use crate::journal::Entry;
use crate::outputs::Portion;
use serde::{Deserialize, Serialize};
pub(super) use tarragon_transport::wire::head;
use tarragon_transport::{HandlerId, wire};

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Part,
    Start,
    Notice,
    End,
    Fetch,
    Reply,
    Read,
    Written,
    Cancel,
    Drop,
    Lost,
    Stop,
    Times,
    Clock,
    Now,
    Free,
    Give,
    Reuse,
    Record,
    Recorded,
    Steal,
    Gift,
    Returned,
    Recall,
    Wrote,
    Look,
    Muster,
    Moved,
    Have,
}

impl Kind {
    pub(super) const ALL: [Kind; 29] = [
        Kind::Part,
        Kind::Start,
        Kind::Notice,
        Kind::End,
        Kind::Fetch,
        Kind::Reply,
        Kind::Read,
        Kind::Written,
        Kind::Cancel,
        Kind::Drop,
        Kind::Lost,
        Kind::Stop,
        Kind::Times,
        Kind::Clock,
        Kind::Now,
        Kind::Free,
        Kind::Give,
        Kind::Reuse,
        Kind::Record,
        Kind::Recorded,
        Kind::Steal,
        Kind::Gift,
        Kind::Returned,
        Kind::Recall,
        Kind::Wrote,
        Kind::Look,
        Kind::Muster,
        Kind::Moved,
        Kind::Have,
    ];

    /// Far from the numbers that programs begin with.
    pub(super) fn handler(self) -> HandlerId {
        HandlerId(0xEE00 + self as u16)
    }
}

/// Number of a run of a list: 1 is the first.
pub(super) type RunNumber = u32;

/// A `Start`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) run: RunNumber,
    /// The batch keeps a journal.
    pub(super) recording: Option<Recording>,
    /// The part was another rank's, which is lost.
    pub(super) adopted: Option<Adopted>,
}

/// What the holder of a lost rank's part is to know when a run starts.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(super) struct Adopted {
    /// The number of the list at ranks that have the part of their own seat.
    pub(super) list: u64,
    /// Seats of other lost ranks, and this one's.
    pub(super) moved: Vec<(u16, Holder)>,
    /// By place: tasks that have run, and of which nobody needs anything any more.
    pub(super) done: Vec<u32>,
    /// By place: tasks that have run, of which something is needed that is lost, and which must not run again.
    pub(super) spoilt: Vec<u32>,
    /// Who is lost, and why.
    pub(super) lost: (u32, String),
}

/// A `Moved`: the part of a seat has another holder, and what has ended in this run is to be told there.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) run: RunNumber,
    pub(super) seat: u16,
    pub(super) holder: Holder,
}

/// A `Have`: the answer to a `Moved`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Have {
    pub(super) run: RunNumber,
    /// The seat that has moved.
    pub(super) seat: u16,
    pub(super) have: Had,
}

/// What a rank has in a run, and what it has told the part of a seat that has moved.
#[derive(Default, Debug, Serialize, Deserialize)]
pub(super) struct Had {
    /// Its imports that have ended, a bit for each.
    pub(super) ended: Vec<u8>,
    /// Imports of that part of which it knows that they have ended.
    pub(super) told: Vec<u32>,
}

/// How guests record what they do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Recording {
    /// Files are compared by what is in them.
    pub(super) reads_files: bool,
    /// What depends on a task waits until home has its record on the disk.
    pub(super) waits: bool,
}

/// A `Reuse`, or some of one: by place in the part what was recorded of tasks that need not run.
pub(super) type Reused = Vec<(u32, Entry)>;

/// A `Record`: the run, the place of a task in the part, a number that a `Recorded` repeats, and what is to be
/// remembered of the task but for its identity.
pub(super) type Recorded = (RunNumber, u32, u64, Entry);

/// Head of a `Notice`; what the task has written follows, and the value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Notice {
    pub(super) run: RunNumber,
    pub(super) import: u32,
    pub(super) came: Came,
    /// Streams that follow.
    pub(super) wrote: Lens,
}

/// A `Fetch`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fetch {
    pub(super) run: RunNumber,
    /// By place in the part.
    pub(super) tasks: Vec<u32>,
}

/// One task in a `Reply`, which begins with the number of its run: its place in the part, how it came out, how many
/// bytes its value has, and the value.
pub(super) type Replied = (u32, Came, u64);

/// How a task came out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Came {
    /// It succeeded; its value does not come with it.
    Well,
    /// It succeeded, and its value follows.
    WithValue,
    /// It failed, or was skipped; and what it wrote to its context's output.
    Badly { skipped: bool, why: Box<Told>, wrote: String },
}

impl Came {
    /// Of a task that others wait for.
    pub(super) fn badly(why: Told) -> Came {
        Came::Badly { skipped: false, why: Box::new(why), wrote: String::new() }
    }
}

/// A `Read`, behind the number that its `Written` repeats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Read {
    /// Place in the part.
    pub(super) task: u32,
    /// What of what it has written.
    pub(super) portion: Portion,
}

/// What a rank did for others in a run.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Notices that it has sent, and their bytes.
    pub(super) notices: u64,
    pub(super) bytes: u64,
    /// Of its tasks those that another rank ran.
    pub(super) stolen: u64,
}

/// An `End`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) run: RunNumber,
    /// Of each task that did not succeed: its place in the part, whether it was skipped, the place of its failure in
    /// `told`, and what it wrote.
    pub(super) failures: Vec<(u32, bool, u32, String)>,
    pub(super) told: Told,
    pub(super) sent: Sent,
    /// A body that was given up is still inside its task: a `Free` will follow.
    pub(super) is_held: bool,
}

/// A `Cancel`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cancel {
    pub(super) run: RunNumber,
    /// One task by its place in the part; `None`: all.
    pub(super) task: Option<u32>,
}

/// A `Give`: of its list the task with this place in the part, after run `run`, to tasks of another list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Give {
    pub(super) run: RunNumber,
    pub(super) task: u32,
    /// The list that takes it, and which run of that.
    pub(super) to: u64,
    pub(super) to_run: RunNumber,
    /// Ranks, and which import it is there.
    pub(super) imports: Vec<(u16, u32)>,
}

/// The bytes of a head; serde has nothing to refuse in them.
pub(super) fn bytes<T: Serialize>(head: &T) -> Vec<u8> {
    wire::encode(head).expect("heads have no maps")
}
