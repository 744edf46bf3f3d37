//! One step: a template whose names all have values, from `set`, `for`, a registry or their defaults.

use super::range::Range;
use crate::import::{Bound, CallError, Plan, Spec, Term, Unmade, resolve, term_of};
use crate::mistake::{Findings, Mistake, Mistakes};
use crate::nearest::did_you_mean;
use crate::source::Span;
use crate::template::{Expr, Model, NameId, Template, names_in};
use crate::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) plan: Plan,
    /// What the template or its file is called.
    pub(super) name: String,
    pub(super) names: Vec<Arc<str>>,
    pub(super) ranges: Vec<Range>,
    pub(super) is_zipped: bool,
    /// Rows: tasks.
    pub(super) rows: u64,
}

/// A value that a name is set to.
pub(super) struct Set {
    pub(super) name: Arc<str>,
    /// Where it is set; none on a command line.
    pub(super) span: Option<Span>,
    pub(super) value: SetValue,
}

pub(super) enum SetValue {
    Constant(Value),
    /// Over the names of the step.
    Made(Expr),
}

/// What a name ranges over.
pub(super) struct For {
    pub(super) name: Arc<str>,
    pub(super) span: Option<Span>,
    pub(super) range: Range,
}

/// Everything that is said of a step.
pub(super) struct Said<'a> {
    pub(super) template: &'a Template,
    /// The step itself, in the workflow file.
    pub(super) span: Option<Span>,
    pub(super) sets: Vec<Set>,
    pub(super) ranges: Vec<For>,
    pub(super) is_zipped: bool,
    pub(super) registry: &'a BTreeMap<String, Value>,
    /// The names that the step declares, by the numbers that its values know them by.
    pub(super) declared: Vec<Arc<str>>,
    /// Names that `set` values use, so that they need not be the template's.
    pub(super) used: Vec<Arc<str>>,
}

/// Tells of a mistake in what is said: in the workflow file, or on the command line.
fn tell(findings: &mut Findings, span: Option<Span>, text: &str, what: &str, mend: Option<String>) {
    let mistake = match span {
        Some(span) => Mistake::at(&findings.source, span, what),
        None => Mistake::outside(text, what),
    };
    findings.mistakes.push(match mend {
        Some(mend) => mistake.mend(mend),
        None => mistake,
    });
}

impl Step {
    /// The step; `None` if something is wrong with it. `findings` is the workflow file's.
    pub(super) fn make(said: Said<'_>, findings: &mut Findings) -> Option<Self> {
        let before = findings.mistakes.len();
        let model = &said.template.model;
        let rows = rows(&said, findings);
        let values = values(&said, findings);
        if findings.mistakes.len() > before {
            return None;
        }
        refuse_unknown(&said, findings);
        let names = bind(&said, model, &values, findings)?;
        let mut of_template = Findings::new(&model.source);
        let plan = resolve(model, names, None, &mut of_template);
        findings.mistakes.append(of_template.mistakes);
        if findings.mistakes.len() > before {
            return None;
        }
        Some(Self {
            plan,
            name: model.source.name().to_string(),
            names: said.ranges.iter().map(|it| Arc::clone(&it.name)).collect(),
            ranges: said.ranges.into_iter().map(|it| it.range).collect(),
            is_zipped: said.is_zipped,
            rows,
        })
    }

    /// The values of a row, in the order of the names. Of names that range each with each the last changes fastest.
    pub(super) fn row(&self, mut row: u64) -> Vec<Value> {
        if self.is_zipped {
            return self.ranges.iter().map(|range| range.at(row)).collect();
        }
        let mut values = vec![Value::NULL; self.ranges.len()];
        for (value, range) in values.iter_mut().zip(&self.ranges).rev() {
            *value = range.at(row % range.len());
            row /= range.len();
        }
        values
    }

    /// The task of a row.
    pub(super) fn spec(&self, row: u64) -> Result<Spec, CallError> {
        Spec::make(&self.plan, &self.row(row))
    }
}

/// How many rows there are.
fn rows(said: &Said<'_>, findings: &mut Findings) -> u64 {
    if !said.is_zipped || said.ranges.is_empty() {
        let product = said.ranges.iter().try_fold(1u64, |rows, it| rows.checked_mul(it.range.len()));
        return product.unwrap_or_else(|| {
            tell(findings, said.span, "", "the names range over more than 2^64 rows", None);
            0
        });
    }
    let first = &said.ranges[0];
    for other in &said.ranges[1..] {
        if other.range.len() != first.range.len() {
            let what = format!(
                "with `zip` names range over equally many values; `{}` has {} and `{}` has {}",
                first.name,
                first.range.len(),
                other.name,
                other.range.len()
            );
            tell(findings, other.span, &other.name, &what, None);
        }
    }
    first.range.len()
}

