//! Handles inside `Vec`, `Option`, arrays and tuples, references to tasks, and output streams, as arguments.

use super::builder::Task;
use super::handle::Handle;
use super::input::{Handles, Input, Lends};
use super::output::{Stream, Which};
use crate::error::Cause;
use crate::function::Data;
use crate::function::arg::{Moves, Visit};
use crate::function::wire::{Decoder, Encoder, WireError};

/// Lending from parts: the value is put together for the call, kept beside the parts, and dropped after it.
macro_rules! scratch_lends {
    () => {
        type LendSlot = (Self::Slot, Option<Self::Value>);

        fn keep_to_lend(self) -> Self::LendSlot {
            (Handles::keep(self), None)
        }

        fn lend_inputs(slot: &mut Self::LendSlot, visit: Visit<'_>) {
            <Self as Handles>::inputs(&mut slot.0, visit);
        }

        fn borrow(slot: &mut Self::LendSlot) -> Result<&Self::Value, Cause> {
            let value = <Self as Handles>::value(&mut slot.0, Moves::Nothing)?;
            Ok(slot.1.insert(value))
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
    };
}

impl<X: Handles> Handles for Vec<X> {
    type Value = Vec<X::Value>;
    type Slot = Vec<X::Slot>;

    fn keep(self) -> Self::Slot {
        self.into_iter().map(X::keep).collect()
    }

    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        out.value(&slot.len())?;
        slot.iter_mut().try_for_each(|s| X::encode(s, out))
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
        let len = from.value::<usize>()?;
        (0..len).map(|_| X::decode(from)).collect()
    }

    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
        slot.iter_mut().for_each(|s| X::inputs(s, visit));
    }

    fn value(slot: &mut Self::Slot, moves: Moves) -> Result<Self::Value, Cause> {
        slot.iter_mut().map(|s| X::value(s, moves)).collect()
    }

    fn done(slot: &mut Self::Slot) {
        slot.iter_mut().for_each(X::done);
    }

    fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        out.value(&slot.len())?;
        slot.iter_mut().try_for_each(|s| X::describe(s, out))
    }
}

impl<X: Handles> Lends for Vec<X>
where
    X::Value: Data,
{
    scratch_lends!();
}

impl<X: Handles> Handles for Option<X> {
    type Value = Option<X::Value>;
    type Slot = Option<X::Slot>;

    fn keep(self) -> Self::Slot {
        self.map(X::keep)
    }

    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        out.value(&slot.is_some())?;
        slot.iter_mut().try_for_each(|s| X::encode(s, out))
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
        let is_some = from.value::<bool>()?;
        is_some.then(|| X::decode(from)).transpose()
    }

    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
        slot.iter_mut().for_each(|s| X::inputs(s, visit));
    }

    fn value(slot: &mut Self::Slot, moves: Moves) -> Result<Self::Value, Cause> {
        slot.as_mut().map(|s| X::value(s, moves)).transpose()
    }

    fn done(slot: &mut Self::Slot) {
        slot.iter_mut().for_each(X::done);
    }

    fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        out.value(&slot.is_some())?;
        slot.iter_mut().try_for_each(|s| X::describe(s, out))
    }
}

impl<X: Handles> Lends for Option<X>
where
    X::Value: Data,
{
    scratch_lends!();
}

impl<X: Handles, const N: usize> Handles for [X; N] {
    type Value = [X::Value; N];
    type Slot = [X::Slot; N];

    fn keep(self) -> Self::Slot {
        self.map(X::keep)
    }

    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        slot.iter_mut().try_for_each(|s| X::encode(s, out))
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
        let slots = (0..N).map(|_| X::decode(from)).collect::<Result<Vec<_>, _>>()?;
        Ok(slots.try_into().ok().expect("one slot per element"))
    }

    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
        slot.iter_mut().for_each(|s| X::inputs(s, visit));
    }

    fn value(slot: &mut Self::Slot, moves: Moves) -> Result<Self::Value, Cause> {
        let values = slot.iter_mut().map(|s| X::value(s, moves)).collect::<Result<Vec<_>, _>>()?;
        Ok(values.try_into().ok().expect("one value per element"))
    }

    fn done(slot: &mut Self::Slot) {
        slot.iter_mut().for_each(X::done);
    }

    fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        out.value(&N)?;
        slot.iter_mut().try_for_each(|s| X::describe(s, out))
    }
}

impl<X: Handles, const N: usize> Lends for [X; N]
where
    [X::Value; N]: Data,
{
    scratch_lends!();
}

