//! The handle of a queue.

use crate::ahead::Puts;
use crate::builder::Builder;
use crate::descriptor::Descriptor;
use crate::encoding::{Encoded, NUMBER_MAX, append, decode, encode, plain_bytes, type_hash, write_large};
use crate::error::Error;
use crate::far::Far;
use crate::layout::{Attached, CLOSED, DESTROYED, IN_BLOCK, OPEN};
use crate::loan::Loan;
use crate::put::Wait;
use crate::select::sealed::{AttachedRef, Sealed};
use crate::taken::ItemRef;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::{Debug, Formatter};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tarragon_transport::Place;
use tarragon_transport::heap::Audit;
use tarragon_transport::ring::cell::{INLINE_MAX, Item};

/// A queue of items of type `T` that any process of the node can use, as Python's `multiprocessing.Queue`.
///
/// First in, first out per producing thread; over all of them if it is [strict](Builder::strict). Handles are cheap to
/// clone and can be used by any thread. Any process or thread may be killed at any time: an item is in the queue, or
/// with the one who took it, or was never put; and nobody else waits for the dead.
///
/// ```
/// use tarragon_queue::{Error, Queue};
///
/// let queue = Queue::<(u32, String)>::builder().bounded(2).create()?;
/// queue.put((1, "one".to_owned()))?;
/// queue.put((2, "two".to_owned()))?;
/// assert!(matches!(queue.try_put((3, "three".to_owned())), Err(Error::Full { bound: 2 })));
/// queue.close();
/// assert_eq!(queue.get()?.0, 1);
/// assert_eq!(queue.get()?.0, 2);
/// assert!(matches!(queue.get(), Err(Error::Closed)));
/// # Ok::<(), Error>(())
/// ```
pub struct Queue<T> {
    attached: Arc<AttachedRef>,
    items: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { attached: Arc::clone(&self.attached), items: PhantomData }
    }
}

impl<T> Debug for Queue<T> {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let queue = &self.attached.0;
        let mut shown = out.debug_struct("Queue");
        shown.field("segment", &queue.segment_name().file).field("name", &queue.name);
        shown.field("bound", &queue.bound).field("is_strict", &queue.is_strict);
        shown.field("home", &queue.home).field("is_far", &queue.far.is_some()).finish()
    }
}

impl<T> Sealed for Queue<T> {
    fn attached(&self) -> &AttachedRef {
        &self.attached
    }
}

impl<T> Queue<T> {
    #[inline(always)]
    pub(crate) fn queue(&self) -> &Attached {
        &self.attached.0
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Queue<T> {
    /// An unbounded queue.
    ///
    /// # Errors
    /// `Segment` if shared memory is full or refused.
    pub fn new() -> Result<Self, Error> {
        Self::builder().create()
    }

    /// Says what a queue is to be.
    pub fn builder() -> Builder<T> {
        Builder::new()
    }

    pub(crate) fn of(attached: Attached) -> Self {
        Self { attached: Arc::new(AttachedRef(attached)), items: PhantomData }
    }

    /// Its name as a datum: what a task that puts to it says it writes.
    pub fn place(&self) -> Place {
        Place { uid: self.queue().segment_name().uid, bytes: Vec::new(), home: None }
    }

    /// What leads to this queue from another process.
    pub fn descriptor(&self) -> Descriptor {
        let queue = self.queue();
        let (segment, name) = (queue.segment_name().clone(), queue.name.clone());
        Descriptor { segment, type_hash: type_hash::<T>(), name, home: queue.home.clone() }
    }

    /// Puts an item at the end. Waits while the queue, or its memory, is full.
    ///
    /// Up to 112 bytes travel in the queue's cell; longer items are copied into memory that then moves with them. A put
    /// that runs while another process closes the queue may be refused or not; if not, its item can be taken: no get
    /// says `Closed` before.
    ///
    /// # Errors
    /// `Closed`, `Destroyed`, `TooLarge`, `Encode`; `Held` if the thread has too many items in its hands; `Segment`,
    /// `Damaged`.
    #[inline(always)]
    pub fn put(&self, item: T) -> Result<(), Error> {
        self.put_within(&item, Wait::Ever)
    }

    /// Like [`put`](Self::put), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `put`; `Full` or `Memory` if the time is over.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), Error> {
        self.put_within(&item, Wait::Until(Instant::now() + timeout))
    }

    /// Like [`put`](Self::put), but does not wait.
    ///
    /// # Errors
    /// As `put`; `Full` or `Memory` if there is no room.
    #[inline(always)]
    pub fn try_put(&self, item: T) -> Result<(), Error> {
        self.put_within(&item, Wait::Not)
    }

    /// Puts all items, in their order, and returns when all are in: for a queue on another node the fast way, since it
    /// waits for a response now and then and not for each. Waits while the queue, or its memory, is full.
    ///
    /// ```
    /// # use tarragon_queue::{Error, Queue};
    /// let queue = Queue::<u64>::new()?;
    /// queue.put_all(0..1000)?;
    /// assert_eq!(queue.len(), 1000);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `Partly`, which says how many are in, with an error of `put`.
    pub fn put_all(&self, items: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let mut puts = self.puts().map_err(|source| Error::Partly { put: 0, source: Box::new(source) })?;
        let done = items.into_iter().try_for_each(|item| puts.put(item)).and_then(|()| puts.flush());
        let partly = |source| Error::Partly { put: puts.count_in(), source: Box::new(source) };
        done.map_err(partly)
    }

    /// Puts whose items are in when they are [flushed](Puts::flush): to put many as they are made.
    ///
    /// # Errors
    /// `Departed`.
    pub fn puts(&self) -> Result<Puts<'_, T>, Error> {
        Puts::new(self)
    }

