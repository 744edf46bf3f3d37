//! Clients of a batch in other processes: what they submit runs as the primary's own does, whoever dies.
//!
//! A test is the primary; its clients are this program, executed again in a role.

#[path = "clients/far.rs"]
mod far;
#[path = "clients/going.rs"]
mod going;
#[path = "clients/rig.rs"]
mod rig;
#[path = "clients/roles.rs"]
mod roles;

use rig::{Child, Rig, wait_until};
use std::time::Duration;
use tarragon_engine::{AttachError, Batch, BatchDescriptor, Error, Workers, tasks};

/// Not a test by itself: what a process does that a test has started.
#[test]
fn role() {
    rig::play(roles::play);
}

/// A batch whose output stays in the directory of the test, also when tasks fail.
fn begin() -> (Rig, Batch) {
    let rig = Rig::new();
    let builder = Batch::builder().workers(Workers::Threads(2)).assume_cpus(2).run_dir(rig.path("runs"));
    let batch = builder.error::<roles::Diverged>().build().expect("a batch");
    (rig, batch)
}

fn descriptor(batch: &Batch) -> String {
    batch.descriptor().expect("a descriptor").to_string()
}

fn attach(text: &str) -> Result<Batch, Error> {
    text.parse::<BatchDescriptor>()?.attach()
}

/// Runs a role to its end.
fn passes(rig: &Rig, role: &str, batch: &Batch) {
    rig.start(role, &descriptor(batch)).passes();
}

#[test]
fn a_client_gets_results_output_and_errors() {
    let (rig, batch) = begin();
    passes(&rig, "results", &batch);
    passes(&rig, "output", &batch);
    passes(&rig, "failures", &batch);
    passes(&rig, "arguments", &batch);
    batch.join().expect("all succeed");
}

#[test]
fn data_are_the_same_to_all_and_paths_are_those_of_the_client() {
    let (rig, batch) = begin();
    passes(&rig, "files", &batch);
    passes(&rig, "order", &batch);
}

#[test]
fn a_client_compiles_again_cancels_and_asks() {
    let (rig, batch) = begin();
    passes(&rig, "again", &batch);
    passes(&rig, "cancels", &batch);
    passes(&rig, "mistakes", &batch);
}

#[test]
fn a_serial_batch_has_clients_too() {
    let rig = Rig::new();
    let batch = Batch::builder().workers(Workers::Serial).build().expect("a batch");
    for role in ["results", "output", "arguments", "files", "order", "again"] {
        passes(&rig, role, &batch);
    }
}

#[test]
fn ten_thousand_tasks_go_through_a_client() {
    let (rig, batch) = begin();
    passes(&rig, "many", &batch);
}

#[test]
fn random_lists_through_a_client_do_what_the_serial_program_does() {
    let (rig, batch) = begin();
    passes(&rig, "random", &batch);
}

/// Two clients and the primary submit at the same time; `join` waits for all three.
#[test]
fn join_waits_for_all_clients() {
    let (rig, batch) = begin();
    let text = descriptor(&batch);
    let clients = [rig.start("counts", &text), rig.start("counts", &text)];
    let own = rig.path("own");
    let mut tasks = Vec::new();
    for i in 0..50u64 {
        let task = batch.function(roles::append, (&own, i)).reads(&own).writes(&own);
        batch.submit(&task).expect("it is submitted");
        tasks.push(task);
    }
    wait_until("both have attached", || rig.has_all("attached", 2));
    batch.join().expect("all succeed");
    // Each has closed its batch, but does not end before it is told to.
    for client in &clients {
        let text = rig.read(&format!("numbers.{}", client.pid()));
        assert_eq!(text.lines().count(), 50, "in its own order, and all before `join` returned");
        assert!(text.lines().map(|line| line.parse::<u64>().expect("a number")).is_sorted());
    }
    assert_eq!(rig.read("own").lines().count(), 50);
    assert!(matches!(attach(&text), Err(Error::Attach(AttachError::Closed { .. }))));
    rig.touch("go");
    clients.into_iter().for_each(Child::passes);
}

/// What a client had started that is killed runs on, and it counts as closed.
#[test]
fn a_client_that_is_killed_counts_as_closed() {
    let (rig, batch) = begin();
    let client = rig.start("dies", &descriptor(&batch));
    wait_until("its process runs", || rig.has("running"));
    client.kill();
    assert!(!rig.has("done"));
    rig.touch("go");
    batch.join().expect("nothing of this client fails");
    assert!(rig.has("done"), "what it had started has run to its end");
    assert!(rig.has("after"), "and what depends on that");
}

#[test]
fn clients_killed_at_random_moments_wedge_nothing() {
    let (rig, batch) = begin();
    let text = descriptor(&batch);
    for round in 0..6u64 {
        let client = rig.start("floods", &text);
        wait_until("it floods", || rig.has(&format!("flooding.{}", client.pid())));
        std::thread::sleep(Duration::from_millis(17 * round));
        client.kill();
        let task = batch.function(roles::square, (round,));
        batch.compile(tasks![task]).expect("a list").run().expect("it runs");
        assert_eq!(task.result().get().expect("a value"), round * round);
    }
    batch.join().expect("nothing of this client fails");
}

