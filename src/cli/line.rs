//! A command line with places for values, and what it becomes for one row: arguments of a program, or text for a shell.
//!
//! `{name}` is the value of a variable, `{}` that of the only one, `{#}` the number of the row from 1; `{{` and `}}`
//! are braces. All else in braces, and what follows a `$`, is left as it is: shells and awk have uses for them.
//!
//! A line of plain words whose first one is a program on `PATH` is executed as it is, which costs half of what a shell
//! costs; all others are given to `/bin/sh -c`, with values quoted so that a shell takes each for one word.

use super::Refusal;
use super::rows::is_name;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Of the variable with this index.
    Value(usize),
    Number,
}

/// A command line that waits for values.
#[derive(Debug)]
pub(super) struct Line {
    /// The words of a line that needs no shell, each of them parts.
    words: Option<Vec<Vec<Part>>>,
    parts: Vec<Part>,
}

/// A row's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    /// For people; a shell reads it as the same.
    pub(super) shown: String,
}

impl Line {
    /// Reads a command line for variables of these names; none: for lines, whose name is empty.
    pub(super) fn parse(text: &str, names: &[&str], path: Option<&OsStr>) -> Result<Self, Refusal> {
        let names = if names.is_empty() { &[""] } else { names };
        let mut parts = split(text, names);
        let is_used = |index: usize| parts.contains(&Part::Value(index));
        if names == [""] && !is_used(0) {
            // As GNU parallel and xargs have it.
            parts.extend([Part::Text(" ".to_owned()), Part::Value(0)]);
        } else if let Some(unused) = (0..names.len()).find(|&index| !is_used(index))
            && let Some(unknown) = unknown(&parts)
        {
            let name = names[unused];
            return Err(Refusal::Words(format!(
                "no `--for` names the `{{{unknown}}}` of the command, and nothing uses `--for {name}=…`: write \
                 {{{name}}}, or {{{{{unknown}}}}} for braces"
            )));
        }
        if text.trim().is_empty() {
            return Err(Refusal::Words("the command is empty".to_owned()));
        }
        let words =
            words(&parts).filter(|words| matches!(&words[0][..], [Part::Text(name)] if is_on(path, name)));
        Ok(Self { words, parts })
    }

    /// The command for a row.
    pub(super) fn fill(&self, row: &[String], number: u64) -> Filled {
        let shown = text(&self.parts, |part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(index) => quoted(&row[*index]),
            Part::Number => number.to_string(),
        });
        let Some(words) = &self.words else {
            return Filled {
                program: "/bin/sh".to_owned(),
                args: vec!["-c".to_owned(), shown.clone()],
                shown,
            };
        };
        let word = |parts: &Vec<Part>| {
            text(parts, |part| match part {
                Part::Text(text) => text.clone(),
                Part::Value(index) => row[*index].clone(),
                Part::Number => number.to_string(),
            })
        };
        let mut words = words.iter().map(word);
        let program = words.next().unwrap_or_default();
        Filled { program, args: words.collect(), shown }
    }
}

fn text(parts: &[Part], one: impl Fn(&Part) -> String) -> String {
    parts.iter().map(one).collect()
}

/// The parts of a line.
fn split(text: &str, names: &[&str]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        if from.starts_with("{{") || from.starts_with("}}") {
            plain.push_str(&from[..1]);
            rest = &from[2..];
            continue;
        }
        let inside =
            from.strip_prefix('{').and_then(|inside| inside.split_once('}')).map(|(inside, _)| inside);
        let part = inside.filter(|_| !plain.ends_with('$')).and_then(|inside| part(inside, names));
        match (part, inside) {
            (Some(part), Some(inside)) => {
                parts.extend((!plain.is_empty()).then(|| Part::Text(std::mem::take(&mut plain))));
                parts.push(part);
                rest = &from[inside.len() + 2..];
            }
            _ => {
                plain.push_str(&from[..1]);
                rest = &from[1..];
            }
        }
    }
    plain.push_str(rest);
    parts.extend((!plain.is_empty()).then_some(Part::Text(plain)));
    parts
}

/// The first name in braces that is left in the text of a line.
fn unknown(parts: &[Part]) -> Option<&str> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Value(_) | Part::Number => None,
    });
    texts.flat_map(|text| text.split('{').skip(1)).find_map(|rest| {
        let (inside, _) = rest.split_once('}')?;
        is_name(inside).then_some(inside)
    })
}

fn part(inside: &str, names: &[&str]) -> Option<Part> {
    match inside {
        "#" => Some(Part::Number),
        "" => (names.len() == 1).then_some(Part::Value(0)),
        name if is_name(name) => names.iter().position(|it| *it == name).map(Part::Value),
        _ => None,
    }
}

