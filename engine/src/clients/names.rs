//! Data by name, for another process: what a client's batch calls its data by number it names once to the primary.

use crate::data::DataId;
use crate::shared::Shared;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tarragon_transport::Place;

/// What a datum is called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum DataName {
    /// A file or directory, absolute and in normal form.
    Path(Vec<u8>),
    Named(String),
    Key(String, u64),
    Bytes(String, Vec<u8>),
    /// Something in a segment: its unique number, and what in it.
    Place(u128, Vec<u8>),
}

impl DataName {
    /// The datum of this name in a batch.
    pub(super) fn datum(self, shared: &Shared) -> DataId {
        let space = &shared.space;
        match self {
            DataName::Path(bytes) => {
                space.file(Path::new(OsStr::from_bytes(&bytes))).unwrap_or(space.named(""))
            }
            DataName::Named(name) => space.named(&name),
            DataName::Key(namespace, key) => space.keys(&namespace).at(key),
            DataName::Bytes(namespace, key) => space.keys(&namespace).bytes(key),
            DataName::Place(uid, bytes) => space.place(&Place { uid, bytes, home: None }),
        }
    }
}

/// What data are called that are no files, by number: kept by the batch of a client, where numbers must become names
/// again. A name stays as long as the batch, as its number does.
#[derive(Clone, Default)]
pub(crate) struct NameLog(Arc<Mutex<HashMap<u32, DataName>>>);

impl NameLog {
    pub(crate) fn add(&self, id: u32, name: DataName) {
        self.0.lock().insert(id, name);
    }

    pub(crate) fn name_of(&self, id: u32) -> Option<DataName> {
        self.0.lock().get(&id).cloned()
    }
}
