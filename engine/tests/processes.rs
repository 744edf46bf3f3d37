//! Processes as tasks: what they are given, what they give back, how they fail, and that nothing of them stays.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tarragon_engine::{Batch, Context, Error, ErrorKind, Exit, Status, Task, Workers, tasks};

fn batch() -> Batch {
    Batch::builder().workers(Workers::Threads(2)).assume_cpus(2).build().expect("a batch")
}

fn sh(batch: &Batch, script: &str) -> Task<Exit> {
    batch.process("/bin/sh").arg("-c").arg(script)
}

#[test]
fn arguments_environment_directory_and_input() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("in.txt"), "from a file\n").expect("a file");
    for workers in [Workers::Serial, Workers::Threads(2)] {
        let batch = Batch::builder().workers(workers).build().expect("a batch");
        let args = batch.process("printf").args(["%s|", "a b", "$HOME", "*", ""]).arg(7).arg(2.5).arg(true);
        let env = sh(&batch, "echo $A; echo ${HOME-none}").env("A", "x=y").env_remove("HOME");
        let cwd = sh(&batch, "pwd; cat").cwd(dir.path()).stdin(dir.path().join("in.txt"));
        let text = batch.process("cat").stdin_text("given\n");
        let nothing = batch.process("cat");
        batch.compile(tasks![args, env, cwd, text, nothing]).expect("a list").run().expect("all succeed");
        assert_eq!(args.stdout().get().expect("its output"), "a b|$HOME|*||7|2.5|true|");
        assert_eq!(env.stdout().get().expect("its output"), "x=y\nnone\n");
        let shown = dir.path().canonicalize().expect("a path");
        assert_eq!(cwd.stdout().get().expect("its output"), format!("{}\nfrom a file\n", shown.display()));
        assert_eq!(text.stdout().get().expect("its output"), "given\n");
        assert_eq!(nothing.stdout().get().expect("its output"), "");
    }
}

fn make(ctx: &Context) -> u64 {
    writeln!(ctx.out(), "said by a function").expect("output");
    42
}

fn lines(text: &str, exit: &Exit) -> String {
    format!("{} lines, code {}", text.lines().count(), exit.code)
}

#[test]
fn results_and_output_go_between_functions_and_processes() {
    for workers in [Workers::Serial, Workers::Threads(2)] {
        let batch = Batch::builder().workers(workers).build().expect("a batch");
        let made = batch.function(make, ());
        let a = batch.process("echo").arg(made.result()).arg(made.stdout()).env("X", made.result());
        let b = batch.process("cat").stdin(a.stdout());
        let c = batch.process("cat").stdin(made.stdout());
        let d = batch.process("echo").arg("-n").arg(b.stdout());
        let last = batch.function(lines, (c.stdout(), d.result()));
        batch.compile(tasks![made, a, b, c, d, last]).expect("a list").run().expect("all succeed");
        assert_eq!(b.stdout().get().expect("its output"), "42 said by a function\n");
        assert_eq!(d.stdout().get().expect("its output"), "42 said by a function");
        assert_eq!(last.result().get().expect("a result"), "1 lines, code 0");
    }
}

#[test]
fn files_give_the_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = batch();
    let file = dir.path().join("f");
    let (mut all, mut reads) = (Vec::new(), Vec::new());
    for i in 0..20 {
        let add = sh(&batch, &format!("echo {i} >> f")).cwd(dir.path()).reads(&file).writes(&file);
        let read = sh(&batch, "tail -n 1 f").cwd(dir.path()).reads(&file);
        all.push(add);
        reads.push(read.stdout());
        all.push(read);
    }
    let compiled = batch.compile(&all).expect("a list");
    for _ in 0..2 {
        fs::write(&file, "").expect("a file");
        compiled.run().expect("all succeed");
        for (i, read) in reads.iter().enumerate() {
            assert_eq!(read.get().expect("its output"), format!("{i}\n"));
        }
    }
}

