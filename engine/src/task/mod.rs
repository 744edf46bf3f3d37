//! What a user holds: tasks and handles of their results; and how they lie in memory.

mod builder;
pub(crate) mod chunk;
mod composite;
pub(crate) mod extra;
pub(crate) mod handle;
pub(crate) mod input;
pub(crate) mod list;
pub(crate) mod output;
pub(crate) mod record;

pub use builder::Task;
pub use handle::{Handle, HasResult, Status, results};
pub use input::{Val, value};
pub use list::{AnyTask, TaskList, list_element};
pub use output::Stream;
