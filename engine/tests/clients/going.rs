//! Clients that close, die, outlive the batch, come from another build; and a primary to be killed.

use super::rig::{Rig, wait_until};
use super::roles::{append, mistakes_in, square};
use std::fs;
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, BatchDescriptor, Error, ErrorKind, Mistake, Workers, tasks};

pub(crate) fn counts(batch: &Batch, rig: &Rig) {
    let me = std::process::id();
    let path = rig.path(&format!("numbers.{me}"));
    rig.touch(&format!("attached.{me}"));
    for i in 0..50u64 {
        let task = batch.function(append, (&path, i)).reads(&path).writes(&path);
        batch.submit(&task).expect("it is submitted");
        std::thread::sleep(Duration::from_millis(2));
    }
    batch.close().expect("all is fine");
    let late = batch.function(square, (1u64,));
    assert!(matches!(batch.submit(&late), Err(Error::Closed)));
    wait_until("the test is done", || rig.has("go"));
    batch.fence().expect("all have succeeded");
}

pub(crate) fn dies(batch: &Batch, rig: &Rig) {
    let script = "touch running; while ! test -e go; do sleep 0.01; done; touch done";
    let task = batch.process("sh").args(["-c", script]).cwd(rig.path(""));
    let after = batch.process("touch").arg("after").stdin(task.stdout()).cwd(rig.path(""));
    batch.submit(tasks![task, after]).expect("it is submitted");
    let _ = task.result().get();
}

pub(crate) fn floods(batch: &Batch, rig: &Rig) {
    rig.touch(&format!("flooding.{}", std::process::id()));
    loop {
        let tasks: Vec<_> = (0..500u64).map(|i| batch.function(square, (i,))).collect();
        let processes: Vec<_> = (0..3).map(|_| batch.process("true")).collect();
        batch.submit(tasks![tasks, processes]).expect("they are submitted");
        if processes[0].result().get().is_err() {
            return;
        }
    }
}

pub(crate) fn primary(rig: &Rig) {
    let builder = Batch::builder().workers(Workers::Threads(2)).assume_cpus(4);
    // Nobody removes what a killed one leaves.
    let batch = builder.run_dir(rig.path("runs")).build().expect("a batch");
    rig.write("descriptor", &batch.descriptor().expect("a descriptor").to_string());
    std::thread::sleep(Duration::from_secs(1000));
}

pub(crate) fn bereft(batch: &Batch, rig: &Rig) {
    let done = batch.function(square, (2u64,));
    done.run().expect("it runs");
    let task = batch.process("sleep").arg("1000");
    let after = batch.function(square, (done.result(),)).name("after");
    batch.submit(tasks![task, after]).expect("it is submitted");
    let compiled = batch.process("sleep").arg("1000");
    let compiled_list = batch.compile(tasks![compiled]).expect("a list");
    compiled_list.start().expect("it starts");
    let readers: Vec<_> = [task.result(), compiled.result()]
        .into_iter()
        .map(|handle| std::thread::spawn(move || handle.get().expect_err("it never ends")))
        .collect();
    assert_eq!(after.result().get().expect("a value"), 16);
    rig.touch("waiting");
    let began = Instant::now();
    let error = task.result().get().expect_err("it never ends");
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(error.to_string().contains("its program has ended"), "{error}");
    for reader in readers {
        assert_eq!(reader.join().expect("it is told").kind(), ErrorKind::Lost);
    }
    compiled_list.wait().expect_err("it never ends");
    assert!(began.elapsed() < Duration::from_secs(60));
    // What came before is here; what comes now is an error.
    assert_eq!(done.result().get().expect("a value"), 4);
    let late = batch.function(square, (1u64,));
    assert!(matches!(late.start(), Err(Error::BatchLost { .. })));
    batch.submit(batch.function(square, (1u64,))).expect("it is queued");
    let error = batch.fence().expect_err("nobody runs it");
    assert!(matches!(error, Error::BatchLost { .. }), "{error}");
    batch.close().expect("nothing is queued");
}

pub(crate) fn outlives(batch: &Batch, rig: &Rig) {
    let script = "sleep 0.3; echo said; touch done";
    let task = batch.process("sh").args(["-c", script]).cwd(rig.path(""));
    task.start().expect("it starts");
    rig.touch("started");
    // The news of its end comes before the farewell.
    assert_eq!(task.result().get().expect("how it ended").code, 0);
    assert_eq!(task.stdout().get().expect("its output"), "said\n");
    wait_until("the test has dropped it", || rig.has("go"));
    let late = batch.function(square, (1u64,));
    let error = late.start().expect_err("it is gone");
    assert!(error.to_string().contains("dropped"), "{error}");
}

pub(crate) fn stranger(batch: &Batch) {
    let said = batch.process("echo").arg("hello");
    let again = batch.process("cat").stdin(said.stdout());
    batch.submit(tasks![said, again]).expect("processes are welcome");
    assert_eq!(again.stdout().get().expect("its output"), "hello\n");
    let function = batch.function(square, (1u64,));
    let decides = batch.process("true").retries(1).retry_if(|_| true);
    let found = mistakes_in(batch.compile(tasks![function, decides]).expect_err("other code"));
    let text = found[0].to_string();
    let ours = std::env::current_exe().expect("this program").display().to_string();
    let pid = batch.descriptor().expect("the primary's").pid();
    let theirs = fs::read_link(format!("/proc/{pid}/exe")).expect("its program").display().to_string();
    assert!(text.contains(&ours) && text.contains(&theirs), "{text}");
    assert!(text.contains("processes"), "{text}");
    assert!(matches!(&found[..], [Mistake::OtherExecutable { task: 0, more: 1, .. }]), "{found:?}");
}

/// Threads of this process whose name begins so.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("our threads");
    let names = tasks.flatten().filter_map(|it| fs::read_to_string(it.path().join("comm")).ok());
    names.filter(|it| it.starts_with(name)).count()
}

fn sockets() -> usize {
    let name = format!("@tarragon-batch-{}-", std::process::id());
    fs::read_to_string("/proc/net/unix").expect("sockets").matches(&name).count()
}

pub(crate) fn silent() {
    let batch = Batch::builder().workers(Workers::Threads(2)).build().expect("a batch");
    let task = batch.function(square, (1u64,));
    batch.submit(&task).expect("it is submitted");
    batch.fence().expect("it runs");
    assert_eq!((threads("tarragon-listen"), sockets()), (0, 0));
    let text = batch.descriptor().expect("a descriptor").to_string();
    assert_eq!(sockets(), 1);
    // A thread names itself.
    wait_until("a thread accepts", || threads("tarragon-listen") == 1);
    let client = text.parse::<BatchDescriptor>().expect("its text").attach().expect("a client");
    client.function(square, (1u64,)).run().expect("it runs");
    client.close().expect("all is fine");
    batch.join().expect("all is fine");
    drop(client);
    wait_until("all threads are gone", || {
        ["tarragon-listen", "tarragon-sessio", "tarragon-news", "tarragon-client"].map(threads) == [0; 4]
    });
    wait_until("the socket is gone", || sockets() == 0);
}
