//! A task as plain data → a task of a batch.

use super::error::CallError;
use super::plan::{Choice, Fixed, Plan, Touched};
use super::resolve::{bytes, count, number, whole};
use super::spec::{Datum, FunctionCall, Maker, Spec, at, each, environment, flag};
use super::term::{Made, Unmade};
use crate::mistake::Mistake;
use crate::source::{Source, Span};
use crate::template::TaskKind;
use crate::value::{Kind, Mismatch, Value, short_name};
use crate::workflow::ErasedTask;
use smallvec::SmallVec;
use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use tarragon_engine::{Batch, Exit, Task};
use tarragon_transport::Place;

/// How much of a label's resource a task holds: so little that the label limits nobody.
const LABEL_SHARE: f64 = 0.0001;

/// The task that a spec describes.
pub(super) fn make<R: 'static>(spec: &Spec, batch: &Batch) -> Result<Task<R>, CallError> {
    let task = match &spec.function {
        Some(FunctionCall { function, values, spans }) => {
            if !function.returns::<R>() {
                let (returns, wanted) = (function.result_name(), short_name(std::any::type_name::<R>()));
                let what = format!("the function returns {returns}, and {wanted} is asked for");
                return Err(wrong(spec, Mismatch(what)));
            }
            let task = function.task::<R>(batch, values);
            task.map_err(|(index, why)| wrong_argument(&spec.source, spans[index], index, &why))?
        }
        None => as_result(spec, programs(spec, batch).map_err(|why| wrong(spec, why))?)?,
    };
    Ok(finish(spec, task))
}

/// A task with all that a spec says of it beside what it runs.
pub(crate) fn finish<R>(spec: &Spec, mut task: Task<R>) -> Task<R> {
    for datum in &spec.reads {
        task = match datum {
            Datum::File(path) => task.reads(&**path),
            Datum::Key { place, .. } => task.reads(place),
        };
    }
    for datum in &spec.writes {
        task = match datum {
            Datum::File(path) => task.writes(&**path),
            Datum::Key { place, .. } => task.writes(place),
        };
    }
    options(spec, task)
}

/// About an argument that does not fit its parameter.
fn wrong_argument(source: &Arc<Source>, span: Span, index: usize, why: &Mismatch) -> CallError {
    let what = format!("argument {} of the function: {why}", index + 1);
    CallError::Value(Box::new(Mistake::at(source, span, what)))
}

fn wrong(spec: &Spec, why: Mismatch) -> CallError {
    CallError::Value(Box::new(Mistake::of(&spec.source, why.0)))
}

/// The task of a call, made at once: as [`Spec::make`] and [`make`] together, without a description between them.
pub(super) fn direct<R: 'static>(plan: &Plan, args: &[Value], batch: &Batch) -> Result<Task<R>, CallError> {
    let Choice::Fixed(kind) = plan.kind else { return make(&Spec::make(plan, args)?, batch) };
    let maker = Maker { plan, args };
    let told = |unmade: Unmade| at(plan.source(), unmade);
    let task = match &plan.fixed {
        Some(Fixed { function, args: terms, spans }) => {
            let mut values = SmallVec::<[Value; 4]>::new();
            for term in terms {
                values.push(maker.value(term).map_err(told)?);
            }
            let task = function.task::<R>(batch, &values);
            task.map_err(|(index, why)| wrong_argument(plan.source(), spans[index], index, &why))?
        }
        None if kind == TaskKind::Process => {
            let spec = maker.options(kind).map_err(told)?;
            as_result(&spec, process(&maker, batch).map_err(told)?)?
        }
        None => return make(&Spec::make(plan, args)?, batch),
    };
    let read = Declare { file: |task, path| task.reads(path), key: |task, place| task.reads(place) };
    let write = Declare { file: |task, path| task.writes(path), key: |task, place| task.writes(place) };
    let task = touch(&maker, task, &plan.reads, &read).map_err(told)?;
    let task = touch(&maker, task, &plan.writes, &write).map_err(told)?;
    limits(&maker, task).map_err(told)
}

