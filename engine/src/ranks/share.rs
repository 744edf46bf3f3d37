//! What ranks have of their nodes.

use super::message;
use crate::error::Error;
use crate::machine::Machine;
use tarragon_transport::{Rank, World};

/// What this rank has of its node, and what every rank has at least.
#[derive(Clone, Debug)]
pub(super) struct Have {
    /// Its share of the cpus.
    pub(super) cpus: u32,
    /// That is at least a whole one.
    pub(super) is_whole: bool,
    /// Ranks of the node.
    pub(super) sharers: u32,
    pub(super) least_memory: u64,
    /// By rank its share of the cpus.
    pub(super) all_cpus: Box<[u32]>,
}

/// What ranks have: of the cpus that a rank may use its share of those that others of its node may use, too. All ranks
/// call it.
pub(super) fn look(world: &World) -> Result<Have, Error> {
    let failed = |error| Error::World(Box::new(error));
    let machine = Machine::look();
    let own = message::bytes(&(&machine.cpus, machine.cpus_granted));
    let all = world.all_gather(&own).map_err(failed)?;
    let read = |rank: Rank| postcard::from_bytes::<(Vec<u32>, u32)>(&all[rank.0 as usize]).ok();
    let node: Vec<(Vec<u32>, u32)> = world.node_ranks().into_iter().filter_map(read).collect();
    let shared = |cpu: &u32| node.iter().filter(|(cpus, _)| cpus.contains(cpu)).count().max(1);
    let share: f64 = machine.cpus.iter().map(|cpu| 1.0 / shared(cpu) as f64).sum();
    let cpus = (share.round() as u32).clamp(1, machine.cpus_granted.max(1));
    let sharers = (node.len() as u32).max(1);
    let own = message::bytes(&(cpus, machine.memory_bytes / u64::from(sharers)));
    let all = world.all_gather(&own).map_err(failed)?;
    let all = all.iter().filter_map(|bytes| postcard::from_bytes::<(u32, u64)>(bytes).ok());
    let (all_cpus, memory): (Vec<u32>, Vec<u64>) = all.unzip();
    let least_memory = memory.into_iter().min().unwrap_or(u64::MAX);
    Ok(Have { cpus, is_whole: share > 0.99, sharers, least_memory, all_cpus: all_cpus.into() })
}
