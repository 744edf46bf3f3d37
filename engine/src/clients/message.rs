//! What a client and its session tell each other, as bytes.
//!
//! ```text
//! preface   "TARRAGON" │ length of the version, 1 byte │ the version of this crate
//! frame     length of what follows, 4 bytes, little endian │ a head, in postcard │ values, output, tasks as they are
//! ```
//!
//! The preface never changes, so that programs of different versions can tell each other which they have.

use super::names::DataName;
use crate::outputs::Portion;
use crate::ranks::{Limited, Told};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"TARRAGON";
/// Which version of this crate, with the number of the wire format, which changes more often.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");
/// Bytes of a frame at most; what does not fit is refused where it is written.
pub(super) const FRAME_BYTES_MAX: usize = u32::MAX as usize;
/// Bytes that a frame is trusted to have before any of them has come.
const TRUSTED_BYTES: usize = 1 << 20;

/// Writes what comes first in both directions.
pub(super) fn write_preface(to: &mut impl Write) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION.len() as u8);
    bytes.extend_from_slice(VERSION.as_bytes());
    to.write_all(&bytes)
}

/// The version of the other end.
pub(super) fn read_preface(from: &mut impl Read) -> io::Result<String> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    if head[..8] != MAGIC {
        return Err(malformed("it does not begin as a client's connection does"));
    }
    let mut version = vec![0; usize::from(head[8])];
    from.read_exact(&mut version)?;
    Ok(String::from_utf8_lossy(&version).into_owned())
}

/// A frame: a head, and what follows it.
pub(super) fn frame(head: &impl Serialize, rest: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(head, vec![0; 4]).map_err(io::Error::other)?;
    bytes.reserve(rest.iter().map(|part| part.len()).sum());
    rest.iter().for_each(|part| bytes.extend_from_slice(part));
    let len = bytes.len() - 4;
    let Ok(short) = u32::try_from(len) else {
        return Err(io::Error::other(format!("{len} bytes are more than a message has, {FRAME_BYTES_MAX}")));
    };
    bytes[..4].copy_from_slice(&short.to_le_bytes());
    Ok(bytes)
}

/// The next frame; `None` if the other end has hung up between two.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    let first = loop {
        match from.read(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut len[first..])?;
    let len = u32::from_le_bytes(len) as usize;
    let mut bytes = Vec::with_capacity(len.min(TRUSTED_BYTES));
    from.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(bytes)) }
}

/// Takes a frame apart.
pub(super) fn open<T: DeserializeOwned>(frame: &[u8]) -> io::Result<(T, &[u8])> {
    postcard::take_from_bytes(frame).map_err(|_| malformed("a message that makes no sense"))
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Who attaches.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) secret: [u64; 2],
    /// Of its executable, if that can be read.
    pub(super) fingerprint: Option<[u8; 16]>,
}

/// What the session answers.
#[derive(Serialize, Deserialize)]
pub(super) enum Greeting {
    Welcome(Welcome),
    /// It is another batch that listens here, or none that takes clients any more.
    Closed,
    TooMany(u64),
}

/// What a client is to know of the batch.
#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) fingerprint: Option<[u8; 16]>,
    /// Where the primary's executable is.
    pub(super) program: String,
    pub(super) workers: u32,
    pub(super) cpus: u32,
    pub(super) memory: u64,
    /// Its GPUs, and why not more.
    pub(super) gpus: (u32, String),
    /// Its named resources, and how much it has of each.
    pub(super) named: Vec<(String, u64)>,
    /// Where MPI jobs may run beside its own machine, and whether they may run there.
    pub(super) hosts: Vec<(String, u32)>,
    pub(super) is_here: bool,
    pub(super) gpus_of_hosts: u32,
    pub(super) background: bool,
    /// Errors that it tells of as what they are (see `error::carried`).
    pub(super) errors: Vec<i64>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum ToSession {
    /// The tasks follow.
    List {
        number: u64,
        from: Origin,
    },
    Cancel {
        number: u64,
        place: Option<u32>,
    },
    Read {
        ticket: u64,
        number: u64,
        place: u32,
        portion: Portion,
    },
    Forget {
        client: u32,
    },
    Drop {
        number: u64,
    },
    Close,
}