/// The task with its name and all that limits it.
fn limits<R>(maker: &Maker<'_>, mut task: Task<R>) -> Result<Task<R>, Unmade> {
    let plan = maker.plan;
    if let Some(placed) = &plan.name {
        task = match placed.term.made(maker.args)? {
            Made::Text(text) => task.name(text),
            made => {
                let text = made.value().text().map_err(|why| Unmade::new(placed.span, why))?;
                task.name(&*text)
            }
        };
    }
    if let Some(timeout) = maker.timeout()? {
        task = task.timeout(timeout);
    }
    if let Some(cpus) = maker.choice(plan.cpus.as_ref(), count)? {
        task = task.cpus(cpus);
    }
    if let Some(gpus) = maker.choice(plan.gpus.as_ref(), number)? {
        task = task.gpus(gpus);
    }
    if let Some(memory) = maker.choice(plan.memory.as_ref(), bytes)? {
        task = task.memory(memory);
    }
    if let Some(label) = maker.as_text(plan.label.as_ref())? {
        task = task.resource(&label, LABEL_SHARE);
    }
    if let Some(retries) = maker.choice(plan.retries.as_ref(), whole)? {
        task = task.retries(retries);
    }
    Ok(task)
}

/// How a task is told of something that it reads, or of something that it writes.
struct Declare<R> {
    file: fn(Task<R>, &Path) -> Task<R>,
    key: fn(Task<R>, &Place) -> Task<R>,
}

/// Declares what a task reads, or what it writes.
fn touch<R>(
    maker: &Maker<'_>,
    task: Task<R>,
    touched: &[Touched],
    &Declare { file, key }: &Declare<R>,
) -> Result<Task<R>, Unmade> {
    let mut slot = Some(task);
    let mut declare = |declare: &dyn Fn(Task<R>) -> Task<R>| slot = slot.take().map(declare);
    for touched in touched {
        match touched {
            Touched::Files(files) => {
                for placed in files {
                    let made = placed.term.made(maker.args)?;
                    let value = match &made {
                        Made::There(value) => *value,
                        Made::New(value) => value,
                        Made::Text(text) => {
                            declare(&|task| file(task, Path::new(text)));
                            continue;
                        }
                    };
                    let each = each(value, &mut |value| match &value.0 {
                        Kind::Path(path) => {
                            declare(&|task| file(task, path));
                            Ok(())
                        }
                        _ => value.path().map(|path| declare(&|task| file(task, &path))),
                    });
                    each.map_err(|why| Unmade::new(placed.span, why))?;
                }
            }
            Touched::Keys { dictionary, keys } => {
                let value = dictionary.term.made(maker.args)?.value();
                let Kind::Dictionary(found) = &value.0 else {
                    let what = format!("a dictionary is needed here, and this is {}", value.kind());
                    return Err(Unmade::new(dictionary.span, Mismatch(what)));
                };
                for placed in keys {
                    let each = each(&placed.term.made(maker.args)?.value(), &mut |value| {
                        let place = found.place(value)?;
                        declare(&|task| key(task, &place));
                        Ok(())
                    });
                    each.map_err(|why| Unmade::new(placed.span, why))?;
                }
            }
        }
    }
    Ok(slot.expect("each declaration gives the task back"))
}

/// A process.
fn process(maker: &Maker<'_>, batch: &Batch) -> Result<Task<Exit>, Unmade> {
    let executable = maker.one()?;
    let path = maker.read(&executable.target, Value::path)?;
    let mut task = batch.process(&*path);
    for placed in &executable.args {
        task = match placed.term.made(maker.args)? {
            Made::Text(text) => task.arg(text),
            Made::There(value) => argument(task, value, placed.span)?,
            Made::New(value) => argument(task, &value, placed.span)?,
        };
    }
    let mut words = Vec::new();
    for (key, placed) in &executable.kwargs {
        maker.read(placed, |value| flag(key, value, &mut words))?;
    }
    for word in &words {
        task = word.give(task, None).map_err(|why| Unmade::new(executable.span, why))?;
    }
    if let Some(placed) = &executable.env {
        for (name, word) in maker.read(placed, environment)? {
            task = word.give(task, Some(&name)).map_err(|why| Unmade::new(placed.span, why))?;
        }
    }
    if let Some(cwd) = maker.as_path(executable.cwd.as_ref())? {
        task = task.cwd(&*cwd);
    }
    Ok(task)
}

