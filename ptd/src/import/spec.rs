//! A task as plain data: what a call makes of a template's terms, before it is one of a batch.

use super::error::CallError;
use super::plan::{Choice, Placed, Plan, Planned, Touched};
use super::resolve::{bytes, codes, count, duration, number, ordered, task_kind, whole};
use super::term::Unmade;
use crate::mistake::Mistake;
use crate::source::{Source, Span};
use crate::template::TaskKind;
use crate::value::{Kind, Mismatch, TaskFunction, Value, Word};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tarragon_transport::Place;

/// A task as plain data.
#[derive(Clone)]
pub struct Spec {
    pub(crate) kind: TaskKind,
    pub(crate) source: Arc<Source>,
    pub(crate) function: Option<FunctionCall>,
    pub(crate) programs: Vec<Program>,
    pub(crate) reads: Vec<Datum>,
    pub(crate) writes: Vec<Datum>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stdout: Option<Arc<Path>>,
    pub(crate) stderr: Option<Arc<Path>>,
    pub(crate) cpus: Option<u32>,
    pub(crate) gpus: Option<f64>,
    pub(crate) memory: Option<u64>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) retries: Option<u32>,
    pub(crate) ranks_per_node: Option<u32>,
    pub(crate) accept_exit: Vec<i32>,
}

/// A function with its arguments, and where the template gives them.
#[derive(Clone)]
pub(crate) struct FunctionCall {
    pub(crate) function: Arc<TaskFunction>,
    pub(crate) values: Vec<Value>,
    pub(crate) spans: Arc<[Span]>,
}

/// One program of a task.
#[derive(Clone)]
pub struct Program {
    pub(crate) path: Arc<Path>,
    pub(crate) args: Vec<Word>,
    pub(crate) env: Vec<(Arc<str>, Word)>,
    pub(crate) cwd: Option<Arc<Path>>,
    pub(crate) ranks: u32,
}

/// Something that a task reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A file or directory.
    File(Arc<Path>),
    /// A key of a dictionary: what both are called, and which datum it is.
    Key {
        /// What dictionary and key are called.
        name: String,
        /// The datum.
        place: Place,
    },
}

impl Spec {
    /// What it runs.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Its name, if the template gives one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its programs: one of a process, one or several of a job, none of a function.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// What it reads.
    pub fn reads(&self) -> &[Datum] {
        &self.reads
    }

    /// What it writes, the files of its output among it.
    pub fn writes(&self) -> impl Iterator<Item = Datum> {
        let has_files = self.kind != TaskKind::Function;
        let outputs = [&self.stdout, &self.stderr].into_iter().flatten().filter(move |_| has_files);
        self.writes.iter().cloned().chain(outputs.map(|path| Datum::File(Arc::clone(path))))
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Cpus that it holds, of a job each rank.
    pub fn cpus(&self) -> Option<u32> {
        self.cpus
    }

    /// GPUs that it holds.
    pub fn gpus(&self) -> Option<f64> {
        self.gpus
    }

    /// Memory that it may use, in bytes.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// How often it is tried again.
    pub fn retries(&self) -> Option<u32> {
        self.retries
    }

    /// The file that gets its standard output.
    pub fn stdout(&self) -> Option<&Path> {
        self.stdout.as_deref()
    }

    /// The file that gets its standard error.
    pub fn stderr(&self) -> Option<&Path> {
        self.stderr.as_deref()
    }

    /// Sets how long one attempt may take, where the template does not say.
    pub fn or_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = self.timeout.or(timeout);
        self
    }

    /// Sets how often it is tried again, where the template does not say.
    pub fn or_retries(mut self, retries: Option<u32>) -> Self {
        self.retries = self.retries.or(retries);
        self
    }

    /// What it runs, as one line that a shell would take; of a job `ranks x program …` for each.
    pub fn command(&self) -> String {
        match &self.function {
            Some(FunctionCall { function, values, .. }) => {
                let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
                format!("{}({})", function.name(), values.join(", "))
            }
            None => {
                let lines = self.programs.iter().map(|program| match self.kind {
                    TaskKind::Job => format!("{} x {}", program.ranks, program.line()),
                    _ => program.line(),
                });
                lines.collect::<Vec<_>>().join(" : ")
            }
        }
    }

    /// What a call with these values makes.
    pub(crate) fn make(plan: &Plan, args: &[Value]) -> Result<Self, CallError> {
        Maker { plan, args }.spec().map_err(|unmade| at(plan.source(), unmade))
    }
}

/// Tells where a value could not be made.
pub(super) fn at(source: &Arc<Source>, unmade: Unmade) -> CallError {
    let mistake = Box::new(Mistake::at(source, unmade.span, unmade.what));
    match unmade.source {
        Some(source) => CallError::Selector { at: mistake, source },
        None => CallError::Value(mistake),
    }
}

