//! Values of a template, with what an import binds → terms, and everything that can be known now is found out now.

use super::plan::{Bound, Choice, Fixed, Placed, Plan, Planned, Touched};
use super::term::{Term, Unmade, selected};
use crate::mistake::Findings;
use crate::source::Span;
use crate::template::{Access, Callee, Executable, Expr, ExprKind, Model, NameId, TaskKind};
use crate::value::{Builtin, Format, Kind, Mismatch, TaskFunction, Value};
use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;
use tarragon_engine::Exit;

/// What an option needs to be, of a value.
type Read<T> = fn(&Value) -> Result<T, Mismatch>;

/// A value that an import makes: a default.
pub(super) fn of_import(expr: &Expr, model: &Model, values: &[Option<Value>]) -> Result<Value, Unmade> {
    let unbound = |id: NameId, span: Span| {
        let what = format!("`{}` has no value yet", model.names[id].text);
        Unmade::new(span, Mismatch(what))
    };
    let value = |id: NameId| values[id].clone().ok_or_else(|| unbound(id, expr.span));
    match &expr.kind {
        ExprKind::Constant(value) => Ok(value.clone()),
        ExprKind::Name(id) => value(*id),
        ExprKind::List(exprs) => {
            let values = exprs.iter().map(|expr| of_import(expr, model, values)).collect::<Result<_, _>>();
            values.map(Value::list)
        }
        ExprKind::Format(format, exprs) => {
            let values =
                exprs.iter().map(|expr| of_import(expr, model, values)).collect::<Result<Vec<_>, _>>()?;
            format.write(&values).map(Value::from).map_err(|why| Unmade::new(expr.span, why))
        }
        ExprKind::Mapping(entries) => {
            let entry =
                |(key, expr): &(Arc<str>, Expr)| Ok((Arc::clone(key), of_import(expr, model, values)?));
            entries.iter().map(entry).collect::<Result<_, _>>().map(Value::mapping)
        }
        ExprKind::Call(callee, exprs) => {
            let args =
                exprs.iter().map(|expr| of_import(expr, model, values)).collect::<Result<Vec<_>, _>>()?;
            match callee {
                Callee::Builtin(builtin) => builtin.call(&args).map_err(|why| Unmade::new(expr.span, why)),
                Callee::Name(id) => match &value(*id)?.0 {
                    Kind::Selector(selector) => selected(selector, &args, expr.span),
                    _ => Err(Unmade::new(expr.span, uncallable(&value(*id)?))),
                },
            }
        }
    }
}

fn uncallable(value: &Value) -> Mismatch {
    let cure = match &value.0 {
        Kind::Function(_) => "bind it as a selector to call it here",
        _ => "bind a selector to it",
    };
    Mismatch(format!("{} cannot be called; {cure}", value.kind()))
}

/// The type that tasks of a template are to have results of.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
}

/// What an import binds the names of a template to, and which argument of a call the others are.
pub(super) fn bound(model: &Model, values: Vec<Option<Value>>) -> Vec<Bound> {
    let call: Vec<NameId> = model.args.iter().copied().chain(model.kwargs.iter().map(|it| it.name)).collect();
    let bound = values.into_iter().enumerate().map(|(id, value)| match value {
        Some(value) => Bound::Import(value),
        None => Bound::Call(call.iter().position(|name| *name == id).unwrap_or_default()),
    });
    bound.collect()
}

/// A value over names, as a term.
pub(crate) fn term_of(expr: &Expr, names: &[Bound], texts: &[Arc<str>], findings: &mut Findings) -> Term {
    Resolver { texts, names, findings }.term(expr)
}

