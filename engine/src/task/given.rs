//! An argument that is chosen while the program runs: a value that many tasks share, or what another task gives.
//!
//! Whoever makes tasks from a description learns only then which of these an argument is, while a function's parameters
//! have one type. A shared value is lent in place to a parameter by reference, and moves into one by value if this task
//! is the last that has it; on the way to another rank it is written as the value itself is.

use super::composite::Text;
use super::handle::Handle;
use super::input::{Handles, Input, Lends, Source};
use super::output::Stream;
use crate::error::Cause;
use crate::function::arg::{Moves, Visit};
use crate::function::wire::{Decoder, Encoder, WireError};
use crate::function::{Data, copy_of, own};
use std::sync::Arc;

/// An argument for a parameter of type `T`, or one that borrows a `T`, of which only the running program knows where it
/// comes from.
///
/// ```
/// use std::sync::Arc;
/// use tarragon_engine::{Batch, Given, tasks};
///
/// let batch = Batch::new()?;
/// let table = Arc::new(vec![1.0, 2.0, 3.0]);
/// let total = batch.function(|values: &[f64]| values.iter().sum::<f64>(), (Given::Value(table),));
/// let twice = batch.function(|x: f64| 2.0 * x, (Given::ResultOf(total.result()),));
/// batch.compile(tasks![total, twice])?.run()?;
/// assert_eq!(twice.result().get()?, 12.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Given<T> {
    /// A value, which others may have, too.
    Value(Arc<T>),
    /// Another task's result, which makes it run first.
    ResultOf(Handle<T>),
    /// What another task writes, which makes it run first; for a `String` alone.
    Output(Stream),
}

/// What a record keeps of it.
#[doc(hidden)]
pub enum Slot<T> {
    /// A shared value; none when it has moved into the body.
    Shared(Option<Arc<T>>),
    /// A result, or a value that came as bytes.
    Source(Source<T>),
    /// Another task's output, and where it is put together for a body that borrows it.
    Output(Text),
}

/// Where a record says which slot follows.
const SOURCE: u8 = 0;
const OUTPUT: u8 = 1;

fn taken() -> Cause {
    Cause::InputTaken("a value that has moved into the body".into())
}

fn text<T: Data>(text: String) -> Result<T, Cause> {
    own(text).ok_or_else(|| Cause::InputMissing("output, for a parameter that is no text,".into()))
}

impl<T: Data> Handles for Given<T> {
    type Value = T;
    type Slot = Slot<T>;

    fn keep(self) -> Slot<T> {
        match self {
            Given::Value(value) => Slot::Shared(Some(value)),
            Given::ResultOf(handle) => Slot::Source(Source::Task(Input::new(handle.task()))),
            Given::Output(stream) => Slot::Output(Handles::keep(stream)),
        }
    }

    fn inputs(slot: &mut Slot<T>, visit: Visit<'_>) {
        match slot {
            Slot::Shared(_) => {}
            Slot::Source(source) => <Handle<T> as Handles>::inputs(source, visit),
            Slot::Output(text) => <Stream as Handles>::inputs(text, visit),
        }
    }

    fn value(slot: &mut Slot<T>, moves: Moves) -> Result<T, Cause> {
        match slot {
            Slot::Shared(shared) if moves == Moves::All => {
                let value = Arc::try_unwrap(shared.take().ok_or_else(taken)?);
                value.or_else(|shared| copy_of(&*shared).map_err(Cause::Copy))
            }
            Slot::Shared(shared) => copy_of(shared.as_deref().ok_or_else(taken)?).map_err(Cause::Copy),
            Slot::Source(source) => <Handle<T> as Handles>::value(source, moves),
            Slot::Output(output) => text(<Stream as Handles>::value(output, moves)?),
        }
    }

    fn done(slot: &mut Slot<T>) {
        match slot {
            Slot::Shared(_) => {}
            Slot::Source(source) => <Handle<T> as Handles>::done(source),
            Slot::Output(text) => <Stream as Handles>::done(text),
        }
    }

    fn encode(slot: &mut Slot<T>, out: &mut Encoder) -> Result<(), WireError> {
        match slot {
            // As a result that is here.
            Slot::Shared(shared) => {
                out.value(&(SOURCE, None::<u32>))?;
                out.value(shared.as_deref().ok_or_else(|| WireError::Input(taken().to_string()))?)
            }
            Slot::Source(source) => {
                out.value(&SOURCE)?;
                <Handle<T> as Handles>::encode(source, out)
            }
            Slot::Output(text) => {
                out.value(&OUTPUT)?;
                <Stream as Handles>::encode(text, out)
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Slot<T>, WireError> {
        match from.value::<u8>()? {
            SOURCE => Ok(Slot::Source(<Handle<T> as Handles>::decode(from)?)),
            _ => Ok(Slot::Output(<Stream as Handles>::decode(from)?)),
        }
    }

    fn describe(slot: &mut Slot<T>, out: &mut Encoder) -> Result<(), WireError> {
        match slot {
            Slot::Shared(shared) => out.value(&shared.as_deref()),
            Slot::Source(Source::Ready(value)) => out.value(&Some(value)),
            Slot::Source(Source::Task(_)) => out.value(&None::<T>),
            Slot::Output(text) => <Stream as Handles>::describe(text, out),
        }
    }
}

impl<T: Data> Lends for Given<T> {
    /// The slot, and what is put together for one call.
    type LendSlot = (Slot<T>, Option<T>);

    fn keep_to_lend(self) -> Self::LendSlot {
        (Handles::keep(self), None)
    }

    fn lend_inputs(slot: &mut Self::LendSlot, visit: Visit<'_>) {
        <Self as Handles>::inputs(&mut slot.0, visit);
    }

    fn borrow(slot: &mut Self::LendSlot) -> Result<&T, Cause> {
        match &mut slot.0 {
            Slot::Shared(shared) => shared.as_deref().ok_or_else(taken),
            Slot::Source(source) => <Handle<T> as Lends>::borrow(source),
            Slot::Output(output) => {
                Ok(slot.1.insert(text(<Stream as Handles>::value(output, Moves::Nothing)?)?))
            }
        }
    }

    fn lend_done(slot: &mut Self::LendSlot) {
        slot.1 = None;
        <Self as Handles>::done(&mut slot.0);
    }

    fn lend_encode(slot: &mut Self::LendSlot, out: &mut Encoder) -> Result<(), WireError> {
        <Self as Handles>::encode(&mut slot.0, out)
    }

    fn lend_decode(from: &mut Decoder<'_>) -> Result<Self::LendSlot, WireError> {
        Ok((<Self as Handles>::decode(from)?, None))
    }

    fn lend_describe(slot: &mut Self::LendSlot, out: &mut Encoder) -> Result<(), WireError> {
        <Self as Handles>::describe(&mut slot.0, out)
    }
}
