//! A call as bytes: which executable, which function in it, the arguments. What crosses processes is here.
//!
//! ```text
//! fingerprint 16 bytes │ checksum 8 │ offset of the trampoline 8, little endian │ arguments, postcard, one by one
//! ```
//!
//! The checksum (XXH3, 64 bits, of all that follows it) keeps a damaged offset from being jumped to.
//!
//! The trampoline is monomorphised for one function with its argument types, so the bytes need no description of
//! themselves: whoever has the same executable has the same types.
#![expect(
    unsafe_code,
    reason = "reaches the argument slots of a record that `Code` has forgotten the types of"
)]

use super::arg::Moves;
use super::args::Args;
use super::identity::{self, Fingerprint};
use super::outcome::{Failure, Outcome};
use super::{Data, Function};
use crate::body::Context;
use crate::task::record::Ref;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

/// Why a call cannot be sent, read or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A closure captures variables of this process.
    #[error("task `{0}` is a closure and stays in this process: make it a `fn` with arguments")]
    Closure(String),
    /// The task's run is not over.
    #[error("task `{0}` is part of a run: encode it before, or after it has ended")]
    Running(String),
    /// The arguments moved into the body on the task's only run, or went with its compiled batch.
    #[error("task `{0}` will not run again and its arguments are gone: encode it before it is started")]
    Spent(String),
    /// An argument's task has no value to send.
    #[error("an argument is not there: {0}")]
    Input(String),
    /// The bytes were made by another executable.
    #[error(
        "the call comes from another executable (fingerprint {theirs}, this one is {ours}): \
         run the same build on both sides"
    )]
    OtherExecutable {
        /// Fingerprint in the bytes.
        theirs: Fingerprint,
        /// Fingerprint of this executable.
        ours: Fingerprint,
    },
    /// The executable cannot be read, so calls cannot be named.
    #[error("cannot read this executable to take its fingerprint")]
    Executable(#[source] std::io::Error),
    /// The bytes end early or name no function.
    #[error("the bytes are not a call: {0}")]
    Malformed(&'static str),
    /// Serde refused an argument or result.
    #[error("an argument or result has no serde form: {0}")]
    Serde(#[from] postcard::Error),
    /// The function ran and failed; its error as text.
    #[error("the function failed: {0}")]
    Failed(String),
}

/// Finds the number of a task that goes to the same process.
pub(crate) type Links = Box<dyn Fn(Ref) -> Option<u32>>;

/// Collects the bytes of a call.
#[doc(hidden)]
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    links: Option<Links>,
}

impl Encoder {
    /// Arguments that are results of these tasks are written as links to them.
    pub(crate) fn linking(links: Links) -> Self {
        Self { bytes: Vec::new(), links: Some(links) }
    }

    pub(crate) fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WireError> {
        self.bytes = postcard::to_extend(value, std::mem::take(&mut self.bytes))?;
        Ok(())
    }

    /// The number of a task, if it goes to the same process.
    pub(crate) fn link(&self, task: Ref) -> Option<u32> {
        self.links.as_ref()?(task)
    }

    /// Bytes as they are.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes with their length before them.
    pub(crate) fn bytes_of(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.value(&bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// What was written since this was last asked.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Reads the bytes of a call.
#[doc(hidden)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    links: &'a [Option<Ref>],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, links: &[] }
    }

    /// As [`new`](Self::new), with the tasks to which links may lead.
    pub(crate) fn linking(bytes: &'a [u8], links: &'a [Option<Ref>]) -> Self {
        Self { bytes, links }
    }

    pub(crate) fn value<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        let (value, rest) = postcard::take_from_bytes(self.bytes)?;
        self.bytes = rest;
        Ok(value)
    }

    /// What [`Encoder::bytes_of`] wrote.
    pub(crate) fn bytes_of(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.value::<usize>()?;
        let (bytes, rest) = self.bytes.split_at_checked(len).ok_or(WireError::Malformed("ends early"))?;
        self.bytes = rest;
        Ok(bytes)
    }

    /// The task to which a link leads.
    pub(crate) fn linked(&self, link: u32) -> Result<Ref, WireError> {
        self.links
            .get(link as usize)
            .copied()
            .flatten()
            .ok_or(WireError::Malformed("links to a task that is not there"))
    }

    /// What has not been read.
    #[cfg(test)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Runs a call that [`Task::encode`](crate::Task::encode) made in a process of the same executable; the result's
/// bytes are read by [`decode`]. Blocks until the function returns. A panic goes through to the caller.
///
/// # Errors
/// [`WireError::OtherExecutable`] before anything runs; [`WireError::Failed`] with the text of the function's error.
pub fn run(call: &[u8]) -> Result<Vec<u8>, WireError> {
    let (theirs, rest) =
        call.split_first_chunk().ok_or(WireError::Malformed("shorter than a fingerprint"))?;
    let (checksum, body) = rest.split_first_chunk().ok_or(WireError::Malformed("shorter than its head"))?;
    let (theirs, ours) = (Fingerprint(*theirs), identity::fingerprint()?);
    if theirs != ours {
        return Err(WireError::OtherExecutable { theirs, ours });
    }
    if u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return Err(WireError::Malformed("damaged on the way"));
    }
    let (offset, arguments) =
        body.split_first_chunk().ok_or(WireError::Malformed("shorter than its head"))?;
    identity::call(i64::from_le_bytes(*offset), arguments)
}

/// The value in the bytes that [`run`] returned.
///
/// # Errors
/// [`WireError::Serde`] if the bytes are not a `T`.
pub fn decode<T: Data>(bytes: &[u8]) -> Result<T, WireError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// What stands at the offset in a call: reads the arguments and calls the function.
pub(crate) type Trampoline = fn(&[u8]) -> Result<Vec<u8>, WireError>;

fn trampoline<F, P, A, How, R, Kind>(bytes: &[u8]) -> Result<Vec<u8>, WireError>
where
    F: Function<P, Return = R>,
    A: Args<P, How, F, R>,
    R: Outcome<Kind>,
    R::Value: Data,
    R::Failure: Failure,
{
    let mut from = Decoder::new(bytes);
    let mut slots = A::decode(&mut from)?;
    if !from.bytes.is_empty() {
        return Err(WireError::Malformed("bytes are left after the arguments"));
    }
    let function = identity::conjure::<F>();
    let returned = A::call(&mut slots, &function, &Context::detached, Moves::Results);
    A::discard(slots, false);
    let value = match returned.map(Outcome::split) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => return Err(WireError::Failed(failure.boxed().to_string())),
        Err(cause) => return Err(WireError::Failed(cause.to_string())),
    };
    Ok(postcard::to_stdvec(&value)?)
}

