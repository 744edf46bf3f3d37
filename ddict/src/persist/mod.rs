//! Dictionaries in files: a directory holds what a dictionary was at several times, each under a number.
//!
//! # Files
//! | file | what |
//! |---|---|
//! | `id-N` | the *list* of number N: header, then each key with its value or the value's place, then a checksum |
//! | `values-N` | values first seen when N was persisted: header, then their bytes, each at a multiple of 64 |
//! | `new-…` | being written; what a killed process left so goes with the next one that takes the lock |
//! | `lock` | held by who persists or removes; the kernel drops it when the process dies |
//!
//! A list names values by file, place, length and a hash of 128 bits (XXH3), so a value is written only if the newest
//! list does not have one of its hash: persisting again writes what changed, and the keys. Values of up to 64 bytes lie
//! in the list itself. Nothing that has a name is ever changed.
//!
//! # Why nothing is lost
//! Both files are written under names that start with `new-` and fsynced; then the values are renamed, and the
//! directory fsynced; then the list, and the directory again. The list's rename is the moment from which N exists.
//! Killed before, at whatever instruction, there is no N and all older numbers are as they were; a `values` file that
//! no list names is removed by the next persist. Every header, list and value is checked when it is read: what is
//! torn or damaged is refused by the name of its file.
//!
//! A number is removed in the opposite order: its list, then the directory is fsynced, then the values that no other
//! list names. Younger lists may name values of a number that is gone; while one of them cannot be read, all values
//! older than it stay. Killed in between, there is no N, and the next one that takes the lock does the rest.
//!
//! # Why every value is hashed each time
//! Nothing in shared memory says for sure that a value is the one that was persisted before. The version of an entry
//! has 32 bits, which a key that is updated flat out goes through in a minute or so; a page that is made anew begins
//! at version 0 again; and a block is used again for the next value, at the same place and of the same length. A list
//! that said so could thus keep an old value silently. The hash says what the bytes are, also across restores.

mod folder;
mod format;
mod open;
mod restore;
mod write;

pub use folder::{persisted_ids, remove_persisted};
pub use open::{Persisted, PersistedItems};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a persisted dictionary in its directory, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PersistId(pub u64);

impl fmt::Display for PersistId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
