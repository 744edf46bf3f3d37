//! How ranks find one another: alone (`solo`), as copies of a program that the first one starts (`spawn`), or with the
//! help of the launcher that started them (`launch`), which speaks PMIx (`pmix`) or PMI (`pmi`).

mod executable;
mod launch;
mod lifeline;
mod pmi;
mod pmix;
mod roster;
mod solo;
mod spawn;

pub use launch::Launched;
pub use pmix::PmixStatus;
pub(crate) use roster::Roster;
pub(crate) use spawn::Children;
pub use spawn::Spawn;

use std::time::{Duration, Instant};

use crate::fabric::Fabric;
use crate::rank::Rank;
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
    /// The processes that one launcher has started, this one among them: Open MPI's or MPICH's `mpirun`, `srun` with
    /// `--mpi=pmix` or `--mpi=pmi2`.
    Launched(Launched),
}

/// What a rank has when all have joined.
pub(crate) struct Joined {
    pub(crate) fabric: Fabric,
    pub(crate) roster: Roster,
    /// The processes it started.
    pub(crate) children: Children,
}

impl Bootstrap {
    /// The way in which this process was started: `Launched` if the environment says that a launcher did, otherwise
    /// `Solo`. A copy that [`Spawn`] started comes about by the call that started it, not by this one.
    pub fn from_environment() -> Bootstrap {
        if launch::is_launched() {
            Bootstrap::Launched(Launched::new())
        } else {
            Bootstrap::Solo { through_bytes: false }
        }
    }

    /// How long it may still take to join, since it began; a second at least.
    pub(crate) fn time_left(&self, begin: Instant) -> Duration {
        let all = match self {
            Bootstrap::Solo { .. } => Duration::ZERO,
            Bootstrap::Spawn(spawn) => spawn.time_to_join(),
            Bootstrap::Launched(launched) => launched.time_to_join(),
        };
        all.saturating_sub(begin.elapsed()).max(Duration::from_secs(1))
    }

    /// Returns when all ranks have joined.
    pub(crate) fn join(&self) -> Result<Joined, WorldError> {
        match self {
            Bootstrap::Solo { through_bytes } => Ok(Joined::solo(solo::fabric(*through_bytes))),
            Bootstrap::Spawn(spawn) => {
                let (fabric, children) = spawn::start(spawn)?;
                let roster = Roster::local(fabric.rank(), fabric.size());
                Ok(Joined { fabric, roster, children })
            }
            Bootstrap::Launched(launched) => {
                let (fabric, roster) = launch::join(launched)?;
                Ok(Joined { fabric, roster, children: Children::default() })
            }
        }
    }
}

impl Joined {
    /// A rank that is alone.
    pub(crate) fn solo(fabric: Fabric) -> Joined {
        Joined { fabric, roster: Roster::local(Rank(0), 1), children: Children::default() }
    }
}
