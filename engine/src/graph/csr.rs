//! The arrays a graph runs on: per node where its targets start, the targets, how many sources it waits for.
//!
//! Nodes are numbered in execution order, every edge goes up, and nothing here changes after `freeze`: 10 bytes per
//! task and 4 per edge.

use crate::compile::Dependences;
pub(crate) use crate::compile::NEEDS;
use std::cmp::Ordering;
use std::collections::HashMap;

/// In place of a task index: a node without a body.
pub(crate) const JOIN: u32 = u32::MAX;
/// In-degrees from here on are kept apart.
const MANY: u16 = u16::MAX;

/// Nodes without sources, best first.
#[derive(Debug)]
pub(crate) enum Roots {
    /// All nodes below this one.
    Below(u32),
    /// These nodes.
    List(Box<[u32]>),
}

impl Roots {
    pub(crate) fn len(&self) -> u32 {
        match self {
            Roots::Below(n) => *n,
            Roots::List(list) => list.len() as u32,
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, i: u32) -> u32 {
        match self {
            Roots::Below(_) => i,
            Roots::List(list) => list[i as usize],
        }
    }
}

/// A graph in compressed sparse row form, edges by source.
#[derive(Debug)]
pub(crate) struct Csr {
    /// For each node the start of its targets, and one end.
    first: Box<[u32]>,
    /// Targets, with [`NEEDS`] or without, best first.
    targets: Box<[u32]>,
    in_degree: Box<[u16]>,
    many: HashMap<u32, u32>,
    roots: Roots,
    /// For each node its task, or [`JOIN`]; `None` when nodes are tasks.
    tasks: Option<Box<[u32]>>,
}

impl Csr {
    /// Freezes dependences; `order` lists the vertices in execution order (`None`: as they are), `priority` says
    /// which of two vertices goes first: the greater.
    pub(crate) fn freeze(
        from: Dependences,
        order: Option<&[u32]>,
        priority: impl Fn(u32, u32) -> Ordering,
    ) -> Self {
        let n = from.vertices();
        let node_of = order.map(|order| {
            let mut node_of = vec![0u32; n];
            order.iter().enumerate().for_each(|(node, v)| node_of[*v as usize] = node as u32);
            node_of
        });
        let node = |vertex: u32| node_of.as_ref().map_or(vertex, |map| map[vertex as usize]);
        let vertex = |node: usize| order.map_or(node as u32, |order| order[node]);
        let mut first = vec![0u32; n + 1].into_boxed_slice();
        from.sources.iter().for_each(|s| first[node(s & !NEEDS) as usize + 1] += 1);
        (0..n).for_each(|i| first[i + 1] += first[i]);
        let mut targets = vec![0u32; from.sources.len()].into_boxed_slice();
        let mut in_degree = vec![0u16; n].into_boxed_slice();
        let mut many = HashMap::new();
        let mut roots = Vec::new();
        let mut roots_below = true;
        // `first[i]` walks to the end of node i's targets, that is the start of node i+1's: shifted back below.
        for i in 0..n {
            let sources = from.sources_of(vertex(i) as usize);
            if sources.is_empty() {
                roots_below &= roots.len() == i;
                roots.push(i as u32);
            }
            in_degree[i] = u16::try_from(sources.len()).unwrap_or(MANY);
            if in_degree[i] == MANY {
                many.insert(i as u32, sources.len() as u32);
            }
            for s in sources {
                let at = &mut first[node(s & !NEEDS) as usize];
                targets[*at as usize] = i as u32 | (s & NEEDS);
                *at += 1;
            }
        }
        first.copy_within(0..n, 1);
        first[0] = 0;
        let vertex_of = |target: u32| vertex((target & !NEEDS) as usize);
        let compare = |a: u32, b: u32| priority(vertex_of(a), vertex_of(b));
        for i in 0..n {
            best_first(&mut targets[first[i] as usize..first[i + 1] as usize], compare);
        }
        let sorted = best_first(&mut roots, compare);
        let roots =
            if roots_below && !sorted { Roots::Below(roots.len() as u32) } else { Roots::List(roots.into()) };
        let tasks = match (from.tasks, order) {
            (None, None) => None,
            (tasks, _) => {
                Some((0..n).map(|i| tasks.as_ref().map_or(vertex(i), |t| t[vertex(i) as usize])).collect())
            }
        };
        Self { first, targets, in_degree, many, roots, tasks }
    }

    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.in_degree.len()
    }

    pub(crate) fn edges(&self) -> usize {
        self.targets.len()
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What waits for a node, best first.
    #[inline(always)]
    pub(crate) fn targets(&self, node: u32) -> &[u32] {
        &self.targets[self.first[node as usize] as usize..self.first[node as usize + 1] as usize]
    }

    /// How many nodes it waits for.
    #[inline(always)]
    pub(crate) fn in_degree(&self, node: u32) -> u32 {
        match self.in_degree[node as usize] {
            MANY => self.many[&node],
            few => u32::from(few),
        }
    }

    /// The index in the list of a node's task; [`JOIN`] if it has none.
    #[inline(always)]
    pub(crate) fn task(&self, node: u32) -> u32 {
        self.tasks.as_ref().map_or(node, |t| t[node as usize])
    }

    /// Longest sum of `cost` over any path, and the tasks on it in order.
    pub(crate) fn critical_path(&self, cost: impl Fn(u32) -> f64) -> (f64, Vec<u32>) {
        let n = self.len();
        let mut best = vec![0.0f64; n];
        let mut next = vec![JOIN; n];
        for node in (0..n as u32).rev() {
            for t in self.targets(node) {
                let t = t & !NEEDS;
                if best[t as usize] > best[node as usize] || next[node as usize] == JOIN {
                    best[node as usize] = best[t as usize];
                    next[node as usize] = t;
                }
            }
            best[node as usize] += cost(node);
        }
        let Some(start) = (0..n as u32).max_by(|a, b| best[*a as usize].total_cmp(&best[*b as usize])) else {
            return (0.0, Vec::new());
        };
        let path = std::iter::successors(Some(start), |n| Some(next[*n as usize]).filter(|n| *n != JOIN));
        (best[start as usize], path.map(|n| self.task(n)).filter(|t| *t != JOIN).collect())
    }
}

/// Sorts, greatest first, keeping the order of equals; true if that moved anything.
fn best_first(nodes: &mut [u32], compare: impl Fn(u32, u32) -> Ordering) -> bool {
    if nodes.len() < 2 || nodes.windows(2).all(|w| compare(w[0], w[1]).is_ge()) {
        return false;
    }
    nodes.sort_by(|a, b| compare(*b, *a));
    true
}
