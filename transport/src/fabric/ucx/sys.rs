//! What is used of libucp's interface, as its headers have it (UCX 1.12 to 1.22), and the library loaded at run time.
//!
//! Structs are those of UCX 1.13. UCX adds fields at the end of a struct only, and reads those alone that a mask names.
//! A status is a number with a name here, not an enum: a newer library may answer with one that has no name yet.
#![expect(unsafe_code, reason = "says what type each function of a C library has")]

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::dynamic::Dynamic;

/// The library, as programs find it.
const LIBRARY: &str = "libucp.so.0";
/// Names another file for it.
pub(super) const ENV_LIBRARY: &str = "TARRAGON_LIBUCP";
/// The interface that this was written for.
pub(super) const API: (c_uint, c_uint) = (1, 12);

/// `ucs_status_t`: 0 is well, 1 in progress, others are errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Status(pub(super) i8);

impl Status {
    pub(super) const OK: Status = Status(0);
    pub(super) const IN_PROGRESS: Status = Status(1);
    pub(super) const BUSY: Status = Status(-15);
}

/// The lowest status that a pointer can stand for (`UCS_ERR_LAST`).
pub(super) const ERROR_LAST: isize = -100;

/// An object of the library; only pointers to it exist.
#[repr(C)]
pub(super) struct Opaque {
    bytes: [u8; 0],
}

/// `ucp_context_h`, `ucp_worker_h`, `ucp_ep_h`, `ucp_mem_h`, `ucp_rkey_h`, `ucp_config_t *`, a request.
pub(super) type Handle = *mut Opaque;

pub(super) const PARAM_FEATURES: u64 = 1 << 0;
pub(super) const PARAM_EPS: u64 = 1 << 6;
pub(super) const FEATURE_RMA: u64 = 1 << 1;
pub(super) const FEATURE_WAKEUP: u64 = 1 << 4;
pub(super) const FEATURE_AM: u64 = 1 << 6;

/// `ucp_params_t`.
#[repr(C)]
pub(super) struct Params {
    pub(super) field_mask: u64,
    pub(super) features: u64,
    pub(super) request_size: usize,
    pub(super) request_init: usize,
    pub(super) request_cleanup: usize,
    pub(super) tag_sender_mask: u64,
    pub(super) mt_workers_shared: c_int,
    pub(super) estimated_num_eps: usize,
    pub(super) estimated_num_ppn: usize,
    pub(super) name: *const c_char,
}

pub(super) const WORKER_THREAD_MODE: u64 = 1 << 0;
pub(super) const WORKER_FLAGS: u64 = 1 << 5;
pub(super) const THREAD_SERIALIZED: c_uint = 1;
pub(super) const WORKER_IGNORE_LEAKS: u64 = 1;

/// `ucp_worker_params_t`.
#[repr(C)]
pub(super) struct WorkerParams {
    pub(super) field_mask: u64,
    pub(super) thread_mode: c_uint,
    pub(super) cpu_mask: [u64; 16],
    pub(super) events: c_uint,
    pub(super) user_data: *mut c_void,
    pub(super) event_fd: c_int,
    pub(super) flags: u64,
    pub(super) name: *const c_char,
    pub(super) am_alignment: usize,
    pub(super) client_id: u64,
}

pub(super) const EP_ADDRESS: u64 = 1 << 0;
pub(super) const EP_ERROR_MODE: u64 = 1 << 1;
pub(super) const EP_ERROR_HANDLER: u64 = 1 << 2;
pub(super) const ERROR_MODE_PEER: c_uint = 1;

/// `ucp_err_handler_cb_t`.
pub(super) type OnError = unsafe extern "C" fn(arg: *mut c_void, ep: Handle, status: Status);

