//! The frames between engine and supervisor: a length of 4 bytes, a kind of 1 byte, then fields of fixed width, little
//! endian. A string is its length, its bytes, and a zero byte, so that the supervisor hands it to the system in place.
//!
//! Both ends are one executable, so a frame needs no version; still each field is checked, because a broken end must
//! not break the other. Sockets are left to `client` and `serve`.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use crate::event::{Ended, Event, Step};
use crate::request::{Input, Output, Request, Spawn, Why};

/// The longest frame. A longer request is refused by the client; a longer frame is no frame.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;
/// Stands for an absent number.
const NONE: u64 = u64::MAX;
/// Stands for an absent string or list.
const ABSENT: u32 = u32::MAX;

const START: u8 = 1;
const STAND: u8 = 2;
const KILL: u8 = 3;
const FORGET: u8 = 4;
const ENVIRONMENT: u8 = 5;
const LOCK: u8 = 6;
const HELLO: u8 = 16;
const STARTED: u8 = 17;
const COULD_NOT_START: u8 = 18;
const ENDED: u8 = 19;
const BOUNCED: u8 = 20;
const DROPPED: u8 = 21;

/// A request as the supervisor reads it.
pub(crate) enum Demand<'a> {
    Start(&'a [u8]),
    Stand(&'a [u8]),
    Kill { id: u64, grace: Duration, why: Why },
    Forget { base: u32 },
    Lock { path: &'a CStr },
    Environment { base: u32, entries: Vec<&'a CStr> },
}

/// A process to start, its strings in the frame.
pub(crate) struct Order<'a> {
    pub(crate) id: u64,
    pub(crate) hold: u32,
    pub(crate) base: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) program: &'a CStr,
    pub(crate) cwd: Option<&'a CStr>,
    pub(crate) stdin: Option<&'a CStr>,
    pub(crate) stdout: &'a CStr,
    /// `None`: where standard output goes.
    pub(crate) stderr: Option<&'a CStr>,
    pub(crate) affinity: Option<Vec<u32>>,
    pub(crate) args: Vec<&'a CStr>,
    pub(crate) env: Vec<Change<'a>>,
}

/// A change to an environment block.
pub(crate) enum Change<'a> {
    /// `name=value`.
    Set(&'a CStr),
    /// A name.
    Remove(&'a CStr),
}

/// What the supervisor sends: an event, or that it is there.
#[derive(Debug, PartialEq)]
pub(crate) enum News {
    Hello,
    Event(Event),
}

/// A frame that says nothing: the other end is broken.
#[derive(Debug, thiserror::Error)]
#[error("a malformed frame")]
pub(crate) struct Malformed;

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// The length of the first frame of `bytes`, its own 4 bytes included, once it is there as a whole.
pub(crate) fn whole(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Malformed);
    }
    let end = LENGTH_BYTES + length;
    Ok((bytes.len() >= end).then_some(end))
}

// --- writing ---------------------------------------------------------------------------------------------------------

/// Appends one frame; `fill` writes its kind and fields.
fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let start = out.len();
    out.extend([0; LENGTH_BYTES]);
    let filled = fill(out);
    let length = out.len() - start - LENGTH_BYTES;
    if let Err(error) = filled {
        out.truncate(start);
        return Err(error);
    }
    if length > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a request of more than 64 MiB"));
    }
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

fn put_time(out: &mut Vec<u8>, time: Option<Duration>) {
    put_u64(out, time.map_or(NONE, |time| u64::try_from(time.as_nanos()).unwrap_or(NONE - 1).min(NONE - 1)));
}

/// Puts the parts, joined, as one string.
fn put_string(out: &mut Vec<u8>, parts: &[&[u8]]) -> io::Result<()> {
    if parts.iter().any(|part| part.contains(&0)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in a string for the system"));
    }
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a string of more than 64 MiB"));
    }
    put_u32(out, length as u32);
    parts.iter().for_each(|part| out.extend(*part));
    out.push(0);
    Ok(())
}

fn put_path(out: &mut Vec<u8>, path: Option<&Path>) -> io::Result<()> {
    match path {
        Some(path) => put_string(out, &[path.as_os_str().as_bytes()]),
        None => {
            put_u32(out, ABSENT);
            Ok(())
        }
    }
}