/// The words of a line, if a shell would see nothing in it but words.
fn words(parts: &[Part]) -> Option<Vec<Vec<Part>>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \t_-./:,+@%=".contains(c);
    let mut words: Vec<Vec<Part>> = Vec::new();
    let mut is_open = false;
    for part in parts {
        let Part::Text(text) = part else {
            if !is_open {
                words.push(Vec::new());
            }
            words.last_mut()?.push(part.clone());
            is_open = true;
            continue;
        };
        if !text.chars().all(is_plain) {
            return None;
        }
        for (index, piece) in text.split([' ', '\t']).enumerate() {
            is_open &= index == 0;
            if piece.is_empty() {
                continue;
            }
            if !is_open {
                words.push(Vec::new());
            }
            // `a=b` in front sets a variable.
            if words.len() == 1 && piece.contains('=') {
                return None;
            }
            words.last_mut()?.push(Part::Text(piece.to_owned()));
            is_open = true;
        }
        is_open &= !text.ends_with([' ', '\t']);
    }
    (!words.is_empty()).then_some(words)
}

/// Whether a program of this name is found.
fn is_on(path: Option<&OsStr>, name: &str) -> bool {
    let is_executable = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return is_executable(Path::new(name));
    }
    path.is_some_and(|path| std::env::split_paths(path).any(|folder| is_executable(&folder.join(name))))
}

/// A value as a shell's word.
fn quoted(value: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./:,+@%=".contains(c);
    if !value.is_empty() && value.chars().all(is_safe) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, names: &[&str], row: &[&str]) -> Filled {
        let row: Vec<String> = row.iter().map(|it| (*it).to_owned()).collect();
        let path = std::env::var_os("PATH");
        Line::parse(text, names, path.as_deref()).expect("a line").fill(&row, 7)
    }

    fn argv(text: &str, names: &[&str], row: &[&str]) -> Vec<String> {
        let filled = fill(text, names, row);
        std::iter::once(filled.program).chain(filled.args).collect()
    }

    #[test]
    fn plain_words_need_no_shell() {
        assert_eq!(argv("echo {i} x{f}.{#}", &["i", "f"], &["1", "a b"]), ["echo", "1", "xa b.7"]);
        assert_eq!(argv("echo  -n\t{}", &["i"], &["$HOME"]), ["echo", "-n", "$HOME"]);
        assert_eq!(argv("echo", &[], &["a  b"]), ["echo", "a  b"]);
        assert_eq!(argv("env a=b echo {i}", &["i"], &[""]), ["env", "a=b", "echo", ""]);
    }

    #[test]
    fn all_else_goes_to_a_shell_with_values_quoted() {
        let shell = |text: &str, row: &[&str]| argv(text, &["i"], row)[2].clone();
        assert_eq!(shell("echo {i} > out", &["a b"]), "echo 'a b' > out");
        assert_eq!(shell("echo {i} | wc", &["it's"]), "echo 'it'\\''s' | wc");
        assert_eq!(shell("exit {i}", &["3"]), "exit 3");
        assert_eq!(shell("A=1 env {i}", &[""]), "A=1 env ''");
        assert_eq!(shell("ls ~ {i}", &["x;rm"]), "ls ~ 'x;rm'");
    }

    #[test]
    fn braces_of_others_stay() {
        let shell = |text: &str| argv(text, &["i"], &["5"])[2].clone();
        assert_eq!(shell("awk '{print $1}' {i}"), "awk '{print $1}' 5");
        assert_eq!(shell("awk '{print}' {i}"), "awk '{print}' 5");
        assert_eq!(shell("echo ${i} {i} ${HOME}"), "echo ${i} 5 ${HOME}");
        assert_eq!(shell("echo {{i}} {i} }{ {"), "echo {i} 5 }{ {");
        assert_eq!(shell("echo {i;{i}"), "echo {i;5");
    }

    #[test]
    fn a_name_that_nothing_fills_is_a_mistake() {
        let path = std::env::var_os("PATH");
        let said = |text: &str, names: &[&str]| {
            Line::parse(text, names, path.as_deref()).expect_err("a mistake").to_string()
        };
        let typo = said("echo {ii}", &["i"]);
        assert!(
            typo.starts_with("no `--for` names the `{ii}` of the command, and nothing uses `--for i=…`"),
            "{typo}"
        );
        // A command that is the same for all rows is none.
        assert_eq!(argv("true", &["i"], &["1"]), ["true"]);
        assert_eq!(said("  ", &[]), "the command is empty");
    }
}
