//! What a client of a batch has submitted, as seen from the data that it writes.

use super::{IntoDatum, SpaceRef};
use crate::background::Client;
use crate::error::Error;
use crate::shared::Shared;
use crate::task::handle;
use std::sync::Arc;

/// What one client of a batch has submitted: lets a reader of data come after those who write them. For handles of
/// data that lie elsewhere; a file has [`DataFile`](super::DataFile).
///
/// Cheap to clone. Tasks of lists that were compiled explicitly are not waited for: they have handles for that.
#[derive(Clone)]
pub struct Submitted {
    shared: Arc<Shared>,
    client: Arc<Client>,
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitted").finish_non_exhaustive()
    }
}

impl Submitted {
    pub(crate) fn new(shared: &Arc<Shared>, client: &Arc<Client>) -> Self {
        Self { shared: Arc::clone(shared), client: Arc::clone(client) }
    }

    /// Starts what is queued, and does not wait for it.
    ///
    /// # Errors
    /// What is wrong with the queued tasks, as [`Batch::fence`](crate::Batch::fence) tells it.
    pub fn start(&self) -> Result<(), Error> {
        self.client.flush()
    }

    /// Starts what is queued, and waits for the task that writes the datum last, if there is one.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`Error::Task`] if that task did not succeed. A name that is no datum is none.
    pub fn written(&self, datum: impl IntoDatum) -> Result<(), Error> {
        self.client.flush()?;
        let Ok(id) = datum.into_datum(&SpaceRef(&self.shared)) else { return Ok(()) };
        match self.client.writer_of(&self.shared, id.id) {
            Some(task) => handle::wait(task.0).map_err(Error::Task),
            None => Ok(()),
        }
    }
}
