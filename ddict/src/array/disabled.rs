//! Without the feature `ndarray`: no type is an array.

use crate::encoding::Pieces;
use std::any::Any;

/// An array's bytes: there is none.
pub(crate) enum Npy {}

impl Npy {
    pub(crate) fn pieces(&self) -> Pieces<'_> {
        match *self {}
    }
}

/// Whether a type is perhaps an array.
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "the twin that knows arrays asks which type it is")]
pub(crate) fn may_be<V>() -> bool {
    false
}

/// The bytes of an array; `None` if it is none.
pub(crate) fn encode(_: &dyn Any) -> Option<Result<Npy, &'static str>> {
    None
}

/// Reads an array into a slot (an `Option` of it); `None` if it is none.
pub(crate) fn decode(_: &mut dyn Any, _: &[u8]) -> Option<Result<(), &'static str>> {
    None
}
