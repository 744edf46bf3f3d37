//! A job as a task: an MPI program of several ranks, or several executables under one launch, and what becomes of its
//! ranks. How it is launched is `launch`'s question, how its processes are watched `attend`'s.

use super::builder::Task;
use super::command::{Exit, Usage, Variables, decode_words, encode_words, program_from};
use super::output::{Portion, Stream, Which, read_so_far};
use super::words::{Word, quoted};
use crate::error::{Mistake, TaskError};
use crate::function::wire::{Decoder, Encoder, WireError};
use crate::schedule::JobNeed;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_supervisor::job::{RankEnd, Table};

/// What a job has beside what a process has.
#[derive(Default)]
pub(crate) struct JobSpec {
    /// Ranks of the first executable.
    pub(crate) ranks: u32,
    /// The others.
    pub(crate) more: Vec<Executable>,
    /// Words for the launcher.
    pub(crate) launcher_args: Vec<OsString>,
}

/// A further executable.
#[derive(Default)]
pub(crate) struct Executable {
    pub(crate) ranks: u32,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<Word>,
    pub(crate) env: Variables,
    pub(crate) cwd: Option<PathBuf>,
}

impl JobSpec {
    /// The whole job in one line, for people.
    pub(crate) fn line(&self, first: &str) -> String {
        let more = self.more.iter().map(|executable| {
            let words = executable.args.iter().map(Word::shown);
            let program = quoted(&executable.program.to_string_lossy());
            let line = std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ");
            format!(" : {} x {line}", executable.ranks)
        });
        format!("{} x {first}{}", self.ranks, more.collect::<String>())
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &Word> {
        self.more.iter().flat_map(|executable| {
            let env = executable.env.iter().filter_map(|(_, word)| word.as_ref());
            executable.args.iter().chain(env)
        })
    }

    pub(crate) fn words_mut(&mut self) -> impl Iterator<Item = &mut Word> {
        self.more.iter_mut().flat_map(|executable| {
            let env = executable.env.iter_mut().filter_map(|(_, word)| word.as_mut());
            executable.args.iter_mut().chain(env)
        })
    }

    pub(super) fn encode(&self, cwd: &Path, out: &mut Encoder) -> Result<(), WireError> {
        let launcher_args: Vec<Vec<u8>> =
            self.launcher_args.iter().cloned().map(OsString::into_vec).collect();
        out.value(&(self.ranks, launcher_args, self.more.len()))?;
        for executable in &self.more {
            let Executable { ranks, program, args, env, cwd: directory } = executable;
            let directory = cwd.join(directory.as_deref().unwrap_or(Path::new("")));
            let directory = directory.into_os_string().into_vec();
            out.value(&(ranks, program_from(program, cwd), directory, args.len(), env.len()))?;
            encode_words(args, env, out)?;
        }
        Ok(())
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (ranks, launcher_args, more) = from.value::<(u32, Vec<Vec<u8>>, usize)>()?;
        let launcher_args = launcher_args.into_iter().map(OsString::from_vec).collect();
        let mut spec = Self { ranks, launcher_args, more: Vec::new() };
        for _ in 0..more {
            let (ranks, program, cwd, args, env) = from.value::<(u32, Vec<u8>, Vec<u8>, usize, usize)>()?;
            let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
            let (program, cwd) = (path(program), Some(path(cwd)));
            let (args, env) = decode_words(args, env, from)?;
            spec.more.push(Executable { ranks, program, args, env, cwd });
        }
        Ok(spec)
    }
}

/// What became of one rank of a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRank {
    /// Its number.
    pub rank: u32,
    /// The host it ran on, by that one's own name; empty if it did not run.
    pub host: String,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Why it did not run, or did not come to an end that could be seen.
    pub why: Option<String>,
    /// It was made to end, because another rank had failed or the job was to end.
    pub was_ended: bool,
    /// What it used; the time from its start to its end is not measured.
    pub usage: Usage,
}

impl JobRank {
    pub(crate) fn of(rank: u32, end: &RankEnd) -> Self {
        let (max_rss_bytes, user, system) = (end.max_rss_bytes, end.user, end.system);
        let usage = Usage { max_rss_bytes, user, system, wall: Duration::ZERO };
        Self {
            rank,
            host: end.host.clone(),
            code: end.code(),
            signal: end.signal(),
            why: end.why.clone(),
            was_ended: end.was_ended,
            usage,
        }
    }

    /// What became of the ranks of a job with this folder.
    pub(crate) fn all(table: &Table) -> Vec<Self> {
        (0..).zip(&table.ranks).map(|(rank, end)| Self::of(rank, end)).collect()
    }
}

