//! Keys of a namespace: integers without hashing where they are dense, anything else through a table.

use super::{DataId, fresh};
use crate::clients::{DataName, NameLog};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Keys in one page.
const PAGE_KEYS: usize = 1 << 12;
/// Pages in one directory.
const DIRECTORY_PAGES: usize = 1 << 10;
/// Directories; the first is there from the start.
const DIRECTORIES: usize = 1 << 5;
/// Integer keys below this are looked up without hashing.
const DENSE_MAX: u64 = (PAGE_KEYS * DIRECTORY_PAGES * DIRECTORIES) as u64;

type Page = [AtomicU32; PAGE_KEYS];
type Directory = [OnceLock<Box<Page>>; DIRECTORY_PAGES];

/// The keys of one namespace: data named by integers or bytes. Cheap to clone; made by
/// [`Batch::keys`](crate::Batch::keys).
///
/// ```
/// # use tarragon_engine::Batch;
/// let batch = Batch::new()?;
/// let rows = batch.keys("rows");
/// assert_eq!(rows.at(7), batch.keys("rows").at(7));
/// assert_ne!(rows.at(7), batch.keys("columns").at(7));
/// # Ok::<(), tarragon_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Keys {
    pub(super) space: Arc<KeySpace>,
}

impl Keys {
    /// The datum of an integer key. Keys below 2^27 cost a few nanoseconds, and 16 KiB of memory for each page of
    /// 4096 keys that is touched; larger ones are hashed.
    #[inline]
    pub fn at(&self, key: u64) -> DataId {
        self.space.at(key)
    }

    /// The datum of a key of bytes (or text); never equal to an integer key.
    pub fn bytes(&self, key: impl AsRef<[u8]>) -> DataId {
        self.space.bytes(key.as_ref())
    }
}

pub(crate) struct KeySpace {
    tag: u32,
    name: Box<str>,
    next: Arc<AtomicU32>,
    /// Keys of the first directory, which most namespaces never leave.
    low: Box<Directory>,
    high: [OnceLock<Box<Directory>>; DIRECTORIES],
    sparse: Mutex<HashMap<u64, u32, RandomState>>,
    bytes: Mutex<HashMap<Box<[u8]>, u32, RandomState>>,
    /// Where keys are noted by number, if they must be.
    log: Option<(NameLog, Whose)>,
}

/// What a space of keys stands for.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// The namespace of its name.
    Namespace,
    /// What lies in the segment with this number.
    Segment(u128),
}

impl KeySpace {
    pub(super) fn new(tag: u32, name: &str, next: Arc<AtomicU32>, log: Option<(NameLog, Whose)>) -> Self {
        let high = [const { OnceLock::new() }; DIRECTORIES];
        Self {
            tag,
            name: name.into(),
            next,
            low: new_directory(),
            high,
            sparse: Mutex::default(),
            bytes: Mutex::default(),
            log,
        }
    }

    /// A number for a key.
    fn fresh(&self, name: impl FnOnce(Whose, &str) -> DataName) -> u32 {
        let id = fresh(&self.next);
        if let Some((log, whose)) = &self.log {
            log.add(id, name(*whose, &self.name));
        }
        id
    }

    fn datum(&self, id: u32) -> DataId {
        DataId { id, space: self.tag }
    }

    #[inline]
    fn at(&self, key: u64) -> DataId {
        if key >= DENSE_MAX {
            return self.sparse(key);
        }
        let page = key as usize / PAGE_KEYS;
        let page = match self.low.get(page) {
            Some(page) => page,
            None => &self.high[page / DIRECTORY_PAGES].get_or_init(new_directory)[page % DIRECTORY_PAGES],
        };
        let cell = &page.get_or_init(new_page)[key as usize % PAGE_KEYS];
        match cell.load(Ordering::Acquire) {
            0 => self.first_use(key, cell),
            id => self.datum(id),
        }
    }

    fn sparse(&self, key: u64) -> DataId {
        let number = || self.fresh(|_, namespace| DataName::Key(namespace.to_string(), key));
        let id = *self.sparse.lock().entry(key).or_insert_with(number);
        self.datum(id)
    }

    fn first_use(&self, key: u64, cell: &AtomicU32) -> DataId {
        // Of two who are first one number has a name and no use.
        let id = self.fresh(|_, namespace| DataName::Key(namespace.to_string(), key));
        match cell.compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => self.datum(id),
            Err(other) => self.datum(other),
        }
    }

    fn bytes(&self, key: &[u8]) -> DataId {
        let mut bytes = self.bytes.lock();
        let id = match bytes.get(key) {
            Some(id) => *id,
            None => {
                let id = self.fresh(|whose, namespace| match whose {
                    Whose::Namespace => DataName::Bytes(namespace.to_string(), key.to_vec()),
                    Whose::Segment(uid) => DataName::Place(uid, key.to_vec()),
                });
                bytes.insert(key.into(), id);
                id
            }
        };
        self.datum(id)
    }

    pub(super) fn name_of(&self, id: u32) -> Option<String> {
        let directories = std::iter::once(Some(&self.low)).chain(self.high[1..].iter().map(OnceLock::get));
        for (d, directory) in directories.enumerate() {
            for (p, page) in directory.into_iter().flat_map(|d| d.iter().enumerate()) {
                let Some(page) = page.get() else { continue };
                if let Some(k) = page.iter().position(|c| c.load(Ordering::Relaxed) == id) {
                    return Some(format!("{}[{}]", self.name, (d * DIRECTORY_PAGES + p) * PAGE_KEYS + k));
                }
            }
        }
        if let Some((key, _)) = self.sparse.lock().iter().find(|(_, n)| **n == id) {
            return Some(format!("{}[{key}]", self.name));
        }
        let bytes = self.bytes.lock();
        let (key, _) = bytes.iter().find(|(_, n)| **n == id)?;
        Some(format!("{}[{:?}]", self.name, String::from_utf8_lossy(key)))
    }
}

fn new_directory() -> Box<Directory> {
    Box::new([const { OnceLock::new() }; DIRECTORY_PAGES])
}

fn new_page() -> Box<Page> {
    Box::new([const { AtomicU32::new(0) }; PAGE_KEYS])
}
