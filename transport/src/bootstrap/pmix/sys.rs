//! The part of PMIx's C interface that is used: types, constants, and functions found in a library at run time.
//!
//! *Source*: `pmix_common.h` and `pmix.h` of OpenPMIx 4.2.2. The sizes below are those of a C program compiled with
//! them; the same layouts hold since version 3, and in version 5.
#![expect(unsafe_code, reason = "says what type each function of a C library has")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;

use crate::dynamic::Dynamic;

/// Bytes of a name space's name and of a key, the zero at the end included.
pub(super) const NSPACE_BYTES: usize = 256;
pub(super) const KEY_BYTES: usize = 512;

/// The rank that stands for all ranks of a name space.
pub(super) const RANK_WILDCARD: u32 = u32::MAX - 1;
/// Who may get what was put: all ranks.
pub(super) const GLOBAL: u8 = 3;

pub(super) const SUCCESS: c_int = 0;
pub(super) const ERR_TIMEOUT: c_int = -24;
pub(super) const ERR_BAD_PARAM: c_int = -27;
pub(super) const ERR_NOT_FOUND: c_int = -46;

/// Kinds of values.
pub(super) const BOOL: u16 = 1;
pub(super) const INT: u16 = 6;
pub(super) const UINT32: u16 = 14;
pub(super) const BYTE_OBJECT: u16 = 27;

pub(super) const COLLECT_DATA: &CStr = c"pmix.collect";
pub(super) const TIMEOUT: &CStr = c"pmix.timeout";
pub(super) const JOB_SIZE: &CStr = c"pmix.job.size";

/// `pmix_proc_t`.
#[repr(C)]
#[derive(Clone)]
pub(super) struct Proc {
    pub(super) nspace: [c_char; NSPACE_BYTES],
    pub(super) rank: u32,
}

/// `pmix_key_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) [c_char; KEY_BYTES]);

/// `pmix_byte_object_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct ByteObject {
    pub(super) bytes: *mut c_char,
    pub(super) size: usize,
}

/// The union in `pmix_value_t`, as far as it is used; `room` is as large as its largest member.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union Data {
    pub(super) flag: u8,
    pub(super) integer: c_int,
    pub(super) uint32: u32,
    pub(super) bytes: ByteObject,
    pub(super) room: [u64; 3],
}

/// `pmix_value_t`.
#[repr(C)]
pub(super) struct Value {
    pub(super) kind: u16,
    pub(super) data: Data,
}

/// `pmix_info_t`.
#[repr(C)]
pub(super) struct Info {
    pub(super) key: Key,
    pub(super) flags: u32,
    pub(super) value: Value,
}

const _: () = assert!(size_of::<Proc>() == 260 && align_of::<Proc>() == 4);
const _: () = assert!(std::mem::offset_of!(Proc, rank) == 256);
const _: () = assert!(size_of::<ByteObject>() == 16 && std::mem::offset_of!(ByteObject, size) == 8);
const _: () = assert!(size_of::<Value>() == 32 && align_of::<Value>() == 8);
const _: () = assert!(std::mem::offset_of!(Value, data) == 8);
const _: () = assert!(size_of::<Info>() == 552 && align_of::<Info>() == 8);
const _: () = assert!(std::mem::offset_of!(Info, flags) == 512 && std::mem::offset_of!(Info, value) == 520);

pub(super) type Init = unsafe extern "C" fn(*mut Proc, *mut Info, usize) -> c_int;
pub(super) type Finalize = unsafe extern "C" fn(*const Info, usize) -> c_int;
pub(super) type Put = unsafe extern "C" fn(u8, *const c_char, *mut Value) -> c_int;
pub(super) type Commit = unsafe extern "C" fn() -> c_int;
pub(super) type Fence = unsafe extern "C" fn(*const Proc, usize, *const Info, usize) -> c_int;
pub(super) type Get =
    unsafe extern "C" fn(*const Proc, *const c_char, *const Info, usize, *mut *mut Value) -> c_int;
pub(super) type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;
pub(super) type Version = unsafe extern "C" fn() -> *const c_char;

/// The functions of a library that is loaded, for as long as the process lives: it has threads of its own.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) init: Init,
    pub(super) finalize: Finalize,
    pub(super) put: Put,
    pub(super) commit: Commit,
    pub(super) fence: Fence,
    pub(super) get: Get,
    pub(super) error_string: ErrorString,
    pub(super) version: Version,
}

impl Library {
    /// Loads the library and finds its functions; an error says why there are none.
    pub(super) fn load(file: &str) -> Result<Library, String> {
        let library = Dynamic::load(file)?;
        let symbol = |name: &CStr| library.symbol(name);
        Ok(Library {
            // SAFETY: PMIx declares a function of this name so.
            init: unsafe { transmute::<*mut c_void, Init>(symbol(c"PMIx_Init")?) },
            // SAFETY: as above.
            finalize: unsafe { transmute::<*mut c_void, Finalize>(symbol(c"PMIx_Finalize")?) },
            // SAFETY: as above.
            put: unsafe { transmute::<*mut c_void, Put>(symbol(c"PMIx_Put")?) },
            // SAFETY: as above.
            commit: unsafe { transmute::<*mut c_void, Commit>(symbol(c"PMIx_Commit")?) },
            // SAFETY: as above.
            fence: unsafe { transmute::<*mut c_void, Fence>(symbol(c"PMIx_Fence")?) },
            // SAFETY: as above.
            get: unsafe { transmute::<*mut c_void, Get>(symbol(c"PMIx_Get")?) },
            // SAFETY: as above.
            error_string: unsafe { transmute::<*mut c_void, ErrorString>(symbol(c"PMIx_Error_string")?) },
            // SAFETY: as above.
            version: unsafe { transmute::<*mut c_void, Version>(symbol(c"PMIx_Get_version")?) },
        })
    }
}
