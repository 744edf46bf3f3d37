//! Memory that a peer may get from or put to, and the key that lets it. How the bytes get there is left to `fabric`.

mod local;
mod network;
mod shared;

pub(crate) use local::LocalRegions;
pub(crate) use network::NetworkRegions;
pub(crate) use shared::SharedRegions;

use serde::{Deserialize, Serialize};

use crate::fabric::FabricError;
use crate::rank::Rank;
use crate::segment::SegmentName;

/// Memory of this rank that peers may reach. When it is dropped, accesses by its keys become errors.
pub struct Region {
    key: RemoteKey,
    memory: Memory,
}

enum Memory {
    Local(local::Bytes),
    Shared(shared::Owned),
    Far(std::sync::Arc<network::Owned>),
}

/// What lets a rank of the world put to and get from a region: plain data, to be sent to whoever may.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteKey {
    rank: Rank,
    bytes: u64,
    place: Place,
}

/// Where a region lies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Place {
    /// In the memory of the only rank, under a number.
    Local(u64),
    /// In a segment of its own.
    Shared(SegmentName),
    /// In memory that the network reaches.
    Far(network::Far),
}

impl RemoteKey {
    /// Whose memory it is.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Region {
    /// The key that lets peers reach it.
    pub fn key(&self) -> &RemoteKey {
        &self.key
    }

    /// Copies from `offset` on into `bytes`. What a peer puts meanwhile may be seen in part.
    ///
    /// # Errors
    /// `RegionBounds` if that is not inside.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FabricError> {
        check_bounds(&self.key, offset, bytes.len())?;
        match &self.memory {
            Memory::Local(memory) => local::read(memory, offset, bytes),
            Memory::Shared(memory) => memory.read(offset, bytes)?,
            Memory::Far(memory) => memory.read(offset, bytes),
        }
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// `RegionBounds` if that is not inside; `RegionShown` of a segment.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FabricError> {
        check_bounds(&self.key, offset, bytes.len())?;
        if matches!(&self.key.place, Place::Far(far) if far.is_shown()) {
            return Err(FabricError::RegionShown { rank: self.key.rank });
        }
        match &self.memory {
            Memory::Local(memory) => local::write(memory, offset, bytes),
            Memory::Shared(memory) => memory.write(offset, bytes)?,
            Memory::Far(memory) => memory.write(offset, bytes),
        }
        Ok(())
    }
}

fn check_bounds(key: &RemoteKey, offset: u64, count: usize) -> Result<(), FabricError> {
    let end = offset.saturating_add(count as u64);
    if end <= key.bytes { Ok(()) } else { Err(FabricError::RegionBounds { offset, end, length: key.bytes }) }
}