/// Everything of a template as terms.
pub(crate) fn resolve(
    model: &Arc<Model>,
    names: Vec<Bound>,
    wanted: Option<Wanted>,
    findings: &mut Findings,
) -> Plan {
    let texts: Vec<Arc<str>> = model.names.iter().map(|name| Arc::clone(&name.text)).collect();
    let mut resolver = Resolver { texts: &texts, names: &names, findings };
    let kind = resolver.kind(&model.kind);
    let executables: Vec<Planned> = model.executables.iter().map(|it| resolver.executable(it)).collect();
    let options = &model.options;
    let timeout = resolver.timeout(&options.timeout, options.timeout_span);
    let mut plan = Plan {
        model: Arc::clone(model),
        reads: model.reads.iter().map(|access| resolver.touched(access)).collect(),
        writes: model.writes.iter().map(|access| resolver.touched(access)).collect(),
        name: resolver.text(options.name.as_ref()),
        timeout: timeout.0,
        timeout_parts: timeout.1,
        stdout: resolver.path(options.stdout.as_ref()),
        stderr: resolver.path(options.stderr.as_ref()),
        cpus: resolver.option(options.cpus.as_ref(), count),
        gpus: resolver.option(options.gpus.as_ref(), number),
        memory: resolver.option(options.memory.as_ref(), bytes),
        label: resolver.text(options.label.as_ref()),
        retries: resolver.option(options.retries.as_ref(), whole),
        ranks_per_node: resolver.option(options.ranks_per_node.as_ref(), count),
        accept_exit: resolver.option(options.accept_exit.as_ref(), codes),
        fixed: None,
        kind,
        executables,
    };
    plan.fixed = resolver.check_kind(&plan, model.kind.span, wanted);
    plan
}

struct Resolver<'a> {
    /// What names are called.
    texts: &'a [Arc<str>],
    names: &'a [Bound],
    findings: &'a mut Findings,
}

