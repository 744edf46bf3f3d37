//! Where a text stands: the document it is from, and its line, column and bytes there.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A document: what it is called, and what is in it.
pub struct Source {
    name: String,
    /// The file it was read from; a document that was given as text has none.
    path: Option<PathBuf>,
    text: String,
}

impl Source {
    /// A document that was given as text, under a name for messages.
    pub fn of_text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), path: None, text: text.into() }
    }

    pub(crate) fn of_file(path: &Path, text: String) -> Self {
        Self { name: path.display().to_string(), path: Some(path.to_path_buf()), text }
    }

    /// What it is called in messages: its path, for a file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The folder against which relative paths in it count, if it is a file.
    pub fn folder(&self) -> Option<&Path> {
        self.path.as_deref()?.parent()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("bytes", &self.text.len()).finish()
    }
}

/// A stretch of a document.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Span {
    /// Its first line, from 1.
    pub line: u32,
    /// Its first column, in characters, from 1.
    pub column: u32,
    /// Its first byte.
    pub start: u32,
    /// The byte behind its last one.
    pub end: u32,
}

impl Span {
    /// Its bytes, in the document's text.
    pub fn bytes(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// From the start of this one to the end of another.
    pub(crate) fn to(self, last: Span) -> Span {
        Span { end: last.end.max(self.end), ..self }
    }
}
