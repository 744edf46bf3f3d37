//! What ranks have of their nodes.

use super::{Ranks, message};
use crate::error::Error;
use crate::machine::{Gpu, Machine};
use crate::schedule::room_for_gpus;
use crate::task::record::Ref;
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
    /// Its share of the GPUs.
    pub(super) gpus: Vec<Gpu>,
    /// By rank how many it has.
    pub(super) all_gpus: Box<[u32]>,
}

/// What ranks have: of the cpus that a rank may use its share of those that others of its node may use, too; of GPUs
/// whole ones, so that some ranks have none where there are more ranks than GPUs. All ranks call it.
pub(super) fn look(world: &World) -> Result<Have, Error> {
    let failed = |error| Error::World(Box::new(error));
    let machine = Machine::look();
    let marks: Vec<&str> = machine.gpus.iter().map(|gpu| &*gpu.mark).collect();
    let own = message::bytes(&(&machine.cpus, marks));
    let all = world.all_gather(&own).map_err(failed)?;
    let read = |rank: Rank| postcard::from_bytes::<(Vec<u32>, Vec<String>)>(&all[rank.0 as usize]).ok();
    let on_node = world.node_ranks();
    let place = on_node.iter().position(|rank| *rank == world.rank());
    let (node, seen): (Vec<Vec<u32>>, Vec<Vec<String>>) =
        on_node.into_iter().map(|rank| read(rank).unwrap_or_default()).unzip();
    let dealt = place.map_or_else(Vec::new, |place| deal(&seen).swap_remove(place));
    let gpus: Vec<Gpu> = machine.gpus.iter().filter(|gpu| dealt.contains(&gpu.mark)).cloned().collect();
    let shared = |cpu: &u32| node.iter().filter(|cpus| cpus.contains(cpu)).count().max(1);
    let share: f64 = machine.cpus.iter().map(|cpu| 1.0 / shared(cpu) as f64).sum();
    let cpus = (share.round() as u32).clamp(1, machine.cpus_granted.max(1));
    let sharers = (node.len() as u32).max(1);
    let own = message::bytes(&(cpus, (machine.memory_bytes / u64::from(sharers), gpus.len() as u32)));
    let all = world.all_gather(&own).map_err(failed)?;
    let all = all.iter().filter_map(|bytes| postcard::from_bytes::<(u32, (u64, u32))>(bytes).ok());
    let (all_cpus, others): (Vec<u32>, Vec<(u64, u32)>) = all.unzip();
    let (memory, all_gpus): (Vec<u64>, Vec<u32>) = others.into_iter().unzip();
    let least_memory = memory.into_iter().min().unwrap_or(u64::MAX);
    let (all_cpus, all_gpus) = (all_cpus.into(), all_gpus.into());
    Ok(Have { cpus, is_whole: share > 0.99, sharers, least_memory, all_cpus, gpus, all_gpus })
}

impl Ranks {
    /// GPUs of this node that are for this rank.
    pub(crate) fn gpus(&self) -> Vec<Gpu> {
        self.have.get().map_or_else(Vec::new, |have| have.gpus.clone())
    }

    /// How many GPUs a rank has.
    pub(crate) fn gpus_of(&self, rank: u32) -> u32 {
        self.have.get().and_then(|have| have.all_gpus.get(rank as usize).copied()).unwrap_or(0)
    }

    /// Whether a rank has the GPUs that a task asks for.
    pub(super) fn has_gpus_for(&self, rank: u32, task: Ref) -> bool {
        let Some(need) = task.extra().and_then(|extra| extra.need.as_ref()) else { return true };
        let gpus = self.gpus_of(rank).max(task.shared().setup.assumed_gpus);
        room_for_gpus(gpus, need.gpus) >= need.job.map_or(1, |job| job.ranks)
    }
}

/// Deals out the GPUs that ranks of a node see, by their marks: each to one that sees it and has fewest so far, the
/// first of equals. What ranks have of a GPU that only they see is theirs, so they do not depend on the order.
fn deal(seen: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut dealt: Vec<Vec<String>> = vec![Vec::new(); seen.len()];
    let mut marks: Vec<&String> = seen.iter().flatten().collect();
    marks.sort_by_key(|mark| (seen.iter().filter(|marks| marks.contains(mark)).count(), mark.len(), *mark));
    marks.dedup();
    for mark in marks {
        let ranks = (0..seen.len()).filter(|rank| seen[*rank].contains(mark));
        if let Some(rank) = ranks.min_by_key(|rank| dealt[*rank].len()) {
            dealt[rank].push(mark.clone());
        }
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::deal;

    fn check(seen: &[&str], expected: &[&str]) {
        let marks = |list: &&str| list.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let dealt = deal(&seen.iter().map(marks).collect::<Vec<_>>());
        assert_eq!(dealt.iter().map(|marks| marks.join(" ")).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ranks_of_a_node_share_its_gpus() {
        check(&["0 1 2 3", "0 1 2 3"], &["0 2", "1 3"]);
        check(&["0 1", "0 1", "0 1"], &["0", "1", ""]);
        check(&["0", "1"], &["0", "1"]);
        check(&["", "0 1"], &["", "0 1"]);
        check(&[], &[]);
    }

    #[test]
    fn those_that_one_rank_sees_alone_are_its_own() {
        check(&["0 1 2", "2"], &["0 1", "2"]);
        check(&["9 10", "9 10 11"], &["9 10", "11"]);
    }
}
