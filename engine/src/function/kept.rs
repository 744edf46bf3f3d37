//! The slot of a by-value argument: a value that stays for every run, or moves into the body on the only one.
#![expect(unsafe_code, reason = "a by-value argument moves out of its slot on the only run of its task")]

use super::arg::Moves;
use super::{Data, copy_of};
use crate::error::Cause;
use std::mem::MaybeUninit;

/// A value kept until it is moved out; the record's flag "arguments given" says whether it was.
#[doc(hidden)]
pub struct Kept<T>(MaybeUninit<T>);

impl<T: Data> Kept<T> {
    pub(super) fn new(value: T) -> Self {
        Self(MaybeUninit::new(value))
    }

    #[inline(always)]
    pub(super) fn get(&self) -> &T {
        // SAFETY: the value is there until `lend` moves it; the record's flag keeps later callers away.
        unsafe { self.0.assume_init_ref() }
    }

    /// The value itself when all may move, else a copy.
    #[inline(always)]
    pub(super) fn lend(&mut self, moves: Moves) -> Result<T, Cause> {
        if moves == Moves::All {
            // SAFETY: on its only run a task is called once, and its record is marked "arguments given" before.
            return Ok(unsafe { self.0.assume_init_read() });
        }
        copy_of(self.get()).map_err(Cause::Copy)
    }

    pub(super) fn discard(mut self, given: bool) {
        if !given {
            // SAFETY: nobody moved the value out, says the record's flag.
            unsafe { self.0.assume_init_drop() };
        }
    }
}
