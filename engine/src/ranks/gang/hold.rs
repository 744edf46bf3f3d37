//! Cpus of several ranks for one job: an MPI program that needs more than its rank has.
//!
//! # Shape
//! A job whose ranks do not find room on the cpus of the rank that it was placed on has cpus of ranks behind that one,
//! too ([`Ranks::deal`]). It is a task of its rank alone, and waits there for its share of them. Then that rank musters
//! the others as a gang (see the module's page): each of them calls [`hold`], which has cpus as any function has, says
//! on which host and which cpus that is, and returns when the leader has left. The leader starts one launcher for all,
//! with exactly these hosts and cpus, and leaves when that has ended, or is to be tried again.
//!
//! | message in the group | from → to | says |
//! |---|---|---|
//! | `HOLDS` | holder → leader | the host, as launchers call it, and numbers of cpus |
//!
//! # Why it cannot deadlock
//! As gangs: the leader is the lowest of its ranks, and they are mustered in ascending order.
//!
//! # Deaths
//! - A holder's rank: its cpus are nobody's any more; the job's processes there are the launcher's, and go on. One that
//!   is lost before it holds anything: the job is dealt anew among those that are left.
//! - The leader's rank: the group tells the holders, and the launcher ends with its supervisor.

use super::HOLDS;
use super::leader::Leader;
use crate::attend::bind_body;
use crate::batch::Batch;
use crate::body::Context;
use crate::error::Cause;
use crate::ranks::{Ranks, message};
use crate::run::Run;
use crate::schedule::{Need, deal};
use crate::shared::Shared;
use crate::task::record::Ref;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tarragon_transport::{Rank, wire::head};

/// What a holder holds.
#[derive(Debug, Serialize, Deserialize)]
struct Holds {
    host: String,
    cpus: Vec<u32>,
}

/// Cpus of another rank for ranks of a job.
#[derive(Clone, Debug)]
pub(crate) struct Far {
    /// As launchers call it; none: this machine.
    pub(crate) host: Option<String>,
    /// How many ranks of the job.
    pub(crate) ranks: u32,
    /// Numbers of the cpus that they are bound to; too few: some are not bound.
    pub(crate) cpus: Vec<u32>,
}

/// Cpus of other ranks, held until this is dropped: messages are sent then.
pub(crate) struct Holding {
    leader: Leader,
    pub(crate) far: Vec<Far>,
}

impl Ranks {
    /// How many ranks of a job of `need` are on each of this world's ranks from `from` on, if they find room there when
    /// nothing else runs: numbers of ranks, ascending, the first of them `from`. Batches are like this one.
    pub(crate) fn deal(&self, shared: &Shared, from: u32, need: &Need) -> Option<Vec<(u32, u32)>> {
        if need.gpus > 0 {
            // Holders hold cpus alone.
            return None;
        }
        let nodes = self.nodes();
        let live: Vec<u32> = self.live().into_iter().map(u32::from).filter(|rank| *rank >= from).collect();
        if live.first() != Some(&from) {
            return None;
        }
        let node = |rank: u32| nodes.get(rank as usize).copied().unwrap_or(0);
        let seats: Vec<(u32, u32)> =
            live.iter().map(|rank| (node(*rank), self.cpus_at(shared, *rank))).collect();
        let dealt = deal(need.job?, need.cpus, &seats)?;
        Some(live.into_iter().zip(dealt).filter(|(_, ranks)| *ranks > 0).collect())
    }

    /// Over how many of the live ranks a job of `need` reaches that is placed on the one at `first` among them, or on
    /// any if that is not said. Nothing if it does not fit there, or not from each that has as many behind it.
    pub(crate) fn reach(&self, shared: &Shared, need: &Need, first: Option<usize>) -> Option<u16> {
        let live = self.live();
        let reach = |first: usize| {
            let dealt = self.deal(shared, u32::from(*live.get(first)?), need)?;
            let last = live.iter().position(|rank| u32::from(*rank) == dealt[dealt.len() - 1].0)?;
            Some(last - first + 1)
        };
        if let Some(first) = first {
            return reach(first).map(|reach| reach as u16);
        }
        let all: Vec<Option<usize>> = (0..live.len()).map(reach).collect();
        let most = all.iter().flatten().copied().max()?;
        all[..=live.len() - most].iter().all(Option::is_some).then_some(most as u16)
    }

