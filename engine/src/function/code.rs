//! The row of function pointers that stands for a task's code, one row per monomorphised call.

use super::args::Args;
use super::identity::Namer;
use super::outcome::{ClosureOutcome, Failure, Outcome};
use super::wire::{self, Decoder, Encoder, WireError};
use super::{Data, Function, travel};
use crate::body::{Call, Verdict, function as body};
use crate::shared::Shared;
use crate::task::input::Input;
use crate::task::record::Ref;
use std::marker::PhantomData;
use std::sync::Arc;

/// Shows the inputs of a record.
type Inputs = unsafe fn(Ref, &mut dyn FnMut(&mut Input));
/// Writes the call of a record.
type Encode = unsafe fn(Ref) -> Result<Vec<u8>, WireError>;
/// Reaches the command of a process's record.
type ToCommand = unsafe fn(Ref) -> &'static crate::task::Command;

/// How a task goes to another process of the same executable; see `travel`.
pub(crate) struct Travel {
    /// Where its code is there.
    pub(crate) code: Namer,
    /// Writes the arguments, with links to tasks that go there, too.
    pub(crate) pack: unsafe fn(Ref, &mut Encoder) -> Result<(), WireError>,
    /// Makes the task from what `pack` wrote.
    pub(crate) unpack: fn(&Arc<Shared>, &mut Decoder<'_>) -> Result<Ref, WireError>,
    /// Makes a record for its value alone.
    pub(crate) place: fn(&Arc<Shared>) -> Ref,
    /// How its value travels.
    pub(crate) value: Keep,
}

/// A value to bytes and back.
pub(crate) struct Keep {
    /// The value in place as bytes.
    pub(crate) write: unsafe fn(Ref) -> Option<Vec<u8>>,
    /// Puts a value in place; false if the bytes are none.
    pub(crate) read: unsafe fn(Ref, &[u8]) -> bool,
}

/// What can be done with a task whose types are forgotten.
pub(crate) struct Code {
    /// Runs the body and keeps its value.
    pub(crate) call: unsafe fn(Ref, &Call<'_>) -> Verdict,
    /// Drops function and arguments.
    pub(crate) drop_args: unsafe fn(Ref),
    /// Drops the value.
    pub(crate) drop_value: unsafe fn(Ref),
    /// Shows the tasks whose results are arguments; `None` when there can be none.
    pub(crate) inputs: Option<Inputs>,
    /// Lets go of other tasks' results without running.
    pub(crate) pass: unsafe fn(Ref),
    /// Path of the function.
    pub(crate) name: fn() -> &'static str,
    /// The call as bytes; `None` for closures, which stay in this process.
    pub(crate) encode: Option<Encode>,
    /// The arguments as bytes, as far as they are known before any task has run; `None` if they cannot be.
    pub(crate) describe: Option<Encode>,
    /// How the value is written to a journal and read from it; `None` if it has no serde form.
    pub(crate) keep: Option<Keep>,
    /// How it goes to another process; `None` for what stays in this one.
    pub(crate) travel: Option<Travel>,
    /// What a process runs; `None` for functions.
    pub(crate) command: Option<ToCommand>,
    /// Whether the value needs `drop`.
    pub(crate) value_needs_drop: bool,
    /// Whether function or arguments need `drop`.
    pub(crate) args_need_drop: bool,
}

/// The types of one `batch.function(..)`.
pub(crate) struct Spec<F, P, A, How, R, Kind>(PhantomData<(F, P, A, How, R, Kind)>);

impl<F, P, A, How, R, Kind> Spec<F, P, A, How, R, Kind>
where
    F: Function<P, Return = R>,
    A: Args<P, How, F, R>,
    R: Outcome<Kind>,
    R::Value: Data,
    R::Failure: Failure,
{
    /// A function item has no size; something that captures has, and could not run on another rank.
    const CAPTURES_NOTHING: () = assert!(
        size_of::<F>() == 0,
        "this closure captures variables: use `batch.closure(..)`, or pass what it captures as arguments"
    );

    pub(crate) const CODE: &'static Code = {
        let () = Self::CAPTURES_NOTHING;
        &Code {
            call: body::call_function::<F, P, A, How, R, Kind>,
            drop_args: body::drop_args::<F, P, A, How, R, R::Value>,
            drop_value: body::drop_value::<R::Value>,
            inputs: if A::INPUTS { Some(body::inputs::<F, P, A, How, R, R::Value>) } else { None },
            pass: body::pass::<F, P, A, How, R, R::Value>,
            name: std::any::type_name::<F>,
            encode: Some(wire::encode_call::<F, P, A, How, R, Kind>),
            describe: Some(wire::describe::<F, P, A, How, R, Kind>),
            keep: Some(Keep { write: body::write_value::<R::Value>, read: body::read_value::<R::Value> }),
            travel: Some(Travel {
                code: Self::code,
                pack: Self::pack,
                unpack: Self::unpack,
                place: travel::place::<R::Value>,
                value: Keep { write: body::write_value::<R::Value>, read: body::read_value::<R::Value> },
            }),
            command: None,
            value_needs_drop: std::mem::needs_drop::<R::Value>(),
            args_need_drop: A::NEEDS_DROP,
        }
    };
}

/// The type of a value whose task runs elsewhere.
pub(crate) struct Place<V>(PhantomData<V>);

impl<V: Data> Place<V> {
    pub(crate) const CODE: &'static Code = &Code {
        call: body::call_nothing,
        drop_args: body::drop_nothing,
        drop_value: body::drop_value::<V>,
        inputs: None,
        pass: body::drop_nothing,
        name: std::any::type_name::<V>,
        encode: None,
        describe: None,
        keep: Some(Keep { write: body::write_value::<V>, read: body::read_value::<V> }),
        travel: None,
        command: None,
        value_needs_drop: std::mem::needs_drop::<V>(),
        args_need_drop: false,
    };
}

/// The types of one `batch.closure(..)`.
pub(crate) struct Thunk<F, R, Kind>(PhantomData<(F, R, Kind)>);

/// The code of a closure.
pub(crate) const fn thunk_code<F, R, Kind>() -> &'static Code
where
    F: FnMut() -> R + Send + Sync + 'static,
    R: ClosureOutcome<Kind>,
    R::Value: Send + Sync + 'static,
    R::Failure: Failure,
{
    Thunk::<F, R, Kind>::CODE
}

impl<F, R, Kind> Thunk<F, R, Kind>
where
    F: FnMut() -> R + Send + Sync + 'static,
    R: ClosureOutcome<Kind>,
    R::Value: Send + Sync + 'static,
    R::Failure: Failure,
{
    const CODE: &'static Code = &Code {
        call: body::call_closure::<F, R, Kind>,
        drop_args: body::drop_closure::<F, R::Value>,
        drop_value: body::drop_value::<R::Value>,
        inputs: None,
        pass: body::drop_nothing,
        name: std::any::type_name::<F>,
        encode: None,
        describe: None,
        keep: None,
        travel: None,
        command: None,
        value_needs_drop: std::mem::needs_drop::<R::Value>(),
        args_need_drop: std::mem::needs_drop::<F>(),
    };
}
