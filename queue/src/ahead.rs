//! Many puts, of which the last one is waited for.

use crate::encoding::append;
use crate::error::Error;
use crate::far::{Far, Sender};
use crate::queue::Queue;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::{Debug, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Puts to a queue that are waited for together, made by [`Queue::puts`].
///
/// To a queue of another node the items leave at once but are waited for only by [`flush`](Self::flush): many are on
/// their way together, which costs a small part of what as many [`put`](Queue::put)s do. On the queue's own node each
/// put is one, and `flush` has nothing to do. Items get in in their order; if one is refused none of the later ones
/// gets in. What the same thread puts by other ways before a flush may overtake them, and a `close` may refuse them.
///
/// Dropping flushes, without a word of what went wrong; not while the thread panics: what is on its way then may get in
/// or not.
///
/// ```
/// # use tarragon_queue::{Error, Queue};
/// let queue = Queue::<String>::new()?;
/// let mut puts = queue.puts()?;
/// for word in "some words".split(' ') {
///     puts.put(word.to_owned())?;
/// }
/// puts.flush()?;
/// assert_eq!((puts.count_in(), queue.len()), (2, 2));
/// # Ok::<(), Error>(())
/// ```
pub struct Puts<'q, T: Serialize + DeserializeOwned + 'static> {
    queue: &'q Queue<T>,
    ahead: Option<Ahead<'q>>,
    /// Items that were put, one way or the other.
    count: u64,
}

struct Ahead<'q> {
    far: &'q Far,
    sender: Arc<Sender>,
}

impl<'q, T: Serialize + DeserializeOwned + 'static> Puts<'q, T> {
    pub(crate) fn new(queue: &'q Queue<T>) -> Result<Self, Error> {
        let ahead = match &queue.queue().far {
            Some(far) => Some(Ahead { far, sender: far.sender()? }),
            None => None,
        };
        Ok(Puts { queue, ahead, count: 0 })
    }

    /// Puts an item, which is in after the next flush. Waits while the queue, or its memory, is full; from another node
    /// while too many items are on their way.
    ///
    /// # Errors
    /// As [`Queue::put`], of this item or an earlier one: [`count_in`](Self::count_in) says how many are in.
    pub fn put(&mut self, item: T) -> Result<(), Error> {
        match &self.ahead {
            Some(Ahead { far, sender }) => far.send_ahead(sender, |into| append(&item, into))?,
            None => self.queue.put(item)?,
        }
        self.count += 1;
        Ok(())
    }

    /// Returns when all items are in.
    ///
    /// # Errors
    /// As [`Queue::put`]; `count_in` says how many are in.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.flush_until(None)
    }

    /// Like [`flush`](Self::flush), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As `flush`; `OnTheirWay` if the time is over: they still get in, and can be flushed again.
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.flush_until(Some(Instant::now() + timeout))
    }

    fn flush_until(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let Some(Ahead { far, sender }) = &self.ahead else { return Ok(()) };
        if far.flush(sender, until)? {
            return Ok(());
        }
        Err(Error::OnTheirWay { items: self.count - far.count_in(sender).min(self.count) })
    }

    /// How many of the items are known to be in: so many, from the first one on. After an error exactly these are, but
    /// if the queue's rank cannot be reached: then more may be.
    pub fn count_in(&self) -> u64 {
        self.ahead.as_ref().map_or(self.count, |ahead| ahead.far.count_in(&ahead.sender))
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Debug for Puts<'_, T> {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let (queue, count) = (self.queue, self.count);
        out.debug_struct("Puts").field("queue", queue).field("count", &count).finish_non_exhaustive()
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Drop for Puts<'_, T> {
    fn drop(&mut self) {
        if self.ahead.is_some() && !std::thread::panicking() {
            // Who wants to know flushes.
            let _ = self.flush();
        }
        if let Some(Ahead { far, sender }) = &self.ahead {
            far.end_sender(sender);
        }
    }
}
