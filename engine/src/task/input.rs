//! Handles as arguments: how the result of one task gets into the body of another.
//!
//! A slot holds the producer's record. While it is only declared it counts as a *handle*, so the value stays; once
//! producer and consumer are compiled in one list it counts as a *hold*, and the value lives as long as uses are
//! pending (see `record`).

use super::handle::Handle;
use super::output::{Stream, Which};
use super::record::{Ref, state};
use crate::error::Cause;
use crate::function::arg::{Moves, Visit};
use crate::function::wire::{Decoder, Encoder, WireError};
use crate::function::{Data, copy_of};
use std::sync::atomic::Ordering;

/// A producer's record inside an argument slot.
#[doc(hidden)]
pub struct Input {
    pub(crate) task: Ref,
    /// Producer and consumer are in one list.
    internal: bool,
    /// It stands for what the producer wrote to this stream, not for its value.
    output: Option<Which>,
}

impl Input {
    pub(crate) fn new(task: Ref) -> Self {
        task.add_handle();
        Self { task, internal: false, output: None }
    }

    pub(crate) fn of_output(stream: &Stream) -> Self {
        let mut input = Self::new(stream.task());
        input.output = Some(stream.which());
        input
    }

    /// Which of its streams it stands for; `None`: for its value.
    pub(crate) fn output(&self) -> Option<Which> {
        self.output
    }

    /// What the producer, which has ended, wrote to the stream that it stands for.
    pub(crate) fn text(&self, stream: &Stream) -> Result<String, Cause> {
        // Wherever that ran, it has been brought here: with the news of its end, or before the run began.
        stream.read_here().map_err(|error| Cause::Output(stream.name(), error))
    }

    /// Called by compile when it finds the producer in the consumer's list.
    pub(crate) fn make_internal(&mut self) {
        if !self.internal {
            self.internal = true;
            if !self.task.is_plain() {
                self.task.handle_to_hold();
            }
        }
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.internal
    }

    fn is_there(&self) -> Result<(), Cause> {
        match self.task.head().status.load(Ordering::Acquire) & !state::PARITY {
            state::DONE => Ok(()),
            state::TAKEN => Err(Cause::InputTaken(self.task.name())),
            _ => Err(Cause::InputMissing(self.task.name())),
        }
    }

    /// The value itself if this is the last use of it, else a copy.
    #[inline(always)]
    fn value<T: Data>(&self, moves: Moves) -> Result<T, Cause> {
        self.is_there()?;
        let last = moves != Moves::Nothing
            && self.internal
            && self.task.head().uses.load(Ordering::Acquire) == 1
            && self.task.handles() == 0;
        if last && let Some(value) = record_moves::out::<T>(self) {
            return Ok(value);
        }
        copy_of(record_moves::borrow::<T>(self)).map_err(Cause::Copy)
    }

    /// The value in place.
    pub(crate) fn look<T: 'static>(&self) -> Result<&T, Cause> {
        self.is_there()?;
        Ok(record_moves::borrow(self))
    }

    #[inline(always)]
    pub(crate) fn done(&self) {
        if self.internal {
            self.task.used();
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if self.internal && !self.task.is_plain() { self.task.drop_hold() } else { self.task.drop_handle() }
    }
}

mod record_moves {
    #![expect(unsafe_code, reason = "reads the typed value of a record that an argument slot names")]
    use super::{Input, state};

    /// Moves the value out of its record; the caller has the last use of it.
    pub(super) fn out<T>(input: &Input) -> Option<T> {
        // SAFETY: slots are made from handles of type `T`; no other use is pending and no handle is left.
        unsafe { input.task.move_value::<T>(state::EMPTY) }
    }

    /// The value in place.
    pub(super) fn borrow<T>(input: &Input) -> &T {
        // SAFETY: slots are made from handles of type `T`; the status says the value is there, and our pending use
        // (or our handle) keeps it.
        unsafe { &*input.task.value::<T>() }
    }
}

/// A result not there yet, or one that came as bytes.
#[doc(hidden)]
pub enum Source<T> {
    /// To be found in its producer's record.
    Task(Input),
    /// Here.
    Ready(T),
}

/// An argument that stands for results of other tasks: a handle, a reference to a task, or a `Vec`, `Option`, array
/// or tuple of such.
pub trait Handles {
    /// What the parameter gets.
    type Value: 'static;
    /// What the record keeps.
    #[doc(hidden)]
    type Slot: Send + Sync + 'static;
    /// Makes the slot.
    #[doc(hidden)]
    fn keep(self) -> Self::Slot;
    /// Shows the producers.
    #[doc(hidden)]
    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>);
    /// The value, moved where allowed.
    #[doc(hidden)]
    fn value(slot: &mut Self::Slot, moves: Moves) -> Result<Self::Value, Cause>;
    /// Lets go of the producers' values.
    #[doc(hidden)]
    fn done(slot: &mut Self::Slot);
    /// Writes it for another process: values, and links to tasks that go there, too.
    #[doc(hidden)]
    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError>;
    /// Reads what `encode` wrote.
    #[doc(hidden)]
    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError>;
    /// Writes what is known of it before any task has run: plain values, and how many results of others there are.
    #[doc(hidden)]
    fn describe(_: &mut Self::Slot, _: &mut Encoder) -> Result<(), WireError> {
        Ok(())
    }
}

