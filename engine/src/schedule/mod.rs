//! Turns "this node has ended" into "these nodes are ready", and "these are ready" into "these may start". Pure: no
//! thread, clock or IO.
//!
//! The hot part is a row of counters, one per node, which the workers lower themselves ([`Ready`]). Tasks that need
//! more than a worker's turn (processes, resources) go through the [`Desk`].

mod desk;
mod devices;
mod hosts;
mod need;
pub(crate) mod ready;
#[cfg(test)]
mod tests;

pub(crate) use desk::{AccountId, Action, Desk, InstanceId, JobId, Offer, Place, Seats};
pub(crate) use devices::{DeviceId, room as room_for_gpus};
pub(crate) use hosts::{HERE, HostId, JobNeed, deal, fit};
pub(crate) use need::{Need, Stock, UNITS};
pub(crate) use ready::{Arrival, Ready};