/// A client whose primary is killed is told at once, whatever it waits for, and so is what it does next.
#[test]
fn clients_of_a_primary_that_is_killed_are_told() {
    let rig = Rig::new();
    let primary = rig.start("primary", "");
    wait_until("there is a batch", || rig.has("descriptor"));
    let client = rig.start("bereft", &rig.read("descriptor"));
    wait_until("it waits", || rig.has("waiting"));
    primary.kill();
    client.passes();
    let error = attach(&rig.read("descriptor")).err().expect("nobody is there");
    assert!(matches!(error, Error::Attach(AttachError::Gone { .. })), "{error}");
    assert!(error.to_string().contains("has ended"), "{error}");
}

/// A batch that goes without `join` finishes what was started, tells its clients, and does not wait for them.
#[test]
fn clients_of_a_batch_that_is_dropped_are_told() {
    let (rig, batch) = begin();
    let client = rig.start("outlives", &descriptor(&batch));
    wait_until("it has started something", || rig.has("started"));
    drop(batch);
    assert!(rig.has("done"), "what was started is finished");
    rig.touch("go");
    client.passes();
}

#[test]
fn descriptors_that_lead_nowhere_say_why() {
    for text in ["", "tarragon-batch:1:", "ddict:1:x", "tarragon-batch:9:00000000:a:1:1:1:h"] {
        let error = text.parse::<BatchDescriptor>().expect_err("no descriptor");
        assert!(matches!(&error, AttachError::NotADescriptor { .. }));
        assert!(error.to_string().contains("batch.descriptor()"), "{error}");
    }
    let (_rig, batch) = begin();
    let descriptor = batch.descriptor().expect("a descriptor");
    assert_eq!(descriptor, batch.clone().descriptor().expect("the same"));
    assert_eq!(descriptor.pid(), std::process::id());
    let edited = |key: &str, value: serde_json::Value| {
        let mut json = serde_json::to_value(&descriptor).expect("plain data");
        json[key] = value;
        serde_json::from_value::<BatchDescriptor>(json).expect("plain data")
    };
    let error = edited("boot", "another".into()).attach().err().expect("another machine");
    assert!(matches!(error, Error::Attach(AttachError::OtherNode { .. })), "{error}");
    assert!(error.to_string().contains(descriptor.host()), "{error}");
    // No process has this pid: it is above what the kernel gives.
    let error = edited("pid", u32::MAX.into()).attach().err().expect("nobody");
    assert!(matches!(error, Error::Attach(AttachError::Gone { .. })), "{error}");
    // Who knows the half of the secret that all may see is not let in.
    let seen = serde_json::to_value(&descriptor).expect("plain data")["secret"][0].clone();
    let error = edited("secret", serde_json::json!([seen, 1])).attach().err();
    assert!(matches!(error, Some(Error::Attach(AttachError::Closed { .. }))), "{error:?}");
    batch.join().expect("nothing ran");
    let error = descriptor.attach().err().expect("it is joined");
    assert!(error.to_string().contains("joined or dropped"), "{error}");
}

/// The same program with a byte more is another build: its processes run, its functions are refused by name.
#[test]
fn a_client_of_another_build_submits_processes_and_no_functions() {
    let (rig, batch) = begin();
    let other = rig.path("other-build");
    std::fs::copy(std::env::current_exe().expect("this program"), &other).expect("a copy");
    let mut file = std::fs::File::options().append(true).open(&other).expect("the copy");
    std::io::Write::write_all(&mut file, b"x").expect("one byte more");
    drop(file);
    rig.start_program(&other, "stranger", &descriptor(&batch)).passes();
    batch.join().expect("all succeed");
}

#[test]
fn another_user_is_not_let_in() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: another user can be played by root alone");
        return;
    }
    let (rig, batch) = begin();
    rig.start_as(65_534, "foreigner", &descriptor(&batch)).passes();
    batch.join().expect("nothing ran");
}

/// As in a container: the process is there, but its socket cannot be reached.
#[test]
fn another_network_namespace_is_told_from_a_batch_that_is_closed() {
    let can = std::process::Command::new("unshare").args(["--net", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("skipped: `unshare --net` is not there, or not allowed");
        return;
    }
    let (rig, batch) = begin();
    rig.start_apart("apart", &descriptor(&batch)).passes();
    batch.join().expect("nothing ran");
}

/// Clients of a batch on two ranks: their tasks run on both, and bodies on another rank are clients themselves.
#[test]
fn clients_of_a_batch_on_several_ranks_use_all_of_them() {
    Rig::new().start(rig::HOME, "").passes();
}

/// Nothing listens before somebody asks for a descriptor, and nothing after `join`.
#[test]
fn only_who_asks_for_a_descriptor_listens() {
    let rig = Rig::new();
    rig.start("silent", "").passes();
}

/// A client in the primary's own process, in a thread beside it.
#[test]
fn a_thread_of_the_same_process_may_attach() {
    let (_rig, batch) = begin();
    let client = attach(&descriptor(&batch)).expect("a client");
    assert_eq!(client.descriptor().expect("the same"), batch.descriptor().expect("a descriptor"));
    let task = client.function(roles::square, (12u64,));
    client.submit(&task).expect("it is submitted");
    assert_eq!(task.result().get().expect("a value"), 144);
    client.close().expect("all succeed");
    assert!(matches!(client.submit(client.function(roles::square, (1u64,))), Err(Error::Closed)));
    batch.join().expect("all succeed");
}
