//! `tarragon each`: one command line, run for each row of parameters, as many at a time as there are cpus.
//!
//! # The way of a row
//! Rows are made, compiled and started in *windows*, so that memory does not grow with their number: the next window
//! starts when half of the newest one has ended, as long as no more than [`HELD_MAX`] rows wait to be reported. Rows
//! are reported in their order, each when it and all before it have ended: its output is copied to ours, it is logged,
//! and its files go, or become the user's (`--results`).
//!
//! # Ends
//! A command that fails fails alone. After `--max-failures` of them what runs is ended and no more is started. If
//! nobody reads our output any more, the same. So does SIGINT or SIGTERM, which the engine takes; a second one ends us
//! at once.

use super::ends::{INTERRUPTED, is_of_others, why};
use super::line::{Filled, Line};
use super::log::{Ended, Log};
use super::rows::{Next, Rows, Variable};
use super::{Refusal, complain, print, time};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tarragon_engine::{Batch, Compiled, ErrorKind, Exit, Status, Task, TaskError};
use tempfile::TempDir;

/// Rows that are compiled and started together.
const WINDOW: usize = 4096;
/// The most rows that are started and not yet reported: one that takes long holds back those behind it.
const HELD_MAX: u64 = 16 * WINDOW as u64;
/// How long the next row is waited for before it is looked whether more can be started.
const TURN: Duration = Duration::from_millis(20);
/// How long rows are let gather: to wake for each one costs quick commands a tenth of their rate.
const GATHER: Duration = Duration::from_millis(2);
/// Rows that are reported between two such looks.
const BETWEEN_LOOKS: u64 = 256;

/// What the user asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Each {
    /// The command line: `{name}` is a value, `{}` the only one, `{#}` the number of the row
    #[arg(required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// A variable's values: a..b (without b), a,b,c, @file (its lines) or glob:PATTERN; all combinations of several
    #[arg(long = "for", value_name = "NAME=VALUES", value_parser = Variable::parse)]
    variables: Vec<Variable>,
    /// Take the first values of all variables together, then the second ones
    #[arg(long)]
    zip: bool,
    /// Commands at a time; as many as there are cpus when not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// End a command that takes longer: 90, 1.5s, 10m, 2h30m
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    timeout: Option<Duration>,
    /// Try a command that fails so many times more
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// After so many failures end what runs and start no more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_failures: Option<u64>,
    /// Keep the output of row N in DIR/N.out and DIR/N.err, and do not print it
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Write a line for each command: when, how long, exit code, as GNU parallel's
    #[arg(long, value_name = "FILE")]
    joblog: Option<PathBuf>,
    /// Print the commands, and run nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Without --for, each line of standard input is a row.

Examples:
  tarragon each 'gzip -k {f}' --for 'f=glob:*.dat'
  tarragon each './solve --n {n} --seed {s} > out.{n}.{s}' --for n=10,100,1000 --for s=0..20
  find . -name '*.png' | tarragon each 'convert {} {}.webp' -j 4";

