//! Random templates against a plain evaluation of what they say.

use proptest::prelude::*;
use std::collections::BTreeMap;
use tarragon_engine::Exit;
use tarragon_ptd::{Args, Datum, Template, selector};

/// What a value is made from.
#[derive(Clone, Debug)]
enum Made {
    Text(String),
    Number(i64),
    /// Of the names that are bound at import, or at the call.
    Name(usize),
    Escaped(String),
    Add(Vec<Made>),
    Mul(Vec<Made>),
    Path(Vec<Made>),
    Format(Vec<Made>, Option<usize>),
    Join(Box<Made>, Box<Made>),
    List(Vec<Made>),
}

/// Names: three are bound at import, one by position at the call, two by keyword.
const NAMES: [&str; 6] = ["dir", "count", "tag", "step", "alpha", "flag"];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("out.dat".to_string()),
        Just("no".to_string()),
        Just("12".to_string()),
        Just("it's".to_string()),
        Just("a b".to_string()),
        Just("{}".to_string()),
        "[a-zA-Z0-9 #:,*&!|>'\"%@`{}\\[\\]-]{1,8}",
        "[α-ωé\u{1F600}]{1,4}",
    ]
}

/// Numbers, or what makes one.
fn numbers() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![(-50..50i64).prop_map(Made::Number), Just(Made::Name(1)), Just(Made::Name(3))];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Made::Add),
            prop::collection::vec(inner, 1..3).prop_map(Made::Mul),
        ]
    })
}

fn scalars() -> impl Strategy<Value = Made> {
    let names = (0..NAMES.len()).prop_map(Made::Name);
    let leaf = prop_oneof![
        texts().prop_map(Made::Text),
        (0..NAMES.len()).prop_map(|name| Made::Escaped(NAMES[name].to_string())),
        names,
        numbers()
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            list.clone().prop_map(Made::Path),
            (list, prop::option::of(0..NAMES.len())).prop_map(|(values, name)| Made::Format(values, name)),
            (inner.clone(), inner).prop_map(|(a, b)| Made::Join(Box::new(a), Box::new(b))),
        ]
    })
}

fn values() -> impl Strategy<Value = Made> {
    prop_oneof![4 => scalars(), 1 => prop::collection::vec(scalars(), 0..3).prop_map(Made::List)]
}

/// As JSON, which YAML reads, or with plain words where that is the same.
fn written(made: &Made, is_plain: bool) -> String {
    let all = |values: &[Made]| values.iter().map(|it| written(it, is_plain)).collect::<Vec<_>>().join(", ");
    match made {
        Made::Text(text) if is_plain && text.bytes().all(|b| b.is_ascii_lowercase()) && text != "no" => {
            text.clone()
        }
        Made::Text(text) => serde_json::to_string(text).expect("text"),
        Made::Number(number) => number.to_string(),
        Made::Name(name) if is_plain => NAMES[*name].to_string(),
        Made::Name(name) => format!("'{}'", NAMES[*name]),
        Made::Escaped(text) => format!("{{literal: {text}}}"),
        Made::Add(values) => format!("{{add: [{}]}}", all(values)),
        Made::Mul(values) => format!("{{mul: [{}]}}", all(values)),
        Made::Path(values) => format!("{{path: [{}]}}", all(values)),
        Made::Format(values, name) => {
            let name = name.map_or(String::new(), |name| format!("{{{}}}", NAMES[name]));
            let text = format!("{}-{{{{}}}}-{name}", "{}".repeat(values.len()));
            format!("{{format: ['{text}', {}]}}", all(values))
        }
        Made::Join(a, b) => format!("{{join: [{}, {}]}}", written(a, is_plain), written(b, is_plain)),
        Made::List(values) => format!("[{}]", all(values)),
    }
}

