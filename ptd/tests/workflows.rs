//! Workflow files: steps, blocks, what names range over, and the order in which tasks run.

use expect_test::{Expect, expect, expect_file};
use std::path::Path;
use std::sync::Arc;
use tarragon_engine::{AnyTask, Batch};
use tarragon_ptd::workflow::{Options, Planned, Range, Workflow, load, parse};
use tarragon_ptd::{Mistakes, Source, Value, function, selector};

fn workflow(text: &str, options: &Options) -> Result<Workflow, Mistakes> {
    parse(&Arc::new(Source::of_text("flow.yml", text)), options)
}

/// The calls and gates, a line each.
fn lines(workflow: &Workflow) -> String {
    let mut text = String::new();
    for planned in workflow.calls() {
        match planned {
            Planned::Call(call) => {
                let behind = call.behind().map_or(String::new(), |gate| format!("  behind gate {gate}"));
                let command = call.spec().map_or_else(|error| error.to_string(), |spec| spec.command());
                text += &format!("{}: {command}{behind}\n", call.number());
            }
            Planned::Gate(gate) => text += &format!("gate {}: after {:?}\n", gate.number(), gate.calls()),
        }
    }
    text
}

fn check(text: &str, expected: Expect) {
    match workflow(text, &Options::new()) {
        Ok(workflow) => expected.assert_eq(&lines(&workflow)),
        Err(mistakes) => expected.assert_eq(&format!("{mistakes}\n")),
    }
}

const ECHO: &str = "{args: [a, b], type: process, executables: [{target: echo, args: [a, b]}]}";

