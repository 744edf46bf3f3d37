//! What a plain scalar means: YAML 1.2's core schema, and which words YAML 1.1 reads differently.
//!
//! *Source:* YAML 1.2.2, section 10.3.2; the types of YAML 1.1 at <https://yaml.org/type/>.

/// A scalar's type and value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// Its text is the node's.
    Text,
}

/// What a scalar is.
pub(crate) fn resolve(text: &str, is_plain: bool) -> Scalar {
    if !is_plain {
        return Scalar::Text;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    int(text).map(Scalar::Int).or_else(|| float(text).map(Scalar::Float)).unwrap_or(Scalar::Text)
}

fn int(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| i128::from_str_radix(digits, 16).ok())?;
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return digits.bytes().all(|b| b.is_ascii_digit()).then(|| i128::from_str_radix(digits, 8).ok())?;
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn float(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads `inf`, `nan` and the like, which are text here.
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let has_digit = text.bytes().any(|b| b.is_ascii_digit());
    (is_number && has_digit).then(|| text.parse().ok())?
}

/// What is wrong with a plain scalar that programs read differently, and how to mend it.
pub(super) fn ambiguity(text: &str) -> Option<(&'static str, String)> {
    let lower = text.to_ascii_lowercase();
    let bool = match lower.as_str() {
        "yes" | "on" => Some("true"),
        "no" | "off" => Some("false"),
        _ => None,
    };
    let is_one_case = lower == text || text == text.to_ascii_uppercase() || {
        let mut chars = text.chars();
        chars.next().is_some_and(char::is_uppercase) && chars.all(char::is_lowercase)
    };
    if let Some(bool) = bool.filter(|_| is_one_case) {
        let mend = format!("write {bool}, or quote it: \"{text}\"");
        return Some(("this is a bool to YAML 1.1 and text to YAML 1.2", mend));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let quote = || format!("quote it: \"{text}\"");
    if digits.len() > 1 && digits.starts_with('0') && all_digits(digits) {
        return Some(("this is an octal number to YAML 1.1 and a decimal one to YAML 1.2", quote()));
    }
    let mut parts = digits.split(':');
    let first = parts.next().unwrap_or_default();
    let is_sixty = |part: &str| part.len() <= 2 && all_digits(part) && part < "6" || part.len() == 1;
    let rest: Vec<&str> = parts.collect();
    if all_digits(first) && !rest.is_empty() && rest.iter().all(|part| all_digits(part) && is_sixty(part)) {
        return Some(("this is a number of base 60 to YAML 1.1 and text to YAML 1.2", quote()));
    }
    if digits.contains('_') && digits.starts_with(|c: char| c.is_ascii_digit()) {
        let without: String = digits.chars().filter(|c| *c != '_').collect();
        if all_digits(&without) {
            let mend = format!("write {without}, or quote it: \"{text}\"");
            return Some(("this is a number to YAML 1.1 and text to YAML 1.2", mend));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Scalar, ambiguity, resolve};

    #[test]
    fn plain_scalars_are_those_of_the_core_schema() {
        let int = |n| Scalar::Int(n);
        for (text, scalar) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("null", Scalar::Null),
            ("true", Scalar::Bool(true)),
            ("FALSE", Scalar::Bool(false)),
            ("tRue", Scalar::Text),
            ("0", int(0)),
            ("-7", int(-7)),
            ("+7", int(7)),
            ("0x1F", int(31)),
            ("0o17", int(15)),
            ("18446744073709551616", int(1 << 64)),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Float(1000.0)),
            (".5", Scalar::Float(0.5)),
            ("-.inf", Scalar::Float(f64::NEG_INFINITY)),
            ("inf", Scalar::Text),
            ("e", Scalar::Text),
            ("-", Scalar::Text),
            ("1..2", Scalar::Text),
            ("0x", Scalar::Text),
            ("0x-1", Scalar::Text),
            ("12ab", Scalar::Text),
        ] {
            assert_eq!(resolve(text, true), scalar, "{text}");
            assert_eq!(resolve(text, false), Scalar::Text, "quoted {text}");
        }
    }

    #[test]
    fn words_that_programs_read_differently_are_known() {
        for text in ["no", "No", "NO", "yes", "on", "Off", "010", "-007", "00", "1:30", "12:30:59", "1_000"] {
            assert!(ambiguity(text).is_some(), "{text}");
        }
        for text in ["", "nO", "none", "0", "10", "a:b", "1:99", "1:", ":1", "0x10", "0.5", "run_1", "1_a"] {
            assert!(ambiguity(text).is_none(), "{text}");
        }
    }
}
