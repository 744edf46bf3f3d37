//! Queues of cells in shared memory: no lock that outlives its owner, no item lost or torn by a death.
//!
//! In reading order: `cell` is the place of one item; `head` says who takes and where; `lane` is a queue of one producer
//! in a fixed array of cells.

#![expect(unsafe_code, reason = "says which parts of a ring may lie in shared memory")]

pub mod cell;
pub mod head;
pub mod lane;

use crate::segment::Shared;

// SAFETY: atomics of fixed width; any value of them is valid, and zeros are a cell never used.
unsafe impl Shared for cell::Cell {}
// SAFETY: atomics of fixed width and padding; zeros are a head at ticket 0 that nobody holds.
unsafe impl Shared for head::Head {}
// SAFETY: atomics of fixed width and padding; zeros are an empty lane.
unsafe impl Shared for lane::Lane {}
