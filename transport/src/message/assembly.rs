//! Puts the chunks of a large payload together again. Chunks of one message come in order, and no other message of
//! the same sender comes between them; whatever else comes is refused and what was gathered is given up.

use super::{Header, Malformed};

/// Bytes of memory taken before the first chunk has shown that the announced size is meant.
const FIRST_RESERVE_MAX: u64 = 64 << 20;

/// The message of one sender that is on its way.
#[derive(Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    header: Option<Header>,
}

impl Assembly {
    /// Adds a chunk. Returns the header and whole payload when it was the last one.
    pub(crate) fn add(
        &mut self,
        header: Header,
        chunk: &[u8],
    ) -> Result<Option<(Header, Vec<u8>)>, Malformed> {
        let result = self.check(&header, chunk);
        if let Err(malformed) = result {
            self.give_up();
            return Err(malformed);
        }
        if header.at == 0 {
            self.bytes.reserve(header.bytes.min(FIRST_RESERVE_MAX) as usize);
            self.header = Some(header);
        }
        self.bytes.extend_from_slice(chunk);
        if (self.bytes.len() as u64) < header.bytes {
            return Ok(None);
        }
        self.header = None;
        Ok(Some((Header { at: 0, ..header }, std::mem::take(&mut self.bytes))))
    }

    /// Forgets what has come of an unfinished message. Returns whether there was one.
    pub(crate) fn give_up(&mut self) -> bool {
        self.bytes = Vec::new();
        self.header.take().is_some()
    }

    fn check(&self, header: &Header, chunk: &[u8]) -> Result<(), Malformed> {
        let room = header.bytes - header.at;
        let found = chunk.len() as u64;
        if found == 0 || found > room {
            return Err(Malformed::Length { found, wanted: room });
        }
        let is_next = match &self.header {
            None => header.at == 0,
            Some(first) => {
                Header { at: first.at, ..*header } == *first && header.at == self.bytes.len() as u64
            }
        };
        let wanted = self.bytes.len() as u64;
        if is_next { Ok(()) } else { Err(Malformed::Order { found: header.at, wanted }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Carriage, HandlerId};
    use crate::rank::Rank;

    fn chunk(at: u64, bytes: u64) -> Header {
        Header { carriage: Carriage::Chunk, at, ..Header::new(Rank(1), HandlerId(2), 3, bytes) }
    }

    #[test]
    fn chunks_become_the_payload() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(chunk(0, 5), b"he"), Ok(None));
        assert_eq!(assembly.add(chunk(2, 5), b"ll"), Ok(None));
        assert_eq!(assembly.add(chunk(4, 5), b"o"), Ok(Some((chunk(0, 5), b"hello".to_vec()))));
        assert_eq!(assembly.add(chunk(0, 1), b"x"), Ok(Some((chunk(0, 1), b"x".to_vec()))));
    }

    #[test]
    fn gaps_and_too_much_are_refused_and_a_new_start_is_possible() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(chunk(2, 5), b"ll"), Err(Malformed::Order { found: 2, wanted: 0 }));
        assert_eq!(assembly.add(chunk(0, 5), b"he"), Ok(None));
        assert_eq!(assembly.add(chunk(3, 5), b"lo"), Err(Malformed::Order { found: 3, wanted: 2 }));
        assert_eq!(assembly.add(chunk(0, 2), b"abc"), Err(Malformed::Length { found: 3, wanted: 2 }));
        assert_eq!(assembly.add(chunk(0, 2), b""), Err(Malformed::Length { found: 0, wanted: 2 }));
        assert_eq!(assembly.add(chunk(0, 2), b"ab"), Ok(Some((chunk(0, 2), b"ab".to_vec()))));
    }
}
