//! A copy of a value whose type is only known to be [`Data`].
//!
//! Numbers, strings and flat vectors of numbers are cloned; everything else goes through its serde form once, as it
//! would on the way to another rank. So a by-value parameter sees the same value wherever its task runs.

use super::Data;
use std::any::Any;
use std::path::PathBuf;

macro_rules! clone_if {
    ($value:ident: $($t:ty),* $(,)?) => {
        $(if let Some(v) = ($value as &dyn Any).downcast_ref::<$t>() {
            return Ok(own(v.clone()).expect("both names are of one type"));
        })*
    };
}

/// A value equal to `value` as far as serde can see.
///
/// # Errors
/// What serde says when the type's own `Serialize` or `Deserialize` refuses the value.
#[inline]
pub(crate) fn copy_of<T: Data>(value: &T) -> Result<T, postcard::Error> {
    clone_if!(value: u64, i64, f64, u32, i32, f32, usize, isize, u8, i8, u16, i16, u128, i128, bool, char, ());
    through_serde(value)
}

#[inline(never)]
fn through_serde<T: Data>(value: &T) -> Result<T, postcard::Error> {
    clone_if!(value: String, PathBuf, Vec<f64>, Vec<f32>, Vec<u8>, Vec<u32>, Vec<u64>, Vec<i32>, Vec<i64>, Vec<usize>,
        Vec<String>);
    postcard::from_bytes(&postcard::to_stdvec(value)?)
}

/// The value under the name `T`, if that is what `C` is.
pub(crate) fn own<C: 'static, T: 'static>(value: C) -> Option<T> {
    let mut slot = Some(value);
    let any: &mut dyn Any = &mut slot;
    any.downcast_mut::<Option<T>>().and_then(Option::take)
}