/// How a list came to be started.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Origin {
    /// This `Batch` value of the client had it submitted.
    Submitted { client: u32 },
    /// It was compiled by itself.
    Compiled,
}

#[derive(Serialize, Deserialize)]
pub(super) enum ToClient {
    Accepted {
        number: u64,
    },
    Refused {
        number: u64,
        why: Refusal,
    },
    /// What each stream has follows, then the value.
    Ended {
        number: u64,
        place: u32,
        how: How,
    },
    /// What was written follows.
    Written {
        ticket: u64,
        error: Option<String>,
    },
    Bye {
        why: String,
    },
}

/// Why a list does not start.
#[derive(Serialize, Deserialize)]
pub(super) enum Refusal {
    Closed,
    NoBackground,
    Interrupted,
    /// What each is.
    Mistakes(Vec<String>),
    Other(String),
}

/// How a task ended.
#[derive(Serialize, Deserialize)]
pub(super) enum How {
    Well {
        has_value: bool,
        /// Bytes that it has written to each stream, if it has written little.
        wrote: Option<(u32, u32)>,
    },
    Badly {
        is_skipped: bool,
        why: Told,
        /// Index of the list's first task, in whose numbers `why` speaks.
        first: u32,
        /// What it wrote before.
        wrote: String,
    },
}

/// What stands before the tasks of a list.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    /// Where the code of tasks is, each once.
    pub(super) codes: Vec<CodeName>,
    /// Data that were not named before in this connection.
    pub(super) data: Vec<(u32, DataName)>,
    /// Tasks of earlier lists that these take results or output of.
    pub(super) outside: Vec<(u64, u32)>,
    pub(super) tasks: u32,
}

/// Code, as both ends know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum CodeName {
    /// That of every process, in every executable.
    Process,
    /// In the executable that both run.
    Function(i64),
}

/// What stands before a task's arguments.
#[derive(Serialize, Deserialize)]
pub(super) struct TaskHead {
    /// Place in [`Head::codes`].
    pub(super) code: u32,
    /// The client has a handle of it.
    pub(super) is_wanted: bool,
    pub(super) is_attended: bool,
    pub(super) keeps_arguments: bool,
    /// Number of each datum, and whether it is written.
    pub(super) accesses: Vec<(u32, bool)>,
    pub(super) options: Option<Options>,
}

/// What few tasks have.
#[derive(Serialize, Deserialize)]
pub(super) struct Options {
    pub(super) name: Option<String>,
    pub(super) priority: i32,
    pub(super) cost: f32,
    pub(super) rank: Option<u32>,
    pub(super) limited: Option<Limited>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_one_after_the_other() {
        let mut bytes = Vec::new();
        write_preface(&mut bytes).expect("written");
        bytes.extend(frame(&ToSession::Drop { number: 300 }, &[]).expect("written"));
        bytes.extend(frame(&ToSession::Close, &[b"ab", b"c"]).expect("written"));
        let mut from = bytes.as_slice();
        assert_eq!(read_preface(&mut from).expect("read"), VERSION);
        let first = read_frame(&mut from).expect("read").expect("a frame");
        assert!(matches!(open(&first), Ok((ToSession::Drop { number: 300 }, []))));
        let second = read_frame(&mut from).expect("read").expect("a frame");
        assert!(matches!(open(&second), Ok((ToSession::Close, b"abc"))));
        assert!(read_frame(&mut from).expect("the end").is_none());
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_an_error() {
        let bytes = frame(&ToSession::Close, &[b"abc"]).expect("written");
        for len in 1..bytes.len() {
            assert!(read_frame(&mut &bytes[..len]).is_err(), "{len} bytes of {}", bytes.len());
        }
        assert!(read_preface(&mut b"GET / HTTP/1.1\r\n".as_slice()).is_err());
        assert!(open::<ToSession>(&[99, 1]).is_err());
        // A length that lies takes no memory.
        assert!(read_frame(&mut [255, 255, 255, 255, 1].as_slice()).is_err());
    }
}
