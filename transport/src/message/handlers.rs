//! Which code receives which message. A message for a number that nobody registered is counted and dropped.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use super::{Malformed, Message};
use crate::fabric::Fabric;
use crate::rank::Rank;

/// The number of a handler, the same on all ranks. Those from [`HandlerId::RESERVED`] on belong to the world, those
/// from 0xE000 on to libraries above it, 256 to each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HandlerId(pub u16);

impl HandlerId {
    /// The first number that is not for users.
    pub const RESERVED: HandlerId = HandlerId(0xFF00);
}

/// Messages that could not be delivered to a handler, since the fabric was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Messages for a handler that this rank has not registered.
    pub unknown_handlers: u64,
    /// The sender and the handler of the last of these.
    pub last_unknown: Option<(Rank, HandlerId)>,
    /// Messages whose header or place cannot be.
    pub malformed: u64,
    /// Messages of ranks that were lost, refused.
    pub stale: u64,
}

type Handler = Arc<dyn Fn(&Fabric, &Message<'_>) + Send + Sync>;

/// Handlers of numbers that share their upper half.
type Page = [Option<Handler>; 256];

/// By the upper half of a number its page, which has it by the lower half.
#[derive(Default)]
struct Table(Vec<Option<Box<Page>>>);

impl Table {
    fn set(&mut self, HandlerId(id): HandlerId, handler: Handler) {
        let page = usize::from(id >> 8);
        if self.0.len() <= page {
            self.0.resize_with(page + 1, || None);
        }
        let new_page = || Box::new([const { None }; 256]);
        self.0[page].get_or_insert_with(new_page)[usize::from(id & 0xFF)] = Some(handler);
    }

    fn get(&self, HandlerId(id): HandlerId) -> Option<Handler> {
        self.0.get(usize::from(id >> 8))?.as_ref()?[usize::from(id & 0xFF)].clone()
    }
}

/// The handlers of one rank.
#[derive(Default)]
pub(crate) struct Handlers {
    table: RwLock<Table>,
    unknown: AtomicU64,
    /// Source and handler of the last unknown one, and a bit that says there was one.
    last_unknown: AtomicU64,
    malformed: AtomicU64,
}

const SEEN: u64 = 1 << 63;

thread_local! {
    static HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a handler, where nothing may wait.
pub(crate) fn is_handling() -> bool {
    HANDLING.get()
}

/// Says while it lives that this thread is inside a handler; also a panic ends it.
struct Handling {
    outer: bool,
}

impl Handling {
    fn begin() -> Handling {
        Handling { outer: HANDLING.replace(true) }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        HANDLING.set(self.outer);
    }
}

impl Handlers {
    /// Registers the receiver of `id`, in place of one that was there.
    pub(crate) fn set(&self, id: HandlerId, handler: Handler) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).set(id, handler);
    }

    /// Runs the handler of `message`, or counts it as unknown.
    pub(crate) fn dispatch(&self, fabric: &Fabric, message: &Message<'_>) {
        let handler = self.table.read().unwrap_or_else(PoisonError::into_inner).get(message.handler);
        let Some(handler) = handler else {
            self.unknown.fetch_add(1, Relaxed);
            let who = u64::from(message.source.0) << 16 & !SEEN | u64::from(message.handler.0);
            return self.last_unknown.store(who | SEEN, Relaxed);
        };
        let _handling = Handling::begin();
        handler(fabric, message);
    }

    /// Counts a message that cannot be.
    pub(crate) fn refuse(&self, _why: Malformed) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// What could not be delivered.
    pub(crate) fn faults(&self) -> Faults {
        let last = self.last_unknown.load(Relaxed);
        let last_unknown = (last & SEEN != 0).then_some((Rank((last >> 16) as u32), HandlerId(last as u16)));
        Faults {
            unknown_handlers: self.unknown.load(Relaxed),
            last_unknown,
            malformed: self.malformed.load(Relaxed),
            stale: 0,
        }
    }
}
