//! The graph of a compiled list: arrays for running ([`Csr`], made when needed by [`Outline`]), a public face for
//! looking at it ([`Graph`]).
//!
//! Only this module translates between task indices (list order) and node indices (execution order).

mod csr;
mod draw;
mod outline;
mod view;

pub(crate) use csr::{Csr, JOIN, NEEDS, Roots};
pub(crate) use outline::{Frozen, Outline};
pub use view::{Edge, Graph};
