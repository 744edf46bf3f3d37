//! The channels that `queue` compares, behind one trait, and what the other side does with any of them.
//!
//! Each is run as its documents suggest. The trait is generic, not a table of functions, since a call through a pointer
//! is time that counts here.

pub(crate) mod crossbeam;
pub(crate) mod iceoryx;
pub(crate) mod pipe;
pub(crate) mod python;
pub(crate) mod raw;
pub(crate) mod tarragon;
pub(crate) mod zeromq;

use crate::beside::{Orders, Pinned};
use rustix::time::{ClockId, clock_gettime};

/// What is sent: words that all bear one number.
pub(crate) trait Item: Copy + Send + 'static {
    const WORDS: usize;

    /// The item of a number.
    fn of(number: u64) -> Self;
    /// Its number; ends the bench if the item is not whole.
    fn number(&self) -> u64;
    /// The item of words that were sent.
    fn from_words(word: impl Fn(usize) -> u64) -> Self;
    /// Its words.
    fn words(&self) -> &[u64];
}

impl Item for u64 {
    const WORDS: usize = 1;

    fn of(number: u64) -> Self {
        number
    }

    fn number(&self) -> u64 {
        *self
    }

    fn from_words(word: impl Fn(usize) -> u64) -> Self {
        word(0)
    }

    fn words(&self) -> &[u64] {
        std::slice::from_ref(self)
    }
}

/// An item of 64 bytes.
pub(crate) type Wide = [u64; 8];

impl Item for Wide {
    const WORDS: usize = 8;

    fn of(number: u64) -> Self {
        [number; 8]
    }

    fn number(&self) -> u64 {
        assert_eq!(self.iter().fold(0, |differs, word| differs | (word ^ self[0])), 0, "a torn item");
        self[0]
    }

    fn from_words(word: impl Fn(usize) -> u64) -> Self {
        std::array::from_fn(word)
    }

    fn words(&self) -> &[u64] {
        self
    }
}

/// Bytes of an item, for channels that take bytes.
pub(crate) fn to_bytes<T: Item>(item: &T) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (to, word) in bytes.chunks_exact_mut(8).zip(item.words()) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// The item whose bytes these are.
pub(crate) fn from_bytes<T: Item>(bytes: &[u8; 64]) -> T {
    T::from_words(|word| u64::from_ne_bytes(*bytes[word * 8..].first_chunk().expect("8 bytes of 64")))
}

/// One side of a channel that goes both ways.
pub(crate) trait Side<T: Item> {
    /// Sends an item, waiting while the channel is full.
    fn send(&mut self, item: T);
    /// Waits for an item without sleeping, where the channel can.
    fn receive(&mut self) -> T;
    /// Sleeps until there is an item.
    fn park(&mut self) -> T {
        self.receive()
    }
}

/// One side of a channel of items that are written in place.
pub(crate) trait Hands {
    /// Writes an item where it will be sent from, calls `ready`, and sends it.
    fn hand(&mut self, bytes: &[u8], ready: impl FnOnce());
    /// Waits for an item without sleeping; its first and last 8 bytes, read in place.
    fn take(&mut self) -> (u64, u64);
}

/// The first and last 8 bytes.
pub(crate) fn ends(bytes: &[u8]) -> (u64, u64) {
    let first = bytes.first_chunk().expect("8 bytes or more");
    let last = bytes.last_chunk().expect("8 bytes or more");
    (u64::from_ne_bytes(*first), u64::from_ne_bytes(*last))
}

/// Orders to the other side: answer so many items, each with the item of the next number.
pub(crate) const ECHO: u64 = 1;
/// Take so many items, which come in order.
pub(crate) const DRAIN: u64 = 2;
/// Sleep until there is an item, which bears the time it was sent at; answer how long ago that was, in nanoseconds.
pub(crate) const WAKE: u64 = 3;
/// Take an item that was written in place; answer the number at both its ends.
pub(crate) const TAKE: u64 = 4;

/// What the other side does.
pub(crate) fn serve<T: Item>(side: &mut impl Side<T>, mut orders: Orders) {
    let mut answer = 0;
    while let Some((order, count)) = orders.next(answer) {
        answer = count;
        match order {
            ECHO => (0..count).for_each(|_| {
                let item = side.receive();
                side.send(T::of(item.number() + 1));
            }),
            DRAIN => drain(side, count),
            WAKE => {
                let pinned = Pinned::to(1);
                let sent = side.park().number();
                answer = now() - sent;
                drop(pinned);
            }
            other => panic!("no order {other}"),
        }
    }
}

/// Takes so many items, which come in order from 0.
pub(crate) fn drain<T: Item>(side: &mut impl Side<T>, count: u64) {
    for number in 0..count {
        assert_eq!(side.receive().number(), number, "items come in another order");
    }
}

/// What the other side does with items that are written in place.
pub(crate) fn serve_hands(side: &mut impl Hands, mut orders: Orders) {
    let mut answer = 0;
    while let Some((order, _)) = orders.next(answer) {
        assert_eq!(order, TAKE, "no such order");
        let (first, last) = side.take();
        assert_eq!(first, last, "a torn item");
        answer = first;
    }
}

/// The clock that all processes of a machine share, in nanoseconds.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
