//! What can go wrong between ranks.

use crate::error::{HeapError, SegmentError};
use crate::membership::{CastOut, Loss};
use crate::rank::Rank;

/// Why bytes did not get to a peer, or not from it.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The world has no such rank.
    #[error("there is no rank {rank}: the world has {size}")]
    NoSuchRank {
        /// The rank asked for.
        rank: Rank,
        /// Ranks there are.
        size: u32,
    },
    /// The payload is larger than any message can be.
    #[error("a payload of {bytes} bytes is too large for a message: {max} are the most")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The most a message can have.
        max: u64,
    },
    /// The peer's process has died. What was sent to it before may be lost.
    #[error("rank {rank} is dead")]
    PeerDead {
        /// Who.
        rank: Rank,
    },
    /// The world has lost the peer, and goes on without it.
    #[error("{0}")]
    Lost(Box<Loss>),
    /// This rank is of the world no longer: nothing goes out any more.
    #[error("rank {rank} is of the world no longer: {why}; it must end")]
    CastOut {
        /// This rank.
        rank: Rank,
        /// Why.
        why: CastOut,
    },
    /// The peer has left the world.
    #[error("rank {rank} has left the world")]
    PeerLeft {
        /// Who.
        rank: Rank,
    },
    /// The peer lives and has taken nothing for so long.
    #[error("rank {rank} lives, but has taken no message for {waited_ms} ms")]
    Stalled {
        /// Who.
        rank: Rank,
        /// How long this side has waited.
        waited_ms: u64,
    },
    /// Handlers, which may not wait, have sent more than is kept for them.
    #[error("handlers have sent {bytes} bytes to rank {rank} that it has not taken: {max} are kept")]
    Backlog {
        /// To whom.
        rank: Rank,
        /// Bytes that are kept already.
        bytes: u64,
        /// The most that are kept for one peer.
        max: u64,
    },
    /// The region was dropped by its owner.
    #[error("the region of rank {rank} is gone")]
    RegionGone {
        /// Its owner.
        rank: Rank,
    },
    /// A put or get beyond the end of the region.
    #[error("bytes {offset} to {end} do not lie in a region of {length} bytes")]
    RegionBounds {
        /// Where the access begins.
        offset: u64,
        /// Where it would end; the largest number if that cannot be told.
        end: u64,
        /// Bytes of the region.
        length: u64,
    },
    /// The key belongs to another kind of fabric.
    #[error("the key of a region of rank {rank} belongs to another fabric")]
    RegionForeign {
        /// Its owner.
        rank: Rank,
    },
    /// A put to a segment that is shown: peers only read it.
    #[error("the memory that rank {rank} shows is only read")]
    RegionShown {
        /// Its owner.
        rank: Rank,
    },
    /// Memory cannot be shown to peers without a network.
    #[error("there is no network to show memory by: the ranks share a node")]
    NoNetwork,
    /// The library for networks cannot be used.
    #[error(
        "could not load UCX from {file}: {why}; install UCX 1.12 or newer (Debian and Ubuntu: libucx0, Fedora: ucx), \
         or name its libucp in TARRAGON_LIBUCP"
    )]
    NoLibrary {
        /// The file that was looked for.
        file: String,
        /// What the system says, or which version it is.
        why: String,
    },
    /// The network refused.
    #[error("UCX could not {verb}: {why}")]
    Network {
        /// What was tried.
        verb: &'static str,
        /// What UCX says.
        why: String,
    },
    /// No connection to a peer could be made; from now on it counts as dead.
    #[error(
        "rank {rank} cannot be reached: {why}; it has died, or shares no network with this rank (see UCX_TLS)"
    )]
    Unreachable {
        /// Who.
        rank: Rank,
        /// What UCX says.
        why: String,
    },
    /// Shared memory.
    #[error("shared memory of the world: {0}")]
    Segment(#[from] SegmentError),
    /// Memory for a payload.
    #[error("no memory for a payload: {0}")]
    Heap(#[from] HeapError),
}

impl FabricError {
    /// Whether the peer is gone, or this rank: nothing that is sent will come there.
    pub fn is_of_the_gone(&self) -> bool {
        matches!(
            self,
            FabricError::PeerDead { .. }
                | FabricError::PeerLeft { .. }
                | FabricError::Lost(_)
                | FabricError::CastOut { .. }
        )
    }

    /// The rank that it is about, if it is about one.
    pub fn rank(&self) -> Option<Rank> {
        match self {
            FabricError::Lost(loss) => Some(loss.rank),
            FabricError::NoSuchRank { rank, .. }
            | FabricError::CastOut { rank, .. }
            | FabricError::PeerDead { rank }
            | FabricError::PeerLeft { rank }
            | FabricError::Stalled { rank, .. }
            | FabricError::Backlog { rank, .. }
            | FabricError::RegionGone { rank }
            | FabricError::RegionForeign { rank }
            | FabricError::RegionShown { rank }
            | FabricError::Unreachable { rank, .. } => Some(*rank),
            FabricError::TooLarge { .. }
            | FabricError::RegionBounds { .. }
            | FabricError::NoNetwork
            | FabricError::NoLibrary { .. }
            | FabricError::Network { .. }
            | FabricError::Segment(_)
            | FabricError::Heap(_) => None,
        }
    }
}