    #[inline(always)]
    fn put_within(&self, item: &T, wait: Wait) -> Result<(), Error> {
        let mut number = [0; NUMBER_MAX];
        let plain = plain_bytes(item, &mut number);
        if plain.is_some_and(|bytes| bytes.len() <= INLINE_MAX && self.queue().put_quick(bytes)) {
            return Ok(());
        }
        self.put_general(item, wait)
    }

    #[inline(never)]
    fn put_general(&self, item: &T, wait: Wait) -> Result<(), Error> {
        let queue = self.queue();
        if let Some(far) = &queue.far {
            return far.put(wait, |into| append(item, into));
        }
        match encode(item)? {
            Encoded::Borrowed(bytes) => queue.put_bytes(bytes, wait),
            Encoded::Small(bytes, len) => queue.put_bytes(&bytes[..len], wait),
            Encoded::Large(len) => {
                queue.put_large(&queue.segment.agent()?, len as u64, wait, |into| write_large(item, into))
            }
        }
    }

    /// Takes the item at the front. Waits while there is none: spins about as long as a wake-up takes, then sleeps.
    ///
    /// # Errors
    /// `Closed` if the queue is closed and drained, `Destroyed`; `Decode` if the bytes are no `T`, which is lost then;
    /// `Held`, `Segment`, `Damaged`.
    #[inline(always)]
    pub fn get(&self) -> Result<T, Error> {
        self.get_within(Wait::Ever)
    }

