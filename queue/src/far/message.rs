//! What far handles and porters tell one another: a body of items as they are, and behind it a head in postcard with
//! its length, so that an item is written where it is sent from.

use crate::descriptor::Descriptor;
use crate::error::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tarragon_transport::{HandlerId, SegmentError};

/// A request to a porter; an [`Ask`].
pub(super) const ASK: HandlerId = HandlerId(0xEC00);
/// What a porter is told, without a response; a [`Tell`].
pub(super) const TELL: HandlerId = HandlerId(0xEC01);
/// A porter wants back what a far handle keeps; a [`Recall`].
pub(super) const RECALL: HandlerId = HandlerId(0xEC02);
/// Items that are sent ahead, of the sender whose number is the tag; a [`Puts`].
pub(super) const PUTS: HandlerId = HandlerId(0xEC03);
/// What has become of them, to the sender whose number is the tag; a [`Heard`].
pub(super) const HEARD: HandlerId = HandlerId(0xEC04);
/// The most items of one response.
pub(super) const BATCH_MAX: u32 = 64;
/// A response of several items gets no further one once it has so many bytes.
pub(super) const BATCH_BYTES: usize = 16 << 10;

/// How long to wait, in microseconds; `None`: for ever.
pub(super) type WaitUs = Option<u64>;

/// Head of a request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// The number of the queue's segment.
    pub(super) queue: u128,
    pub(super) what: Asked,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    /// One more handle of this rank.
    Attach { descriptor: Descriptor },
    /// The body is an item.
    Put { wait: WaitUs },
    /// Up to `most` items, of which one is waited for.
    Get { wait: WaitUs, most: u32 },
    /// An item is dealt with.
    Done,
    /// Says when all are.
    Join { wait: WaitUs },
    /// How is it?
    Look,
    /// Close it, or destroy it.
    End { destroys: bool },
}

/// Head of what a porter is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tell {
    pub(super) queue: u128,
    pub(super) what: Told,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The item of this number has come, and is the far rank's.
    Came { hand: u64 },
    /// These are wanted no more.
    Back { hands: Vec<u64> },
    /// One handle less of this rank.
    Detach,
    /// A sender of this number sends nothing more ahead.
    Over { number: u64 },
}

/// Head of items that are sent ahead.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Puts {
    pub(super) queue: u128,
    /// The body is items of these lengths.
    pub(super) lens: Vec<u64>,
}

/// All of what a sender hears.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Heard {
    /// Its items that are in, from the first one on.
    pub(super) put: u64,
    /// Bytes that it may have sent beyond these.
    pub(super) window: u64,
    /// Why no more of them gets in.
    pub(super) refusal: Option<Refusal>,
}

/// All of a recall.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Recall {
    pub(super) queue: u128,
}

/// Head of a response.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Attached {
        bound: u64,
        is_strict: bool,
    },
    /// It was done.
    Done,
    /// The body is items of these lengths; the first one is in the hand of this number, the others follow.
    Items {
        hand: u64,
        lens: Vec<u64>,
    },
    Looked(Look),
    Refused(Refusal),
}

/// How a queue was when it was looked at.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) len: u64,
    pub(crate) is_full: bool,
    pub(crate) is_open: bool,
    /// A `try_get` would have something to say.
    pub(crate) is_ready: bool,
}

/// An error as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    Full {
        bound: u64,
    },
    Memory {
        needed: u64,
        capacity: u64,
    },
    TooLarge {
        needed: u64,
        capacity: u64,
    },
    Empty,
    Closed,
    Destroyed,
    NotTaken {
        put: u64,
    },
    Unfinished {
        left: u64,
    },
    Abandoned {
        items: u64,
    },
    Damaged,
    /// There is no such queue.
    Gone,
    /// The serving rank leaves.
    Leaves,
    /// Something else, of that rank alone.
    AtHome {
        why: String,
    },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Full { bound } => Refusal::Full { bound },
            Error::Memory { needed, capacity } => Refusal::Memory { needed, capacity },
            Error::TooLarge { needed, capacity } => Refusal::TooLarge { needed, capacity },
            Error::Empty => Refusal::Empty,
            Error::Closed => Refusal::Closed,
            Error::Destroyed => Refusal::Destroyed,
            Error::NotTaken { put } => Refusal::NotTaken { put },
            Error::Unfinished { left } => Refusal::Unfinished { left },
            Error::Abandoned { items } => Refusal::Abandoned { items },
            Error::Damaged => Refusal::Damaged,
            Error::Segment(SegmentError::Gone { .. }) => Refusal::Gone,
            other => Refusal::AtHome { why: other.to_string() },
        }
    }
}

/// Puts a head behind a body.
pub(super) fn close<H: Serialize>(mut body: Vec<u8>, head: &H) -> Vec<u8> {
    let head = postcard::to_allocvec(head).expect("heads have no maps");
    body.extend_from_slice(&head);
    body.extend_from_slice(&(head.len() as u32).to_le_bytes());
    body
}

/// The head, and how many bytes are the body; `None` if that cannot be.
pub(super) fn open<H: DeserializeOwned>(bytes: &[u8]) -> Option<(H, usize)> {
    let (rest, len) = bytes.split_last_chunk::<4>()?;
    let body = rest.len().checked_sub(u32::from_le_bytes(*len) as usize)?;
    let (head, left) = postcard::take_from_bytes(&rest[body..]).ok()?;
    left.is_empty().then_some((head, body))
}

/// The items of a body, if it has these lengths.
pub(super) fn items<'b>(mut body: &'b [u8], lens: &[u64]) -> Option<Vec<&'b [u8]>> {
    let mut items = Vec::new();
    for &len in lens {
        let (item, rest) = body.split_at_checked(usize::try_from(len).ok()?)?;
        items.push(item);
        body = rest;
    }
    (body.is_empty() && !items.is_empty()).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::{Ask, Asked, close, items, open};

    #[test]
    fn heads_come_back_from_behind_their_bodies() {
        let ask = Ask { queue: 1 << 99, what: Asked::Put { wait: Some(7) } };
        let bytes = close(b"body".to_vec(), &ask);
        let (head, body) = open::<Ask>(&bytes).expect("it is whole");
        assert_eq!((head.queue, &bytes[..body]), (1 << 99, &b"body"[..]));
        assert!(matches!(head.what, Asked::Put { wait: Some(7) }));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bytes = close(Vec::new(), &Ask { queue: 1, what: Asked::Done });
        for cut in 0..bytes.len() {
            assert!(open::<Ask>(&bytes[..cut]).is_none(), "{cut}");
        }
        assert!(open::<Ask>(&[0xff; 40]).is_none());
        assert_eq!(items(b"abc", &[1, 2]), Some(vec![&b"a"[..], b"bc"]));
        for lens in [&[][..], &[4], &[1, 1], &[u64::MAX, 4], &[3, u64::MAX]] {
            assert_eq!(items(b"abc", lens), None, "{lens:?}");
        }
    }
}
