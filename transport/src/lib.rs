//! Bytes between the processes of a node: shared memory that no `kill -9` can hurt, rings, wake-ups, messages.
//!
//! Knows nothing of what the bytes mean. In reading order: `segment` maps memory by name and offsets; `signals` end a
//! program, which leaves its segments first; `member` says who of its users is alive; `agent` is what one thread
//! holds there, written down so that a survivor can settle it; `lock` a lock whose dead owner is found; `heap` the
//! allocator in a segment, `pin` a reader's hold on a block; `doorbell` wakes who waits, `ring` are the queues of
//! cells. Above these: `message` is what one rank sends another and `wire` how values become bytes, `fabric` is how
//! they move, `membership` says who of them is lost, `region` memory that peers reach one-sidedly; `world` is all
//! ranks, and `bootstrap` how they find one another.
//!
//! # Signals
//! A process that makes or opens a segment takes SIGHUP, SIGINT and SIGTERM, each if it has its default action then: it
//! still ends by that signal, but removes the names of segments that nobody else uses before. See [`signals`].

pub mod agent;
pub mod code;
pub mod doorbell;
pub mod heap;
pub mod lock;
pub mod member;
pub mod pin;
#[doc(hidden)]
pub mod probe;
pub mod ring;
pub mod segment;
pub mod signals;

mod environment;
mod error;
mod exit;
mod fence;
mod lane;
mod place;
mod prefetch;
mod sync;

pub use environment::{environment, launcher_variables};
pub use error::{HeapError, SegmentError};
pub use exit::before_exit;
pub use place::Place;

// The kernel's waits, pipes and processes below are out of reach of a model checker, except where they are modelled.
#[cfg(not(loom))]
pub mod bootstrap;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod conformance;
#[cfg(not(loom))]
pub mod fabric;
#[cfg(not(loom))]
mod membership;
#[cfg(not(loom))]
pub mod message;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod wire;
#[cfg(not(loom))]
pub mod world;

#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod dynamic;
mod rank;

#[cfg(not(loom))]
pub use self::{
    bootstrap::{Bootstrap, Launched, PmixStatus, Spawn},
    fabric::{Fabric, FabricError, PeerState},
    membership::{CastOut, Change, LOSS_LIMIT_MS, Loss, Losses, Why},
    message::{Faults, HandlerId, Message},
    region::{Region, RemoteKey},
    world::{Group, GroupError, Install, MAIL_BYTES_MAX, RankEnd, Request, Stranger, World, WorldError},
};
pub use rank::Rank;
