//! How a journal starts: the bytes that say what the file is, who wrote it, and in which format.
//!
//! ```text
//! offset  bytes
//!      0      8  MAGIC
//!      8      4  ORDER, written little-endian like every number here
//!     12      4  format
//!     16      8  created, milliseconds since 1970
//!     24      8  number of the file, random: records of another journal are not believed
//!     32     24  version of the engine, text, filled up with zeros
//!     56      8  XXH3 of all before
//! ```
//!
//! This layout is the same in all formats, so that an old engine can say which new one wrote a file.

use super::error::JournalError;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Not text (the high bit), damaged by anything that converts line ends, and no other format's, we hope.
pub(super) const MAGIC: [u8; 8] = *b"\x89TRGJ\r\n\x1a";
/// Reads differently in the other byte order.
const ORDER: u32 = 0x0102_0304;
/// The format that we write, and the newest that we read.
pub(super) const FORMAT: u32 = 1;
/// Length of a header.
pub(super) const HEADER_BYTES: usize = 64;
const ENGINE_BYTES: usize = 24;
/// Bytes of a foreign file that an error shows.
const SHOWN_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Which rules the records follow.
    pub(super) format: u32,
    /// When the journal was created, in milliseconds since 1970.
    pub(super) created_ms: u64,
    /// The file's own number.
    pub(super) number: u64,
    /// The version that created it.
    pub(super) engine: String,
}

impl Header {
    /// The header of a new journal, created at `created_ms`.
    pub(super) fn new(created_ms: u64, number: u64) -> Header {
        Header { format: FORMAT, created_ms, number, engine: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// The bytes of the header.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&ORDER.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.format.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        let engine = &self.engine.as_bytes()[..self.engine.len().min(ENGINE_BYTES)];
        bytes[32..32 + engine.len()].copy_from_slice(engine);
        let sum = xxh3_64(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header that `start`, the first bytes of the file at `path`, holds; `None` if the file ends within it.
    ///
    /// # Errors
    /// [`JournalError::NotAJournal`], [`JournalError::DamagedHeader`], [`JournalError::Newer`].
    pub(super) fn decode(path: &Path, start: &[u8]) -> Result<Option<Header>, JournalError> {
        let magic_bytes = start.len().min(MAGIC.len());
        if start[..magic_bytes] != MAGIC[..magic_bytes] {
            let found = show(&start[..start.len().min(SHOWN_BYTES)]);
            return Err(JournalError::NotAJournal { path: path.to_owned(), found });
        }
        let Some(bytes) = start.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let sum = u64::from_le_bytes(take(bytes, 56));
        if u32::from_le_bytes(take(bytes, 8)) != ORDER || xxh3_64(&bytes[..56]) != sum {
            return Err(JournalError::DamagedHeader { path: path.to_owned() });
        }
        let engine = String::from_utf8_lossy(&bytes[32..32 + ENGINE_BYTES]);
        let header = Header {
            format: u32::from_le_bytes(take(bytes, 12)),
            created_ms: u64::from_le_bytes(take(bytes, 16)),
            number: u64::from_le_bytes(take(bytes, 24)),
            engine: engine.trim_end_matches('\0').to_owned(),
        };
        if header.format > FORMAT {
            let (engine, format) = (header.engine, header.format);
            return Err(JournalError::Newer { path: path.to_owned(), engine, format, ours: FORMAT });
        }
        Ok(Some(header))
    }
}

fn take<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field ends within the header")
}

/// Bytes as a reader of an error wants them: text in quotes, anything else by number.
fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => format!("{text:?}"),
        _ => {
            let numbers: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("the bytes {}", numbers.join(" "))
        }
    }
}