/// Appends the frame of a request.
pub(crate) fn put_request(out: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()> {
    frame(out, |out| match request {
        Request::Start(spawn) => put_spawn(out, START, spawn),
        Request::Stand(spawn) => put_spawn(out, STAND, spawn),
        Request::Kill { id, grace, why } => {
            out.push(KILL);
            put_u64(out, *id);
            put_time(out, Some(*grace));
            out.push(*why as u8);
            Ok(())
        }
        Request::Lock { path } => {
            out.push(LOCK);
            put_path(out, Some(path))
        }
        Request::Forget { base } => {
            out.push(FORGET);
            put_u32(out, *base);
            Ok(())
        }
    })
}

fn put_spawn(out: &mut Vec<u8>, kind: u8, spawn: &Spawn<'_>) -> io::Result<()> {
    out.push(kind);
    put_u64(out, spawn.id);
    put_u32(out, spawn.hold);
    put_u32(out, spawn.base);
    put_time(out, spawn.timeout);
    put_time(out, Some(spawn.grace));
    put_u64(out, spawn.memory_bytes.unwrap_or(NONE));
    put_path(out, Some(spawn.program))?;
    put_path(out, spawn.cwd)?;
    put_path(
        out,
        match spawn.stdin {
            Input::Null => None,
            Input::File(path) => Some(path),
        },
    )?;
    put_path(out, Some(spawn.stdout))?;
    put_path(
        out,
        match spawn.stderr {
            Output::SameAsStdout => None,
            Output::File(path) => Some(path),
        },
    )?;
    put_u32(out, spawn.affinity.map_or(ABSENT, |cpus| cpus.len() as u32));
    spawn.affinity.into_iter().flatten().for_each(|cpu| put_u32(out, *cpu));
    put_u32(out, spawn.args.len() as u32);
    for arg in spawn.args {
        put_string(out, &[arg.as_bytes()])?;
    }
    put_u32(out, spawn.env.len() as u32);
    for (name, value) in spawn.env {
        check_name(name)?;
        out.push(u8::from(value.is_some()));
        match value {
            Some(value) => put_string(out, &[name.as_bytes(), b"=", value.as_bytes()])?,
            None => put_string(out, &[name.as_bytes()])?,
        }
    }
    Ok(())
}

/// A name without bytes, or with `=` beyond its first one, would be another name to whoever reads it.
fn check_name(name: &OsStr) -> io::Result<()> {
    let is_name = !name.is_empty() && !name.as_bytes()[1..].contains(&b'=');
    is_name.then_some(()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} cannot name an environment variable"))
    })
}

/// Appends the frame that defines an environment block.
pub(crate) fn put_environment(
    out: &mut Vec<u8>,
    base: u32,
    vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
) -> io::Result<()> {
    frame(out, |out| {
        out.push(ENVIRONMENT);
        put_u32(out, base);
        for (name, value) in vars {
            check_name(name.as_ref())?;
            put_string(out, &[name.as_ref().as_bytes(), b"=", value.as_ref().as_bytes()])?;
        }
        Ok(())
    })
}

/// Appends a frame of the supervisor's. It is far below the limit, so nothing can fail.
fn small(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let filled = frame(out, |out| {
        fill(out);
        Ok(())
    });
    filled.expect("a frame of fixed size is within the limit");
}

/// Appends the frame that says that the supervisor is there.
pub(crate) fn put_hello(out: &mut Vec<u8>) {
    small(out, |out| out.push(HELLO));
}

/// Appends the frame of an event.
pub(crate) fn put_event(out: &mut Vec<u8>, event: &Event) {
    small(out, |out| match event {
        Event::Started { id, pid, at_ns, follows } => {
            out.push(STARTED);
            put_u64(out, *id);
            put_u32(out, *pid);
            put_u64(out, *at_ns);
            put_follows(out, *follows);
        }
        Event::CouldNotStart { id, step, errno, follows } => {
            out.push(COULD_NOT_START);
            put_u64(out, *id);
            out.push(*step as u8);
            put_u32(out, errno.cast_unsigned());
            put_follows(out, *follows);
        }
        Event::Ended(ended) => put_ended(out, ended),
        Event::Bounced { id } => {
            out.push(BOUNCED);
            put_u64(out, *id);
        }
        Event::Dropped { id } => {
            out.push(DROPPED);
            put_u64(out, *id);
        }
    });
}

