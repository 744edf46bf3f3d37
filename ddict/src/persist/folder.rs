//! The directory: names of files, its lock, and how a file comes to its name.

use super::PersistId;
use super::format::{ListReader, Place};
use crate::error::Error;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

const LIST: &str = "id-";
const VALUES: &str = "values-";
const NEW: &str = "new-";
const LOCK: &str = "lock";

/// The error that the system refused a file.
pub(super) fn refused(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

/// The numbers that a directory holds, in their order. A directory that is not there holds none.
///
/// # Errors
/// `File` if the directory cannot be read.
pub fn persisted_ids(dir: impl AsRef<Path>) -> Result<Vec<PersistId>, Error> {
    let mut ids: Vec<PersistId> = names(dir.as_ref())?.iter().filter_map(|name| number(name, LIST)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Removes what was persisted under a number, for good. Values that other numbers share stay with them; the disk
/// space of the rest is free when this returns. Numbers are not used again, unless the newest one is removed.
///
/// Killed at whatever moment, the number is there as a whole or not at all; values that nothing needs any more are
/// then removed by the next one that persists or removes. Blocks while another process does so. Who has it open
/// (`Persisted`) may find values missing.
///
/// Cost: the lists of all numbers are read if values remain whose own number is gone.
///
/// # Errors
/// `NotPersisted` if the directory has no such number; `File`.
pub fn remove_persisted(dir: impl AsRef<Path>, id: PersistId) -> Result<(), Error> {
    let dir = dir.as_ref();
    // Before the lock, which would make the directory.
    known(dir, id)?;
    let folder = Folder::lock(dir)?;
    known(dir, id)?;
    folder.remove(id)
}

/// An error if the directory does not hold the number.
pub(super) fn known(dir: &Path, id: PersistId) -> Result<(), Error> {
    let known = persisted_ids(dir)?;
    if known.contains(&id) { Ok(()) } else { Err(Error::NotPersisted { dir: dir.to_owned(), id, known }) }
}

/// Where the list of a number is.
pub(super) fn list_path(dir: &Path, id: PersistId) -> PathBuf {
    dir.join(format!("{LIST}{:016x}", id.0))
}

/// Where the values are that were first seen when `id` was persisted.
pub(super) fn values_path(dir: &Path, id: PersistId) -> PathBuf {
    dir.join(format!("{VALUES}{:016x}", id.0))
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused("read", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(refused("read", dir))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

fn number(name: &str, prefix: &str) -> Option<PersistId> {
    let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(PersistId)
}

/// The directory, locked: nobody else persists to it as long as this lives.
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    /// Dropped with the folder, which opens the lock.
    _lock: File,
}

impl Folder {
    /// Makes the directory if it is not there, waits for its lock, and removes what killed processes left.
    pub(super) fn lock(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(refused("create", dir))?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(refused("open", &path))?;
        lock.lock().map_err(refused("lock", &path))?;
        let folder = Self { dir: dir.to_owned(), _lock: lock };
        folder.sweep()?;
        Ok(folder)
    }

    /// Removes files that were never finished, and values that no list names.
    ///
    /// A list that cannot be read may name any values older than itself: then only younger ones go.
    fn sweep(&self) -> Result<(), Error> {
        let names = names(&self.dir)?;
        let lists: Vec<PersistId> = names.iter().filter_map(|name| number(name, LIST)).collect();
        let is_left = |name: &str| number(name, VALUES).is_some_and(|id| !lists.contains(&id));
        // Most of the time no values are without their own list, and no list need be read.
        let needed =
            if names.iter().any(|name| is_left(name)) { self.needed(&lists) } else { Needed::default() };
        for name in &names {
            let is_alone = is_left(name) && number(name, VALUES).is_some_and(|id| !needed.has(id));
            if is_alone || name.starts_with(NEW) {
                let path = self.dir.join(name);
                fs::remove_file(&path).map_err(refused("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes a number's list, then the values that no list needs any more.
    ///
    /// The list is gone for good before any of its values is: killed in between, nothing of the number is there but
    /// values, which whoever locks the directory next removes.
    fn remove(&self, id: PersistId) -> Result<(), Error> {
        let path = list_path(&self.dir, id);
        fs::remove_file(&path).map_err(refused("remove", &path))?;
        self.sync()?;
        self.sweep()
    }

    /// The values that these lists name.
    fn needed(&self, lists: &[PersistId]) -> Needed {
        let mut needed = Needed::default();
        for &id in lists {
            if self.gather(id, &mut needed.files).is_err() {
                needed.unreadable = needed.unreadable.max(Some(id));
            }
        }
        needed
    }

    fn gather(&self, id: PersistId, files: &mut BTreeSet<PersistId>) -> Result<(), Error> {
        let mut list = ListReader::open(&list_path(&self.dir, id), id)?;
        while let Some(entry) = list.next_entry()? {
            if let Place::InFile(place) = entry.place {
                files.insert(place.file);
            }
        }
        Ok(())
    }

    /// Makes renames last.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(refused("fsync", &self.dir))
    }
}

/// Which `values` files lists name.
#[derive(Default)]
struct Needed {
    files: BTreeSet<PersistId>,
    /// The newest list that cannot be read.
    unreadable: Option<PersistId>,
}

impl Needed {
    fn has(&self, values: PersistId) -> bool {
        self.files.contains(&values) || self.unreadable.is_some_and(|list| values < list)
    }
}

/// A file that is being written; removed if it does not come to its name.
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    is_named: bool,
}

impl NewFile {
    pub(super) fn create(folder: &Folder) -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Only tells names apart; nothing is read by it.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.dir.join(format!("{NEW}{}-{count}", process::id()));
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
        let file = file.map_err(refused("create", &path))?;
        Ok(Self { path, file, is_named: false })
    }

    /// Makes its bytes last.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(refused("fsync", &self.path))
    }

    /// Gives it its name, and makes that last.
    pub(super) fn name(mut self, folder: &Folder, path: &Path) -> Result<(), Error> {
        fs::rename(&self.path, path).map_err(refused("rename", &self.path))?;
        self.is_named = true;
        folder.sync()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_named {
            // If it cannot be removed now, the next one that persists does so.
            let _ = fs::remove_file(&self.path);
        }
    }
}
