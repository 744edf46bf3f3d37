//! Names of what tasks read and write: files, directories, keys of a namespace, named data.
//!
//! A user's name becomes a [`DataId`] once, when it is declared; everything behind works on those dense numbers.
//! `path` says which paths are one file, `paths` keeps the paths of a batch and which lies below which, `keys` maps
//! integer keys without hashing where they are dense.

mod file;
mod keys;
pub(crate) mod path;
mod paths;
mod submitted;

pub use file::DataFile;
pub use keys::Keys;
pub use submitted::Submitted;

use crate::clients::{DataName, NameLog};
use crate::shared::Shared;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use keys::{KeySpace, Whose};
use parking_lot::Mutex;
use paths::Paths;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tarragon_transport::Place;

/// Distinct data one batch can name.
pub(crate) const DATA_MAX: u32 = (1 << 30) - 1;

/// A datum: something tasks read and write, under a name that means the same thing in every task of a batch.
///
/// Made by [`Batch::datum`](crate::Batch::datum), [`Batch::file`](crate::Batch::file), [`Keys::at`], or on the fly by
/// whatever takes `impl IntoDatum`. Valid in the batch that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DataId {
    /// 0: the name was empty.
    pub(crate) id: u32,
    pub(crate) space: u32,
}

/// A declared read or write of a datum: its number, and a bit for one or the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access(u32);

impl Access {
    pub(crate) const NONE: Self = Self(0);
    const READ: u32 = 1 << 30;
    const WRITE: u32 = 1 << 31;

    pub(crate) fn read(id: u32) -> Self {
        Self(id | Self::READ)
    }

    pub(crate) fn write(id: u32) -> Self {
        Self(id | Self::WRITE)
    }

    #[inline(always)]
    pub(crate) fn datum(self) -> u32 {
        self.0 & DATA_MAX
    }

    #[inline(always)]
    pub(crate) fn reads(self) -> bool {
        self.0 & Self::READ != 0
    }

    #[inline(always)]
    pub(crate) fn writes(self) -> bool {
        self.0 & Self::WRITE != 0
    }
}

/// All data that a batch has names for.
pub(crate) struct Space {
    tag: u32,
    next: Arc<AtomicU32>,
    names: Mutex<HashMap<Box<str>, u32, RandomState>>,
    paths: Mutex<Paths>,
    keys: Mutex<HashMap<Box<str>, Arc<KeySpace>, RandomState>>,
    /// By the number of their segment.
    places: Mutex<HashMap<u128, Arc<KeySpace>, RandomState>>,
    /// What data without a path are called, of a batch that tells another process.
    log: Option<NameLog>,
}

/// Why a name does not name a datum.
#[derive(Debug, Clone)]
pub enum BadDatum {
    /// The name is empty.
    Empty,
    /// A relative path, and no current directory.
    NoCurrentDirectory(PathBuf, String),
}

impl Space {
    pub(crate) fn new(log: Option<NameLog>) -> Self {
        static TAGS: AtomicU32 = AtomicU32::new(1);
        Self {
            tag: TAGS.fetch_add(1, Ordering::Relaxed),
            next: Arc::new(AtomicU32::new(1)),
            names: Mutex::default(),
            paths: Mutex::default(),
            keys: Mutex::default(),
            places: Mutex::default(),
            log,
        }
    }

    /// Tells this batch's data from others'.
    pub(crate) fn tag(&self) -> u32 {
        self.tag
    }

    fn datum(&self, id: u32) -> DataId {
        DataId { id, space: self.tag }
    }

    /// One above the highest number given out.
    pub(crate) fn len(&self) -> usize {
        self.next.load(Ordering::Acquire) as usize
    }

    pub(crate) fn named(&self, name: &str) -> DataId {
        if name.is_empty() {
            return self.datum(0);
        }
        let mut names = self.names.lock();
        if let Some(id) = names.get(name) {
            return self.datum(*id);
        }
        let id = fresh(&self.next);
        if let Some(log) = &self.log {
            log.add(id, DataName::Named(name.to_string()));
        }
        names.insert(name.into(), id);
        self.datum(id)
    }

    pub(crate) fn file(&self, path: &Path) -> Result<DataId, BadDatum> {
        let mut buffer = Vec::new();
        let bytes = path::normal(path, &mut buffer)?;
        let id = self.paths.lock().declare(bytes, || fresh(&self.next));
        Ok(self.datum(id))
    }