/// Ids may be any number, so that one is there takes a byte of its own.
fn put_follows(out: &mut Vec<u8>, id: Option<u64>) {
    out.push(u8::from(id.is_some()));
    put_u64(out, id.unwrap_or(0));
}

fn put_ended(out: &mut Vec<u8>, ended: &Ended) {
    out.push(ENDED);
    put_u64(out, ended.id);
    put_u32(out, ended.status.into_raw().cast_unsigned());
    out.push(ended.why.map_or(0, |why| 1 + why as u8));
    put_u64(out, ended.max_rss_bytes);
    put_time(out, Some(ended.user));
    put_time(out, Some(ended.system));
    put_u64(out, ended.started_ns);
    put_u64(out, ended.ended_ns);
    put_u32(out, ended.leftovers);
    put_follows(out, ended.taken_over_by);
}

// --- reading ---------------------------------------------------------------------------------------------------------

/// The fields of a frame, read from the left.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.chunk::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.chunk()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.chunk()?))
    }

    fn optional(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(Some(self.u64()?).filter(|value| *value != NONE))
    }

    fn time(&mut self) -> Result<Duration, Malformed> {
        Ok(Duration::from_nanos(self.u64()?))
    }

    fn follows(&mut self) -> Result<Option<u64>, Malformed> {
        let is_there = self.u8()? != 0;
        Ok(Some(self.u64()?).filter(|_| is_there))
    }

    fn maybe_string(&mut self) -> Result<Option<&'a CStr>, Malformed> {
        let length = self.u32()?;
        if length == ABSENT {
            return Ok(None);
        }
        let (text, rest) = self.0.split_at_checked(length as usize + 1).ok_or(Malformed)?;
        self.0 = rest;
        CStr::from_bytes_with_nul(text).map(Some).map_err(|_| Malformed)
    }

    fn string(&mut self) -> Result<&'a CStr, Malformed> {
        self.maybe_string()?.ok_or(Malformed)
    }

    fn why(byte: u8) -> Result<Why, Malformed> {
        [Why::TimedOut, Why::OverMemory, Why::Cancelled]
            .into_iter()
            .find(|why| *why as u8 == byte)
            .ok_or(Malformed)
    }
}

/// Reads a request; `bytes` is one whole frame.
pub(crate) fn demand(bytes: &[u8]) -> Result<Demand<'_>, Malformed> {
    let mut fields = Fields(bytes.get(LENGTH_BYTES..).ok_or(Malformed)?);
    Ok(match fields.u8()? {
        START => Demand::Start(fields.0),
        STAND => Demand::Stand(fields.0),
        KILL => Demand::Kill { id: fields.u64()?, grace: fields.time()?, why: Fields::why(fields.u8()?)? },
        FORGET => Demand::Forget { base: fields.u32()? },
        LOCK => Demand::Lock { path: fields.string()? },
        ENVIRONMENT => {
            let base = fields.u32()?;
            let mut entries = Vec::new();
            while !fields.0.is_empty() {
                entries.push(fields.string()?);
            }
            Demand::Environment { base, entries }
        }
        _ => return Err(Malformed),
    })
}

/// Reads the fields of a process to start.
pub(crate) fn order(bytes: &[u8]) -> Result<Order<'_>, Malformed> {
    let mut fields = Fields(bytes);
    let (id, hold, base) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let timeout = fields.optional()?.map(Duration::from_nanos);
    let grace = fields.time()?;
    let memory_bytes = fields.optional()?;
    let (program, cwd, stdin) = (fields.string()?, fields.maybe_string()?, fields.maybe_string()?);
    let (stdout, stderr) = (fields.string()?, fields.maybe_string()?);
    let affinity = match fields.u32()? {
        ABSENT => None,
        count => Some((0..count).map(|_| fields.u32()).collect::<Result<Vec<_>, _>>()?),
    };
    let args = (0..fields.u32()?).map(|_| fields.string()).collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::new();
    for _ in 0..fields.u32()? {
        let sets = fields.u8()? != 0;
        let text = fields.string()?;
        env.push(if sets { Change::Set(text) } else { Change::Remove(text) });
    }
    Ok(Order {
        id,
        hold,
        base,
        timeout,
        grace,
        memory_bytes,
        program,
        cwd,
        stdin,
        stdout,
        stderr,
        affinity,
        args,
        env,
    })
}

