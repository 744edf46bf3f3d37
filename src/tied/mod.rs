//! Dictionaries, queues and templates tied to a batch: who reads through them comes after the submitted tasks that
//! write, and who calls them submits.
//!
//! The engine knows neither of them, and they do not know it. What they share is a name for a key ([`Place`]): a task
//! says that it writes `dict.key(7)`, and a read of key 7 through the tied handle first runs what this client has
//! submitted, and waits for the last task that writes the key.

mod dict;
mod queue;
mod templates;

pub use dict::BatchDict;
pub use queue::BatchQueue;
pub use templates::{BatchImport, Templates};

use crate::{Batch, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarragon_ddict::{Builder as DictBuilder, DDict, Key, Value};
use tarragon_queue::{Builder as QueueBuilder, Queue};

/// Why a tied handle could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TiedError {
    /// A task that was to write what is read did not succeed, or submitted tasks could not be started.
    #[error(transparent)]
    Batch(#[from] Error),
    /// The dictionary could not.
    #[error(transparent)]
    Dict(#[from] tarragon_ddict::Error),
    /// The queue could not.
    #[error(transparent)]
    Queue(#[from] tarragon_queue::Error),
}

/// What a [`Batch`] makes besides tasks: dictionaries and queues that are tied to it.
///
/// ```
/// use tarragon::prelude::*;
///
/// fn square(dict: DictDescriptor, i: u64) -> Result<(), DictError> {
///     let dict = dict.attach::<u64, u64>()?;
///     let value = dict.get(&i)?.expect("the task before wrote it");
///     dict.put(&(i + 1), value * value)
/// }
///
/// let batch = Batch::new()?;
/// let dict = batch.ddict::<u64, u64>()?;
/// dict.put(&0, 3)?;
/// for i in 0..4 {
///     let task = batch.function(square, (dict.descriptor(), i));
///     batch.submit(&task.reads(dict.key(&i)?).writes(dict.key(&(i + 1))?))?;
/// }
/// assert_eq!(dict.get(&4)?, Some(43_046_721));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Stores {
    /// A dictionary with the usual options, tied to this client of the batch.
    ///
    /// # Errors
    /// As [`tarragon_ddict::Builder::create`].
    fn ddict<K: Key, V: Value>(&self) -> Result<BatchDict<K, V>, TiedError> {
        self.ddict_with(&DDict::builder())
    }

    /// A dictionary with these options, tied to this client of the batch. Where the batch runs on ranks of several
    /// nodes it has a part on each; tasks attach by its descriptor wherever they run.
    ///
    /// # Errors
    /// As [`tarragon_ddict::Builder::create_on`].
    fn ddict_with<K: Key, V: Value>(&self, builder: &DictBuilder<K, V>)
    -> Result<BatchDict<K, V>, TiedError>;

    /// A dictionary that is there, tied to this client of the batch.
    fn tie<K, V>(&self, dict: DDict<K, V>) -> BatchDict<K, V>;

    /// A queue with the usual options, tied to this client of the batch.
    ///
    /// # Errors
    /// As [`tarragon_queue::Builder::create`].
    fn queue<T: Serialize + DeserializeOwned + 'static>(&self) -> Result<BatchQueue<T>, TiedError> {
        self.queue_with(Queue::builder())
    }

    /// A queue with these options, tied to this client of the batch. Where the batch runs on ranks of several nodes its
    /// memory lies on this one, and tasks attach by its descriptor wherever they run.
    ///
    /// # Errors
    /// As [`tarragon_queue::Builder::create_on`].
    fn queue_with<T: Serialize + DeserializeOwned + 'static>(
        &self,
        builder: QueueBuilder<T>,
    ) -> Result<BatchQueue<T>, TiedError>;
}

impl Stores for Batch {
    fn ddict_with<K: Key, V: Value>(
        &self,
        builder: &DictBuilder<K, V>,
    ) -> Result<BatchDict<K, V>, TiedError> {
        let dict = match self.world() {
            Some(world) => builder.create_on(world)?,
            None => builder.create()?,
        };
        Ok(self.tie(dict))
    }

    fn tie<K, V>(&self, dict: DDict<K, V>) -> BatchDict<K, V> {
        BatchDict::new(dict, self.submitted())
    }

    fn queue_with<T: Serialize + DeserializeOwned + 'static>(
        &self,
        builder: QueueBuilder<T>,
    ) -> Result<BatchQueue<T>, TiedError> {
        let queue = match self.world() {
            Some(world) => builder.create_on(world)?,
            None => builder.create()?,
        };
        Ok(BatchQueue::new(queue, self.submitted()))
    }
}
