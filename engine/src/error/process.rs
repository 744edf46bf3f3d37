//! How a process failed: exit code or signal, what made us kill it, why it could not start, its last words.

use super::ErrorKind;
use super::job::JobFailure;
use crate::task::Usage;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How a process task failed.
#[derive(Debug)]
pub struct ProcessFailure {
    /// What happened.
    pub(crate) how: How,
    /// The last lines it wrote to its standard error, or else to its standard output.
    pub(crate) tail: String,
    /// What it used until then.
    pub(crate) usage: Usage,
}

/// What happened to a process.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum How {
    /// It exited with a code that the task does not accept.
    Exited(i32),
    /// A signal ended it.
    Signal {
        /// Its number.
        signal: i32,
        /// Whether it left a core file.
        core: bool,
    },
    /// It ran longer than its timeout, and was ended.
    TimedOut(Duration),
    /// Its tree used more memory than the task declares, and was killed.
    OverMemory {
        /// Bytes declared.
        limit: u64,
    },
    /// It was cancelled while it ran.
    Cancelled,
    /// It did not come to be.
    CouldNotStart {
        /// What was tried.
        what: Cow<'static, str>,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is a job, and failed as such.
    Job(Box<JobFailure>),
    /// The process that watched it died, so its end is not known.
    Lost,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Exited(code) => write!(f, "exit code {code}"),
            How::Signal { signal, core } => {
                write!(f, "killed by signal {signal} ({})", signal_name(*signal))?;
                if *core { write!(f, ", core dumped") } else { Ok(()) }
            }
            How::TimedOut(timeout) => write!(f, "over its timeout of {timeout:?}, so it was ended"),
            How::OverMemory { limit } => write!(f, "over its memory of {limit} bytes, so it was killed"),
            How::Cancelled => write!(f, "cancelled while it ran"),
            How::CouldNotStart { what, path, error } => {
                write!(f, "could not start: {what} {}: {}", path.display(), advice(error))
            }
            How::Job(job) => write!(f, "{job}"),
            How::Lost => write!(f, "its supervisor was killed, and it with it"),
        }
    }
}

impl fmt::Display for ProcessFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.how)?;
        if self.tail.is_empty() { Ok(()) } else { write!(f, "; its last lines:\n{}", indented(&self.tail)) }
    }
}

impl ProcessFailure {
    pub(super) fn kind(&self) -> ErrorKind {
        match &self.how {
            How::Exited(_) => ErrorKind::Exited,
            How::Signal { .. } => ErrorKind::Signalled,
            How::TimedOut(_) => ErrorKind::OverTime,
            How::OverMemory { .. } => ErrorKind::OverMemory,
            How::Cancelled => ErrorKind::Cancelled,
            How::CouldNotStart { .. } => ErrorKind::CouldNotStart,
            How::Job(job) => job.kind(),
            How::Lost => ErrorKind::Lost,
        }
    }
}

/// What the system said, and what to do about it where the words do not tell.
fn advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(8) => "wrong format: neither a program for this machine nor a script that begins with #!".into(),
        _ => error.to_string(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// The name of a signal, as `kill -l` gives it.
pub(super) fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(signal - 1).ok().and_then(|i| NAMES.get(i));
    name.map_or_else(|| "a real-time signal".to_string(), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(1), "SIGHUP");
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(15), "SIGTERM");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "a real-time signal");
    }
}
