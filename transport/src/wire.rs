//! Encodings of what crosses a process: typed values by postcard, plain bytes by checked lengths.
//!
//! What is decoded may come from a process that is wrong: every length is compared with what is there before it is
//! used, and bytes that are left over are an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// They do not stand for a value of the type.
    #[error("{bytes} bytes are no {wanted}: {source}")]
    Type {
        /// Name of the type.
        wanted: &'static str,
        /// Bytes given.
        bytes: usize,
        /// What postcard says.
        source: postcard::Error,
    },
    /// There are fewer than a length says.
    #[error("{wanted} bytes are announced, {left} are left")]
    Short {
        /// Bytes the length asks for.
        wanted: u64,
        /// Bytes there are.
        left: usize,
    },
    /// Bytes are left after the value.
    #[error("{left} bytes are left over")]
    Rest {
        /// How many.
        left: usize,
    },
}

/// The bytes of `value`, in postcard's encoding (one for each value).
///
/// # Errors
/// `Type` if the value's `Serialize` refuses, as that of a map of unknown length does.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, WireError> {
    postcard::to_stdvec(value).map_err(|source| type_error::<T>(0, source))
}

/// The value that `bytes`, all of them, stand for.
///
/// # Errors
/// `Type` if they stand for none, `Rest` if some are left.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let taken: Result<(T, &[u8]), _> = postcard::take_from_bytes(bytes);
    let (value, rest) = taken.map_err(|source| type_error::<T>(bytes.len(), source))?;
    if rest.is_empty() { Ok(value) } else { Err(WireError::Rest { left: rest.len() }) }
}

/// The value that `bytes` begin with, and the rest; `None` if they begin with none.
pub fn head<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

fn type_error<T: ?Sized>(bytes: usize, source: postcard::Error) -> WireError {
    WireError::Type { wanted: std::any::type_name::<T>(), bytes, source }
}

/// Reads plain bytes from the front: numbers in little-endian order, and pieces with a length before them.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'b> {
    left: &'b [u8],
}

impl<'b> Raw<'b> {
    /// A reader of `bytes`.
    pub fn new(bytes: &'b [u8]) -> Self {
        Raw { left: bytes }
    }

    /// The next number.
    ///
    /// # Errors
    /// `Short` if fewer than 8 bytes are left.
    pub fn word(&mut self) -> Result<u64, WireError> {
        let short = WireError::Short { wanted: 8, left: self.left.len() };
        let (word, left) = self.left.split_first_chunk::<8>().ok_or(short)?;
        self.left = left;
        Ok(u64::from_le_bytes(*word))
    }

    /// The next piece: a number that says how many bytes, and these.
    ///
    /// # Errors
    /// `Short` if fewer are left than it says.
    pub fn piece(&mut self) -> Result<&'b [u8], WireError> {
        let wanted = self.word()?;
        let short = WireError::Short { wanted, left: self.left.len() };
        let count = usize::try_from(wanted).map_err(|_| short.clone())?;
        let (piece, left) = self.left.split_at_checked(count).ok_or(short)?;
        self.left = left;
        Ok(piece)
    }

    /// Says that all has been read.
    ///
    /// # Errors
    /// `Rest` if it has not.
    pub fn end(self) -> Result<(), WireError> {
        if self.left.is_empty() { Ok(()) } else { Err(WireError::Rest { left: self.left.len() }) }
    }
}

/// Appends a number as [`Raw::word`] reads it.
pub fn put_word(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_le_bytes());
}

/// Appends a piece as [`Raw::piece`] reads it.
pub fn put_piece(out: &mut Vec<u8>, piece: &[u8]) {
    put_word(out, piece.len() as u64);
    out.extend_from_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_nothing_may_be_left_over() {
        let value = (7_u32, "seven".to_owned(), vec![1_u64, 2]);
        let mut bytes = encode(&value).unwrap();
        assert_eq!(decode::<(u32, String, Vec<u64>)>(&bytes), Ok(value));
        bytes.push(0);
        assert_eq!(decode::<(u32, String, Vec<u64>)>(&bytes), Err(WireError::Rest { left: 1 }));
        let cut = decode::<(u32, String, Vec<u64>)>(&bytes[..4]);
        assert!(matches!(cut, Err(WireError::Type { bytes: 4, .. })), "{cut:?}");
    }

    #[test]
    fn pieces_longer_than_what_is_there_are_refused() {
        let mut bytes = Vec::new();
        put_piece(&mut bytes, b"abc");
        put_word(&mut bytes, u64::MAX);
        let mut raw = Raw::new(&bytes);
        assert_eq!(raw.piece(), Ok(&b"abc"[..]));
        assert_eq!(raw.end(), Err(WireError::Rest { left: 8 }));
        assert_eq!(raw.piece(), Err(WireError::Short { wanted: u64::MAX, left: 0 }));
        assert_eq!(Raw::new(&bytes[..5]).word(), Err(WireError::Short { wanted: 8, left: 5 }));
    }
}
