//! The library's answers as errors, and its requests as values that keep their buffers.
#![expect(unsafe_code, reason = "calls libucp and hands requests between threads")]

use std::ffi::CStr;
use std::sync::{Arc, OnceLock};

use super::buffer::Buffer;
use super::sys::{self, Functions, Handle, Status};
use crate::fabric::FabricError;

/// The library, loaded at the first call.
///
/// # Errors
/// `NoLibrary` if it cannot be loaded or is older than [`sys::API`].
pub(super) fn library() -> Result<&'static Functions, FabricError> {
    static LIBRARY: OnceLock<Result<Functions, (String, String)>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| {
        let (file, functions) = sys::load();
        functions.and_then(check_version).map_err(|why| (file, why))
    });
    loaded.as_ref().map_err(|(file, why)| FabricError::NoLibrary { file: file.clone(), why: why.clone() })
}

fn check_version(functions: Functions) -> Result<Functions, String> {
    let (mut major, mut minor, mut release) = (0, 0, 0);
    // SAFETY: writes three numbers to where three numbers are.
    unsafe { (functions.get_version)(&raw mut major, &raw mut minor, &raw mut release) };
    if (major, minor) >= sys::API && major == sys::API.0 {
        return Ok(functions);
    }
    Err(format!("it is UCX {major}.{minor}.{release}"))
}

/// What a status says, in the library's words.
pub(super) fn text(functions: &Functions, status: Status) -> String {
    // SAFETY: takes a number and answers with a string that lives as long as the library, or null.
    let text = unsafe { (functions.status_string)(status) };
    if text.is_null() {
        return format!("status {}", status.0);
    }
    // SAFETY: not null, so it is a string that ends.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// An error if `status` is none that says well.
pub(super) fn check(functions: &Functions, status: Status, verb: &'static str) -> Result<(), FabricError> {
    if status == Status::OK {
        return Ok(());
    }
    Err(FabricError::Network { verb, why: text(functions, status) })
}

/// The memory that an operation reads or writes. The bytes lie where they are however this is moved.
#[derive(Default)]
pub(super) struct Memory {
    /// What goes before the payload, unless that has it in its first bytes.
    pub(super) head: Vec<u8>,
    pub(super) buffer: Buffer,
    /// In place of a buffer.
    pub(super) shared: Option<Arc<Vec<u8>>>,
}

impl From<Buffer> for Memory {
    fn from(buffer: Buffer) -> Memory {
        Memory { buffer, ..Memory::default() }
    }
}

/// An operation that may still run, and the memory that it reads or writes.
pub(super) struct Request {
    /// Null when it is over.
    handle: Handle,
    status: Status,
    memory: Memory,
}

// SAFETY: the library's request is reached under the worker's lock only, whichever thread has it.
unsafe impl Send for Request {}

impl Request {
    /// The operation that a call of the library has answered with `started`; `memory` is what it reads or writes.
    pub(super) fn new(started: Handle, memory: Memory) -> Request {
        let number = started.addr() as isize;
        let is_status = (sys::ERROR_LAST..=0).contains(&number);
        if is_status {
            return Request { handle: std::ptr::null_mut(), status: Status(number as i8), memory };
        }
        Request { handle: started, status: Status::IN_PROGRESS, memory }
    }

    /// How it stands. Under the worker's lock.
    pub(super) fn status(&mut self, functions: &Functions) -> Status {
        if self.handle.is_null() {
            return self.status;
        }
        // SAFETY: a request of the library that was not freed yet.
        let status = unsafe { (functions.request_check_status)(self.handle) };
        if status != Status::IN_PROGRESS {
            // SAFETY: as above; it is over and is forgotten here.
            unsafe { (functions.request_free)(self.handle) };
            self.handle = std::ptr::null_mut();
            self.status = status;
        }
        status
    }

    /// Bytes of the memory that is with it.
    pub(super) fn bytes(&self) -> u64 {
        let shared = self.memory.shared.as_ref().map_or(0, |payload| payload.len());
        (self.memory.buffer.bytes().len() + shared) as u64
    }

    /// The memory of an operation that is over; none otherwise.
    pub(super) fn take_buffer(&mut self) -> Buffer {
        if self.handle.is_null() { std::mem::take(&mut self.memory.buffer) } else { Buffer::default() }
    }

    /// Says that the worker is gone, so that nothing reaches the memory any more.
    pub(super) fn forget_worker(&mut self) {
        self.handle = std::ptr::null_mut();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // The library may still read or write it: rather lost than reused.
            std::mem::forget(std::mem::take(&mut self.memory));
        }
    }
}
