//! How ranks find one another: alone (`solo`), or as copies of a program that the first one starts (`spawn`).

mod executable;
mod lifeline;
mod solo;
mod spawn;

pub use spawn::Spawn;
pub(crate) use spawn::{Children, start};

use crate::fabric::Fabric;
use crate::world::WorldError;

/// The ways a world comes about.
#[derive(Clone, Debug)]
pub enum Bootstrap {
    /// This process alone.
    Solo {
        /// Whether all that it sends to itself is encoded and decoded, as if it came from another process.
        through_bytes: bool,
    },
    /// This program and copies of it on this node.
    Spawn(Spawn),
}

impl Bootstrap {
    /// This rank's fabric, with all ranks joined, and the processes it started.
    pub(crate) fn join(&self) -> Result<(Fabric, Children), WorldError> {
        match self {
            Bootstrap::Solo { through_bytes } => Ok((solo::fabric(*through_bytes), Children::default())),
            Bootstrap::Spawn(spawn) => start(spawn),
        }
    }
}
