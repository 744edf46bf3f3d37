//! Chooses the rank of each task: where most of what it waits for runs, as long as every rank has its share.
//!
//! Tasks are looked at by *level*, the length of the longest way to them: those of one level can run together, so each
//! rank gets about as much of every level (by cost, if the user gave costs). Within its share a rank gets what follows
//! from its own tasks; tasks that wait for nothing are dealt out in blocks of list order, since neighbours in the list
//! are often neighbours in the data. So a chain stays where it began, and a stencil crosses ranks at the edges of
//! blocks only. A task that is to be near to something is on that node, whatever the shares, on the rank of it that has
//! least of the level.
//!
//! A task that several ranks run at once is placed on the first of them. The ranks of a world are cut into blocks of as
//! many, so that such tasks run side by side, and it is on the block that has least of the level.

use super::Listing;
use super::hazard::{Dependences, JOIN, NEEDS};
use std::collections::HashMap;

/// The ranks a list can be placed on.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) ranks: u16,
    /// By task the rank it must run on, or [`ANY`]; tasks beyond its end can run on any.
    pub(crate) fixed: Vec<u16>,
    /// By task the node that it is to run on, for few of them.
    pub(crate) near: HashMap<u32, u16>,
    /// The ranks of each node, if some task is to be near to something.
    pub(crate) nodes: Vec<Vec<u16>>,
    /// By task how many ranks run it at once, from the one that it is placed on; one, if it is not here.
    pub(crate) gangs: HashMap<u32, u16>,
    /// The rank of each producer outside of the list.
    pub(crate) outside: Vec<u16>,
    /// If ranks are lost, those that are not; all of the above counts these alone, from 0.
    pub(crate) live: Vec<u16>,
    /// Whoever looks at runs wants the graph over all ranks, too.
    pub(crate) keeps_whole: bool,
}

/// A task can run on any rank.
pub(crate) const ANY: u16 = u16::MAX;

impl Layout {
    /// The submitting rank alone.
    pub(crate) fn local() -> Self {
        let (near, nodes, gangs) = (HashMap::new(), Vec::new(), HashMap::new());
        let (fixed, outside, live) = (Vec::new(), Vec::new(), Vec::new());
        Self { ranks: 1, fixed, near, nodes, gangs, outside, live, keeps_whole: false }
    }

    /// The same without the ranks that are not in `live`, which is in order and has rank 0. What was to be on one of
    /// them can be anywhere.
    pub(crate) fn without_lost(mut self, live: Vec<u16>) -> Self {
        if live.len() >= usize::from(self.ranks) {
            return self;
        }
        let place = |rank: u16| live.binary_search(&rank).ok().map(|place| place as u16);
        self.fixed
            .iter_mut()
            .filter(|rank| **rank != ANY)
            .for_each(|rank| *rank = place(*rank).unwrap_or(ANY));
        self.outside.iter_mut().for_each(|rank| *rank = place(*rank).unwrap_or(0));
        for node in &mut self.nodes {
            *node = node.iter().filter_map(|rank| place(*rank)).collect();
        }
        Self { ranks: live.len() as u16, live, ..self }
    }

    /// The rank that is meant by a number of one.
    fn rank(&self, place: u16) -> u16 {
        self.live.get(usize::from(place)).copied().unwrap_or(place)
    }

    /// How many ranks there are with those that are lost, as far as tasks can be placed on them.
    pub(crate) fn pieces(&self) -> u16 {
        self.live.last().map_or(self.ranks, |last| last + 1)
    }
}

/// The rank of each vertex.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// All on the submitting rank, which is 0.
    Local,
    /// By vertex; joins are on rank 0.
    Spread(Vec<u16>),
}

/// How much more than its share of a level a rank may have before tasks go elsewhere.
const SLACK: f64 = 1.125;

/// Where the vertices run. Cost: linear in vertices and edges, and one look at each rank for each level.
pub(crate) fn place(list: &Listing, found: &Dependences, layout: &Layout) -> Placement {
    if layout.ranks == 1 || found.vertices() == 0 {
        return Placement::Local;
    }
    let (order, ends) = by_level(found);
    let mut placed = Placed { list, found, layout, rank_of: vec![0; found.vertices()], load: Vec::new() };
    let mut start = 0;
    for end in ends {
        placed.level(&order[start..end]);
        start = end;
    }
    if placed.rank_of.iter().all(|rank| *rank == 0) {
        return Placement::Local;
    }
    let mut rank_of = placed.rank_of;
    if !layout.live.is_empty() {
        rank_of.iter_mut().for_each(|rank| *rank = layout.rank(*rank));
    }
    Placement::Spread(rank_of)
}

