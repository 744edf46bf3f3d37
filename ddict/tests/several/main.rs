//! What several processes do to one dictionary or directory, and what a killed one leaves.

mod live;
mod persist;
mod process;
