//! Names code across processes of one executable (see `transport::code`).
#![expect(
    unsafe_code,
    reason = "turns a distance back into a function, after the fingerprints were compared"
)]

use super::Code;
use super::wire::{Trampoline, WireError};
use crate::task::record::Ref;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;
use tarragon_transport::code;

/// Hash of the executable's bytes (XXH3, 128 bits): equal for equal builds, and nothing else is asked of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The fingerprint of the executable this process runs, read once (about 10 ms for 50 MB). The file that was started
/// counts, even if another one has its name by now.
///
/// # Errors
/// [`WireError::Executable`] if the executable cannot be read.
pub fn fingerprint() -> Result<Fingerprint, WireError> {
    static OURS: OnceLock<Fingerprint> = OnceLock::new();
    if let Some(ours) = OURS.get() {
        return Ok(*ours);
    }
    let ours = Fingerprint(hash("/proc/self/exe").map_err(WireError::Executable)?);
    Ok(*OURS.get_or_init(|| ours))
}

fn hash(path: &str) -> std::io::Result<[u8; 16]> {
    let mut file = File::open(path)?;
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.digest128().to_le_bytes()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The distance of a trampoline from the anchor, in bytes.
pub(crate) fn offset(trampoline: Trampoline) -> i64 {
    code::distance(trampoline as *const ())
}

/// Calls the trampoline at a distance; the caller has compared fingerprints.
pub(crate) fn call(offset: i64, arguments: &[u8]) -> Result<Vec<u8>, WireError> {
    let address = code_at(offset)?;
    // SAFETY: the same executable took this distance from a function of this type, says the fingerprint that its
    // sender wrote beside it; a message that lies about both is not defended against, as ranks trust each other.
    let trampoline: Trampoline = unsafe { std::mem::transmute::<usize, Trampoline>(address) };
    trampoline(arguments)
}

/// Gives the row of function pointers of one kind of task.
pub(crate) type Namer = fn() -> &'static Code;

/// The distance of a namer from the anchor, in bytes.
pub(crate) fn name_of(namer: Namer) -> i64 {
    code::distance(namer as *const ())
}

/// The row whose namer is at a distance; the caller has compared fingerprints.
pub(crate) fn named(name: i64) -> Result<&'static Code, WireError> {
    let address = code_at(name)?;
    // SAFETY: as in `call`: the same executable took this distance from a function of this type.
    let namer: Namer = unsafe { std::mem::transmute::<usize, Namer>(address) };
    Ok(namer())
}

/// The distance of any other function from the anchor, in bytes.
pub(crate) fn distance(function: *const ()) -> i64 {
    code::distance(function)
}

/// How a result becomes a word of a process.
pub(crate) type WordOf = fn(&crate::task::input::Input) -> Result<std::ffi::OsString, crate::error::Cause>;

/// The function of this type at a distance; the caller has compared fingerprints.
pub(crate) fn word_at(distance: i64) -> Result<WordOf, WireError> {
    let address = code_at(distance)?;
    // SAFETY: as in `call`: the same executable took this distance from a function of this type.
    Ok(unsafe { std::mem::transmute::<usize, WordOf>(address) })
}

/// Whether a failure is worth another attempt.
pub(crate) type IsWorth = fn(&crate::error::TaskError) -> bool;

/// The function of this type at a distance; the caller has compared fingerprints.
pub(crate) fn is_worth_at(distance: i64) -> Result<IsWorth, WireError> {
    let address = code_at(distance)?;
    // SAFETY: as in `call`: the same executable took this distance from a function of this type.
    Ok(unsafe { std::mem::transmute::<usize, IsWorth>(address) })
}

/// The function of this type at a distance; the caller has compared fingerprints.
pub(crate) fn row_at(distance: i64) -> Result<crate::error::carried::RowOf, WireError> {
    let address = code_at(distance)?;
    // SAFETY: as in `call`: the same executable took this distance from a function of this type.
    Ok(unsafe { std::mem::transmute::<usize, crate::error::carried::RowOf>(address) })
}

fn code_at(distance: i64) -> Result<usize, WireError> {
    code::address(distance).ok_or(WireError::Malformed("names a place that is not code"))
}

/// A function item out of nothing, which is what it is made of.
pub(crate) fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "only a function without captures can be named") };
    // SAFETY: `F` has no bytes, is `Copy`, and a value of it existed when the call was encoded (the trampoline is
    // only made for functions that a task was created with).
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// Gives `f` the argument slots of a record.
///
/// # Safety
/// The record was created with these types, and nobody executes it now.
pub(crate) unsafe fn with_slots<V, F, S, R>(task: Ref, f: impl FnOnce(&mut S) -> R) -> R {
    // SAFETY: as demanded.
    f(unsafe { &mut *task.full::<V, F, S>().slots.get() })
}
