//! The two directions between this rank and another: what was sent and is not taken yet, what was kept for want of
//! room, and what has come and waits for its turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::buffer::{Buffer, Load};
use super::frame::Frame;
use super::result::Request;
use super::worker::Descriptor;
use crate::message::{Header, Malformed};

/// Bytes that count for a message besides those of its payload.
const MESSAGE_COST: u64 = 64;
/// A message that comes so far ahead of its turn cannot be: the sender may not have so many underway.
const AHEAD_MAX: u64 = 1 << 20;
/// Messages that may be underway however large they are: while one is taken the next comes.
const UNDERWAY_MIN: usize = 2;
/// Payloads are fetched at once as long as those before are fewer bytes: enough that the network is never idle, and
/// few enough that the same memory, which is near, serves one after the other.
const FETCHING_BYTES: u64 = 1 << 20;

/// The way to a rank.
#[derive(Default)]
pub(super) struct Outward {
    /// The number of the last message.
    pub(super) sent: u64,
    /// Numbers and costs of messages that were not taken yet.
    underway: VecDeque<(u64, u64)>,
    pub(super) underway_bytes: u64,
    /// Sends that the library has not ended yet.
    pub(super) requests: VecDeque<Request>,
    /// The library has ended one of them with an error.
    pub(super) is_broken: bool,
    /// One-sided operations that run, and their bytes.
    operations: usize,
    operations_bytes: u64,
    /// What handlers sent, in order.
    pub(super) kept: VecDeque<(Header, Arc<Vec<u8>>)>,
    pub(super) kept_bytes: u64,
    /// The last number after which the receiver was asked what it has taken.
    pub(super) asked: u64,
}

/// The way from a rank.
#[derive(Default)]
pub(super) struct Inward {
    /// The last number that was taken.
    pub(super) taken: u64,
    /// Costs of messages that were taken, of which the sender was not told.
    owed_bytes: u64,
    told: u64,
    /// The sender waits to hear of all up to this number.
    asked: u64,
    /// What has come and waits for its turn.
    waiting: BTreeMap<u64, Waiting>,
    /// Numbers of those whose payload is still at the sender, in the order in which they came.
    there: VecDeque<u64>,
    /// Numbers and bytes of those whose payload is being fetched.
    fetching: Vec<(u64, u64)>,
}

/// A message that waits for its turn.
pub(super) struct Waiting {
    pub(super) header: Header,
    pub(super) payload: Payload,
}

pub(super) enum Payload {
    Here(Load),
    Fetching(Request),
    There(Descriptor),
}

fn cost(bytes: u64) -> u64 {
    bytes + MESSAGE_COST
}

impl Outward {
    /// Whether a message may go out now. A few always may.
    pub(super) fn has_room(&self, bytes: u64, window: u64) -> bool {
        self.underway.len() < UNDERWAY_MIN || self.underway_bytes + cost(bytes) <= window
    }

    /// Counts a message out; returns its number.
    pub(super) fn count(&mut self, bytes: u64) -> u64 {
        self.sent += 1;
        self.underway.push_back((self.sent, cost(bytes)));
        self.underway_bytes += cost(bytes);
        self.sent
    }

    /// The receiver has taken all up to `number`.
    pub(super) fn was_taken(&mut self, number: u64) {
        while let Some((_, cost)) = self.underway.pop_front_if(|(first, _)| *first <= number) {
            self.underway_bytes -= cost;
        }
    }

    /// One-sided operations have begun.
    pub(super) fn begin(&mut self, operations: &[Request]) {
        self.operations += operations.len();
        self.operations_bytes += operations.iter().map(Request::bytes).sum::<u64>();
    }

    /// They are over, or given up; their memory is still with them.
    pub(super) fn end(&mut self, operations: &[Request]) {
        self.operations -= operations.len();
        self.operations_bytes -= operations.iter().map(Request::bytes).sum::<u64>();
    }

    /// Bytes on their way, if the receiver has something to do for this rank.
    pub(super) fn awaited(&self) -> Option<u64> {
        let is_idle = self.is_done() && self.operations == 0;
        (!is_idle).then_some(self.underway_bytes + self.operations_bytes)
    }

    /// Whether all was taken.
    pub(super) fn is_done(&self) -> bool {
        self.kept.is_empty() && self.underway.is_empty()
    }

    /// Forgets what is underway, to a rank that is gone. What the library has not ended is returned.
    pub(super) fn bury(&mut self) -> VecDeque<Request> {
        self.underway = VecDeque::new();
        self.underway_bytes = 0;
        std::mem::take(&mut self.requests)
    }

    /// Forgets what was kept, and says whether that was anything.
    pub(super) fn give_up(&mut self) -> bool {
        self.kept_bytes = 0;
        !std::mem::take(&mut self.kept).is_empty()
    }
}

impl Inward {
    /// Adds a message that has come.
    pub(super) fn add(&mut self, frame: &Frame, payload: Payload) -> Result<(), Malformed> {
        let ahead = frame.number.wrapping_sub(self.taken);
        if ahead == 0 || ahead > AHEAD_MAX || self.waiting.contains_key(&frame.number) {
            return Err(Malformed::Order { found: frame.number, wanted: self.taken + 1 });
        }
        if matches!(payload, Payload::There(_)) {
            self.there.push_back(frame.number);
        }
        self.waiting.insert(frame.number, Waiting { header: frame.header, payload });
        Ok(())
    }

    /// The next payload that is to be fetched now; [`Inward::fetch`] follows.
    pub(super) fn next_fetch(&mut self) -> Option<(u64, Descriptor)> {
        if self.fetching.iter().map(|(_, bytes)| bytes).sum::<u64>() >= FETCHING_BYTES {
            return None;
        }
        let number = self.there.pop_front()?;
        let waiting = self.waiting.get_mut(&number)?;
        // Until the request comes in its place.
        let nothing = Payload::Here(Load::Own(Buffer::default()));
        let Payload::There(descriptor) = std::mem::replace(&mut waiting.payload, nothing) else {
            return None;
        };
        Some((number, descriptor))
    }

