//! What became of a job's ranks. The leader writes it to a file when the job has ended; the engine reads it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What became of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Each rank's end.
    pub ranks: Vec<RankEnd>,
    /// The rank that failed first, for which the others had to end.
    pub failed: Option<u32>,
    /// How the launcher ended, as `wait` tells; none if it was not started.
    pub launcher: Option<i32>,
    /// What kept the leader from doing its work.
    pub trouble: Option<Trouble>,
}

/// How a rank ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankEnd {
    /// Which of the executables it ran.
    pub executable: u32,
    /// The machine that it ran on, by its own name; empty if its guard has not come.
    pub host: String,
    /// It ran.
    pub started: bool,
    /// Its status as `wait` tells it; none if it did not run, or its guard is lost.
    pub status: Option<i32>,
    /// Why it did not run, or what became of its guard.
    pub why: Option<String>,
    /// It was told to end before it did.
    pub was_ended: bool,
    /// The largest resident memory in bytes that it or a child that it waited for had.
    pub max_rss_bytes: u64,
    /// The processor time of it and of children that it waited for.
    pub user: Duration,
    /// The time that the system worked for these.
    pub system: Duration,
}

/// What can go wrong with a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// The launcher could not be started.
    Launcher(String),
    /// Guards cannot be listened to.
    Listen(String),
    /// What ranks wrote cannot be written.
    Output(String),
    /// All ranks have ended, and the launcher did not; it was killed.
    Hangs,
}

impl RankEnd {
    /// Its exit code, if it exited.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| ExitStatus::from_raw(status).code())
    }

    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| ExitStatus::from_raw(status).signal())
    }
}

impl Table {
    /// Reads it from the job's folder.
    ///
    /// # Errors
    /// Those of the file system: `NotFound` if the leader was killed. `InvalidData` if it is damaged.
    pub fn read(folder: &Path) -> io::Result<Table> {
        Table::parse(&std::fs::read(Table::path(folder))?)
    }

    /// Reads what is in its file.
    ///
    /// # Errors
    /// `InvalidData` if it is damaged.
    pub fn parse(bytes: &[u8]) -> io::Result<Table> {
        postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Where it is in the job's folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("table")
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = postcard::to_stdvec(self).map_err(io::Error::other)?;
        // Whole or not at all: who reads it may do so at any time.
        let new = folder.join("table.new");
        std::fs::write(&new, bytes)?;
        std::fs::rename(new, Table::path(folder))
    }
}
