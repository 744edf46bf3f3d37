//! Regions of a rank alone: plain memory of the process, found by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Memory, Place, Region, RemoteKey, check_bounds};
use crate::fabric::FabricError;
use crate::rank::Rank;

/// The bytes of a region. Atomic, since a thread may put while another reads.
pub(super) type Bytes = Arc<[AtomicU8]>;

/// The regions of a loopback fabric.
#[derive(Default)]
pub(crate) struct LocalRegions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    regions: HashMap<u64, Weak<[AtomicU8]>>,
}

impl LocalRegions {
    pub(crate) fn create(&self, bytes: u64) -> Region {
        let memory: Bytes = (0..bytes).map(|_| AtomicU8::new(0)).collect();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.regions.retain(|_, region| region.strong_count() > 0);
        table.last += 1;
        let number = table.last;
        table.regions.insert(number, Arc::downgrade(&memory));
        let key = RemoteKey { rank: Rank(0), bytes, place: Place::Local(number) };
        Region { key, memory: Memory::Local(memory) }
    }

    pub(crate) fn put(&self, key: &RemoteKey, offset: u64, bytes: &[u8]) -> Result<(), FabricError> {
        let memory = self.find(key, offset, bytes.len())?;
        write(&memory, offset, bytes);
        Ok(())
    }

    pub(crate) fn get(&self, key: &RemoteKey, offset: u64, bytes: &mut [u8]) -> Result<(), FabricError> {
        let memory = self.find(key, offset, bytes.len())?;
        read(&memory, offset, bytes);
        Ok(())
    }

    fn find(&self, key: &RemoteKey, offset: u64, count: usize) -> Result<Bytes, FabricError> {
        let Place::Local(number) = key.place else {
            return Err(FabricError::RegionForeign { rank: key.rank });
        };
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = table.regions.get(&number).and_then(Weak::upgrade);
        let memory = memory.ok_or(FabricError::RegionGone { rank: key.rank })?;
        let length = memory.len() as u64;
        check_bounds(&RemoteKey { bytes: length.min(key.bytes), ..key.clone() }, offset, count)?;
        Ok(memory)
    }
}

/// Copies out; the caller has checked the bounds.
pub(super) fn read(memory: &Bytes, offset: u64, bytes: &mut [u8]) {
    let from = &memory[offset as usize..offset as usize + bytes.len()];
    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from.load(Relaxed));
}

/// Copies in; the caller has checked the bounds.
pub(super) fn write(memory: &Bytes, offset: u64, bytes: &[u8]) {
    let to = &memory[offset as usize..offset as usize + bytes.len()];
    to.iter().zip(bytes).for_each(|(to, &from)| to.store(from, Relaxed));
}
