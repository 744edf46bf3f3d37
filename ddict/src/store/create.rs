//! Making a dictionary, and attaching to one.

use super::layout::{
    CHECKSUMS, COPIED_CELLS, LAYOUT, READY, REPLICATED, ROOT_BYTES, Root, SHARD_BYTES, WAIT_FOR_KEYS,
    WAITERS, Word, seal,
};
use super::page::Cover;
use super::{Options, Store, damaged};
use crate::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tarragon_transport::agent::Agent;
use tarragon_transport::segment::{Segment, SegmentName, Spec};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const KIND: &str = "ddict";

impl Store {
    pub(crate) fn create(options: &Options) -> Result<Self, Error> {
        let tables = WAITERS * 8 + COPIED_CELLS * 4;
        let control_bytes = ROOT_BYTES + u64::from(options.shards) * SHARD_BYTES + tables;
        let spec = Spec { kind: KIND, layout: LAYOUT, control_bytes, heap_bytes: options.memory_bytes };
        let segment = Segment::create(&spec)?;
        let uid = segment.name().uid;
        let seed = options.seed.unwrap_or((uid ^ uid >> 64) as u64 | 1);
        let control = segment.control();
        let mut options = options.clone();
        if options.wait_for_keys {
            // A key is written anew in the next checkpoint while this one is still there: that takes two.
            options.working_set = options.working_set.max(2);
        }
        let (mapping, is_light) = (segment.mapping(), segment.is_light());
        let is_uncounted = AtomicBool::new(false);
        let store = Self { mapping, is_light, segment, options, control, seed, is_uncounted, give_up: None };
        let root = store.root();
        for (word, value) in words_of(root).into_iter().zip(store.fixed_words()) {
            word.store(value, Ordering::Relaxed);
        }
        root.check.store(check(&store.fixed_words()), Ordering::Relaxed);
        {
            let agent = store.segment.agent()?;
            for shard in 0..store.options.shards {
                store.create_shard(&agent, shard)?;
            }
        }
        let replicated = if store.options.replicas > 1 { REPLICATED } else { 0 };
        store.root().flags.store(READY | replicated, Ordering::SeqCst);
        Ok(store)
    }

    fn create_shard(&self, agent: &Agent<'_>, shard: u32) -> Result<(), Error> {
        let page = self.segment.alloc_page(agent)?;
        self.page_at(page.block.offset)?.clear(Cover { depth: 0, prefix: 0 });
        let directory = self.segment.alloc(agent, 64 + 8)?;
        let offset = directory.block.offset;
        for at in [offset, offset + 64] {
            let sealed = seal(if at == offset { 0 } else { page.block.offset });
            let word = self.segment.at::<Word>(at).ok_or_else(|| damaged("a directory", offset))?;
            word.0.store(sealed, Ordering::Relaxed);
        }
        self.shard_at(shard).directory.store(seal(offset), Ordering::SeqCst);
        self.segment.forget(agent, page);
        self.segment.forget(agent, directory);
        Ok(())
    }

    /// Attaches; the options come from the segment.
    pub(crate) fn open(name: &SegmentName) -> Result<Self, Error> {
        let segment = Segment::open(name, KIND, LAYOUT)?;
        let control = segment.control();
        let root: &Root = segment.at(control).ok_or_else(|| damaged("the size of the segment", control))?;
        let words = words_of(root).map(|word| word.load(Ordering::Relaxed));
        if root.flags.load(Ordering::SeqCst) & READY == 0
            || root.check.load(Ordering::Relaxed) != check(&words)
        {
            return Err(damaged("the root of the dictionary", control));
        }
        let [seed, shards, options, working_set, types, timeout_ms, memory_bytes] = words;
        let options = Options {
            memory_bytes,
            shards: shards as u32,
            wait_for_keys: options & WAIT_FOR_KEYS != 0,
            working_set: working_set as u32,
            timeout_ms: (timeout_ms != u64::MAX).then_some(timeout_ms),
            checksums: options & CHECKSUMS != 0,
            types,
            seed: Some(seed),
            // Who opens one of several parts knows where the others are.
            replicas: 1,
        };
        let (mapping, is_light) = (segment.mapping(), segment.is_light());
        let is_uncounted = AtomicBool::new(false);
        let store = Self { mapping, is_light, segment, options, control, seed, is_uncounted, give_up: None };
        store.admit()?;
        store.recover();
        Ok(store)
    }

    /// What never changes, in the root's order.
    fn fixed_words(&self) -> [u64; 7] {
        let options = &self.options;
        let waits = if options.wait_for_keys { WAIT_FOR_KEYS } else { 0 };
        let sums = if options.checksums { CHECKSUMS } else { 0 };
        [
            self.seed,
            u64::from(options.shards),
            waits | sums,
            u64::from(options.working_set),
            options.types,
            options.timeout_ms.unwrap_or(u64::MAX),
            options.memory_bytes,
        ]
    }
}

fn words_of(root: &Root) -> [&AtomicU64; 7] {
    [
        &root.seed,
        &root.shards,
        &root.options,
        &root.working_set,
        &root.types,
        &root.timeout_ms,
        &root.memory_bytes,
    ]
}

fn check(words: &[u64; 7]) -> u64 {
    xxh3_64(&words.map(u64::to_le_bytes).concat())
}
