//! A node of a document: what it is, and where it stands.

use super::scalar::{Scalar, resolve};
use crate::source::Span;
use std::sync::Arc;

/// A node, with all below it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar {
        text: Arc<str>,
        /// Without quotes, so that it may be a number, a bool or null.
        is_plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order of the document; keys are text, and each is there once.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) span: Span,
    pub(crate) text: Arc<str>,
    /// It is text, as it should be; if it is not, that has been told.
    pub(crate) is_text: bool,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// What a scalar is; `None` for the others.
    pub(crate) fn scalar(&self) -> Option<Scalar> {
        match &self.kind {
            Kind::Scalar { text, is_plain } => Some(resolve(text, *is_plain)),
            _ => None,
        }
    }

    /// The text of a scalar that is text.
    pub(crate) fn text(&self) -> Option<Arc<str>> {
        match (&self.kind, self.scalar()) {
            (Kind::Scalar { text, .. }, Some(Scalar::Text)) => Some(Arc::clone(text)),
            _ => None,
        }
    }

    /// What it is, in a word for people.
    pub(crate) fn word(&self) -> &'static str {
        match (&self.kind, self.scalar()) {
            (Kind::Sequence(_), _) => "a list",
            (Kind::Mapping(_), _) => "a mapping",
            (_, Some(Scalar::Null)) => "nothing",
            (_, Some(Scalar::Bool(_))) => "a bool",
            (_, Some(Scalar::Int(_) | Scalar::Float(_))) => "a number",
            _ => "text",
        }
    }

    /// Nodes of the tree, and its levels.
    pub(super) fn measure(&self) -> (usize, usize) {
        let all = |nodes: &mut dyn Iterator<Item = &Node>| {
            let measured = nodes.map(Node::measure);
            measured.fold((1, 1), |(size, height), (s, h)| (size + s, height.max(h + 1)))
        };
        match &self.kind {
            Kind::Scalar { .. } => (1, 0),
            Kind::Sequence(nodes) => all(&mut nodes.iter()),
            Kind::Mapping(entries) => all(&mut entries.iter().map(|(_, node)| node)),
        }
    }
}
