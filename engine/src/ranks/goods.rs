//! What comes with the news that a task has ended: its value, and what it has written, as far as others take it.
//!
//! A notice has room for both together ([`ROOM`]); a value that does not fit fails who takes it, and so does output.
//! What a task has written is kept where it is taken as if it had been written there, until the next run.

use super::message::Came;
use super::told::Told;
use crate::compile::Taken;
use crate::error::{Cause, Failure};
use crate::outputs::Which;
use crate::task::output::Output;
use crate::task::record::Ref;
use std::sync::Arc;
use tarragon_transport::message::PAYLOAD_BYTES_MAX;

/// Bytes of a message but for what stands before them.
const ROOM: u64 = PAYLOAD_BYTES_MAX - (1 << 21);

/// What a task gave that has ended, for other ranks: what they take, or why there is nothing.
pub(super) type Given = Result<Goods, Told>;

/// What is taken of a task that has succeeded.
#[derive(Default)]
pub(super) struct Goods {
    value: Option<Vec<u8>>,
    wrote: Vec<(Which, Result<Vec<u8>, String>)>,
}

impl Goods {
    pub(super) fn of_value(value: Option<Vec<u8>>) -> Self {
        Self { value, wrote: Vec::new() }
    }

    /// What is taken of a task; the caller keeps its value in place.
    pub(super) fn of(task: Ref, taken: Taken) -> Result<Self, Arc<Failure>> {
        let value = taken.has(Taken::VALUE).then(|| given_by(task)).transpose()?;
        let mut goods = Self::of_value(value);
        if taken.has_output() {
            let mut room = ROOM - goods.value.as_ref().map_or(0, Vec::len) as u64;
            for (which, _) in STREAMS.into_iter().filter(|(_, stream)| taken.has(*stream)) {
                let wrote = wrote(task, which, room);
                room -= wrote.as_ref().map_or(0, Vec::len) as u64;
                goods.wrote.push((which, wrote));
            }
        }
        Ok(goods)
    }

    /// What of it goes to who takes this: the parts of its notice, and the bytes behind that.
    pub(super) fn of_taken(&self, taken: Taken) -> (Came, Lens, [&[u8]; 3]) {
        let (mut lens, mut bodies) = (Vec::new(), [[].as_slice(); 3]);
        for (body, (which, wrote)) in bodies.iter_mut().zip(&self.wrote) {
            if STREAMS.iter().any(|(stream, bit)| stream == which && taken.has(*bit)) {
                lens.push((*which, wrote.as_ref().map(|bytes| bytes.len() as u64).map_err(String::clone)));
                *body = wrote.as_deref().unwrap_or_default();
            }
        }
        let value = self.value.as_deref().filter(|_| taken.has(Taken::VALUE));
        bodies[2] = value.unwrap_or_default();
        (if value.is_some() { Came::WithValue } else { Came::Well }, lens, bodies)
    }
}

/// Of streams that are taken how many bytes they have, or why they cannot be read.
pub(super) type Lens = Vec<(Which, Result<u64, String>)>;

const STREAMS: [(Which, Taken); 2] = [(Which::Out, Taken::OUT), (Which::Err, Taken::ERR)];

/// What a task has written here, if it has no more bytes than there is room for.
fn wrote(task: Ref, which: Which, room: u64) -> Result<Vec<u8>, String> {
    let Some(cohort) = task.cohort() else { return Ok(Vec::new()) };
    let read = cohort.with_output(task.index(), |output| output.bytes(which));
    let bytes = read.unwrap_or_else(|| Ok(Vec::new())).map_err(|error| error.to_string())?;
    let len = bytes.len() as u64;
    if len > room { Err(format!("{len} bytes are more than a message has, {room}")) } else { Ok(bytes) }
}

/// What follows a notice: of each stream the bytes, and the value.
type Split<'a> = (Vec<(Which, Result<&'a [u8], String>)>, &'a [u8]);

/// Takes apart what follows a notice; `None` if it is shorter than its head says.
pub(super) fn split(wrote: Lens, mut rest: &[u8]) -> Option<Split<'_>> {
    let mut all = Vec::new();
    for (which, wrote) in wrote {
        let wrote = match wrote {
            Err(why) => Err(why),
            Ok(len) => {
                let (bytes, behind) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                rest = behind;
                Ok(bytes)
            }
        };
        all.push((which, wrote));
    }
    Some((all, rest))
}

/// Keeps what a task has written elsewhere.
pub(super) fn keep(task: Ref, wrote: &[(Which, Result<&[u8], String>)]) {
    let mut output = Output::default();
    for (which, wrote) in wrote {
        match (which, wrote) {
            (_, Err(why)) => output.is_unread(why.clone()),
            (Which::Out, Ok(bytes)) => output.add(bytes, &[]),
            (Which::Err, Ok(bytes)) => output.add(&[], bytes),
        }
    }
    if let Some(cohort) = task.cohort() {
        cohort.keep_output(task.index(), output);
    }
}

/// The value of a task as bytes, if serde can write it and a message has room for it and what stands before it.
pub(super) fn value_of(task: Ref) -> Option<Vec<u8>> {
    task.pack_value().filter(|value| value.len() as u64 <= ROOM)
}

/// The value of a task that has succeeded; the caller keeps it in place.
pub(super) fn given_by(task: Ref) -> Result<Vec<u8>, Arc<Failure>> {
    value_of(task).ok_or_else(|| unwritable(task))
}

/// A value cannot go.
pub(super) fn unwritable(task: Ref) -> Arc<Failure> {
    let what =
        "its result cannot go to another rank: serde cannot write it, or it has more bytes than a message";
    Failure::new(task, Cause::Error(what.into()), 1)
}