impl Resolver<'_> {
    fn placed(&mut self, expr: &Expr) -> Placed {
        Placed { span: expr.span, term: self.term(expr) }
    }

    fn term(&mut self, expr: &Expr) -> Term {
        match &expr.kind {
            ExprKind::Constant(value) => Term::Constant(value.clone()),
            ExprKind::Name(id) => match &self.names[*id] {
                Bound::Import(value) => Term::Constant(value.clone()),
                Bound::Call(index) => Term::Arg(*index),
                Bound::Made(term) => term.clone(),
            },
            ExprKind::List(exprs) => {
                let terms: Vec<Term> = exprs.iter().map(|expr| self.term(expr)).collect();
                let constants: Option<Vec<Value>> =
                    terms.iter().map(|term| term.constant().cloned()).collect();
                constants.map_or(Term::List(terms), |values| Term::Constant(Value::list(values)))
            }
            ExprKind::Mapping(entries) => {
                Term::Mapping(entries.iter().map(|(key, expr)| (Arc::clone(key), self.term(expr))).collect())
            }
            ExprKind::Format(format, exprs) => {
                let terms = exprs.iter().map(|expr| self.term(expr)).collect();
                self.format(format.clone(), terms, expr.span)
            }
            ExprKind::Call(callee, exprs) => {
                let terms: Vec<Term> = exprs.iter().map(|expr| self.term(expr)).collect();
                match callee {
                    Callee::Builtin(builtin) => self.builtin(*builtin, terms, expr.span),
                    Callee::Name(id) => self.call(*id, terms, expr.span),
                }
            }
        }
    }

    /// A call of what a name is bound to.
    fn call(&mut self, id: NameId, terms: Vec<Term>, span: Span) -> Term {
        let value = match &self.names[id] {
            Bound::Call(index) => return Term::SelectArg(*index, terms, span),
            Bound::Made(_) => {
                let what = "what is called here is no selector, but a value";
                self.findings.wrong(span, what);
                return Term::Constant(Value::NULL);
            }
            Bound::Import(value) => value.clone(),
        };
        let Kind::Selector(selector) = &value.0 else {
            self.findings.wrong(span, uncallable(&value).0);
            return Term::Constant(Value::NULL);
        };
        if selector.count() != terms.len() {
            let (name, takes) = (&self.texts[id], selector.count());
            let what = format!("`{name}` takes {takes} values, and {} are given", terms.len());
            self.findings.wrong(span, what);
        }
        Term::Select(Arc::clone(selector), terms, span)
    }

    fn format(&mut self, format: Format, terms: Vec<Term>, span: Span) -> Term {
        let is_constant = terms.iter().all(|term| term.constant().is_some());
        let term = Term::Format(format, terms, span);
        if is_constant { self.done(term) } else { term }
    }

    fn builtin(&mut self, builtin: Builtin, terms: Vec<Term>, span: Span) -> Term {
        if builtin == Builtin::Format
            && let Some(text) = terms[0].constant()
        {
            return match text.text().and_then(|text| Format::parse(&text, &|_| None)) {
                Ok(format) => self.format(format, terms[1..].to_vec(), span),
                Err(why) => {
                    self.findings.wrong(span, why.0);
                    Term::Constant(Value::NULL)
                }
            };
        }
        let is_constant = builtin.is_pure() && terms.iter().all(|term| term.constant().is_some());
        let term = Term::Builtin(builtin, terms, span);
        if is_constant { self.done(term) } else { term }
    }

    /// A term that needs nothing of a call, as its value.
    fn done(&mut self, term: Term) -> Term {
        match term.value(&[]) {
            Ok(value) => Term::Constant(value),
            Err(Unmade { span, what, .. }) => {
                self.findings.wrong(span, what);
                Term::Constant(Value::NULL)
            }
        }
    }

    /// An option, read now if it is known now.
    fn option<T>(&mut self, expr: Option<&Expr>, read: Read<T>) -> Option<Choice<T>> {
        let placed = self.placed(expr?);
        let Some(value) = placed.term.constant() else { return Some(Choice::Made(placed)) };
        match read(value) {
            Ok(value) => Some(Choice::Fixed(value)),
            Err(why) => {
                self.findings.wrong(placed.span, why.0);
                None
            }
        }
    }

    /// A term that is to be text.
    fn text(&mut self, expr: Option<&Expr>) -> Option<Placed> {
        let mut placed = self.placed(expr?);
        if let Some(value) = placed.term.constant() {
            match value.text() {
                Ok(text) => placed.term = Term::Constant(Value::from(text)),
                Err(why) => self.findings.wrong(placed.span, why.0),
            }
        }
        Some(placed)
    }

    /// A term that is to be a path.
    fn path(&mut self, expr: Option<&Expr>) -> Option<Placed> {
        let mut placed = self.placed(expr?);
        if let Some(value) = placed.term.constant() {
            match value.path() {
                Ok(path) => placed.term = Term::Constant(Value::from(path)),
                Err(why) => self.findings.wrong(placed.span, why.0),
            }
        }
        Some(placed)
    }

    fn kind(&mut self, expr: &Expr) -> Choice<TaskKind> {
        self.option(Some(expr), task_kind).unwrap_or(Choice::Fixed(TaskKind::Process))
    }

    fn timeout(
        &mut self,
        units: &[(f64, Expr)],
        span: Option<Span>,
    ) -> (Option<Choice<Duration>>, Vec<(f64, Placed)>) {
        let mut parts = Vec::new();
        for (seconds, expr) in units {
            let placed = self.placed(expr);
            if let Some(Err(why)) = placed.term.constant().map(number) {
                self.findings.wrong(placed.span, why.0);
                return (None, Vec::new());
            }
            parts.push((*seconds, placed));
        }
        let Some(span) = span.filter(|_| !parts.is_empty()) else {
            return (None, Vec::new());
        };
        let known = parts.iter().map(|(unit, placed)| Some(unit * number(placed.term.constant()?).ok()?));
        match known.sum::<Option<f64>>() {
            None => (Some(Choice::Made(Placed { span, term: Term::Constant(Value::NULL) })), parts),
            Some(seconds) => match duration(seconds) {
                Ok(timeout) => (Some(Choice::Fixed(timeout)), Vec::new()),
                Err(why) => {
                    self.findings.wrong(span, why.0);
                    (None, Vec::new())
                }
            },
        }
    }

    fn executable(&mut self, executable: &Executable) -> Planned {
        let env = executable.env.as_ref().map(|expr| self.placed(expr));
        if let Some(placed) = &env
            && let Some(value) = placed.term.constant()
            && !matches!(value.0, Kind::Mapping(_) | Kind::Null)
        {
            self.findings
                .wrong(placed.span, format!("an environment is a mapping, and this is {}", value.kind()));
        }
        Planned {
            span: executable.span,
            target: self.placed(&executable.target),
            args: executable.args.iter().map(|expr| self.placed(expr)).collect(),
            kwargs: executable
                .kwargs
                .iter()
                .map(|(key, expr)| (Arc::clone(key), self.placed(expr)))
                .collect(),
            nprocs: self.option(executable.nprocs.as_ref(), count).unwrap_or(Choice::Fixed(1)),
            cwd: self.path(executable.cwd.as_ref()),
            env,
        }
    }

    fn touched(&mut self, access: &Access) -> Touched {
        match access {
            Access::Files(files) => {
                let mut placed: Vec<Placed> = files.iter().map(|expr| self.placed(expr)).collect();
                for file in &mut placed {
                    let fixed = file.term.constant().filter(|value| !matches!(value.0, Kind::List(_)));
                    match fixed.map(Value::path) {
                        Some(Ok(path)) => file.term = Term::Constant(Value::from(path)),
                        Some(Err(why)) => self.findings.wrong(file.span, why.0),
                        None => {}
                    }
                }
                Touched::Files(placed)
            }
            Access::Keys { dictionary, keys } => {
                let dictionary = self.placed(dictionary);
                if let Some(value) = dictionary.term.constant()
                    && !matches!(value.0, Kind::Dictionary(_))
                {
                    let what = format!("a dictionary is needed here, and this is {}", value.kind());
                    self.findings.wrong(dictionary.span, what);
                }
                Touched::Keys { dictionary, keys: keys.iter().map(|expr| self.placed(expr)).collect() }
            }
        }
    }

    /// Whether what is run can be run; a function that is known.
    fn check_kind(&mut self, plan: &Plan, span: Span, wanted: Option<Wanted>) -> Option<Fixed> {
        let Choice::Fixed(kind) = plan.kind else { return None };
        if kind != TaskKind::Job && plan.executables.len() > 1 {
            self.findings.wrong(plan.executables[1].span, "only a job has several executables");
        }
        let executable = plan.executables.first()?;
        if kind != TaskKind::Function {
            if wanted.is_some_and(|wanted| wanted.id != TypeId::of::<Exit>()) {
                let what = format!(
                    "the result of a {} is an `Exit`, and it is imported as another type",
                    kind.word()
                );
                self.findings.wrong(span, what);
            }
            for executable in &plan.executables {
                if let Some(value) = executable.target.term.constant()
                    && let Err(why) = value.path()
                {
                    self.findings.wrong(executable.target.span, format!("a program is a path: {why}"));
                }
            }
            return None;
        }
        match executable.target.term.constant().map(|value| &value.0) {
            None => None,
            Some(Kind::Function(function)) => {
                if let Some(wanted) = wanted.filter(|wanted| wanted.id != function.result()) {
                    let what = format!(
                        "the function returns {}, and is imported as one that returns {}",
                        function.result_name(),
                        wanted.name
                    );
                    self.findings.wrong(executable.target.span, what);
                }
                self.function(function, executable)
            }
            Some(_) => {
                let kind = executable.target.term.constant().map_or("", Value::kind);
                let what = format!("a task calls a function, and this name is bound to {kind}");
                self.findings.mend(executable.target.span, what, "bind `function(…)` to it");
                None
            }
        }
    }

    /// The arguments of a function that is known.
    fn function(&mut self, function: &Arc<TaskFunction>, executable: &Planned) -> Option<Fixed> {
        let ordered = match ordered(function, &executable.args, &executable.kwargs) {
            Ok(ordered) => ordered,
            Err(why) => {
                self.findings.wrong(executable.span, why.0);
                return None;
            }
        };
        let mut args: Vec<Placed> = ordered.into_iter().cloned().collect();
        for (index, arg) in args.iter_mut().enumerate() {
            let Some(value) = arg.term.constant() else { continue };
            match function.fix(index, value) {
                Ok(value) => arg.term = Term::Constant(value),
                Err(why) => self.findings.wrong(arg.span, format!("argument {}: {why}", index + 1)),
            }
        }
        let spans = args.iter().map(|arg| arg.span).collect();
        Some(Fixed { function: Arc::clone(function), args, spans })
    }
}

