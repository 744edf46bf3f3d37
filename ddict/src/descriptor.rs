//! Plain data that names a live dictionary.

use crate::encoding::{pair_name, type_name, types_hash};
use crate::error::Error;
use crate::handle::DDict;
use crate::host;
use crate::parts::{Home, Parts};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use tarragon_transport::Rank;
use tarragon_transport::segment::SegmentName;

/// What a descriptor's text begins with, and its version.
const PREFIX: &str = "ddict:1:";
/// The same for a dictionary that spans nodes.
const SPAN_PREFIX: &str = "ddict:2:";
/// The same for one whose keys several nodes keep: the world's number is followed by how many.
const REPLICATED_PREFIX: &str = "ddict:3:";
/// Fields of a text, and of each node's part after them and the world's number.
const FIELDS: usize = 7;
const HOME_FIELDS: usize = 6;
/// Characters of a text that errors show.
const SHOWN_MAX: usize = 80;

/// Names a dictionary: any process of its machine attaches with it; one that spans nodes, any rank of its world. Plain
/// data: it is printed, parsed, sent and stored; none of that touches the dictionary, and having one keeps nothing
/// alive.
///
/// Its text is one line without blanks: `let text = descriptor.to_string()`, and `text.parse::<Descriptor>()`.
///
/// ```
/// use tarragon_ddict::{DDict, Descriptor};
///
/// let dict = DDict::<String, u64>::builder().create()?;
/// let text = dict.descriptor().to_string();
///
/// // In another process:
/// let dict = text.parse::<Descriptor>()?.attach::<String, u64>()?;
/// # Ok::<(), tarragon_ddict::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    segment: SegmentName,
    types: u64,
    key_type: String,
    value_type: String,
    host: String,
    checkpoint: u32,
    span: Option<Span>,
}

/// Where a dictionary lies that spans nodes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Span {
    world: u128,
    homes: Vec<Home>,
}

impl Descriptor {
    pub(crate) fn new<K: 'static, V: 'static>(parts: &Parts, checkpoint: u32) -> Self {
        let span = parts.span().map(|(world, homes)| Span { world, homes: homes.to_vec() });
        let first = span.as_ref().and_then(|span| span.homes.first());
        let segment = first.map_or_else(|| parts.near().name().clone(), |home| home.segment.clone());
        Self {
            segment,
            types: parts.options().types,
            key_type: type_name::<K>(),
            value_type: type_name::<V>(),
            host: host::boot_id().to_owned(),
            checkpoint,
            span,
        }
    }

    /// Name of the dictionary's segment.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.segment.file
    }

    /// The number that no other dictionary has.
    #[must_use]
    pub fn uid(&self) -> u128 {
        self.segment.uid
    }

    /// Name of the type of its keys.
    #[must_use]
    pub fn key_type(&self) -> &str {
        &self.key_type
    }

    /// Name of the type of its values.
    #[must_use]
    pub fn value_type(&self) -> &str {
        &self.value_type
    }

    /// A handle to the dictionary, at the checkpoint of the handle that gave the descriptor. In a process that has the
    /// dictionary open already: a look into a table. One that spans nodes is told of to all of them, which takes a
    /// round trip to each.
    ///
    /// # Errors
    /// `Types` if it was made with other types, `Host` if it lives on another machine, `Gone` if it was destroyed or
    /// its last user has ended; `Segment` for a file that is damaged, another user's, or of another version. Of one
    /// that spans nodes: `World` if this process is no rank of its world, `Lost`, `Far`.
    pub fn attach<K: 'static, V: 'static>(&self) -> Result<DDict<K, V>, Error> {
        let asked = (type_name::<K>(), type_name::<V>());
        let wanted = types_hash(&asked.0, &asked.1);
        let other_types = |made: String| Error::Types {
            name: self.segment.file.clone(),
            made,
            asked: pair_name(&asked.0, &asked.1),
        };
        if self.types != wanted {
            return Err(other_types(pair_name(&self.key_type, &self.value_type)));
        }
        if self.span.is_none() && self.host != host::boot_id() {
            let (name, host) = (self.segment.file.clone(), self.host.clone());
            return Err(Error::Host { name, host, here: host::boot_id().to_owned() });
        }
        let other_in_segment = || other_types("other types than its descriptor says".to_owned());
        if let Some(dict) = DDict::<K, V>::of_open(self.segment.uid, self.checkpoint) {
            let has_types = dict.store().options().types == wanted;
            return has_types.then_some(dict).ok_or_else(other_in_segment);
        }
        let opened = match &self.span {
            None => Store::open(&self.segment).map(Parts::alone),
            Some(span) => Parts::attach(span.world, &span.homes),
        };
        let parts = opened.map_err(|error| match error {
            Error::Segment(error) => Error::from_segment(error),
            other => other,
        })?;
        if parts.options().types != wanted {
            return Err(other_in_segment());
        }
        Ok(DDict::new(parts, self.checkpoint))
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.segment;
        let replicas =
            self.span.as_ref().and_then(|span| span.homes.first()).map_or(0, |home| home.replicas.len());
        let prefix = match &self.span {
            None => PREFIX,
            Some(_) if replicas == 0 => SPAN_PREFIX,
            Some(_) => REPLICATED_PREFIX,
        };
        write!(f, "{prefix}{}:{:x}:{:x}:", Escaped(&name.file), name.uid, self.types)?;
        write!(f, "{}:{}:", Escaped(&self.key_type), Escaped(&self.value_type))?;
        write!(f, "{}:{}", Escaped(&self.host), self.checkpoint)?;
        let Some(span) = &self.span else { return Ok(()) };
        write!(f, ":{:x}", span.world)?;
        if replicas > 0 {
            write!(f, ":{}", replicas + 1)?;
        }
        span.homes.iter().try_for_each(|home| {
            write!(f, ":{}:{}", home.rank, Escaped(&home.host))?;
            let mut names = [&home.segment, &home.copies].into_iter().chain(&home.replicas);
            names.try_for_each(|name| write!(f, ":{}:{:x}", Escaped(&name.file), name.uid))
        })
    }
}

