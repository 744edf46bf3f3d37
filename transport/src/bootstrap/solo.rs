//! A world of one rank.

use crate::fabric::{Fabric, Loopback};

/// The fabric of a rank that is alone.
pub(super) fn fabric(through_bytes: bool) -> Fabric {
    Fabric::Loopback(if through_bytes { Loopback::through_bytes() } else { Loopback::direct() })
}