    /// Cpus of a rank for a batch as this one.
    fn cpus_at(&self, shared: &Shared, rank: u32) -> u32 {
        let all = self.have.get().map_or(&[][..], |have| &have.all_cpus);
        match shared.setup.assumed_cpus {
            _ if rank == self.rank() => shared.totals.cpus,
            0 => all.get(rank as usize).copied().unwrap_or(0),
            assumed => assumed,
        }
    }

    /// Cpus of the other live ranks together.
    pub(crate) fn cpus_of_others(&self, shared: &Shared) -> u32 {
        let others = self.live().into_iter().map(u32::from).filter(|rank| *rank != self.rank());
        others.map(|rank| self.cpus_at(shared, rank)).sum()
    }

    /// Other live ranks as hosts for jobs: their hosts, and their cpus together on each.
    pub(crate) fn as_hosts(&self, shared: &Shared) -> Vec<(String, u32)> {
        let mut hosts: Vec<(String, u32)> = Vec::new();
        for rank in self.live().into_iter().map(u32::from).filter(|rank| *rank != self.rank()) {
            let (host, cpus) = (self.host(Rank(rank)), self.cpus_at(shared, rank));
            match hosts.iter_mut().find(|(name, _)| *name == host) {
                Some((_, all)) => *all += cpus,
                None => hosts.push((host, cpus)),
            }
        }
        hosts
    }

    /// Why a job that once had room has none.
    pub(crate) fn no_room(&self, need: &Need) -> Cause {
        let (rank, why) = self.last_loss(self.rank());
        let ranks = need.job.map_or(0, |job| job.ranks);
        let left = "the ranks that are left from its own on have no room for";
        let why = format!("{why}; {left} a job of {ranks} ranks with {} cpus each", need.cpus);
        Cause::RankLost { rank: rank.0, host: self.host(rank), why }
    }
}

impl Holding {
    /// Has all but the first of these ranks hold cpus, so many for each rank of a job; waits for them.
    pub(crate) fn assemble(
        run: &Arc<Run>,
        task: Ref,
        dealt: &[(u32, u32)],
        cpus: u32,
    ) -> Result<Self, Cause> {
        let shared = &run.plan.shared;
        let lone = || Cause::Error("a job of several ranks' cpus needs a world".into());
        let ranks = shared.ranks.as_ref().ok_or_else(lone)?;
        let all: Vec<Rank> = dealt.iter().map(|(rank, _)| Rank(*rank)).collect();
        let leader = Leader::new(ranks, run, task, &all, &Arc::new(AtomicBool::new(false)));
        let batch = Batch::of_body(shared);
        let calls = dealt.iter().map(|(_, share)| {
            let held = share.saturating_mul(cpus);
            let name = format!("{held} cpus for `{}`", task.name());
            let call = batch.function(hold, (held,)).cpus(held).name(name);
            leader.call(run, call.task())
        });
        let calls: Vec<Vec<u8>> = calls.collect::<Result<_, _>>()?;
        leader.muster(&|member| &calls[member as usize])?;
        let mut holding = Self { leader, far: Vec::new() };
        let nodes = ranks.nodes();
        let node = |rank: u32| nodes.get(rank as usize);
        for (member, (rank, share)) in (0..).zip(dealt).skip(1) {
            let bytes = holding.leader.hear(member, HOLDS)?;
            let unreadable = || Cause::Error(format!("what rank {rank} holds cannot be read").into());
            let (Holds { host, cpus }, _) = head::<Holds>(&bytes).ok_or_else(unreadable)?;
            let host = (node(*rank) != node(ranks.rank())).then_some(host);
            holding.far.push(Far { host, ranks: *share, cpus });
        }
        Ok(holding)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.leader.leave();
    }
}

/// Holds cpus until the leader of its gang leaves, or its task is stopped.
fn hold(context: &Context, cpus: u32) {
    let gang = context.gang();
    let host = context.batch().map(|batch| batch.shared().launching.hosts.here.clone()).unwrap_or_default();
    let holds = Holds { host, cpus: bind_body(cpus) };
    // A leader that is gone is heard of below.
    let _ = gang.group().post(0, HOLDS, &message::bytes(&holds));
    // Nothing is ever sent by this tag.
    let _ = gang.group().receive(0, HOLDS, &|| gang.is_over());
}
