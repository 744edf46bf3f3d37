//! A tuple of arguments for a whole function, with or without a [`Context`] before its parameters.
#![expect(clippy::unused_unit, reason = "the macros make the empty tuple, too")]

use super::arg::{Arg, Mode, Moves, Visit};
use super::wire::{Decoder, Encoder, WireError};
use super::{Function, Takes};
use crate::body::Context;
use crate::error::Cause;

/// The arguments `Self` fit a function `F` with parameters `P` that returns `R`.
#[diagnostic::on_unimplemented(message = "the arguments {Self} do not fit the function's parameters {P}")]
pub trait Args<P, How, F, R>: Sized {
    /// What the task's record keeps.
    #[doc(hidden)]
    type Slots: Send + Sync + 'static;
    /// Whether the slots may name other tasks.
    #[doc(hidden)]
    const INPUTS: bool;
    /// Whether the slots must be discarded.
    #[doc(hidden)]
    const NEEDS_DROP: bool;
    /// Keeps the arguments.
    #[doc(hidden)]
    fn keep(self) -> Self::Slots;
    /// Shows each task whose result an argument names.
    #[doc(hidden)]
    fn inputs(slots: &mut Self::Slots, visit: Visit<'_>);
    /// Calls the function; see [`Arg::lend`] for `moves`.
    #[doc(hidden)]
    fn call(
        slots: &mut Self::Slots,
        function: &F,
        context: &dyn Fn() -> Context,
        moves: Moves,
    ) -> Result<R, Cause>;
    /// After the call, or instead of it: let go of other tasks' results.
    #[doc(hidden)]
    fn done(slots: &mut Self::Slots);
    /// Drops the slots.
    #[doc(hidden)]
    fn discard(slots: Self::Slots, given: bool);
    /// Writes the arguments for another process.
    #[doc(hidden)]
    fn encode(slots: &mut Self::Slots, out: &mut Encoder) -> Result<(), WireError>;
    /// Reads what `encode` wrote.
    #[doc(hidden)]
    fn decode(from: &mut Decoder<'_>) -> Result<Self::Slots, WireError>;
    /// Writes what is known of the arguments before any task has run.
    #[doc(hidden)]
    fn describe(slots: &mut Self::Slots, out: &mut Encoder) -> Result<(), WireError>;
}

/// The plumbing that is the same with and without a context.
macro_rules! slots {
    ($(($A:ident $P:ident $M:ident $i:tt))*) => {
        type Slots = ($($A::Slot,)*);
        const INPUTS: bool = false $(|| $A::INPUTS)*;
        const NEEDS_DROP: bool = false $(|| $A::NEEDS_DROP)*;

        #[inline(always)]
        fn keep(self) -> Self::Slots {
            ($(self.$i.keep(),)*)
        }

        #[inline(always)]
        fn inputs(slots: &mut Self::Slots, visit: Visit<'_>) {
            $($A::inputs(&mut slots.$i, visit);)*
            let _ = (slots, visit);
        }

        #[inline(always)]
        fn done(slots: &mut Self::Slots) {
            $($A::done(&mut slots.$i);)*
            let _ = slots;
        }

        #[inline(always)]
        fn discard(slots: Self::Slots, given: bool) {
            let _ = (&slots, given);
            $($A::discard(slots.$i, given);)*
        }

        fn encode(slots: &mut Self::Slots, out: &mut Encoder) -> Result<(), WireError> {
            $($A::encode(&mut slots.$i, out)?;)*
            let _ = (slots, out);
            Ok(())
        }

        fn decode(from: &mut Decoder<'_>) -> Result<Self::Slots, WireError> {
            let _ = &from;
            Ok(($($A::decode(from)?,)*))
        }

        fn describe(slots: &mut Self::Slots, out: &mut Encoder) -> Result<(), WireError> {
            $($A::describe(&mut slots.$i, out)?;)*
            let _ = (slots, out);
            Ok(())
        }
    };
}

macro_rules! arity {
    ($(($A:ident $P:ident $M:ident $i:tt))*) => {
        impl<$($A, $P),*> Takes<($($A,)*)> for ($($P,)*) {}

        impl<'r, $($A, $P),*> Takes<($($A,)*)> for (&'r Context, $($P,)*) {}

        impl<Fun, Ret, $($P),*> Function<($($P,)*)> for Fun
        where
            Fun: Fn($($P),*) -> Ret + Copy + Send + Sync + 'static,
        {
            type Return = Ret;
        }

        impl<$($A, $P, $M,)* Fun, Ret> Args<($($P,)*), ($($M,)*), Fun, Ret> for ($($A,)*)
        where
            $($M: Mode<$P>, $A: Arg<$P, $M>,)*
            for<'a> Fun: Fn($(<$M as Mode<$P>>::Item<'a>),*) -> Ret,
        {
            slots!($(($A $P $M $i))*);

            #[inline(always)]
            fn call(
                slots: &mut Self::Slots,
                function: &Fun,
                _: &dyn Fn() -> Context,
                moves: Moves,
            ) -> Result<Ret, Cause> {
                let _ = (&slots, moves);
                // All are lent before one is asked for: what moved out of its slot is dropped if another fails.
                let lent = ($($A::lend(&mut slots.$i, moves),)*);
                let _ = &lent;
                Ok(function($(lent.$i?),*))
            }
        }

        impl<'r, $($A, $P, $M,)* Fun, Ret> Args<(&'r Context, $($P,)*), (WithContext, $($M,)*), Fun, Ret>
            for ($($A,)*)
        where
            $($M: Mode<$P>, $A: Arg<$P, $M>,)*
            for<'a> Fun: Fn(&'a Context, $(<$M as Mode<$P>>::Item<'a>),*) -> Ret,
        {
            slots!($(($A $P $M $i))*);

            #[inline(always)]
            fn call(
                slots: &mut Self::Slots,
                function: &Fun,
                context: &dyn Fn() -> Context,
                moves: Moves,
            ) -> Result<Ret, Cause> {
                let context = context();
                let _ = (&slots, moves);
                let lent = ($($A::lend(&mut slots.$i, moves),)*);
                let _ = &lent;
                Ok(function(&context, $(lent.$i?),*))
            }
        }
    };
}

/// Marks a function whose first parameter is `&Context`.
pub enum WithContext {}

macro_rules! arities {
    ([$($done:tt)*]) => { arity!($($done)*); };
    ([$($done:tt)*] $next:tt $($rest:tt)*) => {
        arity!($($done)*);
        arities!([$($done)* $next] $($rest)*);
    };
}
arities!([] (A1 P1 M1 0) (A2 P2 M2 1) (A3 P3 M3 2) (A4 P4 M4 3) (A5 P5 M5 4) (A6 P6 M6 5) (A7 P7 M7 6)
    (A8 P8 M8 7) (A9 P9 M9 8) (A10 P10 M10 9) (A11 P11 M11 10) (A12 P12 M12 11));

impl<Fun, Ret, C, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12>
    Function<(C, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12)> for Fun
where
    Fun: Fn(C, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12) -> Ret + Copy + Send + Sync + 'static,
{
    type Return = Ret;
}