/// Reads what the supervisor sent; `bytes` is one whole frame.
pub(crate) fn news(bytes: &[u8]) -> Result<News, Malformed> {
    let mut fields = Fields(bytes.get(LENGTH_BYTES..).ok_or(Malformed)?);
    let kind = fields.u8()?;
    if kind == HELLO {
        return Ok(News::Hello);
    }
    let id = fields.u64()?;
    Ok(News::Event(match kind {
        STARTED => {
            Event::Started { id, pid: fields.u32()?, at_ns: fields.u64()?, follows: fields.follows()? }
        }
        COULD_NOT_START => {
            let step = step(fields.u8()?)?;
            Event::CouldNotStart { id, step, errno: fields.u32()?.cast_signed(), follows: fields.follows()? }
        }
        ENDED => Event::Ended(ended(id, &mut fields)?),
        BOUNCED => Event::Bounced { id },
        DROPPED => Event::Dropped { id },
        _ => return Err(Malformed),
    }))
}

fn step(byte: u8) -> Result<Step, Malformed> {
    use Step::{Affinity, Cwd, Program, Spawn, Stderr, Stdin, Stdout};
    let steps = [Affinity, Cwd, Stdin, Stdout, Stderr, Program, Spawn];
    steps.into_iter().find(|step| *step as u8 == byte).ok_or(Malformed)
}

