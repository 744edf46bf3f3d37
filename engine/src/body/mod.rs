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
use crate::shared::Shared;
use std::sync::Arc;

/// How a body ended; its value, if any, is already in its record.
pub(crate) enum Verdict {
    Done,
    Failed(Box<Cause>),
}

/// What a body needs to know of the run it is part of.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    /// The task runs this once and never again: its arguments may move.
    pub(crate) once: bool,
}
