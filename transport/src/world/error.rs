//! What can go wrong with a world.

use std::process::ExitStatus;

use crate::fabric::FabricError;
use crate::rank::Rank;

/// Why a world did not come about, or its ranks could not act together.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// No world of this size is possible.
    #[error("a world of {size} ranks is not possible: 1 to {max} are")]
    Ranks {
        /// Ranks asked for.
        size: u32,
        /// The most there can be.
        max: u32,
    },
    /// A process could not be started.
    #[error("could not start rank {rank}: {source}")]
    Start {
        /// Who was to be started.
        rank: Rank,
        /// What the system says.
        source: std::io::Error,
    },
    /// A process ended before it joined.
    #[error("rank {rank} ended before it joined the world: {status}; it must make the same call as rank 0")]
    EndedEarly {
        /// Who.
        rank: Rank,
        /// How it ended.
        status: ExitStatus,
    },
    /// A rank has not joined in time.
    #[error("rank {rank} has not joined the world in time; it must make the same call as rank 0")]
    JoinTimeout {
        /// Who is missing.
        rank: Rank,
    },
    /// At rank 0: a rank runs another program or wants another world; it knows more.
    #[error("rank {rank} was refused: it runs another program, or asks for a world of another size")]
    Refused {
        /// Who.
        rank: Rank,
    },
    /// At the refused rank: it runs another executable than rank 0.
    #[error("rank {rank} runs another program than rank 0: all ranks must run the same executable")]
    Stranger {
        /// This rank.
        rank: Rank,
    },
    /// At the refused rank: it asks for a world of another size.
    #[error("rank {rank} asks for a world of {wanted} ranks, but was started as one of {size}")]
    Size {
        /// This rank.
        rank: Rank,
        /// What it asks for.
        wanted: u32,
        /// What the world has.
        size: u32,
    },
    /// A process can be a rank of one world, once.
    #[error("this process is rank {rank} of a world already, or was: it can join once")]
    Twice {
        /// The rank it is.
        rank: Rank,
    },
    /// At a rank that had joined: the world failed for another one's sake.
    #[error("rank {rank} has joined, but the world did not come about: rank 0 knows why")]
    Failed {
        /// This rank.
        rank: Rank,
    },
    /// A variable of the environment makes no sense.
    #[error(
        "the environment variable {variable} is missing or wrong in a process that was started as a rank"
    )]
    Environment {
        /// Which.
        variable: &'static str,
    },
    /// The ranks do not call the same things in the same order. This call is given up.
    #[error("rank {rank} is in another collective call than this rank: all must make them in one order")]
    Order {
        /// Who.
        rank: Rank,
    },
    /// The others have not come in time. The same call again goes on with it.
    #[error("rank {rank} has not come to the collective call in {waited_ms} ms")]
    Timeout {
        /// One who is missing.
        rank: Rank,
        /// How long this side has waited.
        waited_ms: u64,
    },
    /// Ranks that have not ended in time.
    #[error("{} ranks run on after {waited_ms} ms, the first is rank {}", .ranks.len(), .ranks[0])]
    Lingering {
        /// Who; at least one.
        ranks: Vec<Rank>,
        /// How long this side has waited.
        waited_ms: u64,
    },
    /// A message did not get through.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The system refused.
    #[error("could not {verb}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}
