//! What several processes do to one dictionary or directory, and what a killed one leaves.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod live;
mod persist;
mod process;
mod stats;
