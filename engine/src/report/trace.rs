//! A run as a trace that Perfetto and Chrome show.
//!
//! *Source:* "Trace Event Format", the JSON that ui.perfetto.dev and chrome://tracing read. Times are microseconds.

use super::json::write_string;
use super::record::{RunRecord, TaskRecord};
use std::io::{self, BufWriter, Write};

/// Runs with more edges are shown without arrows, which would hide everything else.
const ARROWS_MAX: usize = 10_000;

/// Writes the trace: a process per rank, a thread per lane, a slice per task that ran, and arrows along edges when
/// there are few.
///
/// Writes as it goes, through a buffer of its own, and flushes; needs no memory to speak of.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write(run: &RunRecord, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"machine\":")?;
    write_string(&mut out, &run.machine)?;
    write!(out, ",\"started_unix_ms\":{},\"tasks\":{}}},", run.started_unix_ms, run.tasks.len())?;
    writeln!(out, "\"traceEvents\":[")?;
    write_process(&mut out, 1, &run.name)?;
    for rank in 1..run.rank_ends.len() {
        writeln!(out, ",")?;
        write_process(&mut out, rank + 1, &format!("{}, rank {rank}", run.name))?;
    }
    for (lane, name) in run.lanes.iter().enumerate() {
        write_lane(&mut out, &Thread::of(run, lane as u32), name)?;
    }
    for (index, task) in run.tasks.iter().enumerate().filter(|(_, task)| task.ran()) {
        write_slice(&mut out, run, index, task)?;
    }
    if run.edges.len() <= ARROWS_MAX {
        for (id, (from, to)) in run.forward_edges().enumerate() {
            write_arrow(&mut out, run, id, (&run.tasks[from as usize], &run.tasks[to as usize]))?;
        }
    }
    writeln!(out, "\n]}}")?;
    out.flush()
}

fn write_process(out: &mut impl Write, pid: usize, name: &str) -> io::Result<()> {
    write!(out, "{{\"ph\":\"M\",\"pid\":{pid},\"tid\":0,")?;
    write!(out, "\"name\":\"process_name\",\"args\":{{\"name\":")?;
    write_string(out, name)?;
    write!(out, "}}}}")
}

/// Where the trace has a lane: ranks are its processes.
struct Thread {
    rank: usize,
    lane: u32,
}

impl Thread {
    fn of(run: &RunRecord, lane: u32) -> Self {
        Self { rank: run.rank_of(lane).unwrap_or(0), lane }
    }
}

impl std::fmt::Display for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"pid\":{},\"tid\":{}", self.rank + 1, self.lane)
    }
}

fn write_lane(out: &mut impl Write, thread: &Thread, name: &str) -> io::Result<()> {
    let lane = thread.lane;
    let head = format!(",\n{{\"ph\":\"M\",{thread},\"name\":");
    write!(out, "{head}\"thread_name\",\"args\":{{\"name\":")?;
    write_string(out, name)?;
    write!(out, "}}}}{head}\"thread_sort_index\",\"args\":{{\"sort_index\":{lane}}}}}")
}

fn write_slice(out: &mut impl Write, run: &RunRecord, index: usize, task: &TaskRecord) -> io::Result<()> {
    write!(out, ",\n{{\"ph\":\"X\",{},\"name\":", Thread::of(run, task.lane))?;
    write_string(out, &task.name)?;
    let (start, length) = (Microseconds(task.start_ns), Microseconds(task.duration_ns()));
    write!(out, ",\"cat\":\"{}\",\"ts\":{start},\"dur\":{length},", task.kind.word())?;
    write!(out, "\"args\":{{\"index\":{index},\"ending\":\"{}\"", task.ending.word())?;
    if let Some(rank) = run.rank_of(task.lane) {
        write!(out, ",\"rank\":{rank}")?;
    }
    if task.attempts > 1 {
        write!(out, ",\"attempts\":{}", task.attempts)?;
    }
    if task.cpu_ns > 0 {
        write!(out, ",\"cpu_us\":{}", Microseconds(task.cpu_ns))?;
    }
    if task.max_rss_bytes > 0 {
        write!(out, ",\"max_rss_bytes\":{}", task.max_rss_bytes)?;
    }
    if !task.detail.is_empty() {
        write!(out, ",\"detail\":")?;
        write_string(out, &task.detail)?;
    }
    write!(out, "}}}}")
}

/// An arrow from the end of one slice to the start of another. It must begin inside its slice, so a nanosecond before
/// the end.
fn write_arrow(
    out: &mut impl Write,
    run: &RunRecord,
    id: usize,
    (from, to): (&TaskRecord, &TaskRecord),
) -> io::Result<()> {
    if !from.ran() || !to.ran() {
        return Ok(());
    }
    let leave = Microseconds(from.start_ns.max(from.end_ns.saturating_sub(1)));
    let arrive = Microseconds(to.start_ns);
    let named = format!("\"cat\":\"edge\",\"name\":\"after\",\"id\":{id}");
    write!(out, ",\n{{\"ph\":\"s\",{named},{},\"ts\":{leave}}}", Thread::of(run, from.lane))?;
    write!(out, ",\n{{\"ph\":\"f\",\"bp\":\"e\",{named},{},\"ts\":{arrive}}}", Thread::of(run, to.lane))
}

/// Nanoseconds, shown as microseconds without loss.
struct Microseconds(u64);

impl std::fmt::Display for Microseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
