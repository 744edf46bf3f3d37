//! One argument for one parameter: which pairs fit, what is kept in the record, what the body gets.
//!
//! An argument is a value, a reference to copy from, or the handle of another task's result; a parameter takes its
//! value or borrows it. The marker `How` names the pairing and is found by the compiler, since for every pair of
//! argument and parameter exactly one impl fits.

use super::Data;
use super::kept::Kept;
use super::wire::{Decoder, Encoder, WireError};
use crate::error::Cause;
use crate::task::input::{Handles, Input, Lends};
use std::path::{Path, PathBuf};

/// What a body gets for a parameter `P`.
pub trait Mode<P> {
    /// The parameter, with the lifetime of one call.
    type Item<'a>;
}

/// The argument's value, moved or copied into the body.
pub enum Value {}
/// An owned copy of what the argument refers to.
pub enum Copied {}
/// The value of another task's result.
pub enum FromResult {}
/// A borrow of the argument's value.
pub enum LentValue {}
/// A borrow of an owned copy of what the argument refers to.
pub enum LentCopy {}
/// A borrow of another task's result, in place.
pub enum LentResult {}

macro_rules! modes {
    (value $($by_value:ident)*; lent $($lent:ident)*) => {
        $(impl<P> Mode<P> for $by_value { type Item<'a> = P; })*
        $(impl<'r, U: ?Sized + 'static> Mode<&'r U> for $lent { type Item<'a> = &'a U; })*
    };
}
modes!(value Value Copied FromResult; lent LentValue LentCopy LentResult);

/// What may move into a body instead of being copied.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moves {
    /// Nothing: the body may be called again with the same arguments.
    Nothing,
    /// Results that nobody else can want.
    Results,
    /// These and the argument values: the task never runs again.
    All,
}

/// A task's producer as seen from an argument slot.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&mut Input);

/// An argument that fits a parameter of type `P`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be given to a parameter of type `{P}`",
    label = "this argument",
    note = "an argument is a value of the parameter's type, the `result()` of a task that returns it, or a reference \
            to copy"
)]
pub trait Arg<P, How: Mode<P>>: Sized {
    /// What the task's record keeps.
    #[doc(hidden)]
    type Slot: Send + Sync + 'static;
    /// Whether a slot may name other tasks.
    #[doc(hidden)]
    const INPUTS: bool;
    /// Whether a slot must be discarded.
    #[doc(hidden)]
    const NEEDS_DROP: bool;
    /// Keeps the argument.
    #[doc(hidden)]
    fn keep(self) -> Self::Slot;
    /// Shows each task whose result the slot names.
    #[doc(hidden)]
    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>);
    /// What the body gets; `moves` says what of it may move into the body.
    #[doc(hidden)]
    fn lend<'a>(slot: &'a mut Self::Slot, moves: Moves) -> Result<How::Item<'a>, Cause>;
    /// After the call: let go of results and scratch copies.
    #[doc(hidden)]
    fn done(slot: &mut Self::Slot);
    /// Drops the slot; `given` says that by-value arguments were moved into a body before.
    #[doc(hidden)]
    fn discard(slot: Self::Slot, given: bool);
    /// Writes the argument for another process.
    #[doc(hidden)]
    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError>;
    /// Reads what `encode` wrote.
    #[doc(hidden)]
    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError>;
    /// Writes what is known of the argument before any task has run.
    #[doc(hidden)]
    fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        Self::encode(slot, out)
    }
}

/// Types whose values can be borrowed as `U` (as `String` can be borrowed as `str`).
pub trait Lend<U: ?Sized> {
    /// The borrow.
    fn lend(&self) -> &U;
}

impl<T> Lend<T> for T {
    #[inline(always)]
    fn lend(&self) -> &T {
        self
    }
}

impl Lend<str> for String {
    fn lend(&self) -> &str {
        self
    }
}

impl<T> Lend<[T]> for Vec<T> {
    fn lend(&self) -> &[T] {
        self
    }
}

impl Lend<Path> for PathBuf {
    fn lend(&self) -> &Path {
        self
    }
}

