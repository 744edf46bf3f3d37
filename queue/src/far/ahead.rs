//! A sender: puts whose responses are not waited for one by one.
//!
//! See the page above on credits. `Out` is written by who sends, `Heard` by the handler of what is heard; the lock of
//! the second is never held while anything is sent. A handler that finds the first one locked leaves a word (`again`),
//! and who has the lock sends once more when it has let go.

use super::handle::Far;
use super::inflow::WINDOW_MIN;
use super::message::{Heard, PUTS, Puts, TELL, Tell, Told, close};
use crate::error::Error;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, FabricError, PeerState, Rank};

/// A message gets no further item once it has so many bytes.
const BATCH_BYTES: usize = 16 << 10;
/// The most items of a message.
const BATCH_ITEMS: usize = 1024;
/// Items and bytes that may wait here for credit.
const KEPT_BYTES: usize = 4 * BATCH_BYTES;
const KEPT_ITEMS: usize = 4 * BATCH_ITEMS;
/// The longest time without a look at whether the serving rank lives.
const LOOK: Duration = Duration::from_millis(100);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The senders of a rank, by number.
#[derive(Default)]
pub(super) struct Senders {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Arc<Sender>>>,
}

impl Senders {
    /// In a handler.
    pub(super) fn hear(&self, fabric: &Fabric, number: u64, heard: Heard) {
        let sender = lock(&self.all).get(&number).cloned();
        if let Some(sender) = sender {
            sender.hear(heard);
            sender.send(fabric);
        }
    }
}

/// What one sender has done.
pub(crate) struct Sender {
    queue: u128,
    home: Rank,
    number: u64,
    out: Mutex<Out>,
    heard: Mutex<Heard>,
    /// Something was heard, or is to be sent, since who has the lock of `out` looked.
    again: AtomicBool,
    /// A message could not be sent, so none is any more.
    has_failed: AtomicBool,
}

#[derive(Default)]
struct Out {
    /// Items that were not sent yet, and their lengths.
    body: Vec<u8>,
    lens: Vec<u64>,
    items_sent: u64,
    bytes_sent: u64,
    /// Of messages that are on their way: the items and bytes sent when they had been.
    flights: VecDeque<(u64, u64)>,
    /// Bytes that are in.
    bytes_put: u64,
    /// Whoever is here waits for all to be in.
    is_last: bool,
    failed: Option<FabricError>,
}

/// What the porter keeps of an item beside its bytes.
const ITEM_BYTES: u64 = 40;

impl Sender {
    fn hear(&self, heard: Heard) {
        let mut known = lock(&self.heard);
        known.put = known.put.max(heard.put);
        if heard.refusal.is_some() {
            known.refusal = heard.refusal;
        } else {
            known.window = heard.window;
        }
    }

    /// Sends what there is credit for.
    fn send(&self, fabric: &Fabric) {
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) {
            let Ok(mut out) = self.out.try_lock() else { return };
            self.again.store(false, Ordering::SeqCst);
            let (put, window, is_over) = {
                let heard = lock(&self.heard);
                (heard.put, heard.window, heard.refusal.is_some())
            };
            if is_over {
                (out.body, out.lens) = (Vec::new(), Vec::new());
            } else {
                out.send(self, fabric, put, window);
            }
        }
    }
}

impl Out {
    /// Of what is to be sent next, for the credit.
    fn cost(&self) -> u64 {
        self.body.len() as u64 + ITEM_BYTES * self.lens.len() as u64
    }

    fn send(&mut self, to: &Sender, fabric: &Fabric, put: u64, window: u64) {
        while let Some(&(_, bytes)) = self.flights.front().filter(|it| it.0 <= put) {
            self.bytes_put = bytes;
            self.flights.pop_front();
        }
        while !self.lens.is_empty() && !to.has_failed.load(Ordering::SeqCst) && self.may_send(window) {
            self.bytes_sent += self.cost();
            let (body, lens) = (std::mem::take(&mut self.body), std::mem::take(&mut self.lens));
            self.items_sent += lens.len() as u64;
            self.flights.push_back((self.items_sent, self.bytes_sent));
            let message = close(body, &Puts { queue: to.queue, lens });
            self.failed = fabric.send(to.home, PUTS, to.number, &message).err();
            to.has_failed.store(self.failed.is_some(), Ordering::SeqCst);
        }
    }

    /// What is alone on its way may be as large as it likes; what is not waits until there is enough for a message, or
    /// nothing is on its way.
    fn may_send(&self, window: u64) -> bool {
        let is_enough = self.is_last || self.body.len() >= BATCH_BYTES || self.lens.len() >= BATCH_ITEMS;
        let has_credit = self.bytes_sent - self.bytes_put + self.cost() <= window;
        self.flights.is_empty() || (is_enough && has_credit)
    }
}