/// Runs it.
pub(super) fn run(each: &Each) -> Result<ExitCode, Refusal> {
    let names: Vec<&str> = each.variables.iter().map(|it| it.name.as_str()).collect();
    let line = Line::parse(&each.command.join(" "), &names, std::env::var_os("PATH").as_deref())?;
    if names.is_empty() && io::stdin().is_terminal() {
        complain("reads rows from the terminal: a line each, Ctrl-D after the last one; or give --for");
    }
    let mut rows = Rows::new(each.variables.clone(), each.zip, BufReader::new(io::stdin()))?;
    if each.dry_run {
        return show(&line, &mut rows);
    }
    let mut run = Run::new(each, line, rows)?;
    let all = run.all();
    if all.is_err() || run.is_stopped {
        run.batch.cancel();
    }
    drop(run.windows);
    run.batch.join().map_err(|error| Refusal::around("the end of the batch", error))?;
    all?;
    let (failed, skipped) = (run.failed, run.skipped);
    let ended = run.reported - skipped;
    if run.is_unread {
        return Ok(ExitCode::from(1));
    }
    if run.is_interrupted {
        complain(&format!(
            "interrupted: {ended} commands have ended, of which {failed} failed; {skipped} have not"
        ));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let rest =
        if skipped > 0 { format!("; {skipped} more were not run to their end") } else { String::new() };
    complain(&format!("{failed} of {ended} commands failed{rest}"));
    Ok(ExitCode::from(1))
}

fn show(line: &Line, rows: &mut Rows) -> Result<ExitCode, Refusal> {
    print(|out| {
        let mut number = 0;
        while let Next::Row(row) = rows.next(true)? {
            number += 1;
            writeln!(out, "{}", line.fill(&row, number).shown).map_err(Refusal::unwritten)?;
        }
        Ok(())
    })
}

/// A row that is started and not yet reported.
struct Row {
    number: u64,
    task: Task<Exit>,
    shown: String,
}

/// Rows that were started together.
struct Window {
    compiled: Compiled,
    rows: VecDeque<Row>,
}

struct Run<'a> {
    each: &'a Each,
    line: Line,
    rows: Rows,
    batch: Batch,
    log: Log,
    /// Where output lies that is not to stay.
    _folder: TempDir,
    windows: VecDeque<Window>,
    made: u64,
    reported: u64,
    failed: u64,
    /// Rows that were cancelled.
    skipped: u64,
    /// No more rows are started.
    is_stopped: bool,
    /// Nobody reads our output any more.
    is_unread: bool,
    /// A signal came.
    is_interrupted: bool,
    is_exhausted: bool,
}

impl<'a> Run<'a> {
    fn new(each: &'a Each, line: Line, rows: Rows) -> Result<Self, Refusal> {
        let log = Log::create(each.joblog.as_deref())?;
        let mut builder = Batch::builder().alone().background(false);
        let folder = match &each.results {
            None => tempfile::tempdir().map_err(|error| Refusal::around("a folder for output", error))?,
            Some(folder) => {
                // From where files can be moved.
                let made = fs::create_dir_all(folder).and_then(|()| tempfile::tempdir_in(folder));
                made.map_err(|error| Refusal::Words(format!("--results {}: {error}", folder.display())))?
            }
        };
        builder = builder.run_dir(folder.path());
        if let Some(jobs) = each.jobs {
            builder = builder.assume_cpus(jobs);
        }
        let batch = builder.build().map_err(|error| Refusal::around("the batch", error))?;
        Ok(Self {
            each,
            line,
            rows,
            batch,
            log,
            _folder: folder,
            windows: VecDeque::new(),
            made: 0,
            reported: 0,
            failed: 0,
            skipped: 0,
            is_stopped: false,
            is_unread: false,
            is_interrupted: false,
            is_exhausted: false,
        })
    }

    /// Until no row is left.
    fn all(&mut self) -> Result<(), Refusal> {
        loop {
            self.start_more()?;
            let next_look = self.reported + BETWEEN_LOOKS;
            while self.reported < next_look {
                let Some(window) = self.windows.front() else { break };
                let Some(row) = window.rows.front() else {
                    self.windows.pop_front();
                    continue;
                };
                if matches!(row.task.status(), Status::Waiting | Status::Running) {
                    thread::sleep(GATHER);
                }
                match row.task.result().get_timeout(TURN) {
                    Err(error) if error.kind() == ErrorKind::TimedOut => break,
                    ended => self.report_first(ended)?,
                }
            }
            if self.windows.is_empty() && (self.is_exhausted || self.is_stopped) {
                return Ok(());
            }
        }
    }

    /// Rows that are made and not yet reported.
    fn held(&self) -> u64 {
        self.made - self.reported
    }

