//! Which nodes keep a key: pure.
//!
//! A key's hash chooses its *part*. Of n nodes, part p is kept by the nodes p, p + 1, … (after the last comes the
//! first), as many as there are replicas. The first of them that is not lost is the part's *home*: it alone is read and
//! written to. The others *stand by*. As long as nobody is lost part p is at home on node p.
//!
//! To go on without a node is to ask the same functions of another placement, [`Placement::without`] it, whose *epoch*
//! is the next: keys move to nobody that does not have them already.

use std::collections::BTreeSet;

/// The nodes, and who of them is lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placement {
    nodes: u32,
    replicas: u32,
    epoch: u32,
    lost: BTreeSet<u32>,
}

impl Placement {
    /// Of so many nodes, each key on so many of them, with all there.
    pub(super) fn new(nodes: u32, replicas: u32) -> Self {
        let nodes = nodes.max(1);
        Self { nodes, replicas: replicas.clamp(1, nodes), epoch: 0, lost: BTreeSet::new() }
    }

    /// How many nodes keep each key.
    pub(super) fn replicas(&self) -> u32 {
        self.replicas
    }

    /// How many nodes were given up before.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The same without a node.
    pub(super) fn without(&self, node: u32) -> Self {
        let mut next = self.clone();
        if next.lost.insert(node) {
            next.epoch += 1;
        }
        next
    }

    /// The part of a key with this hash. By other bits than those that choose a shard and a place there.
    #[inline]
    pub(super) fn part_of(&self, hash: u64) -> u32 {
        let mixed = (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        ((mixed * u64::from(self.nodes)) >> 32) as u32
    }

    /// Who keeps a part as long as nobody is lost: its home first.
    pub(super) fn all_keepers(&self, part: u32) -> impl Iterator<Item = u32> + use<> {
        let nodes = self.nodes;
        (0..self.replicas).map(move |step| (part + step) % nodes)
    }

    /// Who keeps a part and is not lost: its home first.
    fn keepers(&self, part: u32) -> impl Iterator<Item = u32> {
        self.all_keepers(part).filter(|node| !self.lost.contains(node))
    }

    /// Who is read and written to; where nobody is left, who was at first.
    #[inline]
    pub(super) fn home_of(&self, part: u32) -> u32 {
        if self.lost.is_empty() { part } else { self.keepers(part).next().unwrap_or(part) }
    }

    /// Who is told of writes to a part before its home shows them.
    pub(super) fn standbys(&self, part: u32) -> impl Iterator<Item = u32> {
        self.keepers(part).skip(1)
    }

    /// The parts for which a node stands by as long as nobody is lost, in the order of its replicas.
    pub(super) fn kept_by(&self, node: u32) -> impl Iterator<Item = u32> {
        let nodes = self.nodes;
        (1..self.replicas).map(move |step| (node % nodes + nodes - step) % nodes)
    }

    /// Which of a node's replicas is that of a part.
    pub(super) fn replica_of(&self, part: u32, node: u32) -> Option<usize> {
        self.kept_by(node).position(|kept| kept == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_kept_by_its_node_and_the_next_ones() {
        let placement = Placement::new(5, 3);
        assert_eq!(placement.home_of(4), 4);
        assert!(placement.standbys(4).eq([0, 1]));
        assert!(placement.kept_by(1).eq([0, 4]));
        for part in 0..5 {
            for node in 0..5 {
                let stands_by = placement.standbys(part).any(|other| other == node);
                assert_eq!(placement.replica_of(part, node).is_some(), stands_by, "{part} {node}");
            }
        }
        assert_eq!(Placement::new(5, 1).standbys(4).count(), 0);
    }

    #[test]
    fn without_a_node_each_part_is_at_home_with_who_keeps_it_next() {
        let all = Placement::new(4, 2);
        let fewer = all.without(3);
        assert_eq!((all.epoch(), fewer.epoch(), fewer.without(3).epoch()), (0, 1, 1));
        assert_eq!([0, 1, 2, 3].map(|part| fewer.home_of(part)), [0, 1, 2, 0]);
        assert_eq!(fewer.standbys(2).count() + fewer.standbys(3).count(), 0);
        assert!(fewer.standbys(1).eq([2]));
        // Nobody is left.
        assert_eq!(fewer.without(0).home_of(3), 3);
        let gone = (0..1000_u64).filter(|i| {
            let hash = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let part = all.part_of(hash);
            fewer.home_of(part) != part && !all.standbys(part).any(|node| node == fewer.home_of(part))
        });
        assert_eq!(gone.count(), 0);
    }

    #[test]
    fn every_part_has_about_as_many_keys() {
        let placement = Placement::new(3, 2);
        let mut counts = [0; 3];
        for i in 0..30_000_u64 {
            counts[placement.part_of(xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes())) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
    }
}
