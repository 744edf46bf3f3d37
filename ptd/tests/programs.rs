//! Templates of processes: arguments, environment, folders, output in files, results of other tasks.

use std::path::PathBuf;
use tarragon_engine::{Batch, Exit};
use tarragon_ptd::{Args, CallError, Template, Value, function};

fn load(text: &str) -> tarragon_ptd::Imported<Exit> {
    let template = Template::of_text("test.yml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    template.import().load().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_process_gets_words_environment_folder_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let run = load(
        "
args: [dir, words, out]
kwargs: {verbose: is_verbose, level: level}
type: process
executables:
  - target: sh
    args: [-c, 'echo \"$PWD $GREETING $*\"; echo bad >&2; exit 3', sh, words, 1.50]
    kwargs: {verbose: is_verbose, l: level, none: null}
    cwd: dir
    env: {GREETING: {format: ['hello {level:02}']}}
stdout: out
stderr: {path: [dir, err]}
accept_exit: 3
name: {format: ['run_{}', level]}
timeout: {sec: 20}
",
    );
    let batch = Batch::new().unwrap();
    let out = dir.path().join("out");
    let words: Value = vec!["a".to_string(), "b c".to_string()].into();
    let args = Args::from((dir.path(), words, &out)).kwarg("level", 7).kwarg("verbose", true);
    let task = run.call(&batch, args).unwrap();
    assert_eq!(task.result().get().unwrap().code, 3);
    let folder = dir.path().canonicalize().unwrap();
    let text = format!("{} hello 07 a b c 1.50 --verbose -l 7\n", folder.display());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), text);
    assert_eq!(task.stdout().get().unwrap(), text);
    assert_eq!(std::fs::read_to_string(dir.path().join("err")).unwrap(), "bad\n");
    drop((task, batch));
    assert!(out.exists(), "the user's file outlives the batch");
}

#[test]
fn results_and_output_of_other_tasks_are_arguments() {
    let echo = load("{args: [x], type: process, executables: [{target: echo, args: [-n, x]}]}");
    let twice = Template::of_text(
        "t",
        "{import_args: [f], args: [x], type: function, executables: [{target: f, args: [x]}]}",
    );
    let twice =
        twice.unwrap().import().arg(function(|x: String| format!("{x}{x}"))).load::<String>().unwrap();
    let batch = Batch::new().unwrap();
    let first = echo.call(&batch, ("ab",)).unwrap();
    let second = twice.call(&batch, (first.stdout(),)).unwrap();
    let third = echo.call(&batch, (second.result(),)).unwrap();
    assert_eq!(third.stdout().get().unwrap(), "abab");
    let wrong = twice.spec((third.result(),)).unwrap().task::<String>(&batch).unwrap_err();
    assert!(
        matches!(&wrong, CallError::Value(at) if at.what.contains("a result of type Exit cannot be String")),
        "{wrong}"
    );
}

#[test]
fn a_type_and_a_target_may_be_names() {
    let any = load("{args: [kind, program, n], type: kind, executables: [{target: program, args: [n]}]}");
    let spec = any.spec(("PROCESS", "true", 1)).unwrap();
    assert_eq!(spec.command(), "true 1");
    assert_eq!(any.spec(("Job", "true", 1)).unwrap().command(), "1 x true 1");
    let error = any.spec(("function", "true", 1)).err().unwrap();
    assert_eq!(error.to_string(), "test.yml:1:63: a task calls a function, and this is text: `program`");
    let error = any.spec(("thread", "true", 1)).err().unwrap().to_string();
    assert!(error.contains("`thread` is no type of task"), "{error}");
    let batch = Batch::new().unwrap();
    let double = function(|x: i64| 2 * x);
    let error = any.call(&batch, ("function", double, 4)).unwrap_err().to_string();
    assert!(error.contains("returns i64, and Exit is asked for"), "{error}");
}

#[test]
fn options_reach_the_task() {
    let run = load(
        "
args: [gib]
type: process
executables: [{target: 'true'}]
cpus: 1
memory: {format: ['{}MiB', gib]}
retries: 2
timeout: {min: 0.5, sec: gib}
",
    );
    let spec = run.spec((64,)).unwrap();
    assert_eq!((spec.cpus(), spec.memory(), spec.retries()), (Some(1), Some(64 << 20), Some(2)));
    assert_eq!(spec.timeout().unwrap().as_secs(), 94);
    let batch = Batch::new().unwrap();
    run.call(&batch, (64,)).unwrap().result().get().unwrap();
    let labelled = load("{type: process, executables: [{target: 'true'}], label: fast}");
    let error = labelled.task(&batch, ()).unwrap().run().unwrap_err();
    assert!(error.to_string().contains("fast"), "{error}");
    let batch = Batch::builder().resource("fast", 1.0).build().unwrap();
    labelled.task(&batch, ()).unwrap().run().unwrap();
    let path = PathBuf::from("/");
    assert!(run.spec((path,)).is_err());
}
