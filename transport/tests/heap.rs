//! The heap against a model: blocks never overlap, all are freed, frees by other threads are found again, memory short
//! is an error and then none. Processes that die are in `crash`.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use tarragon_transport::HeapError;
use tarragon_transport::agent::HELD_MAX;
use tarragon_transport::heap::{Audit, Held};
use tarragon_transport::segment::{Segment, Spec};

fn segment(heap_bytes: u64) -> Arc<Segment> {
    Segment::create(&Spec { kind: "heap", layout: 1, control_bytes: 4096, heap_bytes }).unwrap()
}

/// A small generator of numbers: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn size(&mut self) -> u64 {
        let bits = self.below(19);
        1 + self.below(2 << bits)
    }
}

fn words(segment: &Segment, offset: u64, bytes: u64) -> &[std::sync::atomic::AtomicU64] {
    segment.slice(offset, bytes / 8).unwrap()
}

fn fill(segment: &Segment, offset: u64, bytes: u64, stamp: u64) {
    words(segment, offset, bytes).iter().for_each(|it| it.store(stamp, std::sync::atomic::Ordering::Relaxed));
}

fn holds(segment: &Segment, offset: u64, bytes: u64, stamp: u64) -> bool {
    words(segment, offset, bytes).iter().all(|it| it.load(std::sync::atomic::Ordering::Relaxed) == stamp)
}

fn audit(segment: &Segment, offsets: impl Iterator<Item = u64> + Clone) -> Audit {
    segment.audit(&mut |reach| offsets.clone().for_each(reach))
}

fn assert_clean(audit: &Audit) {
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn blocks_keep_what_is_written_until_they_are_freed() {
    let segment = segment(64 << 20);
    let agent = segment.agent().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut live: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for stamp in 1..60_000_u64 {
        let is_full = live.values().map(|(bytes, _)| bytes).sum::<u64>() > 24 << 20;
        if is_full || (random.below(100) < 48 && !live.is_empty()) {
            let at = random.below(segment.bytes());
            let offset = *live.range(at..).next().or_else(|| live.iter().next()).unwrap().0;
            let (bytes, stamp) = live.remove(&offset).unwrap();
            assert!(holds(&segment, offset, bytes, stamp), "overwritten at {offset}");
            if random.below(2) == 0 {
                segment.retire(&agent, offset);
            } else {
                let held = segment.hold(&agent, offset).unwrap();
                segment.free(agent.record, held);
            }
        } else {
            let bytes = random.size();
            let held = segment.alloc(&agent, bytes).unwrap();
            let offset = held.block.offset;
            let room = segment.block_bytes(offset).unwrap();
            assert!(room >= bytes && offset.is_multiple_of(64));
            fill(&segment, offset, room, stamp);
            assert!(live.insert(offset, (room, stamp)).is_none());
            segment.forget(&agent, held);
        }
    }
    assert!(live.iter().all(|(offset, (bytes, stamp))| holds(&segment, *offset, *bytes, *stamp)));
    let mut ends = live.iter().map(|(offset, (bytes, _))| (*offset, offset + bytes)).collect::<Vec<_>>();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "blocks overlap");
    segment.reclaim(&agent);
    let found = audit(&segment, live.keys().copied());
    assert_clean(&found);
    assert_eq!(found.blocks, live.len() as u64);
    live.keys().for_each(|offset| segment.retire(&agent, *offset));
    segment.reclaim(&agent);
    assert_eq!(segment.usage().allocated, 0);
}

#[test]
fn freeing_twice_frees_once() {
    let segment = segment(16 << 20);
    let agent = segment.agent().unwrap();
    for bytes in [64, 100 << 10] {
        let first = segment.alloc(&agent, bytes).unwrap();
        segment.free(agent.record, first);
        let second = segment.alloc(&agent, bytes).unwrap();
        assert_eq!(first.block.offset, second.block.offset, "the block freed last is the next one");
        assert_ne!(first.block.generation, second.block.generation);
        segment.free(agent.record, Held { slot: first.slot + 1, ..first });
        assert!(segment.block_bytes(second.block.offset).is_some(), "an old allocation freed a new one");
        segment.free(agent.record, second);
    }
}

#[test]
fn blocks_freed_by_another_thread_are_used_again() {
    let segment = segment(32 << 20);
    let (send, receive) = mpsc::sync_channel::<u64>(64);
    std::thread::scope(|scope| {
        let segment = &segment;
        scope.spawn(move || {
            let agent = segment.agent().unwrap();
            receive.iter().for_each(|offset| segment.retire(&agent, offset));
            // A scope ends before its threads' destructors do.
            segment.reclaim(&agent);
        });
        let agent = segment.agent().unwrap();
        let mut random = Random(7);
        // Ten times what fits.
        for _ in 0..80_000 {
            let held = segment.alloc(&agent, 1 + random.below(8000)).unwrap();
            let offset = held.block.offset;
            segment.forget(&agent, held);
            send.send(offset).unwrap();
        }
        drop(send);
    });
    assert_eq!(segment.usage().allocated, 0);
}

