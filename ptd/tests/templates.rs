//! What a template may hold, and what is told of one that is wrong.

use expect_test::{ExpectFile, expect_file};
use tarragon_engine::Exit;
use tarragon_ptd::{CallError, Import, ImportError, Template, Value, function, selector};

/// What is told of a template, a line for each mistake.
fn check(text: &str, expected: ExpectFile) {
    let told = match Template::of_text("t.yml", text) {
        Ok(template) => template.warnings().to_string(),
        Err(mistakes) => mistakes.to_string(),
    };
    expected.assert_eq(&format!("{told}\n"));
}

#[test]
fn every_mistake_is_told_with_place_and_cure() {
    check(
        "
import_args: [dir, dir, 7]
import_kwargs: {depth: {add: [i, 1]}, width: [w]}
import_arg: [x]
args: [i, dir, unused]
kwargs: {level: null, i: j}
type: procss
executables:
  - target: echo
    args: {a: b}
    arg: [i]
  - arguments: []
  - 5
reads:
  - files: [{get_fil: [dir]}, {path: dir}, {a: 1, b: 2}]
  - ddict: feilds
    keys: [i]
  - keys: [i]
  - {}
writes: {files: [x]}
timeout: {seconds: 5, min: {sub: [1]}}
name: {format: ['{}_{k}', i]}
memory: {format: ['{', i]}
",
        expect_file!["data/told/everything.txt"],
    );
}

#[test]
fn what_a_type_does_not_have_is_told() {
    check(
        "
import_args: [solver]
type: Function
executables:
  - {target: solve, cwd: x, env: {A: 1}, nprocs: 2}
  - {target: solver}
",
        expect_file!["data/told/function.txt"],
    );
    check(
        "{type: process, executables: [{target: echo, nprocs: 2, env: 7}, {target: ''}], reads: [{ddict: d}]}",
        expect_file!["data/told/process.txt"],
    );
    check("[]", expect_file!["data/told/a_list.txt"]);
    check("{}", expect_file!["data/told/nothing.txt"]);
    check("type: process\nexecutables:\n", expect_file!["data/told/no_executables.txt"]);
}

#[test]
fn files_for_the_output_of_a_function_are_warned_of() {
    check(
        "{import_args: [f, o], type: function, executables: [{target: f}], stdout: o, stderr: err}",
        expect_file!["data/told/function_output.txt"],
    );
}

#[test]
fn names_that_nothing_uses_are_warned_of() {
    check(
        "{import_args: [a, b], args: [c], type: process, executables: [{target: echo, args: [b, {literal: c}]}]}",
        expect_file!["data/told/unused.txt"],
    );
}

#[test]
fn what_is_given_to_an_import_is_checked_at_once() {
    let text = "
import_args: [f, get, dir]
import_kwargs: {tag: tag_name, level: 3}
args: [i]
type: function
executables: [{target: f, args: [dir, {get: [i, 1]}, {add: [dir, 1]}], kwargs: {x: 1}}]
reads: [{ddict: dir, keys: [{f: [i]}, tag_name]}]
cpus: 1.5
timeout: {sec: 0}
accept_exit: [1, 300]
";
    let template = Template::of_text("t.yml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let told = |import: Import| match import.load::<Exit>() {
        Ok(_) => panic!("it does not fit"),
        Err(ImportError::Arguments(mistakes)) => format!("{mistakes}\n"),
        Err(other) => panic!("{other}"),
    };
    let import =
        template.import().arg(1).arg(2).arg(3).arg(4).kwarg("tags", 1).kwarg("level", 1).kwarg("level", 2);
    expect_file!["data/told/import_too_much.txt"].assert_eq(&told(import));
    expect_file!["data/told/import_too_little.txt"].assert_eq(&told(template.import().arg(1)));
    let import = template.import().function(function(|a: u64, b: u64| a + b)).selector(selector(|i: u64| i));
    expect_file!["data/told/import_of_wrong_kind.txt"].assert_eq(&told(import.arg("here").kwarg("tag", 1)));
}

