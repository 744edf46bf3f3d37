//! A node → what a value is made from: a literal, a name, or a call.

use super::model::{Callee, Expr, ExprKind};
use super::names::Names;
use crate::mistake::Findings;
use crate::nearest::did_you_mean;
use crate::parse::{Kind, Node};
use crate::value::{Builtin, Format, Value, builtin_names};
use std::sync::Arc;

/// What takes a value as it stands.
const LITERAL: &str = "literal";

/// Reads values; tells of what is none.
pub(super) struct Exprs<'a> {
    pub(super) names: &'a mut Names,
    pub(super) findings: &'a mut Findings,
}

impl Exprs<'_> {
    /// What a value is made from; nothing in its place if it is wrong.
    pub(super) fn value(&mut self, node: &Node) -> Expr {
        let kind = match &node.kind {
            Kind::Scalar { text, is_plain } => match node.text().and_then(|text| self.names.find(&text)) {
                Some(name) => ExprKind::Name(name),
                None => ExprKind::Constant(Value::of_scalar(text, *is_plain)),
            },
            Kind::Sequence(nodes) => self.list(nodes),
            Kind::Mapping(entries) => match &entries[..] {
                [(key, argument)] => self.call(node, &key.text, key.span, argument),
                _ => {
                    let what = "a value is a literal, a name or a call, and this is a mapping";
                    self.findings.mend(
                        node.span,
                        what,
                        "a call is `{function: [values…]}`; `{literal: …}` takes a mapping",
                    );
                    ExprKind::Constant(Value::NULL)
                }
            },
        };
        Expr { span: node.span, kind }
    }

    fn list(&mut self, nodes: &[Node]) -> ExprKind {
        let exprs: Vec<Expr> = nodes.iter().map(|node| self.value(node)).collect();
        let constants = exprs.iter().map(|expr| match &expr.kind {
            ExprKind::Constant(value) => Some(value.clone()),
            _ => None,
        });
        match constants.collect::<Option<Vec<Value>>>() {
            Some(values) => ExprKind::Constant(Value::list(values)),
            None => ExprKind::List(exprs),
        }
    }

    /// `{function: [values…]}`, or `{literal: x}`.
    fn call(
        &mut self,
        node: &Node,
        function: &Arc<str>,
        span: crate::source::Span,
        given: &Node,
    ) -> ExprKind {
        let declared = self.names.find(function);
        if declared.is_none() && &**function == LITERAL {
            return ExprKind::Constant(literal(given));
        }
        let callee = declared.map(Callee::Name).or_else(|| Builtin::of(function).map(Callee::Builtin));
        let nothing = ExprKind::Constant(Value::NULL);
        let Some(callee) = callee else {
            let meant = self.names.meant(function).or_else(|| did_you_mean(function, builtin_names()));
            let mend = meant.unwrap_or_else(|| {
                "declare it in `import_args`, or write `{literal: …}` for a mapping".to_string()
            });
            self.findings.mend(span, "this function is not declared", mend);
            return nothing;
        };
        let Kind::Sequence(nodes) = &given.kind else {
            let what = format!("the values of a call are a list, and this is {}", given.word());
            self.findings.mend(given.span, what, format!("write `{{{function}: [values…]}}`"));
            return nothing;
        };
        let args: Vec<Expr> = nodes.iter().map(|node| self.value(node)).collect();
        match callee {
            Callee::Name(_) => ExprKind::Call(callee, args),
            Callee::Builtin(builtin) => self.builtin(builtin, function, node, args),
        }
    }

    /// A call of a builtin; tells of too few or too many values, and of a text that is no format.
    fn builtin(&mut self, builtin: Builtin, name: &str, node: &Node, mut args: Vec<Expr>) -> ExprKind {
        let (least, most) = builtin.counts();
        if args.len() < least || args.len() > most {
            let range = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) => format!("{least} to {most}"),
            };
            let what = format!("`{name}` takes {range} values, and {} are given", args.len());
            self.findings.wrong(node.span, what);
            return ExprKind::Constant(Value::NULL);
        }
        let ExprKind::Constant(text) = &args[0].kind else {
            return ExprKind::Call(Callee::Builtin(builtin), args);
        };
        if builtin != Builtin::Format {
            return ExprKind::Call(Callee::Builtin(builtin), args);
        }
        let span = args[0].span;
        let format = text.text().and_then(|text| Format::parse(&text, &|name| self.names.peek(name)));
        let format = match format {
            Ok(format) => format,
            Err(why) => {
                self.findings.wrong(span, why.0);
                return ExprKind::Constant(Value::NULL);
            }
        };
        let mut values = args.split_off(1);
        let (places, given) = (format.count(), values.len());
        if places != given {
            let what = format!("the text has places for {places} values, and {given} are given");
            self.findings.wrong(span, what);
            return ExprKind::Constant(Value::NULL);
        }
        for id in format.names() {
            self.names.find(&Arc::clone(&self.names.all[id].text));
            values.push(Expr { span, kind: ExprKind::Name(id) });
        }
        ExprKind::Format(format.numbered(), values)
    }

    /// Values by name.
    pub(super) fn by_name(&mut self, node: &Node) -> Vec<(Arc<str>, Expr)> {
        match &node.kind {
            Kind::Mapping(entries) => {
                entries.iter().map(|(key, node)| (Arc::clone(&key.text), self.value(node))).collect()
            }
            _ if node.is_null() => Vec::new(),
            _ => {
                let what = format!("values by name stand here, and this is {}", node.word());
                self.findings.mend(node.span, what, "write `{name: value, …}`");
                Vec::new()
            }
        }
    }

    /// A list of values.
    pub(super) fn values(&mut self, node: &Node) -> Vec<Expr> {
        match &node.kind {
            Kind::Sequence(nodes) => nodes.iter().map(|node| self.value(node)).collect(),
            _ if node.is_null() => Vec::new(),
            _ => {
                let what = format!("a list of values stands here, and this is {}", node.word());
                self.findings.mend(node.span, what, "write `[value, …]`");
                Vec::new()
            }
        }
    }
}

/// A node as it stands: no names, no calls.
pub(crate) fn literal(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar { text, is_plain } => Value::of_scalar(text, *is_plain),
        Kind::Sequence(nodes) => Value::list(nodes.iter().map(literal).collect()),
        Kind::Mapping(entries) => {
            Value::mapping(entries.iter().map(|(key, node)| (Arc::clone(&key.text), literal(node))).collect())
        }
    }
}
