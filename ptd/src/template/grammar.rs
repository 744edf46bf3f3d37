//! A tree of nodes → a template, with every mistake in it told.

use super::expr::Exprs;
use super::keys::{ACCESS, EXECUTABLE, Key, TEMPLATE, TIMEOUT, Table};
use super::model::{
    Access, Callee, Executable, Expr, ExprKind, Keyword, Model, NameId, Options, TaskKind, When,
};
use super::names::Names;
use crate::mistake::Findings;
use crate::nearest::did_you_mean;
use crate::parse::{Kind, Node};
use crate::value::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The names of a step of a workflow, and values over them.
#[derive(Default)]
pub(crate) struct StepNames(Names);

impl StepNames {
    /// Declares a name; `false` if it is there already, which is told.
    pub(crate) fn declare(
        &mut self,
        text: &Arc<str>,
        span: crate::source::Span,
        findings: &mut Findings,
    ) -> bool {
        self.0.declare(Arc::clone(text), span, When::Call, findings).is_some()
    }

    /// What a value is made from.
    pub(crate) fn value(&mut self, node: &Node, findings: &mut Findings) -> Expr {
        Exprs { names: &mut self.0, findings }.value(node)
    }

    /// What the names are called, by number.
    pub(crate) fn texts(&self) -> Vec<Arc<str>> {
        self.0.texts().collect()
    }

    /// The names that values use.
    pub(crate) fn used(&self) -> Vec<Arc<str>> {
        self.0.used().collect()
    }
}

/// The entries of a mapping, by key.
pub(crate) type Entries<'a> = HashMap<&'static str, &'a Node>;

/// The entries of a mapping whose keys are those of a table; tells of others. Keys without a value are left out.
pub(crate) fn entries<'a>(node: &'a Node, table: &Table, findings: &mut Findings) -> Entries<'a> {
    let Kind::Mapping(all) = &node.kind else {
        let what = format!("{} is a mapping, and this is {}", table.one(), node.word());
        let keys: Vec<&str> = table.names().take(4).collect();
        findings.mend(node.span, what, format!("its keys are {}, …", keys.join(", ")));
        return Entries::new();
    };
    let mut known = Entries::new();
    for (key, node) in all {
        match table.keys.iter().find(|known: &&Key| known.name == &*key.text) {
            Some(_) if node.is_null() => {}
            Some(found) => {
                known.insert(found.name, node);
            }
            None if !key.is_text => {}
            None => {
                let mend = did_you_mean(&key.text, table.names()).unwrap_or_else(|| {
                    format!(
                        "the keys of a {} are {}",
                        table.name,
                        table.names().collect::<Vec<_>>().join(", ")
                    )
                });
                findings.mend(key.span, format!("{} has no such key", table.one()), mend);
            }
        }
    }
    known
}

/// The template that a tree is. Where it is wrong there is nothing in its place, and the mistake is told.
pub(crate) fn read(root: &Node, findings: &mut Findings) -> Model {
    let known = entries(root, &TEMPLATE, findings);
    let is_mapping = matches!(root.kind, Kind::Mapping(_));
    let mut names = Names::default();
    let mut of = |key, when, findings: &mut Findings| {
        known.get(key).map_or_else(Vec::new, |node: &&Node| names.of_list(node, when, findings))
    };
    let import_args = of("import_args", When::Import, findings);
    let args = of("args", When::Call, findings);
    let keywords = known.get("import_kwargs").map(|node| declare(node, When::Import, &mut names, findings));
    let kwargs = known.get("kwargs").map(|node| declare(node, When::Call, &mut names, findings));
    let kwargs = kwargs.unwrap_or_default().into_iter().map(|(keyword, _)| keyword).collect();
    let mut exprs = Exprs { names: &mut names, findings };
    let import_kwargs = defaults(keywords.unwrap_or_default(), &mut exprs);
    let kind = kind(root, known.get("type").copied(), is_mapping, &mut exprs);
    let fixed = match &kind.kind {
        ExprKind::Constant(value) => value.text().ok().and_then(|word| TaskKind::of(&word)),
        _ => None,
    };
    let (stdout, stderr, executables) = executables(root, &known, fixed, is_mapping, &mut exprs);
    let mut options = options(&known, &mut exprs);
    options.stdout = options.stdout.or(stdout);
    options.stderr = options.stderr.or(stderr);
    if fixed == Some(TaskKind::Function) {
        for output in [&options.stdout, &options.stderr].into_iter().flatten() {
            let what = "no file gets the output of a function";
            exprs.findings.warn(output.span, what, "read it by `stdout()` and `stderr()` of its task");
        }
    }
    let reads = known.get("reads").map_or_else(Vec::new, |node| accesses(node, &mut exprs));
    let writes = known.get("writes").map_or_else(Vec::new, |node| accesses(node, &mut exprs));
    let source = Arc::clone(&findings.source);
    names.warn_of_unused(findings);
    let names = names.all;
    Model {
        source,
        names,
        import_args,
        import_kwargs,
        args,
        kwargs,
        kind,
        executables,
        reads,
        writes,
        options,
    }
}

