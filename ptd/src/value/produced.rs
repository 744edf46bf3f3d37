//! Another task's result, of any type.

use super::{Mismatch, short_name};
use std::any::Any;
use std::path::PathBuf;
use tarragon_engine::{Data, Exit, Handle, Task};

/// A handle whose type only the running program knows.
pub(crate) trait Produced: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn type_name(&self) -> &'static str;
    /// Gives the result to a process: as an argument, or as this variable of its environment.
    fn give(&self, task: Task<Exit>, variable: Option<&str>) -> Result<Task<Exit>, Mismatch>;
}

impl<T: Data> Produced for Handle<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn type_name(&self) -> &'static str {
        short_name(std::any::type_name::<T>())
    }

    fn give(&self, task: Task<Exit>, variable: Option<&str>) -> Result<Task<Exit>, Mismatch> {
        macro_rules! words {
            ($($t:ty)*) => {
                $(if let Some(handle) = self.as_any().downcast_ref::<Handle<$t>>() {
                    return Ok(match variable {
                        None => task.arg(handle),
                        Some(name) => task.env(name, handle),
                    });
                })*
            };
        }
        words!(String PathBuf bool u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64);
        let what = format!("a result of type {} cannot be an argument of a program", self.type_name());
        Err(Mismatch(what))
    }
}
