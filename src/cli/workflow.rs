//! `tarragon run` and `tarragon check`: templates and workflow files (`tarragon_ptd`), with values from the command
//! line.
//!
//! # The way of a call
//! Calls and the gates between blocks are made in the order of the file. Up to [`LIST_MAX`] are compiled as one list,
//! so that all that is wrong is told before anything runs; more are submitted as they are made, so that memory does not
//! grow with their number. They are reported in their order, each when it and all before it have ended: its output is
//! copied to ours.
//!
//! # Ends
//! After `--max-failures` failures (one, if nothing is said) nothing more is started, and what runs goes on to its end.
//! The folder of the run has the journal: with `--resume` what is done and unchanged is not done again, also after a
//! `kill -9`. Without it the journal of the run before is set aside.

use super::ends::{INTERRUPTED, is_of_others, why};
use super::{Refusal, complain, print, time};
use crate::Progress;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tarragon_engine::{AnyTask, Batch, Status, TaskError, tasks};
use tarragon_ptd::workflow::{Call, Calls, ErasedTask, Options, Planned, Range, Workflow, load};
use tarragon_ptd::{Mistakes, Value};

/// The most calls that are one list; and the most of any workflow that are made and not yet reported.
const LIST_MAX: usize = 8192;
/// Calls that are submitted together, of more.
const WINDOW: usize = 1024;

/// A file, and values for its names.
#[derive(Debug, clap::Args)]
struct Given {
    /// A value for a name of the template, or of every step that has the name
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// What a name ranges over: a..b (without b), a,b,c, @file (its lines) or glob:PATTERN; all combinations of several
    #[arg(long = "for", value_name = "NAME=VALUES", value_parser = pair)]
    ranges: Vec<(String, String)>,
    /// Take the first values of all `--for` together, then the second ones
    #[arg(long)]
    zip: bool,
}

/// What to run, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The template or workflow file
    file: PathBuf,
    #[command(flatten)]
    given: Given,
    /// Commands at a time; as many as there are cpus when not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// End a command that takes longer, if its template says nothing: 90, 1.5s, 10m, 2h30m
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    timeout: Option<Duration>,
    /// Try a command that fails so many times more, if its template says nothing
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// After so many failures start no more; what runs goes on to its end
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    max_failures: u64,
    /// Run all that needs nothing of what failed
    #[arg(long, conflicts_with = "max_failures")]
    keep_going: bool,
    /// Where the journal of the run and the output of its commands lie
    #[arg(long, value_name = "DIR", default_value = ".tarragon")]
    run_dir: PathBuf,
    /// Do not run again what is done and unchanged
    #[arg(long)]
    resume: bool,
    /// Print the commands in order, and run nothing
    #[arg(long)]
    dry_run: bool,
}

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Templates and workflow files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    given: Given,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Given {
    fn options(&self) -> Result<Options, Refusal> {
        let mut options = Options { zip: self.zip, ..Options::new() };
        options.set = self.set.iter().map(|(name, word)| (name.clone(), Value::of_word(word))).collect();
        for (name, word) in &self.ranges {
            let range = Range::of_word(word);
            let range =
                range.map_err(|mistake| Refusal::Words(format!("--for {name}={word}: {}", mistake.what)))?;
            options.ranges.push((name.clone(), range));
        }
        Ok(options)
    }
}

/// All that is wrong, a line each.
fn refused(mistakes: &Mistakes) -> Refusal {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    Refusal::Words(lines.join("\ntarragon: "))
}

fn warn(workflow: &Workflow) {
    workflow.warnings().iter().for_each(|mistake| complain(&format!("warning: {mistake}")));
}

/// Tells what is wrong with files.
pub(super) fn check(check: &Check) -> Result<ExitCode, Refusal> {
    let options = check.given.options()?;
    let mut wrong = Vec::new();
    for file in &check.files {
        match load(file, &options) {
            Ok(workflow) => {
                warn(&workflow);
                let told = workflow.calls().filter_map(|planned| match planned {
                    Planned::Call(call) => call.spec().err(),
                    Planned::Gate(_) => None,
                });
                wrong.extend(told.map(|error| format!("{}: {error}", file.display())).next());
            }
            Err(mistakes) => wrong.extend(mistakes.iter().map(ToString::to_string)),
        }
    }
    if wrong.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Refusal::Words(wrong.join("\ntarragon: "))) }
}

