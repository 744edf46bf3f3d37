//! A template that was found right: its names, and what is to be made of them at each call.

use crate::parse::Node;
use crate::source::{Source, Span};
use crate::value::{Builtin, Format, Value};
use std::sync::Arc;

/// When a name gets its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Import,
    Call,
}

/// A declared name.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: Arc<str>,
    pub(crate) span: Span,
    pub(crate) when: When,
}

/// The number of a declared name.
pub(crate) type NameId = usize;

/// A keyword, and the name that its value has in the template.
#[derive(Clone, Debug)]
pub(crate) struct Keyword {
    pub(crate) text: Arc<str>,
    pub(crate) name: NameId,
    pub(crate) default: Option<Expr>,
}

/// What a value is made from.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) span: Span,
    pub(crate) kind: ExprKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Constant(Value),
    Name(NameId),
    Call(Callee, Vec<Expr>),
    /// A text that is known, with the values for its places; those of the names in it stand last.
    Format(Format, Vec<Expr>),
    List(Vec<Expr>),
    Mapping(Vec<(Arc<str>, Expr)>),
}

/// What a call calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Callee {
    Builtin(Builtin),
    Name(NameId),
}

/// What a task runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskKind {
    /// A function of the program.
    Function,
    /// A program.
    Process,
    /// An MPI program of several ranks.
    Job,
}

impl TaskKind {
    /// By its word, in any case.
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "function" => Some(Self::Function),
            "process" => Some(Self::Process),
            "job" => Some(Self::Job),
            _ => None,
        }
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Process => "process",
            Self::Job => "job",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Executable {
    pub(crate) span: Span,
    pub(crate) target: Expr,
    pub(crate) args: Vec<Expr>,
    pub(crate) kwargs: Vec<(Arc<str>, Expr)>,
    pub(crate) nprocs: Option<Expr>,
    pub(crate) cwd: Option<Expr>,
    pub(crate) env: Option<Expr>,
}

/// One entry of `reads` or `writes`.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    Files(Vec<Expr>),
    Keys { dictionary: Expr, keys: Vec<Expr> },
}

/// Options of the task, each with the key it stands under.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) name: Option<Expr>,
    /// Seconds in the unit, and how many of it.
    pub(crate) timeout: Vec<(f64, Expr)>,
    pub(crate) timeout_span: Option<Span>,
    pub(crate) stdout: Option<Expr>,
    pub(crate) stderr: Option<Expr>,
    pub(crate) cpus: Option<Expr>,
    pub(crate) gpus: Option<Expr>,
    pub(crate) memory: Option<Expr>,
    pub(crate) label: Option<Expr>,
    pub(crate) retries: Option<Expr>,
    pub(crate) ranks_per_node: Option<Expr>,
    pub(crate) accept_exit: Option<Expr>,
}

/// A template that was found right.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) source: Arc<Source>,
    pub(crate) names: Vec<Name>,
    pub(crate) import_args: Vec<NameId>,
    /// Defaults come after what they use.
    pub(crate) import_kwargs: Vec<Keyword>,
    pub(crate) args: Vec<NameId>,
    pub(crate) kwargs: Vec<Keyword>,
    /// Constant text, or a name.
    pub(crate) kind: Expr,
    pub(crate) executables: Vec<Executable>,
    pub(crate) reads: Vec<Access>,
    pub(crate) writes: Vec<Access>,
    pub(crate) options: Options,
}

impl Expr {
    pub(crate) fn constant(node: &Node, value: Value) -> Self {
        Self { span: node.span, kind: ExprKind::Constant(value) }
    }
}

impl Model {
    /// Whether a name is a function or a selector: a target of a function, or called.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let is_function = matches!(&self.kind.kind, ExprKind::Constant(value)
            if value.text().is_ok_and(|word| TaskKind::of(&word) == Some(TaskKind::Function)));
        let is = |id: NameId| &*self.names[id].text == name;
        let is_target =
            |executable: &Executable| matches!(executable.target.kind, ExprKind::Name(id) if is(id));
        is_function && self.executables.iter().any(is_target) || self.exprs().any(|expr| expr.calls(&is))
    }

    /// Every value of a task.
    fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let options = &self.options;
        let options = [&options.name, &options.stdout, &options.stderr, &options.label].into_iter().flatten();
        let executables = self.executables.iter().flat_map(|it| {
            let kwargs = it.kwargs.iter().map(|(_, expr)| expr);
            it.args.iter().chain(kwargs).chain(&it.cwd).chain(&it.env).chain([&it.target])
        });
        let accesses = self.reads.iter().chain(&self.writes).flat_map(|access| match access {
            Access::Files(files) => files.iter(),
            Access::Keys { keys, .. } => keys.iter(),
        });
        let defaults = self.import_kwargs.iter().filter_map(|keyword| keyword.default.as_ref());
        options.chain(executables).chain(accesses).chain(defaults)
    }
}

impl Expr {
    /// Whether it calls such a name.
    fn calls(&self, is: &dyn Fn(NameId) -> bool) -> bool {
        match &self.kind {
            ExprKind::Constant(_) | ExprKind::Name(_) => false,
            ExprKind::Call(callee, args) => {
                matches!(callee, Callee::Name(id) if is(*id)) || args.iter().any(|arg| arg.calls(is))
            }
            ExprKind::List(exprs) | ExprKind::Format(_, exprs) => exprs.iter().any(|expr| expr.calls(is)),
            ExprKind::Mapping(entries) => entries.iter().any(|(_, expr)| expr.calls(is)),
        }
    }
}