impl Program {
    /// The program: a path, or a name that is looked for along `PATH`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its arguments; what another task gives is shown in its place.
    pub fn args(&self) -> impl Iterator<Item = String> {
        self.args.iter().map(|word| word.shown().to_string_lossy().into_owned())
    }

    /// What its environment has beside what is there, in the same way.
    pub fn env(&self) -> impl Iterator<Item = (String, String)> {
        let shown = |word: &Word| word.shown().to_string_lossy().into_owned();
        self.env.iter().map(move |(name, word)| (name.to_string(), shown(word)))
    }

    /// How many ranks of a job run it.
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Where it runs, if the template says.
    pub fn cwd(&self) -> Option<&Path> {
        self.cwd.as_deref()
    }

    /// Its command as one line that a shell would take; what another task gives is shown in its place.
    pub fn line(&self) -> String {
        let env =
            self.env.iter().map(|(name, word)| format!("{name}={}", quoted(&word.shown().to_string_lossy())));
        let words = self.args.iter().map(|word| quoted(&word.shown().to_string_lossy()));
        let program = quoted(&OsStr::new(&*self.path).to_string_lossy());
        let line = env.chain(std::iter::once(program)).chain(words).collect::<Vec<_>>().join(" ");
        match &self.cwd {
            Some(cwd) => format!("(cd {} && {line})", quoted(&cwd.to_string_lossy())),
            None => line,
        }
    }
}

/// Text as a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-+=./:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Makes one task.
pub(super) struct Maker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) args: &'a [Value],
}

