//! ZeroMQ: a pair of sockets over `ipc`, with libzmq as the system has it, found at run time. Who receives sleeps, as
//! its documents have it: its own threads move the bytes, and need a core to do it.
#![expect(unsafe_code, reason = "calls libzmq, which it loads")]

use super::{Item, Side, from_bytes, to_bytes};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use tempfile::TempDir;

const PAIR: c_int = 0;
const LINGER: c_int = 17;
const LIBRARY: &CStr = c"libzmq.so.5";

// The functions we call, with the types of `zmq.h`.
type Make = unsafe extern "C" fn() -> *mut c_void;
type Open = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;
type End = unsafe extern "C" fn(*mut c_void) -> c_int;
type Set = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int;
type Reach = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
type Send = unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int;
type Receive = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int) -> c_int;

/// What was found in the library.
#[derive(Clone, Copy)]
struct Library {
    ctx_new: Make,
    ctx_term: End,
    socket: Open,
    close: End,
    setsockopt: Set,
    bind: Reach,
    connect: Reach,
    send: Send,
    recv: Receive,
}

/// A function of the library, by name.
macro_rules! function {
    ($library:expr, $name:literal, $type:ty) => {{
        // SAFETY: the library stays loaded, and the name ends with a zero byte.
        let found = unsafe { libc::dlsym($library, $name.as_ptr()) };
        assert!(!found.is_null(), "libzmq has every function of its header");
        // SAFETY: the function of this name has this type in every libzmq.so.5.
        unsafe { std::mem::transmute::<*mut c_void, $type>(found) }
    }};
}

impl Library {
    fn load() -> Result<Self, String> {
        // SAFETY: the name ends with a zero byte; loading it runs what the system's library runs at start.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err("no libzmq.so.5 here".to_owned());
        }
        Ok(Self {
            ctx_new: function!(library, c"zmq_ctx_new", Make),
            ctx_term: function!(library, c"zmq_ctx_term", End),
            socket: function!(library, c"zmq_socket", Open),
            close: function!(library, c"zmq_close", End),
            setsockopt: function!(library, c"zmq_setsockopt", Set),
            bind: function!(library, c"zmq_bind", Reach),
            connect: function!(library, c"zmq_connect", Reach),
            send: function!(library, c"zmq_send", Send),
            recv: function!(library, c"zmq_recv", Receive),
        })
    }
}

/// One of two sides.
pub(crate) struct ZeroMq {
    library: Library,
    context: *mut c_void,
    socket: *mut c_void,
    address: String,
    _folder: Option<TempDir>,
}

impl ZeroMq {
    /// The side that waits for the other.
    ///
    /// # Errors
    ///
    /// The library is not there.
    pub(crate) fn create() -> Result<Self, String> {
        Library::load()?;
        let folder = tempfile::Builder::new().prefix("bench-zmq-").tempdir().map_err(|it| it.to_string())?;
        let address = format!("ipc://{}/socket", folder.path().display());
        Ok(Self::open(address, Some(folder)))
    }

    pub(crate) fn attach(address: &str) -> Self {
        Self::open(address.to_owned(), None)
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    fn open(address: String, folder: Option<TempDir>) -> Self {
        let library = Library::load().expect("whoever started this has it");
        let name = CString::new(address.as_str()).expect("no zero byte");
        // SAFETY: takes nothing.
        let context = unsafe { (library.ctx_new)() };
        // SAFETY: the context was made above.
        let socket = unsafe { (library.socket)(context, PAIR) };
        assert!(!socket.is_null(), "a socket");
        let none: c_int = 0;
        // SAFETY: the option takes an int, which lives until the call returns.
        unsafe { (library.setsockopt)(socket, LINGER, (&raw const none).cast(), size_of::<c_int>()) };
        let reach = if folder.is_some() { library.bind } else { library.connect };
        // SAFETY: the socket is open, and the name ends with a zero byte.
        let code = unsafe { reach(socket, name.as_ptr()) };
        assert_eq!(code, 0, "a socket at {address}");
        Self { library, context, socket, address, _folder: folder }
    }
}

impl Drop for ZeroMq {
    fn drop(&mut self) {
        // SAFETY: the socket is open, and not used again.
        unsafe { (self.library.close)(self.socket) };
        // SAFETY: all sockets of the context are closed.
        unsafe { (self.library.ctx_term)(self.context) };
    }
}

impl<T: Item> Side<T> for ZeroMq {
    fn send(&mut self, item: T) {
        let bytes = to_bytes(&item);
        // SAFETY: the socket is open; the bytes are copied before the call returns.
        let sent = unsafe { (self.library.send)(self.socket, bytes.as_ptr().cast(), T::WORDS * 8, 0) };
        assert_eq!(sent, T::WORDS as c_int * 8, "the other side lives");
    }

    fn receive(&mut self) -> T {
        let mut bytes = [0; 64];
        // SAFETY: the socket is open, and so many bytes have room.
        let came = unsafe { (self.library.recv)(self.socket, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        assert_eq!(came, T::WORDS as c_int * 8, "the other side sends whole items");
        from_bytes(&bytes)
    }
}
