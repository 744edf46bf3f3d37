//! The name of something that lies in a segment, as plain data.

use crate::rank::Rank;
use serde::{Deserialize, Serialize};

/// Names something in a segment: which segment, and bytes that tell one thing there from others. What they mean,
/// whoever made them knows. Two are equal if and only if they name the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The segment's unique number.
    pub uid: u128,
    /// Which thing in it; empty for the whole.
    pub bytes: Vec<u8>,
    /// A rank on the node where it lies, if that is one of several; follows from the rest.
    pub home: Option<Rank>,
}