/// `ucp_ep_params_t`.
#[repr(C)]
pub(super) struct EpParams {
    pub(super) field_mask: u64,
    pub(super) address: *const u8,
    pub(super) error_mode: c_uint,
    pub(super) on_error: Option<OnError>,
    pub(super) error_arg: *mut c_void,
    pub(super) user_data: *mut c_void,
    pub(super) flags: c_uint,
    pub(super) sockaddr: [usize; 2],
    pub(super) conn_request: *mut c_void,
    pub(super) name: *const c_char,
    pub(super) local_sockaddr: [usize; 2],
}

pub(super) const OP_FLAGS: u32 = 1 << 4;
pub(super) const EP_CLOSE_FORCE: u32 = 1;

/// `ucp_request_param_t`.
#[repr(C)]
pub(super) struct RequestParam {
    pub(super) op_attr_mask: u32,
    pub(super) flags: u32,
    pub(super) request: *mut c_void,
    pub(super) callback: usize,
    pub(super) datatype: u64,
    pub(super) user_data: *mut c_void,
    pub(super) reply_buffer: *mut c_void,
    pub(super) memory_type: c_uint,
    pub(super) recv_info: usize,
    pub(super) memh: Handle,
}

impl RequestParam {
    /// One that asks for nothing special.
    pub(super) const PLAIN: RequestParam = RequestParam {
        op_attr_mask: 0,
        flags: 0,
        request: std::ptr::null_mut(),
        callback: 0,
        datatype: 0,
        user_data: std::ptr::null_mut(),
        reply_buffer: std::ptr::null_mut(),
        memory_type: 0,
        recv_info: 0,
        memh: std::ptr::null_mut(),
    };
}

pub(super) const AM_ID: u64 = 1 << 0;
pub(super) const AM_CALLBACK: u64 = 1 << 2;
pub(super) const AM_ARG: u64 = 1 << 3;
/// `UCP_AM_RECV_ATTR_FLAG_RNDV`: the data is a descriptor, and the payload is still at the sender.
pub(super) const AM_IS_RENDEZVOUS: u64 = 1 << 17;

/// `UCP_AM_RECV_ATTR_FLAG_DATA`: who answers that it is in progress has the data until it gives that back.
pub(super) const AM_IS_KEEPABLE: u64 = 1 << 16;

/// `ucp_am_recv_callback_t`.
pub(super) type OnMessage = unsafe extern "C" fn(
    arg: *mut c_void,
    header: *const u8,
    header_bytes: usize,
    data: *mut u8,
    bytes: usize,
    param: *const AmRecvParam,
) -> Status;

/// `ucp_am_handler_param_t`.
#[repr(C)]
pub(super) struct AmHandlerParam {
    pub(super) field_mask: u64,
    pub(super) id: c_uint,
    pub(super) flags: u32,
    pub(super) callback: Option<OnMessage>,
    pub(super) arg: *mut c_void,
}

/// `ucp_am_recv_param_t`.
#[repr(C)]
pub(super) struct AmRecvParam {
    pub(super) attributes: u64,
    pub(super) reply_ep: Handle,
}

pub(super) const MEM_ADDRESS: u64 = 1 << 0;
pub(super) const MEM_LENGTH: u64 = 1 << 1;

/// `ucp_mem_map_params_t`, with room for what 1.14 added.
#[repr(C)]
pub(super) struct MemMapParams {
    pub(super) field_mask: u64,
    pub(super) address: *mut c_void,
    pub(super) length: usize,
    pub(super) flags: c_uint,
    pub(super) protection: c_uint,
    pub(super) memory_type: c_uint,
    pub(super) later: [u64; 4],
}

const _: () = assert!(size_of::<Params>() == 80 && size_of::<WorkerParams>() == 200);
const _: () = assert!(size_of::<EpParams>() == 104 && size_of::<RequestParam>() == 72);
const _: () = assert!(size_of::<AmHandlerParam>() == 32 && size_of::<AmRecvParam>() == 16);