/// [`Handles`] whose value can be borrowed by the body.
pub trait Lends: Handles {
    /// What the record keeps.
    #[doc(hidden)]
    type LendSlot: Send + Sync + 'static;
    /// Makes the slot.
    #[doc(hidden)]
    fn keep_to_lend(self) -> Self::LendSlot;
    /// Shows the producers.
    #[doc(hidden)]
    fn lend_inputs(slot: &mut Self::LendSlot, visit: Visit<'_>);
    /// The value, in place where there is one.
    #[doc(hidden)]
    fn borrow(slot: &mut Self::LendSlot) -> Result<&Self::Value, Cause>;
    /// Lets go of the producers' values.
    #[doc(hidden)]
    fn lend_done(slot: &mut Self::LendSlot);
    /// As [`Handles::encode`].
    #[doc(hidden)]
    fn lend_encode(slot: &mut Self::LendSlot, out: &mut Encoder) -> Result<(), WireError>;
    /// As [`Handles::decode`].
    #[doc(hidden)]
    fn lend_decode(from: &mut Decoder<'_>) -> Result<Self::LendSlot, WireError>;
    /// As [`Handles::describe`].
    #[doc(hidden)]
    fn lend_describe(_: &mut Self::LendSlot, _: &mut Encoder) -> Result<(), WireError> {
        Ok(())
    }
}

impl<T: Data> Handles for Handle<T> {
    type Value = T;
    type Slot = Source<T>;

    fn keep(self) -> Source<T> {
        Source::Task(Input::new(self.task()))
    }

    fn encode(slot: &mut Source<T>, out: &mut Encoder) -> Result<(), WireError> {
        if let Source::Task(input) = slot
            && let Some(link) = out.link(input.task)
        {
            return out.value(&Some(link));
        }
        out.value(&None::<u32>)?;
        out.value(Self::borrow(slot).map_err(|cause| WireError::Input(cause.to_string()))?)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Source<T>, WireError> {
        match from.value::<Option<u32>>()? {
            Some(link) => Ok(Source::Task(Input::new(from.linked(link)?))),
            None => Ok(Source::Ready(from.value()?)),
        }
    }

    fn inputs(slot: &mut Source<T>, visit: Visit<'_>) {
        if let Source::Task(input) = slot {
            visit(input);
        }
    }

    #[inline(always)]
    fn value(slot: &mut Source<T>, moves: Moves) -> Result<T, Cause> {
        match slot {
            Source::Task(input) => input.value(moves),
            Source::Ready(value) => copy_of(value).map_err(Cause::Copy),
        }
    }

    #[inline(always)]
    fn done(slot: &mut Source<T>) {
        if let Source::Task(input) = slot {
            input.done();
        }
    }
}

impl<T: Data> Lends for Handle<T> {
    type LendSlot = Source<T>;

    fn keep_to_lend(self) -> Source<T> {
        self.keep()
    }

    fn lend_inputs(slot: &mut Source<T>, visit: Visit<'_>) {
        Self::inputs(slot, visit);
    }

    #[inline(always)]
    fn borrow(slot: &mut Source<T>) -> Result<&T, Cause> {
        match slot {
            Source::Task(input) => {
                input.is_there()?;
                Ok(record_moves::borrow(input))
            }
            Source::Ready(value) => Ok(value),
        }
    }

    #[inline(always)]
    fn lend_done(slot: &mut Source<T>) {
        Self::done(slot);
    }

    fn lend_encode(slot: &mut Source<T>, out: &mut Encoder) -> Result<(), WireError> {
        <Self as Handles>::encode(slot, out)
    }

    fn lend_decode(from: &mut Decoder<'_>) -> Result<Source<T>, WireError> {
        <Self as Handles>::decode(from)
    }
}

/// A plain value among handles, as in `(handle, value(2.0))` for a parameter `(f64, f64)`.
#[derive(Clone, Debug)]
pub struct Val<T>(T);

/// Marks a plain value inside a tuple or vector of handles.
pub fn value<T: Data>(value: T) -> Val<T> {
    Val(value)
}

impl<T: Data> Handles for Val<T> {
    type Value = T;
    type Slot = T;

    fn keep(self) -> T {
        self.0
    }

    fn encode(slot: &mut T, out: &mut Encoder) -> Result<(), WireError> {
        out.value(slot)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<T, WireError> {
        from.value()
    }

    fn inputs(_: &mut T, _: Visit<'_>) {}

    fn value(slot: &mut T, _: Moves) -> Result<T, Cause> {
        copy_of(slot).map_err(Cause::Copy)
    }

    fn done(_: &mut T) {}

    fn describe(slot: &mut T, out: &mut Encoder) -> Result<(), WireError> {
        out.value(slot)
    }
}
