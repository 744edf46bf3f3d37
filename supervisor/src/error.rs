//! Why there is no supervisor.

use std::io;

/// The supervisor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No pair of sockets.
    #[error("no socket to a supervisor")]
    Socket(#[source] io::Error),
    /// The program cannot be executed once more.
    #[error("could not execute /proc/self/exe as the supervisor")]
    Execute(#[source] io::Error),
    /// The process that was executed did not answer as a supervisor: the program was built without this crate's
    /// constructor, or it is no program of ours but an interpreter that loaded us.
    #[error("the executed program did not become a supervisor")]
    NoAnswer(#[source] io::Error),
}