impl Far {
    /// A sender for a handle that outlives it.
    pub(crate) fn sender(&self) -> Result<Arc<Sender>, Error> {
        let fabric = self.fabric()?;
        let senders = fabric.state::<Senders>();
        // Only draws a number.
        let number = senders.next.fetch_add(1, Ordering::Relaxed);
        let heard = Mutex::new(Heard { window: WINDOW_MIN, ..Heard::default() });
        let (queue, home) = (self.segment().uid, self.rank());
        let (out, again, has_failed) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        let sender = Sender { queue, home, number, out, heard, again, has_failed };
        let sender = Arc::new(sender);
        lock(&senders.all).insert(number, Arc::clone(&sender));
        Ok(sender)
    }

    /// Sends an item that `write` appends, ahead; waits while too many are on their way.
    pub(crate) fn send_ahead(
        &self,
        sender: &Sender,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let has_room = || {
            let out = lock(&sender.out);
            out.body.len() < KEPT_BYTES && out.lens.len() < KEPT_ITEMS
        };
        self.wait_for(sender, None, has_room)?;
        {
            let mut out = lock(&sender.out);
            let before = out.body.len();
            let written = write(&mut out.body);
            let len = (out.body.len() - before) as u64;
            if written.is_err() {
                out.body.truncate(before);
            }
            written?;
            out.lens.push(len);
        }
        sender.send(&*self.fabric()?);
        self.check(sender)
    }

    /// Waits until all that was sent is in; false: not before the time was over.
    pub(crate) fn flush(&self, sender: &Sender, until: Option<Instant>) -> Result<bool, Error> {
        lock(&sender.out).is_last = true;
        sender.send(&*self.fabric()?);
        let is_in = || {
            let out = lock(&sender.out);
            out.lens.is_empty() && out.items_sent == lock(&sender.heard).put
        };
        let is_in = self.wait_for(sender, until, is_in);
        lock(&sender.out).is_last = false;
        // Somebody may have found it locked.
        self.fabric().map(|fabric| sender.send(&fabric))?;
        is_in
    }

    /// Its items that are known to be in, from the first one on.
    pub(crate) fn count_in(&self, sender: &Sender) -> u64 {
        lock(&sender.heard).put
    }

    /// It sends nothing more.
    pub(crate) fn end_sender(&self, sender: &Sender) {
        let Ok(fabric) = self.fabric() else { return };
        lock(&fabric.state::<Senders>().all).remove(&sender.number);
        let what = Told::Over { number: sender.number };
        // Who cannot be told is gone.
        let _ = fabric.send(sender.home, TELL, 0, &close(Vec::new(), &Tell { queue: sender.queue, what }));
    }

    fn wait_for(
        &self,
        sender: &Sender,
        until: Option<Instant>,
        ready: impl Fn() -> bool,
    ) -> Result<bool, Error> {
        let (mut looked, mut is_gone) = (Instant::now(), false);
        loop {
            self.check(sender)?;
            if ready() {
                return Ok(true);
            }
            let fabric = self.fabric()?;
            if is_gone {
                return Err(self.gone(&fabric, sender.home));
            }
            if sender.again.load(Ordering::SeqCst) {
                sender.send(&fabric);
            }
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Ok(false);
            }
            if now.saturating_duration_since(looked) >= LOOK {
                looked = now;
                fabric.check_peers();
            }
            // What it said before is heard first.
            is_gone = fabric.peer(sender.home) != PeerState::Here;
            let left = until.map_or(LOOK, |until| LOOK.min(until.saturating_duration_since(now)));
            if is_gone {
                fabric.progress();
            } else {
                fabric.wait(left);
            }
        }
    }

    fn gone(&self, fabric: &Fabric, rank: Rank) -> Error {
        let is_dead = fabric.peer(rank) == PeerState::Dead;
        self.lost(if is_dead { FabricError::PeerDead { rank } } else { FabricError::PeerLeft { rank } })
    }

    fn check(&self, sender: &Sender) -> Result<(), Error> {
        if let Some(refusal) = lock(&sender.heard).refusal.clone() {
            return Err(self.refused(refusal));
        }
        if !sender.has_failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let failed = lock(&sender.out).failed.take();
        // Told once as it was; afterwards that it was.
        let again = || self.at_home("an earlier item could not be sent there".to_owned());
        Err(failed.map_or_else(again, |source| self.lost(source)))
    }
}
