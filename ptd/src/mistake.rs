//! What is wrong with a document or with what was given to it: where, why, and how to mend it.
//!
//! Whoever looks through a document keeps a [`Findings`] and goes on after each mistake, so that all are told at once.

use crate::source::{Source, Span};
use std::fmt;
use std::sync::Arc;

/// Characters of an offending text that are shown.
const SHOWN_CHARS_MAX: usize = 60;
/// Findings that are kept; those after these are counted.
const FINDINGS_MAX: usize = 200;

/// One thing that is wrong, or that is likely to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mistake {
    /// The document it stands in; none for what was given to it from outside.
    pub source: Option<Arc<Source>>,
    /// Where it stands there; none for what is about the whole.
    pub span: Option<Span>,
    /// The offending text: its first line, shortened.
    pub text: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it, where that is known.
    pub mend: Option<String>,
}

impl Mistake {
    /// About a stretch of a document.
    pub(crate) fn at(source: &Arc<Source>, span: Span, what: impl Into<String>) -> Self {
        let text = source.text().get(span.bytes()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        let mut shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        Self {
            source: Some(Arc::clone(source)),
            span: Some(span),
            text: shown,
            what: what.into(),
            mend: None,
        }
    }

    /// About a document as a whole.
    pub(crate) fn of(source: &Arc<Source>, what: impl Into<String>) -> Self {
        let source = Some(Arc::clone(source));
        Self { source, span: None, text: String::new(), what: what.into(), mend: None }
    }

    /// About what was given from outside, which is shown.
    pub(crate) fn outside(text: impl Into<String>, what: impl Into<String>) -> Self {
        Self { source: None, span: None, text: text.into(), what: what.into(), mend: None }
    }

    pub(crate) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// The name of its document; empty for what was given from outside.
    pub fn file(&self) -> &str {
        self.source.as_ref().map_or("", |source| source.name())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, &self.span) {
            (Some(source), Some(span)) => write!(f, "{}:{}:{}: ", source.name(), span.line, span.column)?,
            (Some(source), None) => write!(f, "{}: ", source.name())?,
            (None, _) => {}
        }
        f.write_str(&self.what)?;
        if !self.text.is_empty() {
            write!(f, ": `{}`", self.text)?;
        }
        self.mend.iter().try_for_each(|mend| write!(f, "; {mend}"))
    }
}

/// All that is wrong, in the order of the documents.
#[derive(Clone, Debug, Default)]
pub struct Mistakes {
    all: Vec<Mistake>,
    /// Further ones.
    left_out: usize,
}

impl Mistakes {
    /// Each of them; of more than 200 the first ones.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.all.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len() + self.left_out
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn push(&mut self, mistake: Mistake) {
        if self.all.len() < FINDINGS_MAX { self.all.push(mistake) } else { self.left_out += 1 }
    }

    pub(crate) fn append(&mut self, others: Mistakes) {
        others.all.into_iter().for_each(|mistake| self.push(mistake));
        self.left_out += others.left_out;
    }

    /// By document and place; those of one place in the order in which they were found.
    fn sort(&mut self) {
        let key = |it: &Mistake| (it.file().to_string(), it.span.map(|span| span.start));
        self.all.sort_by_cached_key(key);
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self { all: vec![mistake], left_out: 0 }
    }
}

impl<'a> IntoIterator for &'a Mistakes {
    type Item = &'a Mistake;
    type IntoIter = std::slice::Iter<'a, Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.all.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// What was found in one document so far.
pub(crate) struct Findings {
    pub(crate) source: Arc<Source>,
    pub(crate) mistakes: Mistakes,
    /// What is likely to be wrong, but keeps nobody from going on.
    pub(crate) warnings: Mistakes,
}

impl Findings {
    pub(crate) fn new(source: &Arc<Source>) -> Self {
        Self { source: Arc::clone(source), mistakes: Mistakes::default(), warnings: Mistakes::default() }
    }

    pub(crate) fn wrong(&mut self, span: Span, what: impl Into<String>) {
        self.mistakes.push(Mistake::at(&self.source, span, what));
    }

    /// As [`wrong`](Self::wrong), with what to do about it.
    pub(crate) fn mend(&mut self, span: Span, what: impl Into<String>, mend: impl Into<String>) {
        self.mistakes.push(Mistake::at(&self.source, span, what).mend(mend));
    }

    pub(crate) fn warn(&mut self, span: Span, what: impl Into<String>, mend: impl Into<String>) {
        self.warnings.push(Mistake::at(&self.source, span, what).mend(mend));
    }

    /// What was built, if nothing is wrong with it, and the warnings.
    pub(crate) fn end<T>(mut self, built: T) -> Result<(T, Mistakes), Mistakes> {
        self.mistakes.sort();
        self.warnings.sort();
        if self.mistakes.is_empty() { Ok((built, self.warnings)) } else { Err(self.mistakes) }
    }
}