/// Declares the names of keywords; with each that has a default the node of it.
fn declare<'a>(
    node: &'a Node,
    when: When,
    names: &mut Names,
    findings: &mut Findings,
) -> Vec<(Keyword, Option<&'a Node>)> {
    let Kind::Mapping(entries) = &node.kind else {
        let what = format!("keywords stand here, and this is {}", node.word());
        findings.mend(node.span, what, "write `{keyword: name, …}`");
        return Vec::new();
    };
    let mut keywords = Vec::new();
    for (key, node) in entries {
        let name = node.text().filter(|text| !text.is_empty());
        // A name that is there already is what the keyword is without a value.
        let is_known = name.as_ref().and_then(|name| names.peek(name)).is_some_and(|id| {
            when == When::Import && names.all[id].when == When::Import && names.all[id].text != key.text
        });
        let (text, span, default) = match (name, when) {
            (Some(name), _) if !is_known => (name, node.span, None),
            (_, When::Import) => (Arc::clone(&key.text), key.span, Some(node)),
            (_, When::Call) => {
                let what = format!("a keyword of a call has a name, and this is {}", node.word());
                findings.mend(key.span, what, format!("write `{}: name`", key.text));
                continue;
            }
        };
        if let Some(name) = names.declare(text, span, when, findings) {
            keywords.push((Keyword { text: Arc::clone(&key.text), name, default: None }, default));
        }
    }
    keywords
}

/// Keywords with their defaults, each after those whose names it uses.
fn defaults(keywords: Vec<(Keyword, Option<&Node>)>, exprs: &mut Exprs<'_>) -> Vec<Keyword> {
    let mut all: Vec<Keyword> = Vec::new();
    for (mut keyword, default) in keywords {
        keyword.default = default.map(|node| exprs.value(node));
        if let Some(default) = &keyword.default {
            let names = &exprs.names.all;
            let late = names_in(default).into_iter().find(|(id, _)| names[*id].when == When::Call);
            if let Some((_, span)) = late {
                let what =
                    "a default is made when the template is imported, and this name is bound at a call";
                exprs.findings.wrong(span, what);
            }
        }
        all.push(keyword);
    }
    let mut ordered: Vec<Keyword> = Vec::new();
    while !all.is_empty() {
        let waits = |keyword: &Keyword, all: &[Keyword]| {
            let used = keyword.default.iter().flat_map(names_in).collect::<Vec<_>>();
            used.iter().any(|(id, _)| all.iter().any(|other| other.name == *id))
        };
        let (waiting, free): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|keyword| waits(keyword, &all));
        if free.is_empty() {
            let span = exprs.names.all[waiting[0].name].span;
            exprs.findings.wrong(span, "this default needs itself");
            break;
        }
        ordered.extend(free);
        all = waiting;
    }
    ordered
}

/// The names that a value is made from, with their places.
pub(crate) fn names_in(expr: &Expr) -> Vec<(NameId, crate::source::Span)> {
    match &expr.kind {
        ExprKind::Constant(_) => Vec::new(),
        ExprKind::Name(id) => vec![(*id, expr.span)],
        ExprKind::Call(callee, args) => {
            let name = match callee {
                Callee::Name(id) => Some((*id, expr.span)),
                Callee::Builtin(_) => None,
            };
            name.into_iter().chain(args.iter().flat_map(names_in)).collect()
        }
        ExprKind::List(exprs) | ExprKind::Format(_, exprs) => exprs.iter().flat_map(names_in).collect(),
        ExprKind::Mapping(entries) => entries.iter().flat_map(|(_, expr)| names_in(expr)).collect(),
    }
}

