//! `ndarray` arrays as values: bytes that are a `.npy` file. Without the feature `ndarray` no type is an array.

#[cfg(feature = "ndarray")]
mod enabled;
#[cfg(feature = "ndarray")]
mod npy;
#[cfg(feature = "ndarray")]
pub use enabled::PinnedArray;
#[cfg(feature = "ndarray")]
pub(crate) use enabled::{decode, encode, may_be};

#[cfg(not(feature = "ndarray"))]
mod disabled;
#[cfg(not(feature = "ndarray"))]
pub(crate) use disabled::{decode, encode, may_be};
