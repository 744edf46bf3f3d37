//! A file as users look at it through a batch: what submitted tasks write to it comes first.

use super::{BadDatum, DataId, IntoDatum, SpaceRef, Submitted};
use crate::background::Client;
use crate::error::Error;
use crate::shared::Shared;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file as a datum. Can be declared as read or written, and read: then tasks that this client of the batch has
/// submitted, and that write it, run first.
///
/// Tasks of lists that were compiled explicitly are not waited for: they have handles for that.
#[derive(Clone)]
pub struct DataFile {
    id: DataId,
    path: PathBuf,
    submitted: Submitted,
}

impl std::fmt::Debug for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DataFile").field(&self.path).finish()
    }
}

impl DataFile {
    pub(crate) fn new(id: DataId, path: &Path, shared: &Arc<Shared>, client: &Arc<Client>) -> Self {
        let path = shared.cwd.join(path);
        Self { id, path, submitted: Submitted::new(shared, client) }
    }

    /// Its datum.
    pub fn id(&self) -> DataId {
        self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs what this client has submitted, and waits for the task that writes the file last.
    ///
    /// # Errors
    /// [`Error::Task`] if that task did not succeed.
    pub fn wait(&self) -> Result<(), Error> {
        self.submitted.written(self.id)
    }

    /// Opens the file for reading, once it is [written](Self::wait).
    ///
    /// # Errors
    /// As [`wait`](Self::wait); [`Error::File`] if it cannot be opened.
    pub fn open(&self) -> Result<fs::File, Error> {
        self.wait()?;
        fs::File::open(&self.path).map_err(|e| self.error(e))
    }

    /// What is in the file, once it is [written](Self::wait).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        self.wait()?;
        fs::read(&self.path).map_err(|e| self.error(e))
    }

    /// The text in the file, once it is [written](Self::wait).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read_to_string(&self) -> Result<String, Error> {
        self.wait()?;
        fs::read_to_string(&self.path).map_err(|e| self.error(e))
    }

    fn error(&self, source: std::io::Error) -> Error {
        Error::File { verb: "read", path: self.path.clone(), source }
    }
}

impl IntoDatum for &DataFile {
    fn into_datum(self, _: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        Ok(self.id)
    }
}

impl IntoDatum for DataFile {
    fn into_datum(self, _: &SpaceRef<'_>) -> Result<DataId, BadDatum> {
        Ok(self.id)
    }
}
