//! Tarragon, an HPC batch and dataflow engine.
//!
//! Write a plain list of tasks in the order in which a sequential program would run them, and say what each one reads
//! and writes: files, keys, named data, or the results of other tasks. Tarragon infers which of them must wait for
//! which, and runs the rest in parallel. The outcome is that of the sequential program.
//!
//! ```
//! use tarragon::{Batch, tasks};
//!
//! fn measure(seed: u64) -> Vec<f64> {
//!     (0..1000).map(|i| ((seed * 1000 + i) as f64).sin()).collect()
//! }
//! fn mean(values: &[f64]) -> f64 {
//!     values.iter().sum::<f64>() / values.len() as f64
//! }
//! fn highest(means: Vec<f64>) -> f64 {
//!     means.into_iter().fold(f64::MIN, f64::max)
//! }
//!
//! let batch = Batch::new()?;
//! let series: Vec<_> = (0..8u64).map(|seed| batch.function(measure, (seed,))).collect();
//! let means: Vec<_> = series.iter().map(|s| batch.function(mean, (s.result(),))).collect();
//! let best = batch.function(highest, (means.iter().collect::<Vec<_>>(),));
//! batch.compile(tasks![series, means, best])?.run()?;
//! assert!(best.result().get()? < 0.01);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start at [`Batch`], which makes tasks and compiles lists of them; [`Task`] says what can be declared,
//! [`Compiled`] how to run a list once or many times and how to look at its graph, [`Handle`] how to get results. Data
//! that processes share lie in a [`DDict`] (a dictionary) or a [`Queue`]; [`Stores`] ties them to a batch.
//! [`Templates`] makes tasks from YAML files ([`ptd`]). Other programs become clients of a batch by its
//! [`BatchDescriptor`].

pub mod cli;
pub mod prelude;

mod progress;
mod tied;

pub use progress::Progress;
pub use tarragon_ddict as ddict;
pub use tarragon_ddict::{
    DDict, Descriptor as DictDescriptor, Error as DictError, PersistId, Persisted, Place, Ref, persisted_ids,
    remove_persisted,
};
pub use tarragon_engine::{
    AnyTask, AttachError, Batch, BatchDescriptor, Builder, Cause, CompileError, Compiled, Context, Counts,
    Data, DataFile, DataId, Edge, Error, ErrorKind, Exit, Failure, Gang, GangError, Given, Graph, Handle,
    HasResult, Hazard, IntoDatum, JobRank, JournalStatus, JournalSync, Keys, Mistake, ProcessArg,
    ProcessFailure, ProcessInput, RankStream, Report, Status, Stream, Submitted, Summary, Task, TaskError,
    TaskList, ToWord, Traffic, Usage, Val, Watch, Workers, results, serve, tasks, value, wire,
};

pub use tarragon_ptd as ptd;
pub use tarragon_queue as queue;
pub use tarragon_queue::{
    Descriptor as QueueDescriptor, Error as QueueError, ItemRef, Loan, Puts, Queue, select,
};
pub use tarragon_transport::World;
pub use tied::{BatchDict, BatchImport, BatchQueue, Stores, Templates, TiedError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
