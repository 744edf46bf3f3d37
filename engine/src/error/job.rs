//! How a job failed: which rank, on which host, and how; or what kept the launcher from starting all.

use super::ErrorKind;
use super::process::signal_name;
use crate::task::JobRank;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tarragon_supervisor::job::{Table, Trouble};

/// How a job failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct JobFailure {
    pub(crate) ranks: Vec<JobRank>,
    /// The first that failed.
    pub(crate) failed: Option<u32>,
    /// Of the ranks these ran.
    started: u32,
    trouble: Option<Trouble>,
    /// How the launcher ended, as `wait` tells it.
    launcher: Option<i32>,
}

impl JobFailure {
    pub(crate) fn of(table: &Table) -> Self {
        Self {
            ranks: JobRank::all(table),
            failed: table.failed,
            started: table.ranks.iter().filter(|end| end.started).count() as u32,
            trouble: table.trouble.clone(),
            launcher: table.launcher,
        }
    }

    fn first(&self) -> Option<&JobRank> {
        self.ranks.get(self.failed? as usize)
    }

    /// The exit code of the rank that failed first.
    pub(crate) fn code(&self) -> Option<i32> {
        self.first()?.code
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.first()?.signal
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match (&self.trouble, self.first()) {
            (Some(Trouble::Launcher(_) | Trouble::Listen(_)), _) => ErrorKind::CouldNotStart,
            (_, Some(rank)) if rank.code.is_some() => ErrorKind::Exited,
            (_, Some(rank)) if rank.signal.is_some() => ErrorKind::Signalled,
            (_, Some(rank)) if rank.host.is_empty() => ErrorKind::CouldNotStart,
            (_, Some(_)) if self.started < self.ranks.len() as u32 => ErrorKind::CouldNotStart,
            (_, Some(_)) => ErrorKind::Lost,
            (None, None) if self.started == 0 => ErrorKind::CouldNotStart,
            (_, None) => ErrorKind::Failed,
        }
    }
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trouble {
            Some(Trouble::Launcher(why)) => return write!(f, "could not start: the launcher {why}"),
            Some(Trouble::Listen(why)) => {
                return write!(f, "could not start: no socket for its ranks: {why}");
            }
            Some(Trouble::Output(why)) => {
                return write!(f, "ended, since what its ranks wrote could not be written: {why}");
            }
            Some(Trouble::Hangs) => {
                return write!(f, "all its ranks have ended, but its launcher has not, and was killed");
            }
            None => {}
        }
        let all = self.ranks.len();
        let Some(first) = self.first() else {
            let how = match self.launcher.map(ExitStatus::from_raw) {
                Some(status) => status.to_string(),
                None => "nobody knows how".to_string(),
            };
            return write!(f, "its launcher ended ({how}) when {} of {all} ranks had begun", self.started);
        };
        write!(f, "rank {} of {all}", first.rank)?;
        if !first.host.is_empty() {
            write!(f, " on {}", first.host)?;
        }
        match (first.code, first.signal, &first.why) {
            (Some(code), ..) => write!(f, ": exit code {code}"),
            (_, Some(signal), _) => write!(f, ": killed by signal {signal} ({})", signal_name(signal)),
            (.., Some(why)) => write!(f, ": {why}"),
            (None, None, None) => write!(f, ": its end is not known"),
        }
    }
}