impl FromStr for Descriptor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.trim())
            .map_err(|reason| Error::Descriptor { text: text.chars().take(SHOWN_MAX).collect(), reason })
    }
}

fn parse(text: &str) -> Result<Descriptor, &'static str> {
    let prefixes = [(PREFIX, 0), (SPAN_PREFIX, 1), (REPLICATED_PREFIX, 2)];
    let found = prefixes.iter().find_map(|(prefix, form)| Some((text.strip_prefix(prefix)?, *form)));
    let (fields, form) = match found {
        Some(found) => found,
        None if text.starts_with("ddict:") => {
            return Err("its version is none of 1, 2 and 3: use one version of the program");
        }
        None => return Err("it does not begin with `ddict:`"),
    };
    let fields: Vec<&str> = fields.split(':').collect();
    let (fields, rest) = fields.split_at_checked(FIELDS).ok_or("it has not 7 parts")?;
    let [file, uid, types, key_type, value_type, host, checkpoint] = fields else {
        return Err("it has not 7 parts");
    };
    if form == 0 && !rest.is_empty() {
        return Err("it has not 7 parts");
    }
    Ok(Descriptor {
        segment: name_of(file, uid)?,
        types: u64::from_str_radix(types, 16).map_err(|_| "its hash of types is no number")?,
        key_type: unescape(key_type)?,
        value_type: unescape(value_type)?,
        host: unescape(host)?,
        checkpoint: checkpoint.parse().map_err(|_| "its checkpoint is no number")?,
        span: (form > 0).then(|| parse_span(rest, form == 2)).transpose()?,
    })
}

fn parse_span(fields: &[&str], is_replicated: bool) -> Result<Span, &'static str> {
    let (world, mut homes) = fields.split_first().ok_or("it has no number of a world")?;
    let mut others = 0;
    if is_replicated {
        let (replicas, rest) = homes.split_first().ok_or("it has no number of replicas")?;
        let replicas = replicas.parse().ok().filter(|replicas| (2..=rest.len()).contains(replicas));
        (others, homes) = (replicas.ok_or("its number of replicas is none")? - 1, rest);
    }
    let home_fields = HOME_FIELDS + 2 * others;
    if homes.is_empty() || !homes.len().is_multiple_of(home_fields) {
        return Err("its nodes have not 6 parts each, and 2 for each further replica");
    }
    let home = |fields: &[&str]| {
        let rank = fields[0].parse().map_err(|_| "a rank is no number")?;
        let (host, segment) = (unescape(fields[1])?, name_of(fields[2], fields[3])?);
        let replicas = fields[HOME_FIELDS..].chunks(2).map(|it| name_of(it[0], it[1]));
        let replicas = replicas.collect::<Result<_, &'static str>>()?;
        Ok(Home { rank: Rank(rank), host, segment, copies: name_of(fields[4], fields[5])?, replicas })
    };
    Ok(Span {
        world: u128::from_str_radix(world, 16).map_err(|_| "its world's number is none")?,
        homes: homes.chunks(home_fields).map(home).collect::<Result<_, &'static str>>()?,
    })
}

fn name_of(file: &str, uid: &str) -> Result<SegmentName, &'static str> {
    let uid = u128::from_str_radix(uid, 16).map_err(|_| "its uid is no number")?;
    let file = unescape(file)?;
    if file.is_empty() || file.contains(['/', '\0']) {
        return Err("its segment has no file name");
    }
    Ok(SegmentName { file, uid })
}

/// A part of a descriptor's text: what is not a plain character stands as `%` and two digits.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_graphic() && !matches!(byte, b':' | b'%' | b'"' | b'\'' | b'\\' | b'`' | b'$') {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().ok_or("a `%` has no two digits after it")?;
        let digits = std::str::from_utf8(digits).map_err(|_| "a `%` has no two digits after it")?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| "a `%` has no two digits after it")?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8")
}
