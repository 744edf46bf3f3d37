//! A template and what is bound to its names → a callable, and a call → a task.
//!
//! `bind` pairs names with what was given, `resolve` turns each value of the template into a `term` with as little left
//! to do at a call as can be: names that the import binds are gone, calls of builtins with constants are done, options
//! have their types, constant arguments of a function have the form of its parameters. `spec` is what a call makes of
//! the terms: a task as plain data; `task` makes it one of a batch.
//!
//! A callable is never changed, and so is used by any number of threads at once.

mod args;
mod bind;
mod callable;
mod error;
mod plan;
mod resolve;
mod spec;
mod task;
mod term;

pub use args::Args;
pub use bind::Import;
pub use callable::{Callable, Imported};
pub use error::{CallError, ImportError};
pub(crate) use plan::{Bound, Plan};
pub(crate) use resolve::{resolve, term_of};
pub use spec::{Datum, Program, Spec};
pub(crate) use task::finish;
pub(crate) use term::{Term, Unmade};