macro_rules! kept_slot {
    ($t:ty) => {
        type Slot = Kept<$t>;
        const INPUTS: bool = false;
        const NEEDS_DROP: bool = std::mem::needs_drop::<$t>();

        fn inputs(_: &mut Self::Slot, _: Visit<'_>) {}

        #[inline(always)]
        fn lend(slot: &mut Self::Slot, moves: Moves) -> Result<$t, Cause> {
            slot.lend(moves)
        }

        #[inline(always)]
        fn done(_: &mut Self::Slot) {}

        fn discard(slot: Self::Slot, given: bool) {
            slot.discard(given);
        }

        fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
            out.value(slot.get())
        }

        fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
            Ok(Kept::new(from.value()?))
        }
    };
}

impl<T: Data> Arg<T, Value> for T {
    kept_slot!(T);

    #[inline(always)]
    fn keep(self) -> Self::Slot {
        Kept::new(self)
    }
}

impl<B: ?Sized + ToOwned<Owned = T>, T: Data> Arg<T, Copied> for &B {
    kept_slot!(T);

    fn keep(self) -> Self::Slot {
        Kept::new(self.to_owned())
    }
}

macro_rules! lent_slot {
    ($t:ty) => {
        type Slot = $t;
        const INPUTS: bool = false;
        const NEEDS_DROP: bool = std::mem::needs_drop::<$t>();

        fn inputs(_: &mut Self::Slot, _: Visit<'_>) {}

        #[inline(always)]
        fn lend(slot: &mut Self::Slot, _: Moves) -> Result<&U, Cause> {
            Ok(Lend::<U>::lend(slot))
        }

        #[inline(always)]
        fn done(_: &mut Self::Slot) {}

        fn discard(slot: Self::Slot, _: bool) {
            drop(slot);
        }

        fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
            out.value(slot)
        }

        fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
            from.value()
        }
    };
}

impl<T: Data + Lend<U>, U: ?Sized + 'static> Arg<&U, LentValue> for T {
    lent_slot!(T);

    fn keep(self) -> Self::Slot {
        self
    }
}

impl<B, T, U> Arg<&U, LentCopy> for &B
where
    B: ?Sized + ToOwned<Owned = T>,
    T: Data + Lend<U>,
    U: ?Sized + 'static,
{
    lent_slot!(T);

    fn keep(self) -> Self::Slot {
        self.to_owned()
    }
}

impl<H: Handles> Arg<H::Value, FromResult> for H
where
    H::Value: Data,
{
    type Slot = H::Slot;
    const INPUTS: bool = true;
    const NEEDS_DROP: bool = true;

    fn keep(self) -> Self::Slot {
        Handles::keep(self)
    }

    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
        H::inputs(slot, visit);
    }

    #[inline(always)]
    fn lend(slot: &mut Self::Slot, moves: Moves) -> Result<H::Value, Cause> {
        H::value(slot, moves)
    }

    #[inline(always)]
    fn done(slot: &mut Self::Slot) {
        H::done(slot);
    }

    fn discard(slot: Self::Slot, _: bool) {
        drop(slot);
    }

    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        H::encode(slot, out)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
        H::decode(from)
    }

    fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        H::describe(slot, out)
    }
}

impl<H, U> Arg<&U, LentResult> for H
where
    H: Lends,
    H::Value: Lend<U>,
    U: ?Sized + 'static,
{
    type Slot = H::LendSlot;
    const INPUTS: bool = true;
    const NEEDS_DROP: bool = true;

    fn keep(self) -> Self::Slot {
        Lends::keep_to_lend(self)
    }

    fn inputs(slot: &mut Self::Slot, visit: Visit<'_>) {
        H::lend_inputs(slot, visit);
    }

    #[inline(always)]
    fn lend(slot: &mut Self::Slot, _: Moves) -> Result<&U, Cause> {
        Ok(H::borrow(slot)?.lend())
    }

    #[inline(always)]
    fn done(slot: &mut Self::Slot) {
        H::lend_done(slot);
    }

    fn discard(slot: Self::Slot, _: bool) {
        drop(slot);
    }

    fn encode(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        H::lend_encode(slot, out)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slot, WireError> {
        H::lend_decode(from)
    }

    fn describe(slot: &mut Self::Slot, out: &mut Encoder) -> Result<(), WireError> {
        H::lend_describe(slot, out)
    }
}
