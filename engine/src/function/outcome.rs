//! What a function returns, read as an outcome: a plain value, or a `Result` whose `Err` fails the task.

use super::Data;
use std::error::Error;

/// The function returns the value itself.
pub enum Plain {}
/// The function returns a `Result`; name the ambiguity's cure: `try_function`, `try_closure`.
pub enum Fallible {}

/// How a returned value becomes an outcome; `Kind` is found by the compiler.
///
/// If it cannot be found because the error of your `Result` is itself serialisable, use `try_function`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task",
    label = "returned by the task's function",
    note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to it, or return a `Result` of such a type"
)]
pub trait Outcome<Kind> {
    /// The result when the task succeeds.
    type Value;
    /// What fails the task.
    type Failure;
    /// Splits value from failure.
    #[doc(hidden)]
    fn split(self) -> Result<Self::Value, Self::Failure>;
}

#[diagnostic::do_not_recommend]
impl<T: Data> Outcome<Plain> for T {
    type Value = T;
    type Failure = std::convert::Infallible;

    #[inline(always)]
    fn split(self) -> Result<T, Self::Failure> {
        Ok(self)
    }
}

impl<T, E> Outcome<Fallible> for Result<T, E> {
    type Value = T;
    type Failure = E;

    #[inline(always)]
    fn split(self) -> Result<T, E> {
        self
    }
}

/// How what a closure returns becomes an outcome: as [`Outcome`], without serde bounds.
///
/// Ambiguous for every `Result`: use `try_closure` there, so that an `Err` can never pass as a value.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be the result of a closure task")]
pub trait ClosureOutcome<Kind>: Sized {
    /// The result when the task succeeds.
    type Value;
    /// What fails the task.
    type Failure;
    /// Splits value from failure.
    #[doc(hidden)]
    fn split(self) -> Result<Self::Value, Self::Failure>;
}

#[diagnostic::do_not_recommend]
impl<T: Send + Sync + 'static> ClosureOutcome<Plain> for T {
    type Value = T;
    type Failure = std::convert::Infallible;

    fn split(self) -> Result<T, Self::Failure> {
        Ok(self)
    }
}

impl<T, E> ClosureOutcome<Fallible> for Result<T, E> {
    type Value = T;
    type Failure = E;

    fn split(self) -> Result<T, E> {
        self
    }
}

/// What may be the `Err` of a task's function: whatever `?` turns into a boxed error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a task's function",
    label = "this error type is not an error",
    note = "use std::io::Error, anyhow::Error, String, or a type that implements std::error::Error + Send + Sync"
)]
pub trait Failure {
    /// The error in the form a task keeps.
    #[doc(hidden)]
    fn boxed(self) -> Box<dyn Error + Send + Sync>;
}

#[diagnostic::do_not_recommend]
impl<E: Into<Box<dyn Error + Send + Sync>>> Failure for E {
    fn boxed(self) -> Box<dyn Error + Send + Sync> {
        self.into()
    }
}
