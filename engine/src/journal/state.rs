//! Is this file what it was? Remembers what a path led to, and compares it with what it leads to now.
//!
//! Which paths are worth remembering, and what to do when one has changed, is left to whoever runs tasks.
//!
//! Without content hashes a file counts as unchanged when size and modification time are the same. The kernel's clock
//! for that time ticks every 1-10 ms: a file that is rewritten within a tick with as many bytes looks unchanged. Who
//! cannot live with that asks for content hashes.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Bytes read at a time when contents are hashed.
const READ_BYTES: usize = 256 << 10;

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Nothing, or a symbolic link that leads nowhere.
    Missing,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device, a pipe, a socket: nothing is compared but that it is one.
    Other,
}

/// What was hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Hash {
    /// Of a directory, the relative path of everything in it, and size and modification time of what is no directory.
    Listing([u8; 16]),
    /// Of a file its bytes, of a directory everything's relative path and bytes.
    Content([u8; 16]),
}

/// What a path led to when somebody looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FileState {
    /// What it is. Symbolic links are followed.
    pub(crate) kind: Kind,
    /// Size in bytes; of a directory, the sum over the files in it; 0 for what is neither.
    pub(crate) bytes: u64,
    /// Modification time of a file, in nanoseconds since 1970; 0 for anything else.
    pub(crate) mtime_ns: i64,
    /// Always there for a directory; for a file if contents were asked for.
    pub(crate) hash: Option<Hash>,
}

impl FileState {
    /// What a path leads to when it leads nowhere.
    pub(crate) const MISSING: FileState =
        FileState { kind: Kind::Missing, bytes: 0, mtime_ns: 0, hash: None };

    /// Looks at what `path` leads to; with `with_hash` reads all of its contents.
    ///
    /// Symbolic links are followed up to `path` itself; those inside a directory count as what they are, by their
    /// target's name.
    ///
    /// # Errors
    /// What the system says, but for "not found": that is [`Kind::Missing`]. A directory that others change while it
    /// is read may be an error, too.
    pub(crate) fn look(path: &Path, with_hash: bool) -> io::Result<FileState> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(FileState::MISSING);
            }
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            return look_at_directory(path, with_hash);
        }
        if !metadata.is_file() {
            return Ok(FileState { kind: Kind::Other, ..FileState::MISSING });
        }
        // The time is from before the reading, so a writer who comes in between is noticed next time.
        let mut state =
            FileState { kind: Kind::File, bytes: metadata.len(), mtime_ns: mtime_ns(&metadata), hash: None };
        if with_hash {
            let mut hasher = Xxh3::new();
            state.bytes = hash_content(path, &mut hasher)?;
            state.hash = Some(Hash::Content(hasher.digest128().to_le_bytes()));
        }
        Ok(state)
    }

    /// Is this what `now` is? With content hashes on both sides the modification time does not matter.
    pub(crate) fn is_same(&self, now: &FileState) -> bool {
        match (self.hash, now.hash) {
            (Some(Hash::Content(a)), Some(Hash::Content(b))) => self.kind == now.kind && a == b,
            _ if self.kind == Kind::File => FileState { hash: self.hash, ..*now } == *self,
            _ => self == now,
        }
    }

    #[cfg(test)]
    /// Does `path` still lead to this? With a content hash, equal contents count as unchanged whatever the
    /// modification time; contents are read only if the size is the same.
    ///
    /// # Errors
    /// As for [`FileState::look`].
    pub(crate) fn unchanged(&self, path: &Path) -> io::Result<bool> {
        let with_hash = matches!(self.hash, Some(Hash::Content(_)));
        if !with_hash || self.kind != Kind::File {
            return Ok(FileState::look(path, with_hash)? == *self);
        }
        let quick = FileState::look(path, false)?;
        if quick.kind != self.kind || quick.bytes != self.bytes {
            return Ok(false);
        }
        let now = FileState::look(path, true)?;
        Ok(FileState { mtime_ns: self.mtime_ns, ..now } == *self)
    }
}

/// Modification time in nanoseconds; times beyond the year 2262 or before 1677 are all the same to us.
fn mtime_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// Feeds a file to `hasher`; returns how many bytes it has.
fn hash_content(path: &Path, hasher: &mut Xxh3) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The recursive listing, sorted by relative path, so that the order in which the system lists does not count.
fn look_at_directory(root: &Path, with_hash: bool) -> io::Result<FileState> {
    let mut found = list(root)?;
    found.sort_unstable_by(|(left, _), (right, _)| left.as_os_str().cmp(right.as_os_str()));
    let mut hasher = Xxh3::new();
    let mut bytes = 0;
    for (relative, metadata) in &found {
        let path = root.join(relative);
        add(&mut hasher, relative.as_os_str().as_bytes());
        if metadata.is_dir() {
            // A directory's own time changes when a file in it comes and goes, which changes nothing here.
            hasher.update(b"d");
        } else if metadata.is_symlink() {
            hasher.update(b"l");
            add(&mut hasher, fs::read_link(&path)?.as_os_str().as_bytes());
        } else if !metadata.is_file() {
            hasher.update(b"o");
        } else if with_hash {
            hasher.update(b"c");
            let mut content = Xxh3::new();
            bytes += hash_content(&path, &mut content)?;
            hasher.update(&content.digest128().to_le_bytes());
        } else {
            bytes += metadata.len();
            hasher.update(b"f");
            hasher.update(&metadata.len().to_le_bytes());
            hasher.update(&mtime_ns(metadata).to_le_bytes());
        }
    }
    let hash = hasher.digest128().to_le_bytes();
    let hash = if with_hash { Hash::Content(hash) } else { Hash::Listing(hash) };
    Ok(FileState { kind: Kind::Directory, bytes, mtime_ns: 0, hash: Some(hash) })
}

/// Everything below `root` by its path relative to it, directories included, in no order.
fn list(root: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let relative = directory.join(entry.file_name());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(relative.clone());
            }
            found.push((relative, metadata));
        }
    }
    Ok(found)
}

/// Feeds bytes after their length, so that two neighbours cannot pass for one.
fn add(hasher: &mut Xxh3, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
