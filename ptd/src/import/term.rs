//! What is left to do for a value at a call.

use crate::source::Span;
use crate::value::{Builtin, Format, Kind, Mismatch, Refused, Selector, Value};
use smallvec::SmallVec;
use std::error::Error;
use std::sync::Arc;

/// How a value is made at a call.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    /// It is known.
    Constant(Value),
    /// An argument of the call, by its number.
    Arg(usize),
    /// A selector is called.
    Select(Arc<Selector>, Vec<Term>, Span),
    /// What the call gave is called, by its number.
    SelectArg(usize, Vec<Term>, Span),
    Builtin(Builtin, Vec<Term>, Span),
    /// A text whose places are filled.
    Format(Format, Vec<Term>, Span),
    List(Vec<Term>),
    Mapping(Vec<(Arc<str>, Term)>),
}

/// Values of a call: few, most often.
type Values = SmallVec<[Value; 4]>;

/// Why there is no value.
pub(crate) struct Unmade {
    pub(crate) span: Span,
    pub(crate) what: String,
    /// What a selector said.
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

impl Unmade {
    pub(crate) fn new(span: Span, why: Mismatch) -> Self {
        Self { span, what: why.0, source: None }
    }
}

/// A value of a term: one that is there is borrowed.
pub(crate) enum Made<'a> {
    There(&'a Value),
    New(Value),
    Text(String),
}

impl Made<'_> {
    /// The value itself.
    pub(crate) fn value(self) -> Value {
        match self {
            Made::There(value) => value.clone(),
            Made::New(value) => value,
            Made::Text(text) => Value::from(text),
        }
    }
}

impl Term {
    /// As [`value`](Self::value), without a copy of what is there.
    #[inline]
    pub(crate) fn made<'a>(&'a self, args: &'a [Value]) -> Result<Made<'a>, Unmade> {
        match self {
            Term::Constant(value) => Ok(Made::There(value)),
            Term::Arg(index) => Ok(Made::There(&args[*index])),
            Term::Format(format, terms, span) => {
                let mut values = Values::new();
                for term in terms {
                    values.push(term.value(args)?);
                }
                format.write(&values).map(Made::Text).map_err(|why| Unmade::new(*span, why))
            }
            term => term.value(args).map(Made::New),
        }
    }

    pub(crate) fn constant(&self) -> Option<&Value> {
        match self {
            Term::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Whether it needs arguments of a call.
    pub(crate) fn needs_args(&self) -> bool {
        match self {
            Term::Constant(_) => false,
            Term::Arg(_) | Term::SelectArg(..) => true,
            Term::Format(_, terms, _)
            | Term::Select(_, terms, _)
            | Term::Builtin(_, terms, _)
            | Term::List(terms) => terms.iter().any(Term::needs_args),
            Term::Mapping(entries) => entries.iter().any(|(_, term)| term.needs_args()),
        }
    }

    /// The value, for a call with these arguments.
    pub(crate) fn value(&self, args: &[Value]) -> Result<Value, Unmade> {
        let all = |terms: &[Term]| {
            let mut values = Values::new();
            for term in terms {
                values.push(term.value(args)?);
            }
            Ok::<Values, Unmade>(values)
        };
        match self {
            Term::Constant(value) => Ok(value.clone()),
            Term::Arg(index) => Ok(args[*index].clone()),
            Term::Select(selector, terms, span) => selected(selector, &all(terms)?, *span),
            Term::SelectArg(index, terms, span) => match &args[*index].0 {
                Kind::Selector(selector) => selected(selector, &all(terms)?, *span),
                _ => {
                    let what = format!("{} cannot be called; give a selector", args[*index].kind());
                    Err(Unmade::new(*span, Mismatch(what)))
                }
            },
            Term::Builtin(builtin, terms, span) => {
                builtin.call(&all(terms)?).map_err(|why| Unmade::new(*span, why))
            }
            Term::Format(format, terms, span) => {
                let values = all(terms)?;
                let text = format.write(&values);
                text.map(Value::from).map_err(|why| Unmade::new(*span, why))
            }
            Term::List(terms) => all(terms).map(|values| Value::list(values.into_vec())),
            Term::Mapping(entries) => {
                let value = |(key, term): &(Arc<str>, Term)| Ok((Arc::clone(key), term.value(args)?));
                entries.iter().map(value).collect::<Result<_, _>>().map(Value::mapping)
            }
        }
    }
}

/// What a selector selects.
pub(crate) fn selected(selector: &Selector, values: &[Value], span: Span) -> Result<Value, Unmade> {
    selector.call(values).map_err(|refused| match refused {
        Refused::Argument(index, why) => {
            let what = format!("value {} of `{}`: {why}", index + 1, selector.name());
            Unmade::new(span, Mismatch(what))
        }
        Refused::Count { takes, given } => {
            let what = format!("`{}` takes {takes} values, and {given} are given", selector.name());
            Unmade::new(span, Mismatch(what))
        }
        Refused::Failed(source) => {
            Unmade { span, what: format!("the selector `{}` failed", selector.name()), source: Some(source) }
        }
    })
}