macro_rules! tuple {
    ($($X:ident $i:tt)*) => {
        impl<$($X: Handles),*> Handles for ($($X,)*) {
            type Value = ($($X::Value,)*);
            type Slot = ($($X::Slot,)*);

            fn keep(self) -> Self::Slot {
                ($(self.$i.keep(),)*)
            }

            fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
                $($X::encode(&mut slot.$i, out)?;)*
                Ok(())
            }

            fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
                Ok(($($X::decode(from)?,)*))
            }

            fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
                $($X::inputs(&mut slot.$i, visit);)*
            }

            fn value(slot: &mut Self::Slot, moves: Moves) -> Result<Self::Value, Cause> {
                Ok(($($X::value(&mut slot.$i, moves)?,)*))
            }

            fn done(slot: &mut Self::Slot) {
                $($X::done(&mut slot.$i);)*
            }

            fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
                $($X::describe(&mut slot.$i, out)?;)*
                Ok(())
            }
        }

        impl<$($X: Handles),*> Lends for ($($X,)*)
        where
            ($($X::Value,)*): Data,
        {
            scratch_lends!();
        }
    };
}
tuple!(X1 0);
tuple!(X1 0 X2 1);
tuple!(X1 0 X2 1 X3 2);
tuple!(X1 0 X2 1 X3 2 X4 3);
tuple!(X1 0 X2 1 X3 2 X4 3 X5 4);
tuple!(X1 0 X2 1 X3 2 X4 3 X5 4 X6 5);

impl<T: Data> Handles for &Task<T> {
    type Value = T;
    type Slot = <Handle<T> as Handles>::Slot;

    fn keep(self) -> Self::Slot {
        Handles::keep(self.result())
    }

    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        <Handle<T> as Handles>::encode(slot, out)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
        <Handle<T> as Handles>::decode(from)
    }

    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
        <Handle<T> as Handles>::inputs(slot, visit);
    }

    fn value(slot: &mut Self::Slot, moves: Moves) -> Result<T, Cause> {
        <Handle<T> as Handles>::value(slot, moves)
    }

    fn done(slot: &mut Self::Slot) {
        <Handle<T> as Handles>::done(slot);
    }
}

impl<T: Data> Lends for &Task<T> {
    type LendSlot = <Handle<T> as Lends>::LendSlot;

    fn keep_to_lend(self) -> Self::LendSlot {
        Lends::keep_to_lend(self.result())
    }

    fn lend_inputs(slot: &mut Self::LendSlot, visit: Visit<'_>) {
        <Handle<T> as Lends>::lend_inputs(slot, visit);
    }

    fn borrow(slot: &mut Self::LendSlot) -> Result<&T, Cause> {
        <Handle<T> as Lends>::borrow(slot)
    }

    fn lend_done(slot: &mut Self::LendSlot) {
        <Handle<T> as Lends>::lend_done(slot);
    }

    fn lend_encode(slot: &mut Self::LendSlot, out: &mut Encoder) -> Result<(), WireError> {
        <Handle<T> as Lends>::lend_encode(slot, out)
    }

    fn lend_decode(from: &mut Decoder<'_>) -> Result<Self::LendSlot, WireError> {
        <Handle<T> as Lends>::lend_decode(from)
    }
}

/// A task's output as an argument: to be read when its task has ended, or text that came as bytes.
#[doc(hidden)]
pub enum Text {
    /// To be found in its task's cohort.
    Task(Input, Stream),
    /// Here.
    Ready(String),
}

impl Handles for Stream {
    type Value = String;
    type Slot = Text;

    fn keep(self) -> Text {
        Text::Task(Input::of_output(&self), self)
    }

    fn encode(slot: &mut Text, out: &mut Encoder) -> Result<(), WireError> {
        if let Text::Task(input, stream) = slot
            && let Some(link) = out.link(input.task)
        {
            return out.value(&Some((link, stream.which())));
        }
        let text = Self::value(slot, Moves::Nothing);
        out.value(&None::<(u32, Which)>)?;
        out.value(&text.map_err(|cause| WireError::Input(cause.to_string()))?)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Text, WireError> {
        match from.value::<Option<(u32, Which)>>()? {
            Some((link, which)) => Ok(Stream::new(from.linked(link)?, which).keep()),
            None => Ok(Text::Ready(from.value()?)),
        }
    }

    fn inputs(slot: &mut Text, visit: Visit<'_>) {
        if let Text::Task(input, _) = slot {
            visit(input);
        }
    }

    fn value(slot: &mut Text, _: Moves) -> Result<String, Cause> {
        match slot {
            Text::Task(input, stream) => input.text(stream),
            Text::Ready(text) => Ok(text.clone()),
        }
    }

    fn done(slot: &mut Text) {
        if let Text::Task(input, _) = slot {
            input.done();
        }
    }

    fn describe(slot: &mut Text, out: &mut Encoder) -> Result<(), WireError> {
        match slot {
            Text::Task(_, stream) => out.value(&(stream.which() as u64)),
            Text::Ready(text) => out.value(text),
        }
    }
}

impl Lends for Stream {
    scratch_lends!();
}
