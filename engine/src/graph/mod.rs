//! The graph of a compiled list: arrays for running ([`Csr`]), a public face for looking at it ([`Graph`]).
//!
//! Only this module translates between task indices (list order) and node indices (execution order).

mod csr;
mod draw;
mod view;

pub(crate) use csr::{Csr, JOIN, NEEDS, Roots};
pub use view::{Edge, Graph};
