//! The parameters of a command: `--for name=values`, crossed or side by side, or the lines of standard input. Rows come
//! one at a time, so that a million of them cost no memory.

use super::Refusal;
use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

/// Lines that are read before anybody wants them.
const LINES_AHEAD: usize = 4096;

/// What the values of a variable are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    /// `a..b`, without b; written with at least so many digits.
    Range { from: i64, to: i64, digits: usize },
    /// Those of a list, a file or a pattern.
    List(Vec<String>),
}

/// A name and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    values: Values,
}

impl Variable {
    /// Reads `name=0..10`, `name=a,b,c`, `name=@file` or `name=glob:*.dat`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((name, values)) = text.split_once('=') else {
            return Err(format!(
                "`{text}` has no `=`: write name=0..10, name=a,b,c, name=@file or name=glob:*.dat"
            ));
        };
        if !is_name(name) {
            return Err(format!("`{name}` is no name: letters, digits and `_`, beginning with a letter"));
        }
        Ok(Self { name: name.to_owned(), values: Values::parse(name, values)? })
    }

    fn len(&self) -> u64 {
        match &self.values {
            Values::Range { from, to, .. } => to.abs_diff(*from),
            Values::List(list) => list.len() as u64,
        }
    }

    fn value(&self, index: u64) -> String {
        match &self.values {
            Values::Range { from, digits, .. } => {
                let value = from.wrapping_add_unsigned(index);
                let sign = if value < 0 { "-" } else { "" };
                format!("{sign}{:0width$}", value.unsigned_abs(), width = *digits)
            }
            Values::List(list) => list[index as usize].clone(),
        }
    }
}

/// Whether a word may be the name of a variable.
pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Values {
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        if let Some(file) = text.strip_prefix('@') {
            let read = std::fs::read_to_string(file);
            let lines =
                read.map_err(|error| format!("the values of `{name}` are not there: {file}: {error}"))?;
            return Self::some(name, text, lines.lines().map(str::to_owned).collect());
        }
        if let Some(pattern) = text.strip_prefix("glob:") {
            return Self::some(name, text, matches(pattern)?);
        }
        if let Some((from, to)) = text.split_once("..") {
            return Self::range(name, text, from, to);
        }
        Self::some(name, text, text.split(',').map(str::to_owned).collect())
    }

    fn range(name: &str, text: &str, from: &str, to: &str) -> Result<Self, String> {
        let number = |end: &str| {
            let wrong =
                |_| format!("`{end}` in `{name}={text}` is no whole number: a range is a..b, without b");
            end.parse::<i64>().map_err(wrong)
        };
        let is_padded = from.len() > 1 && from.starts_with('0');
        let digits = if is_padded { from.len() } else { 0 };
        let (from, to) = (number(from)?, number(to)?);
        if from >= to {
            return Err(format!("`{name}={text}` is empty: a range is a..b, without b"));
        }
        Ok(Self::Range { from, to, digits })
    }

    fn some(name: &str, text: &str, list: Vec<String>) -> Result<Self, String> {
        if list.is_empty() {
            return Err(format!("`{name}={text}` has no values"));
        }
        Ok(Self::List(list))
    }
}

/// The files that a pattern names, sorted.
fn matches(pattern: &str) -> Result<Vec<String>, String> {
    let paths = glob::glob(pattern).map_err(|error| format!("`{pattern}` is no pattern: {error}"))?;
    let name = |path: Result<std::path::PathBuf, glob::GlobError>| {
        let path = path.map_err(|error| format!("`{pattern}`: {error}"))?;
        let text = path.into_os_string().into_string();
        text.map_err(|name| format!("`{pattern}` finds {}, which is no text", name.display()))
    };
    paths.map(name).collect()
}

/// Rows of values, in order; a row has one value for each variable.
pub(super) enum Rows {
    /// All combinations; the last variable changes first.
    Crossed { variables: Vec<Variable>, next: u64, count: u64 },
    /// The first values of all, then the second ones.
    Zipped { variables: Vec<Variable>, next: u64, count: u64 },
    /// Lines, of which nobody knows how many come, or when.
    Lines { lines: Receiver<io::Result<String>>, next: u64 },
}

/// What comes next.
pub(super) enum Next {
    Row(Vec<String>),
    /// Nobody has written the next line yet.
    NotYet,
    End,
}

impl Rows {
    /// Of these variables; of the lines of `input` if there are none.
    pub(super) fn new(
        variables: Vec<Variable>,
        is_zip: bool,
        input: impl BufRead + Send + 'static,
    ) -> Result<Self, Refusal> {
        if let Some(twice) =
            (1..variables.len()).find(|&at| variables[..at].iter().any(|it| it.name == variables[at].name))
        {
            return Err(Refusal::Words(format!("`--for {}=…` is given twice", variables[twice].name)));
        }
        let Some(first) = variables.first() else { return Self::lines(input) };
        if is_zip {
            let count = first.len();
            if let Some(other) = variables.iter().find(|it| it.len() != count) {
                let (a, b) = (&first.name, &other.name);
                return Err(Refusal::Words(format!(
                    "`--zip` wants as many values of each: `{a}` has {count}, `{b}` has {}",
                    other.len()
                )));
            }
            return Ok(Self::Zipped { variables, next: 0, count });
        }
        let count = variables.iter().try_fold(1_u64, |count, it| count.checked_mul(it.len()));
        let count =
            count.ok_or_else(|| Refusal::Words("these are more than 2^64 combinations".to_owned()))?;
        Ok(Self::Crossed { variables, next: 0, count })
    }

