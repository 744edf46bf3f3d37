//! Which names does a template declare, and which are used?

use super::model::{Name, NameId, When};
use crate::mistake::Findings;
use crate::nearest::did_you_mean;
use crate::parse::{Kind, Node};
use crate::source::Span;
use std::collections::HashMap;
use std::sync::Arc;

/// All names of a template.
#[derive(Default)]
pub(super) struct Names {
    pub(super) all: Vec<Name>,
    by_text: HashMap<Arc<str>, NameId>,
    used: Vec<bool>,
}

impl Names {
    /// Declares a name; tells of one that is declared already.
    pub(super) fn declare(
        &mut self,
        text: Arc<str>,
        span: Span,
        when: When,
        findings: &mut Findings,
    ) -> Option<NameId> {
        if let Some(first) = self.by_text.get(&text) {
            let first = &self.all[*first];
            let what = if first.when == when {
                "this name is declared twice"
            } else {
                "this name is bound both when the template is imported and when it is called"
            };
            findings.mend(span, what, format!("line {} declares it, too; leave one out", first.span.line));
            return None;
        }
        let id = self.all.len();
        self.by_text.insert(Arc::clone(&text), id);
        self.all.push(Name { text, span, when });
        self.used.push(false);
        Some(id)
    }

    /// The name that a text is, which is used by that.
    pub(super) fn find(&mut self, text: &str) -> Option<NameId> {
        let id = *self.by_text.get(text)?;
        self.used[id] = true;
        Some(id)
    }

    pub(super) fn peek(&self, text: &str) -> Option<NameId> {
        self.by_text.get(text).copied()
    }

    pub(super) fn meant(&self, text: &str) -> Option<String> {
        did_you_mean(text, self.all.iter().map(|name| &*name.text))
    }

    /// What they are called, by number.
    pub(super) fn texts(&self) -> impl Iterator<Item = Arc<str>> {
        self.all.iter().map(|name| Arc::clone(&name.text))
    }

    /// The names that something uses.
    pub(super) fn used(&self) -> impl Iterator<Item = Arc<str>> {
        let used = self.all.iter().zip(&self.used).filter(|(_, used)| **used);
        used.map(|(name, _)| Arc::clone(&name.text))
    }

    /// Warns of each name that nothing uses.
    pub(super) fn warn_of_unused(&self, findings: &mut Findings) {
        for (name, used) in self.all.iter().zip(&self.used) {
            if !used {
                findings.warn(name.span, "this name is declared and never used", "use it, or leave it out");
            }
        }
    }

    /// Declares the names of a list.
    pub(super) fn of_list(&mut self, node: &Node, when: When, findings: &mut Findings) -> Vec<NameId> {
        let Kind::Sequence(nodes) = &node.kind else {
            if !node.is_null() {
                let what = format!("a list of names stands here, and this is {}", node.word());
                findings.mend(node.span, what, "write `[name, …]`");
            }
            return Vec::new();
        };
        let mut ids = Vec::new();
        for node in nodes {
            match node.text() {
                Some(text) if !text.is_empty() => ids.extend(self.declare(text, node.span, when, findings)),
                _ => {
                    let what = format!("a name is text, and this is {}", node.word());
                    findings.wrong(node.span, what);
                }
            }
        }
        ids
    }
}
