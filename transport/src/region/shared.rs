//! Regions in shared memory: each a segment of its own, mapped by a peer at its first access and kept mapped.
//!
//! The first line of the segment's control part holds a word that says whether the region lives: 1 from its creation
//! until its owner drops it. The bytes follow. A peer that has the segment mapped looks at the word before each
//! access, one that has not finds the segment gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Memory, Place, Region, RemoteKey, check_bounds};
use crate::copy;
use crate::error::SegmentError;
use crate::fabric::FabricError;
use crate::rank::Rank;
use crate::segment::{Segment, Spec};
use crate::sync::{AtomicU64, Ordering};

const KIND: &str = "region";
const LAYOUT: u32 = 1;
/// Bytes before those of the region.
const HEAD_BYTES: u64 = 64;
/// Segments of peers that stay mapped; beyond, all are let go and mapped again when needed.
const MAPPED_MAX: usize = 256;

/// A region of this rank.
pub(super) struct Owned {
    segment: Arc<Segment>,
}

/// The regions this rank has reached.
#[derive(Default)]
pub(crate) struct SharedRegions {
    mapped: Mutex<HashMap<u128, Arc<Segment>>>,
}

impl SharedRegions {
    pub(crate) fn create(&self, rank: Rank, bytes: u64) -> Result<Region, FabricError> {
        let control_bytes = HEAD_BYTES.saturating_add(bytes);
        let segment = Segment::create(&Spec { kind: KIND, layout: LAYOUT, control_bytes, heap_bytes: 0 })?;
        let alive: &AtomicU64 = segment.at(segment.control()).expect("the control part has a head");
        alive.store(1, Ordering::Release);
        let key = RemoteKey { rank, bytes, place: Place::Shared(segment.name().clone()) };
        Ok(Region { key, memory: Memory::Shared(Owned { segment }) })
    }

    pub(crate) fn put(&self, key: &RemoteKey, offset: u64, bytes: &[u8]) -> Result<(), FabricError> {
        check_bounds(key, offset, bytes.len())?;
        let segment = self.find(key)?;
        let inside = copy::write(&segment, segment.control() + HEAD_BYTES + offset, bytes);
        inside.ok_or_else(|| outside(key, offset, bytes.len()))
    }

    pub(crate) fn get(&self, key: &RemoteKey, offset: u64, bytes: &mut [u8]) -> Result<(), FabricError> {
        check_bounds(key, offset, bytes.len())?;
        let segment = self.find(key)?;
        let inside = copy::read(&segment, segment.control() + HEAD_BYTES + offset, bytes);
        inside.ok_or_else(|| outside(key, offset, bytes.len()))
    }

    fn find(&self, key: &RemoteKey) -> Result<Arc<Segment>, FabricError> {
        let Place::Shared(name) = &key.place else {
            return Err(FabricError::RegionForeign { rank: key.rank });
        };
        let gone = FabricError::RegionGone { rank: key.rank };
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = match mapped.get(&name.uid) {
            Some(segment) => segment.clone(),
            None => match Segment::open(name, KIND, LAYOUT) {
                Ok(segment) => segment,
                Err(SegmentError::Gone { .. }) => return Err(gone),
                Err(error) => return Err(error.into()),
            },
        };
        let alive: Option<&AtomicU64> = segment.at(segment.control());
        if alive.is_none_or(|alive| alive.load(Ordering::Acquire) != 1) {
            mapped.remove(&name.uid);
            return Err(gone);
        }
        if mapped.len() >= MAPPED_MAX && !mapped.contains_key(&name.uid) {
            mapped.clear();
        }
        mapped.insert(name.uid, segment.clone());
        Ok(segment)
    }
}

/// The key says more bytes than the segment has: it was not made by the region's owner.
fn outside(key: &RemoteKey, offset: u64, count: usize) -> FabricError {
    FabricError::RegionBounds { offset, end: offset.saturating_add(count as u64), length: key.bytes }
}

impl Owned {
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FabricError> {
        let inside = copy::read(&self.segment, self.segment.control() + HEAD_BYTES + offset, bytes);
        inside.ok_or(FabricError::RegionBounds { offset, end: u64::MAX, length: 0 })
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FabricError> {
        let inside = copy::write(&self.segment, self.segment.control() + HEAD_BYTES + offset, bytes);
        inside.ok_or(FabricError::RegionBounds { offset, end: u64::MAX, length: 0 })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let alive: Option<&AtomicU64> = self.segment.at(self.segment.control());
        if let Some(alive) = alive {
            alive.store(0, Ordering::Release);
        }
        self.segment.unlink();
    }
}
