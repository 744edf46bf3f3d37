//! Persisting: the keys and what changed of the values.

use super::PersistId;
use super::folder::{Folder, NewFile, list_path, persisted_ids, refused, values_path};
use super::format::{
    ALIGN_BYTES, FilePlace, HEADER_BYTES, Head, INLINE_BYTES_MAX, ListReader, ListWriter, Place, header,
};
use crate::encoding::type_name;
use crate::error::Error;
use crate::handle::{DDict, Walk};
use crate::store::{Keep, Options};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

impl<K: 'static, V: 'static> DDict<K, V> {
    /// Writes what the handle's checkpoint sees to a directory, under a new number, and returns that. When it returns,
    /// the files will outlive a crash of the machine; killed before, nothing of it is there, and older numbers are as
    /// they were.
    ///
    /// Values that the directory's newest number has already are not written again. All values are read and hashed, one
    /// at a time, in place. It is one moment's picture only if nobody writes meanwhile: freeze the dictionary, or
    /// persist a checkpoint that all have left. Blocks while another process persists to the directory.
    ///
    /// # Errors
    /// `File` if the system refuses (a full disk, say): nothing is left of it then; `Gone`, `Retired`.
    pub fn persist(&self, dir: impl AsRef<Path>) -> Result<PersistId, Error> {
        let folder = Folder::lock(dir.as_ref())?;
        let ids = persisted_ids(&folder.dir)?;
        let id = PersistId(ids.last().map_or(1, |newest| newest.0 + 1));
        let head = Head {
            options: self.store().options().clone(),
            key_type: type_name::<K>(),
            value_type: type_name::<V>(),
        };
        let known = ids.last().map_or_else(HashMap::new, |&newest| known_values(&folder, newest));
        let mut values = Values { folder: &folder, id, options: &head.options, known, file: None, end: 0 };
        let list_file = NewFile::create(&folder)?;
        let mut list = ListWriter::new(&list_file.file, &list_file.path, id, &head)?;
        let mut walk = Walk::with_values(self.store(), self.at(), 0..self.shards());
        let mut write = |key: &[u8], value: &[u8], keep: Keep| {
            list.entry(key, &values.place(value)?, keep)?;
            Ok(None::<()>)
        };
        while walk.next_kept(&mut write)?.is_some() {}
        list.finish()?;
        list_file.sync()?;
        values.finish()?;
        list_file.name(&folder, &list_path(&folder.dir, id))?;
        Ok(id)
    }
}

/// Places of the values that a number has, by their hash. None of a list that is damaged, or of files that are not
/// there in full: those values are written anew.
fn known_values(folder: &Folder, id: PersistId) -> HashMap<u128, FilePlace> {
    let mut known = HashMap::new();
    let mut ends = HashMap::new();
    let Ok(mut list) = ListReader::open(&list_path(&folder.dir, id), id) else { return known };
    while let Ok(Some(entry)) = list.next_entry() {
        let Place::InFile(place) = entry.place else { continue };
        let end = *ends.entry(place.file).or_insert_with(|| {
            fs::metadata(values_path(&folder.dir, place.file)).map_or(0, |file| file.len())
        });
        if place.offset.checked_add(place.bytes).is_some_and(|needed| needed <= end) {
            known.insert(place.hash, place);
        }
    }
    known
}

/// The values of a number: those that are known, and a file for new ones, made when there is one.
struct Values<'f> {
    folder: &'f Folder,
    id: PersistId,
    options: &'f Options,
    known: HashMap<u128, FilePlace>,
    file: Option<NewFile>,
    /// Where the file ends.
    end: u64,
}

impl Values<'_> {
    /// Where a value is; writes it if it is new.
    fn place(&mut self, value: &[u8]) -> Result<Place, Error> {
        if value.len() <= INLINE_BYTES_MAX {
            return Ok(Place::Inline(Box::from(value)));
        }
        let hash = xxh3_128(value);
        let bytes = value.len() as u64;
        if let Some(&known) = self.known.get(&hash).filter(|known| known.bytes == bytes) {
            return Ok(Place::InFile(known));
        }
        let offset = self.write(value)?;
        let place = FilePlace { file: self.id, offset, bytes, hash };
        self.known.insert(hash, place);
        Ok(Place::InFile(place))
    }

    fn write(&mut self, value: &[u8]) -> Result<u64, Error> {
        let mut new = match self.file.take() {
            Some(new) => new,
            None => {
                let mut new = NewFile::create(self.folder)?;
                let header = header(false, self.id, self.options);
                new.file.write_all(&header).map_err(refused("write", &new.path))?;
                self.end = HEADER_BYTES;
                new
            }
        };
        let offset = self.end.next_multiple_of(ALIGN_BYTES);
        let gap = [0; ALIGN_BYTES as usize];
        let gap = &gap[..(offset - self.end) as usize];
        let written = new.file.write_all(gap).and_then(|()| new.file.write_all(value));
        written.map_err(refused("write", &new.path))?;
        self.end = offset + value.len() as u64;
        self.file = Some(new);
        Ok(offset)
    }

    /// Gives the file its name, if there is one.
    fn finish(self) -> Result<(), Error> {
        let Some(new) = self.file else { return Ok(()) };
        new.sync()?;
        new.name(self.folder, &values_path(&self.folder.dir, self.id))
    }
}
