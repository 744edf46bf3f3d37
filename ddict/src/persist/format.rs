//! The bytes of the files. All numbers are little-endian.
//!
//! Both kinds start with 64 bytes: magic, version, options, number, hash of types, memory, shards, working set,
//! timeout, and the XXH3 of the 56 bytes before. A list goes on with two names of types (4 bytes of length, text), then
//! entries: a byte that says which kind (and, in its highest bit, that the value is persistent: since version 2; in
//! version 1 all are), 4 bytes of length and the key, then
//! - kind 1: 4 bytes of length, and the value;
//! - kind 2: number of the `values` file, place, length (8 bytes each), hash (16);
//! - kind 0 (the end, no key): 8 bytes: how many entries; then the 16 bytes of the XXH3 of the whole list before them.

use super::PersistId;
use crate::error::Error;
use crate::persist::folder::refused;
use crate::store::{KEY_BYTES_MAX, Keep, Options};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Raised when the bytes change. Older ones are still read.
const VERSION: u32 = 2;
/// The oldest version that is read: of lists that do not say which values are persistent.
const VERSION_MIN: u32 = 1;
const LIST_MAGIC: [u8; 8] = *b"TGN-LIST";
const VALUES_MAGIC: [u8; 8] = *b"TGN-VALS";
/// Bytes of a header.
pub(super) const HEADER_BYTES: u64 = 64;
/// Values start at multiples of this.
pub(super) const ALIGN_BYTES: u64 = 64;
/// Values up to this many bytes lie in the list.
pub(super) const INLINE_BYTES_MAX: usize = 64;
/// The longest name of a type.
const NAME_BYTES_MAX: u32 = 1 << 16;
const END: u8 = 0;
const INLINE: u8 = 1;
const PLACED: u8 = 2;
/// Beside the kind: a persistent value.
const PERSISTENT: u8 = 0x80;
const WAITS: u32 = 1;
const SUMS: u32 = 2;

/// Where a value is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Inline(Box<[u8]>),
    InFile(FilePlace),
}

/// A key, where its value is, and how that is kept.
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    pub(super) place: Place,
    pub(super) keep: Keep,
}

/// A value in a `values` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FilePlace {
    pub(super) file: PersistId,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) hash: u128,
}

/// What a list says before its entries.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) options: Options,
    pub(super) key_type: String,
    pub(super) value_type: String,
}

/// Header of either file.
pub(super) fn header(is_list: bool, id: PersistId, options: &Options) -> [u8; HEADER_BYTES as usize] {
    let waits = if options.wait_for_keys { WAITS } else { 0 };
    let sums = if options.checksums { SUMS } else { 0 };
    let magic = if is_list { LIST_MAGIC } else { VALUES_MAGIC };
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend(magic);
    header.extend(VERSION.to_le_bytes());
    header.extend((waits | sums).to_le_bytes());
    header.extend(id.0.to_le_bytes());
    header.extend(options.types.to_le_bytes());
    header.extend(options.memory_bytes.to_le_bytes());
    header.extend(options.shards.to_le_bytes());
    header.extend(options.working_set.to_le_bytes());
    header.extend(options.timeout_ms.unwrap_or(u64::MAX).to_le_bytes());
    header.extend(xxh3_64(&header).to_le_bytes());
    header.try_into().expect("its parts are 64 bytes")
}

/// Reads the header of either file; what is wrong with it.
pub(super) fn read_header(bytes: &[u8], is_list: bool, id: PersistId) -> Result<Options, &'static str> {
    let magic = if is_list { LIST_MAGIC } else { VALUES_MAGIC };
    let bytes: &[u8; HEADER_BYTES as usize] = bytes.try_into().map_err(|_| "its header is torn")?;
    if bytes[..8] != magic {
        return Err("it does not begin as such a file");
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if word(56) != xxh3_64(&bytes[..56]) {
        return Err("the checksum of its header is wrong");
    }
    match half(8) {
        VERSION_MIN..=VERSION => {}
        _ => return Err("its format is newer than this program: read it with the version that wrote it"),
    }
    if word(16) != id.0 {
        return Err("its header says another number than its name");
    }
    Ok(Options {
        replicas: 1,
        memory_bytes: word(32),
        shards: half(40),
        wait_for_keys: half(12) & WAITS != 0,
        working_set: half(44),
        timeout_ms: Some(word(48)).filter(|&it| it != u64::MAX),
        checksums: half(12) & SUMS != 0,
        types: word(24),
        seed: None,
    })
}

/// Writes a list and hashes it.
pub(super) struct ListWriter<'f> {
    writer: BufWriter<&'f File>,
    path: &'f Path,
    hasher: Xxh3,
    entries: u64,
}

impl<'f> ListWriter<'f> {
    pub(super) fn new(file: &'f File, path: &'f Path, id: PersistId, head: &Head) -> Result<Self, Error> {
        let mut list = Self { writer: BufWriter::new(file), path, hasher: Xxh3::new(), entries: 0 };
        list.write(&header(true, id, &head.options))?;
        for name in [&head.key_type, &head.value_type] {
            let end = name.floor_char_boundary(NAME_BYTES_MAX as usize);
            list.write_run(&name.as_bytes()[..end])?;
        }
        Ok(list)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.writer.write_all(bytes).map_err(refused("write", self.path))
    }

