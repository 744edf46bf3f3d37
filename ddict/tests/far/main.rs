//! What ranks of several machines see of one another's keys when these lie on several nodes, or are read one-sidedly.
//!
//! The machines are namespaces of this one, which share no memory. Each test starts a launcher with this program, which
//! runs the one test again in a role. Every process has a watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;
mod copies;
mod losses;
mod many;
mod nodes;
mod reads;
mod replicas;
