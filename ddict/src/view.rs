//! Values in place: a guard that is the text or the numbers themselves.

#![expect(unsafe_code, reason = "a text in place is checked once, when it is pinned, and not at each use")]

use crate::encoding::{DecodeError, Plain, Value, decode};
use crate::store::Pinned;
use std::fmt;
use std::ops::Deref;

mod sealed {
    pub trait Sealed {}
}

/// Types whose bytes in a dictionary are what they are in memory: `String`, and `Vec` of numbers.
pub trait View: sealed::Sealed + Value {
    /// What a guard dereferences to: `str` or `[T]`.
    type Target: ?Sized;

    /// Looks at a value that is not in place.
    #[doc(hidden)]
    fn of_owned(&self) -> &Self::Target;

    /// Whether these bytes are such a value; `Ok(false)`: they are, but do not lie aligned.
    #[doc(hidden)]
    fn check(bytes: &[u8]) -> Result<bool, &'static str>;

    /// Looks at bytes in place.
    ///
    /// # Safety
    /// `check` said `Ok(true)` to these bytes, and they did not change since.
    #[doc(hidden)]
    unsafe fn of_bytes(bytes: &[u8]) -> &Self::Target;
}

impl sealed::Sealed for String {}

impl View for String {
    type Target = str;

    fn of_owned(&self) -> &str {
        self
    }

    fn check(bytes: &[u8]) -> Result<bool, &'static str> {
        std::str::from_utf8(bytes).map(|_| true).map_err(|_| "the text is no UTF-8")
    }

    #[inline]
    unsafe fn of_bytes(bytes: &[u8]) -> &str {
        // SAFETY: `check` found UTF-8 in these very bytes, as the caller promises.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
}

impl<T: Plain> sealed::Sealed for Vec<T> {}

impl<T: Plain> View for Vec<T> {
    type Target = [T];

    fn of_owned(&self) -> &[T] {
        self
    }

    #[inline]
    fn check(bytes: &[u8]) -> Result<bool, &'static str> {
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err("the length is another");
        }
        Ok(bytemuck::try_cast_slice::<u8, T>(bytes).is_ok())
    }

    #[inline]
    unsafe fn of_bytes(bytes: &[u8]) -> &[T] {
        bytemuck::cast_slice(bytes)
    }
}

/// A value in place, see [`DDict::get_ref`](crate::DDict::get_ref): it is the text or the numbers, and they stay as
/// they are until it is dropped, by whatever thread.
pub struct Ref<'d, V: View> {
    held: Held<'d, V>,
}

enum Held<'d, V> {
    /// The value is the first `length` bytes, which `View::check` accepted.
    InPlace { bytes: Pinned<'d>, length: usize },
    /// Too small to lie aligned.
    Copy(V),
}

impl<'d, V: View> Ref<'d, V> {
    #[inline]
    pub(crate) fn new(bytes: Pinned<'d>) -> Result<Self, DecodeError> {
        let length = bytes.len();
        Self::of_head(bytes, length)
    }

    /// Of the first `length` bytes.
    #[inline]
    pub(crate) fn of_head(bytes: Pinned<'d>, length: usize) -> Result<Self, DecodeError> {
        let held = match V::check(&bytes[..length]) {
            Ok(true) => Held::InPlace { bytes, length },
            Ok(false) => Held::Copy(decode(&bytes[..length])?),
            Err(what) => return Err(DecodeError::Header(what)),
        };
        Ok(Self { held })
    }

    /// Whether it is the value itself. Not so for values of at most 16 bytes, and beyond 1024 guards of a thread.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        matches!(self.held, Held::InPlace { .. })
    }
}

impl<V: View> Deref for Ref<'_, V> {
    type Target = V::Target;

    #[inline]
    fn deref(&self) -> &V::Target {
        match &self.held {
            // SAFETY: `of_head` keeps only what `check` accepted, and a published value does not change while it is
            // pinned; a `Pinned` that is a copy belongs to the guard alone.
            Held::InPlace { bytes, length } => unsafe { V::of_bytes(&bytes[..*length]) },
            Held::Copy(value) => value.of_owned(),
        }
    }
}

impl<V: View> AsRef<V::Target> for Ref<'_, V> {
    fn as_ref(&self) -> &V::Target {
        self
    }
}

impl<V: View> fmt::Debug for Ref<'_, V>
where
    V::Target: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
