//! What a name ranges over: integers, a list, files of a pattern, lines of a file.

use crate::mistake::Mistake;
use crate::value::Value;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a file of lines at most.
const LINES_BYTES_MAX: u64 = 1 << 30;

/// The values that a name takes one after the other.
#[derive(Clone)]
pub struct Range(Kind);

#[derive(Clone)]
enum Kind {
    /// The end is left out.
    Integers(i64, i64),
    List(Arc<[Value]>),
    /// Lines of a text, each from its start to its end.
    Lines(Arc<str>, Arc<[(u32, u32)]>),
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Integers(start, end) => write!(f, "{start}..{end}"),
            _ => write!(f, "{} values", self.len()),
        }
    }
}

impl Range {
    /// Integers from `start`, without `end`.
    pub fn integers(start: i64, end: i64) -> Self {
        Self(Kind::Integers(start, end.max(start)))
    }

    /// These values.
    pub fn list(values: impl IntoIterator<Item = Value>) -> Self {
        Self(Kind::List(values.into_iter().collect()))
    }

    /// The lines of a text, read as words ([`Value::of_word`]); empty ones are left out.
    ///
    /// # Errors
    /// If it is longer than 1 GiB.
    pub fn lines(text: impl Into<Arc<str>>) -> Result<Self, Mistake> {
        let text = text.into();
        if text.len() as u64 > LINES_BYTES_MAX {
            return Err(Mistake::outside("", "the lines are longer than 1 GiB together"));
        }
        let start = |line: &str| (line.as_ptr().addr() - text.as_ptr().addr()) as u32;
        let lines = text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty());
        let lines = lines.map(|line| (start(line), start(line) + line.len() as u32)).collect();
        Ok(Self(Kind::Lines(text, lines)))
    }

    /// What a word of a command line says: `a..b`, `glob:PATTERN`, `@FILE`, or values with commas between them.
    ///
    /// Reads the file, or looks for the files of the pattern.
    ///
    /// # Errors
    /// If the file cannot be read, the pattern is none or nothing matches it.
    pub fn of_word(word: &str) -> Result<Self, Mistake> {
        match Self::of_text(word, None) {
            Some(range) => range.map_err(|what| Mistake::outside(word, what)),
            None => Ok(Self::list(word.split(',').map(Value::of_word))),
        }
    }

    /// `a..b`, `glob:PATTERN` or `@FILE`, relative to a folder; `None` for any other text.
    pub(super) fn of_text(text: &str, folder: Option<&Path>) -> Option<Result<Self, String>> {
        let folder = folder.unwrap_or(Path::new(""));
        if let Some(pattern) = text.strip_prefix("glob:") {
            return Some(files(&folder.join(pattern)));
        }
        if let Some(file) = text.strip_prefix('@') {
            return Some(lines_of(&folder.join(file)));
        }
        let (start, end) = text.split_once("..")?;
        let (start, end) = (start.trim(), end.trim());
        let is_number = |text: &str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(start) || !is_number(end) {
            return None;
        }
        Some(match (start.parse(), end.parse()) {
            (Ok(start), Ok(end)) if start <= end => Ok(Self::integers(start, end)),
            (Ok(_), Ok(_)) => Err("the range ends before it begins".into()),
            _ => Err("a bound of the range is too large".into()),
        })
    }

    /// How many values there are.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Integers(start, end) => end.abs_diff(*start),
            Kind::List(values) => values.len() as u64,
            Kind::Lines(_, lines) => lines.len() as u64,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a place below [`len`](Self::len).
    pub(super) fn at(&self, index: u64) -> Value {
        match &self.0 {
            Kind::Integers(start, _) => Value::from(i128::from(*start) + i128::from(index)),
            Kind::List(values) => values[index as usize].clone(),
            Kind::Lines(text, lines) => {
                let (start, end) = lines[index as usize];
                Value::of_word(&text[start as usize..end as usize])
            }
        }
    }
}

/// The files of a pattern, in the order of their names.
fn files(pattern: &Path) -> Result<Range, String> {
    let pattern = pattern.to_str().ok_or("the pattern is no UTF-8")?;
    let found = glob::glob(pattern).map_err(|error| format!("this is no pattern: {error}"))?;
    let files = found.map(|file| file.map(Value::from)).collect::<Result<Vec<Value>, _>>();
    let files = files.map_err(|error| format!("the files cannot be looked for: {error}"))?;
    if files.is_empty() {
        return Err("no file matches the pattern".into());
    }
    Ok(Range::list(files))
}

/// The lines of a file.
fn lines_of(path: &Path) -> Result<Range, String> {
    let status = std::fs::metadata(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    if !status.is_file() {
        return Err("this is no regular file".into());
    }
    if status.len() > LINES_BYTES_MAX {
        return Err("the file is longer than 1 GiB".into());
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LINES_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("the file cannot be read: {error}"))?;
    let lines = Range::lines(text.strip_prefix('\u{feff}').unwrap_or(&text));
    lines.map_err(|mistake| mistake.what)
}
