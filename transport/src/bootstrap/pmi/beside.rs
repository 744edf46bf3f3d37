//! An MPI that the program calls itself, and that speaks over the same socket.
#![expect(unsafe_code, reason = "calls MPI")]

use std::ffi::{c_int, c_void};
use std::mem::transmute;

use crate::dynamic::Dynamic;

/// *Source*: the MPI standard, `MPI_Initialized`; it may be called at any time, by any thread.
type Initialized = extern "C" fn(*mut c_int) -> c_int;

/// Whether the program has begun MPI, ended or not: then it tells the launcher of its end itself.
pub(super) fn has_begun() -> bool {
    let Ok(symbol) = Dynamic::program().and_then(|program| program.symbol(c"MPI_Initialized")) else {
        return false;
    };
    // SAFETY: a function of this name in the program is MPI's.
    let initialized = unsafe { transmute::<*mut c_void, Initialized>(symbol) };
    let mut is_begun = 0;
    initialized(&raw mut is_begun) == 0 && is_begun != 0
}