    /// A thread reads them, so that what is there runs while more is waited for.
    fn lines(mut input: impl BufRead + Send + 'static) -> Result<Self, Refusal> {
        let (send, lines) = sync_channel(LINES_AHEAD);
        let read = move || {
            loop {
                let mut line = String::new();
                let read = input.read_line(&mut line);
                let is_last = !matches!(read, Ok(1..));
                let line = line.strip_suffix('\n').unwrap_or(&line);
                let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
                let is_end = matches!(read, Ok(0));
                if is_end || send.send(read.map(|_| line)).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("tarragon-lines".to_owned()).spawn(read);
        thread.map_err(|error| Refusal::around("a thread that reads lines", error))?;
        Ok(Self::Lines { lines, next: 0 })
    }

    /// The next row; `waits`: for as long as it takes to come.
    ///
    /// # Errors
    /// The lines cannot be read, or are no text.
    pub(super) fn next(&mut self, waits: bool) -> Result<Next, Refusal> {
        match self {
            Self::Crossed { variables, next, count } => {
                let at = *next;
                *next += 1;
                Ok(if at < *count { Next::Row(crossed(variables, at)) } else { Next::End })
            }
            Self::Zipped { variables, next, count } => {
                let at = *next;
                *next += 1;
                let row = || variables.iter().map(|it| it.value(at)).collect();
                Ok(if at < *count { Next::Row(row()) } else { Next::End })
            }
            Self::Lines { lines, next } => {
                let line = match lines.try_recv() {
                    Err(TryRecvError::Empty) if !waits => return Ok(Next::NotYet),
                    Err(TryRecvError::Empty) => lines.recv().ok(),
                    line => line.ok(),
                };
                let Some(line) = line else { return Ok(Next::End) };
                *next += 1;
                let line =
                    line.map_err(|error| Refusal::around(format!("line {next} of standard input"), error))?;
                Ok(Next::Row(vec![line]))
            }
        }
    }
}

fn crossed(variables: &[Variable], mut at: u64) -> Vec<String> {
    let mut row: Vec<String> = Vec::with_capacity(variables.len());
    for variable in variables.iter().rev() {
        row.push(variable.value(at % variable.len()));
        at /= variable.len();
    }
    row.reverse();
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(variables: &[&str], is_zip: bool, input: &'static str) -> Result<Vec<String>, String> {
        let variables = variables.iter().map(|it| Variable::parse(it)).collect::<Result<_, _>>()?;
        let mut rows = Rows::new(variables, is_zip, input.as_bytes()).map_err(|it| it.to_string())?;
        let mut all = Vec::new();
        while let Next::Row(row) = rows.next(true).map_err(|it| it.to_string())? {
            all.push(row.join(" "));
        }
        Ok(all)
    }

    #[test]
    fn the_last_variable_changes_first() {
        assert_eq!(
            rows(&["a=0..2", "b=x,y"], false, ""),
            Ok(["0 x", "0 y", "1 x", "1 y"].map(String::from).into())
        );
        assert_eq!(rows(&["a=-1..1"], false, ""), Ok(["-1", "0"].map(String::from).into()));
        assert_eq!(rows(&["a=08..11"], false, ""), Ok(["08", "09", "10"].map(String::from).into()));
    }

    #[test]
    fn side_by_side_wants_as_many_of_each() {
        assert_eq!(rows(&["a=0..2", "b=x,y"], true, ""), Ok(["0 x", "1 y"].map(String::from).into()));
        let said = rows(&["a=0..3", "b=x,y"], true, "").expect_err("three and two");
        assert!(said.contains("`a` has 3, `b` has 2"), "{said}");
    }

    #[test]
    fn lines_come_without_their_ends() {
        let all = rows(&[], false, "one\ntwo words\r\n\nlast");
        assert_eq!(all, Ok(["one", "two words", "", "last"].map(String::from).into()));
        assert_eq!(rows(&[], false, ""), Ok(vec![]));
    }

    #[test]
    fn files_and_patterns_are_lists() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_str().expect("text");
        for name in ["b.dat", "a.dat", "c.txt"] {
            std::fs::write(folder.path().join(name), "1\n2\n").expect("a file");
        }
        assert_eq!(rows(&[&format!("f=@{place}/c.txt")], false, ""), Ok(["1", "2"].map(String::from).into()));
        let found = rows(&[&format!("f=glob:{place}/*.dat")], false, "");
        assert_eq!(found, Ok(vec![format!("{place}/a.dat"), format!("{place}/b.dat")]));
        let said = rows(&[&format!("f=glob:{place}/*.none")], false, "").expect_err("nothing");
        assert!(said.contains("has no values"), "{said}");
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, part) in [
            ("i", "has no `=`"),
            ("1i=0..2", "`1i` is no name"),
            ("i=3..3", "is empty"),
            ("i=a..b", "`a` in `i=a..b` is no whole number"),
            ("i=0..99999999999999999999", "is no whole number"),
            ("f=@/nowhere/x", "the values of `f` are not there: /nowhere/x"),
            ("f=glob:[", "is no pattern"),
        ] {
            let said = Variable::parse(text).expect_err(text);
            assert!(said.contains(part), "{text}: {said}");
        }
        let said = rows(&["i=0..2", "i=0..2"], false, "").expect_err("twice");
        assert!(said.contains("given twice"), "{said}");
        let much = "=0..9000000000000000000";
        let all: Vec<String> = ["a", "b"].iter().map(|name| format!("{name}{much}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(rows(&all, false, "").is_err());
    }
}
