//! What a batch remembers on disk, so that a run that was killed can be resumed.
//!
//! A journal is a file with one record per task that succeeded: which task ([`Identity`]), what its files were like
//! ([`FileState`]), and what it returned ([`Entry`]). [`Journal::open`] reads what earlier runs left; while a run goes
//! on, any thread appends. Which tasks are journaled, and which are skipped because of it, is left to the caller, who
//! knows tasks; nothing here does.
//!
//! What is on disk after which accident:
//!
//! | accident | kept |
//! |---|---|
//! | the process is killed | all but what was appended in the last few milliseconds |
//! | power fails, the kernel dies | what [`Sync`] says |
//! | the disk is full | all records up to some moment; the run goes on, and so does the journal when there is space |
//!
//! Whatever happens, what is read later is the beginning of what was appended: never a later record without an earlier
//! one, never half a record (`record` says why).

mod disk;
mod error;
mod file;
mod header;
mod identity;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use error::JournalError;
pub(crate) use identity::Identity;
pub(crate) use {
    identity::IdentityHasher,
    record::{Seen, Streams, VALUE_BYTES_MAX},
};
pub(crate) use {record::Entry, state::FileState};
#[cfg(test)]
pub(crate) use {
    record::{RECORD_BYTES_MAX, hash_of_value},
    state::{Hash, Kind},
};

use disk::Disk;
use parking_lot::Mutex;
use record::Record;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use writer::Writer;

/// Bytes of a thread's buffer for encoding that are kept for its next record.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Where this thread encodes, so that a record costs no allocation.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// When records have to be on the disk, where a power failure does not reach them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sync {
    /// Each one before [`Journal::append`] returns; appends that wait at the same time share one sync.
    EachRecord,
    /// At most so much later, and at the end.
    Every(Duration),
    /// When the system likes.
    Never,
}

/// How a journal is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// Read what earlier runs left; without it, an existing journal is an error.
    pub(crate) resume: bool,
    /// When records have to be on the disk.
    pub(crate) sync: Sync,
    /// Compare files by their contents, which costs reading them, instead of by modification time.
    pub(crate) content_hash: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { resume: false, sync: Sync::Every(Duration::from_secs(1)), content_hash: false }
    }
}

/// Bounds of memory and time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limits {
    /// Bytes of records that are accepted and not in the file: beyond that, appending waits, or is refused while
    /// writing fails. One record may be larger if it is alone.
    unwritten_bytes_max: u64,
    /// How long the writer waits for further records after the first.
    gather: Duration,
    /// With so many bytes it waits no longer.
    gather_bytes: usize,
    /// How long after a failed write the next one is tried.
    retry: Duration,
}

/// What every journal but a test's has.
const LIMITS: Limits = Limits {
    unwritten_bytes_max: 8 << 20,
    gather: Duration::from_millis(1),
    gather_bytes: 256 << 10,
    retry: Duration::from_secs(1),
};