/// Gives an argument to a process.
fn argument(task: Task<Exit>, value: &Value, span: Span) -> Result<Task<Exit>, Unmade> {
    match &value.0 {
        Kind::Text(text) => Ok(task.arg(&**text)),
        Kind::Int(number) => Ok(task.arg(*number)),
        Kind::Path(path) => Ok(task.arg(&**path)),
        _ => {
            let mut words = Vec::new();
            let told = |why| Unmade::new(span, why);
            value.words(&mut words).map_err(told)?;
            words.iter().try_fold(task, |task, word| word.give(task, None)).map_err(told)
        }
    }
}

/// A process as a task with results of type `R`, which has to be `Exit`.
fn as_result<R: 'static>(spec: &Spec, task: Task<Exit>) -> Result<Task<R>, CallError> {
    let mut slot = Some(programs_options(spec, task));
    let any: &mut dyn Any = &mut slot;
    let task = any.downcast_mut::<Option<Task<R>>>().and_then(Option::take);
    task.ok_or_else(|| {
        let what =
            format!("the result of a {} is an `Exit`, and another type is asked for", spec.kind.word());
        wrong(spec, Mismatch(what))
    })
}

fn options<R>(spec: &Spec, mut task: Task<R>) -> Task<R> {
    if let Some(name) = &spec.name {
        task = task.name(&**name);
    }
    if let Some(timeout) = spec.timeout {
        task = task.timeout(timeout);
    }
    if let Some(cpus) = spec.cpus {
        task = task.cpus(cpus);
    }
    if let Some(gpus) = spec.gpus {
        task = task.gpus(gpus);
    }
    if let Some(memory) = spec.memory {
        task = task.memory(memory);
    }
    if let Some(label) = &spec.label {
        task = task.resource(label, LABEL_SHARE);
    }
    if let Some(retries) = spec.retries {
        task = task.retries(retries);
    }
    task
}

/// A process or job.
fn programs(spec: &Spec, batch: &Batch) -> Result<Task<Exit>, Mismatch> {
    let first = &spec.programs[0];
    let mut task = match spec.kind {
        TaskKind::Job => batch.job(&*first.path, first.ranks),
        _ => batch.process(&*first.path),
    };
    for (index, program) in spec.programs.iter().enumerate() {
        if index > 0 {
            task = task.and(&*program.path, program.ranks);
        }
        for word in &program.args {
            task = word.give(task, None)?;
        }
        for (name, word) in &program.env {
            task = word.give(task, Some(name))?;
        }
        if let Some(cwd) = &program.cwd {
            task = task.cwd(&**cwd);
        }
    }
    Ok(task)
}

/// What only processes and jobs have.
fn programs_options(spec: &Spec, mut task: Task<Exit>) -> Task<Exit> {
    if let Some(ranks) = spec.ranks_per_node
        && spec.kind == TaskKind::Job
    {
        task = task.ranks_per_node(ranks);
    }
    for code in &spec.accept_exit {
        task = task.accept_exit(*code);
    }
    if let Some(path) = &spec.stdout {
        task = task.stdout_to(&**path);
    }
    if let Some(path) = &spec.stderr {
        task = task.stderr_to(&**path);
    }
    task
}

impl Spec {
    /// The task of a batch that it describes, not submitted.
    ///
    /// # Errors
    /// [`CallError::Value`] if its result is not of type `R`, or a value does not fit a parameter.
    pub fn task<R: 'static>(&self, batch: &Batch) -> Result<Task<R>, CallError> {
        make(self, batch)
    }

    /// As [`task`](Self::task), with a result of whichever type it has.
    ///
    /// # Errors
    /// [`CallError::Value`] if a value does not fit a parameter.
    pub fn any_task(&self, batch: &Batch) -> Result<Box<dyn ErasedTask>, CallError> {
        match &self.function {
            None => Ok(Box::new(self.task::<Exit>(batch)?)),
            Some(FunctionCall { function, values, spans }) => {
                let task = function.erased(batch, self, values);
                task.map_err(|(index, why)| wrong_argument(&self.source, spans[index], index, &why))
            }
        }
    }

    /// The function that it calls, by name.
    pub fn function(&self) -> Option<&'static str> {
        self.function.as_ref().map(|call| call.function.name())
    }
}
