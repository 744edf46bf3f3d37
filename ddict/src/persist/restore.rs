//! A persisted dictionary back in shared memory.

use super::PersistId;
use super::format::{Entry, Place};
use super::open::{ValueFiles, open_list};
use crate::builder::Builder;
use crate::error::Error;
use crate::handle::DDict;
use crate::parts::Parts;
use crate::store::{Store, When};
use std::path::Path;

impl<K: 'static, V: 'static> DDict<K, V> {
    /// Makes a new dictionary from what was persisted under a number, with the settings of the one it was: memory,
    /// shards, waiting, working set, timeout, checksums. Its keys lie in checkpoint 0, persistent
    /// where they were so (all of them, if an older version of this crate wrote the files). For other settings see
    /// [`Builder::restore`].
    ///
    /// Values go from their files to shared memory, one at a time, and are checked on the way.
    ///
    /// # Errors
    /// `NotPersisted`, `Types`; `Torn`, by name, for a damaged file; `File`; those of [`Builder::create`] and `Memory`.
    pub fn restore(dir: impl AsRef<Path>, id: PersistId) -> Result<Self, Error> {
        let list = open_list::<K, V>(dir.as_ref(), id)?;
        let store = Store::create(&list.head.options)?;
        drop(list);
        fill(DDict::new(Parts::alone(store), 0), dir.as_ref(), id)
    }
}

impl<K: 'static, V: 'static> Builder<K, V> {
    /// Makes a new dictionary with these settings from what was persisted under a number.
    ///
    /// # Errors
    /// Those of [`DDict::restore`].
    pub fn restore(&self, dir: impl AsRef<Path>, id: PersistId) -> Result<DDict<K, V>, Error> {
        drop(open_list::<K, V>(dir.as_ref(), id)?);
        fill(self.create()?, dir.as_ref(), id)
    }
}

/// Puts all that was persisted. What is half filled after an error goes with its only handle.
fn fill<K: 'static, V: 'static>(dict: DDict<K, V>, dir: &Path, id: PersistId) -> Result<DDict<K, V>, Error> {
    let mut list = open_list::<K, V>(dir, id)?;
    let mut files = ValueFiles::new(dir);
    while let Some(Entry { key, place, keep }) = list.next_entry()? {
        match place {
            Place::Inline(value) => {
                dict.store().put(&key, 0, &value, When::Always, keep)?;
            }
            Place::InFile(place) => {
                files.need(&place)?;
                let read = |into: &mut [u8]| files.read(&place, into);
                dict.store().put_with(&key, 0, place.bytes, keep, read)??;
            }
        }
    }
    Ok(dict)
}
