//! The arrays a graph runs on: per node where its targets start, the targets, how many sources it waits for.
//!
//! Nodes are numbered in execution order, every edge goes up, and nothing here changes after `freeze`: 10 bytes per
//! task and 4 per edge.

use crate::compile::Dependences;
pub(crate) use crate::compile::NEEDS;
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
}

impl Csr {
    /// Freezes dependences; `order` lists the vertices in execution order (`None`: as they are). `rank` gives the
    /// upward rank of a task (or join) from the highest among its targets. Of two targets the one goes first whose
    /// task has the higher priority, says `user`, or the higher rank.
    pub(crate) fn freeze(
        from: &Dependences,
        order: Option<&[u32]>,
        user: impl Fn(u32) -> i32,
        rank: impl Fn(u32, u32) -> u32,
    ) -> Self {
        match order {
            None => Self::numbered(from, |vertex| vertex, |node| node, |_| 0, rank),
            Some(order) => {
                let mut node_of = vec![0u32; order.len()];
                order.iter().enumerate().for_each(|(node, v)| node_of[*v as usize] = node as u32);
                Self::numbered(from, |v| node_of[v as usize], |node| order[node as usize], user, rank)
            }
        }
    }

    #[inline(always)]
    fn numbered(
        from: &Dependences,
        node: impl Fn(u32) -> u32,
        vertex: impl Fn(u32) -> u32,
        user: impl Fn(u32) -> i32,
        rank: impl Fn(u32, u32) -> u32,
    ) -> Self {
        let n = from.vertices();
        let mut first = vec![0u32; n + 1];
        from.sources.iter().for_each(|s| first[node(s & !NEEDS) as usize] += 1);
        let mut edges = 0;
        first.iter_mut().for_each(|f| edges += std::mem::replace(f, edges));
        let mut targets = vec![0u32; from.sources.len()];
        let mut in_degree = Vec::with_capacity(n);
        let mut many = HashMap::new();
        let mut roots = Vec::new();
        // `first[i]` walks to the end of node i's targets, that is the start of node i+1's: shifted back below.
        for i in 0..n as u32 {
            let sources = from.sources_of(vertex(i) as usize);
            if sources.is_empty() {
                roots.push(i);
            }
            in_degree.push(u16::try_from(sources.len()).unwrap_or(MANY));
            if sources.len() >= usize::from(MANY) {
                many.insert(i, sources.len() as u32);
            }
            for s in sources {
                let at = &mut first[node(s & !NEEDS) as usize];
                targets[*at as usize] = i | (s & NEEDS);
                *at += 1;
            }
        }
        first.copy_within(0..n, 1);
        first[0] = 0;
        let task = |v: u32| from.tasks.as_ref().map_or(v, |t| t[v as usize]);
        let key = |ranks: &[u32], node: u32| (user(task(vertex(node))), ranks[node as usize]);
        let mut ranks = vec![0u32; n];
        for i in (0..n).rev() {
            let targets = &mut targets[first[i] as usize..first[i + 1] as usize];
            best_first(targets, |target| key(&ranks, target & !NEEDS));
            let best = targets.iter().map(|t| ranks[(t & !NEEDS) as usize]).max().unwrap_or(0);
            ranks[i] = rank(best, task(vertex(i as u32)));
        }
        let moved = best_first(&mut roots, |root| key(&ranks, root));
        let all_first = roots.last().is_none_or(|last| *last as usize == roots.len() - 1);
        let roots =
            if all_first && !moved { Roots::Below(roots.len() as u32) } else { Roots::List(roots.into()) };
        let (first, targets, in_degree) = (first.into(), targets.into(), in_degree.into());
        Self { first, targets, in_degree, many, roots }
    }

    /// A graph in which node i waits for `sources[i]`.
    #[cfg(test)]
    pub(crate) fn of_sources(sources: &[&[u32]]) -> Self {
        let mut all = Dependences { ends: Vec::new(), sources: Vec::new(), tasks: None };
        for sources in sources {
            all.sources.extend_from_slice(sources);
            all.ends.push(all.sources.len() as u32);
        }
        Self::freeze(&all, None, |_| 0, |best, _| best + 1)
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

    /// Longest sum of `cost` over any path, and the nodes on it in order.
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
        (best[start as usize], path.collect())
    }
}

/// Sorts by key, highest first, keeping the order of equals; true if that moved anything.
#[inline(always)]
fn best_first<K: Ord>(nodes: &mut [u32], key: impl Fn(u32) -> K) -> bool {
    if nodes.len() < 2 || nodes.windows(2).all(|w| key(w[0]) >= key(w[1])) {
        return false;
    }
    nodes.sort_by_key(|n| std::cmp::Reverse(key(*n)));
    true
}
