//! Why a template cannot be imported, and why a call makes no task.

use crate::mistake::{Mistake, Mistakes};
use std::error::Error;

/// Why a template cannot be imported. Each has every mistake that was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The document is wrong.
    #[error("{0}")]
    Template(Mistakes),
    /// What was given does not fit the template: an argument is missing, is one too many, or is of the wrong kind.
    #[error("{0}")]
    Arguments(Mistakes),
}

impl ImportError {
    /// All mistakes.
    pub fn mistakes(&self) -> &Mistakes {
        match self {
            Self::Template(mistakes) | Self::Arguments(mistakes) => mistakes,
        }
    }
}

/// Why a call makes no task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Arguments of the call are missing, too many, or given twice.
    #[error("{0}")]
    Arguments(Mistakes),
    /// A value of the template is not what its place needs, with the values of this call.
    #[error("{0}")]
    Value(Box<Mistake>),
    /// A selector failed.
    #[error("{at}: {source}")]
    Selector {
        /// Where the template calls it.
        at: Box<Mistake>,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The batch does not take the task.
    #[error(transparent)]
    Batch(#[from] tarragon_engine::Error),
}
