//! The floors: an array in shared memory whose slots are read by version check, and memory that is copied to.
//!
//! A slot of 8 bytes is a version and a value side by side, written under an odd version. A slot of a larger value is
//! one word that names a block; a writer fills a block nobody reads, then stores the word, and uses the old block
//! again after all other free ones. A reader looks at the block and then sees whether the word is the same. There is
//! one writer.

use super::{Ends, Plan, Store, stamp};
use crate::beside::page::Page;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// Blocks that are free at any time.
const SPARE: u64 = 16;

/// Words of a slot: one cache line, as in any table that is not an array.
const SLOT: usize = 8;

/// An array in shared memory.
pub(crate) struct Floor {
    page: Page,
    plan: Plan,
    /// Free blocks, oldest first; the writer's.
    free: VecDeque<u64>,
}

impl Floor {
    /// The array of this process, with a value for every key; all writes from now on are one other process's.
    pub(crate) fn create(plan: Plan) -> Self {
        let blocks = if plan.size == 8 { 0 } else { plan.bytes() / 8 + SPARE as usize * plan.size / 8 };
        let floor = Self::with(Page::create(plan.keys as usize * SLOT + blocks), plan);
        for key in 0..plan.keys {
            floor.value(key).store(stamp(key, 0), Relaxed);
            if plan.size > 8 {
                let (words, at) = (floor.page.words(), floor.block(key));
                floor.slot(key).store(key, Relaxed);
                words[at].store(stamp(key, 0), Relaxed);
                words[at + plan.size / 8 - 1].store(stamp(key, 0), Relaxed);
            }
        }
        floor
    }

    /// Memory for as many values, all of it to be copied to.
    pub(crate) fn memory(plan: Plan) -> Self {
        Self { free: (0..plan.keys).collect(), ..Self::create(plan) }
    }

    /// Counters, all zero.
    pub(crate) fn counters(plan: Plan) -> Self {
        let floor = Self::create(plan);
        (0..plan.keys).for_each(|key| floor.value(key).store(0, Relaxed));
        floor
    }

    /// The array of another process.
    pub(crate) fn attach(address: &str, plan: Plan) -> Self {
        Self::with(Page::open(address), plan)
    }

    fn with(page: Page, plan: Plan) -> Self {
        Self { page, plan, free: (plan.keys..plan.keys + SPARE).collect() }
    }

    pub(crate) fn address(&self) -> String {
        self.page.address()
    }

    /// The version of a small value, the name of the block of a large one.
    fn slot(&self, key: u64) -> &AtomicU64 {
        &self.page.words()[key as usize * SLOT]
    }

    fn value(&self, key: u64) -> &AtomicU64 {
        &self.page.words()[key as usize * SLOT + 1]
    }

    /// The first word of a block.
    fn block(&self, block: u64) -> usize {
        self.plan.keys as usize * SLOT + block as usize * self.plan.size / 8
    }

    /// Copies a value to a block that was not written for longest, and reads its ends: what a put cannot do without.
    pub(crate) fn copy(&mut self, value: &[u8]) -> Ends {
        let block = self.free.pop_front().expect("a free block");
        self.free.push_back(block);
        let at = self.block(block);
        self.page.copy_in(at, value);
        self.ends(at)
    }

    /// Reads a value without looking at its version, as the walk of an array does.
    pub(crate) fn plain(&self, key: u64) -> u64 {
        self.value(key).load(Relaxed)
    }

    /// The ends of the block that begins at a word.
    fn ends(&self, at: usize) -> Ends {
        let words = self.page.words();
        Ends(words[at].load(Relaxed), words[at + self.plan.size / 8 - 1].load(Relaxed))
    }
}

impl Store for Floor {
    fn get(&mut self, key: u64) -> u64 {
        let version = self.slot(key);
        loop {
            let before = version.load(Acquire);
            let value = self.value(key).load(Relaxed);
            // Pairs with the writer's fence: who sees a new value sees its odd version too.
            fence(Acquire);
            if before.is_multiple_of(2) && version.load(Relaxed) == before {
                return value;
            }
        }
    }

    fn set(&mut self, key: u64, value: u64) {
        let version = self.slot(key);
        let before = version.load(Relaxed);
        version.store(before + 1, Relaxed);
        fence(Release);
        self.value(key).store(value, Relaxed);
        version.store(before + 2, Release);
    }

    fn pinned(&mut self, key: u64) -> Ends {
        let slot = self.slot(key);
        loop {
            let name = slot.load(Acquire);
            let ends = self.ends(self.block(name & u64::from(u32::MAX)));
            fence(Acquire);
            if slot.load(Relaxed) == name {
                return ends;
            }
        }
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        let block = self.free.pop_front().expect("a free block");
        self.page.copy_in(self.block(block), value);
        let slot = self.slot(key);
        let before = slot.load(Relaxed);
        let version = (before >> 32).wrapping_add(1) << 32;
        slot.store(version | block, Release);
        self.free.push_back(before & u64::from(u32::MAX));
    }

    fn fetch_add(&mut self, key: u64) -> u64 {
        self.value(key).fetch_add(1, Relaxed)
    }

    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>) {
        values.extend(keys.iter().map(|key| self.get(*key)));
    }
}
