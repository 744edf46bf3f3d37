//! Orders what can run at the same time: the user's priority first, then the upward rank, the longest cost from a
//! task to the end of the graph.
//!
//! *Source*: Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task scheduling for heterogeneous
//! computing" (2002), upward rank, with communication at cost 0.

use super::Listing;
use super::hazard::{Dependences, JOIN, NEEDS};
use crate::graph::Csr;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What decides between two ready vertices: higher first.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Priority {
    pub(crate) user: i32,
    pub(crate) rank: f32,
}

impl Priority {
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        self.user.cmp(&other.user).then(self.rank.total_cmp(&other.rank))
    }
}

/// The graph, its roots and successors in order of priority. When the user gave priorities or costs, nodes are also
/// numbered in the order in which one worker would run them; else list order is that order.
pub(crate) fn order(list: &Listing, dependences: Dependences) -> Csr {
    let ranks = upward_ranks(list, &dependences);
    if list.priorities.is_none() && list.costs.is_none() {
        return Csr::freeze(dependences, None, |a, b| ranks[a as usize].total_cmp(&ranks[b as usize]));
    }
    let priorities = priorities(list, &dependences, &ranks);
    let numbering = numbering(&dependences, &priorities);
    Csr::freeze(dependences, Some(&numbering), |a, b| priorities[a as usize].cmp(&priorities[b as usize]))
}

/// For each vertex the longest cost of a way from it to the end, itself included.
fn upward_ranks(list: &Listing, dependences: &Dependences) -> Vec<f32> {
    let n = dependences.vertices();
    let mut ranks = vec![0.0f32; n];
    for v in (0..n).rev() {
        let task = dependences.tasks.as_ref().map_or(v as u32, |t| t[v]);
        let cost = match (&list.costs, task) {
            (_, JOIN) => 0.0,
            (Some(costs), task) => costs[task as usize],
            (None, _) => 1.0,
        };
        let rank = ranks[v] + cost;
        ranks[v] = rank;
        for from in dependences.sources_of(v) {
            let from = &mut ranks[(from & !NEEDS) as usize];
            *from = from.max(rank);
        }
    }
    ranks
}

fn priorities(list: &Listing, dependences: &Dependences, ranks: &[f32]) -> Vec<Priority> {
    let user = |v: usize| match (&list.priorities, dependences.tasks.as_ref().map_or(v as u32, |t| t[v])) {
        (_, JOIN) => i32::MAX,
        (Some(given), task) => given[task as usize],
        (None, _) => 0,
    };
    ranks.iter().enumerate().map(|(v, rank)| Priority { user: user(v), rank: *rank }).collect()
}

struct Ready(Priority, u32);

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0).then(other.1.cmp(&self.1))
    }
}
impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Ready {}

/// The vertices in the order in which one worker that always takes the best ready one would run them.
fn numbering(dependences: &Dependences, priorities: &[Priority]) -> Vec<u32> {
    let n = dependences.vertices();
    let mut targets: Vec<Vec<u32>> = vec![Vec::new(); n];
    let mut left = vec![0u32; n];
    for (v, left) in left.iter_mut().enumerate() {
        let sources = dependences.sources_of(v);
        *left = sources.len() as u32;
        sources.iter().for_each(|s| targets[(s & !NEEDS) as usize].push(v as u32));
    }
    let ready = |v: u32| Ready(priorities[v as usize], v);
    let mut heap: BinaryHeap<Ready> = (0..n as u32).filter(|v| left[*v as usize] == 0).map(ready).collect();
    let mut order = Vec::with_capacity(n);
    while let Some(Ready(_, v)) = heap.pop() {
        order.push(v);
        for t in &targets[v as usize] {
            left[*t as usize] -= 1;
            if left[*t as usize] == 0 {
                heap.push(ready(*t));
            }
        }
    }
    order
}