impl Maker<'_> {
    fn spec(&self) -> Result<Spec, Unmade> {
        let plan = self.plan;
        let kind = self.choice(Some(&plan.kind), task_kind)?.expect("a template has a type");
        let (function, programs) = match (kind, &plan.fixed) {
            (TaskKind::Function, Some(fixed)) => {
                let values = fixed.args.iter().map(|arg| self.value(arg)).collect::<Result<_, _>>()?;
                let (function, spans) = (Arc::clone(&fixed.function), Arc::clone(&fixed.spans));
                (Some(FunctionCall { function, values, spans }), Vec::new())
            }
            (TaskKind::Function, None) => (Some(self.function()?), Vec::new()),
            _ => (None, self.programs(kind)?),
        };
        let (reads, writes) = (self.data(&plan.reads)?, self.data(&plan.writes)?);
        Ok(Spec { function, programs, reads, writes, ..self.options(kind)? })
    }

    /// The task without what it runs and what it reads and writes.
    pub(super) fn options(&self, kind: TaskKind) -> Result<Spec, Unmade> {
        let plan = self.plan;
        Ok(Spec {
            kind,
            source: Arc::clone(plan.source()),
            function: None,
            programs: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            name: self.as_text(plan.name.as_ref())?,
            timeout: self.timeout()?,
            stdout: self.as_path(plan.stdout.as_ref())?,
            stderr: self.as_path(plan.stderr.as_ref())?,
            cpus: self.choice(plan.cpus.as_ref(), count)?,
            gpus: self.choice(plan.gpus.as_ref(), number)?,
            memory: self.choice(plan.memory.as_ref(), bytes)?,
            label: self.as_text(plan.label.as_ref())?,
            retries: self.choice(plan.retries.as_ref(), whole)?,
            ranks_per_node: self.choice(plan.ranks_per_node.as_ref(), count)?,
            accept_exit: self.choice(plan.accept_exit.as_ref(), codes)?.unwrap_or_default(),
        })
    }

    pub(super) fn value(&self, placed: &Placed) -> Result<Value, Unmade> {
        placed.term.value(self.args)
    }

    /// A value, read as what its place needs.
    pub(super) fn read<T>(
        &self,
        placed: &Placed,
        read: impl FnOnce(&Value) -> Result<T, Mismatch>,
    ) -> Result<T, Unmade> {
        read(&self.value(placed)?).map_err(|why| Unmade::new(placed.span, why))
    }

    pub(super) fn choice<T: Clone>(
        &self,
        choice: Option<&Choice<T>>,
        read: fn(&Value) -> Result<T, Mismatch>,
    ) -> Result<Option<T>, Unmade> {
        match choice {
            None => Ok(None),
            Some(Choice::Fixed(value)) => Ok(Some(value.clone())),
            Some(Choice::Made(placed)) => self.read(placed, read).map(Some),
        }
    }

    pub(super) fn as_text(&self, placed: Option<&Placed>) -> Result<Option<Arc<str>>, Unmade> {
        placed.map(|placed| self.read(placed, Value::text)).transpose()
    }

    pub(super) fn as_path(&self, placed: Option<&Placed>) -> Result<Option<Arc<Path>>, Unmade> {
        placed.map(|placed| self.read(placed, Value::path)).transpose()
    }

    pub(super) fn timeout(&self) -> Result<Option<Duration>, Unmade> {
        let span = match &self.plan.timeout {
            None => return Ok(None),
            Some(Choice::Fixed(timeout)) => return Ok(Some(*timeout)),
            Some(Choice::Made(placed)) => placed.span,
        };
        let mut seconds = 0.0;
        for (unit, placed) in &self.plan.timeout_parts {
            seconds += unit * self.read(placed, number)?;
        }
        duration(seconds).map(Some).map_err(|why| Unmade::new(span, why))
    }

    /// A function that the call names, or that a `type` of the call asks for.
    fn function(&self) -> Result<FunctionCall, Unmade> {
        let executable = self.one()?;
        let target = self.value(&executable.target)?;
        let Kind::Function(function) = &target.0 else {
            let what = format!("a task calls a function, and this is {}", target.kind());
            return Err(Unmade::new(executable.target.span, Mismatch(what)));
        };
        let ordered = ordered(function, &executable.args, &executable.kwargs);
        let ordered = ordered.map_err(|why| Unmade::new(executable.span, why))?;
        let spans = ordered.iter().map(|arg| arg.span).collect();
        let values = ordered.into_iter().map(|arg| self.value(arg)).collect::<Result<_, _>>()?;
        Ok(FunctionCall { function: Arc::clone(function), values, spans })
    }

    /// The only executable.
    pub(super) fn one(&self) -> Result<&Planned, Unmade> {
        match &self.plan.executables[..] {
            [one] => Ok(one),
            [_, second, ..] => {
                Err(Unmade::new(second.span, Mismatch("only a job has several executables".into())))
            }
            [] => unreachable!("a template has an executable"),
        }
    }

    fn programs(&self, kind: TaskKind) -> Result<Vec<Program>, Unmade> {
        if kind == TaskKind::Process {
            return Ok(vec![self.program(self.one()?)?]);
        }
        self.plan.executables.iter().map(|executable| self.program(executable)).collect()
    }

    fn program(&self, executable: &Planned) -> Result<Program, Unmade> {
        let mut args = Vec::with_capacity(executable.args.len());
        for arg in &executable.args {
            self.read(arg, |value| value.words(&mut args))?;
        }
        for (key, placed) in &executable.kwargs {
            self.read(placed, |value| flag(key, value, &mut args))?;
        }
        let env = match &executable.env {
            None => Vec::new(),
            Some(placed) => self.read(placed, environment)?,
        };
        Ok(Program {
            path: self.read(&executable.target, Value::path)?,
            args,
            env,
            cwd: self.as_path(executable.cwd.as_ref())?,
            ranks: self.choice(Some(&executable.nprocs), count)?.unwrap_or(1),
        })
    }

    fn data(&self, touched: &[Touched]) -> Result<Vec<Datum>, Unmade> {
        let mut data = Vec::new();
        for touched in touched {
            match touched {
                Touched::Files(files) => {
                    for file in files {
                        self.read(file, |value| {
                            each(value, &mut |value| {
                                data.push(Datum::File(value.path()?));
                                Ok(())
                            })
                        })?;
                    }
                }
                Touched::Keys { dictionary, keys } => {
                    let value = self.value(dictionary)?;
                    let Kind::Dictionary(found) = &value.0 else {
                        let what = format!("a dictionary is needed here, and this is {}", value.kind());
                        return Err(Unmade::new(dictionary.span, Mismatch(what)));
                    };
                    for key in keys {
                        self.read(key, |value| {
                            each(value, &mut |value| {
                                let place = found.place(value)?;
                                data.push(Datum::Key { name: format!("{}[{value:?}]", found.name()), place });
                                Ok(())
                            })
                        })?;
                    }
                }
            }
        }
        Ok(data)
    }
}

/// Each element of a list, or the value itself.
pub(super) fn each(
    value: &Value,
    see: &mut dyn FnMut(&Value) -> Result<(), Mismatch>,
) -> Result<(), Mismatch> {
    match &value.0 {
        Kind::List(values) => values.iter().try_for_each(|value| each(value, see)),
        _ => see(value),
    }
}

/// An argument by name, as programs take it: `--name value`, `-n value` for a name of one letter; a bool is there or
/// not, and what is nothing is not.
pub(super) fn flag(name: &str, value: &Value, args: &mut Vec<Word>) -> Result<(), Mismatch> {
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    let flag = Word::Text(format!("{dashes}{name}").into());
    match value.plain() {
        Kind::Null | Kind::Bool(false) => {}
        Kind::Bool(true) => args.push(flag),
        _ => {
            args.push(flag);
            value.words(args)?;
        }
    }
    Ok(())
}

pub(super) fn environment(value: &Value) -> Result<Vec<(Arc<str>, Word)>, Mismatch> {
    match &value.0 {
        Kind::Null => Ok(Vec::new()),
        Kind::Mapping(entries) => {
            entries.iter().map(|(name, value)| Ok((Arc::clone(name), value.word()?))).collect()
        }
        _ => Err(Mismatch(format!("an environment is a mapping, and this is {}", value.kind()))),
    }
}