    /// Bytes with their length.
    fn write_run(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(bytes.len()).expect("keys, names and values in lists are short");
        self.write(&length.to_le_bytes())?;
        self.write(bytes)
    }

    pub(super) fn entry(&mut self, key: &[u8], place: &Place, keep: Keep) -> Result<(), Error> {
        self.entries += 1;
        let kept = if keep == Keep::Persistent { PERSISTENT } else { 0 };
        match place {
            Place::Inline(value) => {
                self.write(&[INLINE | kept])?;
                self.write_run(key)?;
                self.write_run(value)
            }
            Place::InFile(place) => {
                self.write(&[PLACED | kept])?;
                self.write_run(key)?;
                for word in [place.file.0, place.offset, place.bytes] {
                    self.write(&word.to_le_bytes())?;
                }
                self.write(&place.hash.to_le_bytes())
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.write(&[END])?;
        self.write(&self.entries.to_le_bytes())?;
        let hash = self.hasher.digest128();
        self.writer.write_all(&hash.to_le_bytes()).map_err(refused("write", self.path))?;
        self.writer.flush().map_err(refused("write", self.path))
    }
}

/// Reads a list whose checksum was found right.
pub(super) struct ListReader {
    reader: BufReader<File>,
    path: PathBuf,
    pub(super) head: Head,
    entries: u64,
    /// Its entries do not say how they are kept.
    is_first_version: bool,
    is_over: bool,
}

impl ListReader {
    /// Reads the whole file once to check it.
    ///
    /// # Errors
    /// `Torn`, `File`.
    pub(super) fn open(path: &Path, id: PersistId) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(refused("open", path))?;
        let torn = |reason| Error::Torn { path: path.to_owned(), reason };
        let mut header = [0; HEADER_BYTES as usize];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(torn("its header is torn"));
            }
            read => read.map_err(refused("read", path))?,
        }
        let options = read_header(&header, true, id).map_err(torn)?;
        if !is_whole(&mut file).map_err(refused("read", path))? {
            return Err(torn("its checksum is wrong: it is torn or was changed"));
        }
        file.seek(SeekFrom::Start(HEADER_BYTES)).map_err(refused("read", path))?;
        let mut list = Self {
            reader: BufReader::new(file),
            path: path.to_owned(),
            head: Head { options, key_type: String::new(), value_type: String::new() },
            entries: 0,
            is_first_version: header[8..12] == VERSION_MIN.to_le_bytes(),
            is_over: false,
        };
        list.head.key_type = list.read_name()?;
        list.head.value_type = list.read_name()?;
        Ok(list)
    }

    /// The next key, and where and how its value is kept.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let [kind] = self.read::<1>()?;
        if kind == END {
            self.is_over = true;
            let told = u64::from_le_bytes(self.read()?);
            return if told == self.entries { Ok(None) } else { Err(self.torn("it lacks entries")) };
        }
        self.entries += 1;
        let key = self.read_run(KEY_BYTES_MAX as u32)?;
        let is_persistent = self.is_first_version || kind & PERSISTENT != 0;
        let keep = if is_persistent { Keep::Persistent } else { Keep::Default };
        let place = match kind & !PERSISTENT {
            INLINE => Place::Inline(self.read_run(INLINE_BYTES_MAX as u32)?),
            PLACED => Place::InFile(FilePlace {
                file: PersistId(u64::from_le_bytes(self.read()?)),
                offset: u64::from_le_bytes(self.read()?),
                bytes: u64::from_le_bytes(self.read()?),
                hash: u128::from_le_bytes(self.read()?),
            }),
            _ => return Err(self.torn("an entry is of no known kind")),
        };
        Ok(Some(Entry { key, place, keep }))
    }

    fn torn(&self, reason: &'static str) -> Error {
        Error::Torn { path: self.path.clone(), reason }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(refused("read", &self.path))?;
        Ok(bytes)
    }

    fn read_run(&mut self, max: u32) -> Result<Box<[u8]>, Error> {
        let length = u32::from_le_bytes(self.read()?);
        if length > max {
            return Err(self.torn("a part of it is too long"));
        }
        let mut bytes = vec![0; length as usize].into_boxed_slice();
        self.reader.read_exact(&mut bytes).map_err(refused("read", &self.path))?;
        Ok(bytes)
    }

    fn read_name(&mut self) -> Result<String, Error> {
        let name = self.read_run(NAME_BYTES_MAX)?;
        String::from_utf8(name.into_vec()).map_err(|_| self.torn("the name of a type is no text"))
    }
}

/// Whether the last 16 bytes of a file are the hash of those before.
fn is_whole(file: &mut File) -> io::Result<bool> {
    const HASH_BYTES: u64 = 16;
    let length = file.seek(SeekFrom::End(0))?;
    let Some(hashed) = length.checked_sub(HASH_BYTES) else { return Ok(false) };
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Xxh3::new();
    let mut piece = vec![0; 1 << 16];
    let mut left = hashed;
    while left > 0 {
        let bytes = left.min(piece.len() as u64) as usize;
        file.read_exact(&mut piece[..bytes])?;
        hasher.update(&piece[..bytes]);
        left -= bytes as u64;
    }
    let mut hash = [0; HASH_BYTES as usize];
    file.read_exact(&mut hash)?;
    Ok(hasher.digest128() == u128::from_le_bytes(hash))
}
