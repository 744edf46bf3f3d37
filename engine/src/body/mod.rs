//! Starts what a task is, and says how it ended. Today: Rust functions and closures.
//!
//! A failing body is data ([`Verdict::Failed`]), not an error of the engine.

mod context;
pub(crate) mod function;
pub(crate) mod inside;
mod panics;

pub use context::Context;
pub(crate) use panics::install as install_panic_hook;

use crate::error::Cause;
use crate::function::arg::Moves;
use crate::ranks::Gang;
use crate::run::Stop;
use crate::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How a body ended; its value, if any, is already in its record.
pub(crate) enum Verdict {
    Done,
    Failed(Box<Cause>),
}

/// What a body needs to know of the run it is part of.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    /// What of the arguments may move into the body. With [`Moves::Nothing`] the body may be called again, so the
    /// caller lets go of other tasks' results when that is over.
    pub(crate) moves: Moves,
    /// What of the run is cancelled.
    pub(crate) stop: &'a Arc<Stop>,
    /// Set when the time of this attempt is up.
    pub(crate) attempt: Option<&'a Arc<AtomicBool>>,
    /// The gang that it runs in, if several ranks run it.
    pub(crate) gang: Option<&'a Arc<Gang>>,
    /// The names of the GPUs that it holds.
    pub(crate) gpus: &'a [String],
}
