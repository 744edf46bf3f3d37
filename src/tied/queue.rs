//! A queue whose gets start the submitted tasks that put to it.

use super::TiedError;
use crate::Submitted;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use std::time::Duration;
use tarragon_queue::Queue;

/// A [`Queue`] tied to a client of a batch, made by [`Stores::queue`](crate::Stores::queue).
///
/// Its gets start what the client has submitted, so that a task that puts is not waited for in vain; everything else
/// is the queue's.
pub struct BatchQueue<T> {
    queue: Queue<T>,
    submitted: Submitted,
}

impl<T> Deref for BatchQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T> std::fmt::Debug for BatchQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchQueue").finish_non_exhaustive()
    }
}

impl<T> BatchQueue<T> {
    pub(super) fn new(queue: Queue<T>, submitted: Submitted) -> Self {
        Self { queue, submitted }
    }
}

impl<T: Serialize + DeserializeOwned + 'static> BatchQueue<T> {
    /// [`Queue::get`], once what was submitted is started.
    ///
    /// # Errors
    /// As that; [`TiedError::Batch`] if what is queued cannot run.
    pub fn get(&self) -> Result<T, TiedError> {
        self.submitted.start()?;
        Ok(self.queue.get()?)
    }

    /// [`Queue::get_timeout`], once what was submitted is started.
    ///
    /// # Errors
    /// As that; [`TiedError::Batch`] if what is queued cannot run.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, TiedError> {
        self.submitted.start()?;
        Ok(self.queue.get_timeout(timeout)?)
    }
}
