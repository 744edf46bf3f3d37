//! Events of the YAML parser → a tree of nodes.

use super::node::{Key, Kind, Node};
use super::scalar::{Scalar, ambiguity, resolve};
use super::{DEPTH_MAX, DOCUMENT_BYTES_MAX, NODES_MAX};
use crate::mistake::{Findings, Mistake};
use crate::source::{Source, Span};
use granit_parser::{Event, Parser, ScalarStyle, Tag};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The document as a tree. What can be told of a document that is not right is told in `findings`; `None` if there is
/// no tree.
pub(crate) fn parse(source: &Arc<Source>, findings: &mut Findings) -> Option<Node> {
    let text = source.text();
    if text.len() > DOCUMENT_BYTES_MAX {
        let what = format!("the document is longer than {} MiB", DOCUMENT_BYTES_MAX >> 20);
        findings.mistakes.push(Mistake::of(source, what));
        return None;
    }
    let options = granit_parser::options! {
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        emit_comments: false,
    };
    let mut tree = Tree { findings, open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok((event, span)) => (event, placed(span)),
            Err(error) => {
                let at = error.marker();
                let place = placed(granit_parser::Span::empty(*at));
                tree.syntax(place, &error);
                return None;
            }
        };
        tree.event(event, span)?;
    }
    let root = tree.root;
    if root.is_none() {
        let mistake = Mistake::of(source, "the document is empty");
        findings.mistakes.push(mistake.mend("a template has at least `type:` and `executables:`"));
    }
    root
}

fn placed(span: granit_parser::Span) -> Span {
    let byte = |marker: &granit_parser::Marker| marker.byte_offset().unwrap_or(marker.index()) as u32;
    let (start, end) = (byte(&span.start), byte(&span.end));
    Span { line: span.start.line() as u32, column: span.start.col() as u32 + 1, start, end: end.max(start) }
}

/// A collection that has not ended.
struct Open {
    span: Span,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Key, Node)>, key: Option<Key>, merged: Vec<Node> },
}

