//! A worker of the library and all that hangs on it: endpoints, messages that came, memory, keys of peers' memory.
//! Used under one lock; no pointer of the library leaves this file.
#![expect(unsafe_code, reason = "calls libucp")]

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::{Buffer, Load, Pool};
use super::memory::Pages;
use super::result::{Memory, Request, check, library};
use super::sys::{self, Functions, Handle, RequestParam, Status};
use crate::fabric::FabricError;

/// The number of all our messages in the library's table.
const MESSAGE_ID: u32 = 7;
/// Bytes of a message's header.
pub(super) const HEADER_BYTES: usize = 56;
/// Steps that one look at the network takes at most.
const STEPS_MAX: usize = 64;
/// Settings of the library that differ from its own, unless the environment says otherwise: a broken connection is
/// noticed within about two seconds; and who connects over tcp does not wait in the call, for two minutes and with the
/// engine locked, when nobody answers. A tcp connection that is quiet is asked by the kernel after four seconds, and
/// then every two, and given up after three times: within about ten seconds, and no thread wakes for it. Settings of a
/// transport have its name before theirs in 1.22, which refuses others, and have not in 1.13; the first name that is
/// taken counts.
const SETTINGS: &[(&[&CStr], &CStr, &str)] = &[
    (&[c"KEEPALIVE_INTERVAL"], c"2s", "UCX_KEEPALIVE_INTERVAL"),
    (&[c"CONN_NB", c"TCP_CONN_NB"], c"y", "UCX_TCP_CONN_NB"),
    (&[c"KEEPIDLE", c"TCP_KEEPIDLE"], c"4s", "UCX_TCP_KEEPIDLE"),
    (&[c"KEEPINTVL", c"TCP_KEEPINTVL"], c"2s", "UCX_TCP_KEEPINTVL"),
    (&[c"KEEPCNT", c"TCP_KEEPCNT"], c"3", "UCX_TCP_KEEPCNT"),
];

/// Payloads up to here are copied out of the library's memory, larger ones stay there as long as they are needed.
const COPY_BYTES_MAX: usize = 4096;

/// A message that came, not checked yet.
pub(super) struct Arrived {
    /// Its first bytes, and how many it has.
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) header_bytes: usize,
    pub(super) body: Body,
}

/// Its payload.
pub(super) enum Body {
    /// All of it.
    Here(Load),
    /// Still at the sender.
    There(Descriptor),
}

/// A payload in the library's memory, which it keeps until it is given back.
pub(super) struct Held {
    at: *mut u8,
    bytes: usize,
}

// SAFETY: memory that nobody writes while it is held; it is given back under the worker's lock.
unsafe impl Send for Held {}

impl Held {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the library vouches for so many bytes until they are given back, which takes this value.
        unsafe { std::slice::from_raw_parts(self.at, self.bytes) }
    }
}

/// The library's note of a payload that is to be fetched.
pub(super) struct Descriptor {
    at: *mut u8,
    pub(super) bytes: usize,
}

// SAFETY: the library's note is used under the worker's lock only.
unsafe impl Send for Descriptor {}

/// What the library's callbacks write to.
#[derive(Default)]
struct Mail {
    arrived: Mutex<Vec<Arrived>>,
}

struct Endpoint {
    handle: Handle,
    failure: Arc<Failure>,
}

/// What the library's callback tells of a broken connection.
struct Failure {
    has_come: AtomicBool,
    /// Whether that is so of some connection that was not looked at since.
    any: Arc<AtomicBool>,
}

/// What the library says of one who wants to sleep on its descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Armed {
    /// It wakes who sleeps.
    Yes,
    /// It has something to do first.
    Busy,
    /// It cannot.
    No,
}

/// The worker of a rank.
pub(super) struct Worker {
    functions: &'static Functions,
    context: Handle,
    handle: Handle,
    mail: Arc<Mail>,
    addresses: Vec<Vec<u8>>,
    endpoints: Vec<Option<Endpoint>>,
    /// Operations whose peer is dead, and whose memory the library may still use.
    abandoned: Vec<Request>,
    memory: Vec<(Arc<Pages>, Handle)>,
    keys: HashMap<(usize, Vec<u8>), Handle>,
    /// Kept while the library may write to the flags of endpoints that are gone.
    failures: Vec<Arc<Failure>>,
    any_failed: Arc<AtomicBool>,
    pool: Pool,
}

