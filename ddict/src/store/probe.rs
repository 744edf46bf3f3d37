//! What tests see of another process and of the index. Users need nothing of it.

use super::entry::Entry;
use super::intent::{ENTRY, Intent, PAGE};
use super::key::Key;
use super::page::Page;
use super::{Store, damaged};
use crate::error::Error;

/// What is under way in another process, as bits above the low byte, which is the kind of its intent.
pub(crate) mod sign {
    /// It is a member.
    pub(crate) const MEMBER: u64 = 1 << 8;
    /// It has an agent.
    pub(crate) const AGENT: u64 = 1 << 9;
    /// It has an entry's lock.
    pub(crate) const ENTRY: u64 = 1 << 10;
    /// It has a page's lock.
    pub(crate) const PAGE: u64 = 1 << 11;
    /// It holds blocks.
    pub(crate) const HELD: u64 = 1 << 12;
    /// It has pins.
    pub(crate) const PIN: u64 = 1 << 13;
    /// It has the heap's lock.
    pub(crate) const HEAP: u64 = 1 << 14;
    /// It has the lock of the checkpoints.
    pub(crate) const TURN: u64 = 1 << 15;
    /// It has the lock of a directory.
    pub(crate) const DIRECTORY: u64 = 1 << 16;
}

impl Store {
    /// See `sign`.
    pub(crate) fn under_way(&self, pid: u32) -> u64 {
        let Some(probe) = self.segment.probe(pid) else {
            return if self.segment.is_member(pid) { sign::MEMBER } else { 0 };
        };
        let intent = Intent::of(probe.record);
        let entry = self.segment.at::<Entry>(intent.word(ENTRY));
        let page = self.segment.at::<Page>(intent.word(PAGE));
        let mut shards = (0..self.options.shards).map(|shard| self.shard_at(shard));
        let signs = [
            (sign::ENTRY, entry.is_some_and(|entry| entry.load().owner() == probe.id)),
            (sign::PAGE, page.is_some_and(|page| page.lock.owner() == Some(probe.id))),
            (sign::HELD, probe.is_holding),
            (sign::PIN, probe.is_pinning),
            (sign::HEAP, probe.is_in_heap),
            (sign::TURN, self.root().turn.owner() == Some(probe.id)),
            (sign::DIRECTORY, shards.any(|shard| shard.lock.owner() == Some(probe.id))),
        ];
        let found = signs.into_iter().filter(|(_, is_so)| *is_so).map(|(sign, _)| sign);
        found.fold(intent.kind() | sign::MEMBER | sign::AGENT, |all, sign| all | sign)
    }

    /// Of the page that a key belongs to: keys in it, and its depth; and the depth of the directory.
    pub(crate) fn page_of(&self, key: &[u8]) -> Result<(u64, u32, u32), Error> {
        let key = Key::new(key, self.seed)?;
        let (offset, page) = self.page_for(key.hash)?;
        let cover = page.cover().ok_or_else(|| damaged("the head of a page", offset))?;
        Ok((page.live(), cover.depth, self.directory(self.shard_for(key.hash))?.depth))
    }

    /// Living members, and agents in use.
    pub(crate) fn participants(&self) -> (u32, usize) {
        (self.segment.members(), self.segment.agents_in_use())
    }
}
