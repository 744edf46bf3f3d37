//! Seats: where the parts of a list are.
//!
//! A part is cut for a rank, and its *seat* bears that rank's number for as long as the list lives: exports name seats.
//! Who has the part is its *holder*, at first the rank itself. If a rank is lost, the parts that it had get other
//! holders (see `loss`), under a number of their own there, since that rank may have a part of the same list already.

use crate::error::Failure;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Who has a part, and by which number of a list messages for it go there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) rank: u32,
    pub(super) list: u64,
}

/// Where the seats of a list are, as one part of it knows.
pub(super) struct Seats {
    now: RwLock<Now>,
}

struct Now {
    /// The number of the list at those who have the part of their own seat.
    list: u64,
    moved: HashMap<u16, Holder>,
    /// Nodes without a record that have told others of their end in this run, and why they failed if they did.
    told: HashMap<u32, Option<Arc<Failure>>>,
}

impl Seats {
    pub(super) fn new(list: u64) -> Self {
        Self { now: RwLock::new(Now { list, moved: HashMap::new(), told: HashMap::new() }) }
    }

    /// Another list's seats, of which some have moved.
    pub(super) fn are_of(&self, list: u64, moved: &[(u16, Holder)]) {
        let mut now = self.now.write();
        now.list = list;
        now.moved = moved.iter().copied().collect();
    }

    pub(super) fn set(&self, seat: u16, holder: Holder) {
        self.now.write().moved.insert(seat, holder);
    }

    /// A run begins.
    pub(super) fn begin(&self) {
        self.now.write().told.clear();
    }

    /// Who has the part of a seat.
    pub(super) fn holder(&self, seat: u16) -> Holder {
        let now = self.now.read();
        now.moved.get(&seat).copied().unwrap_or(Holder { rank: u32::from(seat), list: now.list })
    }

    /// A node without a record is about to tell others.
    pub(super) fn tells(&self, node: u32, failure: Option<&Arc<Failure>>) {
        self.now.write().told.insert(node, failure.cloned());
    }

    /// What such a node has told, if it has.
    pub(super) fn has_told(&self, node: u32) -> Option<Option<Arc<Failure>>> {
        self.now.read().told.get(&node).cloned()
    }
}
