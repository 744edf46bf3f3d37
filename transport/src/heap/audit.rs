//! Counting the heap: how much is used, and whether what is allocated is what its users can reach.

use super::entry::{Entry, Tag};
use super::layout::UNIT_BYTES;
use super::{Audit, Usage};
use crate::segment::Segment;
use crate::sync::Ordering;
use std::collections::{BTreeMap, BTreeSet};

impl Segment {
    /// How much is used. A scan of the unit table and the spans' tags.
    pub fn usage(&self) -> Usage {
        let mut allocated = 0;
        self.for_each_block(&mut |_, bytes, _| allocated += bytes);
        Usage { capacity: self.plan.units * UNIT_BYTES, committed: self.committed() * UNIT_BYTES, allocated }
    }

    /// Compares the allocated blocks with those that `reachable` names, while nobody writes. A scan.
    ///
    /// Blocks in an agent's held or retired table, and dropped ones (retired, pinned by somebody when last seen), are
    /// no leaks.
    pub fn audit(&self, reachable: &mut dyn FnMut(&mut dyn FnMut(u64))) -> Audit {
        let mut blocks: BTreeMap<u64, (u64, Tag)> = BTreeMap::new();
        self.for_each_block(&mut |offset, bytes, tag| {
            blocks.insert(offset, (bytes, tag));
        });
        let mut known = BTreeSet::new();
        let mut dangling = Vec::new();
        reachable(&mut |offset| match blocks.get(&offset) {
            Some(_) => {
                known.insert(offset);
            }
            None => dangling.push(offset),
        });
        for (_, _, record) in self.agents() {
            let words = record.held.iter().chain(&record.retired).map(|it| it.load(Ordering::Acquire));
            for entry in words.filter_map(Entry::from_word) {
                let of_this = |(_, tag): &(u64, Tag)| tag.generation == entry.generation();
                if blocks.get(&entry.offset()).is_some_and(of_this) {
                    known.insert(entry.offset());
                }
            }
        }
        let leaked = blocks.iter().filter(|(offset, (_, tag))| !tag.dropped && !known.contains(offset));
        let leaked = leaked.map(|(offset, (bytes, _))| (*offset, *bytes)).collect();
        Audit { leaked, dangling, blocks: blocks.len() as u64 }
    }
}
