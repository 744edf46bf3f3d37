//! A workflow file, or a single template → calls, in order, made one at a time.
//!
//! A *step* is a template with the values of its names: `set` gives one value, `for` lets a name range over many, and
//! each *row* of what the names range over is a call, that is a task. Steps stand in *blocks*: of a `sequence` each
//! begins when all tasks of the one before have ended, and `reduce` when all of `map` have; all other order follows
//! from what tasks read and write.
//!
//! `range` says what a name ranges over, `step` binds the names of one template, `grammar` reads the file, and `calls`
//! walks the blocks. Rows are made when their turn comes, so that a million of them need no memory.
//!
//! # How blocks order tasks
//! Between two elements of a sequence stands a *gate*, a task that does nothing. Each task before it writes a mark of
//! its own, the gate reads all of these and writes a mark, and each task behind it reads that. So a gate is skipped
//! when a task before it failed, and with it all behind. A gate also reads the mark of the gate before it, for a part
//! without tasks.

mod calls;
mod erased;
mod grammar;
mod range;
mod step;

pub use calls::{Call, Calls, Gate, Planned};
pub use erased::ErasedTask;
pub use grammar::{Options, Workflow, load, parse};
pub use range::Range;
