//! How a process ended, as its task tells it.

use super::job::Job;
use super::process::Processes;
use crate::error::{How, JobFailure};
use crate::outputs::Which;
use crate::schedule::JobId;
use crate::task::{Exit, Usage};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;
use tarragon_supervisor::job::Table;
use tarragon_supervisor::{Ended, Step, Why};

/// Of a failed process's output so much is kept in its error.
const TAIL_BYTES_MAX: u64 = 2048;
const TAIL_LINES_MAX: usize = 10;

/// Why a process did not succeed, and what it used.
pub(super) struct NotDone {
    pub(super) how: How,
    pub(super) usage: Usage,
}

impl Processes {
    /// Reads what the supervisor tells of a process that has ended.
    pub(super) fn outcome(&mut self, id: JobId, job: &Job, ended: &Ended) -> Result<Exit, NotDone> {
        let usage = Usage {
            max_rss_bytes: ended.max_rss_bytes,
            user: ended.user,
            system: ended.system,
            wall: Duration::from_nanos(ended.ended_ns.saturating_sub(ended.started_ns)),
        };
        if let Some(began) = self.began.remove(&id) {
            job.run.note_process(job.node, began.at_ns, ended.ended_ns, began.lane);
        }
        let table = job.is_mpi().then(|| self.table(job)).flatten();
        let usage = table.as_ref().map_or(usage, |table| of_ranks(table, usage));
        let how = match (ended.why, ended.status.code()) {
            (Some(Why::TimedOut), _) => {
                How::TimedOut(job.task.extra().and_then(|e| e.limits.timeout).unwrap_or_default())
            }
            (Some(Why::OverMemory), _) => {
                let need = job.task.extra().and_then(|e| e.need.as_ref());
                How::OverMemory { limit: need.map_or(0, |need| need.memory) }
            }
            (Some(Why::Cancelled), _) => How::Cancelled,
            (None, code) if job.is_mpi() => match table {
                Some(_) if code == Some(0) => return Ok(Exit { code: 0, usage }),
                Some(table) => How::Job(Box::new(JobFailure::of(&table))),
                None => How::Lost,
            },
            (None, Some(code)) if code == 0 || job.task.command_of().accept.contains(&code) => {
                return Ok(Exit { code, usage });
            }
            (None, Some(code)) => How::Exited(code),
            (None, None) => How::Signal {
                signal: ended.status.signal().unwrap_or_default(),
                core: ended.status.core_dumped(),
            },
        };
        Err(NotDone { how, usage })
    }

    /// What became of a job's ranks, if its leader came to say so.
    fn table(&self, job: &Job) -> Option<Table> {
        let outputs = &job.run.plan.shared.outputs;
        Table::read(&outputs.job(job.output?)).ok()
    }

    /// What kept a process from starting.
    pub(super) fn could_not_start(&self, job: Option<&Job>, step: Step, errno: i32) -> How {
        let error = std::io::Error::from_raw_os_error(errno);
        let Some(job) = job else {
            return How::CouldNotStart { what: "program".into(), path: "?".into(), error };
        };
        let command = job.task.command_of();
        let outputs = &job.run.plan.shared.outputs;
        let output = |which| job.output.map_or_else(Default::default, |number| outputs.file(number, which));
        let (what, path) = match step {
            Step::Cwd => ("its directory", command.cwd.clone().unwrap_or_default()),
            Step::Stdin => ("its input", command.stdin.file().unwrap_or_default()),
            Step::Stdout => ("its output file", output(Which::Out)),
            Step::Stderr => ("its output file", output(Which::Err)),
            Step::Program => ("the program", command.program.clone()),
            Step::Affinity => ("binding it to its cpus,", command.program.clone()),
            Step::Spawn => ("a new process for", command.program.clone()),
        };
        How::CouldNotStart { what: what.into(), path, error }
    }

    /// The last lines of the job's standard error, or else of its standard output.
    pub(super) fn last_words(&self, job: &Job) -> String {
        let Some(number) = job.output else { return String::new() };
        let outputs = &job.run.plan.shared.outputs;
        if job.is_mpi() {
            let folder = outputs.job(number);
            let first = self.table(job).and_then(|table| table.failed);
            // Of the rank that failed; or else what the launcher has said.
            let of_rank =
                first.into_iter().flat_map(|rank| ["err", "out"].map(|end| format!("{rank}.{end}")));
            let names = of_rank.chain(["launcher".to_string()]);
            let texts = names.filter_map(|name| tail(&folder.join(name)).ok());
            return texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        }
        let read = |which| tail(&outputs.file(number, which)).unwrap_or_default();
        let text = read(Which::Err);
        if text.is_empty() { read(Which::Out) } else { text }
    }
}

/// What a job's ranks used together, and the largest of them.
fn of_ranks(table: &Table, leader: Usage) -> Usage {
    Usage {
        max_rss_bytes: table.ranks.iter().map(|end| end.max_rss_bytes).max().unwrap_or(0),
        user: table.ranks.iter().map(|end| end.user).sum(),
        system: table.ranks.iter().map(|end| end.system).sum(),
        wall: leader.wall,
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // A line whose beginning is cut off goes, unless it is all there is.
    let whole =
        text.split_once('\n').map(|(_, rest)| rest).filter(|rest| from > 0 && !rest.trim().is_empty());
    let whole = whole.unwrap_or(&text);
    let lines: Vec<&str> = whole.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES_MAX);
    Ok(lines[first..].join("\n").trim_end().to_string())
}