/// The oracle: its words.
fn words(made: &Made, names: &[String]) -> Vec<String> {
    let one = |made: &Made| words(made, names).concat();
    let number = |made: &Made| one(made).parse::<i128>().expect("a number");
    vec![match made {
        Made::Text(text) | Made::Escaped(text) => text.clone(),
        Made::Number(number) => number.to_string(),
        Made::Name(name) => names[*name].clone(),
        Made::Add(values) => values.iter().map(number).sum::<i128>().to_string(),
        Made::Mul(values) => values.iter().map(number).product::<i128>().to_string(),
        Made::Path(values) => {
            let path: std::path::PathBuf = values.iter().map(one).collect();
            path.to_str().expect("text").to_string()
        }
        Made::Format(values, name) => {
            let name = name.map_or("", |name| &names[name]);
            format!("{}-{{}}-{name}", values.iter().map(one).collect::<String>())
        }
        Made::Join(a, b) => format!("{}+{}", one(a), one(b)),
        Made::List(values) => return values.iter().flat_map(|value| words(value, names)).collect(),
    }]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_template_makes_what_it_says(
        args in prop::collection::vec(values(), 0..6),
        files in prop::collection::vec(scalars(), 0..3),
        env in scalars(),
        name in scalars(),
        bound in ("[a-z/]{1,6}", -9..9i64, texts(), -9..9i64, texts(), texts()),
        is_plain: bool,
    ) {
        let list = |values: &[Made]| {
            values.iter().map(|it| written(it, is_plain)).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "import_args: [dir, join, count]\nimport_kwargs: {{mark: tag}}\nargs: [step]\n\
             kwargs: {{a: alpha, f: flag}}\ntype: process\n\
             executables: [{{target: prog, args: [{}], env: {{V: {}}}}}]\nwrites: [{{files: [{}]}}]\nname: {}\n",
            list(&args), written(&env, is_plain), list(&files), written(&name, is_plain)
        );
        let (dir, count, tag, step, alpha, flag) = bound;
        let names = [dir.clone(), count.to_string(), tag.clone(), step.to_string(), alpha.clone(), flag.clone()];
        let template = Template::of_text("random.yml", &text);
        let template = template.map_err(|it| TestCaseError::fail(format!("{it}\n{text}")))?;
        let join = selector(|a: Words, b: Words| format!("{}+{}", a.0, b.0));
        let import = template.import().arg(dir).selector(join).arg(count).kwarg("mark", tag);
        let imported = import.load::<Exit>().map_err(|it| TestCaseError::fail(format!("{it}\n{text}")))?;
        let spec = imported.spec(Args::from((step,)).kwarg("f", flag).kwarg("a", alpha));
        let spec = spec.map_err(|it| TestCaseError::fail(format!("{it}\n{text}")))?;
        let all = |values: &[Made]| values.iter().flat_map(|value| words(value, &names)).collect::<Vec<_>>();
        let program = &spec.programs()[0];
        prop_assert_eq!(program.args().collect::<Vec<_>>(), all(&args), "{}", text);
        let variables: BTreeMap<String, String> = program.env().collect();
        prop_assert_eq!(variables.get("V").cloned(), all(std::slice::from_ref(&env)).first().cloned());
        let paths: Vec<String> = spec.writes().map(|it| match it {
            Datum::File(path) => path.to_str().expect("text").to_string(),
            Datum::Key { name, .. } => name,
        }).collect();
        prop_assert_eq!(paths, all(&files));
        prop_assert_eq!(spec.name().map(str::to_string), all(std::slice::from_ref(&name)).first().cloned());
    }
}

/// Any plain value as text: what the selector of the oracle takes.
#[derive(serde::Serialize)]
struct Words(String);

impl<'de> serde::Deserialize<'de> for Words {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl serde::de::Visitor<'_> for Any {
            type Value = Words;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text or a number")
            }

            fn visit_str<E>(self, text: &str) -> Result<Words, E> {
                Ok(Words(text.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Words, E> {
                Ok(Words(number.to_string()))
            }
        }
        from.deserialize_any(Any)
    }
}