impl Task<Exit> {
    /// Adds an executable to a job: `ranks` further ranks, which follow the others in the job's one `MPI_COMM_WORLD`.
    /// Arguments, variables and a directory that are given from here on are its own.
    ///
    /// # Panics
    /// For a process that is no job.
    pub fn and(mut self, program: impl AsRef<Path>, ranks: u32) -> Self {
        let name = self.task().name();
        let program = program.as_ref().to_path_buf();
        let more = Executable { ranks, program, ..Executable::default() };
        self.spec().more.push(more);
        self.set(|extra| {
            let job = extra.need.as_mut().and_then(|need| need.job.as_mut());
            job.into_iter().for_each(|job| job.ranks = job.ranks.saturating_add(ranks));
            if ranks == 0 {
                extra.mistakes.push(bad_ranks(name));
            }
        });
        self
    }

    /// How many ranks of a job are on each host but the last; without it as many as have cpus there, on as few hosts as
    /// may be.
    ///
    /// # Panics
    /// For a process that is no job.
    pub fn ranks_per_node(mut self, ranks: u32) -> Self {
        let name = self.task().name();
        self.spec();
        self.set(|extra| {
            let job = extra.need.as_mut().and_then(|need| need.job.as_mut());
            job.into_iter().for_each(|job| job.per_host = ranks);
            if ranks == 0 {
                let (resource, amount) = ("ranks per node".into(), "0".into());
                extra.mistakes.push(Mistake::BadAmount { name, resource, amount });
            }
        });
        self
    }

    /// A word for the launcher's own command line, as `--mpi=pmi2` for `srun`.
    ///
    /// # Panics
    /// For a process that is no job.
    pub fn launcher_arg(mut self, arg: impl Into<OsString>) -> Self {
        self.spec().launcher_args.push(arg.into());
        self
    }

    pub(crate) fn make_job(mut self, ranks: u32) -> Self {
        let name = self.task().name();
        self.command().job = Some(Box::new(JobSpec { ranks, ..JobSpec::default() }));
        self.set(|extra| {
            extra.need.get_or_insert_default().job = Some(JobNeed { ranks, per_host: 0 });
            if ranks == 0 {
                extra.mistakes.push(bad_ranks(name));
            }
        });
        self
    }

    fn spec(&mut self) -> &mut JobSpec {
        self.command().job.as_mut().expect("a job: a task that `Batch::job` has made")
    }

    /// What became of each rank of a job, when it has ended, well or not. Nothing before that, and for processes that
    /// are no jobs.
    pub fn job_ranks(&self) -> Vec<JobRank> {
        let table = read_so_far(self.task(), Portion::Table).and_then(|bytes| Table::parse(&bytes));
        table.map_or_else(|_| Vec::new(), |table| JobRank::all(&table))
    }

    /// What a rank of a job writes to its standard output, without the other ranks' and as it is, while
    /// [`stdout`](Self::stdout) has all ranks' lines with `RANK: ` before each.
    pub fn rank_stdout(&self, rank: u32) -> RankStream {
        RankStream { stream: self.stdout(), rank, which: Which::Out }
    }

    /// The same for its standard error.
    pub fn rank_stderr(&self, rank: u32) -> RankStream {
        RankStream { stream: self.stderr(), rank, which: Which::Err }
    }
}

fn bad_ranks(name: String) -> Mistake {
    Mistake::BadAmount { name, resource: "ranks".into(), amount: "0".into() }
}

/// What one rank of a job writes.
#[derive(Clone, Debug)]
pub struct RankStream {
    stream: Stream,
    rank: u32,
    which: Which,
}

impl RankStream {
    /// The text that it wrote; waits until the job has ended.
    ///
    /// # Errors
    /// The job's own error if it failed or was skipped; that the text cannot be read.
    pub fn get(&self) -> Result<String, TaskError> {
        let task = self.stream.task();
        super::handle::wait_for_end(task)?;
        self.so_far().map_err(|error| TaskError::output(task, error))
    }

    /// What is there so far, whether or not the job has ended. Bytes that are no text come as `\u{FFFD}`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn so_far(&self) -> std::io::Result<String> {
        let bytes = read_so_far(self.stream.task(), Portion::OfRank(self.rank, self.which))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The file that it goes to, made when there is something; where and as long as for [`Stream::path`].
    pub fn path(&self) -> Option<PathBuf> {
        let task = self.stream.task();
        let portion = Portion::OfRank(self.rank, self.which);
        task.cohort()?.with_output(task.index(), |output| output.path_of(portion)).flatten()
    }
}
