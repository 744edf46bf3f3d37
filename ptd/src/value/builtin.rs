//! Functions that every template can call.

use super::{Format, Kind, Mismatch, Value};
use std::path::PathBuf;

/// Elements of a `range` at most.
const RANGE_MAX: i128 = 1 << 20;

/// A function that every template can call, unless it declares a name that is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Builtin {
    Path,
    Format,
    Add,
    Sub,
    Mul,
    Env,
    Range,
}

/// Each of them, with what it is for.
pub(crate) const BUILTINS: &[(&str, Builtin, &str)] = &[
    ("path", Builtin::Path, "joins parts of a path: `{path: [base_dir, runs, i]}`"),
    ("format", Builtin::Format, "text with values in it: `{format: [\"{}_{:03}.dat\", name, i]}`"),
    ("add", Builtin::Add, "the sum of numbers: `{add: [i, 1]}`"),
    ("sub", Builtin::Sub, "the first number less the others: `{sub: [n, i]}`"),
    ("mul", Builtin::Mul, "the product of numbers: `{mul: [i, 2]}`"),
    ("env", Builtin::Env, "a variable of the environment, or a default: `{env: [HOME, /tmp]}`"),
    ("range", Builtin::Range, "a list of integers, the end left out: `{range: [0, n]}`"),
];

impl Builtin {
    pub(crate) fn of(name: &str) -> Option<Self> {
        BUILTINS.iter().find(|(known, ..)| *known == name).map(|(_, builtin, _)| *builtin)
    }

    /// How many values it takes.
    pub(crate) fn counts(self) -> (usize, usize) {
        match self {
            Builtin::Path | Builtin::Add | Builtin::Mul | Builtin::Format => (1, usize::MAX),
            Builtin::Sub => (2, usize::MAX),
            Builtin::Env => (1, 2),
            Builtin::Range => (1, 3),
        }
    }

    /// Whether the same arguments give the same value each time.
    pub(crate) fn is_pure(self) -> bool {
        self != Builtin::Env
    }

    pub(crate) fn call(self, values: &[Value]) -> Result<Value, Mismatch> {
        match self {
            Builtin::Path => {
                let mut joined = PathBuf::new();
                for value in values {
                    joined.push(&*value.path()?);
                }
                Ok(joined.into())
            }
            Builtin::Format => {
                let format = Format::parse(&values[0].text()?, &|_| None)?;
                format.write(&values[1..]).map(Value::from)
            }
            Builtin::Add => fold(values, i128::checked_add, |a, b| a + b),
            Builtin::Sub => fold(values, i128::checked_sub, |a, b| a - b),
            Builtin::Mul => fold(values, i128::checked_mul, |a, b| a * b),
            Builtin::Env => {
                let name = values[0].text()?;
                match (std::env::var_os(&*name), values.get(1)) {
                    (Some(text), _) => Ok(text.into_string().map_or_else(
                        |bytes| Value::from(PathBuf::from(bytes)),
                        |text| Value::of_scalar(&text, false),
                    )),
                    (None, Some(default)) => Ok(default.clone()),
                    (None, None) => {
                        Err(Mismatch(format!("the environment has no `{name}`, and there is no default")))
                    }
                }
            }
            Builtin::Range => range(values),
        }
    }
}

fn fold(
    values: &[Value],
    whole: fn(i128, i128) -> Option<i128>,
    float: fn(f64, f64) -> f64,
) -> Result<Value, Mismatch> {
    let mut values = values.iter();
    let mut result = number(values.next().expect("the number of values was looked at"))?;
    for value in values {
        result = match (result, number(value)?) {
            (Kind::Int(a), Kind::Int(b)) => {
                Kind::Int(whole(a, b).ok_or_else(|| Mismatch(format!("{a} and {b} are too large")))?)
            }
            (a, b) => Kind::Float(float(Value(a).number().unwrap_or(0.0), Value(b).number().unwrap_or(0.0))),
        };
    }
    Ok(Value(result))
}

/// A value as a number; text that is one counts, since it may come from a list or a command line.
fn number(value: &Value) -> Result<Kind, Mismatch> {
    match value.plain() {
        kind @ (Kind::Int(_) | Kind::Float(_)) => Ok(kind.clone()),
        Kind::Text(text) => match Value::of_word(text).plain() {
            kind @ (Kind::Int(_) | Kind::Float(_)) => Ok(kind.clone()),
            _ => Err(Mismatch(format!("`{text}` is no number"))),
        },
        _ => Err(Mismatch(format!("{} is no number", value.kind()))),
    }
}

fn range(values: &[Value]) -> Result<Value, Mismatch> {
    let mut bounds = Vec::new();
    for value in values {
        let whole = value.integer();
        bounds.push(whole.ok_or_else(|| Mismatch(format!("{} is no integer", value.kind())))?);
    }
    let (start, end, step) = match bounds[..] {
        [end] => (0, end, 1),
        [start, end] => (start, end, 1),
        [start, end, step] => (start, end, step),
        _ => unreachable!("the number of values was looked at"),
    };
    if step == 0 {
        return Err(Mismatch("a range needs a step that is not 0".into()));
    }
    let reach = end.saturating_sub(start).saturating_mul(step.signum());
    let count = if reach <= 0 { 0 } else { (reach - 1) / step.saturating_abs() + 1 };
    if count > RANGE_MAX {
        return Err(Mismatch(format!("a range has at most {RANGE_MAX} elements, and this one {count}")));
    }
    let values = (0..count).map(|i| Value(Kind::Int(start + i * step)));
    Ok(Value(Kind::List(values.collect::<Vec<_>>().into())))
}
