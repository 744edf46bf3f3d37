//! Which task of an earlier run is this one? A hash over everything that makes it what it is.
//!
//! What goes in (name, code path or argv, environment, arguments, accesses) is the caller's choice; this file only
//! makes sure that two different sequences of fields never feed the same bytes to the hash.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// A task, the same in every run of one program (XXH3, 128 bits).
///
/// Two tasks of one list may have equal identities (the same command twice); [`Identity::nth`] tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity(pub(crate) u128);

impl Identity {
    /// The identity of the `n`-th task, counted from 0 in list order, among those that hash to this one. The first
    /// keeps the identity itself.
    pub(crate) fn nth(self, n: u32) -> Identity {
        match n {
            0 => self,
            n => IdentityHasher::new("nth").wide("of", self.0).number("n", u64::from(n)).finish(),
        }
    }

    #[cfg(test)]
    /// What stands for the result of this task, or for element `element` of it, among the arguments of another one,
    /// whose identity has to be known before this task has run.
    pub(crate) fn of_result(self, element: Option<u32>) -> Identity {
        let mut hasher = IdentityHasher::new("result");
        hasher.wide("of", self.0);
        if let Some(element) = element {
            hasher.number("element", u64::from(element));
        }
        hasher.finish()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// Sixteen bytes, because a number of 128 bits as a varint would need up to nineteen, one at a time.
impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_le_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(|bytes| Identity(u128::from_le_bytes(bytes)))
    }
}

/// Builds an [`Identity`] from tagged fields. Their order counts: a caller gives sets sorted.
///
/// Each field is written as a byte for its type, the length of its name, the name, the length of the value, the value,
/// so no two sequences of fields read the same.
pub(crate) struct IdentityHasher {
    hasher: Xxh3,
}

impl IdentityHasher {
    /// Starts the identity of a task of this kind, such as `"process"` or `"function"`.
    pub(crate) fn new(kind: &str) -> IdentityHasher {
        let mut new = IdentityHasher { hasher: Xxh3::new() };
        new.field(b'K', "kind", kind.as_bytes());
        new
    }

    /// Adds bytes of any length: a name, an argument, a path.
    pub(crate) fn text(&mut self, field: &str, value: &[u8]) -> &mut IdentityHasher {
        self.field(b'T', field, value);
        self
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, field: &str, value: u64) -> &mut IdentityHasher {
        self.field(b'N', field, &value.to_le_bytes());
        self
    }

    /// Adds another identity.
    pub(crate) fn identity(&mut self, field: &str, value: Identity) -> &mut IdentityHasher {
        self.wide(field, value.0)
    }

    /// The identity of the fields so far.
    pub(crate) fn finish(&self) -> Identity {
        Identity(self.hasher.digest128())
    }

    fn wide(&mut self, field: &str, value: u128) -> &mut IdentityHasher {
        self.field(b'W', field, &value.to_le_bytes());
        self
    }

    fn field(&mut self, tag: u8, name: &str, value: &[u8]) {
        self.hasher.update(&[tag]);
        self.hasher.update(&(name.len() as u64).to_le_bytes());
        self.hasher.update(name.as_bytes());
        self.hasher.update(&(value.len() as u64).to_le_bytes());
        self.hasher.update(value);
    }
}