// SAFETY: the worker is made for use by one thread at a time, whichever (`UCS_THREAD_MODE_SERIALIZED`), and its owner
// keeps it in a lock.
unsafe impl Send for Worker {}

impl Worker {
    /// A worker of a context of its own, for a world of `size` ranks.
    pub(super) fn new(size: u32) -> Result<Worker, FabricError> {
        let functions = library()?;
        let context = context(functions, size)?;
        let mut worker = Worker {
            functions,
            context,
            handle: std::ptr::null_mut(),
            mail: Arc::default(),
            addresses: Vec::new(),
            endpoints: Vec::new(),
            abandoned: Vec::new(),
            memory: Vec::new(),
            keys: HashMap::new(),
            failures: Vec::new(),
            any_failed: Arc::default(),
            pool: Pool::new(),
        };
        // SAFETY: zero is a value of this struct of numbers and pointers.
        let mut params: sys::WorkerParams = unsafe { std::mem::zeroed() };
        params.field_mask = sys::WORKER_THREAD_MODE | sys::WORKER_FLAGS;
        params.thread_mode = sys::THREAD_SERIALIZED;
        params.flags = sys::WORKER_IGNORE_LEAKS;
        // SAFETY: the context lives, and the result is written to a pointer's place.
        let status = unsafe { (functions.worker_create)(context, &raw const params, &raw mut worker.handle) };
        check(functions, status, "make a worker")?;
        let handler = sys::AmHandlerParam {
            field_mask: sys::AM_ID | sys::AM_CALLBACK | sys::AM_ARG,
            id: MESSAGE_ID,
            flags: 0,
            callback: Some(on_message),
            arg: Arc::as_ptr(&worker.mail).cast_mut().cast(),
        };
        // SAFETY: the worker lives; the argument lives as long as it, and the callback takes it for what it is.
        let status = unsafe { (functions.worker_set_am_recv_handler)(worker.handle, &raw const handler) };
        check(functions, status, "receive messages")?;
        Ok(worker)
    }

    /// Where peers reach this worker.
    pub(super) fn address(&self) -> Result<Vec<u8>, FabricError> {
        let (mut at, mut bytes) = (std::ptr::null_mut(), 0);
        // SAFETY: the worker lives, and the results are written to their places.
        let status = unsafe { (self.functions.worker_get_address)(self.handle, &raw mut at, &raw mut bytes) };
        check(self.functions, status, "tell the worker's address")?;
        // SAFETY: the library vouches for so many bytes there, until they are released below.
        let address = unsafe { std::slice::from_raw_parts(at, bytes) }.to_vec();
        // SAFETY: what `worker_get_address` gave, once.
        unsafe { (self.functions.worker_release_address)(self.handle, at) };
        Ok(address)
    }

    /// Notes where all ranks are; endpoints are made when they are needed.
    pub(super) fn set_addresses(&mut self, addresses: Vec<Vec<u8>>) {
        self.endpoints = addresses.iter().map(|_| None).collect();
        self.addresses = addresses;
    }

    /// Moves the network on. Returns whether anything happened.
    pub(super) fn progress(&mut self) -> bool {
        for step in 0..STEPS_MAX {
            // SAFETY: the worker lives, and this thread alone uses it.
            if unsafe { (self.functions.worker_progress)(self.handle) } == 0 {
                return step > 0;
            }
        }
        true
    }

