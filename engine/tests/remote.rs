//! A call as bytes, run by another process of this same executable: code is named by its place in the executable, and
//! whoever runs another one, or gets damaged bytes, says so.
//!
//! The test starts itself: `serve` is the test that the child runs, and does nothing when nobody asks.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tarragon_engine::wire::{self, WireError};
use tarragon_engine::{Batch, Builder, Context, Data, Task, Workers, tasks};

const ASKED: &str = "TARRAGON_TEST_REMOTE";
/// Stands before the reply, after whatever the test harness prints.
const REPLY: &[u8] = b"\nreply:";

/// The child: reads a call, runs it, and writes `+` and the result's bytes or `-` and the error.
#[test]
fn serve() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let mut call = Vec::new();
    std::io::stdin().read_to_end(&mut call).expect("a call");
    let mut reply = REPLY.to_vec();
    match wire::run(&call) {
        Ok(bytes) => reply.extend_from_slice(&[&b"+"[..], &bytes].concat()),
        Err(error) => reply.extend_from_slice(format!("-{error}").as_bytes()),
    }
    let mut out = std::io::stdout();
    out.write_all(&reply).and_then(|()| out.flush()).expect("a reply");
    std::process::exit(0);
}

/// Runs a call in a child process.
fn far<T: Data>(call: &[u8]) -> Result<T, String> {
    let mut child = Command::new(std::env::current_exe().expect("this executable"))
        .args(["--exact", "serve", "--nocapture", "--test-threads", "1"])
        .env(ASKED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    child.stdin.take().expect("piped").write_all(call).expect("the child reads");
    let output = child.wait_with_output().expect("the child ends");
    assert!(output.status.success(), "the child crashed: {output:?}");
    let at = output.stdout.windows(REPLY.len()).position(|w| w == REPLY).expect("a reply") + REPLY.len();
    match output.stdout[at] {
        b'+' => Ok(wire::decode(&output.stdout[at + 1..]).expect("the result's bytes")),
        _ => Err(String::from_utf8_lossy(&output.stdout[at + 1..]).into_owned()),
    }
}

fn batch() -> Batch {
    Builder::default().workers(Workers::Threads(2)).build().expect("a batch")
}

/// Runs a task here and, as bytes, there.
fn agrees<T: Data + PartialEq + std::fmt::Debug>(mut task: Task<T>) {
    let call = task.encode().expect("a function can be sent");
    task.run().expect("runs here");
    let here = task.result().get().expect("ran");
    assert_eq!(far::<T>(&call).expect("runs there"), here);
    let error = task.encode().expect_err("its arguments have moved into the body");
    assert!(matches!(error, WireError::Spent(_)), "{error}");
}

fn sum(xs: &[f64], scale: f64) -> f64 {
    xs.iter().sum::<f64>() * scale
}

fn describe(name: &str, path: &Path, pair: (u8, Option<String>), list: Vec<String>) -> String {
    format!("{name} {} {pair:?} {list:?}", path.display())
}

fn generic<T: std::fmt::Debug>(x: T) -> String {
    format!("{x:?}")
}

#[test]
fn functions_run_in_another_process() {
    let batch = batch();
    agrees(batch.function(|| (), ()));
    agrees(batch.function(|| "no arguments".to_string(), ()));
    agrees(batch.function(sum, (vec![1.0, 2.5, -4.0], 2.0)));
    let path = PathBuf::from("/tmp/ä");
    agrees(
        batch.function(
            describe,
            ("n".to_string(), &path, (1u8, Some("x".to_string())), vec!["a".to_string()]),
        ),
    );
    agrees(batch.function(generic::<u32>, (7u32,)));
    agrees(batch.function(generic::<Option<f32>>, (Some(0.1f32),)));
    agrees(batch.function(|x: u64, y: i128| x as i128 - y, (u64::MAX, i128::MIN / 2)));
    agrees(batch.function(|ctx: &Context, x: u32| (ctx.rank(), ctx.batch().is_some(), x).2, (3u32,)));
}

#[test]
fn handles_are_sent_as_the_values_they_stand_for() {
    let batch = batch();
    let a = batch.function(|| vec![1.0f64, 2.0], ());
    let b = batch.function(|| 0.5f64, ());
    let a = a.name("a");
    let mut c = batch.function(sum, (a.result(), b.result())).name("c");
    let mut d = batch.function(|x: Vec<Vec<f64>>| x.concat(), (vec![a.result(), a.result()],));
    let mut e = batch.function(|x: &str, y: Option<f64>| format!("{x}{y:?}"), (b.stdout(), Some(&b)));
    let early = c.encode().expect_err("nothing ran yet");
    assert!(matches!(early, WireError::Input(_)), "{early}");
    assert_eq!(early.to_string(), "an argument is not there: the result of task `a` is not there");
    let compiled = batch.compile(tasks![a, b, c, d, e]).expect("compiles");
    compiled.run().expect("runs");
    assert_eq!(far::<f64>(&c.encode().expect("encodes")), Ok(1.5));
    assert_eq!(far::<Vec<f64>>(&d.encode().expect("encodes")), Ok(vec![1.0, 2.0, 1.0, 2.0]));
    assert_eq!(far::<String>(&e.encode().expect("encodes")), Ok("Some(0.5)".to_string()));
    drop(compiled);
    assert_eq!(
        c.encode().expect_err("its compiled batch is gone").to_string(),
        "task `c` will not run again and its arguments are gone: encode it before it is started"
    );
}

#[test]
fn a_failure_there_comes_back_as_text() {
    let batch = batch();
    let mut fails = batch.function(|x: u8| Err::<u8, _>(std::io::Error::other(format!("no {x}"))), (3u8,));
    let error = far::<u8>(&fails.encode().expect("encodes")).expect_err("it fails");
    assert_eq!(error, "the function failed: no 3");
}

#[test]
fn closures_stay_here() {
    let batch = batch();
    let n = 3u64;
    let error = batch.closure(move || n).name("own").encode().expect_err("it captures");
    assert_eq!(
        error.to_string(),
        "task `own` is a closure and stays in this process: make it a `fn` with arguments"
    );
}

#[test]
fn another_executable_is_refused() {
    let mut call = batch().function(sum, (vec![1.0], 2.0)).encode().expect("encodes");
    let ours = wire::fingerprint().expect("readable").to_string();
    call[0] ^= 1;
    let error = far::<f64>(&call).expect_err("another executable");
    let first = u8::from_str_radix(&ours[..2], 16).expect("hexadecimal") ^ 1;
    let wanted = format!(
        "the call comes from another executable (fingerprint {first:02x}{}, this one is {ours}): \
         run the same build on both sides",
        &ours[2..]
    );
    assert_eq!(error, wanted);
}

#[test]
fn truncated_bytes_are_errors() {
    let call = batch().function(sum, (vec![1.0, 2.0], 2.0)).encode().expect("encodes");
    assert!(wire::run(&call).is_ok());
    for len in 0..call.len() {
        assert!(wire::run(&call[..len]).is_err(), "{len} of {} bytes", call.len());
    }
    let longer = [&call[..], &[0]].concat();
    assert!(wire::run(&longer).is_err(), "a byte too many");
    assert!(wire::decode::<String>(&[200, 1, 2]).is_err());
}

/// Every bit of a call, one after the other: the result or an error, but no crash, wherever the bit is.
#[test]
fn damaged_bytes_are_errors() {
    let call =
        batch().function(generic::<Vec<String>>, (vec!["abc".to_string(); 3],)).encode().expect("encodes");
    for bit in 0..call.len() * 8 {
        let mut damaged = call.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = wire::run(&damaged).expect_err("damage does not go unseen");
        assert!(!matches!(error, WireError::Failed(_)), "bit {bit}: {error}");
    }
}