#[test]
fn what_is_given_to_a_call_is_checked() {
    let text = "
import_args: [f, pick]
args: [i, j]
kwargs: {scale: s, n: threads}
type: function
executables: [{target: f, args: [{pick: [i]}, s]}]
cpus: threads
name: j
";
    let template = Template::of_text("t.yml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let pick = selector(|i: u64| if i == 0 { Err("nothing is picked") } else { Ok(i) });
    let f = function(|i: u64, s: f64| i as f64 * s);
    let call = template.import().function(f).selector(pick).load::<f64>().unwrap();
    let batch = tarragon_engine::Batch::new().unwrap();
    let args = |i: Value| tarragon_ptd::Args::from((i, "name")).kwarg("scale", 2).kwarg("n", 1);
    assert_eq!(call.call(&batch, args(4.into())).unwrap().result().get().unwrap(), 8.0);
    let told = |args: tarragon_ptd::Args| match call.call(&batch, args) {
        Ok(_) => panic!("it does not fit"),
        Err(error) => format!("{error}\n"),
    };
    expect_file!["data/told/call_too_little.txt"].assert_eq(&told((1,).into()));
    expect_file!["data/told/call_too_much.txt"]
        .assert_eq(&told(args(1.into()).arg(2).kwarg("scal", 1).kwarg("n", 2)));
    expect_file!["data/told/selector_argument.txt"].assert_eq(&told(args("x".into())));
    expect_file!["data/told/selector_failed.txt"].assert_eq(&told(args(0.into())));
    expect_file!["data/told/no_text.txt"]
        .assert_eq(&told(tarragon_ptd::Args::from((1, ())).kwarg("scale", 2).kwarg("n", 1)));
    expect_file!["data/told/function_argument.txt"]
        .assert_eq(&told(tarragon_ptd::Args::from((1, 1)).kwarg("scale", "a").kwarg("n", 1)));
    expect_file!["data/told/no_count.txt"]
        .assert_eq(&told(tarragon_ptd::Args::from((1, 1)).kwarg("scale", 2).kwarg("n", 0.5)));
    let error = call.spec(args(0.into())).err().unwrap();
    assert!(
        matches!(&error, CallError::Selector { source, .. } if source.to_string() == "nothing is picked")
    );
}

/// The value that a template makes of `value`, as the arguments of a program.
fn words(value: &str) -> String {
    let text = format!(
        "{{args: [i, path], type: process, executables: [{{target: p, args: [{value}]}}], name: path}}"
    );
    let template = Template::of_text("t.yml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let imported = template.import().load::<Exit>().unwrap_or_else(|error| panic!("{error}"));
    let spec = imported.spec((7, "n"));
    spec.map_or_else(|error| error.to_string(), |spec| spec.command())
}

#[test]
fn values_are_literals_names_and_calls() {
    for (value, command) in [
        ("x", "p x"),
        ("i", "p 7"),
        ("'i'", "p 7"),
        ("{literal: i}", "p i"),
        ("{literal: [i, 1.0]}", "p i 1.0"),
        ("1e3", "p 1e3"),
        ("0x10", "p 0x10"),
        ("true", "p true"),
        ("[i, [x, 2.50]]", "p 7 x 2.50"),
        ("{add: [i, 1, 0.5]}", "p 8.5"),
        ("{sub: [i, {mul: [2, '3']}]}", "p 1"),
        ("{range: [3]}", "p 0 1 2"),
        ("{range: [i, 0, -3]}", "p 7 4 1"),
        ("{range: [2, 2]}", "p"),
        ("{format: ['{i:03}-{}', {add: [i, 1]}]}", "p 007-8"),
        ("{format: [{format: ['{}{}', '{', '}']}, i]}", "p 7"),
        ("{env: [TARRAGON_NO_SUCH_VARIABLE, i]}", "p 7"),
    ] {
        assert_eq!(words(value), command, "{value}");
    }
    for (value, why) in [
        // A declared name comes before a builtin function.
        ("{path: [i]}", "text cannot be called; give a selector"),
        ("{add: [i, x]}", "`x` is no number"),
        ("{env: [TARRAGON_NO_SUCH_VARIABLE]}", "the environment has no `TARRAGON_NO_SUCH_VARIABLE`"),
        ("{mul: [i, 170141183460469231731687303715884105727]}", "are too large"),
        ("{range: [0, {mul: [i, 100000000000]}]}", "a range has at most 1048576 elements"),
        ("{range: [0, i, {sub: [i, 7]}]}", "a step that is not 0"),
    ] {
        let told = words(value);
        assert!(told.starts_with("t.yml:1:67: ") && told.contains(why), "{value}: {told}");
    }
}

#[test]
fn threads_share_a_callable() {
    let text = "
import_args: [f]
args: [i]
type: function
executables: [{target: f, args: [i]}]
name: {format: ['{i}']}
";
    let template = Template::of_text("t.yml", text).unwrap();
    let square = template.import().function(function(|i: u64| i * i)).load::<u64>().unwrap();
    let batch = tarragon_engine::Batch::new().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (square, batch) = (&square, &batch);
            scope.spawn(move || {
                let call = |i: u64| square.call(batch, (thread * 1000 + i,)).unwrap();
                let tasks: Vec<_> = (0..500).map(call).collect();
                for (i, task) in (0u64..).zip(tasks) {
                    assert_eq!(task.result().get().unwrap(), (thread * 1000 + i).pow(2));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                template.import().function(function(|i: u64| i * i)).load::<u64>().unwrap();
            }
        });
    });
}
