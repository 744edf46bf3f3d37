//! Task list → graph → schedule → run → results: the engine of Tarragon.
//!
//! A user writes a plain list of tasks in the order a sequential program would run them and says what each one reads
//! and writes; the engine infers the DAG and runs it in parallel.
//!
//! ```
//! use tarragon_engine::{Batch, tasks};
//!
//! fn greet(name: String) -> String {
//!     format!("hello, {name}")
//! }
//! fn shout(text: &str) -> String {
//!     text.to_uppercase()
//! }
//!
//! let batch = Batch::new()?;
//! let hello = batch.function(greet, ("world",));
//! let loud = batch.function(shout, (hello.result(),));
//! batch.compile(tasks![hello, loud])?.run()?;
//! assert_eq!(loud.result().get()?, "HELLO, WORLD");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod builder;
mod task;

mod data;
mod function;

mod check;
mod gather;

mod compile;
mod graph;
mod schedule;

mod background;
mod compiled;
mod plan;
mod run;

mod attend;
mod launch;
mod outputs;
mod program;

mod body;

mod journal;
mod resume;

#[cfg(not(loom))]
mod clients;
#[cfg(loom)]
#[path = "clients/absent.rs"]
mod clients;
mod cohort;
mod counts;
mod error;
mod events;
mod machine;
#[cfg(not(loom))]
mod ranks;
#[cfg(loom)]
#[path = "ranks/absent.rs"]
mod ranks;
mod report;
mod shared;
mod summary;
mod sync;

pub use batch::{Batch, Workers};
pub use body::Context;
pub use builder::{Builder, JournalSync};
pub use clients::{AttachError, BatchDescriptor};
pub use compile::Hazard;
pub use compiled::Compiled;
pub use counts::{Counts, Watch};
pub use data::{DataFile, DataId, IntoDatum, Keys, Submitted};
pub use error::{Cause, CompileError, Error, ErrorKind, Failure, Mistake, ProcessFailure, TaskError};
pub use function::Data;
pub use graph::{Edge, Graph};
#[cfg(not(loom))]
pub use ranks::serve;
pub use ranks::{Gang, GangError, Traffic};
pub use report::Report;
pub use resume::JournalStatus;
pub use summary::Summary;
pub use task::{
    AnyTask, Exit, Given, Handle, HasResult, JobRank, ProcessArg, ProcessInput, RankStream, Status, Stream,
    Task, TaskList, ToWord, Usage, Val, list_element, results, value,
};

#[doc(hidden)]
pub mod typed {
    //! What [`Batch::function`](crate::Batch::function) demands, for crates that pass functions on to it.
    pub use crate::function::arg::{FromResult, Lend, LentResult, Mode};
    pub use crate::function::args::{Args, WithContext};
    pub use crate::function::outcome::{Failure, Outcome};
    pub use crate::function::{Function, Takes, copied};
}

pub mod wire {
    //! A call as bytes, for another process of the same executable.
    pub use crate::function::identity::{Fingerprint, fingerprint};
    pub use crate::function::wire::{WireError, decode, run};
}