#[test]
fn usage_is_measured() {
    let batch = batch();
    let busy = sh(&batch, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    busy.run().expect("it succeeds");
    let exit = busy.result().get().expect("a result");
    assert_eq!(exit.code, 0);
    assert!(exit.usage.user > Duration::from_millis(20), "user time {:?}", exit.usage.user);
    assert!(exit.usage.wall >= exit.usage.user / 2, "wall {:?}", exit.usage.wall);
    assert!((100_000..1 << 30).contains(&exit.usage.max_rss_bytes), "{} bytes", exit.usage.max_rss_bytes);
}

#[test]
fn exit_codes_and_signals() {
    let batch = batch();
    let fails = sh(&batch, "echo first; echo why it failed >&2; exit 3").name("fails");
    let accepted = sh(&batch, "exit 3").accept_exit(3);
    let killed = sh(&batch, "kill -9 $$").name("killed");
    let needs = batch.process("cat").stdin(fails.stdout()).name("needs");
    let compiled = batch.compile(tasks![fails, accepted, killed, needs]).expect("a list");
    let error = compiled.run().expect_err("two fail");
    assert!(error.to_string().contains("exit code 3"), "{error}");
    let failed = fails.wait().expect_err("it fails");
    assert_eq!(failed.to_string(), "task #0 `fails` failed: exit code 3; its last lines:\n    why it failed");
    assert_eq!((failed.kind(), failed.exit_code(), failed.signal()), (ErrorKind::Exited, Some(3), None));
    assert_eq!(failed.last_lines(), Some("why it failed"));
    assert!(failed.usage().expect("usage").max_rss_bytes > 0);
    assert_eq!(fails.stdout().so_far().expect("its output"), "first\n");
    assert_eq!(accepted.result().get().expect("accepted").code, 3);
    let killed = killed.wait().expect_err("it is killed");
    assert_eq!((killed.kind(), killed.signal()), (ErrorKind::Signalled, Some((9, false))));
    assert_eq!(killed.to_string(), "task #2 `killed` failed: killed by signal 9 (SIGKILL)");
    let skipped = needs.wait().expect_err("it is skipped");
    assert_eq!((skipped.kind(), skipped.exit_code()), (ErrorKind::Skipped, Some(3)));
    assert_eq!(skipped.chain(), ["needs", "fails"]);
    remove_kept(&fails);
}

/// A task failed, so the run directory stays; the test removes it.
fn remove_kept(task: &Task<Exit>) {
    if let Some(path) = task.stdout().path() {
        let run = path.parent().and_then(Path::parent).expect("the run directory");
        fs::remove_dir_all(run).expect("the run directory is there");
    }
}

fn compile_error(task: Task<Exit>, batch: &Batch) -> String {
    match batch.compile(tasks![task]) {
        Err(Error::Compile(error)) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it compiles"),
    }
}

#[test]
fn what_cannot_start_is_found_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let file = |name: &str, text: &str, mode: u32| {
        fs::write(path(name), text).expect("a file");
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("its mode");
        path(name)
    };
    let batch = batch();
    let check = |task: Task<Exit>, wanted: &str| {
        let error = compile_error(task, &batch);
        assert!(error.contains(wanted), "{error}\nshould contain: {wanted}");
    };
    check(batch.process("no-such-program-anywhere"), "no program `no-such-program-anywhere` in PATH");
    check(batch.process(path("gone")), "no such file");
    check(batch.process(dir.path()), "is a directory, not a program");
    check(batch.process(file("plain", "#!/bin/sh\n", 0o644)), "is not executable: `chmod +x` it");
    check(batch.process(file("text", "echo no first line\n", 0o755)), "has the wrong format");
    check(batch.process("true").cwd(path("nowhere")), "its working directory");
    check(batch.process("true").cwd(path("plain")), "is no directory");
    check(batch.process("true").env("A=B", "x"), "sets the variable \"A=B\": a name has no `=`");
    check(batch.process("true").env("", "x"), "sets the variable \"\"");
    check(batch.process("echo").arg("a").arg("b\0c"), "has a NUL byte in argument 2");
    check(batch.process("echo").env("V", "b\0c"), "has a NUL byte in the variable V");
    check(batch.process("true").cpus(0), "asks for 0 of cpus: give a positive, finite amount");
    check(batch.process("true").cpus(3), "asks for 3 of cpus, but the batch has 2: it could never start");
    check(batch.process("true").memory(0), "asks for 0 of memory");
    check(batch.process("true").memory(1 << 62), "of memory, but the batch has");
    check(
        batch.process("true").resource("licence", 1.0),
        "asks for the resource `licence`, but the batch has none",
    );
    check(batch.process("true").timeout(Duration::ZERO), "asks for 0 s of timeout");
    let licensed = Batch::builder().assume_cpus(1).resource("licence", 2.0).build().expect("a batch");
    for (amount, wanted) in
        [(-1.0, "asks for -1 of licence"), (f64::NAN, "NaN of licence"), (2.5, "asks for 2.5")]
    {
        let error = compile_error(licensed.process("true").resource("licence", amount), &licensed);
        assert!(error.contains(wanted), "{error}");
    }
    assert!(Batch::builder().resource("x", 0.0).build().is_err());
    assert!(Batch::builder().assume_cpus(0).build().is_err());
}

