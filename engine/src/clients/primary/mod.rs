//! The primary's end: who listens, one session for each client, and from bytes to tasks.

mod listener;
mod session;
mod unpack;

pub(crate) use listener::Listener;
