//! What can be wrong with a journal. Every message says what was found and how to mend it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a journal cannot be opened, or does not hold what it should.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JournalError {
    /// A journal is there, and its past was not asked for.
    #[error("the journal {path} exists: resume from it, remove it, or choose another path", path = path.display())]
    Exists {
        /// The journal.
        path: PathBuf,
    },
    /// The directory that should hold the journal is not there.
    #[error("cannot create the journal {path}: there is no directory {directory}; create it first",
        path = path.display(), directory = directory.display())]
    NoDirectory {
        /// The journal.
        path: PathBuf,
        /// What should hold it.
        directory: PathBuf,
    },
    /// The path leads to a directory, a device, a pipe or a socket.
    #[error("the journal {path} is {found}: give the path of a file that is a journal or not there yet",
        path = path.display())]
    NotAFile {
        /// Where a journal was expected.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A file with other contents.
    #[error("{path} is not a journal: it starts with {found}; it was left as it is, give another path",
        path = path.display())]
    NotAJournal {
        /// Where a journal was expected.
        path: PathBuf,
        /// Its first bytes, as text.
        found: String,
    },
    /// A later engine wrote it.
    #[error("the journal {path} was written by Tarragon {engine} in format {format}, this one reads up to {ours}: \
        resume with that version, or remove the journal and run everything", path = path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The version that wrote it.
        engine: String,
        /// Its format.
        format: u32,
        /// The newest format that we read.
        ours: u32,
    },
    /// The first bytes are a journal's, the rest of its header is not.
    #[error("the header of the journal {path} is damaged, so nothing in it can be trusted: move it away and run \
        everything", path = path.display())]
    DamagedHeader {
        /// The journal.
        path: PathBuf,
    },
    /// A record is as it was written, but we cannot read it.
    #[error("the record at byte {position} of the journal {path} is intact but unknown here: resume with the build \
        of Tarragon {engine} that wrote it, or remove the journal and run everything", path = path.display())]
    UnknownRecord {
        /// The journal.
        path: PathBuf,
        /// Where the record starts, in bytes.
        position: u64,
        /// The version that created the journal.
        engine: String,
    },
    /// Somebody else writes it.
    #[error("the journal {path} is in use by another run: wait until that has ended, or give each run its own",
        path = path.display())]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// The system does not let us.
    #[error("no permission to {operation} the journal {path}: a journal and its directory must be readable and \
        writable by you", path = path.display())]
    Permission {
        /// The journal.
        path: PathBuf,
        /// What we wanted to do.
        operation: &'static str,
    },
    /// The system failed otherwise, before the run began.
    #[error("cannot {operation} the journal {path}: {cause}; mend that, or give a path on another file system",
        path = path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What we wanted to do.
        operation: &'static str,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// A function's result is too long to be remembered.
    #[error("a value of {bytes} bytes is not journaled, at most {max} are: append the entry without it")]
    ValueTooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A task with too many paths to be remembered.
    #[error(
        "a record of {bytes} bytes is not journaled, at most {max} are: declare a directory instead of its files"
    )]
    RecordTooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Writing fails for now; the run goes on.
    #[error("cannot {operation} the journal {path}: {cause}; the run goes on, {waiting} records wait and {refused} \
        are lost: they wait until there is space again", path = path.display())]
    Failing {
        /// The journal.
        path: PathBuf,
        /// What failed.
        operation: &'static str,
        /// What the system said.
        cause: Arc<io::Error>,
        /// Records that are kept in memory until it works again.
        waiting: u64,
        /// Records that found no room in memory.
        refused: u64,
    },
    /// The run is over and the journal lacks records: their tasks will run again.
    #[error("the journal {path} lacks {missing} records, last {cause}: a resumed run repeats their tasks; \
        make sure that there is space", path = path.display())]
    Incomplete {
        /// The journal.
        path: PathBuf,
        /// How many.
        missing: u64,
        /// What the system said last.
        cause: Arc<io::Error>,
    },
    /// The disk did not take what was written, so nothing written since can be relied on.
    #[error("the disk of the journal {path} failed: {cause}; the run goes on without journal, {missing} records are \
        lost: a resumed run repeats their tasks; choose another disk", path = path.display())]
    Disk {
        /// The journal.
        path: PathBuf,
        /// How many records may not be on disk.
        missing: u64,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// The file was removed or replaced while we wrote to it.
    #[error("the journal {path} was removed or replaced during the run: what was written to it is lost",
        path = path.display())]
    Removed {
        /// Where it was.
        path: PathBuf,
    },
    /// Something was appended after the end.
    #[error("the journal {path} is closed: append before `close`", path = path.display())]
    Closed {
        /// The journal.
        path: PathBuf,
    },
}

impl JournalError {
    /// The error for an `operation` on `path` that failed before the run began.
    pub(super) fn io(path: &std::path::Path, operation: &'static str, cause: io::Error) -> JournalError {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::PermissionDenied => JournalError::Permission { path, operation },
            _ => JournalError::Io { path, operation, cause: Arc::new(cause) },
        }
    }
}
