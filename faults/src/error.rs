//! What can go wrong while a child is killed: the machine does not let us, the child does not play, the check failed.

use std::io;

use crate::tally::Tally;

/// Why kills could not be made, or what they have shown.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// This machine lets nobody trace; the test is skipped, not passed.
    #[error("skipped: ptrace: {errno}")]
    NotPermitted {
        /// What the system said.
        errno: io::Error,
    },
    /// A system call failed.
    #[error("{call}: {errno}")]
    System {
        /// Which.
        call: &'static str,
        /// What the system said.
        errno: io::Error,
    },
    /// The process that should play a role ended or did not answer: no test has this name, or its code did not come
    /// to `serve` or `ready`.
    #[error("`{role}` is not played: {what}")]
    NotPlayed {
        /// The test that has the role.
        role: String,
        /// What was seen of it.
        what: String,
    },
    /// A child ended before it was killed.
    #[error("`{role}` ended by itself after {step} steps: {what}")]
    Ended {
        /// The test that has the role.
        role: String,
        /// Its steps inside the operation.
        step: u64,
        /// Its exit status or signal.
        what: String,
    },
    /// An operation takes more steps, or a child more time, than a test should. Does it wait for somebody?
    #[error("`{operation}` is not over after {step} steps and up to {seconds_max} s")]
    Endless {
        /// The operation.
        operation: String,
        /// Steps made.
        step: u64,
        /// The bound on time.
        seconds_max: u32,
    },
    /// The survivor's check panicked: the kill did harm.
    #[error("`{operation}` killed after step {step} ({phase}): {message}")]
    Broken {
        /// The operation.
        operation: String,
        /// How many of its instructions were executed.
        step: u64,
        /// The phase it was in.
        phase: String,
        /// What the check said.
        message: String,
    },
    /// No kill hit this phase, so nothing is known about it.
    #[error("no kill in phase `{phase}`; {tally}")]
    Uncovered {
        /// The phase.
        phase: String,
        /// The kills that were made.
        tally: Box<Tally>,
    },
}

impl Fault {
    /// Whether the test was not run rather than failed. Print the fault, it says `skipped: …`.
    pub fn is_skip(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }

    pub(crate) fn system(call: &'static str, errno: impl Into<io::Error>) -> Self {
        Self::System { call, errno: errno.into() }
    }
}