/// An open journal. Shared by reference; its thread ends at [`Journal::close`] or when it is dropped.
pub(crate) struct Journal {
    path: PathBuf,
    writer: Arc<Writer>,
    past: file::Past,
    dropped_bytes: u64,
    content_hash: bool,
    /// The same file once more, to look whether it still has its name.
    file: File,
    /// Whether it had when the journal was closed. Relaxed: read and written under the lock of `thread`.
    is_in_place: AtomicBool,
    /// The writer's thread, until somebody closes.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal at `path`, or creates it. Blocks while it reads: about 1 µs per record.
    ///
    /// # Errors
    /// Whatever keeps us from reading it, or from writing it later.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Journal, JournalError> {
        Journal::open_with(path, options, LIMITS, |file| file.try_clone().map(|file| Box::new(file) as _))
    }

    /// As [`Journal::open`]; `disk` makes of the file what the writer writes to.
    fn open_with(
        path: &Path,
        options: Options,
        limits: Limits,
        disk: impl FnOnce(&File) -> io::Result<Box<dyn Disk>>,
    ) -> Result<Journal, JournalError> {
        // Absolute, so that errors name the same file when the process has changed its directory since.
        let path = path::absolute(path).map_err(|error| JournalError::io(path, "open", error))?;
        let opened = file::open(&path, options.resume)?;
        let failed = |error| JournalError::io(&path, "start writing", error);
        let mut disk = disk(&opened.file).map_err(failed)?;
        let writer = Writer::new(path.clone(), opened.header.number, opened.end, options.sync, limits);
        let writer = Arc::new(writer);
        let its = writer.clone();
        let thread =
            thread::Builder::new().name("tarragon-journal".into()).spawn(move || its.run(&mut *disk));
        let thread = Mutex::new(Some(thread.map_err(failed)?));
        let (past, dropped_bytes) = (opened.past, opened.dropped_bytes);
        let content_hash = options.content_hash;
        let (file, is_in_place) = (opened.file, AtomicBool::new(true));
        Ok(Journal { path, writer, past, dropped_bytes, content_hash, file, is_in_place, thread })
    }

    /// What an earlier run recorded of this task, if the task did not begin again since. What is appended now does not
    /// show here.
    pub(crate) fn past(&self, identity: Identity) -> Option<Arc<Entry>> {
        self.past.get(&identity).cloned()
    }

    /// All that earlier runs recorded.
    pub(crate) fn all_past(&self) -> impl Iterator<Item = &Entry> {
        self.past.values().map(|entry| &**entry)
    }

    /// As [`begun`](Self::begun), for several tasks with one wait.
    ///
    /// # Errors
    /// As `begun`.
    pub(crate) fn begun_all(&self, identities: impl Iterator<Item = Identity>) -> Result<(), JournalError> {
        let mut end = None;
        for identity in identities {
            end = Some(self.put(&Record::Begun(identity))?);
        }
        end.map_or(Ok(()), |end| self.writer.wait_written(end))
    }

    /// How many tasks earlier runs recorded.
    pub(crate) fn past_len(&self) -> usize {
        self.past.len()
    }

    /// How many bytes at the end of the file were no records, and were cut off: what a crash tore, or what followed a
    /// damaged place.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Where the journal is, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at a file in the way that this journal compares files.
    ///
    /// # Errors
    /// As [`FileState::look`].
    pub(crate) fn look(&self, path: &Path) -> io::Result<FileState> {
        FileState::look(path, self.content_hash)
    }

    /// Records that a task succeeded. Costs below 1 µs for a task with few paths; waits while 8 MiB are unwritten, and
    /// with [`Sync::EachRecord`] until the record is on the disk.
    ///
    /// # Errors
    /// [`JournalError::ValueTooLarge`] and [`JournalError::RecordTooLarge`]: this entry cannot be recorded.
    /// [`JournalError::Failing`] and [`JournalError::Disk`]: it found no room, or with [`Sync::EachRecord`] is not on
    /// the disk yet. The run can go on, [`Journal::close`] tells how many records are missing.
    /// [`JournalError::Closed`]: too late.
    pub(crate) fn append(&self, entry: &Entry) -> Result<(), JournalError> {
        self.put(&Record::Done(entry)).map(|_| ())
    }

    #[cfg(test)]
    /// Records that a task with an entry runs again, so that the entry no longer counts. To be called before the task
    /// touches anything: returns when the record would survive the end of this process, about 0.1 ms later.
    ///
    /// # Errors
    /// As [`Journal::append`], then the old entry may still count.
    pub(crate) fn begun(&self, identity: Identity) -> Result<(), JournalError> {
        let end = self.put(&Record::Begun(identity))?;
        self.writer.wait_written(end)
    }

    fn put(&self, record: &Record<&Entry>) -> Result<u64, JournalError> {
        let mut frame = record::encode(record, SCRATCH.take())?;
        let end = self.writer.append(&frame);
        if frame.capacity() <= SCRATCH_BYTES_MAX {
            frame.clear();
            SCRATCH.set(frame);
        }
        end
    }

    /// Returns when all that was appended is in the file, and on the disk unless [`Sync::Never`].
    ///
    /// # Errors
    /// [`JournalError::Failing`] if a try to write since this call failed, [`JournalError::Disk`], and
    /// [`JournalError::Closed`].
    pub(crate) fn flush(&self) -> Result<(), JournalError> {
        self.writer.flush()
    }

    /// How many appended records are not in the file yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.writer.waiting()
    }

    /// What is wrong with writing now: shown to the user while the run goes on. `None` again when it works again.
    pub(crate) fn error(&self) -> Option<JournalError> {
        self.writer.error()
    }

    /// Writes what is left, ends, and lets go of the lock; when writing fails, after one more try. Closing again gives
    /// the same answer.
    ///
    /// # Errors
    /// [`JournalError::Incomplete`] and [`JournalError::Disk`] with the number of missing records,
    /// [`JournalError::Removed`] if the file is no longer at its path.
    pub(crate) fn close(&self) -> Result<(), JournalError> {
        // Whoever comes second waits here until the first has seen the thread end.
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            self.writer.close();
            // A panic of the writer is a bug; what it wrote counts, the rest is told below as missing.
            let _ = thread.join();
            self.is_in_place.store(file::is_at(&self.file, &self.path), Ordering::Relaxed);
            // Where there are no locks, there is none to let go of.
            let _ = self.file.unlock();
        }
        self.writer.verdict()?;
        match self.is_in_place.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(JournalError::Removed { path: self.path.clone() }),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Nobody is left to tell; whoever wants to know closes first.
        let _ = self.close();
    }
}