/// The value of each name of the step, over the values of a row.
fn values(said: &Said<'_>, findings: &mut Findings) -> BTreeMap<Arc<str>, Term> {
    let mut known: BTreeMap<Arc<str>, Term> = BTreeMap::new();
    known.extend(said.ranges.iter().enumerate().map(|(index, it)| (Arc::clone(&it.name), Term::Arg(index))));
    let mut waiting: Vec<&Set> = said.sets.iter().filter(|set| !known.contains_key(&set.name)).collect();
    while !waiting.is_empty() {
        let is_free = |set: &&&Set| match &set.value {
            SetValue::Constant(_) => true,
            SetValue::Made(expr) => {
                let mut used = names_in(expr).into_iter().map(|(id, _)| &said.declared[id]);
                used.all(|name| known.contains_key(name))
            }
        };
        let (free, stuck): (Vec<&Set>, Vec<&Set>) = waiting.iter().partition(is_free);
        if free.is_empty() {
            tell(findings, stuck[0].span, &stuck[0].name, "this value needs itself", None);
            break;
        }
        for set in free {
            let term = match &set.value {
                SetValue::Constant(value) => Term::Constant(value.clone()),
                SetValue::Made(expr) => {
                    let bound = |name| match known.get(name) {
                        Some(Term::Constant(value)) => Bound::Import(value.clone()),
                        Some(term) => Bound::Made(term.clone()),
                        // It is not used here.
                        None => Bound::Import(Value::NULL),
                    };
                    let names: Vec<Bound> = said.declared.iter().map(bound).collect();
                    term_of(expr, &names, &said.declared, findings)
                }
            };
            known.insert(Arc::clone(&set.name), term);
        }
        waiting = stuck;
    }
    known
}

/// The names of a template by which they can be set: its own, and keywords.
fn settable(model: &Model) -> impl Iterator<Item = (&str, NameId)> {
    let own = model.names.iter().enumerate().map(|(id, name)| (&*name.text, id));
    let keywords = model.import_kwargs.iter().chain(&model.kwargs);
    own.chain(keywords.map(|keyword| (&*keyword.text, keyword.name)))
}

/// Tells of names that are set, and are neither the template's nor used by another value.
fn refuse_unknown(said: &Said<'_>, findings: &mut Findings) {
    let model = &said.template.model;
    let sets = said.sets.iter().map(|set| (&set.name, set.span));
    for (name, span) in sets.chain(said.ranges.iter().map(|it| (&it.name, it.span))) {
        let is_known = settable(model).any(|(known, _)| *known == **name) || said.used.contains(name);
        if !is_known {
            let mend = did_you_mean(name, settable(model).map(|(known, _)| known)).or_else(|| {
                let all: Vec<&str> = model.names.iter().map(|name| &*name.text).collect();
                let file = model.source.name();
                Some(if all.is_empty() {
                    format!("{file} declares no names")
                } else {
                    format!("{file} declares {}", all.join(", "))
                })
            });
            tell(findings, span, name, "the template has no such name", mend);
        }
    }
}

/// What each name of the template is bound to.
fn bind(
    said: &Said<'_>,
    model: &Arc<Model>,
    values: &BTreeMap<Arc<str>, Term>,
    findings: &mut Findings,
) -> Option<Vec<Bound>> {
    let mut bound: Vec<Option<Bound>> = vec![None; model.names.len()];
    for (text, id) in settable(model) {
        if bound[id].is_none() {
            bound[id] = match values.get(text) {
                Some(Term::Constant(value)) => Some(Bound::Import(value.clone())),
                Some(term) => Some(Bound::Made(term.clone())),
                None => said.registry.get(text).map(|value| Bound::Import(value.clone())),
            };
        }
    }
    let texts: Vec<Arc<str>> = model.names.iter().map(|name| Arc::clone(&name.text)).collect();
    for keyword in &model.import_kwargs {
        let Some(default) = keyword.default.as_ref().filter(|_| bound[keyword.name].is_none()) else {
            continue;
        };
        let is_ready = |(id, _): &(NameId, Span)| bound[*id].is_some();
        if !names_in(default).iter().all(is_ready) {
            continue;
        }
        let names: Vec<Bound> =
            bound.iter().map(|it| it.clone().unwrap_or(Bound::Import(Value::NULL))).collect();
        let mut of_template = Findings::new(&model.source);
        // A default is made once, where an import would make it.
        let term = term_of(default, &names, &texts, &mut of_template);
        let made = match term {
            Term::Constant(value) => Ok(Bound::Import(value)),
            term if term.needs_args() => Ok(Bound::Made(term)),
            term => term.value(&[]).map(Bound::Import),
        };
        match made {
            Ok(made) => bound[keyword.name] = Some(made),
            Err(Unmade { span, what, .. }) => of_template.wrong(span, what),
        }
        findings.mistakes.append(of_template.mistakes);
    }
    let unbound: Mistakes = unbound(said, model, &bound, findings);
    findings.mistakes.append(unbound);
    bound.into_iter().collect()
}

/// About each name without a value.
fn unbound(said: &Said<'_>, model: &Arc<Model>, bound: &[Option<Bound>], findings: &Findings) -> Mistakes {
    let mut mistakes = Mistakes::default();
    for (name, bound) in model.names.iter().zip(bound) {
        let mut defaults = model.import_kwargs.iter().filter(|keyword| keyword.default.is_some());
        if bound.is_some() || defaults.any(|keyword| model.names[keyword.name].text == name.text) {
            continue;
        }
        let is_function = model.is_called(&name.text);
        let mistake = match said.span {
            Some(span) => Mistake::at(
                &findings.source,
                span,
                format!("nothing gives a value to `{}` of {}", name.text, model.source.name()),
            ),
            None => Mistake::at(&model.source, name.span, "nothing gives a value to this name"),
        };
        mistakes.push(mistake.mend(match (is_function, said.span) {
            (true, _) => {
                format!("`{}` is a function: a program that embeds the command line registers it", name.text)
            }
            (_, Some(_)) => format!("add `{}` to `set:` or `for:` of the step", name.text),
            (_, None) => format!("give `--set {0}=VALUE` or `--for {0}=VALUES`", name.text),
        }));
    }
    mistakes
}
