//! Names code across processes of one executable: a function is its distance from a fixed place in the program.
//!
//! Address-space randomisation moves a program as a whole, so the distance between two of its functions is the same
//! in every process that runs it. Whether two processes run the same program is decided by a fingerprint of the
//! executable's bytes, which both sides compare before a distance is ever used.
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

/// The fixed place. A static is there once; of a function each part of the program may have a copy.
static ANCHOR: u8 = 0;

fn anchor() -> i64 {
    (&raw const ANCHOR).addr() as i64
}

/// The distance of a trampoline from the anchor, in bytes.
pub(crate) fn offset(trampoline: Trampoline) -> i64 {
    trampoline as usize as i64 - anchor()
}

/// Calls the trampoline at a distance; the caller has compared fingerprints.
pub(crate) fn call(offset: i64, arguments: &[u8]) -> Result<Vec<u8>, WireError> {
    let address = anchor().wrapping_add(offset) as usize;
    if !is_code(address) {
        return Err(WireError::Malformed("names a place that is not code"));
    }
    // SAFETY: the same executable took this distance from a function of this type, says the fingerprint that its
    // sender wrote beside it; a message that lies about both is not defended against, as ranks trust each other.
    let trampoline: Trampoline = unsafe { std::mem::transmute::<usize, Trampoline>(address) };
    trampoline(arguments)
}

/// Gives the row of function pointers of one kind of task.
pub(crate) type Namer = fn() -> &'static Code;

/// The distance of a namer from the anchor, in bytes.
pub(crate) fn name_of(namer: Namer) -> i64 {
    namer as usize as i64 - anchor()
}

/// The row whose namer is at a distance; the caller has compared fingerprints.
pub(crate) fn named(name: i64) -> Result<&'static Code, WireError> {
    let address = anchor().wrapping_add(name) as usize;
    if !is_code(address) {
        return Err(WireError::Malformed("names a place that is not code"));
    }
    // SAFETY: as in `call`: the same executable took this distance from a function of this type.
    let namer: Namer = unsafe { std::mem::transmute::<usize, Namer>(address) };
    Ok(namer())
}

/// Whether the kernel lists the address as executable: keeps a damaged message from jumping anywhere.
fn is_code(address: usize) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { return false };
        let Some((start, end)) = range.split_once('-') else { return false };
        let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        rights.contains('x') && (parse(start)..parse(end)).contains(&address)
    })
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