/// The arguments of a task as bytes, without those that are results of others.
///
/// # Safety
/// The record was created with these types, and nobody executes it now.
pub(crate) unsafe fn describe<F, P, A, How, R, Kind>(task: Ref) -> Result<Vec<u8>, WireError>
where
    F: Function<P, Return = R>,
    A: Args<P, How, F, R>,
    R: Outcome<Kind>,
    R::Value: Data,
    R::Failure: Failure,
{
    let mut out = Encoder::default();
    // SAFETY: as demanded of the caller.
    unsafe { identity::with_slots::<R::Value, F, A::Slots, _>(task, |slots| A::describe(slots, &mut out))? };
    Ok(out.bytes)
}

/// The call of a task as bytes.
///
/// # Safety
/// The record was created with these types, and nobody executes it now.
pub(crate) unsafe fn encode_call<F, P, A, How, R, Kind>(task: Ref) -> Result<Vec<u8>, WireError>
where
    F: Function<P, Return = R>,
    A: Args<P, How, F, R>,
    R: Outcome<Kind>,
    R::Value: Data,
    R::Failure: Failure,
{
    let fingerprint = identity::fingerprint()?.0;
    let offset = identity::offset(trampoline::<F, P, A, How, R, Kind>);
    let mut out = Encoder { bytes: offset.to_le_bytes().to_vec(), links: None };
    // SAFETY: as demanded of the caller.
    unsafe { identity::with_slots::<R::Value, F, A::Slots, _>(task, |slots| A::encode(slots, &mut out))? };
    Ok([&fingerprint[..], &xxh3_64(&out.bytes).to_le_bytes(), &out.bytes].concat())
}
