//! Who waits at a porter, and what it has in hand for whom.

use super::message::{Refusal, WaitUs};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tarragon_transport::{HandlerId, Rank};

/// Who is to get a response.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) rank: Rank,
    pub(super) tag: u64,
    /// When it is to be refused; `None`: never.
    pub(super) until: Option<Instant>,
}

impl Caller {
    pub(super) fn new(rank: Rank, tag: u64, wait: WaitUs) -> Caller {
        // A wait too long for the clock is for ever.
        let until = wait.and_then(|us| Instant::now().checked_add(Duration::from_micros(us)));
        Caller { rank, tag, until }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Waits for an item.
pub(super) struct Get {
    pub(super) caller: Caller,
    /// Items it would take at once.
    pub(super) most: u32,
}

/// Waits for room.
pub(super) struct Put {
    pub(super) caller: Caller,
    pub(super) item: Vec<u8>,
    /// Why it is not in yet; `None`: it was not tried.
    pub(super) refusal: Option<Refusal>,
}

/// Waits until all items are done.
pub(super) struct Join {
    pub(super) caller: Caller,
    /// Lost items that were told when it came.
    pub(super) told: u64,
}

/// Items for one response.
pub(super) struct Batch {
    pub(super) body: Vec<u8>,
    pub(super) lens: Vec<u64>,
}

/// An item in a response.
pub(super) struct Item {
    pub(super) response: Arc<Vec<u8>>,
    pub(super) place: Range<usize>,
}

impl Item {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.response[self.place.clone()]
    }
}

/// An item on its way.
pub(super) struct Hand {
    pub(super) rank: Rank,
    pub(super) item: Item,
    pub(super) since: Instant,
    /// Nobody waited for it.
    pub(super) is_extra: bool,
}

/// What is known of a rank that has far handles.
#[derive(Default)]
pub(super) struct Guest {
    pub(super) handles: u64,
    /// Items it took, less those it called done.
    pub(super) undone: i64,
    /// When it was last asked for what it keeps.
    pub(super) recalled: Option<Instant>,
}

/// What a rank is to get.
pub(super) struct Outgoing {
    pub(super) rank: Rank,
    pub(super) tag: u64,
    /// By this handler; `None`: as the response to the request of this tag.
    pub(super) news: Option<HandlerId>,
    pub(super) bytes: Arc<Vec<u8>>,
}