    pub(crate) fn keys(&self, namespace: &str) -> Keys {
        let mut keys = self.keys.lock();
        let space = match keys.get(namespace) {
            Some(space) => Arc::clone(space),
            None => {
                let log = self.log.clone().map(|log| (log, Whose::Namespace));
                let space = Arc::new(KeySpace::new(self.tag, namespace, Arc::clone(&self.next), log));
                keys.insert(namespace.into(), Arc::clone(&space));
                space
            }
        };
        Keys { space }
    }

    /// Something in a segment. Never equal to a key of a namespace.
    pub(crate) fn place(&self, place: &Place) -> DataId {
        let mut places = self.places.lock();
        let space = places.entry(place.uid).or_insert_with(|| {
            let name = format!("segment {:08x}", place.uid >> 96);
            let log = self.log.clone().map(|log| (log, Whose::Segment(place.uid)));
            Arc::new(KeySpace::new(self.tag, &name, Arc::clone(&self.next), log))
        });
        Keys { space: Arc::clone(space) }.bytes(&place.bytes)
    }

    /// For each datum the nearest declared directory above it (0: none); `None` when no declared path lies below
    /// another, so that accesses conflict only with accesses to the same datum.
    pub(crate) fn parents(&self) -> Option<Vec<u32>> {
        self.paths.lock().parents(self.len())
    }

    /// The path of a datum that is a file or directory.
    pub(crate) fn path_of(&self, id: u32) -> Option<PathBuf> {
        self.paths.lock().path_of(id).map(PathBuf::from)
    }

    /// What the user called the datum. Cost: a search through all names; for messages and drawings.
    pub(crate) fn name_of(&self, id: u32) -> String {
        if let Some(path) = self.paths.lock().path_of(id) {
            return path.to_string_lossy().into_owned();
        }
        if let Some((name, _)) = self.names.lock().iter().find(|(_, n)| **n == id) {
            return name.to_string();
        }
        if let Some(name) = self.keys.lock().values().find_map(|k| k.name_of(id)) {
            return name;
        }
        let places = self.places.lock();
        places.values().find_map(|k| k.name_of(id)).unwrap_or_else(|| format!("datum {id}"))
    }
}

/// The next free number.
fn fresh(next: &AtomicU32) -> u32 {
    let id = next.fetch_add(1, Ordering::Relaxed);
    assert!(id < DATA_MAX, "a batch can name at most {DATA_MAX} distinct data");
    id
}

/// What may stand for a datum in `reads` and `writes`: a [`DataId`], a path (text is a path, too),
/// `(directory, name)`, or a key of a dictionary (`dict.key(7)`).
///
/// Paths are made absolute against the current directory and normalised lexically, so `a/../b` and `b` are one
/// datum, and `(dir, name)` equals `dir/name`. They need not be UTF-8, and need not exist.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a datum",
    note = "use a path, `(directory, name)`, `batch.datum(\"name\")`, or a key: `batch.keys(\"namespace\").at(7)`"
)]
pub trait IntoDatum {
    /// The datum's number in `space`.
    #[doc(hidden)]
    fn into_datum(self, space: &SpaceRef<'_>) -> Result<DataId, BadDatum>;
}

/// The data of one batch, as seen by [`IntoDatum`].
#[doc(hidden)]
pub struct SpaceRef<'a>(pub(crate) &'a Shared);

impl IntoDatum for DataId {
    #[inline(always)]
    fn into_datum(self, _: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        Ok(self)
    }
}

impl IntoDatum for &DataId {
    fn into_datum(self, _: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        Ok(*self)
    }
}

impl IntoDatum for Place {
    fn into_datum(self, space: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        Ok(space.0.space.place(&self))
    }
}

impl IntoDatum for &Place {
    fn into_datum(self, space: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        Ok(space.0.space.place(self))
    }
}

macro_rules! paths {
    ($($t:ty)*) => {
        $(impl IntoDatum for $t {
            fn into_datum(self, space: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
                let path: &Path = self.as_ref();
                if path.as_os_str().is_empty() {
                    return Err(BadDatum::Empty);
                }
                space.0.space.file(path)
            }
        })*
    };
}
paths!(&Path PathBuf &PathBuf &str String &String OsString &OsString);

impl<D: AsRef<Path>, N: AsRef<Path>> IntoDatum for (D, N) {
    fn into_datum(self, space: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        if self.1.as_ref().as_os_str().is_empty() {
            return Err(BadDatum::Empty);
        }
        space.0.space.file(&self.0.as_ref().join(self.1))
    }
}