/// Arguments in the order of a function's parameters.
pub(super) fn ordered<'a, T>(
    function: &TaskFunction,
    args: &'a [T],
    kwargs: &'a [(Arc<str>, T)],
) -> Result<Vec<&'a T>, Mismatch> {
    let takes = function.count();
    let mut places: Vec<Option<&T>> = args.iter().map(Some).collect();
    if !kwargs.is_empty() && function.names().is_empty() {
        let cure = "name its parameters where it is bound: `function(…).parameters([…])`";
        return Err(Mismatch(format!("the parameters of `{}` have no names; {cure}", function.name())));
    }
    places.resize(places.len().max(takes), None);
    for (key, value) in kwargs {
        let index = function.names().iter().position(|name| **name == **key);
        let place = index.and_then(|index| places.get_mut(index));
        match place {
            None => return Err(Mismatch(format!("`{}` has no parameter `{key}`", function.name()))),
            Some(Some(_)) => return Err(Mismatch(format!("the parameter `{key}` is given twice"))),
            Some(place) => *place = Some(value),
        }
    }
    let given = places.iter().flatten().count();
    if given != takes || places.len() != takes {
        return Err(Mismatch(format!(
            "`{}` takes {takes} arguments, and {given} are given",
            function.name()
        )));
    }
    Ok(places.into_iter().flatten().collect())
}

