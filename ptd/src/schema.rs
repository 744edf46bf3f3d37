//! The format as a JSON Schema, for editors: made from the table of keys that the grammar itself checks against.
//!
//! It says which keys there are, what they may hold and what they are for. What depends on names (is this one
//! declared?) only the grammar knows. `ptd/schema.json` is this text.
//!
//! *Source:* JSON Schema, draft 2020-12.

use crate::template::tables::{ACCESS, EXECUTABLE, MAPREDUCE, STEP, TEMPLATE, TIMEOUT, WORKFLOW};
use crate::template::{Shape, Table};
use crate::value::BUILTINS;
use serde_json::{Map, Value, json};

/// The JSON Schema of templates and workflow files.
pub fn schema() -> String {
    let tables = [&TEMPLATE, &EXECUTABLE, &ACCESS, &TIMEOUT, &WORKFLOW, &STEP, &MAPREDUCE];
    let mut definitions: Map<String, Value> =
        tables.iter().map(|table| (table.name.to_string(), of_table(table))).collect();
    definitions.insert("value".into(), value());
    let workflow_keys = WORKFLOW.names().map(|name| json!({ "required": [name] })).collect::<Vec<_>>();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tarragon: a template of tasks (PTD), or a workflow of them",
        "if": { "anyOf": workflow_keys },
        "then": reference("workflow"),
        "else": reference("template"),
        "$defs": definitions,
    });
    let mut text = serde_json::to_string_pretty(&schema).expect("a value without odd keys can be written");
    text.push('\n');
    text
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// A mapping with the keys of a table.
fn of_table(table: &Table) -> Value {
    let properties: Map<String, Value> = table
        .keys
        .iter()
        .map(|key| {
            let mut shape = of_shape(key.shape);
            // A key without a value counts as one that is not there.
            if let Value::Object(shape) = &mut shape {
                shape.insert("description".into(), key.about.into());
            }
            (key.name.to_string(), shape)
        })
        .collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required = match table.name {
        "template" => json!(["type", "executables"]),
        "executable" => json!(["target"]),
        "mapreduce" => json!(["map", "reduce"]),
        _ => return schema,
    };
    schema["required"] = required;
    schema
}

/// What a value may be: a literal, a name, a call, or a list of values.
fn value() -> Value {
    let builtins: Map<String, Value> = BUILTINS
        .iter()
        .map(|(name, _, about)| {
            (name.to_string(), json!({ "type": "array", "items": reference("value"), "description": about }))
        })
        .collect();
    json!({
        "description": "a literal, a declared name, a call `{function: [values…]}`, `{literal: x}`, or a list",
        "anyOf": [
            { "type": ["string", "number", "boolean", "null"] },
            { "type": "array", "items": reference("value") },
            {
                "type": "object", "properties": { "literal": {} }, "required": ["literal"],
                "additionalProperties": false,
            },
            {
                "type": "object", "minProperties": 1, "maxProperties": 1, "properties": builtins,
                "additionalProperties": { "type": "array", "items": reference("value") },
            },
        ],
    })
}

fn of_shape(shape: Shape) -> Value {
    let list_or_null = |items: Value| json!({ "type": ["array", "null"], "items": items });
    let mapping = |values: Value| json!({ "type": ["object", "null"], "additionalProperties": values });
    match shape {
        Shape::Names => list_or_null(json!({ "type": "string" })),
        Shape::Keywords => mapping(json!({ "type": "string" })),
        Shape::ImportKeywords | Shape::ValuesByName => mapping(reference("value")),
        Shape::Values => list_or_null(reference("value")),
        Shape::Environment => json!({
            "anyOf": [reference("value"), { "type": "object", "additionalProperties": reference("value") }],
        }),
        Shape::TaskKind => json!({ "anyOf": [
            { "enum": ["function", "process", "job"] },
            { "type": "string" },
            reference("value"),
        ] }),
        Shape::Value | Shape::Count | Shape::Number | Shape::Bytes | Shape::Codes => {
            json!({ "allOf": [reference("value")] })
        }
        Shape::Table(table) => json!({ "anyOf": [{ "type": "null" }, reference(table.name)] }),
        Shape::Tables(table) => list_or_null(reference(table.name)),
        Shape::Steps => list_or_null(reference("step")),
        Shape::StepOrSteps => {
            json!({ "anyOf": [reference("step"), { "type": "array", "items": reference("step") }] })
        }
        Shape::TemplateOrPath => json!({ "anyOf": [{ "type": "string" }, reference("template")] }),
        Shape::Ranges => mapping(json!({ "type": ["string", "array"] })),
        Shape::Bool => json!({ "type": "boolean" }),
    }
}

