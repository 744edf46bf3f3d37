//! PMIx's functions with results in place of status codes, and values that own their memory.
#![expect(unsafe_code, reason = "calls functions of a C library")]

use std::ffi::{CStr, c_char, c_int};
use std::time::Duration;

use super::sys::{self, Data, Info, Key, Library, Proc, Value};

/// A status that is not success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PmixStatus {
    /// PMIx's number for it; negative.
    pub code: i32,
    /// PMIx's name for it.
    pub name: String,
}

impl std::fmt::Display for PmixStatus {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} ({})", self.name, self.code)
    }
}

/// What [`Library::get`] finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Number(u32),
    Bytes(Vec<u8>),
}

impl Library {
    /// What the library says of its version.
    pub(super) fn version_text(&self) -> String {
        // SAFETY: takes nothing, and may be called at any time.
        let text = unsafe { (self.version)() };
        text_of(text)
    }

    /// Joins the launch that the environment names. Returns the name space and the rank.
    pub(super) fn init(&self) -> Result<Proc, PmixStatus> {
        let mut own = proc_of([0; sys::NSPACE_BYTES], 0);
        // SAFETY: a place for the answer, and no requests.
        let status = unsafe { (self.init)(&raw mut own, std::ptr::null_mut(), 0) };
        self.check(status).map(|()| own)
    }

    /// Leaves the launch.
    pub(super) fn finalize(&self) -> Result<(), PmixStatus> {
        // SAFETY: no requests.
        let status = unsafe { (self.finalize)(std::ptr::null(), 0) };
        self.check(status)
    }

    /// Notes bytes under a key, and hands them to the launcher.
    pub(super) fn publish(&self, key: &CStr, bytes: &[u8]) -> Result<(), PmixStatus> {
        let key = self.key(key)?;
        let object = sys::ByteObject { bytes: bytes.as_ptr().cast_mut().cast(), size: bytes.len() };
        let mut value = Value { kind: sys::BYTE_OBJECT, data: Data { room: [0; 3] } };
        value.data.bytes = object;
        // SAFETY: a key that ends with a zero, and a value whose bytes live longer than the call, which copies them.
        let status = unsafe { (self.put)(sys::GLOBAL, key.0.as_ptr(), &raw mut value) };
        self.check(status)?;
        // SAFETY: takes nothing.
        let status = unsafe { (self.commit)() };
        self.check(status)
    }

    /// Waits until all ranks of the launch have called it; what they published can be had afterwards.
    pub(super) fn fence(&self, own: &Proc, timeout: Duration) -> Result<(), PmixStatus> {
        let all = proc_of(own.nspace, sys::RANK_WILDCARD);
        let seconds = timeout.as_secs().clamp(1, i32::MAX as u64) as c_int;
        let (collect, limit) = (Data { flag: 1 }, Data { integer: seconds });
        let infos =
            [self.info(sys::COLLECT_DATA, sys::BOOL, collect)?, self.info(sys::TIMEOUT, sys::INT, limit)?];
        // SAFETY: one process and two requests, which live longer than the call.
        let status = unsafe { (self.fence)(&raw const all, 1, infos.as_ptr(), infos.len()) };
        self.check(status)
    }

    /// What a rank has published, or what the launcher says of it, under a key.
    pub(super) fn get(&self, of: &Proc, key: &CStr, timeout: Duration) -> Result<Found, PmixStatus> {
        let key = self.key(key)?;
        let seconds = timeout.as_secs().clamp(1, i32::MAX as u64) as c_int;
        let info = self.info(sys::TIMEOUT, sys::INT, Data { integer: seconds })?;
        let mut value: *mut Value = std::ptr::null_mut();
        // SAFETY: a process, a key that ends with a zero, one request, and a place for the answer.
        let status = unsafe { (self.get)(of, key.0.as_ptr(), &raw const info, 1, &raw mut value) };
        self.check(status)?;
        if value.is_null() {
            return Err(self.status(sys::ERR_NOT_FOUND));
        }
        // SAFETY: a value that the library allocated for its caller, who reads and frees it once.
        unsafe { take(value) }.ok_or_else(|| self.status(sys::ERR_BAD_PARAM))
    }

