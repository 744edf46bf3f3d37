//! What can go wrong with a world.

use std::process::ExitStatus;

use crate::bootstrap::PmixStatus;
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
    /// At all ranks of a launch: some run another executable than rank 0.
    #[error(
        "not all ranks run the same executable: {} run another one than rank 0 on host {host} (Tarragon {version})",
        listed(.strangers)
    )]
    Strangers {
        /// Who, in the order of ranks; at least one.
        strangers: Vec<Stranger>,
        /// Where rank 0 runs.
        host: String,
        /// The version of Tarragon in rank 0.
        version: String,
    },
    /// At the other ranks of a launch: one could not do its part, and returns its own error.
    #[error("rank {rank} on host {host} could not join: {why}")]
    Elsewhere {
        /// Who.
        rank: Rank,
        /// Where it runs.
        host: String,
        /// Its error, in words.
        why: String,
    },
    /// At a rank of a launch on several machines: it and another one cannot talk over the network.
    #[error(
        "rank {rank} on host {host} cannot be reached over the network: {why}; does a firewall between the hosts \
         forbid connections to the ports that UCX listens on (UCX_TCP_PORT_RANGE says which), or does UCX take a card \
         that does not lead there (UCX_NET_DEVICES says which; `ucx_info -d` lists them)?"
    )]
    NoWay {
        /// Who.
        rank: Rank,
        /// Where it runs.
        host: String,
        /// What was seen of it.
        why: String,
    },
    /// A living process is this rank of the launch already.
    #[error(
        "rank {rank} of this launch is another process, which lives: a program that a rank starts must not inherit \
         PMIX_RANK and PMIX_NAMESPACE, or PMI_FD and PMI_PORT"
    )]
    Taken {
        /// The rank that the environment names.
        rank: Rank,
    },
    /// The launcher speaks PMIx, but its library cannot be used.
    #[error(
        "started by a launcher that speaks PMIx, but {file} cannot be used: {why}; install it (Debian: libpmix2) or \
         name its file in TARRAGON_LIBPMIX"
    )]
    NoPmix {
        /// The library that was tried.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The launcher refuses.
    #[error("could not {verb}: PMIx says {status}")]
    Pmix {
        /// What was tried.
        verb: &'static str,
        /// What the library says.
        status: PmixStatus,
    },
    /// The launcher, or the socket to it, refuses.
    #[error("could not {verb}: the launcher, by PMI: {why}")]
    Pmi {
        /// What was tried.
        verb: &'static str,
        /// What it says, or the system of the socket.
        why: String,
    },
    /// The launcher has not answered in time: it is gone, or a rank of the launch never joins.
    #[error("could not {verb} in time: all processes of the launch must join, and the launcher must answer")]
    LaunchTimeout {
        /// What was tried.
        verb: &'static str,
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

/// A rank that runs another executable than rank 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stranger {
    /// Who.
    pub rank: Rank,
    /// Where it runs; "unknown" if it does not say so in a way that is understood.
    pub host: String,
    /// Its version of Tarragon; "unknown" likewise.
    pub version: String,
}

fn listed(strangers: &[Stranger]) -> String {
    let one = |it: &Stranger| format!("rank {} on host {} (Tarragon {})", it.rank, it.host, it.version);
    strangers.iter().map(one).collect::<Vec<_>>().join(", ")
}
