//! What does it cost to read and write what lies on another node: keys of a dictionary, items of a queue?
//!
//! Two machines of namespaces, a rank on each, UCX over tcp between them: without these nothing is measured, and that
//! is said. Number to beat: `get`, of a value that was read before, at most 1.2x `raw`, one `ucp_get` of as many bytes,
//! plus a hash of the key; `busy`, the same while every core of the other rank computes and nobody there makes
//! progress: no get later than 5 ms.
//!
//! Who is compared: `raw`, `Fabric::get` of a segment that is shown, which is a `ucp_get` and the lock around it;
//! `ask`, the same value asked for from the server (`get_verified`, which compares the checksum there), as every first
//! get is; `bget`, of a copy. `replicas`: a put to a key that two nodes keep against one that one node keeps, to beat
//! 2.2; and a get on the key's own node, to beat 1.0. `queue`: puts of one thread to a queue of the other rank, which
//! takes them out as they come; `round_trip` is a request that the other rank answers at once, which a put that waits
//! for its answer costs at least, to beat 2; `put_all`, many puts in one call, against as many one by one, to beat 0.1
//! at 8 B. Every value read is checked to bear its key, inside the timed work.
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
//!
//! `replicas` (`--quick`, one run, 2026-11, a quiet machine): puts of 8 B 1.97, 64 B 2.16, 1 KiB 2.01, 16 KiB 2.13,
//! 64 KiB 3.85, 256 KiB 1.62 times `put_once` (23 us up to 1 KiB); gets on the own node 0.93 to 1.06 times `get_once`.
//! `bput` of 8 B 35 us, 2.1 times a put; a put to a key that has copies, which a thread takes away first, half a
//! millisecond. `queue`: a put of 8 B 37 us, 64 B 42, 1 KiB 54, 16 KiB 61,
//! 64 KiB 136, 256 KiB 334, which is 2.03, 1.87, 1.93, 1.86, 1.22 and 1.02 times a bare round trip (with a thread
//! between message and put it was 71 us and 3.2 times); an item of `put_all` 0.73 us, 1.1, 3.7, 34, 90 and 259, which
//! is 0.02, 0.03, 0.08, 0.56, 0.62 and 0.76 times one put by itself.

mod measure;

use measure::{Figure, Options, System, compare, median, report, time};
use std::cell::Cell;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tarragon_ddict::{DDict, Descriptor};
use tarragon_queue::Queue;
use tarragon_testbed::Hosts;
use tarragon_transport::segment::{Segment, Spec};
use tarragon_transport::{HandlerId, Rank, RemoteKey, World, wire};

