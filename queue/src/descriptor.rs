//! What leads to a queue from another process: plain data, a line of text.

use crate::encoding::type_hash;
use crate::error::Error;
use crate::far;
use crate::layout::{Attached, DESTROYED, KIND, LAYOUT};
use crate::queue::Queue;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::{Display, Formatter};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use tarragon_transport::SegmentError;
use tarragon_transport::doorbell;
use tarragon_transport::segment::{Segment, SegmentName};

/// Names a queue. Serialises, prints, and parses; [`attach`](Self::attach) leads to the queue.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    pub(crate) segment: SegmentName,
    pub(crate) type_hash: u64,
    pub(crate) name: String,
    pub(crate) home: Option<Home>,
}

/// Where ranks of other nodes find a queue.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Home {
    /// Number of the world.
    pub(crate) world: u128,
    /// The rank that serves it.
    pub(crate) rank: u32,
    /// That rank's machine.
    pub(crate) host: String,
}

/// Of a queue of one node.
const PREFIX: &str = "tarragon-queue:1:";
/// Of one that ranks of other nodes reach: world, rank and host come before the name.
const PREFIX_OF_RANKS: &str = "tarragon-queue:2:";

impl Descriptor {
    /// The queue's name, as its maker called it; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle on the queue. Attaching twice in one process shares what is mapped.
    ///
    /// A rank of the queue's world on another node gets a handle that asks the rank that serves the queue; see
    /// [`Builder::create_on`](crate::Builder::create_on). It finds the world by itself.
    ///
    /// Costs some system calls, and 40 µs or more if the process has not mapped the queue; on another node a round trip
    /// as well.
    ///
    /// # Errors
    /// `Type` if it holds items of another type than `T`; `Destroyed`; `Segment` if it is gone, of another version or
    /// user, or damaged. On another node `Elsewhere` if this process is no rank of the queue's world; `Lost`,
    /// `Departed`, `AtHome`.
    pub fn attach<T: Serialize + DeserializeOwned + 'static>(&self) -> Result<Queue<T>, Error> {
        doorbell::prepare();
        if self.type_hash != type_hash::<T>() {
            return Err(Error::Type { queue: self.segment.file.clone(), wanted: std::any::type_name::<T>() });
        }
        let attached = match (self.open(std::any::type_name::<T>()), &self.home) {
            (Err(Error::Segment(SegmentError::Gone { name })), Some(home)) => {
                far::attach(self, home, SegmentError::Gone { name })
            }
            (opened, _) => opened,
        };
        attached.map(Queue::of)
    }

    /// The queue in this node's memory; `wanted` is the type of its items by name.
    pub(crate) fn open(&self, wanted: &'static str) -> Result<Attached, Error> {
        let segment = Segment::open(&self.segment, KIND, LAYOUT)?;
        let (name, home) = (self.name.clone(), self.home.clone());
        let mut attached =
            Attached { segment, name, bound: 0, is_strict: false, entries: 0, home, far: None };
        let control = attached.try_control()?;
        let found = control.type_hash.load(Ordering::Acquire);
        let (bound, is_strict) =
            (control.bound.load(Ordering::Acquire), control.is_strict.load(Ordering::Acquire) != 0);
        let entries = control.entries.load(Ordering::Acquire);
        if self.type_hash != found {
            return Err(Error::Type { queue: self.segment.file.clone(), wanted });
        }
        (attached.bound, attached.is_strict, attached.entries) = (bound, is_strict, entries);
        attached.check_entries()?;
        if attached.view().state() == DESTROYED {
            return Err(Error::Destroyed);
        }
        attached.segment.recover(&attached.view());
        Ok(attached)
    }
}

impl Display for Descriptor {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { segment, type_hash, name, home } = self;
        out.write_str(if home.is_some() { PREFIX_OF_RANKS } else { PREFIX })?;
        write!(out, "{}:{:032x}:{type_hash:016x}:", segment.file, segment.uid)?;
        if let Some(Home { world, rank, host }) = home {
            write!(out, "{world:032x}:{rank}:{host}:")?;
        }
        out.write_str(name)
    }
}

impl FromStr for Descriptor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.trim()).ok_or_else(|| Error::Descriptor { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Descriptor> {
    let of_ranks = text.strip_prefix(PREFIX_OF_RANKS);
    let count = if of_ranks.is_some() { 7 } else { 4 };
    let mut parts = of_ranks.or_else(|| text.strip_prefix(PREFIX))?.splitn(count, ':');
    let file = parts.next()?.to_owned();
    let uid = u128::from_str_radix(parts.next()?, 16).ok()?;
    let type_hash = u64::from_str_radix(parts.next()?, 16).ok()?;
    let mut home = None;
    if of_ranks.is_some() {
        let world = u128::from_str_radix(parts.next()?, 16).ok()?;
        let rank = parts.next()?.parse().ok()?;
        home = Some(Home { world, rank, host: parts.next()?.to_owned() });
    }
    let name = parts.next()?.to_owned();
    let is_plain = !file.is_empty() && !file.contains('/');
    is_plain.then_some(Descriptor { segment: SegmentName { file, uid }, type_hash, name, home })
}

#[cfg(test)]
mod tests {
    use super::{Descriptor, Home};
    use tarragon_transport::segment::SegmentName;

    #[test]
    fn both_forms_come_back_from_text() {
        let home = Home { world: 7, rank: 3, host: "h1".to_owned() };
        for home in [None, Some(home)] {
            let segment = SegmentName { file: "file".to_owned(), uid: 1 << 100 };
            let descriptor = Descriptor { segment, type_hash: 5, name: "a:name".to_owned(), home };
            let text = descriptor.to_string();
            assert_eq!(text.parse::<Descriptor>().ok(), Some(descriptor), "{text}");
        }
    }

    #[test]
    fn texts_that_lack_a_part_are_refused() {
        let text = "tarragon-queue:2:file:1:5:7:3:h1:name";
        assert!(text.parse::<Descriptor>().is_ok());
        for wrong in ["tarragon-queue:2:file:1:5:7:3:h1", "tarragon-queue:2:file:1:5:7:x:h1:name"] {
            assert!(wrong.parse::<Descriptor>().is_err(), "{wrong}");
        }
        assert!(text.replace(":2:", ":3:").parse::<Descriptor>().is_err());
    }
}
