//! Which values a function's parameters take: found by the compiler from the function, or said by its user.
//!
//! A parameter by value takes a value of its type; one by reference takes a value that can be borrowed as it (`String`
//! for `&str`, `PathBuf` for `&Path`, `Vec<T>` for `&[T]`). The compiler finds which is which, but for `&str`, `&Path`
//! and `&[u8]`, which serde can read in place, so that it sees two ways: there [`Signature`] says it.

use super::Value;
use super::convert::{Kept, Mismatch, given, owned};
use super::function::TaskFunction;
use super::selector::{Callee, Select, Selected, Selector};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tarragon_engine::typed::{
    Args, Failure, FromResult, Function, Lend, LentResult, Mode, Outcome, Takes, WithContext,
};
use tarragon_engine::{Context, Data, Given};

/// Types of values, one for each parameter of a function: a tuple of at most 12.
pub trait Types {
    /// Arguments of these types.
    #[doc(hidden)]
    type Given;
    /// How many there are.
    #[doc(hidden)]
    const COUNT: usize;
    /// Values as arguments; with the number of the one that does not fit.
    #[doc(hidden)]
    fn given(values: &[Value]) -> Result<Self::Given, (usize, Mismatch)>;
    /// A value that every call gets, in the form in which a call has least to do.
    #[doc(hidden)]
    fn fix(index: usize, value: &Value) -> Result<Value, Mismatch>;
}

/// Values of type `Self` are for a parameter `P`, in the way of `M`.
pub trait Fits<P, M: Mode<P>>: Data {
    /// What the function gets of it.
    #[doc(hidden)]
    fn lend(kept: &mut Option<Kept<Self>>) -> M::Item<'_>;
}

impl<T: Data> Fits<T, FromResult> for T {
    fn lend(kept: &mut Option<Kept<T>>) -> T {
        match kept.take().expect("each value is lent once") {
            Kept::Own(value) => value,
            Kept::Shared(shared) => Arc::try_unwrap(shared).unwrap_or_else(|shared| {
                tarragon_engine::typed::copied(&*shared).expect("a value of this type can be copied by serde")
            }),
        }
    }
}

impl<U: ?Sized + 'static, T: Data + Lend<U>> Fits<&U, LentResult> for T {
    fn lend(kept: &mut Option<Kept<T>>) -> &U {
        match kept.as_ref().expect("each value is lent once") {
            Kept::Own(value) => value.lend(),
            Kept::Shared(shared) => (**shared).lend(),
        }
    }
}

/// What a type that is borrowed is borrowed from.
pub trait Borrowed: 'static {
    /// The type of the value.
    type Owned: Data + Lend<Self>;
}

impl<T: Data> Borrowed for T {
    type Owned = T;
}

impl Borrowed for str {
    type Owned = String;
}

impl Borrowed for Path {
    type Owned = PathBuf;
}

impl<T: Data> Borrowed for [T] {
    type Owned = Vec<T>;
}

/// A parameter, and the type of the values that it takes.
pub trait Parameter<M: Mode<Self>>: Sized {
    /// The type of the values.
    type Owned: Fits<Self, M>;
}

impl<T: Data> Parameter<FromResult> for T {
    type Owned = T;
}

impl<U: ?Sized + Borrowed> Parameter<LentResult> for &U {
    type Owned = U::Owned;
}

/// All parameters of a function.
pub trait Parameters<How> {
    /// The types of the values.
    type Owned: Types;
}

