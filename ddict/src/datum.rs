//! The name of a key's value: plain data, equal in every process.

use crate::encoding::show;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names one key of one dictionary, whether or not it is there: what a task says it reads or writes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DictKey {
    dict: u128,
    key: Box<[u8]>,
}

impl DictKey {
    pub(crate) fn new(dict: u128, key: &[u8]) -> Self {
        Self { dict, key: Box::from(key) }
    }

    /// The dictionary's uid, see [`DDict::uid`](crate::DDict::uid).
    #[must_use]
    pub fn dict(&self) -> u128 {
        self.dict
    }

    /// The key's canonical bytes: equal keys have equal ones.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Display for DictKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}[{}]", self.dict, show(&self.key))
    }
}