    /// Like [`get`](Self::get), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `get`; `Empty` if the time is over.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, Error> {
        self.get_within(Wait::Until(Instant::now() + timeout))
    }

    /// Like [`get`](Self::get), but does not wait.
    ///
    /// # Errors
    /// As `get`; `Empty` if there is none.
    #[inline(always)]
    pub fn try_get(&self) -> Result<T, Error> {
        self.get_within(Wait::Not)
    }

    /// Lets this handle and its clones take up to `items` (1 to 64; at first 1) small items in one response, if the
    /// queue is on another node: a `get` that follows the one before sooner than a round trip takes then finds its item
    /// here. On the queue's own node it does nothing.
    ///
    /// Items that wait here go back when 10 ms are over and the queue is empty or closed, or this rank dies: others
    /// take them, or this one later, who may have taken later ones of the same producer. So the order of a producer's
    /// items holds only as long as this handle takes them as fast as they come.
    pub fn fetch_ahead(&self, items: u32) {
        if let Some(far) = &self.queue().far {
            far.fetch_ahead(items);
        }
    }

    /// Takes the item at the front, to be read in place: no copy of a long one.
    ///
    /// # Errors
    /// As [`get`](Self::get), but `Decode`.
    #[inline(always)]
    pub fn get_ref(&self) -> Result<ItemRef<'_>, Error> {
        self.get_ref_within(Wait::Ever)
    }

    /// Like [`get_ref`](Self::get_ref), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `get_ref`; `Empty` if the time is over.
    pub fn get_ref_timeout(&self, timeout: Duration) -> Result<ItemRef<'_>, Error> {
        self.get_ref_within(Wait::Until(Instant::now() + timeout))
    }

    #[inline(always)]
    fn get_within(&self, wait: Wait) -> Result<T, Error> {
        let mut item = Item::default();
        if self.queue().take_quick(&mut item, wait.may_wait()) {
            return decode(item.bytes());
        }
        self.get_general(wait)
    }

    #[inline(never)]
    fn get_general(&self, wait: Wait) -> Result<T, Error> {
        if let Some(far) = &self.queue().far {
            // Bytes that are no item are lost, as at home.
            return far.get(wait, |item| Ok(decode(item)))?;
        }
        let mut item = ItemRef::none(self.queue());
        item.take(wait)?;
        decode(item.bytes())
    }

    #[inline(always)]
    fn get_ref_within(&self, wait: Wait) -> Result<ItemRef<'_>, Error> {
        let mut item = ItemRef::none(self.queue());
        if !self.queue().take_quick(&mut item.parcel.item, wait.may_wait()) {
            item.take(wait)?;
        }
        Ok(item)
    }

    /// Items in it, when it was looked at. From another node a round trip; 0 if the queue cannot be reached.
    pub fn len(&self) -> u64 {
        if let Some(far) = &self.queue().far {
            return far.look().map_or(0, |look| look.len);
        }
        let (put, taken) = self.queue().view().counts();
        put.saturating_sub(taken)
    }

    /// Whether it had no item when it was looked at.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it held as many items as it may when it was looked at. Never so without a bound.
    pub fn is_full(&self) -> bool {
        let queue = self.queue();
        if let Some(far) = &queue.far {
            return far.look().is_ok_and(|look| look.is_full);
        }
        queue.bound != 0 && queue.view().tickets().is_full(queue.bound)
    }

    /// Says that an item that was taken is dealt with. Any thread of the process that took it should say so; another
    /// process may, but if the one that took it is killed first, the item counts as abandoned until then.
    ///
    /// # Errors
    /// `NotTaken` if that was said of all items put; `Segment`.
    pub fn task_done(&self) -> Result<(), Error> {
        let queue = self.queue();
        queue.far.as_ref().map_or_else(|| queue.task_done(), Far::task_done)
    }

    /// Waits until [`task_done`](Self::task_done) was called for every item put. Items whose taker was killed before it
    /// could do so are not waited for: the killed process is noticed within 250 ms or so, and `join` tells how many
    /// items it had taken and not called done. Those of a process that drops its handles in good order are waited for.
    ///
    /// # Errors
    /// `Abandoned` if processes died with items in their hands, and no earlier `join` has told so: all items are over
    /// all the same. `Destroyed`.
    pub fn join(&self) -> Result<(), Error> {
        self.join_until(None)
    }

    /// Like [`join`](Self::join), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `join`; `Unfinished` if the time is over.
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.join_until(Some(Instant::now() + timeout))
    }

    fn join_until(&self, until: Option<Instant>) -> Result<(), Error> {
        let queue = self.queue();
        queue.far.as_ref().map_or_else(|| queue.join(until), |far| far.join(until))
    }

    /// Ends the puts, for all: they are errors from now on. What is in can be taken; then gets are errors too. A put
    /// that is under way just now is refused, or gets wait for it: after any get has said `Closed` no item appears.
    /// Idempotent. From another node a round trip; does nothing if the queue cannot be reached.
    pub fn close(&self) {
        self.end(CLOSED);
    }

    /// Whether it was closed or destroyed; from another node also whether it cannot be reached.
    pub fn is_closed(&self) -> bool {
        if let Some(far) = &self.queue().far {
            return !far.look().is_ok_and(|look| look.is_open);
        }
        self.queue().view().state() != OPEN
    }

    /// Ends it for all, with what is in it: every operation is an error from now on, and nobody can attach. Its memory
    /// goes when the last handle does.
    pub fn destroy(&self) {
        self.end(DESTROYED);
    }

    fn end(&self, state: u64) {
        match &self.queue().far {
            // One that cannot be reached has ended for this handle.
            Some(far) => drop(far.end(state == DESTROYED)),
            None => self.queue().end(state),
        }
    }

    /// Compares the blocks allocated with those that the queue has in use, and finishes what dead processes left, while
    /// nobody uses the queue. For tests and repair; a scan. On another node than the queue's: of what this handle uses
    /// there.
    pub fn audit(&self) -> Audit {
        let queue = self.queue();
        let view = queue.view();
        queue.segment.recover(&view);
        queue.segment.audit(&mut |visit| {
            let mut item = |item: &Item| {
                if item.tag == IN_BLOCK {
                    visit(item.word(0));
                }
            };
            view.control.chains.iter().for_each(|chain| chain.each_item(&view, &mut item));
            view.tickets().each_item(&mut item);
            view.control.chains.iter().for_each(|chain| chain.each_block(&view, visit));
            view.tickets().each_block(visit);
        })
    }
}

impl Queue<Vec<u8>> {
    /// Memory for an item of `len` bytes, to be written in place and then [sent](Loan::send). Waits while the queue's
    /// memory is full.
    ///
    /// # Errors
    /// `Closed`, `Destroyed`, `TooLarge`, `Held`, `Segment`.
    #[inline(always)]
    pub fn loan(&self, len: usize) -> Result<Loan<'_>, Error> {
        match Loan::small(self.queue(), len) {
            Some(loan) => Ok(loan),
            None => Loan::new(self.queue(), len as u64),
        }
    }
}
