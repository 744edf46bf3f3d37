//! Chooses the rank of each task.
//!
//! With one rank there is nothing to choose; the pass exists so that compile has its four steps and a second rank
//! changes this file alone.

use super::Listing;

/// The ranks a list can be placed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) ranks: u32,
}

/// The rank of each task.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// All on the submitting rank.
    Local,
}

impl Placement {
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local)
    }
}

/// Where the tasks of a list run.
pub(crate) fn place(_: &Listing, layout: &Layout) -> Placement {
    assert_eq!(layout.ranks, 1, "this engine runs on one rank");
    Placement::Local
}
