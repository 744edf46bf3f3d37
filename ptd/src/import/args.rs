//! What a call gives: values by position, and values by keyword.

use crate::value::Value;

/// The arguments of one call: a tuple of up to 12 values, and keywords.
///
/// ```
/// use tarragon_ptd::Args;
///
/// let args = Args::from((1, "out.dat")).kwarg("verbose", true);
/// # let _ = args;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Args {
    pub(crate) positional: Vec<Value>,
    pub(crate) keywords: Vec<(String, Value)>,
}

impl Args {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one by position.
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.positional.push(value.into());
        self
    }

    /// Adds one by keyword.
    pub fn kwarg(mut self, keyword: impl Into<String>, value: impl Into<Value>) -> Self {
        self.keywords.push((keyword.into(), value.into()));
        self
    }
}

impl From<Vec<Value>> for Args {
    fn from(positional: Vec<Value>) -> Self {
        Self { positional, keywords: Vec::new() }
    }
}

macro_rules! tuples {
    (@ $($A:ident $i:tt)*) => {
        impl<$($A: Into<Value>),*> From<($($A,)*)> for Args {
            fn from(values: ($($A,)*)) -> Self {
                let _ = &values;
                Self { positional: vec![$(values.$i.into()),*], keywords: Vec::new() }
            }
        }
    };
    ([$($done:tt)*]) => { tuples!(@ $($done)*); };
    ([$($done:tt)*] $A:ident $i:tt $($rest:tt)*) => {
        tuples!(@ $($done)*);
        tuples!([$($done)* $A $i] $($rest)*);
    };
}
tuples!([] A1 0 A2 1 A3 2 A4 3 A5 4 A6 5 A7 6 A8 7 A9 8 A10 9 A11 10 A12 11);