#[test]
fn a_full_heap_says_so_and_gives_again_what_was_freed() {
    let segment = segment(8 << 20);
    let agent = segment.agent().unwrap();
    for bytes in [64, 1000, 20_000, 100_000, 4 << 20] {
        let mut blocks = Vec::new();
        let error = loop {
            match segment.alloc(&agent, bytes) {
                Ok(held) => {
                    segment.forget(&agent, held);
                    blocks.push(held.block.offset);
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, HeapError::Full { needed, .. } if needed >= bytes), "{error}");
        let used = blocks.len() as u64 * bytes;
        assert!(used >= (8 << 20) * 3 / 4, "{bytes}: only {used} of 8 MiB could be used");
        blocks.into_iter().for_each(|offset| segment.retire(&agent, offset));
    }
    assert!(matches!(segment.alloc(&agent, 9 << 20), Err(HeapError::TooLarge { .. })));
}

#[test]
fn pages_stay_pages_and_are_zero_at_first() {
    let segment = segment(4 << 20);
    let agent = segment.agent().unwrap();
    let dirt = segment.alloc(&agent, 3 << 20).unwrap();
    fill(&segment, dirt.block.offset, 3 << 20, u64::MAX);
    segment.free(agent.record, dirt);
    let page = segment.alloc_page(&agent).unwrap();
    assert_eq!(page.block.offset % 4096, 0);
    assert!(holds(&segment, page.block.offset, 4096, 0));
    fill(&segment, page.block.offset, 4096, 5);
    segment.free(agent.record, page);
    // Memory short takes empty spans back, but not this one.
    while let Ok(held) = segment.alloc(&agent, 4000) {
        assert_ne!(held.block.offset & !4095, page.block.offset);
        segment.forget(&agent, held);
    }
    assert!(holds(&segment, page.block.offset, 4096, 5));
    assert_eq!(segment.alloc_page(&agent).unwrap().block.offset, page.block.offset);
}

#[test]
fn few_large_blocks_take_turns() {
    let segment = segment(256 << 20);
    let agent = segment.agent().unwrap();
    for bytes in [1 << 20, 8 << 20] {
        let mut seen = std::collections::BTreeSet::new();
        let mut published = 0;
        for _ in 0..100 {
            let held = segment.alloc(&agent, bytes).unwrap();
            segment.forget(&agent, held);
            segment.retire(&agent, published);
            published = held.block.offset;
            seen.insert(published);
        }
        segment.retire(&agent, published);
        segment.reclaim(&agent);
        // What was retired is looked at together, 16 MiB at a time; an operation under way keeps its own.
        let most = ((16 << 20) / bytes + 2) as usize;
        assert!(seen.len() <= most, "{bytes}: {} places, at most {most}", seen.len());
    }
}

#[test]
fn pinned_blocks_stay_until_the_pin_goes() {
    let segment = segment(16 << 20);
    let agent = segment.agent().unwrap();
    for bytes in [64, 1 << 20] {
        let held = segment.alloc(&agent, bytes).unwrap();
        segment.forget(&agent, held);
        let pin = agent.pin(held.block.offset).unwrap();
        segment.retire(&agent, held.block.offset);
        segment.reclaim(&agent);
        assert!(segment.block_bytes(held.block.offset).is_some(), "freed while pinned");
        std::thread::scope(|scope| scope.spawn(|| drop(pin)).join().unwrap());
        segment.reclaim(&agent);
        assert!(segment.block_bytes(held.block.offset).is_none(), "not freed after the pin was gone");
    }
}

#[test]
fn more_pinned_blocks_than_any_table_holds_wait_for_nobody() {
    let segment = segment(16 << 20);
    let agent = segment.agent().unwrap();
    let mut pins = Vec::new();
    for _ in 0..tarragon_transport::pin::PINS_MAX {
        let held = segment.alloc(&agent, 64).unwrap();
        segment.forget(&agent, held);
        pins.push(agent.pin(held.block.offset).unwrap());
        segment.retire(&agent, held.block.offset);
    }
    assert!(agent.pin(64).is_none(), "one pin too many");
    segment.reclaim(&agent);
    assert_eq!(segment.usage().allocated, 64 * pins.len() as u64);
    assert_clean(&audit(&segment, std::iter::empty()));
    drop(pins);
    // Dropped blocks are found when memory is short.
    while segment.alloc(&agent, 4 << 20).map(|held| segment.forget(&agent, held)).is_ok() {}
    segment.reclaim(&agent);
    assert!(audit(&segment, std::iter::empty()).leaked.iter().all(|(_, bytes)| *bytes == 4 << 20));
    assert_eq!(segment.usage().allocated % (4 << 20), 0);
}

#[test]
fn an_agent_holds_a_bounded_number_of_blocks() {
    let segment = segment(16 << 20);
    let agent = segment.agent().unwrap();
    let held: Vec<Held> = (0..HELD_MAX).map(|_| segment.alloc(&agent, 1).unwrap()).collect();
    assert!(matches!(segment.alloc(&agent, 1), Err(HeapError::Held { max: HELD_MAX })));
    held.into_iter().for_each(|held| segment.free(agent.record, held));
    assert_eq!(segment.usage().allocated, 0);
}

#[test]
fn garbage_offsets_are_refused() {
    let segment = segment(4 << 20);
    let agent = segment.agent().unwrap();
    let held = segment.alloc(&agent, 200).unwrap();
    segment.forget(&agent, held);
    let before = segment.usage();
    for offset in
        [0, 1, 64, held.block.offset + 64, held.block.offset - 64, segment.bytes(), u64::MAX, u64::MAX - 63]
    {
        assert_eq!(segment.block_bytes(offset), None, "{offset}");
        assert!(segment.hold(&agent, offset).is_err());
        segment.retire(&agent, offset);
    }
    segment.reclaim(&agent);
    assert_eq!(segment.usage(), before);
    assert!(segment.read(segment.bytes() - 1, 2).is_null() && segment.read(u64::MAX, u64::MAX).is_null());
}
