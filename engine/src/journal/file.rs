//! Opens the file: creates it whole, locks it, reads what earlier runs left, cuts off a torn tail.
//!
//! A journal comes into being under another name, with its header, synced, and is renamed then: no crash leaves half a
//! header under its name, at most a file `.tarragon-journal-…` beside it that nobody needs. The lock is `flock`'s, so
//! it goes when the process goes, however that happens. Where the file system has no locks, there is none, and nothing
//! keeps two runs from spoiling each other's journal.

use super::error::JournalError;
use super::header::{HEADER_BYTES, Header};
use super::identity::Identity;
use super::record::{self, CHECKSUM_BYTES, Entry, LENGTH_BYTES, RECORD_BYTES_MAX, Record};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::hash::BuildHasher;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often we look again when the file under our path is exchanged while we open it.
const OPENINGS_MAX: usize = 8;
/// How often a lock is tried, and how long we wait in between: 0.2 s in all.
const LOCK_TRIES_MAX: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// What a new journal may be at most; the umask takes from it.
const MODE: u32 = 0o666;

/// The entries that count, by identity.
pub(super) type Past = HashMap<Identity, Arc<Entry>, RandomState>;

/// An open journal.
pub(super) struct Opened {
    /// The file, locked as long as it is open.
    pub(super) file: File,
    /// Its header.
    pub(super) header: Header,
    /// What it remembers.
    pub(super) past: Past,
    /// Where the next record goes, in bytes: the end of the file.
    pub(super) end: u64,
    /// Bytes that were cut off: a torn record, or a damaged one and all after it.
    pub(super) dropped_bytes: u64,
}

/// Opens or creates the journal at `path`; with `resume`, an existing one is read.
///
/// # Errors
/// Every variant of [`JournalError`] that tells of a file.
pub(super) fn open(path: &Path, resume: bool) -> Result<Opened, JournalError> {
    for _ in 0..OPENINGS_MAX {
        let opened = match open_existing(path)? {
            Some(file) => read(path, file, resume)?,
            None => create(path, path, None)?,
        };
        if let Some(opened) = opened {
            return Ok(opened);
        }
    }
    Err(JournalError::Locked { path: path.to_owned() })
}

/// The file at `path`, locked; `None` if there is none.
fn open_existing(path: &Path) -> Result<Option<File>, JournalError> {
    let failed = |operation, error| JournalError::io(path, operation, error);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
            let found = "a symbolic link that leads nowhere";
            let link = JournalError::NotAFile { path: path.to_owned(), found };
            return if is_link { Err(link) } else { Ok(None) };
        }
        Err(error) => return Err(failed("open", error)),
    };
    if !metadata.is_file() {
        let found = match metadata.file_type() {
            kind if kind.is_dir() => "a directory",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(JournalError::NotAFile { path: path.to_owned(), found });
    }
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", error)),
    };
    lock(path, &file)?;
    Ok(Some(file))
}

/// Locks the file, or finds it locked for some time: a process that a killed run was just starting holds the run's lock
/// until it has become another program.
fn lock(path: &Path, file: &File) -> Result<(), JournalError> {
    for _ in 0..LOCK_TRIES_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(JournalError::io(path, "lock", error)),
        }
    }
    Err(JournalError::Locked { path: path.to_owned() })
}

/// Reads the journal in `file`; `None` if `path` leads to another file by now.
fn read(path: &Path, file: File, resume: bool) -> Result<Option<Opened>, JournalError> {
    let failed = |error| JournalError::io(path, "read", error);
    if !is_at(&file, path) {
        return Ok(None);
    }
    let file_bytes = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(READ_BYTES, &file);
    let mut start = Vec::with_capacity(HEADER_BYTES);
    reader.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut start).map_err(failed)?;
    let header = Header::decode(path, &start)?;
    if !resume && file_bytes > 0 {
        return Err(JournalError::Exists { path: path.to_owned() });
    }
    let Some(header) = header else {
        // Nothing of value is lost: no record fits before the end of a header. The lock is kept until the new file
        // is in place, and the name of a symbolic link stays one.
        let target = fs::canonicalize(path).map_err(failed)?;
        return create(path, &target, Some(file_bytes));
    };
    let (past, end) = read_records(path, reader, &header, file_bytes)?;
    let dropped_bytes = file_bytes - end;
    if dropped_bytes > 0 {
        // Synced, so that after another crash no old record can follow the new ones.
        file.set_len(end)
            .and_then(|()| file.sync_all())
            .map_err(|error| JournalError::io(path, "cut", error))?;
    }
    Ok(Some(Opened { file, header, past, end, dropped_bytes }))
}

