//! A part: what a guest runs of a list, as bytes. Written by `pack`, read by `unpack`.
//!
//! A head, then the tasks one after the other in order of nodes: where its code is, its arguments, which nodes it waits
//! for and who waits for it. Numbers are as short as they can be (postcard's), nodes told by their distance, so that an
//! empty task takes some 8 bytes and an edge one or two.

use crate::compile::split::Export;
use crate::compile::{NEEDS, Taken};
use crate::function::identity::{distance, is_worth_at};
use crate::function::wire::{Decoder, Encoder, WireError};
use crate::resume::Files;
use crate::schedule::Need;
use crate::task::extra::{Extra, Limits};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// What stands before the tasks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) setup: Setup,
    /// Where the code of tasks is, each once.
    pub(super) codes: Vec<i64>,
    /// What each import brings.
    pub(super) imports: Vec<Brings>,
    /// How many of the imports, the last ones, are from outside of the list.
    pub(super) outside: u32,
    pub(super) tasks: u32,
}

/// What an import brings beside that a task has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Brings {
    Nothing,
    /// What the task has written.
    Output,
    /// The value of a task whose code has this place in [`Head::codes`].
    Value(u32),
    /// Both.
    Both(u32),
}

/// The batch at a guest that runs parts of a batch at home.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Worker threads; 0: as many as the rank has cpus.
    pub(crate) workers: u32,
    /// Cpus that the user says are there; 0: those of the rank.
    pub(crate) assumed_cpus: u32,
    /// GPUs that the user says are there; 0: those of the rank.
    pub(crate) assumed_gpus: u32,
    /// Where the output of processes goes, and whether it stays.
    pub(crate) run_dir: Option<PathBuf>,
    pub(crate) keeps_output: bool,
    /// Processes with several cpus are not bound to them.
    pub(crate) is_unbound: bool,
    /// Notes when tasks run.
    pub(crate) measures: bool,
    /// Tasks run where they were placed.
    pub(crate) keeps_place: bool,
    /// It tells home of each task that succeeds, for a journal: the file that is locked while it may write.
    pub(crate) lock: Option<PathBuf>,
    /// What starts its jobs, if the user said so.
    pub(crate) launcher: Option<PathBuf>,
    /// Errors that it tells of as what they are (see `error::carried`).
    pub(crate) errors: Vec<i64>,
}

/// The home rank keeps a handle of it: its value stays.
pub(super) const WANTED: u8 = 1;
/// It has a name of its own.
pub(super) const NAMED: u8 = 2;
/// It has a priority.
pub(super) const PRIOR: u8 = 4;

/// It holds resources, or has limits.
pub(super) const LIMITED: u8 = 8;
/// It is attended to.
pub(super) const ATTENDED: u8 = 16;
/// Its arguments stay for another attempt.
pub(super) const KEEPS: u8 = 32;
/// It reads or writes files that are looked at when it has ended.
pub(super) const FILES: u8 = 64;
/// The user has chosen its rank.
pub(super) const FIXED: u8 = 128;

/// What a task holds while it runs, how long it may run and how often it is tried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Limited {
    pub(super) need: Option<Need>,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Option<Duration>,
    pub(super) retries: u32,
    pub(super) back_off: Duration,
    /// Where the function is that decides on a retry.
    pub(super) retry_if: Option<i64>,
    /// How many ranks run it at once.
    pub(super) gang: u32,
}

impl Limited {
    /// Those of a task; `None` if it has none.
    pub(crate) fn of(extra: &Extra) -> Option<Limited> {
        let limits = &extra.limits;
        let retry_if = limits.retry_if.map(|is_worth| distance(is_worth as *const ()));
        let has_limits = limits.timeout.is_some() || limits.grace.is_some() || limits.retries > 0;
        (has_limits || extra.need.is_some() || extra.gang > 1).then(|| Limited {
            need: extra.need.clone(),
            timeout: limits.timeout,
            grace: limits.grace,
            retries: limits.retries,
            back_off: limits.back_off,
            retry_if,
            gang: extra.gang,
        })
    }