/// What `type` says.
fn kind(root: &Node, node: Option<&Node>, is_mapping: bool, exprs: &mut Exprs<'_>) -> Expr {
    let Some(node) = node else {
        if is_mapping {
            let mistake = crate::Mistake::of(&exprs.findings.source, "the template has no `type`");
            exprs.findings.mistakes.push(mistake.mend("write `type: function`, `process` or `job`"));
        }
        return Expr::constant(root, Value::NULL);
    };
    let expr = exprs.value(node);
    if let ExprKind::Constant(_) = &expr.kind {
        let word = node.text().unwrap_or_default();
        if TaskKind::of(&word).is_none() {
            let mend = did_you_mean(&word, ["function", "process", "job"]);
            let mend =
                mend.unwrap_or_else(|| "write `function`, `process` or `job`, or a declared name".into());
            exprs.findings.mend(node.span, "there is no such type of task", mend);
        }
    }
    expr
}

/// What there is to run, and where its output goes.
fn executables(
    root: &Node,
    known: &Entries<'_>,
    kind: Option<TaskKind>,
    is_mapping: bool,
    exprs: &mut Exprs<'_>,
) -> (Option<Expr>, Option<Expr>, Vec<Executable>) {
    let nodes = match known.get("executables") {
        Some(Node { kind: Kind::Sequence(nodes), .. }) if !nodes.is_empty() => nodes,
        Some(node) => {
            let what = format!("a list of executables stands here, and this is {}", node.word());
            exprs.findings.mend(node.span, what, "write `- target: …` below it");
            return (None, None, Vec::new());
        }
        None => {
            if is_mapping {
                let mistake = crate::Mistake::of(&exprs.findings.source, "the template has no `executables`");
                exprs
                    .findings
                    .mistakes
                    .push(mistake.mend("write `executables:` with `- target: …` below it"));
            }
            let _ = root;
            return (None, None, Vec::new());
        }
    };
    let (mut stdout, mut stderr) = (None, None);
    let mut all: Vec<Executable> = Vec::new();
    for node in nodes {
        let known = entries(node, &EXECUTABLE, exprs.findings);
        for (place, key) in [(&mut stdout, "stdout"), (&mut stderr, "stderr")] {
            let Some(node) = known.get(key) else { continue };
            if place.is_some() {
                let what = format!("the executables of a job have one `{key}` together");
                exprs.findings.mend(node.span, what, "give it once");
            }
            *place = Some(exprs.value(node));
        }
        all.extend(executable(node, &known, kind, exprs));
    }
    if let (Some(TaskKind::Function | TaskKind::Process), Some(second)) = (kind, all.get(1)) {
        let what = "only a job has several executables";
        exprs.findings.mend(second.span, what, "write `type: job`, or a template for each");
    }
    (stdout, stderr, all)
}

fn executable(
    node: &Node,
    known: &Entries<'_>,
    kind: Option<TaskKind>,
    exprs: &mut Exprs<'_>,
) -> Option<Executable> {
    let Some(target) = known.get("target") else {
        if matches!(node.kind, Kind::Mapping(_)) {
            exprs.findings.mend(node.span, "this executable has no `target`", "name what it runs");
        }
        return None;
    };
    let is_constant = |expr: &Expr| matches!(expr.kind, ExprKind::Constant(_));
    let expr = exprs.value(target);
    if is_constant(&expr) {
        let text = target.text();
        if kind == Some(TaskKind::Function) {
            let mend = text.as_ref().and_then(|text| exprs.names.meant(text));
            let mend = mend.unwrap_or_else(|| "declare it in `import_args`".into());
            exprs.findings.mend(target.span, "the function is no declared name", mend);
        } else if text.is_none_or(|text| text.is_empty()) {
            let what = format!("a program is a path or a name, and this is {}", target.word());
            exprs.findings.wrong(target.span, what);
        }
    }
    if kind == Some(TaskKind::Function) || kind == Some(TaskKind::Process) {
        for key in ["nprocs", "cwd", "env"] {
            let is_allowed = kind == Some(TaskKind::Process) && key != "nprocs";
            let Some(node) = known.get(key).filter(|_| !is_allowed) else { continue };
            let word = kind.map_or("", TaskKind::word);
            exprs.findings.mend(
                node.span,
                format!("a {word} has no `{key}`"),
                "leave it out, or change `type`",
            );
        }
    }
    Some(Executable {
        span: node.span,
        target: expr,
        args: known.get("args").map_or_else(Vec::new, |node| exprs.values(node)),
        kwargs: known.get("kwargs").map_or_else(Vec::new, |node| exprs.by_name(node)),
        nprocs: known.get("nprocs").map(|node| exprs.value(node)),
        cwd: known.get("cwd").map(|node| exprs.value(node)),
        env: known.get("env").map(|node| environment(node, exprs)),
    })
}

