//! What is left to do for a task at a call: the terms of all its parts.

use super::term::Term;
use crate::source::{Source, Span};
use crate::template::{Model, TaskKind};
use crate::value::{TaskFunction, Value};
use std::sync::Arc;
use std::time::Duration;

/// Where the value of a name comes from.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    Import(Value),
    /// An argument of the call, by its number.
    Call(usize),
    /// Made from arguments of the call.
    Made(Term),
}

/// A term with its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) span: Span,
    pub(crate) term: Term,
}

/// An option: known, or made at each call.
#[derive(Clone, Debug)]
pub(crate) enum Choice<T> {
    Fixed(T),
    Made(Placed),
}

/// One executable.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) span: Span,
    pub(crate) target: Placed,
    pub(crate) args: Vec<Placed>,
    pub(crate) kwargs: Vec<(Arc<str>, Placed)>,
    pub(crate) nprocs: Choice<u32>,
    pub(crate) cwd: Option<Placed>,
    pub(crate) env: Option<Placed>,
}

/// A function that is known at import, with a term for each of its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) function: Arc<TaskFunction>,
    pub(crate) args: Vec<Placed>,
    /// Where the arguments stand.
    pub(crate) spans: Arc<[Span]>,
}

#[derive(Clone, Debug)]
pub(crate) enum Touched {
    Files(Vec<Placed>),
    Keys { dictionary: Placed, keys: Vec<Placed> },
}

/// A task with its names bound as far as an import binds them.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) model: Arc<Model>,
    pub(crate) kind: Choice<TaskKind>,
    /// Of a function that is known.
    pub(crate) fixed: Option<Fixed>,
    pub(crate) executables: Vec<Planned>,
    pub(crate) reads: Vec<Touched>,
    pub(crate) writes: Vec<Touched>,
    pub(crate) name: Option<Placed>,
    pub(crate) timeout: Option<Choice<Duration>>,
    /// Seconds in the unit, and how many of it; of a timeout that is made at each call.
    pub(crate) timeout_parts: Vec<(f64, Placed)>,
    pub(crate) stdout: Option<Placed>,
    pub(crate) stderr: Option<Placed>,
    pub(crate) cpus: Option<Choice<u32>>,
    pub(crate) gpus: Option<Choice<f64>>,
    pub(crate) memory: Option<Choice<u64>>,
    pub(crate) label: Option<Placed>,
    pub(crate) retries: Option<Choice<u32>>,
    pub(crate) ranks_per_node: Option<Choice<u32>>,
    pub(crate) accept_exit: Option<Choice<Vec<i32>>>,
}

impl Plan {
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.model.source
    }
}
