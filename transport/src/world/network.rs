//! A world that has gathered in another way moves onto the network: all tell one another where they listen.

use std::time::Duration;

use super::{World, WorldError};
use crate::bootstrap::Joined;
use crate::fabric::{Fabric, FabricError, Listening, Ucx, Way};
use crate::rank::Rank;

/// What precedes an address, and what precedes the reason why there is none.
const LISTENS: u8 = 1;
const FAILED: u8 = 0;

/// The network's fabric of rank `rank` of `size`; `exchange` gives each rank's bytes to all, in the order of ranks, and
/// returns when all have them.
///
/// # Errors
/// `NoLibrary`, `Network` if this rank has no network; `PeerNetwork` if another has none; those of `exchange`.
pub(crate) fn connect(
    rank: Rank,
    size: u32,
    patience: Duration,
    exchange: impl FnOnce(&[u8]) -> Result<Vec<Vec<u8>>, WorldError>,
) -> Result<Ucx, WorldError> {
    let listening = Listening::new(size).and_then(|it| it.address().map(|address| (it, address)));
    let told = match &listening {
        Ok((_, address)) => [&[LISTENS], &address[..]].concat(),
        Err(error) => [&[FAILED], error.to_string().as_bytes()].concat(),
    };
    // The others hear also of a failure, rather than wait.
    let heard = exchange(&told)?;
    let (listening, _) = listening?;
    let addresses = (0..).map(Rank).zip(heard).map(|(rank, told)| match told.split_first() {
        Some((&LISTENS, address)) => Ok(address.to_vec()),
        other => {
            let why = other.map_or_else(String::new, |(_, why)| String::from_utf8_lossy(why).into_owned());
            Err(FabricError::PeerNetwork { rank, why })
        }
    });
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    Ok(listening.connect(rank, addresses, patience)?)
}

impl World {
    /// This world, with its messages going through the network from now on.
    pub(super) fn over_network(self, patience: Duration) -> Result<World, WorldError> {
        let ucx = connect(self.rank(), self.size(), patience, |told| self.all_gather(told))?;
        // Nobody leaves the old fabric before all have read what was told.
        self.barrier()?;
        let World { attendants, fabric, children, roster, .. } = self;
        drop(attendants);
        fabric.leave();
        let children = children.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(World::new(Joined { fabric: Fabric::new(Way::Ucx(Box::new(ucx))), roster, children }))
    }
}
