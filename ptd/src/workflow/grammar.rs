//! A workflow file, or a template with values for its names → steps in blocks.

use super::range::Range;
use super::step::{For, Said, Set, SetValue, Step};
use crate::mistake::{Findings, Mistakes};
use crate::parse::{self, Kind, Node};
use crate::source::Source;
use crate::template::tables::{MAPREDUCE, STEP, WORKFLOW};
use crate::template::{ExprKind, StepNames, Template, entries, literal, read};
use crate::value::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is given to a workflow from outside: by a command line, or the program that embeds it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Values of names: of a template those of its names, of a workflow file in every step that has the name, where
    /// they take the place of the step's own.
    pub set: Vec<(String, Value)>,
    /// What names range over; in the same way.
    pub ranges: Vec<(String, Range)>,
    /// The names of `ranges` range together, not each with each. For a template alone; steps have their own `zip`.
    pub zip: bool,
    /// Functions and selectors of the program, and other values, for names that nothing else gives a value.
    pub registry: BTreeMap<String, Value>,
}

impl Options {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Steps in blocks, found right.
#[derive(Debug)]
pub struct Workflow {
    pub(super) source: Arc<Source>,
    pub(super) root: Block,
    pub(super) warnings: Mistakes,
}

/// Steps, and in which order they are.
#[derive(Debug)]
pub(super) enum Block {
    Step(Box<Step>),
    /// Each begins when the one before has ended.
    Sequence(Vec<Block>),
    /// In the order of their data.
    Parallel(Vec<Block>),
}

impl Workflow {
    /// The document.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What is likely to be wrong.
    pub fn warnings(&self) -> &Mistakes {
        &self.warnings
    }
}

/// Reads a file: a workflow, or a template, which is a workflow of one step.
///
/// Reads the templates it names, the files of lines that names range over, and looks for the files of patterns.
///
/// # Errors
/// Every mistake in it, in its templates, and in what is given for them.
pub fn load(path: impl AsRef<Path>, options: &Options) -> Result<Workflow, Mistakes> {
    parse(&parse::read(path.as_ref())?, options)
}

/// As [`load`], of a document.
///
/// # Errors
/// As that.
pub fn parse(source: &Arc<Source>, options: &Options) -> Result<Workflow, Mistakes> {
    let mut findings = Findings::new(source);
    let root = parse::parse(source, &mut findings);
    let mut reader = Reader { findings, options, templates: HashMap::new(), taken: Default::default() };
    let block = root.and_then(|root| {
        let is_workflow = match &root.kind {
            Kind::Mapping(entries) => {
                entries.iter().any(|(key, _)| WORKFLOW.names().any(|name| name == &*key.text))
            }
            _ => false,
        };
        if is_workflow { reader.workflow(&root) } else { reader.template_alone(&root) }
    });
    let (block, warnings) = reader.findings.end(block)?;
    let root = block.unwrap_or_else(|| Block::Parallel(Vec::new()));
    Ok(Workflow { source: Arc::clone(source), root, warnings })
}

struct Reader<'a> {
    findings: Findings,
    options: &'a Options,
    /// Templates of files by path, read once; `None` for those that are wrong.
    templates: HashMap<PathBuf, Option<Template>>,
    /// Names of the options that a step has taken.
    taken: std::collections::BTreeSet<String>,
}