/// Runs a file.
pub(super) fn run(run: &Run) -> Result<ExitCode, Refusal> {
    let workflow = load(&run.file, &run.given.options()?).map_err(|mistakes| refused(&mistakes))?;
    warn(&workflow);
    if run.dry_run {
        return show(&workflow);
    }
    let batch = batch(run)?;
    let mut running = Running::new(run, &batch, &workflow);
    let all = running.all();
    let is_read = running.is_read;
    let ended = running.tell();
    // What holds tasks goes before the batch does.
    drop(running);
    if all.is_err() || !is_read {
        batch.cancel();
    }
    let joined = batch.join().map_err(|error| Refusal::around("the end of the batch", error));
    all.and(joined).map(|()| ended)
}

fn show(workflow: &Workflow) -> Result<ExitCode, Refusal> {
    print(|out| {
        for planned in workflow.calls() {
            if let Planned::Call(call) = planned {
                let spec = call.spec().map_err(|error| Refusal::Words(error.to_string()))?;
                writeln!(out, "{}", spec.command()).map_err(Refusal::unwritten)?;
            }
        }
        Ok(())
    })
}

/// The batch, with its journal.
fn batch(run: &Run) -> Result<Batch, Refusal> {
    let journal = run.run_dir.join("journal");
    let place = |error| Refusal::Words(format!("--run-dir {}: {error}", run.run_dir.display()));
    fs::create_dir_all(&run.run_dir).map_err(place)?;
    if !run.resume {
        set_aside(&journal).map_err(place)?;
    }
    let mut builder = Batch::builder().journal(&journal).resume(run.resume);
    if let Some(jobs) = run.jobs {
        builder = builder.assume_cpus(jobs);
    }
    builder.build().map_err(|error| Refusal::around("the batch", error))
}

/// Sets the journal of the run before aside, with the output that lies beside it.
fn set_aside(journal: &Path) -> io::Result<()> {
    if !journal.try_exists()? {
        return Ok(());
    }
    let out = |journal: &Path| journal.with_extension("out");
    let before = journal.with_file_name("before");
    if out(&before).try_exists()? {
        fs::remove_dir_all(out(&before))?;
    }
    fs::rename(journal, &before)?;
    if out(journal).try_exists()? { fs::rename(out(journal), out(&before)) } else { Ok(()) }
}

/// A task that was made and not yet reported; of a gate nothing is told.
struct Held {
    task: Box<dyn ErasedTask>,
    number: u64,
    command: String,
    /// Its output and errors are not in files of the user's.
    is_shown: [bool; 2],
}

/// A workflow that runs.
struct Running<'w> {
    run: &'w Run,
    batch: &'w Batch,
    calls: Calls<'w>,
    held: VecDeque<Held>,
    /// Made and not yet submitted.
    fresh: usize,
    done: u64,
    failed: u64,
    /// Passed over, or cancelled.
    skipped: u64,
    is_stopped: bool,
    is_interrupted: bool,
    /// Somebody reads our output.
    is_read: bool,
}

impl<'w> Running<'w> {
    fn new(run: &'w Run, batch: &'w Batch, workflow: &'w Workflow) -> Self {
        Self {
            run,
            batch,
            calls: workflow.calls(),
            held: VecDeque::new(),
            fresh: 0,
            done: 0,
            failed: 0,
            skipped: 0,
            is_stopped: false,
            is_interrupted: false,
            is_read: true,
        }
    }

    fn all(&mut self) -> Result<(), Refusal> {
        let is_whole = self.make(LIST_MAX)?;
        let list: Vec<&dyn AnyTask> = self.held.iter().map(|held| as_any(&*held.task)).collect();
        if is_whole {
            let compiled =
                self.batch.compile(tasks![list]).map_err(|error| Refusal::Words(error.to_string()))?;
            compiled.start().map_err(|error| Refusal::around("the start of the list", error))?;
            let _shown = Progress::watch(&compiled);
            self.fresh = 0;
            return self.report_all();
        }
        drop(list);
        self.submit()?;
        loop {
            let Some(held) = self.held.pop_front() else { return Ok(()) };
            self.report(&held)?;
            if self.held.len() + WINDOW <= LIST_MAX && !self.is_stopped {
                self.make(WINDOW)?;
                self.submit()?;
            }
        }
    }

