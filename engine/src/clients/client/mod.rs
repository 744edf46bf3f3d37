//! A client's end: the connection to the primary, and the lists that were sent.

mod connection;
mod pack;
mod sent;

pub(crate) use connection::Connection;
pub(super) use connection::{attach, own_fingerprint};
pub(crate) use sent::Sent;
