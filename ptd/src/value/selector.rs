//! A function that a template calls while a task is made: it selects a file, a key, an argument.

use super::convert::Mismatch;
use super::signature::{Parameters, Types};
use super::{Value, short_name};
use std::error::Error;
use std::fmt;

/// What a selector answers: a value, or a `Result` of one.
pub trait Selected<Kind> {
    /// The value.
    #[doc(hidden)]
    fn selected(self) -> Result<Value, Box<dyn Error + Send + Sync>>;
}

/// Marks selectors that return a value.
pub enum Plain {}
/// Marks selectors that return a `Result`.
pub enum Fallible {}

impl<V: Into<Value>> Selected<Plain> for V {
    fn selected(self) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Ok(self.into())
    }
}

impl<V: Into<Value>, E: Into<Box<dyn Error + Send + Sync>>> Selected<Fallible> for Result<V, E> {
    fn selected(self) -> Result<Value, Box<dyn Error + Send + Sync>> {
        self.map(Into::into).map_err(Into::into)
    }
}

/// A function with parameters `P` that takes values of types `T`.
pub trait Select<P, How, T, R> {
    /// How many values it takes.
    #[doc(hidden)]
    const COUNT: usize;
    /// Calls it; with the number of the value that does not fit.
    #[doc(hidden)]
    fn select(&self, values: &[Value]) -> Result<R, (usize, Mismatch)>;
}

/// Why a selector selects nothing.
pub(crate) enum Refused {
    Argument(usize, Mismatch),
    Count { takes: usize, given: usize },
    Failed(Box<dyn Error + Send + Sync>),
}

type Call = dyn Fn(&[Value]) -> Result<Value, Refused> + Send + Sync;

/// A function that a template calls each time a task is made, on the thread that makes it; made by [`selector`].
pub struct Selector {
    name: &'static str,
    count: usize,
    call: Box<Call>,
}

impl Selector {
    pub(super) fn new<F, P, How, T, R, Kind>(selector: F) -> Self
    where
        F: Select<P, How, T, R> + Send + Sync + 'static,
        R: Selected<Kind>,
    {
        Self {
            name: short_name(std::any::type_name::<F>()),
            count: F::COUNT,
            call: Box::new(move |values| {
                let answer = selector.select(values).map_err(|(index, why)| Refused::Argument(index, why))?;
                answer.selected().map_err(Refused::Failed)
            }),
        }
    }

    /// How many values it takes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The path of the function.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn call(&self, values: &[Value]) -> Result<Value, Refused> {
        if values.len() != self.count {
            return Err(Refused::Count { takes: self.count, given: values.len() });
        }
        (self.call)(values)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "selector {}", self.name)
    }
}

/// A function that a template calls to select a file, a key, an argument. It may capture; parameters `&str`, `&Path`
/// and
/// `&[u8]` need [`Signature`](crate::Signature). It answers anything that can be a [`Value`], or a `Result` of it.
///
/// ```
/// use std::path::PathBuf;
/// use tarragon_ptd::selector;
///
/// let get_file = selector(|dir: PathBuf, i: u64, j: u64| dir.join(format!("file_{}", i + j)));
/// assert_eq!(get_file.count(), 3);
/// ```
pub fn selector<F, P, How, R, Kind>(selector: F) -> Selector
where
    F: Callee<P, Return = R> + Select<P, How, P::Owned, R> + Send + Sync + 'static,
    P: Parameters<How>,
    P::Owned: Types,
    R: Selected<Kind>,
{
    Selector::new::<F, P, How, P::Owned, R, Kind>(selector)
}

/// A function, whose parameters the compiler finds by this.
pub trait Callee<P> {
    /// What it returns.
    type Return;
}

macro_rules! callees {
    ([$($P:ident)*]) => { callees!(@ $($P)*); };
    (@ $($P:ident)*) => {
        impl<Fun: Fn($($P),*) -> Ret, Ret, $($P),*> Callee<($($P,)*)> for Fun {
            type Return = Ret;
        }
    };
    ([$($done:ident)*] $next:ident $($rest:ident)*) => {
        callees!(@ $($done)*);
        callees!([$($done)* $next] $($rest)*);
    };
}
callees!([] P1 P2 P3 P4 P5 P6 P7 P8 P9 P10 P11 P12);
