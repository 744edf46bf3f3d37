//! Why a batch cannot be attached to.

use std::io;

/// Why a program cannot become a client of a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The text is no descriptor of a batch.
    #[error(
        "`{text}` is not the descriptor of a batch: give the whole line that `batch.descriptor()` prints"
    )]
    NotADescriptor {
        /// As given, as far as it is shown.
        text: String,
    },
    /// The batch lives on another machine.
    #[error(
        "the batch lives on {host} (process {pid}), and this process on {here}: attach on its own node, or send the \
         work there"
    )]
    OtherNode {
        /// Its machine.
        host: String,
        /// Its process.
        pid: u32,
        /// This machine.
        here: String,
    },
    /// The batch is on this machine, but in another network namespace.
    #[error(
        "the batch's process {pid} is in another network namespace (of a container, say): attach from inside that"
    )]
    OtherNetwork {
        /// Its process.
        pid: u32,
    },
    /// The program of the batch has ended.
    #[error(
        "the batch is gone: its program, process {pid} on {host}, has ended. Take the descriptor of one that runs"
    )]
    Gone {
        /// Its machine.
        host: String,
        /// Its process.
        pid: u32,
    },
    /// The program runs, but the batch is joined or dropped.
    #[error("the batch is closed: its program, process {pid} on {host}, has joined or dropped it")]
    Closed {
        /// Its machine.
        host: String,
        /// Its process.
        pid: u32,
    },
    /// The batch is another user's.
    #[error(
        "the batch is of user {theirs} (process {pid}), and this process of user {ours}: run both as one user"
    )]
    OtherUser {
        /// Its process.
        pid: u32,
        /// Who runs it.
        theirs: u32,
        /// Who runs this process.
        ours: u32,
    },
    /// The other program was built with another version of Tarragon.
    #[error(
        "the batch's program (process {pid}) has Tarragon {theirs}, and this one {ours}: build both with one version"
    )]
    OtherVersion {
        /// Its process.
        pid: u32,
        /// Its version.
        theirs: String,
        /// The version of this program.
        ours: String,
    },
    /// The batch has as many clients as it can.
    #[error("the batch (process {pid}) has {max} clients, which is the bound: let one of them close first")]
    TooMany {
        /// Its process.
        pid: u32,
        /// The bound.
        max: usize,
    },
    /// The system could not do it.
    #[error("cannot {verb} the batch of process {pid}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// Its process.
        pid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