    /// A status by its code.
    pub(super) fn status(&self, code: c_int) -> PmixStatus {
        // SAFETY: takes any number; the text lives as long as the library.
        let name = unsafe { (self.error_string)(code) };
        PmixStatus { code, name: text_of(name) }
    }

    fn check(&self, status: c_int) -> Result<(), PmixStatus> {
        if status == sys::SUCCESS { Ok(()) } else { Err(self.status(status)) }
    }

    fn info(&self, key: &CStr, kind: u16, data: Data) -> Result<Info, PmixStatus> {
        Ok(Info { key: self.key(key)?, flags: 0, value: Value { kind, data } })
    }

    fn key(&self, text: &CStr) -> Result<Key, PmixStatus> {
        padded(text).map(Key).ok_or_else(|| self.status(sys::ERR_BAD_PARAM))
    }
}

/// A rank of a name space.
pub(super) fn proc_of(nspace: [c_char; sys::NSPACE_BYTES], rank: u32) -> Proc {
    Proc { nspace, rank }
}

/// A text with zeros behind it, at least one; `None` if it is too long.
fn padded<const N: usize>(text: &CStr) -> Option<[c_char; N]> {
    let bytes = text.to_bytes();
    let mut padded = [0; N];
    padded.get_mut(..bytes.len() + 1)?;
    padded.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = byte as c_char);
    Some(padded)
}

/// A text of the library's.
fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return "?".to_owned();
    }
    // SAFETY: the library's texts end with a zero, and live as long as it does.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Reads a value and frees it; `None` for kinds that nobody here asks for, whose inner parts then leak.
///
/// # Safety
/// The value is from `PMIx_Get`, and nobody else uses it.
unsafe fn take(value: *mut Value) -> Option<Found> {
    // SAFETY: the caller says that it is one.
    let (kind, data) = unsafe { ((*value).kind, (*value).data) };
    let found = match kind {
        // SAFETY: the kind says which member is meant.
        sys::UINT32 => Some(Found::Number(unsafe { data.uint32 })),
        sys::BYTE_OBJECT => {
            // SAFETY: as above.
            let object = unsafe { data.bytes };
            let bytes = if object.bytes.is_null() || object.size == 0 {
                Vec::new()
            } else {
                // SAFETY: so many bytes are there, until they are freed below.
                unsafe { std::slice::from_raw_parts(object.bytes.cast::<u8>(), object.size) }.to_vec()
            };
            // SAFETY: allocated by the library with `malloc` for the caller, or null.
            unsafe { libc::free(object.bytes.cast()) };
            Some(Found::Bytes(bytes))
        }
        _ => None,
    };
    // SAFETY: as its parts.
    unsafe { libc::free(value.cast()) };
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_with_a_zero() {
        assert_eq!(padded::<4>(c"abc"), Some([97, 98, 99, 0]));
        assert_eq!(padded::<4>(c"abcd"), None);
        assert_eq!(padded::<4>(c""), Some([0; 4]));
    }

    #[test]
    fn values_are_read_by_their_kind() {
        let make = |kind, data| {
            // SAFETY: memory for a value, as the library allocates it.
            let place = unsafe { libc::malloc(size_of::<Value>()) }.cast::<Value>();
            assert!(!place.is_null());
            // SAFETY: there is room for one.
            unsafe { place.write(Value { kind, data }) };
            // SAFETY: made just now.
            unsafe { take(place) }
        };
        assert_eq!(make(sys::UINT32, Data { uint32: 7 }), Some(Found::Number(7)));
        let none = sys::ByteObject { bytes: std::ptr::null_mut(), size: 0 };
        assert_eq!(make(sys::BYTE_OBJECT, Data { bytes: none }), Some(Found::Bytes(Vec::new())));
        assert_eq!(make(999, Data { room: [0; 3] }), None);
    }
}
