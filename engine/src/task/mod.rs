//! What a user holds: tasks and handles of their results; and how they lie in memory.

mod builder;
mod bytes;
pub(crate) mod chunk;
pub(crate) mod command;
mod composite;
pub(crate) mod extra;
mod given;
pub(crate) mod handle;
pub(crate) mod input;
pub(crate) mod job;
mod keep;
pub(crate) mod list;
mod options;
pub(crate) mod output;
pub(crate) mod record;
mod why;
pub(crate) mod words;

pub use builder::Task;
pub(crate) use command::Command;
pub use command::{Exit, Usage};
pub use given::Given;
pub use handle::{Handle, HasResult, Status, results};
pub use input::{Val, value};
pub use job::{JobRank, RankStream};
pub use list::{AnyTask, TaskList, list_element};
pub(crate) use options::default_need;
pub use output::Stream;
pub use words::{ProcessArg, ProcessInput, ToWord};