    /// Starts the next window, if it is time.
    fn start_more(&mut self) -> Result<(), Refusal> {
        let is_busy = |window: &Window| 2 * window.compiled.progress().ended() < window.compiled.len();
        let is_full = self.held() >= HELD_MAX || self.windows.back().is_some_and(is_busy);
        if self.is_exhausted || self.is_stopped || is_full {
            return Ok(());
        }
        let mut rows = VecDeque::new();
        while rows.len() < WINDOW {
            match self.rows.next(self.held() == 0)? {
                Next::Row(row) => {
                    self.made += 1;
                    let filled = self.line.fill(&row, self.made);
                    rows.push_back(self.row(filled));
                }
                Next::NotYet => break,
                Next::End => {
                    self.is_exhausted = true;
                    break;
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let tasks: Vec<&Task<Exit>> = rows.iter().map(|row| &row.task).collect();
        let compiled = self.batch.compile(&tasks[..]);
        let compiled = compiled.map_err(|error| Refusal::Words(error.to_string()))?;
        compiled.start().map_err(|error| Refusal::around("the start of commands", error))?;
        self.windows.push_back(Window { compiled, rows });
        Ok(())
    }

    fn row(&self, filled: Filled) -> Row {
        let Filled { program, args, shown } = filled;
        let mut task = self.batch.process(program).args(args).name(format!("row {}", self.made));
        if let Some(timeout) = self.each.timeout {
            task = task.timeout(timeout);
        }
        Row { number: self.made, task: task.retries(self.each.retries), shown }
    }

    /// Reports the first row that is held, which has ended.
    fn report_first(&mut self, ended: Result<Exit, TaskError>) -> Result<(), Refusal> {
        let window = self.windows.front_mut().and_then(|window| window.rows.pop_front());
        let Some(row) = window else { return Ok(()) };
        self.reported += 1;
        let (code, signal, usage) = match &ended {
            Ok(exit) => (exit.code, 0, Some(exit.usage)),
            Err(error) if is_of_others(error) => {
                // If we did not stop them, a signal did.
                self.is_interrupted |= !self.is_stopped;
                self.is_stopped = true;
                self.skipped += 1;
                return Ok(());
            }
            Err(error) => {
                (error.exit_code().unwrap_or(-1), error.signal().map_or(0, |it| it.0), error.usage())
            }
        };
        let (out, err) = (row.task.stdout().path(), row.task.stderr().path());
        let began = out.as_deref().and_then(began);
        let wrote = self.hand_on(&row, out.as_deref(), "out", io::stdout().lock())?;
        self.hand_on(&row, err.as_deref(), "err", io::stderr().lock())?;
        let took = usage.map_or(Duration::ZERO, |it| it.wall);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.log.add(&Ended {
            number: row.number,
            began: began.unwrap_or_else(|| now().saturating_sub(took)),
            took,
            wrote,
            code,
            signal,
            command: &row.shown,
        })?;
        if let Err(error) = ended {
            self.fail(&row, &error);
        }
        Ok(())
    }

    fn fail(&mut self, row: &Row, error: &TaskError) {
        self.failed += 1;
        let why = why(error);
        complain(&format!("row {} failed: {why}: {}", row.number, row.shown));
        if self.each.max_failures.is_some_and(|max| self.failed >= max) && !self.is_stopped {
            self.stop();
        }
    }

    /// What runs is ended, and no more is started.
    fn stop(&mut self) {
        self.is_stopped = true;
        self.batch.cancel();
    }

    /// Copies a row's output to ours and removes it, or gives it its name among the results; its length.
    fn hand_on(
        &mut self,
        row: &Row,
        path: Option<&Path>,
        end: &str,
        mut to: impl Write,
    ) -> Result<u64, Refusal> {
        let Some(path) = path else { return Ok(0) };
        let length = fs::metadata(path).map_or(0, |meta| meta.len());
        if let Some(folder) = &self.each.results {
            let name = folder.join(format!("{}.{end}", row.number));
            let moved = fs::rename(path, &name);
            moved.map_err(|error| Refusal::around(name.display().to_string(), error))?;
            return Ok(length);
        }
        if length > 0 && !self.is_unread {
            let copied = File::open(path).and_then(|mut file| {
                io::copy(&mut file, &mut to)?;
                to.flush()
            });
            match copied {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.is_unread = true;
                    self.stop();
                }
                copied => copied.map_err(|error| Refusal::around("the output of a command", error))?,
            }
        }
        // If it stays it goes with its folder.
        let _stays = fs::remove_file(path);
        Ok(length)
    }
}

/// When a command began, since 1970: when the file of its output was made, if the file system knows.
fn began(path: &Path) -> Option<Duration> {
    fs::metadata(path).and_then(|meta| meta.created()).ok()?.duration_since(UNIX_EPOCH).ok()
}
