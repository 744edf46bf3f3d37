//! A world that has gathered in another way moves onto the network: all tell one another where they listen.

use std::time::Duration;

use super::{World, WorldError};
use crate::bootstrap::{Joined, Roster};
use crate::fabric::{Fabric, Listening, Way};

impl World {
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