/// Does `path` lead to this file?
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let ours = file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    let there = fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
}

/// The entries that count, and where the first byte is that is no record's.
fn read_records(
    path: &Path,
    mut reader: impl Read,
    header: &Header,
    file_bytes: u64,
) -> Result<(Past, u64), JournalError> {
    let mut past = Past::default();
    let mut position = HEADER_BYTES as u64;
    let mut frame = Vec::new();
    while next_frame(&mut reader, &mut frame, header.number, position, file_bytes)
        .map_err(|error| JournalError::io(path, "read", error))?
    {
        let unknown =
            || JournalError::UnknownRecord { path: path.to_owned(), position, engine: header.engine.clone() };
        match postcard::take_from_bytes::<Record<Entry>>(&frame[LENGTH_BYTES..]) {
            Ok((Record::Done(entry), [])) => {
                past.insert(entry.identity, Arc::new(entry));
            }
            Ok((Record::Begun(identity), [])) => {
                past.remove(&identity);
            }
            Ok(_) | Err(_) => return Err(unknown()),
        }
        position += (frame.len() + CHECKSUM_BYTES) as u64;
    }
    Ok((past, position))
}

/// Reads length and payload of the record at `position` into `frame`; false if there is none that can be believed.
fn next_frame(
    reader: &mut impl Read,
    frame: &mut Vec<u8>,
    number: u64,
    position: u64,
    file_bytes: u64,
) -> io::Result<bool> {
    let left = file_bytes - position;
    let overhead = (LENGTH_BYTES + CHECKSUM_BYTES) as u64;
    if left < overhead {
        return Ok(false);
    }
    let mut start = [0; LENGTH_BYTES];
    reader.read_exact(&mut start)?;
    let bytes = record::payload_bytes(start);
    if bytes > RECORD_BYTES_MAX || bytes as u64 > left - overhead {
        return Ok(false);
    }
    frame.clear();
    frame.extend_from_slice(&start);
    frame.resize(LENGTH_BYTES + bytes, 0);
    reader.read_exact(&mut frame[LENGTH_BYTES..])?;
    let mut sum = [0; CHECKSUM_BYTES];
    reader.read_exact(&mut sum)?;
    Ok(sum == record::checksum(record::hash_frame(frame, number), position))
}

/// Creates a journal at `target`, which is where `path` leads; `None` if somebody was faster. Where `torn_bytes` are
/// given, a file of that many bytes is replaced.
fn create(path: &Path, target: &Path, torn_bytes: Option<u64>) -> Result<Option<Opened>, JournalError> {
    let failed = |error| JournalError::io(path, "create", error);
    let directory = match target.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    if !directory.is_dir() {
        let directory = PathBuf::from(directory);
        return Err(JournalError::NoDirectory { path: path.to_owned(), directory });
    }
    let mut temporary = tempfile::Builder::new()
        .prefix(".tarragon-journal-")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(directory)
        .map_err(failed)?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    // Seeded at random in each process; the name and the time make it differ within one.
    let number = RandomState::default().hash_one((temporary.path(), since_1970));
    let header = Header::new(created_ms, number);
    temporary.write_all(&header.encode()).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    lock(path, temporary.as_file())?;
    let persisted = match torn_bytes {
        Some(_) => temporary.persist(target),
        None => temporary.persist_noclobber(target),
    };
    let file = match persisted {
        Ok(file) => file,
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(failed(error.error)),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    let (past, end) = (Past::default(), HEADER_BYTES as u64);
    Ok(Some(Opened { file, header, past, end, dropped_bytes: torn_bytes.unwrap_or(0) }))
}