    /// None but to hold what it needs.
    pub(super) fn of_need(need: Need) -> Limited {
        let (timeout, grace, retries, back_off, retry_if) = (None, None, 0, Duration::ZERO, None);
        Limited { need: Some(need), timeout, grace, retries, back_off, retry_if, gang: 1 }
    }

    /// Whether a function of the user's decides on retries.
    pub(crate) fn decides(&self) -> bool {
        self.retry_if.is_some()
    }

    /// Gives them to a task.
    pub(crate) fn give(self, extra: &mut Extra) -> Result<(), WireError> {
        let Limited { need, timeout, grace, retries, back_off, retry_if, gang } = self;
        let retry_if = retry_if.map(is_worth_at).transpose()?;
        extra.gang = gang;
        (extra.need, extra.limits) = (need, Limits { timeout, grace, retries, back_off, retry_if });
        Ok(())
    }
}

/// What stands before a task's arguments.
#[derive(Debug, Default)]
pub(super) struct TaskHead {
    /// Place in [`Head::codes`].
    pub(super) code: u32,
    /// Its place in the list that runs.
    pub(super) index: u32,
    pub(super) is_wanted: bool,
    pub(super) name: Option<String>,
    pub(super) priority: i32,
    pub(super) limited: Option<Limited>,
    pub(super) is_attended: bool,
    pub(super) keeps_arguments: bool,
    pub(super) is_fixed: bool,
    pub(super) files: Option<Files>,
}