fn ended(id: u64, fields: &mut Fields<'_>) -> Result<Ended, Malformed> {
    Ok(Ended {
        id,
        status: ExitStatus::from_raw(fields.u32()?.cast_signed()),
        why: match fields.u8()? {
            0 => None,
            byte => Some(Fields::why(byte - 1)?),
        },
        max_rss_bytes: fields.u64()?,
        user: fields.time()?,
        system: fields.time()?,
        started_ns: fields.u64()?,
        ended_ns: fields.u64()?,
        leftovers: fields.u32()?,
        taken_over_by: fields.follows()?,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::{Change, Demand, News, demand, news, order, put_environment, put_event, put_request, whole};
    use crate::event::{Ended, Event, Step};
    use crate::request::{Input, Output, Request, Spawn, Why};

    fn spawn_frame() -> Vec<u8> {
        let args = ["a", "", "c d"].map(OsString::from);
        let env = [("X".into(), Some("1=2".into())), ("Y".into(), None)];
        let spawn = Spawn {
            hold: 3,
            base: 4,
            env: &env,
            cwd: Some(Path::new("/cwd")),
            stdin: Input::File(Path::new("in")),
            stderr: Output::File(Path::new("err")),
            timeout: Some(Duration::from_nanos(5)),
            grace: Duration::MAX,
            affinity: Some(&[0, 9]),
            memory_bytes: Some(0),
            ..Spawn::new(u64::MAX, Path::new("/p"), &args, Path::new("out"))
        };
        let mut out = Vec::new();
        put_request(&mut out, &Request::Stand(spawn)).unwrap();
        out
    }

    #[test]
    fn a_spawn_arrives_as_it_was_sent() {
        let frame = spawn_frame();
        assert_eq!(whole(&frame).unwrap(), Some(frame.len()));
        let Ok(Demand::Stand(bytes)) = demand(&frame) else { panic!("not a stand") };
        let order = order(bytes).unwrap();
        assert_eq!((order.id, order.hold, order.base), (u64::MAX, 3, 4));
        assert_eq!((order.timeout, order.memory_bytes), (Some(Duration::from_nanos(5)), Some(0)));
        assert!(order.grace > Duration::from_secs(1 << 30));
        assert_eq!((order.program, order.cwd, order.stdin), (c"/p", Some(c"/cwd"), Some(c"in")));
        assert_eq!((order.stdout, order.stderr), (c"out", Some(c"err")));
        assert_eq!(order.affinity.as_deref(), Some(&[0, 9][..]));
        assert_eq!(order.args, [c"a", c"", c"c d"]);
        assert!(
            matches!(order.env[..], [Change::Set(set), Change::Remove(gone)] if (set, gone) == (c"X=1=2", c"Y"))
        );
    }

    #[test]
    fn a_frame_that_was_cut_or_changed_is_no_frame_and_breaks_nothing() {
        let frame = spawn_frame();
        for end in 0..frame.len() {
            assert!(matches!(whole(&frame[..end]), Ok(None)), "{end}");
            // The same with a length that agrees.
            let mut cut = frame[..end].to_vec();
            if let Some(length) = cut.first_chunk_mut::<4>() {
                *length = (end as u32 - 4).to_le_bytes();
                assert!(!matches!(demand(&cut), Ok(Demand::Stand(bytes)) if order(bytes).is_ok()), "{end}");
            }
        }
        for place in 4..frame.len() {
            let mut changed = frame.clone();
            changed[place] ^= 0xff;
            // Whatever it says now, reading it neither panics nor asks for endless memory.
            if let Ok(Demand::Stand(bytes) | Demand::Start(bytes)) = demand(&changed) {
                let _ = order(bytes);
            }
        }
        assert!(whole(&u32::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn events_arrive_as_they_were_sent() {
        let ended = Ended {
            id: 1,
            status: ExitStatus::from_raw(0x0300),
            why: Some(Why::OverMemory),
            max_rss_bytes: 2,
            user: Duration::from_nanos(3),
            system: Duration::from_nanos(4),
            started_ns: 5,
            ended_ns: 6,
            leftovers: 7,
            taken_over_by: Some(u64::MAX),
        };
        use Step::{Affinity, Cwd, Program, Spawn, Stderr, Stdin, Stdout};
        let failed = [Affinity, Cwd, Stdin, Stdout, Stderr, Program, Spawn]
            .map(|step| Event::CouldNotStart { id: 9, step, errno: 2, follows: None });
        let mut events = vec![
            Event::Started { id: 0, pid: 1, at_ns: 2, follows: Some(0) },
            Event::Ended(Ended { why: None, taken_over_by: None, ..ended.clone() }),
            Event::Ended(ended),
            Event::Bounced { id: 3 },
            Event::Dropped { id: 4 },
        ];
        events.extend(failed);
        for event in events {
            let mut out = Vec::new();
            put_event(&mut out, &event);
            assert_eq!(news(&out).unwrap(), News::Event(event));
        }
    }

    #[test]
    fn environments_arrive_and_bad_names_do_not() {
        let mut out = Vec::new();
        put_environment(&mut out, 8, [("A", "1"), ("B", "")]).unwrap();
        let length = out.len();
        let Ok(Demand::Environment { base: 8, entries }) = demand(&out) else { panic!("not block 8") };
        assert_eq!(entries, [c"A=1", c"B="]);
        for name in ["", "A=B", "A\0"] {
            assert!(put_environment(&mut out, 8, [(name, "1")]).is_err());
            assert_eq!(out.len(), length, "a part of a frame is left");
        }
    }

    #[test]
    fn kills_and_forgets_arrive() {
        let sent = Duration::from_millis(3);
        for reason in [Why::TimedOut, Why::OverMemory, Why::Cancelled] {
            let mut out = Vec::new();
            put_request(&mut out, &Request::Kill { id: 1, grace: sent, why: reason }).unwrap();
            let Ok(Demand::Kill { id: 1, grace, why }) = demand(&out) else { panic!("no kill of 1") };
            assert_eq!((grace, why), (sent, reason));
        }
        let mut out = Vec::new();
        put_request(&mut out, &Request::Lock { path: Path::new("/l") }).unwrap();
        assert!(matches!(demand(&out), Ok(Demand::Lock { path }) if path == c"/l"));
        out.clear();
        put_request(&mut out, &Request::Forget { base: 6 }).unwrap();
        assert!(matches!(demand(&out), Ok(Demand::Forget { base: 6 })));
    }
}
