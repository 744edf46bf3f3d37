//! A function that tasks of a template call, of any type.

use super::signature::{Parameters, Types};
use super::{Mismatch, Value, short_name};
use crate::import::{Spec, finish};
use crate::workflow::ErasedTask;
use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;
use tarragon_engine::typed::{Args, Failure, Function, Outcome, Takes};
use tarragon_engine::{Batch, Data, Task};

type Make = dyn Fn(&Batch, &[Value], &mut dyn Any) -> Result<(), (usize, Mismatch)> + Send + Sync;

type Erase = dyn Fn(&Batch, &Spec, &[Value]) -> Result<Box<dyn ErasedTask>, (usize, Mismatch)> + Send + Sync;

/// A function that tasks call, made by [`function`]. It runs on any rank.
pub struct TaskFunction {
    name: &'static str,
    /// Names of its parameters, for `kwargs`.
    names: Vec<String>,
    count: usize,
    result: TypeId,
    result_name: &'static str,
    make: Box<Make>,
    erase: Box<Erase>,
    fix: fn(usize, &Value) -> Result<Value, Mismatch>,
}

impl TaskFunction {
    pub(super) fn new<F, R, T>(make: impl Fn(&Batch, T::Given) -> Task<R> + Send + Sync + 'static) -> Self
    where
        F: 'static,
        R: 'static,
        T: Types,
    {
        let make = Arc::new(make);
        let again = Arc::clone(&make);
        Self {
            name: short_name(std::any::type_name::<F>()),
            names: Vec::new(),
            count: T::COUNT,
            result: TypeId::of::<R>(),
            result_name: short_name(std::any::type_name::<R>()),
            make: Box::new(move |batch, values, out| {
                let task = make(batch, T::given(values)?);
                let out = out.downcast_mut::<Option<Task<R>>>();
                *out.expect("who calls has looked at the type of the result") = Some(task);
                Ok(())
            }),
            erase: Box::new(move |batch, spec, values| {
                Ok(Box::new(finish(spec, again(batch, T::given(values)?))))
            }),
            fix: T::fix,
        }
    }

    /// Names its parameters, in order, so that a template may give arguments by `kwargs`; Rust does not tell them.
    pub fn parameters<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// How many values it takes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The path of the function.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn result_name(&self) -> &'static str {
        self.result_name
    }

    pub(crate) fn result(&self) -> TypeId {
        self.result
    }

    /// A task that calls it, with all that a spec says. The caller has looked at the number of values.
    pub(crate) fn erased(
        &self,
        batch: &Batch,
        spec: &Spec,
        values: &[Value],
    ) -> Result<Box<dyn ErasedTask>, (usize, Mismatch)> {
        (self.erase)(batch, spec, values)
    }

    pub(crate) fn returns<R: 'static>(&self) -> bool {
        self.result == TypeId::of::<R>()
    }

    pub(crate) fn fix(&self, index: usize, value: &Value) -> Result<Value, Mismatch> {
        (self.fix)(index, value)
    }

    /// A task that calls it. The caller has looked at the number of values and at the type of the result.
    pub(crate) fn task<R: 'static>(
        &self,
        batch: &Batch,
        values: &[Value],
    ) -> Result<Task<R>, (usize, Mismatch)> {
        let mut out = None::<Task<R>>;
        (self.make)(batch, values, &mut out)?;
        Ok(out.expect("it was made"))
    }
}

impl fmt::Debug for TaskFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {}", self.name)
    }
}

/// A function that tasks of a template call: a `fn` or a closure that captures nothing, as
/// [`Batch::function`](tarragon_engine::Batch::function) takes it.
///
/// A parameter by reference sees a shared value in place; one by value gets a copy, or the value itself from the last
/// task that has it. Parameters `&str`, `&Path` and `&[u8]` need [`Signature`](crate::Signature). A `Result` whose
/// error is itself serialisable goes to [`try_function`].
pub fn function<F, P, How, R, UseTryFunction>(function: F) -> TaskFunction
where
    F: Function<P, Return = R>,
    P: Parameters<How> + Takes<<P::Owned as Types>::Given>,
    <P::Owned as Types>::Given: Args<P, How, F, R>,
    R: Outcome<UseTryFunction>,
    R::Value: Data,
    R::Failure: Failure,
{
    TaskFunction::new::<F, R::Value, P::Owned>(move |batch, given| batch.function(function, given))
}

/// As [`function`], for functions that return a `Result`, where `function` cannot tell whether the `Result` itself is
/// the value.
pub fn try_function<F, P, How, T, E>(function: F) -> TaskFunction
where
    F: Function<P, Return = Result<T, E>>,
    P: Parameters<How> + Takes<<P::Owned as Types>::Given>,
    <P::Owned as Types>::Given: Args<P, How, F, Result<T, E>>,
    T: Data,
    E: Failure,
{
    TaskFunction::new::<F, T, P::Owned>(move |batch, given| batch.try_function(function, given))
}
