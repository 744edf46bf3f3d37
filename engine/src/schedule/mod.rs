//! Turns "this node has ended" into "these nodes are ready". Pure: no thread, clock or IO.
//!
//! The hot part is a row of counters, one per node, which the workers lower themselves ([`Ready`]).

pub(crate) mod ready;

pub(crate) use ready::{Arrival, Ready};
