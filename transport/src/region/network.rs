//! Regions that peers reach through a network. Beside its bytes a region has a word with its number; each access reads
//! that word as well, and finds another one there when the owner has dropped the region.
//!
//! A segment that is shown has no such word: who reads there finds out by what it reads whether that is what it should
//! be, and finds zeros once the segment is shown no more.
//!
//! A key bears a hash of itself and of the world's number, so bytes that are no key of this world reach nobody's
//! memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Memory, Place, Region, RemoteKey, check_bounds};
use crate::fabric::{FabricError, Pages, Target, Ucx};
use crate::rank::Rank;
use crate::segment::Segment;

/// Where a region lies, for the network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Far {
    number: u64,
    address: u64,
    packed: Vec<u8>,
    /// A segment that is shown, without a word.
    is_shown: bool,
    hash: u64,
}

impl Far {
    pub(super) fn is_shown(&self) -> bool {
        self.is_shown
    }

    fn hash(&self, rank: Rank, bytes: u64, world: u64) -> u64 {
        let words = [u64::from(rank.0), bytes, self.number, self.address, u64::from(self.is_shown)];
        let mut text: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        text.extend_from_slice(&self.packed);
        xxh3_64_with_seed(&text, world)
    }
}

/// A region of this rank.
pub(super) struct Owned {
    pages: Arc<Pages>,
}

impl Owned {
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.pages.read(offset, bytes);
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        self.pages.write(offset, bytes);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.pages.retire();
    }
}

/// The regions of this rank, by their numbers.
#[derive(Default)]
pub(crate) struct NetworkRegions {
    last: AtomicU64,
    own: Mutex<HashMap<u64, Weak<Owned>>>,
}

impl NetworkRegions {
    pub(crate) fn create(&self, ucx: &Ucx, rank: Rank, bytes: u64) -> Result<Region, FabricError> {
        let number = self.next();
        let (pages, address, packed) = ucx.register(bytes, number)?;
        let far = Far { number, address, packed, is_shown: false, hash: 0 };
        Ok(self.add(ucx, rank, bytes, far, pages))
    }

    /// Lets peers read all of a segment.
    pub(crate) fn show(&self, ucx: &Ucx, rank: Rank, segment: &Segment) -> Result<Region, FabricError> {
        let number = self.next();
        let (pages, address, packed) = ucx.show(segment)?;
        let far = Far { number, address, packed, is_shown: true, hash: 0 };
        Ok(self.add(ucx, rank, segment.bytes(), far, pages))
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn add(&self, ucx: &Ucx, rank: Rank, bytes: u64, mut far: Far, pages: Arc<Pages>) -> Region {
        far.hash = far.hash(rank, bytes, ucx.world());
        let owned = Arc::new(Owned { pages });
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, region| region.strong_count() > 0);
        own.insert(far.number, Arc::downgrade(&owned));
        let key = RemoteKey { rank, bytes, place: Place::Far(far) };
        Region { key, memory: Memory::Far(owned) }
    }

    pub(crate) fn put(
        &self,
        ucx: &Ucx,
        own: Rank,
        key: &RemoteKey,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), FabricError> {
        let far = check(ucx, key, offset, bytes.len())?;
        if far.is_shown {
            return Err(FabricError::RegionShown { rank: key.rank });
        }
        if key.rank == own {
            self.find(far, key)?.write(offset, bytes);
            return Ok(());
        }
        alive(key, ucx.put_to(&target(key, far), offset, bytes)?)
    }

    pub(crate) fn get(
        &self,
        ucx: &Ucx,
        own: Rank,
        key: &RemoteKey,
        reads: &mut [(u64, &mut [u8])],
    ) -> Result<(), FabricError> {
        let far = check(ucx, key, 0, 0)?;
        reads.iter().try_for_each(|(offset, bytes)| check_bounds(key, *offset, bytes.len()))?;
        if key.rank == own {
            let owned = self.find(far, key)?;
            reads.iter_mut().for_each(|(offset, bytes)| owned.read(*offset, bytes));
            return Ok(());
        }
        alive(key, ucx.get_from(&target(key, far), reads)?)
    }

    fn find(&self, far: &Far, key: &RemoteKey) -> Result<Arc<Owned>, FabricError> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get(&far.number).and_then(Weak::upgrade).ok_or(FabricError::RegionGone { rank: key.rank })
    }
}

fn check<'k>(ucx: &Ucx, key: &'k RemoteKey, offset: u64, count: usize) -> Result<&'k Far, FabricError> {
    check_bounds(key, offset, count)?;
    match &key.place {
        Place::Far(far) if far.hash == far.hash(key.rank, key.bytes, ucx.world()) => Ok(far),
        _ => Err(FabricError::RegionForeign { rank: key.rank }),
    }
}

fn target<'k>(key: &RemoteKey, far: &'k Far) -> Target<'k> {
    let number = (!far.is_shown).then_some(far.number);
    Target { rank: key.rank, number, address: far.address, packed: &far.packed }
}

fn alive(key: &RemoteKey, lives: bool) -> Result<(), FabricError> {
    if lives { Ok(()) } else { Err(FabricError::RegionGone { rank: key.rank }) }
}