    /// Notes the request that fetches a payload.
    pub(super) fn fetch(&mut self, number: u64, request: Request) {
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.payload = Payload::Fetching(request);
            self.fetching.push((number, waiting.header.bytes));
        }
    }

    /// Notes which payloads have been fetched, of which `outcome` tells. True if one cannot be had.
    pub(super) fn end_fetches(&mut self, mut outcome: impl FnMut(&mut Request) -> Option<bool>) -> bool {
        let (waiting, mut is_lost) = (&mut self.waiting, false);
        self.fetching.retain(|(number, _)| {
            let Some(Waiting { payload, .. }) = waiting.get_mut(number) else { return false };
            let Payload::Fetching(request) = payload else { return false };
            match outcome(request) {
                None => return true,
                Some(true) => *payload = Payload::Here(Load::Own(request.take_buffer())),
                Some(false) => is_lost = true,
            }
            is_lost
        });
        is_lost
    }

    /// Whether the next message is there.
    pub(super) fn is_ready(&self) -> bool {
        self.waiting.first_key_value().is_some_and(|(&number, waiting)| {
            number == self.taken + 1 && matches!(waiting.payload, Payload::Here(_))
        })
    }

    /// The next message, if it is there; it counts as taken.
    pub(super) fn take(&mut self) -> Option<(Header, Load)> {
        if !self.is_ready() {
            return None;
        }
        let (number, Waiting { header, payload }) = self.waiting.pop_first()?;
        let Payload::Here(payload) = payload else { return None };
        self.taken = number;
        self.owed_bytes += cost(header.bytes);
        Some((header, payload))
    }

    /// Bytes of payloads that are still at the sender, if any are.
    pub(super) fn awaited(&self) -> Option<u64> {
        let is_away = |it: &&Waiting| !matches!(it.payload, Payload::Here(_));
        self.waiting.values().filter(is_away).map(|it| it.header.bytes).reduce(|sum, bytes| sum + bytes)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets messages whose payload was not fetched, and what comes after them: their sender is gone. The library's
    /// notes of payloads that nobody has begun to fetch are lost: to give them back would be to answer a dead one.
    pub(super) fn bury(&mut self) -> Vec<Request> {
        let mut lost = Vec::new();
        (self.there, self.fetching) = Default::default();
        let is_away = |it: &Waiting| !matches!(it.payload, Payload::Here(_));
        let first = self.waiting.iter().find(|(_, it)| is_away(it)).map(|(&number, _)| number);
        if let Some(first) = first {
            for waiting in self.waiting.split_off(&first).into_values() {
                if let Payload::Fetching(request) = waiting.payload {
                    lost.push(request);
                }
            }
        }
        lost
    }

    /// The sender waits to hear of all up to `number`.
    pub(super) fn ask(&mut self, number: u64) {
        self.asked = self.asked.max(number);
    }

    /// Whether the sender is to be told now.
    pub(super) fn owes(&self, window: u64) -> bool {
        self.taken > self.told && (self.owed_bytes >= window / 4 || self.told < self.asked)
    }

    /// Notes that the sender is told with whatever is sent to it now; returns the number to tell.
    pub(super) fn tell(&mut self) -> u64 {
        self.owed_bytes = 0;
        self.told = self.taken;
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HandlerId;
    use crate::rank::Rank;

    fn frame(number: u64) -> Frame {
        Frame { header: Header::new(Rank(1), HandlerId(2), number, 0), number, taken: 0 }
    }

    fn nothing() -> Payload {
        Payload::Here(Load::Own(Buffer::default()))
    }

    #[test]
    fn messages_wait_for_their_turn() {
        let mut inward = Inward::default();
        inward.add(&frame(2), nothing()).unwrap();
        assert!(inward.take().is_none());
        inward.add(&frame(1), nothing()).unwrap();
        assert!(inward.add(&frame(1), nothing()).is_err(), "twice");
        let tags: Vec<u64> = std::iter::from_fn(|| inward.take()).map(|(header, _)| header.tag).collect();
        assert_eq!(tags, [1, 2]);
        assert!(inward.add(&frame(2), nothing()).is_err(), "taken");
        assert!(inward.add(&frame(3 + AHEAD_MAX), nothing()).is_err(), "too far ahead");
    }

    #[test]
    fn a_full_window_opens_when_the_receiver_tells() {
        let (mut outward, mut inward) = (Outward::default(), Inward::default());
        let window = 4 * MESSAGE_COST;
        for _ in 0..UNDERWAY_MIN {
            assert!(outward.has_room(1 << 30, window), "a few always fit");
            outward.count(1 << 30);
        }
        assert!(!outward.has_room(0, window));
        outward.was_taken(outward.sent);
        while outward.has_room(0, window) {
            let number = outward.count(0);
            let number = number - UNDERWAY_MIN as u64;
            inward.add(&frame(number), nothing()).unwrap();
        }
        assert_eq!(outward.sent, 4 + UNDERWAY_MIN as u64);
        while inward.take().is_some() {}
        assert!(inward.owes(window));
        outward.was_taken(inward.tell() + UNDERWAY_MIN as u64);
        assert!(outward.is_done() && !inward.owes(window));
    }

    #[test]
    fn who_asks_hears_of_little() {
        let (mut inward, window) = (Inward::default(), 1 << 20);
        inward.add(&frame(1), nothing()).unwrap();
        inward.ask(1);
        assert!(inward.take().is_some() && inward.owes(window));
    }
}