/// Declares the table of functions, and how it is read from the library.
macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($arg:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of the library that are used.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
        }

        impl Functions {
            /// All functions; an error names the first that is missing.
            fn find(library: Dynamic) -> Result<Functions, String> {
                Ok(Functions {
                    $($name: {
                        let found = library.symbol($symbol)?;
                        // SAFETY: the library's function of this name has this type in all versions of its
                        // interface 1, says its header; the library is never unloaded.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $result)?>(found)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    get_version = c"ucp_get_version": fn(*mut c_uint, *mut c_uint, *mut c_uint);
    status_string = c"ucs_status_string": fn(Status) -> *const c_char;
    config_read = c"ucp_config_read": fn(*const c_char, *const c_char, *mut Handle) -> Status;
    config_modify = c"ucp_config_modify": fn(Handle, *const c_char, *const c_char) -> Status;
    config_release = c"ucp_config_release": fn(Handle);
    init_version = c"ucp_init_version": fn(c_uint, c_uint, *const Params, Handle, *mut Handle) -> Status;
    cleanup = c"ucp_cleanup": fn(Handle);
    worker_create = c"ucp_worker_create": fn(Handle, *const WorkerParams, *mut Handle) -> Status;
    worker_destroy = c"ucp_worker_destroy": fn(Handle);
    worker_get_address = c"ucp_worker_get_address": fn(Handle, *mut *mut u8, *mut usize) -> Status;
    worker_release_address = c"ucp_worker_release_address": fn(Handle, *mut u8);
    worker_progress = c"ucp_worker_progress": fn(Handle) -> c_uint;
    worker_get_efd = c"ucp_worker_get_efd": fn(Handle, *mut c_int) -> Status;
    worker_arm = c"ucp_worker_arm": fn(Handle) -> Status;
    worker_set_am_recv_handler = c"ucp_worker_set_am_recv_handler": fn(Handle, *const AmHandlerParam) -> Status;
    ep_create = c"ucp_ep_create": fn(Handle, *const EpParams, *mut Handle) -> Status;
    ep_close = c"ucp_ep_close_nbx": fn(Handle, *const RequestParam) -> Handle;
    ep_flush = c"ucp_ep_flush_nbx": fn(Handle, *const RequestParam) -> Handle;
    am_send = c"ucp_am_send_nbx": fn(Handle, c_uint, *const u8, usize, *const u8, usize, *const RequestParam) -> Handle;
    am_recv_data = c"ucp_am_recv_data_nbx": fn(Handle, *mut u8, *mut u8, usize, *const RequestParam) -> Handle;
    am_data_release = c"ucp_am_data_release": fn(Handle, *mut u8);
    mem_map = c"ucp_mem_map": fn(Handle, *const MemMapParams, *mut Handle) -> Status;
    mem_unmap = c"ucp_mem_unmap": fn(Handle, Handle) -> Status;
    rkey_pack = c"ucp_rkey_pack": fn(Handle, Handle, *mut *mut u8, *mut usize) -> Status;
    rkey_buffer_release = c"ucp_rkey_buffer_release": fn(*mut u8);
    ep_rkey_unpack = c"ucp_ep_rkey_unpack": fn(Handle, *const u8, *mut Handle) -> Status;
    rkey_destroy = c"ucp_rkey_destroy": fn(Handle);
    put = c"ucp_put_nbx": fn(Handle, *const u8, usize, u64, Handle, *const RequestParam) -> Handle;
    get = c"ucp_get_nbx": fn(Handle, *mut u8, usize, u64, Handle, *const RequestParam) -> Handle;
    request_check_status = c"ucp_request_check_status": fn(Handle) -> Status;
    request_free = c"ucp_request_free": fn(Handle);
}

/// The file that the library is in, and its functions or why there are none. Loads it; it stays for the life of the
/// process.
pub(super) fn load() -> (String, Result<Functions, String>) {
    let file = std::env::var(ENV_LIBRARY).unwrap_or_else(|_| LIBRARY.to_owned());
    let functions = Dynamic::load(&file).and_then(Functions::find);
    (file, functions)
}