/// Variables by name, or what is such a mapping.
fn environment(node: &Node, exprs: &mut Exprs<'_>) -> Expr {
    match &node.kind {
        Kind::Mapping(entries) => {
            // One entry with a list is a call, if there is such a function.
            if let [(key, argument)] = &entries[..]
                && matches!(argument.kind, Kind::Sequence(_))
            {
                let _ = key;
                return exprs.value(node);
            }
            let entries = exprs.by_name(node);
            Expr { span: node.span, kind: ExprKind::Mapping(entries) }
        }
        Kind::Scalar { .. } if node.text().is_some_and(|text| exprs.names.peek(&text).is_some()) => {
            exprs.value(node)
        }
        _ => {
            let what = format!("an environment is a mapping or a name, and this is {}", node.word());
            exprs.findings.mend(node.span, what, "write `{VARIABLE: value, …}`, or declare the name");
            Expr::constant(node, Value::NULL)
        }
    }
}

fn accesses(node: &Node, exprs: &mut Exprs<'_>) -> Vec<Access> {
    let Kind::Sequence(nodes) = &node.kind else {
        let what = format!("a list of accesses stands here, and this is {}", node.word());
        exprs.findings.mend(node.span, what, "write `- files: [value, …]` or `- ddict: name` with `keys`");
        return Vec::new();
    };
    let mut all = Vec::new();
    for node in nodes {
        let known = entries(node, &ACCESS, exprs.findings);
        let (files, dictionary, keys) = (known.get("files"), known.get("ddict"), known.get("keys"));
        if let Some(files) = files {
            all.push(Access::Files(exprs.values(files)));
        }
        match (dictionary, keys) {
            (Some(dictionary), Some(keys)) => {
                let expr = exprs.value(dictionary);
                if matches!(expr.kind, ExprKind::Constant(_)) {
                    let mend = dictionary.text().and_then(|text| exprs.names.meant(&text));
                    let mend = mend.unwrap_or_else(|| "declare it in `import_args` or `args`".into());
                    exprs.findings.mend(dictionary.span, "the dictionary is no declared name", mend);
                }
                all.push(Access::Keys { dictionary: expr, keys: exprs.values(keys) });
            }
            (Some(lonely), None) => {
                exprs.findings.mend(
                    lonely.span,
                    "this dictionary has no `keys`",
                    "write `keys: [value, …]` beside it",
                );
            }
            (None, Some(lonely)) => {
                exprs.findings.mend(
                    lonely.span,
                    "these keys have no `ddict`",
                    "write `ddict: name` beside them",
                );
            }
            (None, None) if files.is_none() && matches!(node.kind, Kind::Mapping(_)) => {
                exprs.findings.mend(
                    node.span,
                    "this access names nothing",
                    "write `files:`, or `ddict:` and `keys:`",
                );
            }
            (None, None) => {}
        }
    }
    all
}

fn options(known: &Entries<'_>, exprs: &mut Exprs<'_>) -> Options {
    let mut of = |key| known.get(key).map(|node: &&Node| exprs.value(node));
    let mut options = Options {
        name: of("name"),
        timeout: Vec::new(),
        timeout_span: known.get("timeout").map(|node| node.span),
        stdout: of("stdout"),
        stderr: of("stderr"),
        cpus: of("cpus"),
        gpus: of("gpus"),
        memory: of("memory"),
        label: of("label"),
        retries: of("retries"),
        ranks_per_node: of("ranks_per_node"),
        accept_exit: of("accept_exit"),
    };
    if let Some(node) = known.get("timeout") {
        let parts = entries(node, &TIMEOUT, exprs.findings);
        for (key, seconds) in [("day", 86_400.0), ("hour", 3600.0), ("min", 60.0), ("sec", 1.0)] {
            let Some(node) = parts.get(key) else { continue };
            options.timeout.push((seconds, exprs.value(node)));
        }
    }
    options
}
