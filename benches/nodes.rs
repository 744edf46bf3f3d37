//! What does a get cost whose key lies on another node?
//!
//! Two machines of namespaces, a rank on each, UCX over tcp between them: without these nothing is measured, and that
//! is said. Number to beat: `get`, of a value that was read before, at most 1.2x `raw`, one `ucp_get` of as many bytes,
//! plus a hash of the key; `busy`, the same while every core of the other rank computes and nobody there makes
//! progress: no get later than 5 ms.
//!
//! Who is compared: `raw`, `Fabric::get` of a segment that is shown, which is a `ucp_get` and the lock around it;
//! `ask`, the same value asked for from the server (`get_verified`, which compares the checksum there), as every first
//! get is; `bget`, of a copy. Every value read is checked to bear its key, inside the timed work.
//!
//! What was learned. Two gets at once take nearly twice the time of one over tcp, since each is a message there and
//! back (64 B to 16 KiB by block: 1.5 to 2.2 times `raw`); so values up to 64 KiB are kept with their spots, and one
//! word is read. `ask` has two states: 24 us like `raw`, or about half a millisecond, when sleepers are woken late; a
//! one-sided get needs no sleeper of its own rank.
//!
//! Where it stands (`--quick`, one run, 2026-11, beside builds that kept the load at 15 on 2 cores, so with ratios that
//! are good for little): `get` of 8 B 0.74, 64 B 1.28, 1 KiB 1.93, 16 KiB 0.80, 64 KiB 0.58, 256 KiB (by block) 1.33
//! times `raw`; fastest rounds 24, 25, 21, 31, 44, 296 us against 26, 23, 17, 48, 78, 220. `bget` of 8 B 0.5 us.
//! `busy`, 8 B: median 30 us, at most 4.4 ms, `raw` alike, `ask` 27 ms; 64 KiB at most 28 ms. To be taken again on a
//! quiet machine.

mod measure;

use measure::{Figure, Options, System, compare, median, report, time};
use std::cell::Cell;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tarragon_ddict::{DDict, Descriptor};
use tarragon_testbed::Hosts;
use tarragon_transport::segment::{Segment, Spec};
use tarragon_transport::{HandlerId, Rank, RemoteKey, World, wire};

/// Says to a process that it is a rank.
const ROLE: &str = "TARRAGON_BENCH_NODES";
/// What the other rank is to do: the tag says which.
const MODE: HandlerId = HandlerId(1);
const IDLE: u64 = 0;
const BUSY: u64 = 1;
const OVER: u64 = 2;
/// The longest the whole may take.
const PATIENCE: Duration = Duration::from_secs(300);
const KEYS: usize = 64;
const SIZES: [usize; 6] = [8, 64, 1 << 10, 16 << 10, 64 << 10, 256 << 10];