struct Tree<'a> {
    findings: &'a mut Findings,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Tree<'_> {
    /// What the parser says is no YAML.
    fn syntax(&mut self, place: Span, error: &granit_parser::ScanError) {
        let rest = self.findings.source.text().get(place.start as usize..).unwrap_or_default();
        let is_tab = rest.trim_start_matches(' ').starts_with('\t') || error.info().starts_with("tab");
        let line = rest.lines().next().unwrap_or_default();
        let place = Span { end: place.start + line.len().min(80) as u32, ..place };
        let place = if self.findings.source.text().is_char_boundary(place.end as usize) {
            place
        } else {
            Span { end: place.start + line.len() as u32, ..place }
        };
        if matches!(error.kind(), granit_parser::ErrorKind::RecursionLimitExceeded) {
            self.findings.wrong(place, format!("it is nested more than {DEPTH_MAX} levels deep"));
        } else if is_tab {
            let what = format!("this is no YAML: {}", error.info());
            self.findings.mend(place, what, "indent with spaces, not with tabs");
        } else {
            self.findings.wrong(place, format!("this is no YAML: {}", error.info()));
        }
    }

    /// Takes in one event; `None` if what follows cannot be made sense of.
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.findings.mend(span, "a second document begins here", "one file holds one document");
                return None;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = matches!(style, ScalarStyle::Plain);
                let is_plain = self.check_tag(tag.as_deref(), span, is_plain);
                let node = Node { span, kind: Kind::Scalar { text: Arc::from(&*text), is_plain } };
                self.count(1, span)?;
                self.add(node, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span, true);
                self.begin(span, anchor, Inside::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span, true);
                let inside = Inside::Mapping { entries: Vec::new(), key: None, merged: Vec::new() };
                self.begin(span, anchor, inside)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser ends what it began");
                let kind = match open.inside {
                    Inside::Sequence(nodes) => Kind::Sequence(nodes),
                    Inside::Mapping { entries, merged, .. } => Kind::Mapping(self.merge(entries, merged)),
                };
                self.add(Node { span: open.span.to(span), kind }, open.anchor);
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    self.findings.wrong(span, "this alias stands inside of what it stands for");
                    return None;
                };
                let (size, height) = node.measure();
                self.count(size, span)?;
                if self.open.len() + height > DEPTH_MAX {
                    self.findings
                        .wrong(span, format!("with aliases it is nested more than {DEPTH_MAX} levels deep"));
                    return None;
                }
                self.add(Node { span, ..node }, 0);
            }
            _ => {}
        }
        Some(())
    }

    fn begin(&mut self, span: Span, anchor: usize, inside: Inside) -> Option<()> {
        self.count(1, span)?;
        if self.open.len() >= DEPTH_MAX {
            self.findings.wrong(span, format!("it is nested more than {DEPTH_MAX} levels deep"));
            return None;
        }
        self.open.push(Open { span, anchor, inside });
        Some(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Option<()> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let what = format!("the document has more than {NODES_MAX} nodes, aliases counted");
            self.findings.mend(span, what, "put long lists into a file of their own: `\"@list.txt\"`");
            return None;
        }
        Some(())
    }

    /// Whether a scalar is plain as far as its tag goes; tells of tags that mean nothing here.
    fn check_tag(&mut self, tag: Option<&Tag>, span: Span, is_plain: bool) -> bool {
        let Some(tag) = tag else { return is_plain };
        match tag.core_suffix() {
            Some("str") => false,
            Some(_) => is_plain,
            None => {
                let what = format!("the tag `{}` means nothing here", tag.original());
                self.findings.mend(span, what, "leave it out; a value that is no name is `{literal: …}`");
                is_plain
            }
        }
    }

    /// Puts a node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let is_key = matches!(self.open.last(), Some(Open { inside: Inside::Mapping { key: None, .. }, .. }));
        if let Kind::Scalar { text, is_plain: true } = &node.kind
            && let Some((what, mend)) = ambiguity(text)
        {
            self.findings.mend(node.span, what, mend);
        }
        if is_key {
            let key = self.key_of(node);
            if let Some(Open { inside: Inside::Mapping { key: place, .. }, .. }) = self.open.last_mut() {
                *place = Some(key);
            }
            return;
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::Sequence(nodes)) => nodes.push(node),
            Some(Inside::Mapping { entries, key, merged }) => {
                let key = key.take().expect("a value comes after its key");
                if &*key.text == "<<" { merged.push(node) } else { entries.push((key, node)) }
            }
        }
    }

    /// The key that a node is.
    fn key_of(&mut self, node: Node) -> Key {
        let (span, word) = (node.span, node.word());
        match node.kind {
            Kind::Scalar { text, is_plain } => {
                let is_text = resolve(&text, is_plain) == Scalar::Text;
                if !is_text {
                    let shown = if text.is_empty() { "null" } else { &*text };
                    let mend = format!("quote it if it is a name: \"{shown}\"");
                    self.findings.mend(span, format!("a key must be text, and this is {word}"), mend);
                }
                Key { span, text, is_text }
            }
            _ => {
                self.findings.wrong(span, format!("a key must be text, and this is {word}"));
                Key { span, text: format!("key at byte {}", span.start).into(), is_text: false }
            }
        }
    }

    /// The entries of a mapping, each key once, with those that it takes over from others by `<<`.
    fn merge(&mut self, entries: Vec<(Key, Node)>, merged: Vec<Node>) -> Vec<(Key, Node)> {
        let mut seen = HashMap::<Arc<str>, Span>::new();
        let mut kept = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            if let Some(first) = seen.get(&key.text) {
                let mend = format!("it is given in line {}, too", first.line);
                self.findings.mend(key.span, "this key is there twice", mend);
                continue;
            }
            seen.insert(Arc::clone(&key.text), key.span);
            kept.push((key, node));
        }
        let mut known: HashSet<Arc<str>> = seen.into_keys().collect();
        for node in merged {
            let span = node.span;
            let parts = match node.kind {
                Kind::Sequence(nodes) => nodes,
                kind => vec![Node { span, kind }],
            };
            for part in parts {
                let Kind::Mapping(more) = part.kind else {
                    self.findings
                        .wrong(part.span, "`<<` takes over the entries of a mapping, and this is none");
                    continue;
                };
                kept.extend(more.into_iter().filter(|(key, _)| known.insert(Arc::clone(&key.text))));
            }
        }
        kept
    }
}
