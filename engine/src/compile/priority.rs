//! Orders what can run at the same time: the user's priority first, then the upward rank, the longest cost from a
//! task to the end of the graph.
//!
//! *Source*: Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task scheduling for heterogeneous
//! computing" (2002), upward rank, with communication at cost 0.

use super::Listing;
use super::hazard::{Dependences, JOIN, NEEDS};
use crate::graph::{Csr, Outline};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What decides between two ready vertices: higher first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Priority {
    pub(crate) user: i32,
    pub(crate) rank: u32,
}

/// The graph, its roots and successors in order of priority. When the user gave priorities or costs, nodes are also
/// numbered in the order in which one worker would run them; else list order is that order.
pub(crate) fn order(list: &Listing, dependences: &Dependences) -> Outline {
    match &list.costs {
        None if list.priorities.is_none() => Outline::later(dependences),
        None => numbered(list, dependences, |best, task| best + u32::from(task != JOIN)),
        Some(costs) => numbered(list, dependences, |best, task| {
            let cost = if task == JOIN { 0.0 } else { costs[task as usize] };
            // Positive floats are ordered as their bits are.
            (f32::from_bits(best) + cost).to_bits()
        }),
    }
}

/// As [`order`], of one rank's piece of the list: its nodes keep their numbers.
pub(crate) fn order_piece(list: &Listing, piece: &Dependences) -> Outline {
    if list.costs.is_none() && list.priorities.is_none() {
        return Outline::later(piece);
    }
    let order: Vec<u32> = (0..piece.vertices() as u32).collect();
    let rank = |best: u32, task: u32| match &list.costs {
        None => best + u32::from(task != JOIN),
        Some(_) if task == JOIN => best,
        Some(costs) => (f32::from_bits(best) + costs[task as usize]).to_bits(),
    };
    Outline::now(piece, &order, Csr::freeze(piece, Some(&order), |task| user(list, task), rank))
}

/// `rank` gives the upward rank of a task from the best among its targets.
fn numbered(list: &Listing, dependences: &Dependences, rank: impl Fn(u32, u32) -> u32) -> Outline {
    let ranks = upward_ranks(dependences, &rank);
    let order = numbering(dependences, &priorities(list, dependences, &ranks));
    Outline::now(dependences, &order, Csr::freeze(dependences, Some(&order), |task| user(list, task), rank))
}

/// For each vertex the longest cost of a way from it to the end, itself included, as numbers that can be compared.
fn upward_ranks(dependences: &Dependences, rank: impl Fn(u32, u32) -> u32) -> Vec<u32> {
    let n = dependences.vertices();
    let mut ranks = vec![0u32; n];
    for v in (0..n).rev() {
        let own = rank(ranks[v], dependences.tasks.as_ref().map_or(v as u32, |t| t[v]));
        ranks[v] = own;
        for from in dependences.sources_of(v) {
            let from = &mut ranks[(from & !NEEDS) as usize];
            *from = own.max(*from);
        }
    }
    ranks
}

fn priorities(list: &Listing, dependences: &Dependences, ranks: &[u32]) -> Vec<Priority> {
    let task = |v: usize| dependences.tasks.as_ref().map_or(v as u32, |t| t[v]);
    ranks.iter().enumerate().map(|(v, rank)| Priority { user: user(list, task(v)), rank: *rank }).collect()
}

/// The priority the user gave; a join holds nobody up.
fn user(list: &Listing, task: u32) -> i32 {
    match (&list.priorities, task) {
        (_, JOIN) => i32::MAX,
        (Some(given), task) => given[task as usize],
        (None, _) => 0,
    }
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
