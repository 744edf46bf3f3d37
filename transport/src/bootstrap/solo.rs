//! A world of one rank.

use crate::fabric::{Fabric, Loopback, Way};

/// The fabric of a rank that is alone.
pub(super) fn fabric(through_bytes: bool) -> Fabric {
    let loopback = if through_bytes { Loopback::through_bytes() } else { Loopback::direct() };
    Fabric::new(Way::Loopback(loopback))
}