fn main() {
    let options = Options::parse();
    if std::env::var_os(ROLE).is_some() {
        return rank(&options);
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let mut command = hosts.mpirun(1);
    command.args(["-n", "2", "-x", ROLE]).env(ROLE, "1");
    command.arg(std::env::current_exe().expect("this program has a path")).args(std::env::args().skip(1));
    let mut launcher = command.stdin(Stdio::null()).spawn().expect("a launcher");
    let began = Instant::now();
    loop {
        match launcher.try_wait().expect("a launcher's end") {
            Some(status) => return assert!(status.success(), "{status}"),
            None if began.elapsed() > PATIENCE => {
                let _ = launcher.kill();
                let _ = launcher.wait();
                panic!("the ranks have not ended within {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Rank 0 measures, and rank 1 has what it reads.
fn rank(options: &Options) {
    let world = World::from_environment().expect("a world");
    let mode = Arc::new(AtomicU64::new(IDLE));
    let heard = Arc::clone(&mode);
    world.on(MODE, move |_, message| heard.store(message.tag, Ordering::SeqCst));
    let made = (world.rank() == Rank(1)).then(|| {
        let dict =
            DDict::<u64, Vec<u8>>::builder().memory(256 << 20).create_on(&world).expect("a dictionary");
        let spec = Spec { kind: "bench", layout: 1, control_bytes: 1 << 20, heap_bytes: 0 };
        let segment = Segment::create(&spec).expect("a segment");
        let shown = world.fabric().show(&segment).expect("a region");
        (dict, shown, segment)
    });
    let told = made.as_ref().map_or_else(Vec::new, |(dict, shown, segment)| {
        wire::encode(&(dict.descriptor().to_string(), shown.key(), segment.control())).expect("bytes")
    });
    let told = world.broadcast_bytes(Rank(1), &told).expect("a broadcast");
    if let Some((dict, _shown, _segment)) = made {
        world.barrier().expect("a barrier");
        stand_by(&world, &mode);
        drop(dict);
    } else {
        let ((text, key, start), _) = wire::head::<(String, RemoteKey, u64)>(&told).expect("what was told");
        let dict = text.parse::<Descriptor>().expect("a descriptor").attach().expect("a dictionary");
        world.barrier().expect("a barrier");
        Reader { options, world: &world, dict, key, start }.run();
        world.send(Rank(1), MODE, OVER, &[]).expect("a message");
    }
    world.leave().expect("a farewell");
}

/// What the other rank does: waits for messages, or computes on all cores, which look at nothing.
fn stand_by(world: &World, mode: &AtomicU64) {
    let now = || mode.load(Ordering::SeqCst);
    while now() != OVER {
        while now() == IDLE {
            world.wait(Duration::from_millis(50));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| while now() == BUSY {});
            }
        });
    }
}

struct Reader<'a> {
    options: &'a Options,
    world: &'a World,
    dict: DDict<u64, Vec<u8>>,
    /// Of memory of the other rank, and where that begins.
    key: RemoteKey,
    start: u64,
}

impl Reader<'_> {
    fn run(&self) {
        for size in SIZES {
            let keys = self.put(size);
            if self.options.wants("get") {
                self.get(size, &keys);
            }
            if self.options.wants("put") {
                self.put_all(size, &keys);
            }
        }
        if self.options.wants("busy") {
            self.world.send(Rank(1), MODE, BUSY, &[]).expect("a message");
            for size in [8, 64 << 10] {
                self.busy(size, &self.put(size));
            }
        }
    }

    fn value(key: u64, size: usize) -> Vec<u8> {
        let mut value = vec![key as u8; size];
        value[..8].copy_from_slice(&key.to_le_bytes());
        value
    }

    /// Puts values of a size to keys of the other node, and reads each once.
    fn put(&self, size: usize) -> Vec<u64> {
        let keys = self.far_keys(0);
        for key in &keys {
            self.dict.bput(key, Self::value(*key, size)).expect("a put");
            self.check(*key, self.dict.get(key).expect("a get"));
        }
        keys
    }

    /// Keys of the other node, from `first` on.
    fn far_keys(&self, first: u64) -> Vec<u64> {
        let near = self.world.fabric().node_of(self.world.rank()).expect("a node");
        let is_far = |key: &u64| self.dict.shard_of(key).expect("a shard") != near;
        (first..).filter(is_far).take(KEYS).collect()
    }

    fn check(&self, key: u64, value: Option<Vec<u8>>) {
        let value = value.expect("it was put");
        assert!(value[..8] == key.to_le_bytes(), "another key's value");
    }

    fn raw(&self, size: usize) {
        let mut bytes = vec![0; size];
        self.world.fabric().get(&self.key, self.start, &mut bytes).expect("a raw get");
        std::hint::black_box(bytes);
    }

    fn rounds(&self) -> usize {
        if self.options.quick { 11 } else { 41 }
    }

    fn system<'s>(&self, name: &'static str, keys: &'s [u64], one: impl Fn(u64) + 's) -> System<'s> {
        let turn = Cell::new(0);
        let operations = self.operations();
        System::new(name, 1, move || {
            time(|| {
                for _ in 0..operations {
                    turn.set((turn.get() + 1) % keys.len());
                    one(keys[turn.get()]);
                }
            })
        })
    }

    fn operations(&self) -> usize {
        if self.options.quick { 50 } else { 200 }
    }

    fn figure<'f>(&self, case: &'f str, mode: &'f str, n: usize, operations: usize) -> Figure<'f> {
        Figure { bench: "nodes", case, mode, n, unit: "ns/op", operations }
    }

    fn get(&self, size: usize, keys: &[u64]) {
        let systems = vec![
            self.system("tarragon", keys, |key| self.check(key, self.dict.get(&key).expect("a get"))),
            self.system("raw", keys, |_| self.raw(size)),
            self.system("ask", keys, |key| self.check(key, self.dict.get_verified(&key).expect("a get"))),
            self.system("bget", keys, |key| self.check(key, self.dict.bget(&key).expect("a get"))),
        ];
        compare(self.options, self.figure("get", "idle", size, self.operations()), self.rounds(), systems);
    }

    fn put_all(&self, size: usize, keys: &[u64]) {
        let (value, plain) = (Self::value(7, size), self.far_keys(1 << 20));
        let systems = vec![
            self.system("tarragon_bput", keys, |key| self.dict.bput(&key, &value).expect("a put")),
            self.system("put_to_copied", keys, |key| {
                self.dict.bput(&key, &value).expect("a put");
                self.dict.put(&key, &value).expect("a put");
            }),
            self.system("put", &plain, |key| self.dict.put(&key, &value).expect("a put")),
        ];
        compare(self.options, self.figure("put", "idle", size, self.operations()), self.rounds(), systems);
    }

    /// Each get by itself, while the other rank computes.
    fn busy(&self, size: usize, keys: &[u64]) {
        let count = if self.options.quick { 1000 } else { 5000 };
        let each = |one: &dyn Fn(u64)| -> Vec<f64> {
            let took = |i: usize| time(|| one(keys[i % keys.len()])).as_nanos() as f64;
            (0..count).map(took).collect()
        };
        let get = |key| self.check(key, self.dict.get(&key).expect("a get"));
        let ask = |key| self.check(key, self.dict.get_verified(&key).expect("a get"));
        let systems: [(&str, &dyn Fn(u64)); 3] =
            [("tarragon", &get), ("raw", &|_| self.raw(size)), ("ask", &ask)];
        for (name, one) in systems {
            let mut took = each(one);
            took.sort_by(f64::total_cmp);
            let figures =
                [("p50", median(took.clone())), ("p99", took[count * 99 / 100]), ("max", took[count - 1])];
            for (mode, value) in figures {
                report(self.options, self.figure("busy", mode, size, 1), name, 1, value);
            }
        }
    }
}
