//! Atomics: the standard library's, or loom's when the crate is compiled for model checking.
//!
//! What lies in shared memory is made of these, so that a protocol can be given either real memory or a model's.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