    fn report_all(&mut self) -> Result<(), Refusal> {
        while let Some(held) = self.held.pop_front() {
            self.report(&held)?;
        }
        Ok(())
    }

    /// Makes the next tasks; true if these are all that were left.
    fn make(&mut self, most: usize) -> Result<bool, Refusal> {
        for _ in 0..most {
            let Some(planned) = self.calls.next() else { return Ok(true) };
            let held = match planned {
                Planned::Call(call) => self.call(&call)?,
                Planned::Gate(gate) => Held {
                    task: Box::new(gate.task(self.batch)),
                    number: gate.number(),
                    command: String::new(),
                    is_shown: [false; 2],
                },
            };
            self.held.push_back(held);
            self.fresh += 1;
        }
        Ok(false)
    }

    fn call(&self, call: &Call<'_>) -> Result<Held, Refusal> {
        let wrong = |error: &dyn std::fmt::Display| Refusal::Words(error.to_string());
        let spec = call.spec().map_err(|error| wrong(&error))?;
        let spec = spec.or_timeout(self.run.timeout).or_retries(self.run.retries);
        let task = call.task_of(&spec, self.batch).map_err(|error| wrong(&error))?;
        let is_shown = [spec.stdout().is_none(), spec.stderr().is_none()];
        Ok(Held { task, number: call.number(), command: spec.command(), is_shown })
    }

    fn submit(&mut self) -> Result<(), Refusal> {
        let fresh = self.held.len() - self.fresh;
        let list: Vec<&dyn AnyTask> = self.held.iter().skip(fresh).map(|held| as_any(&*held.task)).collect();
        self.batch.submit(tasks![list]).map_err(|error| Refusal::Words(error.to_string()))?;
        self.fresh = 0;
        Ok(())
    }

    /// Waits for a task's end, and tells of it.
    fn report(&mut self, held: &Held) -> Result<(), Refusal> {
        let ended = held.task.wait();
        if held.command.is_empty() {
            return Ok(());
        }
        match &ended {
            Ok(()) => self.done += 1,
            Err(error) if is_of_others(error) => {
                self.skipped += 1;
                // If neither we stopped it nor a task before it failed, a signal did.
                if !self.is_stopped && error.kind() == tarragon_engine::ErrorKind::Cancelled {
                    (self.is_interrupted, self.is_stopped) = (true, true);
                }
                return Ok(());
            }
            Err(_) => self.failed += 1,
        }
        if held.is_shown[0] {
            self.copy(held.task.stdout().reader(), io::stdout().lock())?;
        }
        if held.is_shown[1] {
            self.copy(held.task.stderr().reader(), io::stderr().lock())?;
        }
        if let Err(error) = ended {
            self.fail(held, &error);
        }
        Ok(())
    }

    fn fail(&mut self, held: &Held, error: &TaskError) {
        complain(&format!(
            "task {} `{}` failed: {}: {}",
            held.number,
            error.task(),
            why(error),
            held.command
        ));
        if !self.run.keep_going && self.failed >= self.run.max_failures {
            self.stop();
        }
    }

    /// Starts no more; what runs goes on to its end.
    fn stop(&mut self) {
        self.is_stopped = true;
        let waiting = self.held.iter().filter(|held| !matches!(held.task.status(), Status::Running));
        waiting.for_each(|held| held.task.cancel());
    }

    fn copy(&mut self, from: io::Result<impl io::Read>, mut to: impl Write) -> Result<(), Refusal> {
        let copied = from.and_then(|mut from| io::copy(&mut from, &mut to)).and_then(|_| to.flush());
        match copied {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_read = false;
                self.stop();
                Ok(())
            }
            copied => copied.map_err(|error| Refusal::around("the output of a command", error)),
        }
    }

    /// Tells how it went.
    fn tell(&self) -> ExitCode {
        let Self { done, failed, skipped, .. } = self;
        if !self.is_read {
            return ExitCode::from(1);
        }
        if self.is_interrupted {
            complain(&format!(
                "interrupted: {done} done, {failed} failed, {skipped} not done; --resume goes on"
            ));
            return ExitCode::from(INTERRUPTED);
        }
        if *failed == 0 {
            return ExitCode::SUCCESS;
        }
        complain(&format!("{failed} failed, {done} done, {skipped} not done; --resume goes on"));
        ExitCode::from(1)
    }
}

fn as_any(task: &dyn ErasedTask) -> &dyn AnyTask {
    task
}
