//! Active messages: a header that names the code which receives it, and a payload. How they travel is left to `fabric`.
//!
//! A small payload travels with the header (*inline*); a larger one lies in a block of shared memory whose place
//! travels instead (*block*); the largest are cut into *chunks*, each a block, put together again by `assembly`.
//! A header is four words of fixed layout. It comes from memory that another process writes, so it is copied out,
//! then checked: nothing that stands in it is used before `Header::decode` has found it possible.

mod assembly;
mod handlers;

pub(crate) use assembly::Assembly;
pub use handlers::{Faults, HandlerId};
pub(crate) use handlers::{Handlers, is_handling};

use crate::rank::Rank;
use std::sync::Arc;

/// The most bytes a payload may have: 4 GiB.
pub const PAYLOAD_BYTES_MAX: u64 = 1 << 32;
/// The most losses that a header can tell of.
const EPOCH_MAX: u32 = (1 << 20) - 1;
/// Where the source stands in a header's first word.
const SOURCE_AT: u32 = 40;
/// Words of a header.
pub(crate) const HEADER_WORDS: usize = 4;

/// A message as a handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'p> {
    /// Who sent it.
    pub source: Rank,
    /// The handler it is for.
    pub handler: HandlerId,
    /// A number of the sender's choice.
    pub tag: u64,
    /// The payload, in place: copy what is to be kept.
    pub payload: &'p [u8],
}

/// A payload as its sender gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent<'p> {
    /// Until the send returns.
    Lent(&'p [u8]),
    /// As long as it is needed.
    Shared(&'p Arc<Vec<u8>>),
}

impl<'p> Sent<'p> {
    /// Shared payloads from here on are sent from where they are: smaller ones are copied sooner than counted.
    pub(crate) const SHARED_BYTES_MIN: usize = 4096;

    /// What it is.
    pub(crate) fn bytes(self) -> &'p [u8] {
        match self {
            Sent::Lent(bytes) => bytes,
            Sent::Shared(bytes) => bytes,
        }
    }

    /// The same, to be kept.
    pub(crate) fn keep(self) -> Arc<Vec<u8>> {
        match self {
            Sent::Lent(bytes) => Arc::new(bytes.to_vec()),
            Sent::Shared(bytes) => Arc::clone(bytes),
        }
    }
}

/// How a payload comes with its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum Carriage {
    /// All of it, behind the header.
    Inline = 0,
    /// All of it, in a block.
    Block = 1,
    /// A part of it, in a block.
    Chunk = 2,
}

/// What stands before each payload.
///
/// | word | bits | what |
/// |---|---|---|
/// | 0 | 0-15 | handler |
/// | 0 | 16-19 | carriage |
/// | 0 | 20-39 | the last epoch of the membership that its sender knew |
/// | 0 | 40-63 | source rank |
/// | 1 | all | bytes of the whole payload |
/// | 2 | all | tag |
/// | 3 | all | where in the payload this chunk begins; 0 otherwise |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) handler: HandlerId,
    pub(crate) carriage: Carriage,
    pub(crate) source: Rank,
    pub(crate) epoch: u32,
    pub(crate) bytes: u64,
    pub(crate) tag: u64,
    pub(crate) at: u64,
}

/// Why a message cannot be what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("carriage {0} is none")]
    Carriage(u16),
    #[error("a payload of {0} bytes is too large")]
    Bytes(u64),
    #[error("a chunk at byte {at} of {bytes}")]
    At { at: u64, bytes: u64 },
    #[error("it says that rank {said} sent it, it came from {from}")]
    Source { said: Rank, from: Rank },
    #[error("{found} bytes where {wanted} should be")]
    Length { found: u64, wanted: u64 },
    #[error("a chunk at byte {found} where {wanted} bytes have come")]
    Order { found: u64, wanted: u64 },
}

impl Header {
    /// The header of a message that was not sent yet.
    pub(crate) fn new(source: Rank, handler: HandlerId, tag: u64, bytes: u64) -> Header {
        Header { handler, carriage: Carriage::Inline, source, epoch: 0, bytes, tag, at: 0 }
    }

    /// Its words.
    pub(crate) fn encode(&self) -> [u64; HEADER_WORDS] {
        let low = u64::from(self.handler.0) | (self.carriage as u64) << 16;
        let first = low | u64::from(self.epoch & EPOCH_MAX) << 20 | u64::from(self.source.0) << SOURCE_AT;
        [first, self.bytes, self.tag, self.at]
    }

    /// The header that came from `from` as these words, if it can be one.
    pub(crate) fn decode(words: [u64; HEADER_WORDS], from: Rank) -> Result<Header, Malformed> {
        let [first, bytes, tag, at] = words;
        let carriage = match (first >> 16) as u16 & 0xF {
            0 => Carriage::Inline,
            1 => Carriage::Block,
            2 => Carriage::Chunk,
            other => return Err(Malformed::Carriage(other)),
        };
        let (source, epoch) = (Header::source_of(first), (first >> 20) as u32 & EPOCH_MAX);
        if source != from {
            return Err(Malformed::Source { said: source, from });
        }
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(Malformed::Bytes(bytes));
        }
        let begins_inside = if carriage == Carriage::Chunk { at < bytes } else { at == 0 };
        if !begins_inside {
            return Err(Malformed::At { at, bytes });
        }
        Ok(Header { handler: HandlerId(first as u16), carriage, source, epoch, bytes, tag, at })
    }

    /// The rank that a header's first word names.
    pub(crate) fn source_of(first: u64) -> Rank {
        Rank((first >> SOURCE_AT) as u32)
    }

    /// The message it heads.
    pub(crate) fn message<'p>(&self, payload: &'p [u8]) -> Message<'p> {
        Message { source: self.source, handler: self.handler, tag: self.tag, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(carriage: Carriage, bytes: u64, at: u64) -> Header {
        let (handler, source, epoch) = (HandlerId(0xFEDC), Rank(7), 0xF_1234);
        Header { handler, carriage, source, epoch, bytes, tag: u64::MAX - 1, at }
    }

    #[test]
    fn headers_come_back() {
        let headers = [
            header(Carriage::Inline, 80, 0),
            header(Carriage::Block, 1 << 32, 0),
            header(Carriage::Chunk, 9, 8),
        ];
        for header in headers {
            assert_eq!(Header::decode(header.encode(), Rank(7)), Ok(header));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let decode = |header: Header| Header::decode(header.encode(), Rank(7));
        assert_eq!(decode(header(Carriage::Inline, 1, 1)), Err(Malformed::At { at: 1, bytes: 1 }));
        assert_eq!(decode(header(Carriage::Chunk, 8, 8)), Err(Malformed::At { at: 8, bytes: 8 }));
        assert_eq!(decode(header(Carriage::Block, u64::MAX, 0)), Err(Malformed::Bytes(u64::MAX)));
        let words = header(Carriage::Inline, 0, 0).encode();
        let said = Malformed::Source { said: Rank(7), from: Rank(8) };
        assert_eq!(Header::decode(words, Rank(8)), Err(said));
        assert_eq!(Header::decode([3 << 16, 0, 0, 0], Rank(0)), Err(Malformed::Carriage(3)));
    }

    proptest! {
        #[test]
        fn any_words_are_decoded_or_refused(words: [u64; 4]) {
            let from = Header::source_of(words[0]);
            if let Ok(header) = Header::decode(words, from) {
                prop_assert_eq!(header.encode(), words);
            }
        }
    }
}
