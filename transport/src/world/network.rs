//! A world that has gathered in another way moves onto the network: all tell one another where they listen; and the
//! first thing that ranks of a network do together, by which they find out who cannot be reached.

use std::time::Duration;

use super::{World, WorldError};
use crate::bootstrap::{Joined, Roster};
use crate::fabric::{Fabric, FabricError, Listening, Way};

impl World {
    /// What rank 0 says, at all ranks, once each has heard every other one: UCX connects two ranks when the first of
    /// them has something for the other, so that before this nobody knows whether it can.
    pub(super) fn meet(&self, bytes: &[u8], timeout: Duration) -> Result<Vec<u8>, WorldError> {
        let (rank, why) = match self.collective.all_gather(&self.fabric, bytes, timeout) {
            Ok(mut heard) => return Ok(heard.swap_remove(0)),
            Err(WorldError::Timeout { rank, waited_ms }) => {
                (rank, format!("nothing has come from there in {waited_ms} ms"))
            }
            Err(WorldError::Fabric(FabricError::Unreachable { rank, why })) => (rank, why),
            Err(WorldError::Fabric(FabricError::PeerDead { rank })) => {
                (rank, "the connection is refused or broken, or its process has ended".to_owned())
            }
            Err(other) => return Err(other),
        };
        let host = self.host(rank).unwrap_or_default().to_owned();
        Err(WorldError::NoWay { rank, host, why })
    }

    /// This world, with its messages going through the network from now on.
    pub(super) fn over_network(self, patience: Duration) -> Result<World, WorldError> {
        let listening = Listening::on(self.size()).map_err(WorldError::from);
        let heard = self.all_gather(&Roster::told(&listening));
        let (listening, addresses) = self.roster.agree(listening, heard)?;
        let ucx = listening.connect(self.rank(), addresses, patience)?;
        // Nobody leaves the old fabric before all have read what was told.
        self.barrier()?;
        let World { fabric, children, roster, .. } = self;
        fabric.leave();
        let children = children.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(World::new(Joined { fabric: Fabric::new(Way::Ucx(Box::new(ucx))), roster, children }))
    }
}
