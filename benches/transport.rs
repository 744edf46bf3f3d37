//! What does it cost to reach a rank: over UCX on another machine, and through shared memory on this one?
//!
//! Numbers to beat. `message` (8 B, tcp between two machines): half of a round trip at most 1.1x `raw`, which is
//! `ucp_am_lat` of `ucx_perftest`. `bandwidth` (1 MiB, tcp): time per message at most 1/0.95 of `raw`, `ucp_am_bw`.
//! `node` (8 B, shared memory): half of a round trip against `raw`, a ping-pong of one line each way, for which there
//! is no bar but that it be said. `start`: a program of one `Batch` under `mpirun -n 2`, from its start to its end, at
//! most 1.2x `mpi`, one of `MPI_Init` and `MPI_Finalize`. `idle`: the time that two ranks on two machines have of the
//! processors while nothing is sent, which is to be none. `question`: from a message to the answer of a handler on the
//! other machine, each by itself, the threads of that rank asleep or computing on all cores: none later than 5 ms.
//!
//! The two machines are namespaces of this one, with a cable between them; without them, `mpirun`, UCX or its
//! `ucx_perftest`, a case is skipped by name. Both sides use the same library, network card and `UCX_TLS`, and both
//! poll; the two ranks sleep while `ucx_perftest` runs, which is started anew in each round and times itself.
//!
//! Where it stands (`--quick`, 2 cores of a VM; bars are in brackets): `start` 0.63 of `mpi`; `idle` 0.5 ms in a
//! second (0); `message` 1.2 (1.1); `bandwidth` 1.1-1.2 for 64 KiB, 1.3-1.5 for 1 MiB and 1.0-1.2 for 16 MiB (1.05), of
//! payloads that are shared, and 1.3-1.4, 1.7-2.3 and 1.6-1.8 of those that are lent; `node` 2.4-3.3.
//!
//! What was learnt of `bandwidth`. It was 1.6, 3.8 and 1.8: each payload was copied to memory that the kernel had to
//! find and zero page by page, and fetched into more of that, eight at a time, so that none of it was near. Now buffers
//! are used again, a mebibyte is fetched at a time, and payloads that are shared are not copied on their way out. What
//! is left of 1 MiB: `ucx_perftest` writes to the receiver's memory (put_zcopy), while ours goes in active messages, of
//! which each piece is copied once more. `UCX_RNDV_SCHEME=put_zcopy` does not change that; it may be the failure
//! handling, without which `ucx_perftest` does, that UCX 1.13 has no such way for.
//!
//! What was learnt of `idle`. It was 1.3 ms: each rank woke 14 times a second, to look after what nobody rings for, and
//! to send each peer a note that the connection bears. The kernel does that now, and naps grow to two seconds.
//!
//! What was learnt of `question`. A thread that had found its answer missing went to sleep although another one, which
//! received for it, had just delivered that: one in a hundred slept until its time was over, a second here, a
//! millisecond where requests looked again so often. And the two threads that attend to a rank took each other's looks
//! for those of a thread that polls, and kept out of the way for a millisecond. With both mended the 99th of a hundred
//! fell from 1000 ms to 0.4 ms asleep and 3.4 ms computing (there scheduling, which others beside took part in).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its figures, and what is skipped"
)]

mod beside;
#[expect(dead_code, reason = "the bench of the queue uses all of it")]
mod channels;
mod far;
mod measure;

use beside::{Beside, Orders};
use channels::raw::Line;
use channels::{ECHO, Side, serve};
use far::{BANDWIDTH, LENT, Ranks, perftest};
use measure::{Figure, Options, System, compare, report, time};
use std::cell::RefCell;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tarragon::Batch;
use tarragon_testbed::{Hosts, lacks_mpirun, skip};
use tarragon_transport::{Bootstrap, HandlerId, Rank, Spawn, World};

/// The arguments of a process that is a rank: on another machine, of this node, and of an empty program.
const FAR: &str = "--far-rank";
const NEAR: &str = "--near-rank";
const EMPTY: &str = "--empty-rank";

fn main() {
    if let Some(role) = beside::role() {
        let [_, _, address, orders] = &role[..] else { panic!("a kind, a channel, its address and orders") };
        return serve(&mut Line::attach(address, false), Orders::open(orders));
    }
    match std::env::args().nth(1).as_deref() {
        Some(FAR) => return far::serve(),
        Some(NEAR) => return drop(near_world()),
        Some(EMPTY) => return drop(Batch::new().expect("a batch")),
        _ => {}
    }
    let options = Options::parse();
    if options.wants("node") {
        node(&options);
    }
    if options.wants("start") {
        start(&options);
    }
    if ["message", "bandwidth", "idle", "question"].iter().any(|case| options.wants(case)) {
        between_machines(&options);
    }
}