impl Reader<'_> {
    /// A document that is a template.
    fn template_alone(&mut self, root: &Node) -> Option<Block> {
        let model = read(root, &mut self.findings);
        if !self.findings.mistakes.is_empty() {
            return None;
        }
        let constant = |(name, value): &(String, Value)| Set {
            name: name.as_str().into(),
            span: None,
            value: SetValue::Constant(value.clone()),
        };
        let of_range = |(name, range): &(String, Range)| For {
            name: name.as_str().into(),
            span: None,
            range: range.clone(),
        };
        let said = Said {
            template: &Template::of_model(model),
            span: None,
            sets: self.options.set.iter().map(constant).collect(),
            ranges: self.options.ranges.iter().map(of_range).collect(),
            is_zipped: self.options.zip,
            registry: &self.options.registry,
            declared: Vec::new(),
            used: Vec::new(),
        };
        Step::make(said, &mut self.findings).map(|step| Block::Step(Box::new(step)))
    }

    fn workflow(&mut self, root: &Node) -> Option<Block> {
        let known = entries(root, &WORKFLOW, &mut self.findings);
        let mut blocks = Vec::new();
        if let Kind::Mapping(all) = &root.kind {
            // In the order of the file.
            for (key, node) in all {
                if known.contains_key(&*key.text) {
                    blocks.extend(self.block(&key.text, node));
                }
            }
        }
        let options =
            self.options.set.iter().map(|it| &it.0).chain(self.options.ranges.iter().map(|it| &it.0));
        for name in options {
            if !self.taken.contains(name) {
                let what = "no step of the workflow has such a name";
                self.findings.mistakes.push(crate::Mistake::outside(name.as_str(), what));
            }
        }
        Some(Block::Parallel(blocks))
    }

    fn block(&mut self, key: &str, node: &Node) -> Option<Block> {
        match key {
            "sequence" => Some(Block::Sequence(self.steps(node))),
            "mapreduce" => {
                let known = entries(node, &MAPREDUCE, &mut self.findings);
                let mut parts = Vec::new();
                for key in ["map", "reduce"] {
                    match known.get(key) {
                        Some(node) => parts.push(Block::Parallel(self.steps(node))),
                        None if matches!(node.kind, Kind::Mapping(_)) => {
                            self.findings.mend(node.span, format!("this block has no `{key}`"), "add it");
                        }
                        None => {}
                    }
                }
                Some(Block::Sequence(parts))
            }
            _ => Some(Block::Parallel(self.steps(node))),
        }
    }

    /// A list of steps; a single one counts as such.
    fn steps(&mut self, node: &Node) -> Vec<Block> {
        match &node.kind {
            Kind::Sequence(nodes) => nodes.iter().filter_map(|node| self.step(node)).collect(),
            Kind::Mapping(_) => self.step(node).into_iter().collect(),
            Kind::Scalar { .. } => {
                let what = format!("a list of steps stands here, and this is {}", node.word());
                self.findings.mend(node.span, what, "write `- ptd: FILE` for each step");
                Vec::new()
            }
        }
    }

    fn step(&mut self, node: &Node) -> Option<Block> {
        let known = entries(node, &STEP, &mut self.findings);
        let blocks: Vec<&str> =
            ["sequence", "parallel", "mapreduce"].into_iter().filter(|key| known.contains_key(key)).collect();
        let is_mapping = matches!(node.kind, Kind::Mapping(_));
        match (known.get("ptd"), &blocks[..]) {
            (Some(ptd), []) => self.call(node, ptd, &known),
            (None, [block]) => {
                for key in ["set", "for", "zip"] {
                    if let Some(node) = known.get(key) {
                        self.findings.mend(
                            node.span,
                            format!("a block has no `{key}`"),
                            "give it to its steps",
                        );
                    }
                }
                self.block(block, known[block])
            }
            (None, []) if is_mapping => {
                self.findings.mend(
                    node.span,
                    "this step has nothing to do",
                    "add `ptd: FILE`, or a block of steps",
                );
                None
            }
            (None, []) => None,
            _ => {
                let what = "a step is a template or one block, and this one is several";
                self.findings.mend(node.span, what, "make a step of each");
                None
            }
        }
    }

    fn call(&mut self, node: &Node, ptd: &Node, known: &crate::template::Entries<'_>) -> Option<Block> {
        let before = self.findings.mistakes.len();
        let template = self.template(ptd);
        let is_zipped = known.get("zip").is_some_and(|node| match literal(node).to::<bool>() {
            Ok(zip) => zip,
            Err(_) => {
                self.findings.mend(node.span, "`zip` is true or false", "write one of them");
                false
            }
        });
        let mut ranges = known.get("for").map_or_else(Vec::new, |node| self.ranges(node));
        let mut names = StepNames::default();
        let mut sets = self.sets(known.get("set").copied(), node, &ranges, &mut names);
        let template = template?;
        if self.findings.mistakes.len() > before {
            // What is wrong is told; what follows from it need not be.
            return None;
        }
        self.take_from_outside(&template, &mut sets, &mut ranges);
        let said = Said {
            template: &template,
            span: Some(node.span),
            sets,
            ranges,
            is_zipped,
            registry: &self.options.registry,
            declared: names.texts(),
            used: names.used(),
        };
        let step = Step::make(said, &mut self.findings);
        step.filter(|_| self.findings.mistakes.len() == before).map(|step| Block::Step(Box::new(step)))
    }

    /// What is given from outside takes the place of what a step says.
    fn take_from_outside(&mut self, template: &Template, sets: &mut Vec<Set>, ranges: &mut Vec<For>) {
        let has = |name: &str, sets: &[Set], ranges: &[For]| {
            template.model.names.iter().any(|known| &*known.text == name)
                || sets.iter().any(|set| &*set.name == name)
                || ranges.iter().any(|it| &*it.name == name)
        };
        for (name, value) in &self.options.set {
            if has(name, sets, ranges) {
                self.taken.insert(name.clone());
                ranges.retain(|it| *it.name != **name);
                let value = SetValue::Constant(value.clone());
                match sets.iter_mut().find(|set| *set.name == **name) {
                    Some(set) => set.value = value,
                    None => sets.push(Set { name: name.as_str().into(), span: None, value }),
                }
            }
        }
        for (name, range) in &self.options.ranges {
            if has(name, sets, ranges) {
                self.taken.insert(name.clone());
                sets.retain(|set| *set.name != **name);
                match ranges.iter_mut().find(|it| *it.name == **name) {
                    Some(it) => it.range = range.clone(),
                    None => ranges.push(For { name: name.as_str().into(), span: None, range: range.clone() }),
                }
            }
        }
    }

    fn template(&mut self, node: &Node) -> Option<Template> {
        if let Kind::Mapping(_) = node.kind {
            let before = self.findings.mistakes.len();
            let model = read(node, &mut self.findings);
            return (self.findings.mistakes.len() == before).then(|| Template::of_model(model));
        }
        let Some(text) = node.text() else {
            let what = format!("a template is a path or a mapping, and this is {}", node.word());
            self.findings.wrong(node.span, what);
            return None;
        };
        let path = self.findings.source.folder().unwrap_or(Path::new("")).join(&*text);
        if let Some(template) = self.templates.get(&path) {
            return template.clone();
        }
        let template = match parse::read(&path) {
            Err(mistake) => {
                let what = format!("the template cannot be read: {}", mistake.what);
                match mistake.mend {
                    Some(mend) => self.findings.mend(node.span, what, mend),
                    None => self.findings.wrong(node.span, what),
                }
                None
            }
            Ok(source) => match Template::of_source(&source) {
                Ok(template) => {
                    self.findings.warnings.append(template.warnings().clone());
                    Some(template)
                }
                Err(mistakes) => {
                    self.findings.mistakes.append(mistakes);
                    None
                }
            },
        };
        self.templates.insert(path, template.clone());
        template
    }

    /// What names range over.
    fn ranges(&mut self, node: &Node) -> Vec<For> {
        let Kind::Mapping(entries) = &node.kind else {
            let what = format!("names and what they range over stand here, and this is {}", node.word());
            self.findings.mend(node.span, what, "write `{name: 0..10}`");
            return Vec::new();
        };
        let mut all = Vec::new();
        for (key, node) in entries {
            let range = match (&node.kind, node.text()) {
                (Kind::Sequence(nodes), _) => Range::list(nodes.iter().map(literal)),
                (_, Some(text)) => match Range::of_text(&text, self.findings.source.folder()) {
                    Some(Ok(range)) => range,
                    Some(Err(what)) => {
                        self.findings.wrong(node.span, what);
                        continue;
                    }
                    None => {
                        let what = "this is nothing to range over";
                        self.findings.mend(
                            node.span,
                            what,
                            "write `a..b`, a list, `glob:PATTERN` or `@FILE`",
                        );
                        continue;
                    }
                },
                _ => {
                    let what = format!("a name ranges over a list or `a..b`, and this is {}", node.word());
                    self.findings.mend(node.span, what, "write `a..b`, a list, `glob:PATTERN` or `@FILE`");
                    continue;
                }
            };
            if range.is_empty() {
                self.findings.warn(
                    node.span,
                    "there is nothing in this, so the step has no tasks",
                    "fill it",
                );
            }
            all.push(For { name: Arc::clone(&key.text), span: Some(key.span), range });
        }
        all
    }

    /// Values of names, over those of the step.
    fn sets(&mut self, node: Option<&Node>, step: &Node, ranges: &[For], names: &mut StepNames) -> Vec<Set> {
        for it in ranges {
            names.declare(&it.name, it.span.unwrap_or(step.span), &mut self.findings);
        }
        let Some(node) = node else { return Vec::new() };
        let Kind::Mapping(entries) = &node.kind else {
            let what = format!("names and their values stand here, and this is {}", node.word());
            self.findings.mend(node.span, what, "write `{name: value}`");
            return Vec::new();
        };
        let mut is_new = Vec::new();
        for (key, _) in entries {
            is_new.push(names.declare(&key.text, key.span, &mut self.findings));
        }
        let mut sets = Vec::new();
        for ((key, node), _) in entries.iter().zip(is_new).filter(|(_, is_new)| *is_new) {
            let expr = names.value(node, &mut self.findings);
            let value = match expr.kind {
                ExprKind::Constant(value) => SetValue::Constant(value),
                _ => SetValue::Made(expr),
            };
            sets.push(Set { name: Arc::clone(&key.text), span: Some(key.span), value });
        }
        sets
    }
}