impl TaskHead {
    pub(super) fn write(&self, out: &mut Encoder) -> Result<(), WireError> {
        let flag = |flag: u8, on: bool| if on { flag } else { 0 };
        let flags = flag(WANTED, self.is_wanted)
            | flag(NAMED, self.name.is_some())
            | flag(PRIOR, self.priority != 0)
            | flag(LIMITED, self.limited.is_some())
            | flag(ATTENDED, self.is_attended)
            | flag(KEEPS, self.keeps_arguments)
            | flag(FIXED, self.is_fixed)
            | flag(FILES, self.files.is_some());
        out.value(&(self.code, self.index, flags))?;
        if let Some(name) = &self.name {
            out.value(name)?;
        }
        if self.priority != 0 {
            out.value(&self.priority)?;
        }
        if let Some(limited) = &self.limited {
            out.value(limited)?;
        }
        if let Some(files) = &self.files {
            for paths in [&files.reads, &files.writes] {
                out.value(&(paths.len() as u32))?;
                paths.iter().try_for_each(|path| out.bytes_of(path.as_os_str().as_bytes()))?;
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut Decoder<'_>) -> Result<TaskHead, WireError> {
        let (code, index, flags) = from.value::<(u32, u32, u8)>()?;
        let name = if flags & NAMED != 0 { Some(from.value()?) } else { None };
        let priority = if flags & PRIOR != 0 { from.value()? } else { 0 };
        let limited = if flags & LIMITED != 0 { Some(from.value()?) } else { None };
        let mut paths = || -> Result<Vec<PathBuf>, WireError> {
            let n = from.value::<u32>()?;
            (0..n).map(|_| Ok(OsStr::from_bytes(from.bytes_of()?).into())).collect()
        };
        let files = if flags & FILES != 0 { Some(Files { reads: paths()?, writes: paths()? }) } else { None };
        Ok(TaskHead {
            code,
            index,
            is_wanted: flags & WANTED != 0,
            name,
            priority,
            limited,
            is_attended: flags & ATTENDED != 0,
            keeps_arguments: flags & KEEPS != 0,
            is_fixed: flags & FIXED != 0,
            files,
        })
    }
}

/// Writes which nodes `node` waits for, and who waits for it.
pub(super) fn write_edges(
    out: &mut Encoder,
    node: u32,
    sources: &[u32],
    exports: &[Export],
) -> Result<(), WireError> {
    out.value(&(sources.len() as u32))?;
    for source in sources {
        let distance = u64::from(node - (source & !NEEDS));
        out.value(&(distance << 1 | u64::from(source & NEEDS != 0)))?;
    }
    out.value(&(exports.len() as u32))?;
    for export in exports {
        let word = u64::from(export.import) << Taken::BITS | u64::from(export.taken.bits());
        out.value(&(export.rank, word))?;
    }
    Ok(())
}

/// Reads what [`write_edges`] wrote: adds the nodes that `node` waits for, and returns who waits for it.
pub(super) fn read_edges(
    from: &mut Decoder<'_>,
    node: u32,
    sources: &mut Vec<u32>,
) -> Result<Vec<Export>, WireError> {
    for _ in 0..from.value::<u32>()? {
        let word = from.value::<u64>()?;
        let source = u64::from(node).checked_sub(word >> 1).filter(|source| *source < u64::from(node));
        let source = source.ok_or(WireError::Malformed("a task waits for a later one"))? as u32;
        sources.push(source | if word & 1 != 0 { NEEDS } else { 0 });
    }
    let export = |(rank, word): (u16, u64)| {
        let (import, taken) = ((word >> Taken::BITS) as u32, Taken::of_bits(word as u8));
        Export { rank, import, taken }
    };
    (0..from.value::<u32>()?).map(|_| from.value().map(export)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_edges_come_back() {
        let name = Some("n".into());
        let files = Files { reads: vec!["/a".into(), OsStr::from_bytes(&[0xFF]).into()], writes: Vec::new() };
        let head =
            TaskHead { code: 3, index: 70_000, is_wanted: true, name, priority: -4, ..TaskHead::default() };
        let head = TaskHead { files: Some(files), ..head };
        let exports = [
            Export { rank: 9, import: 1 << 20, taken: Taken::VALUE.and(Taken::ERR) },
            Export { rank: 0, import: 0, taken: Taken::NOTHING },
        ];
        let mut out = Encoder::default();
        head.write(&mut out).expect("written");
        write_edges(&mut out, 100, &[99 | NEEDS, 0], &exports).expect("written");
        let bytes = out.take();
        let mut from = Decoder::new(&bytes);
        let back = TaskHead::read(&mut from).expect("read");
        assert_eq!((back.code, back.index, back.is_wanted), (3, 70_000, true));
        assert_eq!((back.name.as_deref(), back.priority), (Some("n"), -4));
        let files = back.files.expect("it has files");
        assert_eq!(files.reads, [OsStr::new("/a"), OsStr::from_bytes(&[0xFF])]);
        assert!(files.writes.is_empty());
        let mut sources = Vec::new();
        let all = read_edges(&mut from, 100, &mut sources).expect("read");
        assert_eq!((sources, all), (vec![99 | NEEDS, 0], exports.to_vec()));
        assert!(from.rest().is_empty());
    }

    #[test]
    fn an_edge_from_a_later_node_is_refused() {
        for distance in [0u64, 101] {
            let mut out = Encoder::default();
            out.value(&1u32).and_then(|()| out.value(&(distance << 1))).expect("written");
            let bytes = out.take();
            let refused = read_edges(&mut Decoder::new(&bytes), 100, &mut Vec::new());
            assert!(matches!(refused, Err(WireError::Malformed(_))), "{refused:?}");
        }
    }

    /// The bound of what goes over the wire: 32 bytes per task and 4 per edge.
    #[test]
    fn an_empty_task_and_its_edges_are_short() {
        let mut out = Encoder::default();
        let head = TaskHead { code: 0, index: 999_999, is_wanted: true, ..TaskHead::default() };
        head.write(&mut out).expect("written");
        let sources: Vec<u32> = (0..8).map(|i| 999_000 + i).collect();
        let exports = [Export { rank: 63, import: 1000, taken: Taken::VALUE }; 8];
        write_edges(&mut out, 999_999, &sources, &exports).expect("written");
        let bytes = out.take().len();
        assert!(bytes <= 32 + 4 * 16, "{bytes} bytes");
    }
}