fn between_machines(options: &Options) {
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let mut ranks = Ranks::start(&hosts, FAR);
    if options.wants("idle") {
        let wait_ms = if options.quick { 2000 } else { 10_000 };
        let used = Duration::from_nanos(ranks.order("idle", wait_ms));
        let per_second = used.as_secs_f64() * 1e6 / wait_ms as f64;
        println!("transport/idle: {per_second:.2} ms of CPU in a second, two ranks on two machines");
    }
    if options.wants("question") {
        question(options, &mut ranks);
    }
    if !far::has_perftest() {
        return skip("ucx-utils", "ucx_perftest is not installed (Debian: ucx-utils)");
    }
    let rounds = if options.quick { 7 } else { 31 };
    if options.wants("message") {
        let n = if options.quick { 2000 } else { 20_000 };
        let raw = System::new("raw", 2, || perftest(&hosts, "ucp_am_lat", 8, n));
        let ours = System::new("tarragon", 2, || Duration::from_nanos(ranks.order("message", n)) / 2);
        let figure = figure("message", "tcp", n as usize, "ns/way");
        compare(options, figure, rounds, vec![raw, ours]);
    }
    if options.wants("bandwidth") {
        for (mode, bytes) in [("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("16 MiB", 16 << 20)] {
            let n = (if options.quick { 300 << 20 } else { 2000 << 20 }) / bytes as u64;
            let raw = System::new("raw", 2, || perftest(&hosts, "ucp_am_bw", bytes, n));
            let ranks = RefCell::new(&mut ranks);
            let order =
                |way: &str| Duration::from_nanos(ranks.borrow_mut().order(&format!("{way}{bytes}"), n));
            let ours = System::new("tarragon", 2, || order(BANDWIDTH));
            let lent = System::new("tarragon_lent", 2, || order(LENT));
            let figure = figure("bandwidth", mode, n as usize, "ns/message");
            compare(options, figure, rounds, vec![raw, ours, lent]);
        }
    }
}

fn question(options: &Options, ranks: &mut Ranks) {
    let n = if options.quick { 500 } else { 5000 };
    for kind in ["asleep", "busy"] {
        let took = ranks.figures(kind, n);
        for (of, took) in ["p50", "p99", "max"].into_iter().zip(took) {
            let mode = format!("{kind} {of}");
            report(options, figure("question", &mode, n as usize, "ns"), "tarragon", 2, took as f64);
        }
    }
}

fn figure<'a>(case: &'a str, mode: &'a str, n: usize, unit: &'a str) -> Figure<'a> {
    Figure { bench: "transport", case, mode, n, unit, operations: n }
}

const PING: HandlerId = HandlerId(1);
const PONG: HandlerId = HandlerId(2);

/// The world of the two ranks of this node; the copy answers until the first one has left.
fn near_world() -> Option<World> {
    let world = World::join(&Bootstrap::Spawn(Spawn::new(2).args([NEAR]))).expect("two ranks");
    if world.rank() == Rank(0) {
        return Some(world);
    }
    world.on(PING, |fabric, message| {
        fabric.send(message.source, PONG, message.tag + 1, message.payload).expect("it is there");
    });
    world.barrier().expect("both are there");
    // The other one leaves before it comes to this.
    while world.barrier_timeout(Duration::from_secs(1)).is_err() {
        if world.peer(Rank(0)) != tarragon_transport::PeerState::Here {
            break;
        }
    }
    world.leave().expect("all was sent");
    None
}

fn node(options: &Options) {
    let world = near_world().expect("the copies have another argument");
    let came = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&came);
    world.on(PONG, move |_, message| count.store(message.tag, Ordering::Relaxed));
    world.barrier().expect("both are there");
    let n = 20_000;
    let line = Line::create(false);
    let address = line.address();
    let (mut line, mut other) = (line, Beside::process(&["number", "raw", &address]));
    let raw = System::new("raw", 2, move || {
        other.order(ECHO, n);
        let took = time(|| {
            for number in 0..n {
                line.send(number);
                let back: u64 = line.receive();
                assert_eq!(back, number + 1);
            }
        });
        other.wait();
        took / 2
    });
    let ours = System::new("tarragon", 2, || {
        time(|| {
            for number in 0..n {
                world.send(Rank(1), PING, number, &number.to_ne_bytes()).expect("it is there");
                while came.load(Ordering::Relaxed) != number + 1 {
                    world.progress();
                }
            }
        }) / 2
    });
    let rounds = if options.quick { 7 } else { 41 };
    compare(options, figure("node", "shm", n as usize, "ns/way"), rounds, vec![raw, ours]);
    drop(world.leave_timeout(Duration::from_secs(10)));
}

/// `mpirun` of two ranks.
fn launch(program: &Path, arguments: &[&str]) -> Duration {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--oversubscribe", "--bind-to", "none", "-n", "2"]).arg(program).args(arguments);
    mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let mut status = None;
    let took = time(|| status = Some(mpirun.stdin(Stdio::null()).status().expect("mpirun starts")));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    took
}

fn start(options: &Options) {
    if lacks_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("far/empty.c");
    let compiled = Command::new("mpicc").arg("-o").arg(&empty).arg(source).output();
    let is_compiled = compiled.as_ref().is_ok_and(|output| output.status.success());
    let program = std::env::current_exe().expect("this program has a path");
    let ours = System::new("tarragon", 2, || launch(&program, &[EMPTY]));
    let mut systems = vec![ours];
    if is_compiled {
        systems.push(System::new("mpi", 2, || launch(&empty, &[])));
    } else {
        skip("mpicc", "it compiles nothing (Debian: libopenmpi-dev)");
    }
    let rounds = if options.quick { 5 } else { 15 };
    let figure = figure("start", "mpirun", 1, "ns");
    compare(options, figure, rounds, systems);
    if let Ok(output) = compiled {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
}