#[cfg(test)]
mod tests {
    use super::schema;
    use crate::mistake::Findings;
    use crate::parse::{Kind, Node, Scalar, parse};
    use crate::source::Source;
    use expect_test::expect_file;
    use serde_json::Value;
    use std::sync::Arc;

    #[test]
    fn the_shipped_schema_is_this_one() {
        expect_file!["../schema.json"].assert_eq(&schema());
    }

    fn json(node: &Node) -> Value {
        match (&node.kind, node.scalar()) {
            (Kind::Sequence(nodes), _) => nodes.iter().map(json).collect(),
            (Kind::Mapping(entries), _) => {
                Value::Object(entries.iter().map(|(key, node)| (key.text.to_string(), json(node))).collect())
            }
            (_, Some(Scalar::Null)) => Value::Null,
            (_, Some(Scalar::Bool(it))) => it.into(),
            (_, Some(Scalar::Int(it))) => (it as i64).into(),
            (_, Some(Scalar::Float(it))) => it.into(),
            (Kind::Scalar { text, .. }, _) => (&**text).into(),
        }
    }

    /// Whether a document is right by the parts of JSON Schema that this one uses.
    fn fits(document: &Value, schema: &Value, root: &Value) -> bool {
        let Some(schema) = schema.as_object() else { return schema != &Value::Bool(false) };
        let of_type = |name: &str| match name {
            "string" => document.is_string(),
            "number" => document.is_number(),
            "boolean" => document.is_boolean(),
            "null" => document.is_null(),
            "array" => document.is_array(),
            "object" => document.is_object(),
            other => panic!("no such type: {other}"),
        };
        let fits_one = |schema: &Value| fits(document, schema, root);
        if let Some(condition) = schema.get("if") {
            let branch = if fits_one(condition) { &schema["then"] } else { &schema["else"] };
            return fits_one(branch);
        }
        schema.iter().all(|(key, rule)| match key.as_str() {
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                fits_one(&root["$defs"][name])
            }
            "type" => match rule {
                Value::String(name) => of_type(name),
                names => names.as_array().unwrap().iter().any(|name| of_type(name.as_str().unwrap())),
            },
            "enum" => rule.as_array().unwrap().contains(document),
            "anyOf" => rule.as_array().unwrap().iter().any(fits_one),
            "allOf" => rule.as_array().unwrap().iter().all(fits_one),
            "items" => document.as_array().into_iter().flatten().all(|item| fits(item, rule, root)),
            "required" => document.as_object().is_none_or(|document| {
                rule.as_array().unwrap().iter().all(|name| document.contains_key(name.as_str().unwrap()))
            }),
            "minProperties" => {
                document.as_object().is_none_or(|it| it.len() as u64 >= rule.as_u64().unwrap())
            }
            "maxProperties" => {
                document.as_object().is_none_or(|it| it.len() as u64 <= rule.as_u64().unwrap())
            }
            "properties" => document
                .as_object()
                .into_iter()
                .flatten()
                .all(|(name, value)| rule.get(name).is_none_or(|rule| fits(value, rule, root))),
            "additionalProperties" => document.as_object().into_iter().flatten().all(|(name, value)| {
                let known = schema.get("properties").is_some_and(|known| known.get(name).is_some());
                known || fits(value, rule, root)
            }),
            "description" | "title" | "$schema" | "$defs" => true,
            other => panic!("no such rule: {other}"),
        })
    }

    fn is_right(text: &str) -> bool {
        let source = Arc::new(Source::of_text("schema.yml", text));
        let mut findings = Findings::new(&source);
        let node = parse(&source, &mut findings).expect("a document");
        let root: Value = serde_json::from_str(&schema()).expect("the schema is JSON");
        fits(&json(&node), &root, &root)
    }

    #[test]
    fn documents_that_are_right_fit_the_schema_and_others_do_not() {
        assert!(is_right(include_str!("../tests/data/gpu_matmul_ptd.yml")));
        assert!(is_right(include_str!("../tests/data/dictionary_job_ptd.yml")));
        let documentation = include_str!("../../docs/ptd.md");
        let blocks: Vec<&str> =
            documentation.split("```").filter_map(|part| part.strip_prefix("yaml\n")).collect();
        assert!(blocks.len() >= 4, "the documentation has its examples");
        for block in blocks {
            assert!(is_right(block), "{block}");
        }
        for wrong in [
            "{type: process}",
            "{type: process, executables: [{}]}",
            "{type: process, executables: [{target: e}], nmae: x}",
            "{type: process, executables: [{target: e, args: x}]}",
            "{type: process, executables: [{target: e}], timeout: {seconds: 1}}",
            "{type: process, executables: [{target: e}], name: {path: x}}",
            "{steps: [{ptd: f.yml, sett: {}}]}",
            "{mapreduce: {map: []}}",
        ] {
            assert!(!is_right(wrong), "{wrong}");
        }
    }
}
