//! Under the model checker there are no clients in other processes: what the rest of the engine needs to know of them,
//! of which there is none.

#[path = "error.rs"]
mod error;
#[path = "names.rs"]
mod names;

use crate::batch::Batch;
use crate::error::{Error, Mistake};
use crate::outputs::Portion;
use crate::plan::Plan;
use crate::run::Run;
use crate::shared::Shared;
use crate::task::record::Ref;
pub use error::AttachError;
pub(crate) use names::{DataName, NameLog};
use std::io;
use std::sync::Arc;

/// Names a batch.
#[derive(Clone)]
pub enum BatchDescriptor {}

impl BatchDescriptor {
    /// Nobody is there.
    pub fn attach(&self) -> Result<Batch, Error> {
        match *self {}
    }
}

pub(crate) enum Connection {}
pub(crate) enum Turn {}
pub(crate) enum Sent {}
pub(crate) enum Listener {}

impl Connection {
    pub(crate) fn turn(self: &Arc<Self>) -> Turn {
        match **self {}
    }

    pub(crate) fn names(&self) -> &NameLog {
        match *self {}
    }

    pub(crate) fn descriptor(&self) -> &BatchDescriptor {
        match *self {}
    }

    pub(crate) fn workers(&self) -> usize {
        match *self {}
    }

    pub(crate) fn check_tasks(&self, _: impl Iterator<Item = Ref>, _: &mut Vec<Mistake>) {
        match *self {}
    }

    pub(crate) fn forget(&self, _: u32) {
        match *self {}
    }

    pub(crate) fn close(&self) {
        match *self {}
    }

    pub(crate) fn hang_up(&self) {
        match *self {}
    }
}

impl Turn {
    pub(crate) fn offer(self, _: &Arc<Plan>) -> Result<(), Error> {
        match self {}
    }
}

impl Sent {
    pub(crate) fn begin(&self, _: &Arc<Run>) {
        match *self {}
    }

    pub(crate) fn cancel(&self, _: Option<Ref>) {
        match *self {}
    }

    pub(crate) fn read(&self, _: Ref, _: Portion) -> Option<io::Result<Vec<u8>>> {
        match *self {}
    }

    pub(crate) fn why_waiting(&self) -> String {
        match *self {}
    }
}

impl Listener {
    pub(crate) fn open(_: &Arc<Shared>) -> Result<Arc<Self>, Error> {
        unreachable!("no model asks for a descriptor")
    }

    pub(crate) fn descriptor(&self) -> &BatchDescriptor {
        match *self {}
    }

    pub(crate) fn close(&self) {
        match *self {}
    }

    pub(crate) fn part(&self, _: &str, _: bool) {
        match *self {}
    }
}
