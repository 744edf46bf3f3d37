//! What most programs use: `use tarragon::prelude::*;`. It leaves out what can be had without being named, and the
//! names that would be ambiguous in a user's own program, such as [`Error`](crate::Error).
//!
//! ```
//! use tarragon::prelude::*;
//!
//! let batch = Batch::builder().workers(Workers::Threads(2)).build()?;
//! let seven = batch.function(|| 7u32, ());
//! batch.compile(tasks![seven])?.run()?;
//! assert_eq!(seven.result().get()?, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use crate::{
    Batch, BatchDescriptor, Compiled, Context, DDict, DataId, DictDescriptor, DictError, ErrorKind, Exit,
    Handle, Keys, Queue, QueueDescriptor, QueueError, Stores, Task, TaskError, TaskList, Templates, Workers,
    tasks, value,
};