#[test]
fn names_range_each_with_each_or_together() {
    let text = format!(
        "
steps:
  - {{ptd: {ECHO}, for: {{a: 0..2, b: [x, 1.50, '7']}}}}
  - {{ptd: {ECHO}, for: {{a: -1..1, b: [u, v]}}, zip: true}}
  - ptd: {ECHO}
    set: {{b: {{format: ['{{i:02}}_{{twice}}']}}, twice: {{mul: [i, 2]}}, a: {{path: [out, b]}}}}
    for: {{i: 3..5}}
  - {{ptd: {ECHO}, set: {{a: 1, b: {{literal: a}}}}}}
"
    );
    check(
        &text,
        expect![[r#"
            0: echo 0 x
            1: echo 0 1.50
            2: echo 0 7
            3: echo 1 x
            4: echo 1 1.50
            5: echo 1 7
            6: echo -1 u
            7: echo 0 v
            8: echo out/03_6 03_6
            9: echo out/04_8 04_8
            10: echo 1 a
        "#]],
    );
}

#[test]
fn gates_stand_between_elements_of_sequences() {
    let one = |a: &str| format!("{{ptd: {ECHO}, set: {{b: 0}}, for: {{a: [{a}]}}}}");
    let text = format!(
        "
sequence:
  - parallel: [{}, {}]
  - sequence: [{}, {}]
  - mapreduce: {{map: [{}], reduce: {}}}
parallel:
  - {}
",
        one("1, 2"),
        one("3"),
        one(""),
        one("4, 5"),
        one("6, 7"),
        one("8"),
        one("9")
    );
    check(
        &text,
        expect![[r#"
            0: echo 1 0
            1: echo 2 0
            2: echo 3 0
            gate 0: after 0..3
            gate 1: after 3..3
            3: echo 4 0  behind gate 1
            4: echo 5 0  behind gate 1
            gate 2: after 3..5
            5: echo 6 0  behind gate 2
            6: echo 7 0  behind gate 2
            gate 3: after 5..7
            7: echo 8 0  behind gate 3
            8: echo 9 0
        "#]],
    );
}

#[test]
fn all_mistakes_of_a_workflow_are_told_at_once() {
    let one = "{args: [a], type: process, executables: [{target: echo, args: [a]}]}";
    let two = "{args: [a, b], type: process, executables: [{target: echo, args: [a, b]}]}";
    let text = format!(
        "
steps:
  - {{ptd: missing.yml}}
  - {{set: {{aa: 1}}, ptd: {one}}}
  - {{for: {{a: 5..1}}, ptd: {one}}}
  - {{for: {{a: some}}, ptd: {one}}}
  - {{for: {{a: 0..2, b: 0..3}}, zip: true, ptd: {two}}}
  - {{set: {{a: {{add: [b, 1]}}, b: {{add: [a, 1]}}}}, ptd: {one}}}
  - {{set: {{a: 1}}, zipp: true, ptd: {one}}}
  - {{sequence: [], set: {{a: 1}}}}
  - {{sequence: [], parallel: []}}
  - {{for: {{a: 0..1}}}}
  - mapreduce: {{map: []}}
step: []
"
    );
    let mistakes = workflow(&text, &Options::new()).unwrap_err();
    expect_file!["data/mistakes_of_a_workflow.txt"].assert_eq(&format!("{mistakes}\n"));
}

#[test]
fn a_template_alone_takes_its_names_from_outside() {
    let text = "
import_args: [greet]
import_kwargs: {out: {path: [dir, {format: ['{i}.dat']}]}, dir: out_dir}
args: [i]
kwargs: {word: w}
type: process
executables: [{target: echo, args: [{greet: [w]}, out]}]
writes: [{files: [out]}]
";
    let mut options = Options::new();
    options.registry.insert("greet".into(), Value::from(selector(|word: String| format!("hi {word}"))));
    options.set = vec![("word".into(), Value::of_word("you")), ("dir".into(), Value::of_word("o"))];
    options.ranges = vec![("i".into(), Range::of_word("0..2").unwrap())];
    let error = workflow(text, &options).unwrap_err();
    assert!(error.to_string().contains("this name is bound at a call: `'{i}.dat'`"), "{error}");
    let text = text.replace("[dir, {format: ['{i}.dat']}]", "[out_dir, dat]");
    let flow = workflow(&text, &options).unwrap();
    expect![[r#"
        0: echo 'hi you' o/dat
        1: echo 'hi you' o/dat
    "#]]
    .assert_eq(&lines(&flow));
    options.set.clear();
    options.registry.clear();
    let mistakes = workflow(&text, &options).unwrap_err();
    expect_file!["data/mistakes_without_values.txt"].assert_eq(&format!("{mistakes}\n"));
}

#[test]
fn files_are_read_relative_to_the_workflow() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("cat.yml", "{args: [f, n], type: process, executables: [{target: cat, args: [f, n]}]}");
    write("a.dat", "");
    write("b.dat", "");
    write("list.txt", "007\r\nword\n\n8\n");
    write("flow.yml", "steps: [{ptd: cat.yml, for: {f: 'glob:*.dat', n: '@list.txt'}}]");
    let flow = load(dir.path().join("flow.yml"), &Options::new()).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (a, b) = (at("a.dat"), at("b.dat"));
    let expected = format!(
        "0: cat {a} 007\n1: cat {a} word\n2: cat {a} 8\n3: cat {b} 007\n4: cat {b} word\n5: cat {b} 8\n"
    );
    assert_eq!(lines(&flow), expected);
    let mut options = Options::new();
    options.set = vec![("f".into(), Value::of_word("x"))];
    options.ranges = vec![("n".into(), Range::of_word("1,2").unwrap())];
    let flow = load(dir.path().join("flow.yml"), &options).unwrap();
    assert_eq!(lines(&flow), "0: cat x 1\n1: cat x 2\n");
    options.set.push(("g".into(), Value::NULL));
    let error = load(dir.path().join("flow.yml"), &options).unwrap_err();
    assert_eq!(error.to_string(), "no step of the workflow has such a name: `g`");
}

/// Submits all of a workflow; the tasks of its calls.
fn submit(flow: &Workflow, batch: &Batch) -> Vec<Box<dyn tarragon_ptd::workflow::ErasedTask>> {
    let mut tasks = Vec::new();
    for planned in flow.calls() {
        match planned {
            Planned::Call(call) => {
                let task = call.task(batch).expect("its values fit");
                batch.submit(&*task as &dyn AnyTask).expect("the batch is open");
                tasks.push(task);
            }
            Planned::Gate(gate) => batch.submit(gate.task(batch)).expect("the batch is open"),
        }
    }
    tasks
}

#[test]
fn a_workflow_runs_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let run = |script: &str, names: &str| {
        let executable = format!("{{target: sh, args: [-c, '{script}', sh, i], cwd: dir}}");
        format!("{{args: [dir, i], type: process, executables: [{executable}], {names}}}")
    };
    let (write, sum) = (
        run("sleep 0.0$((5 - $1)); echo $1 > $1.part", "name: write"),
        run("cat *.part | wc -l > $1", "name: sum"),
    );
    let text = format!(
        "
mapreduce:
  map: {{ptd: {write}, set: {{dir: {0}}}, for: {{i: 0..5}}}}
  reduce: {{ptd: {sum}, set: {{dir: {0}, i: total}}}}
",
        dir.path().display()
    );
    let flow = workflow(&text, &Options::new()).unwrap();
    let batch = Batch::new().unwrap();
    let tasks = submit(&flow, &batch);
    batch.fence().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("total")).unwrap().trim(), "5");
    assert_eq!(tasks.len(), 6);
}

#[test]
fn what_stands_behind_a_failure_is_skipped_and_the_rest_runs() {
    let fail = "{type: process, executables: [{target: 'false'}]}";
    let fine = "{type: process, executables: [{target: 'true'}]}";
    let sequence = format!("sequence: [{{ptd: {fail}}}, {{ptd: {fine}}}, {{ptd: {fine}}}]");
    let text = format!("{sequence}\nparallel: [{{ptd: {fine}}}]");
    let flow = workflow(&text, &Options::new()).unwrap();
    // Where the output of the one that fails stays.
    let dir = tempfile::tempdir().unwrap();
    let batch = Batch::builder().run_dir(dir.path()).build().unwrap();
    let tasks = submit(&flow, &batch);
    assert!(batch.fence().is_err());
    let ended: Vec<String> = tasks.iter().map(|task| format!("{:?}", task.status())).collect();
    assert_eq!(ended, ["Failed", "Skipped", "Skipped", "Done"]);
}

#[test]
fn functions_of_the_program_are_targets() {
    let text =
        "{import_args: [square], args: [x], type: function, executables: [{target: square, args: [x]}]}";
    let mut options = Options::new();
    options.registry.insert("square".into(), Value::from(function(|x: u64| x * x)));
    options.ranges = vec![("x".into(), Range::integers(0, 3))];
    let flow = workflow(text, &options).unwrap();
    let batch = Batch::new().unwrap();
    let tasks = submit(&flow, &batch);
    batch.fence().unwrap();
    assert!(tasks.iter().all(|task| task.wait().is_ok() && task.program().is_none()));
}

#[test]
fn a_million_rows_are_planned_one_at_a_time() {
    let mut options = Options::new();
    options.ranges =
        vec![("a".into(), Range::integers(0, 1_000_000)), ("b".into(), Range::integers(0, 1_000_000))];
    let flow = workflow(ECHO, &options).unwrap();
    assert_eq!(flow.len(), 1_000_000_000_000);
    let mut last = None;
    for planned in flow.calls().take(1_000_000) {
        let Planned::Call(call) = planned else { panic!("there are no gates") };
        last = Some(call);
    }
    assert_eq!(last.unwrap().spec().unwrap().command(), "echo 0 999999");
    assert!(!Path::new("flow.yml").exists());
}