pub(super) fn task_kind(value: &Value) -> Result<TaskKind, Mismatch> {
    let word = value.text()?;
    TaskKind::of(&word)
        .ok_or_else(|| Mismatch(format!("`{word}` is no type of task; it is function, process or job")))
}

pub(super) fn number(value: &Value) -> Result<f64, Mismatch> {
    let number = value.number().or_else(|| match &value.0 {
        Kind::Text(text) => Value::of_word(text).number(),
        _ => None,
    });
    number.ok_or_else(|| Mismatch(format!("a number is needed here, and this is {}", value.kind())))
}

pub(super) fn whole(value: &Value) -> Result<u32, Mismatch> {
    let number = number(value)?;
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    is_whole.then_some(number as u32).ok_or_else(|| {
        Mismatch(format!("a whole number that is not negative is needed here, and this is {number}"))
    })
}

pub(super) fn count(value: &Value) -> Result<u32, Mismatch> {
    whole(value).and_then(|count| {
        if count == 0 { Err(Mismatch("at least 1 is needed here".into())) } else { Ok(count) }
    })
}

pub(super) fn duration(seconds: f64) -> Result<Duration, Mismatch> {
    let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
    timeout.ok_or_else(|| Mismatch(format!("a timeout is more than 0 s, and this one is {seconds} s")))
}

/// Bytes: a number, or text with a unit, of 1000 (`GB`) or 1024 (`GiB`, `G`).
pub(super) fn bytes(value: &Value) -> Result<u64, Mismatch> {
    let refused = || {
        let what =
            format!("{} is no amount of memory", value.text().map_or("this".into(), |it| format!("`{it}`")));
        Mismatch(format!("{what}; write bytes, or a unit as in 512MiB or 4GiB"))
    };
    let text = value.text().map_err(|_| refused())?;
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), text[split..].trim().to_ascii_lowercase());
    let number: f64 = number.parse().map_err(|_| refused())?;
    let power = match unit.chars().next() {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return Err(refused()),
    };
    let base: f64 = match unit.get(1..).unwrap_or_default() {
        "" | "ib" | "i" => 1024.0,
        "b" => 1000.0,
        _ => return Err(refused()),
    };
    let bytes = number * base.powi(power);
    if (1.0..1.8e19).contains(&bytes) { Ok(bytes as u64) } else { Err(refused()) }
}

/// One exit code, or a list of them.
pub(super) fn codes(value: &Value) -> Result<Vec<i32>, Mismatch> {
    let one = |value: &Value| {
        let code = number(value)?;
        let is_code = code.fract() == 0.0 && (0.0..=255.0).contains(&code);
        is_code
            .then_some(code as i32)
            .ok_or_else(|| Mismatch(format!("an exit code is 0 to 255, and this is {code}")))
    };
    match &value.0 {
        Kind::List(values) => values.iter().map(one).collect(),
        _ => one(value).map(|code| vec![code]),
    }
}