#[test]
fn a_program_that_the_list_makes_need_not_be_there_yet() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("made/run.sh");
    let batch = batch();
    let make = sh(&batch, "mkdir made; echo '#!/bin/sh\necho made' > made/run.sh; chmod +x made/run.sh")
        .cwd(dir.path())
        .writes(dir.path().join("made"));
    let run = batch.process(&program).reads(&program).cwd(dir.path().join("made"));
    batch.compile(tasks![make, run]).expect("a list").run().expect("both succeed");
    assert_eq!(run.stdout().get().expect("its output"), "made\n");
}

#[test]
fn what_goes_wrong_only_at_the_start_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("run");
    let batch = batch();
    let make = sh(&batch, "echo 'no first line' > run; chmod +x run").cwd(dir.path()).writes(&program);
    let run = batch.process(&program).reads(&program);
    let stdin = batch.process("cat").stdin(dir.path().join("missing")).name("stdin");
    batch.compile(tasks![make, run, stdin]).expect("a list").run().expect_err("two fail");
    let error = run.wait().expect_err("the wrong format");
    assert_eq!(error.kind(), ErrorKind::CouldNotStart);
    assert!(error.to_string().contains("wrong format: neither a program"), "{error}");
    let error = stdin.wait().expect_err("no input");
    assert!(
        error.to_string().contains("could not start: its input") && error.to_string().contains("missing"),
        "{error}"
    );
    remove_kept(&make);
}

#[test]
fn output_is_readable_while_it_runs_and_goes_with_the_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = Batch::builder().run_dir(dir.path()).build().expect("a batch");
    let task = sh(&batch, "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo done").cwd(dir.path());
    task.start().expect("it starts");
    while task.stdout().so_far().unwrap_or_default() != "begun\n" {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(task.status(), Status::Running);
    fs::write(dir.path().join("go"), "").expect("a file");
    assert_eq!(task.stdout().get().expect("its output"), "begun\ndone\n");
    let path = task.stdout().path().expect("a file");
    assert!(path.starts_with(dir.path()) && path.exists());
    drop((task, batch));
    assert!(!path.exists(), "the output stays behind");
}

#[test]
fn output_stays_when_asked_for_or_when_a_task_failed() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = Batch::builder().run_dir(dir.path()).keep_output(true).build().expect("a batch");
    let kept = sh(&batch, "echo kept");
    kept.run().expect("it succeeds");
    let path = kept.stdout().path().expect("a file");
    drop((kept, batch));
    assert_eq!(fs::read_to_string(path).expect("it is kept"), "kept\n");
    let batch = Batch::builder().run_dir(dir.path()).build().expect("a batch");
    let failed = sh(&batch, "echo why >&2; exit 1");
    failed.run().expect_err("it fails");
    let path = failed.stderr().path().expect("a file");
    drop((failed, batch));
    assert_eq!(fs::read_to_string(path).expect("a task failed"), "why\n");
}

#[test]
fn a_thousand_sleeping_processes_need_no_thousand_threads() {
    let batch = Batch::builder().workers(Workers::Threads(2)).assume_cpus(1000).build().expect("a batch");
    let dir = tempfile::tempdir().expect("a directory");
    let gate = dir.path().join("gate");
    let script = "while [ ! -e gate ]; do sleep 1; done";
    let all: Vec<_> = (0..200).map(|_| sh(&batch, script).cwd(dir.path())).collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    while all.iter().any(|t| t.status() != Status::Running) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let threads = fs::read_dir("/proc/self/task").expect("threads").count();
    assert!(threads < 20, "{threads} threads");
    fs::write(gate, "").expect("a file");
    compiled.wait().expect("all end");
}
