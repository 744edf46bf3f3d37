//! Rust functions as the code of tasks: which functions and arguments fit together, and how one is called.
//!
//! The traits here say at compile time what [`Batch::function`](crate::Batch::function) accepts; users name none of
//! them. `arg` pairs one argument with one parameter, `args` a tuple with a whole function, `outcome` reads what a
//! function returns, `copy` makes copies of values, `code` is the row of function pointers a record carries,
//! `identity` names code across processes of one executable, `wire` is a call as bytes, `travel` a task of a list.

pub(crate) mod arg;
pub(crate) mod args;
mod code;
mod copy;
pub(crate) mod identity;
mod kept;
pub(crate) mod outcome;
pub(crate) mod travel;
pub(crate) mod wire;

pub(crate) use code::{Code, Keep, Spec, Travel, thunk_code};
pub(crate) use copy::{copy_of, own};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can travel between tasks: serde can write and read it, and threads may share it.
///
/// Implemented for every type that qualifies; derive `serde::Serialize` and `serde::Deserialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel between tasks",
    label = "this type is an argument or a result of a task",
    note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to `{Self}`; it must also be `Send + Sync + 'static`"
)]
pub trait Data: Serialize + DeserializeOwned + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

/// A function of up to 12 parameters (and a [`Context`](crate::Context) before them) that captures nothing.
///
/// `P` is the tuple of the function's own parameters.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the function of a task",
    label = "expected a `fn` of at most 12 parameters",
    note = "a closure needs types on its parameters; one that captures variables goes to `batch.closure(..)`"
)]
pub trait Function<P>: Copy + Send + Sync + 'static {
    /// What the function returns.
    type Return;
}

/// Says that a tuple of arguments `A` has as many elements as the function has parameters.
#[diagnostic::on_unimplemented(
    message = "the arguments do not fit the function's parameters: {Self} cannot take {A}",
    label = "expected a tuple with one element per parameter"
)]
pub trait Takes<A> {}

/// A copy of a value, as a parameter by value gets it.
pub fn copied<T: Data>(value: &T) -> Option<T> {
    copy_of(value).ok()
}
