//! On which ranks a list may run, and which of its tasks must run where.

use super::{Gather, each_input};
use crate::check::gpus_there;
use crate::compile::placement::{ANY, Layout};
use crate::error::Mistake;
use crate::schedule::{UNITS, room_for_gpus};
use crate::task::record::Ref;
use std::collections::HashMap;

impl Gather<'_> {
    /// On which ranks the list may run, and what of it must run where.
    pub(super) fn layout(&mut self, externals: &[(u32, Ref)]) -> Layout {
        let shared = self.shared;
        if shared.executor.connection().is_some() {
            // Where it runs is decided there.
            return Layout::local();
        }
        let ranks = shared.ranks.as_ref().filter(|ranks| ranks.is_home() && !shared.executor.is_serial());
        let (ranks, live) = ranks.map_or((1, vec![0]), |ranks| (ranks.size(), ranks.live()));
        let ranks = u16::try_from(ranks).unwrap_or(ANY);
        let mut gangs = if self.has_gangs { self.gangs() } else { HashMap::new() };
        let jobs = if self.has_jobs && ranks > 1 { self.jobs(&live) } else { HashMap::new() };
        let least = shared.ranks.as_ref().map(|ranks| ranks.least());
        let assumed = shared.setup.assumed_cpus;
        // A resource of the user's own is there once; of cpus and memory every rank must have enough.
        let everywhere = |task: Ref| match (task.extra().and_then(|extra| extra.need.as_ref()), least) {
            (Some(need), Some((cpus, memory, _))) => {
                need.named.is_empty() && need.all_cpus() <= cpus.max(assumed) && need.memory <= memory
            }
            _ => true,
        };
        if ranks == 1 && !self.has_ranks {
            self.expect_gpus(&[]);
            return Layout::local();
        }
        let mut dealer = Dealer { gpus: self.gpus_of_ranks(&live), dealt: vec![0.0; live.len()] };
        // What stands for earlier submissions is known to end here.
        let gates = self.gates.len();
        let mut fixed = vec![0u16; gates];
        for (index, task) in (gates as u32..).zip(self.tasks()) {
            let has_room = || jobs.contains_key(&index) || everywhere(task);
            let is_bound = task.head().code.travel.is_none() || !has_room();
            fixed.push(if is_bound || ranks == 1 { 0 } else { dealer.rank_for(task) });
        }
        for (index, task) in (gates..).zip(self.tasks()) {
            each_input(task, &mut |input| {
                // A value that serde cannot write stays, and what a task of another list has written is read from here.
                let producer = self.position(input.task);
                match input.output() {
                    Some(_) if producer.is_some() => (),
                    None if input.task.value_travels() => (),
                    _ => {
                        fixed[index] = 0;
                        if let Some(producer) = producer {
                            fixed[producer as usize] = 0;
                        }
                    }
                }
            });
        }
        if self.has_ranks {
            self.fix_ranks(ranks, &mut fixed);
        }
        self.expect_gpus(&fixed[gates..]);
        let (near, nodes) = if self.has_near && ranks > 1 { self.near(ranks) } else { Default::default() };
        let outside = if ranks > 1 { self.outside(externals) } else { Vec::new() };
        gangs.extend(jobs);
        let layout = Layout {
            ranks,
            fixed,
            near,
            nodes,
            gangs,
            outside,
            live: Vec::new(),
            keeps_whole: shared.timing,
        };
        layout.without_lost(live)
    }

    /// Each live rank, and how many GPUs it has for this batch.
    fn gpus_of_ranks(&self, live: &[u16]) -> Vec<(u16, u32)> {
        let own = self.shared.ranks.as_ref().map_or(0, |ranks| ranks.rank());
        let assumed = self.shared.setup.assumed_gpus;
        let of = |rank: u32| match &self.shared.ranks {
            Some(ranks) if rank != own => ranks.gpus_of(rank).max(assumed),
            _ => self.shared.totals.gpus,
        };
        live.iter().map(|rank| (*rank, of(u32::from(*rank)))).collect()
    }

    /// Tasks that hold GPUs are where there are enough.
    fn expect_gpus(&mut self, fixed: &[u16]) {
        let live = self.shared.ranks.as_ref().map_or_else(|| vec![0], |ranks| ranks.live());
        let gpus = self.gpus_of_ranks(&live);
        let least = gpus.iter().map(|(_, gpus)| *gpus).min().unwrap_or(0);
        let mut mistakes = Vec::new();
        for (index, task) in (0..).zip(self.tasks()) {
            let Some(extra) = task.extra() else { continue };
            let Some(need) = extra.need.as_ref().filter(|need| need.gpus > 0) else { continue };
            let rank = fixed.get(index as usize).copied().unwrap_or(0);
            let there = match gpus.iter().find(|(it, _)| *it == rank) {
                Some((_, there)) if extra.gang <= 1 && rank != ANY => *there,
                _ => least,
            };
            // What no rank has was told before.
            let is_somewhere = gpus.iter().any(|(_, gpus)| room_for_gpus(*gpus, need.gpus) > 0);
            if need.job.is_none() && is_somewhere && room_for_gpus(there, need.gpus) == 0 {
                let place = match extra.gang {
                    2.. => "on the rank that has fewest, and members of a gang may be on any".to_string(),
                    _ => format!("on rank {rank}, where it must run"),
                };
                mistakes.push(Mistake::NeverEnough {
                    task: index,
                    name: task.name(),
                    resource: "gpus".to_string(),
                    asked: (need.gpus as f64 / UNITS).to_string(),
                    there: format!("{} {place}", gpus_there(self.shared, there)),
                });
            }
        }
        self.mistakes.append(&mut mistakes);
    }

    /// By task how many ranks run it at once, of those that more than one does.
    #[cold]
    fn gangs(&mut self) -> HashMap<u32, u16> {
        let (mut gangs, mut mistakes) = (HashMap::new(), Vec::new());
        let (rank, all) = match &self.shared.ranks {
            Some(ranks) if !self.shared.executor.is_serial() => (ranks.rank(), ranks.live()),
            _ => (0, vec![0]),
        };
        for (task, record) in (self.gates.len() as u32..).zip(self.tasks()) {
            let Some(extra) = record.extra().filter(|extra| extra.gang > 1) else { continue };
            let (name, asked) = (record.name(), extra.gang);
            // Home may place it anywhere, a guest on itself.
            let from = extra.rank.filter(|_| rank == 0).unwrap_or(rank);
            let there = all.iter().filter(|rank| u32::from(**rank) >= from).count() as u32;
            if record.head().code.travel.is_none() || record.head().code.command.is_some() {
                let what = if record.head().code.command.is_some() { "a process" } else { "a closure" };
                mistakes.push(Mistake::NoGang { task, name, asked, what });
            } else if asked > there {
                mistakes.push(Mistake::TooFewRanks { task, name, asked, from, there });
            } else {
                gangs.insert(task, asked as u16);
            }
        }
        self.mistakes.append(&mut mistakes);
        gangs
    }

    /// By task how many ranks a job reaches over, of those that take cpus of more than one.
    #[cold]
    fn jobs(&self, live: &[u16]) -> HashMap<u32, u16> {
        let (shared, mut jobs, mut known) = (self.shared, HashMap::new(), HashMap::new());
        let Some(ranks) = &shared.ranks else { return jobs };
        let (cpus, memory, _) = ranks.least();
        let cpus = cpus.max(shared.setup.assumed_cpus);
        for (index, task) in (self.gates.len() as u32..).zip(self.tasks()) {
            let Some((extra, need)) = task.extra().and_then(|extra| Some((extra, extra.need.as_ref()?)))
            else {
                continue;
            };
            let Some(job) = need.job else { continue };
            let fits_one = need.all_cpus() <= cpus && (job.per_host == 0 || job.per_host >= job.ranks);
            if fits_one || !need.named.is_empty() || need.memory > memory {
                continue;
            }
            let first = extra.rank.and_then(|rank| live.iter().position(|live| u32::from(*live) == rank));
            let find = || ranks.reach(shared, need, first);
            let reach = *known.entry((job, need.cpus, first)).or_insert_with(find);
            jobs.extend(reach.map(|reach| (index, reach)));
        }
        jobs
    }

    /// By task the node that the user wants it on, and the ranks of each node.
    #[cold]
    fn near(&self, ranks: u16) -> (HashMap<u32, u16>, Vec<Vec<u16>>) {
        let Some(node_of) = self.shared.ranks.as_ref().map(|ranks| ranks.nodes()) else {
            return Default::default();
        };
        let mut nodes = Vec::new();
        for (rank, node) in (0..ranks).zip(&node_of) {
            nodes.resize_with(nodes.len().max(*node as usize + 1), Vec::new);
            nodes[*node as usize].push(rank);
        }
        let node = |task: Ref| node_of.get(task.extra()?.near? as usize).map(|node| *node as u16);
        let tasks = (self.gates.len() as u32..).zip(self.tasks());
        (tasks.filter_map(|(index, task)| Some((index, node(task)?))).collect(), nodes)
    }

    /// Lists what tasks take from outside; the rank of each producer.
    fn outside(&mut self, externals: &[(u32, Ref)]) -> Vec<u16> {
        let mut places = HashMap::new();
        for (task, producer) in externals {
            let place = *places.entry(*producer).or_insert(self.producers.len() as u32);
            if place as usize == self.producers.len() {
                self.producers.push(*producer);
            }
            self.listing.outside.push((*task, place));
        }
        let elsewhere = |producer: Ref| producer.cohort()?.elsewhere();
        let rank = |producer: &Ref| elsewhere(*producer).map_or(0, |elsewhere| elsewhere.rank_of(*producer));
        self.producers.iter().map(|producer| rank(producer) as u16).collect()
    }

    /// What the user said of ranks.
    #[cold]
    fn fix_ranks(&mut self, ranks: u16, fixed: &mut [u16]) {
        let mut mistakes = Vec::new();
        let all = self.shared.ranks.as_ref().map_or(1, |ranks| ranks.size());
        let loss = |rank| self.shared.ranks.as_ref().and_then(|ranks| ranks.loss_of(rank));
        for (index, task) in (self.gates.len()..).zip(self.tasks()) {
            let Some(rank) = task.extra().and_then(|extra| extra.rank) else { continue };
            let (index, name) = (index as u32, task.name());
            if rank >= all {
                mistakes.push(Mistake::NoSuchRank { task: index, name, rank, ranks: all });
            } else if let Some(why) = loss(rank) {
                mistakes.push(Mistake::LostRank { task: index, name, rank, why });
            } else if rank != 0 && ranks == 1 {
                let why = "lists of a batch that is serial do";
                mistakes.push(Mistake::MustStay { task: index, name, rank, why });
            } else if rank != 0 && fixed[index as usize] == 0 {
                let why = "closures do, tasks that need what some rank has not, and tasks that take a result of a \
                           closure, or output of a task of another list";
                mistakes.push(Mistake::MustStay { task: index, name, rank, why });
            } else {
                fixed[index as usize] = rank as u16;
            }
        }
        self.mistakes.append(&mut mistakes);
    }
}