    /// What has come since it was last asked.
    pub(super) fn take_arrived(&mut self) -> Vec<Arrived> {
        std::mem::take(&mut *self.mail.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A descriptor that becomes readable when the network has something to do, after [`Worker::arm`] said so. Valid
    /// as long as the worker.
    pub(super) fn event_descriptor(&self) -> Result<RawFd, FabricError> {
        let mut number = -1;
        // SAFETY: the worker lives, and the result is written to a number's place.
        let status = unsafe { (self.functions.worker_get_efd)(self.handle, &raw mut number) };
        check(self.functions, status, "get the worker's event descriptor")?;
        Ok(number)
    }

    /// Asks whether one may sleep on the event descriptor.
    pub(super) fn arm(&mut self) -> Armed {
        // SAFETY: the worker lives, and this thread alone uses it.
        match unsafe { (self.functions.worker_arm)(self.handle) } {
            Status::OK => Armed::Yes,
            Status::BUSY => Armed::Busy,
            _ => Armed::No,
        }
    }

    /// Starts to send a message whose payload may be used again at once: small ones follow their header in one piece
    /// of memory, others are copied to a buffer.
    pub(super) fn send(
        &mut self,
        to: usize,
        header: [u8; HEADER_BYTES],
        payload: &[u8],
    ) -> Result<Request, FabricError> {
        if payload.len() > COPY_BYTES_MAX {
            let memory = Memory { head: header.to_vec(), buffer: self.pool.copy(payload), shared: None };
            return self.send_from(to, memory);
        }
        let mut message = Vec::with_capacity(HEADER_BYTES + payload.len());
        message.extend_from_slice(&header);
        message.extend_from_slice(payload);
        self.send_from(to, Memory::from(Buffer::from(message)))
    }

    /// Starts to send a message whose payload stays where it is.
    pub(super) fn send_shared(
        &mut self,
        to: usize,
        header: [u8; HEADER_BYTES],
        payload: Arc<Vec<u8>>,
    ) -> Result<Request, FabricError> {
        let memory = Memory { head: header.to_vec(), shared: Some(payload), ..Memory::default() };
        self.send_from(to, memory)
    }

    fn send_from(&mut self, to: usize, memory: Memory) -> Result<Request, FabricError> {
        let ep = self.endpoint(to)?;
        let (header, payload) = match (&memory.shared, &memory.head[..]) {
            (Some(payload), head) => (head, &payload[..]),
            (None, []) => memory.buffer.bytes().split_at(HEADER_BYTES),
            (None, head) => (head, memory.buffer.bytes()),
        };
        let (head, body, bytes) = (header.as_ptr(), payload.as_ptr(), payload.len());
        let param = RequestParam::PLAIN;
        // SAFETY: the endpoint lives; header and payload lie in the memory that the request keeps until it is over.
        let started = unsafe {
            (self.functions.am_send)(ep, MESSAGE_ID, head, HEADER_BYTES, body, bytes, &raw const param)
        };
        Ok(Request::new(started, memory))
    }

    /// Starts to fetch a payload.
    pub(super) fn fetch(&mut self, from: Descriptor) -> Request {
        let mut payload = self.pool.take(from.bytes);
        let (to, param) = (payload.bytes_mut().as_mut_ptr(), RequestParam::PLAIN);
        // SAFETY: the note was handed to the callback that kept it, and is used once; the request keeps the memory.
        let started =
            unsafe { (self.functions.am_recv_data)(self.handle, from.at, to, from.bytes, &raw const param) };
        Request::new(started, Memory::from(payload))
    }

    /// Takes the memory of an operation back, or of a payload that was delivered.
    pub(super) fn give_back(&mut self, load: Load) {
        match load {
            Load::Own(buffer) => self.pool.give_back(buffer),
            Load::Shared(_) => {}
            // SAFETY: what the callback kept, once; the worker lives.
            Load::Held(held) => unsafe { (self.functions.am_data_release)(self.handle, held.at) },
        }
    }

    /// Starts to write `bytes` to `address` of a peer's memory, whose packed key is `key`.
    pub(super) fn put(
        &mut self,
        to: usize,
        key: &[u8],
        address: u64,
        bytes: &[u8],
    ) -> Result<Request, FabricError> {
        let (ep, key) = (self.endpoint(to)?, self.key(to, key)?);
        let buffer = self.pool.copy(bytes);
        let (from, count, param) = (buffer.bytes().as_ptr(), bytes.len(), RequestParam::PLAIN);
        // SAFETY: endpoint and key live; the request keeps the memory.
        let started = unsafe { (self.functions.put)(ep, from, count, address, key, &raw const param) };
        Ok(Request::new(started, Memory::from(buffer)))
    }

    /// Starts to read `count` bytes; see [`Worker::put`].
    pub(super) fn get(
        &mut self,
        from: usize,
        key: &[u8],
        address: u64,
        count: usize,
    ) -> Result<Request, FabricError> {
        let (ep, key) = (self.endpoint(from)?, self.key(from, key)?);
        let mut buffer = self.pool.take(count);
        let (to, param) = (buffer.bytes_mut().as_mut_ptr(), RequestParam::PLAIN);
        // SAFETY: endpoint and key live; the request keeps the memory.
        let started = unsafe { (self.functions.get)(ep, to, count, address, key, &raw const param) };
        Ok(Request::new(started, Memory::from(buffer)))
    }

    /// Starts to wait until all that was put to a peer is there.
    pub(super) fn flush(&mut self, to: usize) -> Result<Request, FabricError> {
        let (ep, param) = (self.endpoint(to)?, RequestParam::PLAIN);
        // SAFETY: the endpoint lives.
        let started = unsafe { (self.functions.ep_flush)(ep, &raw const param) };
        Ok(Request::new(started, Memory::default()))
    }

    /// How an operation stands: none while it runs.
    pub(super) fn outcome(
        &self,
        request: &mut Request,
        verb: &'static str,
    ) -> Option<Result<(), FabricError>> {
        match request.status(self.functions) {
            Status::IN_PROGRESS => None,
            status => Some(check(self.functions, status, verb)),
        }
    }

    /// Whether there is a connection to a peer.
    pub(super) fn has_endpoint(&self, rank: usize) -> bool {
        self.endpoints[rank].is_some()
    }

    /// Whether the connection to a peer is broken.
    pub(super) fn has_failed(&self, rank: usize) -> bool {
        self.endpoints[rank].as_ref().is_some_and(|it| it.failure.has_come.load(Ordering::Relaxed))
    }

    /// Whether some connection has broken since this was asked the last time.
    pub(super) fn take_failed(&self) -> bool {
        self.any_failed.load(Ordering::Relaxed) && self.any_failed.swap(false, Ordering::Relaxed)
    }

    /// Gives the connection to a peer up. What was on its way there may be lost.
    pub(super) fn close(&mut self, rank: usize) {
        let functions = self.functions;
        let (gone, kept) = std::mem::take(&mut self.keys).into_iter().partition(|((of, _), _)| *of == rank);
        self.keys = kept;
        let gone: HashMap<(usize, Vec<u8>), Handle> = gone;
        for key in gone.into_values() {
            // SAFETY: a key that was unpacked, once.
            unsafe { (functions.rkey_destroy)(key) };
        }
        let Some(endpoint) = self.endpoints[rank].take() else { return };
        self.failures.push(endpoint.failure);
        let param =
            RequestParam { op_attr_mask: sys::OP_FLAGS, flags: sys::EP_CLOSE_FORCE, ..RequestParam::PLAIN };
        // SAFETY: the endpoint lives, and is not used after this.
        let started = unsafe { (functions.ep_close)(endpoint.handle, &raw const param) };
        self.abandoned.push(Request::new(started, Memory::default()));
    }

    /// Keeps an operation, which nobody waits for, until it is over.
    pub(super) fn abandon(&mut self, request: Request) {
        let functions = self.functions;
        self.abandoned.retain_mut(|it| it.status(functions) == Status::IN_PROGRESS);
        self.abandoned.push(request);
    }

    /// Lets peers reach pages; returns the packed key. They stay reachable for the life of the worker.
    pub(super) fn register(&mut self, pages: Arc<Pages>) -> Result<Vec<u8>, FabricError> {
        let (base, bytes) = pages.place();
        let params = sys::MemMapParams {
            field_mask: sys::MEM_ADDRESS | sys::MEM_LENGTH,
            address: base.cast(),
            length: bytes,
            flags: 0,
            protection: 0,
            memory_type: 0,
            later: [0; 4],
        };
        let mut memory = std::ptr::null_mut();
        // SAFETY: the context lives; the pages are mapped and stay so, since they are kept with the registration.
        let status = unsafe { (self.functions.mem_map)(self.context, &raw const params, &raw mut memory) };
        check(self.functions, status, "register memory")?;
        self.memory.push((pages, memory));
        let (mut at, mut count) = (std::ptr::null_mut(), 0);
        // SAFETY: context and registration live; the results are written to their places.
        let status = unsafe { (self.functions.rkey_pack)(self.context, memory, &raw mut at, &raw mut count) };
        check(self.functions, status, "pack the key of memory")?;
        // SAFETY: the library vouches for so many bytes there, until they are released below.
        let key = unsafe { std::slice::from_raw_parts(at, count) }.to_vec();
        // SAFETY: what `rkey_pack` gave, once.
        unsafe { (self.functions.rkey_buffer_release)(at) };
        Ok(key)
    }

    fn endpoint(&mut self, rank: usize) -> Result<Handle, FabricError> {
        if let Some(endpoint) = &self.endpoints[rank] {
            return Ok(endpoint.handle);
        }
        let failure = Arc::new(Failure { has_come: AtomicBool::new(false), any: self.any_failed.clone() });
        // SAFETY: zero is a value of this struct of numbers and pointers.
        let mut params: sys::EpParams = unsafe { std::mem::zeroed() };
        params.field_mask = sys::EP_ADDRESS | sys::EP_ERROR_MODE | sys::EP_ERROR_HANDLER;
        params.address = self.addresses[rank].as_ptr();
        params.error_mode = sys::ERROR_MODE_PEER;
        params.on_error = Some(on_error);
        params.error_arg = Arc::as_ptr(&failure).cast_mut().cast();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the worker lives; the address is one that a worker of the same library has told; the flag is kept as
        // long as the worker, and the callback takes it for what it is.
        let status = unsafe { (self.functions.ep_create)(self.handle, &raw const params, &raw mut handle) };
        check(self.functions, status, "connect to a rank")?;
        self.endpoints[rank] = Some(Endpoint { handle, failure });
        Ok(handle)
    }

    fn key(&mut self, rank: usize, packed: &[u8]) -> Result<Handle, FabricError> {
        let name = (rank, packed.to_vec());
        if let Some(&key) = self.keys.get(&name) {
            return Ok(key);
        }
        let ep = self.endpoint(rank)?;
        let mut key = std::ptr::null_mut();
        // SAFETY: the endpoint lives; the key is whole, as its owner packed it: the caller has compared its hash.
        let status = unsafe { (self.functions.ep_rkey_unpack)(ep, packed.as_ptr(), &raw mut key) };
        check(self.functions, status, "unpack the key of a region")?;
        self.keys.insert(name, key);
        Ok(key)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        (0..self.endpoints.len()).for_each(|rank| self.close(rank));
        if !self.handle.is_null() {
            self.progress();
            // SAFETY: the worker lives, its endpoints are closed, and nobody uses it after this.
            unsafe { (self.functions.worker_destroy)(self.handle) };
        }
        self.abandoned.iter_mut().for_each(Request::forget_worker);
        for (_, memory) in &self.memory {
            // SAFETY: a registration of this context, once.
            let _ = unsafe { (self.functions.mem_unmap)(self.context, *memory) };
        }
        // SAFETY: the context lives, and all that was made of it is gone.
        unsafe { (self.functions.cleanup)(self.context) };
    }
}

fn context(functions: &Functions, size: u32) -> Result<Handle, FabricError> {
    let mut config = std::ptr::null_mut();
    // SAFETY: no prefix and no file are allowed; the result is written to a pointer's place.
    let status = unsafe { (functions.config_read)(std::ptr::null(), std::ptr::null(), &raw mut config) };
    check(functions, status, "read its settings")?;
    for (names, value, variable) in SETTINGS {
        let is_taken = |name: &&&CStr| {
            // SAFETY: the settings live; both are strings that end. A version that lacks the setting refuses it.
            let status = unsafe { (functions.config_modify)(config, name.as_ptr(), value.as_ptr()) };
            status == Status::OK
        };
        if std::env::var_os(variable).is_none() {
            // A version that takes none of them goes on with its own.
            let _ = names.iter().find(is_taken);
        }
    }
    // SAFETY: zero is a value of this struct of numbers and pointers.
    let mut params: sys::Params = unsafe { std::mem::zeroed() };
    params.field_mask = sys::PARAM_FEATURES | sys::PARAM_EPS;
    params.features = sys::FEATURE_AM | sys::FEATURE_RMA | sys::FEATURE_WAKEUP;
    params.estimated_num_eps = size as usize;
    let (major, minor) = sys::API;
    let mut context = std::ptr::null_mut();
    // SAFETY: parameters and settings live; the result is written to a pointer's place.
    let status =
        unsafe { (functions.init_version)(major, minor, &raw const params, config, &raw mut context) };
    // SAFETY: what `config_read` gave, once.
    unsafe { (functions.config_release)(config) };
    check(functions, status, "begin").map(|()| context)
}

/// The library has a message.
///
/// # Safety
/// Only the library calls it, with what `Worker::new` gave for `arg` and pointers that hold during the call.
unsafe extern "C" fn on_message(
    arg: *mut c_void,
    header: *const u8,
    header_bytes: usize,
    data: *mut u8,
    bytes: usize,
    param: *const sys::AmRecvParam,
) -> Status {
    // SAFETY: the argument given with this callback, which lives as long as the worker that calls it.
    let mail = unsafe { &*arg.cast::<Mail>() };
    let mut head = [0; HEADER_BYTES];
    // SAFETY: the library vouches for the header during the call.
    let shown = unsafe { view(header, header_bytes) };
    let count = shown.len().min(HEADER_BYTES);
    head[..count].copy_from_slice(&shown[..count]);
    // SAFETY: the library hands a struct that lives during the call.
    let attributes = unsafe { (*param).attributes };
    let is_there = attributes & sys::AM_IS_RENDEZVOUS != 0;
    let is_kept = attributes & sys::AM_IS_KEEPABLE != 0 && bytes > COPY_BYTES_MAX;
    let body = if is_there {
        Body::There(Descriptor { at: data, bytes })
    } else if is_kept {
        Body::Here(Load::Held(Held { at: data, bytes }))
    } else {
        // SAFETY: the library vouches for data that is here during the call.
        Body::Here(Load::Own(Buffer::from(unsafe { view(data, bytes) }.to_vec())))
    };
    let arrived = Arrived { header: head, header_bytes, body };
    mail.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrived);
    if is_there || is_kept { Status::IN_PROGRESS } else { Status::OK }
}

/// Bytes that the library shows during a callback.
///
/// # Safety
/// So many bytes must be there, unless the pointer is null, for as long as the view is used.
unsafe fn view<'v>(from: *const u8, bytes: usize) -> &'v [u8] {
    if bytes == 0 || from.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for it.
    unsafe { std::slice::from_raw_parts(from, bytes) }
}

/// The library has lost a connection.
///
/// # Safety
/// Only the library calls it, with what `Worker::endpoint` gave for `arg`.
unsafe extern "C" fn on_error(arg: *mut c_void, _ep: Handle, _status: Status) {
    // SAFETY: the argument given with this callback, kept as long as the worker that calls it.
    let failure = unsafe { &*arg.cast::<Failure>() };
    failure.has_come.store(true, Ordering::Relaxed);
    failure.any.store(true, Ordering::Relaxed);
}

/// A view of the descriptor of a worker that lives.
pub(super) fn borrow(number: RawFd, _alive: &super::Ucx) -> BorrowedFd<'_> {
    // SAFETY: the worker that owns it lives as long as the fabric that holds it.
    unsafe { BorrowedFd::borrow_raw(number) }
}