/// Says to a process that it is a rank.
const ROLE: &str = "TARRAGON_BENCH_NODES";
/// What the other rank is to do: the tag says which.
const MODE: HandlerId = HandlerId(1);
/// A request that is answered at once.
const ECHO: HandlerId = HandlerId(2);
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
    world.on(ECHO, |fabric, message| fabric.respond(message, message.payload).expect("it is there"));
    let made = (world.rank() == Rank(1)).then(|| {
        let builder = DDict::<u64, Vec<u8>>::builder().memory(256 << 20);
        let dict = builder.create_on(&world).expect("a dictionary");
        let kept = builder.replicas(2).create_on(&world).expect("a dictionary");
        let queue = Queue::<Vec<u8>>::builder().bounded(4096).create_on(&world).expect("a queue");
        let spec = Spec { kind: "bench", layout: 1, control_bytes: 1 << 20, heap_bytes: 0 };
        let segment = Segment::create(&spec).expect("a segment");
        let shown = world.fabric().show(&segment).expect("a region");
        (dict, kept, queue, shown, segment)
    });
    let told = made.as_ref().map_or_else(Vec::new, |(dict, kept, queue, shown, segment)| {
        let texts =
            [dict.descriptor().to_string(), kept.descriptor().to_string(), queue.descriptor().to_string()];
        wire::encode(&(texts, shown.key(), segment.control())).expect("bytes")
    });
    let told = world.broadcast_bytes(Rank(1), &told).expect("a broadcast");
    if let Some((_dict, _kept, queue, _shown, _segment)) = made {
        world.barrier().expect("a barrier");
        std::thread::scope(|scope| {
            scope.spawn(|| while queue.get().is_ok() {});
            stand_by(&world, &mode);
            queue.close();
        });
    } else {
        let ((texts, key, start), _) =
            wire::head::<([String; 3], RemoteKey, u64)>(&told).expect("what was told");
        let attach =
            |text: &str| text.parse::<Descriptor>().expect("a descriptor").attach().expect("a dictionary");
        let (dict, kept) = (attach(&texts[0]), attach(&texts[1]));
        let queue = texts[2].parse::<tarragon_queue::Descriptor>().expect("a descriptor");
        let queue = queue.attach().expect("a queue");
        world.barrier().expect("a barrier");
        Reader { options, world: &world, dict, kept, queue, key, start }.run();
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
    /// Whose keys both nodes keep.
    kept: DDict<u64, Vec<u8>>,
    queue: Queue<Vec<u8>>,
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
            if self.options.wants("replicas") {
                self.replicas(size);
            }
            if self.options.wants("queue") {
                self.queue(size);
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

    /// Keys that two nodes keep, of the other node and of this one.
    fn replicas(&self, size: usize) {
        let (value, far) = (Self::value(7, size), self.far_keys(2 << 20));
        let near_node = self.world.fabric().node_of(self.world.rank()).expect("a node");
        let is_near =
            |dict: &DDict<u64, Vec<u8>>, key: &u64| dict.shard_of(key).expect("a shard") == near_node;
        let keys_of = |dict: &DDict<u64, Vec<u8>>, wanted: bool| -> Vec<u64> {
            (3 << 20..).filter(|key| is_near(dict, key) == wanted).take(KEYS).collect()
        };
        let (kept_far, kept_near) = (keys_of(&self.kept, false), keys_of(&self.kept, true));
        let systems = vec![
            self.system("tarragon", &kept_far, |key| self.kept.put(&key, &value).expect("a put")),
            self.system("put_once", &far, |key| self.dict.put(&key, &value).expect("a put")),
            self.system("own_node", &kept_near, |key| self.kept.put(&key, &value).expect("a put")),
        ];
        compare(
            self.options,
            self.figure("replicas", "put", size, self.operations()),
            self.rounds(),
            systems,
        );
        let near = keys_of(&self.dict, true);
        for key in &near {
            self.dict.put(key, Self::value(*key, size)).expect("a put");
        }
        for key in &kept_near {
            self.kept.put(key, Self::value(*key, size)).expect("a put");
        }
        let systems = vec![
            self.system("tarragon", &kept_near, |key| self.check(key, self.kept.get(&key).expect("a get"))),
            self.system("get_once", &near, |key| self.check(key, self.dict.get(&key).expect("a get"))),
        ];
        compare(
            self.options,
            self.figure("replicas", "own get", size, self.operations()),
            self.rounds(),
            systems,
        );
    }

    /// Puts one after the other, each of a value of its own.
    fn queue(&self, size: usize) {
        let (value, fabric, turns) = (Self::value(7, size), self.world.shared_fabric(), [0]);
        let ask = |_| {
            let request = fabric.request(Rank(1), ECHO, &value).expect("a request");
            assert!(request.wait(PATIENCE).expect("an answer").is_some());
        };
        let systems = vec![
            self.system("tarragon", &turns, |_| self.queue.put(value.clone()).expect("a put")),
            self.system("round_trip", &turns, ask),
        ];
        compare(self.options, self.figure("queue", "put", size, self.operations()), self.rounds(), systems);
        let count = (20 * self.operations()).min((16 << 20) / size);
        let items = || (0..count).map(|_| value.clone());
        let systems = vec![
            System::new("tarragon", 1, || time(|| self.queue.put_all(items()).expect("all are in"))),
            System::new("one_by_one", 1, || {
                time(|| items().for_each(|item| self.queue.put(item).expect("a put")))
            }),
        ];
        compare(self.options, self.figure("queue", "put_all", size, count), self.rounds(), systems);
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
