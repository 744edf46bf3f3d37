//! Reading a persisted dictionary where it is, without shared memory.

use super::PersistId;
use super::folder::{known, list_path, refused, values_path};
use super::format::{Entry, FilePlace, HEADER_BYTES, Head, ListReader, Place, read_header};
use crate::encoding::{Key, Value, decode, pair_name, type_name, types_hash, with_key};
use crate::error::Error;
use crate::handle::{decoded, key_of};
use serde::Serialize;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map;
use std::fs::File;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Opens the list of a number, and compares the types.
pub(super) fn open_list<K: 'static, V: 'static>(dir: &Path, id: PersistId) -> Result<ListReader, Error> {
    known(dir, id)?;
    let path = list_path(dir, id);
    let list = ListReader::open(&path, id)?;
    let (key, value) = (type_name::<K>(), type_name::<V>());
    let Head { options, key_type, value_type } = &list.head;
    if options.types != types_hash(&key, &value) {
        return Err(Error::Types {
            name: path.display().to_string(),
            made: pair_name(key_type, value_type),
            asked: pair_name(&key, &value),
        });
    }
    Ok(list)
}

/// The `values` files of a directory, opened when they are needed.
pub(super) struct ValueFiles {
    dir: PathBuf,
    files: HashMap<PersistId, (PathBuf, File)>,
}

impl ValueFiles {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: HashMap::new() }
    }

    /// Opens the file of a place if it is not open; the place must lie in it.
    pub(super) fn need(&mut self, place: &FilePlace) -> Result<(), Error> {
        if !self.files.contains_key(&place.file) {
            let path = values_path(&self.dir, place.file);
            let file = File::open(&path).map_err(refused("open", &path))?;
            let mut header = [0; HEADER_BYTES as usize];
            let read = file.read_exact_at(&mut header, 0);
            let reason = match read {
                Ok(()) => read_header(&header, false, place.file).err(),
                Err(_) => Some("its header is torn"),
            };
            if let Some(reason) = reason {
                return Err(Error::Torn { path, reason });
            }
            self.files.insert(place.file, (path, file));
        }
        let (path, file) = &self.files[&place.file];
        let length = file.metadata().map_err(refused("read", path))?.len();
        match place.offset.checked_add(place.bytes) {
            Some(end) if end <= length => Ok(()),
            _ => Err(Error::Torn { path: path.clone(), reason: "it is too short" }),
        }
    }

    /// Reads a value that was needed; its bytes must be those that were written.
    pub(super) fn read(&self, place: &FilePlace, into: &mut [u8]) -> Result<(), Error> {
        let (path, file) = self.files.get(&place.file).expect("`need` opened it");
        file.read_exact_at(into, place.offset).map_err(refused("read", path))?;
        if xxh3_128(into) == place.hash {
            Ok(())
        } else {
            Err(Error::Torn { path: path.clone(), reason: "the checksum of a value is wrong" })
        }
    }
}

/// A persisted dictionary, to be read only. The keys and the places of values are held in memory; each value is read
/// from its file and checked when it is asked for.
///
/// ```no_run
/// use tarragon_ddict::{Persisted, persisted_ids};
///
/// let newest = *persisted_ids("saved")?.last().expect("something was persisted");
/// let dict = Persisted::<String, f64>::open("saved", newest)?;
/// println!("{} keys, x = {:?}", dict.len(), dict.get("x")?);
/// # Ok::<(), tarragon_ddict::Error>(())
/// ```
pub struct Persisted<K, V> {
    id: PersistId,
    places: HashMap<Box<[u8]>, Place>,
    files: ValueFiles,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V: Value> Persisted<K, V> {
    /// Opens what was persisted under a number. Cost: the list is read.
    ///
    /// # Errors
    /// `NotPersisted`, `Types`, `Torn` for a damaged file, `File`.
    pub fn open(dir: impl AsRef<Path>, id: PersistId) -> Result<Self, Error> {
        let mut list = open_list::<K, V>(dir.as_ref(), id)?;
        let mut files = ValueFiles::new(dir.as_ref());
        let mut places = HashMap::new();
        while let Some(Entry { key, place, .. }) = list.next_entry()? {
            if let Place::InFile(place) = &place {
                files.need(place)?;
            }
            places.insert(key, place);
        }
        Ok(Self { id, places, files, types: PhantomData })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> PersistId {
        self.id
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// `KeyTooLong`, `Encode`.
    pub fn contains<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.places.contains_key(key))
    }

    /// The value of a key, read and checked; `None` if it is not there.
    ///
    /// # Errors
    /// `Torn` if its bytes are damaged, `File`, `Decode`, `KeyTooLong`, `Encode`.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.places.get(key).map(|place| self.value(key, place)).transpose())?
    }

    /// All keys and values, in no order, each value read when its turn comes.
    #[must_use]
    pub fn items(&self) -> PersistedItems<'_, K, V> {
        PersistedItems { dict: self, places: self.places.iter() }
    }

    fn value(&self, key: &[u8], place: &Place) -> Result<V, Error> {
        match place {
            Place::Inline(bytes) => decoded(key, decode(bytes)),
            Place::InFile(place) => {
                let length = usize::try_from(place.bytes).expect("a file that was opened has that length");
                let mut bytes = vec![0; length];
                self.files.read(place, &mut bytes)?;
                decoded(key, decode(&bytes))
            }
        }
    }
}

/// The keys and values of a persisted dictionary, see [`Persisted::items`].
pub struct PersistedItems<'p, K, V> {
    dict: &'p Persisted<K, V>,
    places: hash_map::Iter<'p, Box<[u8]>, Place>,
}

impl<K: Key, V: Value> Iterator for PersistedItems<'_, K, V> {
    type Item = Result<(K, V), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, place) = self.places.next()?;
        Some(key_of(key).and_then(|it| Ok((it, self.dict.value(key, place)?))))
    }
}