/// Vertices sorted by level, in order within each, and the end of each level.
fn by_level(found: &Dependences) -> (Vec<u32>, Vec<usize>) {
    let n = found.vertices();
    let mut levels = vec![0u32; n];
    let mut ends: Vec<usize> = Vec::new();
    for v in 0..n {
        let above = |s: &u32| levels[(s & !NEEDS) as usize] + 1;
        let level = found.sources_of(v).iter().map(above).max().unwrap_or(0);
        levels[v] = level;
        ends.resize(ends.len().max(level as usize + 1), 0);
        ends[level as usize] += 1;
    }
    let mut sum = 0;
    for end in &mut ends {
        sum += std::mem::replace(end, sum);
    }
    let mut order = vec![0u32; n];
    for (v, level) in levels.iter().enumerate() {
        let at = &mut ends[*level as usize];
        order[*at] = v as u32;
        *at += 1;
    }
    (order, ends)
}

struct Placed<'a> {
    list: &'a Listing,
    found: &'a Dependences,
    layout: &'a Layout,
    rank_of: Vec<u16>,
    /// Of the level at hand, per rank.
    load: Vec<f64>,
}

impl Placed<'_> {
    fn level(&mut self, vertices: &[u32]) {
        let ranks = usize::from(self.layout.ranks);
        self.load.clear();
        self.load.resize(ranks, 0.0);
        let share = vertices.iter().map(|v| self.cost(*v)).sum::<f64>() / ranks as f64 * SLACK;
        // Those that cannot choose first, so that the others see how full ranks are.
        let mut free = Vec::with_capacity(vertices.len());
        for v in vertices {
            match self.fixed(*v) {
                ANY => free.push(*v),
                rank => self.put(*v, usize::from(rank)),
            }
        }
        // Then those of several ranks: the others fill what they leave.
        if !self.layout.gangs.is_empty() {
            free.retain(|v| {
                let size = self.gang(*v);
                if size > 1 {
                    self.put(*v, self.block(*v, size));
                }
                size == 1
            });
        }
        for (place, v) in free.iter().enumerate() {
            let block = place * ranks / free.len();
            // Where it follows from others, one task more is less than what their values cost on the way.
            let (wanted, more) = match self.most_sources(*v) {
                Some(rank) => (usize::from(rank), 0.0),
                None => (block, self.cost(*v)),
            };
            let fits = self.load[wanted] == 0.0 || self.load[wanted] + more <= share;
            let rank = match self.near(*v) {
                Some(node) if !(fits && node.contains(&(wanted as u16))) => self.lightest_of(node),
                None if !fits => self.lightest(),
                _ => wanted,
            };
            self.put(*v, rank);
        }
    }

    fn put(&mut self, v: u32, rank: usize) {
        let cost = self.cost(v);
        let end = (rank + self.gang(v)).min(self.load.len());
        self.load[rank..end].iter_mut().for_each(|load| *load += cost);
        self.rank_of[v as usize] = rank as u16;
    }

    /// How many ranks run a vertex at once.
    fn gang(&self, v: u32) -> usize {
        if self.layout.gangs.is_empty() {
            return 1;
        }
        self.layout.gangs.get(&self.task(v)).map_or(1, |size| usize::from(*size))
    }

    /// The first of `size` ranks that run a vertex at once: those that have least of the level, of these the ones with
    /// a rank that it is near to or follows from.
    fn block(&self, v: u32, size: usize) -> usize {
        let ranks = self.load.len();
        let last = ranks.saturating_sub(size);
        let starts = (0..=last).step_by(size).chain((!last.is_multiple_of(size)).then_some(last));
        let wanted = self.most_sources(v);
        let near = self.near(v).unwrap_or_default();
        let key = |start: &usize| {
            let has = |rank: u16| (*start..*start + size).contains(&usize::from(rank));
            let load = self.load[*start..*start + size].iter().copied().fold(0.0, f64::max);
            let is_far = !near.is_empty() && !near.iter().any(|rank| has(*rank));
            (is_far, load, !wanted.is_some_and(has))
        };
        let less = |a: &(bool, f64, bool), b: &(bool, f64, bool)| {
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
        };
        starts.min_by(|a, b| less(&key(a), &key(b))).unwrap_or(0)
    }

    /// The rank on which most of the sources run; of several the one that comes first among them.
    fn most_sources(&self, v: u32) -> Option<u16> {
        let mut votes: Vec<(u16, u32)> = Vec::new();
        let sources = self.found.sources_of(v as usize).iter();
        let inside = sources.map(|source| self.rank_of[(source & !NEEDS) as usize]);
        let outside =
            self.list.outside_of(self.task(v)).map(|producer| self.layout.outside[producer as usize]);
        for rank in inside.chain(outside) {
            match votes.iter_mut().find(|(r, _)| *r == rank) {
                Some((_, votes)) => *votes += 1,
                None => votes.push((rank, 1)),
            }
        }
        let most = votes.iter().map(|(_, n)| *n).max()?;
        votes.into_iter().find(|(_, n)| *n == most).map(|(rank, _)| rank)
    }

    fn lightest(&self) -> usize {
        let by_load = |a: &usize, b: &usize| self.load[*a].total_cmp(&self.load[*b]);
        (0..self.load.len()).min_by(by_load).unwrap_or(0)
    }

    fn lightest_of(&self, ranks: &[u16]) -> usize {
        let by_load =
            |a: &&u16, b: &&u16| self.load[usize::from(**a)].total_cmp(&self.load[usize::from(**b)]);
        ranks.iter().min_by(by_load).map_or(0, |rank| usize::from(*rank))
    }

    /// The ranks of the node that a vertex is to run on.
    fn near(&self, v: u32) -> Option<&[u16]> {
        if self.layout.near.is_empty() {
            return None;
        }
        let node = self.layout.near.get(&self.task(v))?;
        self.layout.nodes.get(usize::from(*node)).map(Vec::as_slice).filter(|ranks| !ranks.is_empty())
    }

    fn task(&self, v: u32) -> u32 {
        self.found.tasks.as_ref().map_or(v, |tasks| tasks[v as usize])
    }

    /// The rank that a vertex must run on, or [`ANY`].
    fn fixed(&self, v: u32) -> u16 {
        match self.task(v) {
            JOIN => 0,
            task => self.layout.fixed.get(task as usize).copied().unwrap_or(ANY),
        }
    }

    fn cost(&self, v: u32) -> f64 {
        match (self.task(v), &self.list.costs) {
            (JOIN, _) => 0.0,
            (task, Some(costs)) => f64::from(costs[task as usize]),
            (_, None) => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph in which vertex i waits for `sources[i]`.
    fn found(sources: &[&[u32]]) -> Dependences {
        let mut all = Dependences::default();
        for sources in sources {
            all.sources.extend_from_slice(sources);
            all.ends.push(all.sources.len() as u32);
        }
        all
    }

    fn ranks(sources: &[&[u32]], ranks: u16, fixed: Vec<u16>) -> Vec<u16> {
        ranks_after(&Listing::default(), sources, Layout { ranks, fixed, ..Layout::local() })
    }

    fn ranks_after(list: &Listing, sources: &[&[u32]], layout: Layout) -> Vec<u16> {
        match place(list, &found(sources), &layout) {
            Placement::Local => vec![0; sources.len()],
            Placement::Spread(rank_of) => rank_of,
        }
    }

    #[test]
    fn tasks_that_wait_for_nothing_are_dealt_out_in_blocks() {
        assert_eq!(ranks(&[&[] as &[u32]; 8], 4, Vec::new()), [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn chains_stay_where_they_began_however_they_are_listed() {
        let one_after_the_other: &[&[u32]] = &[&[], &[0], &[1], &[], &[3], &[4]];
        assert_eq!(ranks(one_after_the_other, 2, Vec::new()), [0, 0, 0, 1, 1, 1]);
        let in_turns: &[&[u32]] = &[&[], &[], &[0], &[1], &[2], &[3]];
        assert_eq!(ranks(in_turns, 2, Vec::new()), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn many_that_follow_from_one_are_shared() {
        let fan: &[&[u32]] = &[&[], &[0], &[0], &[0], &[0], &[0], &[0], &[0], &[0]];
        let ranks = ranks(fan, 2, Vec::new());
        let there = ranks.iter().skip(1).filter(|rank| **rank == 1).count();
        assert!((3..=4).contains(&there), "{ranks:?}");
    }

    /// Each of four ranks has two strips; the rows that strips give their neighbours are cut where the strips are.
    #[test]
    fn small_tasks_stay_where_their_data_is() {
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); 8];
        (1..8u32).for_each(|strip| sources.push(vec![strip]));
        (0..7u32).for_each(|strip| sources.push(vec![strip]));
        let all: Vec<&[u32]> = sources.iter().map(Vec::as_slice).collect();
        let ranks = ranks(&all, 4, Vec::new());
        for (v, sources) in sources.iter().enumerate().skip(8) {
            assert_eq!(ranks[v], ranks[sources[0] as usize], "{ranks:?}");
        }
    }

    #[test]
    fn what_must_stay_stays_and_counts() {
        let ranks = ranks(&[&[] as &[u32]; 6], 2, vec![0, 0, 0]);
        assert_eq!(ranks[..3], [0, 0, 0]);
        assert_eq!(ranks.iter().filter(|rank| **rank == 1).count(), 3);
    }

    /// What takes the results of an earlier list runs where they are, as long as every rank has its share.
    #[test]
    fn tasks_follow_what_they_take_from_outside() {
        let list = Listing { outside: (0..8).map(|i| (i, i)).collect(), ..Listing::default() };
        let layout = |outside| Layout { ranks: 4, outside, ..Layout::local() };
        let there = vec![3, 3, 2, 1, 0, 1, 2, 0];
        assert_eq!(ranks_after(&list, &[&[] as &[u32]; 8], layout(there.clone())), there);
        let ranks = ranks_after(&list, &[&[] as &[u32]; 8], layout(vec![1; 8]));
        assert!((0..4).all(|rank| ranks.iter().filter(|r| **r == rank).count() >= 1), "{ranks:?}");
    }

    #[test]
    fn near_tasks_are_on_their_node_whatever_the_shares() {
        let near = (0..6).map(|task| (task, 1)).collect();
        let layout = Layout { ranks: 4, near, nodes: vec![vec![0, 1], vec![2, 3]], ..Layout::local() };
        let ranks = ranks_after(&Listing::default(), &[&[] as &[u32]; 8], layout);
        assert!(ranks[..6].iter().all(|rank| *rank >= 2), "{ranks:?}");
        assert_eq!(
            ranks.iter().filter(|rank| **rank == 2).count(),
            ranks.iter().filter(|rank| **rank == 3).count()
        );
    }

    #[test]
    fn gangs_run_side_by_side_and_others_fill_the_rest() {
        let gangs = HashMap::from([(0, 2), (1, 2), (2, 3)]);
        let layout = Layout { ranks: 5, gangs, ..Layout::local() };
        let found = ranks_after(&Listing::default(), &[&[] as &[u32]; 3], layout.clone());
        assert_eq!(found[..2], [0, 2], "two blocks of two");
        assert!(found[2] == 0 || found[2] == 2, "{found:?}");
        // The last rank has no gang but that of three, if at all.
        let found = ranks_after(&Listing::default(), &[&[] as &[u32]; 8], layout.clone());
        assert!(found[3..].contains(&4), "{found:?}");
        // It follows what it takes, and is near to what it is to be near to.
        let list = Listing { outside: vec![(0, 0)], ..Listing::default() };
        let found = ranks_after(&list, &[&[] as &[u32]; 1], Layout { outside: vec![3], ..layout.clone() });
        assert_eq!(found, [2]);
        let nodes = vec![vec![0, 1, 2], vec![3, 4]];
        let near = HashMap::from([(0, 1), (1, 1)]);
        let found = ranks_after(&Listing::default(), &[&[] as &[u32]; 2], Layout { near, nodes, ..layout });
        assert!(found.iter().all(|first| *first >= 2), "{found:?}");
    }

    #[test]
    fn one_task_is_local() {
        let layout = Layout { ranks: 4, ..Layout::local() };
        assert_eq!(place(&Listing::default(), &found(&[&[]]), &layout), Placement::Local);
    }
}
