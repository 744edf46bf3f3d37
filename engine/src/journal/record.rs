//! How is a record written, and when is one believed?
//!
//! A record is its payload's length (`u32`), the payload (postcard), and a checksum (`u64`), numbers little-endian. The
//! checksum covers length, payload, the position in the file and the file's own number, so neither a torn record nor
//! one that ended up elsewhere is believed.
//!
//! The payload's first byte is the variant of [`Record`]. Variants and fields are only ever added at the end of a new
//! format; what is here stays readable.

use super::error::JournalError;
use super::identity::Identity;
use super::state::FileState;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a function's result that are journaled at most.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a payload; a task with more paths than fit is not journaled.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;
/// Bytes of the length before a payload.
pub(super) const LENGTH_BYTES: usize = size_of::<u32>();
/// Bytes of the checksum after it.
pub(super) const CHECKSUM_BYTES: usize = size_of::<u64>();
/// Any odd number without pattern: makes the checksum differ at each position. *Source*: 2^64 divided by the golden
/// ratio, as in Knuth's multiplicative hashing (The Art of Computer Programming 3, section 6.4).
const POSITION_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// A task that succeeded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Which task.
    pub(crate) identity: Identity,
    /// What it read, as it was before it ran.
    pub(crate) inputs: Vec<Seen>,
    /// What it wrote, as it was when it had ended.
    pub(crate) outputs: Vec<Seen>,
    /// Hashes of the results of other tasks that it took, in the order of its arguments ([`hash_of_value`]): if such
    /// a task runs again and gives something else, this entry says nothing any more.
    pub(crate) taken: Vec<[u8; 16]>,
    /// A function's result (postcard), at most [`VALUE_BYTES_MAX`] bytes; `None` if there is none or it is longer.
    #[serde(with = "bytes")]
    pub(crate) value: Option<Vec<u8>>,
    /// Where a process left what it printed.
    pub(crate) streams: Option<Streams>,
    /// Exit code of a process; 0 for a function.
    pub(crate) exit: i32,
    /// How long it ran, in nanoseconds.
    pub(crate) took_ns: u64,
}

/// A path, and what it led to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The path, as bytes: it need not be UTF-8.
    #[serde(with = "path")]
    pub(crate) path: PathBuf,
    /// What was there.
    pub(crate) state: FileState,
}

/// Both streams of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Streams {
    /// The file with its standard output.
    pub(crate) stdout: Seen,
    /// The file with its standard error.
    pub(crate) stderr: Seen,
}

/// What a payload holds: `E` is an [`Entry`] when it is read, a reference to one when it is written. The order of the
/// variants is the format.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Record<E> {
    /// A task succeeded.
    Done(E),
    /// A task began again: its earlier entries no longer count.
    Begun(Identity),
}

#[cfg(test)]
/// The hash of a function's result, for [`Entry::taken`].
pub(crate) fn hash_of_value(value: &[u8]) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(value).to_le_bytes()
}

/// Appends length and payload to `frame`, which is empty; the checksum follows when the position is known.
///
/// # Errors
/// [`JournalError::ValueTooLarge`], [`JournalError::RecordTooLarge`].
pub(super) fn encode(record: &Record<&Entry>, mut frame: Vec<u8>) -> Result<Vec<u8>, JournalError> {
    if let Record::Done(entry) = record
        && let Some(value) = &entry.value
        && value.len() > VALUE_BYTES_MAX
    {
        return Err(JournalError::ValueTooLarge { bytes: value.len(), max: VALUE_BYTES_MAX });
    }
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut frame = postcard::to_extend(record, frame).expect("a vector takes all, lengths are known");
    let bytes = frame.len() - LENGTH_BYTES;
    if bytes > RECORD_BYTES_MAX {
        return Err(JournalError::RecordTooLarge { bytes, max: RECORD_BYTES_MAX });
    }
    let length = u32::try_from(bytes).expect("RECORD_BYTES_MAX fits");
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The part of the checksum that needs no position: the hash of length and payload. `seed` is the file's number.
pub(super) fn hash_frame(frame: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(frame, seed)
}

/// The checksum of a record at `position`.
pub(super) fn checksum(frame_hash: u64, position: u64) -> [u8; CHECKSUM_BYTES] {
    frame_hash.wrapping_add(position.wrapping_mul(POSITION_FACTOR)).to_le_bytes()
}

/// The payload's length that a record starts with.
pub(super) fn payload_bytes(start: [u8; LENGTH_BYTES]) -> usize {
    u32::from_le_bytes(start) as usize
}

/// How many whole records the first `limit` bytes of `records` hold, and in how many bytes.
pub(super) fn whole_records(records: &[u8], limit: usize) -> (u64, usize) {
    let (mut count, mut end) = (0, 0);
    while let Some(start) = records[end..].first_chunk::<LENGTH_BYTES>() {
        let next = end + LENGTH_BYTES + payload_bytes(*start) + CHECKSUM_BYTES;
        if next > limit {
            break;
        }
        (count, end) = (count + 1, next);
    }
    (count, end)
}

/// Bytes as one string of bytes: element by element, as serde would by itself, costs ten times as much.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// The same, read.
struct OwnBytes(Vec<u8>);

impl<'de> Deserialize<'de> for OwnBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = OwnBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<OwnBytes, E> {
                Ok(OwnBytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Reader)
    }
}

mod bytes {
    //! `Option<Vec<u8>>` as a string of bytes.
    use super::{Bytes, Deserialize, Deserializer, OwnBytes, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().map(Bytes).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<OwnBytes>::deserialize(reader).map(|value| value.map(|bytes| bytes.0))
    }
}

mod path {
    //! A path as a string of bytes.
    use super::{Bytes, Deserialize, Deserializer, OsStrExt, OsString, OsStringExt, OwnBytes, Path};
    use super::{PathBuf, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(path.as_os_str().as_bytes()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<PathBuf, D::Error> {
        OwnBytes::deserialize(reader).map(|bytes| OsString::from_vec(bytes.0).into())
    }
}
