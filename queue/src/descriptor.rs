//! What leads to a queue from another process: plain data, a line of text.

use crate::encoding::type_hash;
use crate::error::Error;
use crate::layout::{Attached, DESTROYED, KIND, LAYOUT};
use crate::queue::Queue;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::{Display, Formatter};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use tarragon_transport::doorbell;
use tarragon_transport::segment::{Segment, SegmentName};

/// Names a queue. Serialises, prints, and parses; [`attach`](Self::attach) leads to the queue.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    pub(crate) segment: SegmentName,
    pub(crate) type_hash: u64,
    pub(crate) name: String,
}

const PREFIX: &str = "tarragon-queue:1";

impl Descriptor {
    /// The queue's name, as its maker called it; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle on the queue. Attaching twice in one process shares what is mapped.
    ///
    /// Costs some system calls, and 40 µs or more if the process has not mapped the queue.
    ///
    /// # Errors
    /// `Type` if it holds items of another type than `T`; `Destroyed`; `Segment` if it is gone, of another version or
    /// user, or damaged.
    pub fn attach<T: Serialize + DeserializeOwned + 'static>(&self) -> Result<Queue<T>, Error> {
        doorbell::prepare();
        let segment = Segment::open(&self.segment, KIND, LAYOUT)?;
        let mut attached =
            Attached { segment, name: self.name.clone(), bound: 0, is_strict: false, entries: 0 };
        let control = attached.try_control()?;
        let found = control.type_hash.load(Ordering::Acquire);
        let (bound, is_strict) =
            (control.bound.load(Ordering::Acquire), control.is_strict.load(Ordering::Acquire) != 0);
        let entries = control.entries.load(Ordering::Acquire);
        if found != type_hash::<T>() || self.type_hash != found {
            return Err(Error::Type { queue: self.segment.file.clone(), wanted: std::any::type_name::<T>() });
        }
        (attached.bound, attached.is_strict, attached.entries) = (bound, is_strict, entries);
        attached.check_entries()?;
        if attached.view().state() == DESTROYED {
            return Err(Error::Destroyed);
        }
        attached.segment.recover(&attached.view());
        Ok(Queue::of(attached))
    }
}

impl Display for Descriptor {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { segment, type_hash, name } = self;
        write!(out, "{PREFIX}:{}:{:032x}:{type_hash:016x}:{name}", segment.file, segment.uid)
    }
}

impl FromStr for Descriptor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.trim()).ok_or_else(|| Error::Descriptor { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Descriptor> {
    let mut parts = text.strip_prefix(PREFIX)?.strip_prefix(':')?.splitn(4, ':');
    let file = parts.next()?.to_owned();
    let uid = u128::from_str_radix(parts.next()?, 16).ok()?;
    let type_hash = u64::from_str_radix(parts.next()?, 16).ok()?;
    let name = parts.next()?.to_owned();
    let is_plain = !file.is_empty() && !file.contains('/');
    is_plain.then_some(Descriptor { segment: SegmentName { file, uid }, type_hash, name })
}
