//! Text with places in it for values: `{}`, `{0}`, `{name}`, each with a width (`{:03}`) or digits (`{:.2}`).

use super::{Kind, Mismatch, Value};
use std::fmt::Write;
use std::sync::Arc;

/// Wider places are refused.
const WIDTH_MAX: usize = 1000;

/// A text that was taken apart once.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Arc<str>),
    Place(Which, Spec),
}

#[derive(Clone, Copy, Debug)]
enum Which {
    /// By number, among the values after the text.
    Value(usize),
    /// A declared name, by its number.
    Name(usize),
}

#[derive(Clone, Copy, Default, Debug)]
struct Spec {
    has_zeros: bool,
    width: usize,
    digits: Option<usize>,
}

impl Format {
    /// Takes a text apart; `name` knows the numbers of declared names.
    pub(crate) fn parse(text: &str, name: &dyn Fn(&str) -> Option<usize>) -> Result<Self, Mismatch> {
        let (mut pieces, mut plain, mut next) = (Vec::new(), String::new(), 0);
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{");
            let Some(end) = end else {
                return Err(Mismatch(format!("`{brace}` stands alone; write `{brace}{brace}` for itself")));
            };
            let (inside, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let (which, spec) = inside.split_once(':').unwrap_or((inside, ""));
            let which = match which {
                "" => {
                    next += 1;
                    Which::Value(next - 1)
                }
                _ if which.bytes().all(|b| b.is_ascii_digit()) => {
                    Which::Value(which.parse().map_err(|_| Mismatch(format!("there is no value {which}")))?)
                }
                _ => Which::Name(
                    name(which).ok_or_else(|| Mismatch(format!("`{which}` is no declared name")))?,
                ),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Place(which, spec_of(spec)?));
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self { pieces })
    }

    /// How many values it takes.
    pub(crate) fn count(&self) -> usize {
        let places = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Place(Which::Value(index), _) => Some(index + 1),
            _ => None,
        });
        places.max().unwrap_or(0)
    }

    /// The names in it, by number.
    pub(crate) fn names(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Place(Which::Name(number), _) => Some(*number),
            _ => None,
        })
    }

    /// The same text, which takes the values of its names behind its own, in their order.
    pub(crate) fn numbered(mut self) -> Self {
        let mut next = self.count();
        for piece in &mut self.pieces {
            if let Piece::Place(which @ Which::Name(_), _) = piece {
                *which = Which::Value(next);
                next += 1;
            }
        }
        self
    }

    /// The text, with these values in it. It has no names, or they are [`numbered`](Self::numbered).
    pub(crate) fn write(&self, values: &[Value]) -> Result<String, Mismatch> {
        let mut text = String::new();
        if values.len() != self.count() {
            let (count, given) = (self.count(), values.len());
            return Err(Mismatch(format!("the text has places for {count} values, and {given} are given")));
        }
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Place(Which::Value(index), spec) => spec.write(&values[*index], &mut text)?,
                Piece::Place(Which::Name(_), _) => unreachable!("names have numbers by now"),
            }
        }
        Ok(text)
    }
}

fn spec_of(text: &str) -> Result<Spec, Mismatch> {
    let refused = || {
        Mismatch(format!(
            "`:{text}` is no format; a width `:8`, zeros `:08` and digits `:.3` are, up to {WIDTH_MAX}"
        ))
    };
    let (width, digits) = text.split_once('.').map_or((text, None), |(width, digits)| (width, Some(digits)));
    let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n <= WIDTH_MAX).ok_or_else(refused);
    Ok(Spec {
        has_zeros: width.len() > 1 && width.starts_with('0'),
        width: if width.is_empty() { 0 } else { number(width)? },
        digits: digits.map(number).transpose()?,
    })
}

impl Spec {
    fn write(&self, value: &Value, text: &mut String) -> Result<(), Mismatch> {
        let shown: Arc<str> = match (value.plain(), self.digits) {
            (_, Some(digits)) => {
                let number = value.number();
                let number = number.ok_or_else(|| Mismatch(format!("{} has no digits", value.kind())))?;
                format!("{number:.digits$}").into()
            }
            // With a width it is the number that counts, not how it was written.
            (Kind::Int(number), None) if self.width > 0 => number.to_string().into(),
            _ => value.text()?,
        };
        let width = self.width;
        let written = match (self.has_zeros, value.number()) {
            (true, Some(_)) => {
                let (sign, digits) = shown.strip_prefix('-').map_or(("", &*shown), |digits| ("-", digits));
                write!(text, "{sign}{digits:0>width$}", width = width.saturating_sub(sign.len()))
            }
            (_, Some(_)) => write!(text, "{shown:>width$}"),
            _ => write!(text, "{shown:<width$}"),
        };
        written.map_err(|_| Mismatch("it cannot be written".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Value};

    fn format(text: &str, values: &[Value]) -> Result<String, String> {
        let format = Format::parse(text, &|name| (name == "i").then_some(0)).map_err(|it| it.0)?;
        let named: Vec<Value> = format.names().map(|_| Value::from(7)).collect();
        format.numbered().write(&[values, &named].concat()).map_err(|it| it.0)
    }

    #[test]
    fn places_take_values_by_order_number_and_name() {
        let two = [Value::from(4), Value::from("x")];
        assert_eq!(format("{}-{}", &two).unwrap(), "4-x");
        assert_eq!(format("{1}{0}{1}", &two).unwrap(), "x4x");
        assert_eq!(format("{i:03}.dat", &[]).unwrap(), "007.dat");
        assert_eq!(format("{{{}}}", &[Value::from("a")]).unwrap(), "{a}");
        assert_eq!(
            format("{:04}|{:6}|{:3}|", &[(-3).into(), 1.5.into(), "ab".into()]).unwrap(),
            "-003|   1.5|ab |"
        );
        assert_eq!(format("{:.2}", &[Value::from(2)]).unwrap(), "2.00");
        assert_eq!(format("{}", &[Value::of_word("1.50")]).unwrap(), "1.50");
    }

    #[test]
    fn what_is_no_format_is_refused() {
        for (text, why) in [
            ("{", "stands alone"),
            ("}", "stands alone"),
            ("{:x}", "is no format"),
            ("{:99999}", "is no format"),
            ("{j}", "no declared name"),
            ("{}", "places for 1 values, and 0"),
            ("plain {99999999999999999999}", "no value"),
        ] {
            assert!(format(text, &[]).unwrap_err().contains(why), "{text}");
        }
        assert!(format("{:.1}", &["x".into()]).unwrap_err().contains("no digits"));
    }
}