macro_rules! tuples {
    ($(($P:ident $M:ident $T:ident $i:tt))*) => {
        impl<$($P: Data),*> Types for ($($P,)*) {
            type Given = ($(Given<$P>,)*);
            const COUNT: usize = 0 $(+ { let _ = $i; 1 })*;

            fn given(values: &[Value]) -> Result<Self::Given, (usize, Mismatch)> {
                let _ = values;
                Ok(($(given::<$P>(&values[$i]).map_err(|why| ($i, why))?,)*))
            }

            fn fix(index: usize, value: &Value) -> Result<Value, Mismatch> {
                match index {
                    $($i => match given::<$P>(value)? {
                        Given::Value(shared) => Ok(Value::of_arc(shared)),
                        Given::ResultOf(_) | Given::Output(_) => Ok(value.clone()),
                    },)*
                    _ => unreachable!("there is no such parameter as {index}: {value:?}"),
                }
            }
        }

        impl<$($P, $M),*> Parameters<($($M,)*)> for ($($P,)*)
        where
            $($M: Mode<$P>, $P: Parameter<$M>,)*
        {
            type Owned = ($(<$P as Parameter<$M>>::Owned,)*);
        }

        impl<'r, $($P, $M),*> Parameters<(WithContext, $($M,)*)> for (&'r Context, $($P,)*)
        where
            $($M: Mode<$P>, $P: Parameter<$M>,)*
        {
            type Owned = ($(<$P as Parameter<$M>>::Owned,)*);
        }

        impl<Fun, Ret, $($P, $M, $T,)*> Select<($($P,)*), ($($M,)*), ($($T,)*), Ret> for Fun
        where
            $($M: Mode<$P>, $T: Fits<$P, $M>,)*
            for<'a> Fun: Fn($(<$M as Mode<$P>>::Item<'a>),*) -> Ret,
        {
            const COUNT: usize = 0 $(+ { let _ = $i; 1 })*;

            fn select(&self, values: &[Value]) -> Result<Ret, (usize, Mismatch)> {
                let mut at = values.iter();
                $(
                    let value = at.next().expect("the number of values was looked at");
                    #[expect(non_snake_case, reason = "the macro has one name for a type and its value")]
                    let mut $P = Some(owned::<$T>(value).map_err(|why| ($i, why))?);
                )*
                let _ = &mut at;
                Ok(self($(<$T as Fits<$P, $M>>::lend(&mut $P)),*))
            }
        }
    };
}

macro_rules! all {
    ([$($done:tt)*]) => { tuples!($($done)*); };
    ([$($done:tt)*] $next:tt $($rest:tt)*) => {
        tuples!($($done)*);
        all!([$($done)* $next] $($rest)*);
    };
}

all!([] (P1 M1 T1 0) (P2 M2 T2 1) (P3 M3 T3 2) (P4 M4 T4 3) (P5 M5 T5 4) (P6 M6 T6 5) (P7 M7 T7 6) (P8 M8 T8 7)
    (P9 M9 T9 8) (P10 M10 T10 9) (P11 M11 T11 10) (P12 M12 T12 11));

/// Says of which types the values are that a function takes, where the compiler cannot tell: in parameters `&str`,
/// `&Path` and `&[u8]`.
///
/// ```
/// use std::path::{Path, PathBuf};
/// use tarragon_ptd::Signature;
///
/// fn simulate(seed: u64, to: &Path) -> std::io::Result<()> {
///     std::fs::write(to, seed.to_string())
/// }
///
/// let simulate = Signature::<(u64, PathBuf)>::function(simulate);
/// let name = Signature::<(PathBuf, u64)>::selector(|dir: &Path, i: u64| dir.join(format!("{i}.dat")));
/// # let _ = (simulate, name);
/// ```
pub struct Signature<T>(PhantomData<fn(T)>);

impl<T: Types> Signature<T> {
    /// As [`function`](super::function()).
    pub fn function<F, P, How, R, UseTryFunction>(function: F) -> TaskFunction
    where
        F: Function<P, Return = R>,
        P: Takes<T::Given>,
        T::Given: Args<P, How, F, R>,
        R: Outcome<UseTryFunction>,
        R::Value: Data,
        R::Failure: Failure,
    {
        TaskFunction::new::<F, R::Value, T>(move |batch, given| batch.function(function, given))
    }

    /// As [`selector`](super::selector()).
    pub fn selector<F, P, How, R, Kind>(selector: F) -> Selector
    where
        F: Callee<P, Return = R> + Select<P, How, T, R> + Send + Sync + 'static,
        R: Selected<Kind>,
    {
        Selector::new::<F, P, How, T, R, Kind>(selector)
    }
}
