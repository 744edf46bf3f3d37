//! What stands before each payload on the network: a message's header, its number in the order of its pair of ranks,
//! how far the other direction was taken, and the world's number. A frame of number 0 is a *note* between fabrics.
//!
//! | word | what |
//! |---|---|
//! | 0-3 | the message's header; of a note source, handler (which note it is) and tag (its number) |
//! | 4 | number: 1 for the first message from this rank to that one; 0 for a note |
//! | 5 | the last number that the sender has taken of those sent to it |
//! | 6 | the world's number |

use super::worker::HEADER_BYTES;
use crate::message::{HEADER_WORDS, HandlerId, Header, Malformed};
use crate::rank::Rank;
use crate::wire::Raw;

/// What one fabric tells another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(super) enum Note {
    /// Nothing: word 5 is what matters, or that the connection bears it.
    Taken = 1,
    /// Say what you have taken, also if it is little, until that is the message of the note's number.
    Ask = 2,
    /// The sender has left.
    Goodbye = 3,
    /// That the receiver left was seen.
    Seen = 4,
    /// To rank 0: the sender lives, and all there know of the losses up to the note's number.
    Sign = 5,
    /// From rank 0: it lives, and the losses up to the note's number are settled.
    Heard = 6,
    /// To rank 0: the rank of the note's number cannot be reached.
    Accuse = 7,
    /// From rank 0: a rank is lost. The number is the rank, from bit 32 on the epoch, from bit 56 on why.
    Lost = 8,
    /// Say that you are there.
    Question = 9,
    /// The sender is there.
    Answer = 10,
    /// To rank 0: nothing comes from the rank of the note's number, which was asked.
    Unheard = 11,
}

/// The words before a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) number: u64,
    pub(super) taken: u64,
}

impl Frame {
    /// A note of `source`, which knows of the losses up to `epoch`.
    pub(super) fn note((source, epoch): (Rank, u32), note: Note, about: u64, taken: u64) -> Frame {
        let header = Header { epoch, ..Header::new(source, HandlerId(note as u16), about, 0) };
        Frame { header, number: 0, taken }
    }

    /// Its bytes.
    pub(super) fn encode(&self, world: u64) -> [u8; HEADER_BYTES] {
        let words = self.header.encode().into_iter().chain([self.number, self.taken, world]);
        let mut bytes = [0; HEADER_BYTES];
        bytes.chunks_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    /// The frame that these bytes are, of a rank below `size`.
    pub(super) fn decode(bytes: &[u8], world: u64, size: u32) -> Result<Frame, Malformed> {
        let wrong = |_| Malformed::Length { found: bytes.len() as u64, wanted: HEADER_BYTES as u64 };
        let mut raw = Raw::new(bytes);
        let mut words = [0; HEADER_WORDS + 3];
        for word in &mut words {
            *word = raw.word().map_err(wrong)?;
        }
        raw.end().map_err(wrong)?;
        let [a, b, c, d, number, taken, theirs] = words;
        let source = Header::source_of(a);
        if source.0 >= size || theirs != world {
            return Err(Malformed::Source { said: source, from: Rank(u32::MAX) });
        }
        Ok(Frame { header: Header::decode([a, b, c, d], source)?, number, taken })
    }

    /// The note that it is, if it is one.
    pub(super) fn as_note(&self) -> Option<Note> {
        use Note::{Accuse, Answer, Ask, Goodbye, Heard, Lost, Question, Seen, Sign, Taken, Unheard};
        let notes = [Taken, Ask, Goodbye, Seen, Sign, Heard, Accuse, Lost, Question, Answer, Unheard];
        notes.into_iter().find(|&note| self.number == 0 && self.header.handler.0 == note as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_strangers_are_refused() {
        let header = Header::new(Rank(3), HandlerId(9), 77, 5);
        let frame = Frame { header, number: 12, taken: 11 };
        let bytes = frame.encode(99);
        assert_eq!(Frame::decode(&bytes, 99, 4), Ok(frame));
        assert!(Frame::decode(&bytes, 98, 4).is_err());
        assert!(Frame::decode(&bytes, 99, 3).is_err());
        assert!(Frame::decode(&bytes[1..], 99, 4).is_err());
        assert!(Frame::decode(&[bytes.to_vec(), vec![0]].concat(), 99, 4).is_err());
        let note = Frame::note((Rank(1), 2), Note::Seen, 0, 4);
        assert_eq!((note.as_note(), frame.as_note()), (Some(Note::Seen), None));
    }
}