/// Chooses ranks for tasks that hold GPUs which not every rank has.
struct Dealer {
    /// Ranks and their GPUs.
    gpus: Vec<(u16, u32)>,
    /// How many GPUs the tasks of each hold together.
    dealt: Vec<f64>,
}

impl Dealer {
    /// Any rank for a task that holds none, or for which each has enough, or whose rank the user has chosen; else of
    /// those that have enough the one which, for what it has, was dealt least. Home if there is none.
    fn rank_for(&mut self, task: Ref) -> u16 {
        let Some(extra) = task.extra() else { return ANY };
        let Some(need) = extra.need.as_ref().filter(|need| need.gpus > 0) else { return ANY };
        let holders = need.job.map_or(1, |job| job.ranks);
        let has_room = |gpus: u32| room_for_gpus(gpus, need.gpus) >= holders;
        if extra.rank.is_some() || extra.gang > 1 || self.gpus.iter().all(|(_, gpus)| has_room(*gpus)) {
            return ANY;
        }
        let load = |at: &usize| self.dealt[*at] / f64::from(self.gpus[*at].1);
        let fitting = (0..self.gpus.len()).filter(|at| has_room(self.gpus[*at].1));
        let Some(at) = fitting.min_by(|a, b| load(a).total_cmp(&load(b))) else { return 0 };
        self.dealt[at] += f64::from(holders) * need.gpus as f64 / UNITS;
        self.gpus[at].0
    }
}
