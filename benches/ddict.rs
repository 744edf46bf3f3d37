//! What do a get and a put of the dictionary cost, between processes of a node and while others write?
//!
//! Numbers to beat. `get` (8 B) and `get_pinned` (first and last 8 bytes touched) from another process than the one
//! that updates flat out, over 10^3 keys (mode `two`): at most 2.5x `floor`, a bare version-checked read of an array in
//! shared memory whose writer is flat out as well (`floor_alike`: one that is written to as often as ours); pinned
//! sizes from 1 KiB to 64 MiB within 1.5x of each other; `get_cold`, 10^6 keys: at most 2x `floor`, the walk of a plain
//! array in the same order; a get at most 2x `hashmap`, at most 1/4 of `lmdb` (8 B, 1 KiB), at most 1/1000 of `redis`.
//! `put` of 1 MiB and more into recycled memory: at most 1/0.9 of `memcpy`; of 64 B at most 1/3 of `lmdb`; two
//! processes to different keys at most 1/1.7 of the time of `one`. `multi_get` and `fetch_add` have no bar.
//!
//! Who is compared: `floor` and `memcpy`, on memory of the same kind; `hashmap`, inside one process, whose writer is a
//! thread; `lmdb`, sync off, in memory; `redis`, one request at a time over a Unix socket, and `redis_pipeline`, 16 at
//! a time. In mode `two` each has a writer of its own beside it, asleep while others are measured. Every value read is
//! checked to bear its key, a large one to be of one write, inside the timed work of everyone; a system that is a
//! thousand times slower does fewer operations. In `get_cold` a key waits for the value before it, so that misses do
//! not overlap.
//!
//! LMDB's reads see the newest value, as everybody's do here: its transaction is renewed for each. `hashmap` writes
//! large values to fresh memory of the allocator, and swaps them in.
//!
//! What was learned. A get is instructions and the loads that depend on one another, not the lines it touches: handing
//! a result on through memory (a `Result` with a large error, a guard of mixed words) cost 40 ns of 60; a branch on
//! which of two places has the key is a lottery; a fence in each pin cost 8 ns, so the reclaimer runs it on all cores,
//! once for many blocks (13 us with another process at work). Values of 8 bytes lie beside their keys.
//!
//! A guard in a `Result` is stored by words and loaded at once by two words, which waits for the stores: with the slow
//! way's guard in a box the common one's stays in registers, and a pinned get of one thread fell from 44 to 24 ns. To
//! count a hit costs 3 to 5 ns of a get of 17, measured by leaving it out.
//!
//! Where it stands (`--quick`, one run, others at work beside, mode `two`): `get` 6.4 times `floor`, 0.82 `hashmap`,
//! 0.13 `lmdb`; `get_pinned` of 1 KiB 3.7 times `floor` (6.8 times the one written as often), 1.05 `hashmap`, 0.15
//! `lmdb`; of 1 MiB 8.8 times `floor`, 1.8 `hashmap`. In mode `single` pinned gets are 1.8 to 1.9 times `hashmap`. Full
//! form, in an earlier run: cold 1.7 times `floor`; `put` of 64 B 0.33 `lmdb`, of 1 MiB and 16 MiB 0.99 and 1.01
//! `memcpy`; two processes 0.49 of `one` at 64 B, bound by memory from 1 MiB on. The numbers against `floor` are
//! missed: on another machine (EPYC, one `--quick` run, 2026-11-29, nothing beside) 4.0 and 6.1 (`get`), 3.5 to 4.9
//! (`get_pinned`, 2.0 to 2.4 `hashmap`); callgrind counts 198 instructions in a get there. It is 4 to 10 ns here, where
//! reads of independent keys overlap, and a get of some 150 instructions lets three of them overlap.
#![expect(clippy::print_stderr, reason = "says what is skipped")]

mod beside;
mod measure;
mod stores;

use beside::{Beside, Orders, leftovers};
use measure::{Figure, Options, System, compare, report, time};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use stores::floor::Floor;
use stores::hashmap::Sharded;
use stores::lmdb::Lmdb;
use stores::redis::{Redis, Server};
use stores::tarragon::Tarragon;
use stores::{ADD, Both, Lot, PUT, Plan, Store, UPDATE, Writer, check, check_ends, puts, serve};
use tempfile::TempDir;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Requests of one pipeline.
const PIPELINE: usize = 16;
/// Between two addresses.
const BETWEEN: char = '\n';
/// What the folder of LMDB's files begins with.
const WORD: &str = "tarragon-bench-lmdb";
/// Keys of one `multi_get`.
const MANY: usize = 100;
/// Redis and a pipeline of it do one of so many operations; LMDB, and who copies large values, one of ten.
const REDIS_SHARE: usize = 1000;

fn main() {
    if let Some(role) = beside::role() {
        return stand_beside(&role);
    }
    let rig = Rig::new(Options::parse());
    for two in [true, false] {
        rig.case("get", || get(&rig, two));
        rig.case("get_pinned", || pinned(&rig, two));
        rig.case("fetch_add", || fetch_add(&rig, two));
    }
    rig.case("get_cold", || cold(&rig));
    rig.case("multi_get", || multi_get(&rig));
    rig.case("put", || {
        let sizes = [(64, 20_000), (MIB, 256), (16 * MIB, 24)];
        for (size, operations) in &sizes[..if rig.options.quick { 2 } else { 3 }] {
            put(&rig, *size, *operations);
            put_two(&rig, *size, *operations);
        }
    });
}

/// The process that writes: the store's name and address, the plan, and the address of its orders.
fn stand_beside(role: &[String]) {
    let [name, address, plan, orders] = role else { panic!("a store, its address, a plan and orders") };
    let (plan, orders) = (Plan::from_text(plan), Orders::open(orders));
    match name.as_str() {
        "floor" => serve(&mut Floor::attach(address, plan), plan, orders),
        "lmdb" => serve(&mut Lmdb::open(Path::new(address), plan), plan, orders),
        "redis" => serve(&mut Redis::attach(address), plan, orders),
        "tarragon" => serve(&mut Tarragon::attach(address, plan), plan, orders),
        "tarragon_and_floor" => {
            let (ours, floor) = address.rsplit_once(BETWEEN).expect("two addresses");
            let mut both = Both(Tarragon::attach(ours, plan), Floor::attach(floor, plan));
            serve(&mut both, plan, orders);
        }
        other => panic!("no store {other}"),
    }
}

/// What all cases share.
struct Rig {
    options: Options,
    folder: TempDir,
    redis: Option<Server>,
}

impl Rig {
    fn new(options: Options) -> Self {
        leftovers::sweep(WORD);
        let folder =
            tempfile::Builder::new().prefix(&leftovers::name(WORD)).tempdir_in(leftovers::in_memory());
        let folder = folder.expect("a folder");
        let redis = Server::start().inspect_err(|why| eprintln!("skipped: redis: {why}")).ok();
        Self { options, folder, redis }
    }

    fn case(&self, name: &str, run: impl FnOnce()) {
        if self.options.wants(name) {
            run();
        }
    }

    fn rounds(&self) -> usize {
        if self.options.quick { 7 } else { 31 }
    }

    fn compare(&self, case: &str, mode: &str, n: usize, operations: usize, systems: Vec<System<'_>>) {
        let figure = Figure { bench: "ddict", case, mode, n, unit: "ns/op", operations };
        compare(&self.options, figure, self.rounds(), systems);
    }

    /// Ours, and a floor that one process writes to alike, so that it is read under as many writes.
    fn ours_and_floor(&self, plan: Plan, two: bool) -> (Option<Peer<Tarragon>>, Peer<Floor>) {
        let floor = Floor::create(plan);
        let Some(mut ours) = Tarragon::create(plan) else {
            let beside = two.then(|| process("floor", &floor.address(), plan));
            return (None, Peer::new(floor, beside));
        };
        fill(&mut ours, plan);
        let address = format!("{}{BETWEEN}{}", ours.address(), floor.address());
        let ours = Peer::new(ours, two.then(|| process("tarragon_and_floor", &address, plan)));
        let floor = Peer { beside: Rc::clone(&ours.beside), ..Peer::new(floor, None) };
        (Some(ours), floor)
    }

    /// The floor with a writer of its own, flat out.
    fn floor(&self, plan: Plan, two: bool) -> Peer<Floor> {
        let floor = Floor::create(plan);
        let beside = two.then(|| process("floor", &floor.address(), plan));
        Peer::new(floor, beside)
    }

    fn ours(&self, plan: Plan, two: bool) -> Option<Peer<Tarragon>> {
        let mut ours = Tarragon::create(plan)?;
        fill(&mut ours, plan);
        let beside = two.then(|| process("tarragon", &ours.address(), plan));
        Some(Peer::new(ours, beside))
    }

    fn hashmap(&self, plan: Plan, two: bool) -> Peer<Sharded> {
        let mut map = Sharded::create(plan);
        fill(&mut map, plan);
        let mut shared = map.clone();
        let beside = two.then(|| Beside::thread(move |orders| serve(&mut shared, plan, orders)));
        Peer::new(map, beside)
    }

    fn lmdb(&self, plan: Plan, two: bool) -> (Peer<Lmdb>, TempDir) {
        let folder = tempfile::tempdir_in(&self.folder).expect("a folder");
        let mut lmdb = Lmdb::open(folder.path(), plan);
        fill(&mut lmdb, plan);
        let beside = two.then(|| process("lmdb", folder.path().to_str().expect("UTF-8"), plan));
        (Peer::new(lmdb, beside), folder)
    }

    fn redis(&self, plan: Plan, pipeline: bool, two: bool) -> Option<Peer<Redis>> {
        let server = self.redis.as_ref()?;
        let mut redis = Redis::fresh(server, pipeline, plan);
        fill(&mut redis, plan);
        let beside = two.then(|| process("redis", &server.address(), plan));
        Some(Peer::new(redis, beside))
    }
}

fn mode(two: bool) -> &'static str {
    if two { "two" } else { "single" }
}

fn process(store: &str, address: &str, plan: Plan) -> Beside {
    Beside::process(&[store, address, &plan.to_text()])
}

/// Gives every key a value.
fn fill(store: &mut impl Store, plan: Plan) {
    let mut writer = Writer::new(plan);
    (0..plan.keys).for_each(|key| writer.write(store, key));
}

/// Keys drawn by lot.
fn drawn(plan: Plan, count: usize) -> Vec<u64> {
    let mut lot = Lot(1);
    (0..count).map(|_| lot.below(plan.keys)).collect()
}

/// A store, by this process's handle, and who writes to it meanwhile.
struct Peer<S> {
    store: RefCell<S>,
    beside: Rc<RefCell<Option<Beside>>>,
    /// What was written meanwhile, and in what time.
    updates: Cell<(u64, Duration)>,
}

impl<S: Store> Peer<S> {
    fn new(store: S, beside: Option<Beside>) -> Self {
        Self { store: RefCell::new(store), beside: Rc::new(RefCell::new(beside)), updates: Cell::default() }
    }

    /// Times work while the other one, if there is one, writes flat out.
    fn under_updates(&self, work: impl FnOnce(&mut S)) -> Duration {
        let (mut store, mut beside) = (self.store.borrow_mut(), self.beside.borrow_mut());
        let started = Instant::now();
        if let Some(beside) = &mut *beside {
            beside.order(UPDATE, 0);
        }
        let took = time(|| work(&mut store));
        if let Some(beside) = &mut *beside {
            let (count, time) = self.updates.get();
            self.updates.set((count + beside.stop(), time + started.elapsed()));
        }
        took
    }

    /// Reports what an update took that was done meanwhile.
    fn report_updates(&self, rig: &Rig, system: &str, case: &str, size: usize) {
        let (count, time) = self.updates.get();
        if count > 0 {
            let figure =
                Figure { bench: "ddict", case, mode: "two", n: size, unit: "ns/update", operations: 1 };
            report(&rig.options, figure, system, 1, time.as_nanos() as f64 / count as f64);
        }
    }

    /// Times work that the other one, if there is one, does the same amount of.
    fn shared_work(&self, order: u64, count: usize, work: impl FnOnce(&mut S)) -> Duration {
        let (mut store, mut beside) = (self.store.borrow_mut(), self.beside.borrow_mut());
        if let Some(beside) = &mut *beside {
            beside.order(order, count as u64);
        }
        time(|| {
            work(&mut store);
            if let Some(beside) = &mut *beside {
                beside.wait();
            }
        })
    }
}

// ── reads ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// One system of a case that reads: it does one of `share` operations.
fn reads<'a, S: Store>(
    name: &'static str,
    peer: &'a Peer<S>,
    keys: &'a [u64],
    share: usize,
    read: fn(&mut S, u64),
) -> System<'a> {
    let keys = &keys[..keys.len() / share];
    System::new(name, 1, move || {
        peer.under_updates(|store| keys.iter().for_each(|key| read(store, *key))) * share as u32
    })
}

fn get_one<S: Store>(store: &mut S, key: u64) {
    check(store.get(key), key);
}

fn pin_one<S: Store>(store: &mut S, key: u64) {
    check_ends(&store.pinned(key), key);
}

/// A get of 8 bytes.
fn get(rig: &Rig, two: bool) {
    let plan = Plan { keys: 1000, size: 8 };
    let keys = drawn(plan, if rig.options.quick { 50_000 } else { 200_000 });
    let ((ours, alike), hashmap) = (rig.ours_and_floor(plan, two), rig.hashmap(plan, two));
    let (floor, lmdb) = (rig.floor(plan, two), rig.lmdb(plan, two));
    let (redis, pipeline) = (rig.redis(plan, false, two), rig.redis(plan, true, two));
    let mut systems = vec![
        reads("floor", &floor, &keys, 1, get_one),
        reads("floor_alike", &alike, &keys, 1, get_one),
        reads("hashmap", &hashmap, &keys, 1, get_one),
        reads("lmdb", &lmdb.0, &keys, 10, get_one),
    ];
    systems.extend(redis.iter().map(|redis| reads("redis", redis, &keys, REDIS_SHARE, get_one)));
    systems.extend(
        pipeline.iter().map(|redis| many("redis_pipeline", redis, &keys, PIPELINE, REDIS_SHARE / 10)),
    );
    systems.extend(ours.iter().map(|ours| reads("tarragon", ours, &keys, 1, get_one)));
    rig.compare("get", mode(two), 8, keys.len(), systems);
    ours.iter().for_each(|ours| ours.report_updates(rig, "tarragon", "get_updates", 8));
    floor.report_updates(rig, "floor", "get_updates", 8);
    hashmap.report_updates(rig, "hashmap", "get_updates", 8);
    lmdb.0.report_updates(rig, "lmdb", "get_updates", 8);
}

/// A get in place, of which the first and the last bytes are touched.
fn pinned(rig: &Rig, two: bool) {
    let sizes: &[usize] =
        if rig.options.quick { &[KIB, MIB] } else { &[KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB] };
    let memory = if rig.options.quick { 64 * MIB } else { 1024 * MIB };
    for size in sizes {
        let plan = Plan { keys: (memory / size).min(1000) as u64, size: *size };
        // Long enough for a few updates to be done.
        let longer = if *size > MIB { 10 } else { 1 };
        let keys = drawn(plan, longer * if rig.options.quick { 20_000 } else { 100_000 });
        let ((ours, alike), floor) = (rig.ours_and_floor(plan, two), rig.floor(plan, two));
        // Who holds a lock or copies needs no measuring beyond 1 MiB.
        let others = (*size <= MIB)
            .then(|| (rig.hashmap(plan, two), rig.lmdb(plan, two), rig.redis(plan, false, two)));
        let mut systems =
            vec![reads("floor", &floor, &keys, 1, pin_one), reads("floor_alike", &alike, &keys, 1, pin_one)];
        if let Some((hashmap, lmdb, redis)) = &others {
            systems.push(reads("hashmap", hashmap, &keys, 1, pin_one));
            systems.push(reads("lmdb", &lmdb.0, &keys, 10, pin_one));
            systems.extend(redis.iter().map(|redis| reads("redis", redis, &keys, REDIS_SHARE, pin_one)));
        }
        systems.extend(ours.iter().map(|ours| reads("tarragon", ours, &keys, 1, pin_one)));
        rig.compare("get_pinned", mode(two), *size, keys.len(), systems);
        ours.iter().for_each(|ours| ours.report_updates(rig, "tarragon", "pinned_updates", *size));
        floor.report_updates(rig, "floor", "pinned_updates", *size);
    }
}

/// Gets of 8 bytes each of which waits for the one before, over more keys than caches hold.
fn cold(rig: &Rig) {
    let plan = Plan { keys: if rig.options.quick { 200_000 } else { 1_000_000 }, size: 8 };
    let keys = drawn(plan, if rig.options.quick { 50_000 } else { 200_000 });
    let ((ours, floor), hashmap) = (rig.ours_and_floor(plan, false), rig.hashmap(plan, false));
    let lmdb = rig.lmdb(plan, false);
    let mut systems = vec![
        System::new("floor", 1, || floor.under_updates(|floor| chain(&keys, |key| floor.plain(key)))),
        chained("hashmap", &hashmap, &keys, 1),
        chained("lmdb", &lmdb.0, &keys, 10),
    ];
    systems.extend(ours.iter().map(|ours| chained("tarragon", ours, &keys, 1)));
    rig.compare("get_cold", "single", plan.keys as usize, keys.len(), systems);
}

fn chained<'a, S: Store>(name: &'static str, peer: &'a Peer<S>, keys: &'a [u64], share: usize) -> System<'a> {
    let keys = &keys[..keys.len() / share];
    System::new(name, 1, move || peer.under_updates(|store| chain(keys, |key| store.get(key))) * share as u32)
}

/// Reads keys; which one is next depends on the value read, though no value ever changes it.
fn chain(keys: &[u64], mut get: impl FnMut(u64) -> u64) {
    let mut value = 0;
    for key in keys {
        // The highest bit of a stamp is never set; the compiler cannot know.
        let key = key ^ (value >> 63);
        value = get(key);
        check(value, key);
    }
}

/// Many keys at a time.
fn multi_get(rig: &Rig) {
    let plan = Plan { keys: 1000, size: 8 };
    let keys = drawn(plan, if rig.options.quick { 50_000 } else { 200_000 });
    let ((ours, floor), hashmap) = (rig.ours_and_floor(plan, false), rig.hashmap(plan, false));
    let lmdb = rig.lmdb(plan, false);
    let (redis, pipeline) = (rig.redis(plan, false, false), rig.redis(plan, true, false));
    let mut systems = vec![
        many("floor", &floor, &keys, MANY, 1),
        many("hashmap", &hashmap, &keys, MANY, 1),
        many("lmdb", &lmdb.0, &keys, MANY, 1),
    ];
    systems.extend(redis.iter().map(|redis| many("redis", redis, &keys, MANY, 100)));
    systems.extend(pipeline.iter().map(|redis| many("redis_pipeline", redis, &keys, PIPELINE, 100)));
    systems.extend(ours.iter().map(|ours| many("tarragon", ours, &keys, MANY, 1)));
    rig.compare("multi_get", "single", MANY, keys.len(), systems);
}

/// One system that reads so many keys at a time, and one of `share` of all.
fn many<'a, S: Store>(
    name: &'static str,
    peer: &'a Peer<S>,
    keys: &'a [u64],
    together: usize,
    share: usize,
) -> System<'a> {
    let keys = &keys[..keys.len() / share];
    let mut values = Vec::with_capacity(together);
    System::new(name, 1, move || {
        let work = |store: &mut S| {
            for keys in keys.chunks(together) {
                values.clear();
                store.multi_get(keys, &mut values);
                keys.iter().zip(&values).for_each(|(key, value)| check(*value, *key));
            }
        };
        peer.under_updates(work) * share as u32
    })
}

// ── writes ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Keys of a value's size whose values take 128 MiB together, at most 1000 and at least 8.
fn plan_of_puts(size: usize) -> Plan {
    Plan { keys: (128 * MIB / size).clamp(8, 1000) as u64, size }
}

/// One system that writes, alone: it does one of `share` operations.
fn writes<'a, S: Store>(
    name: &'static str,
    peer: &'a Peer<S>,
    plan: Plan,
    operations: usize,
    share: usize,
) -> System<'a> {
    let mut writer = Writer::new(plan);
    let count = (operations / share).max(1) as u64;
    System::new(name, 1, move || {
        let took = time(|| puts(&mut *peer.store.borrow_mut(), &mut writer, 0..plan.keys, count));
        took.mul_f64(operations as f64 / count as f64)
    })
}

/// A put into memory that was used before.
fn put(rig: &Rig, size: usize, operations: usize) {
    let plan = plan_of_puts(size);
    let memory = RefCell::new(Floor::memory(plan));
    let (hashmap, lmdb) = (rig.hashmap(plan, false), rig.lmdb(plan, false));
    let (ours, redis) = (rig.ours(plan, false), rig.redis(plan, false, false));
    let value = vec![0x5A; size];
    let slow = if size < KIB { 100 } else { 10 };
    let mut systems = vec![
        System::new("memcpy", 1, || {
            let copy = || assert_eq!(memory.borrow_mut().copy(&value).1, 0x5A5A_5A5A_5A5A_5A5A);
            time(|| (0..operations).for_each(|_| copy()))
        }),
        writes("hashmap", &hashmap, plan, operations, 1),
        writes("lmdb", &lmdb.0, plan, operations, if size < KIB { 10 } else { 1 }),
    ];
    systems.extend(redis.iter().map(|redis| writes("redis", redis, plan, operations, slow)));
    systems.extend(ours.iter().map(|ours| writes("tarragon", ours, plan, operations, 1)));
    rig.compare("put", "single", size, operations, systems);
}

/// Two processes that put to different keys, each half of the operations, beside `one` that does them all.
fn put_two(rig: &Rig, size: usize, operations: usize) {
    let plan = plan_of_puts(size);
    let (ours, hashmap, lmdb) = (rig.ours(plan, true), rig.hashmap(plan, true), rig.lmdb(plan, true));
    let mut systems = vec![
        writes_two("hashmap", &hashmap, plan, operations, 1),
        writes_two("lmdb", &lmdb.0, plan, operations, if size < KIB { 10 } else { 1 }),
    ];
    systems.extend(ours.iter().flat_map(|ours| {
        [writes_two("tarragon", ours, plan, operations, 1), writes("one", ours, plan, operations, 1)]
    }));
    rig.compare("put", "two", size, operations, systems);
}

fn writes_two<'a, S: Store>(
    name: &'static str,
    peer: &'a Peer<S>,
    plan: Plan,
    operations: usize,
    share: usize,
) -> System<'a> {
    let mut writer = Writer::new(plan);
    let each = (operations / share / 2).max(1);
    System::new(name, 2, move || {
        let mine = 0..plan.keys / 2;
        let took = peer.shared_work(PUT, each, |store| puts(store, &mut writer, mine, each as u64));
        took.mul_f64(operations as f64 / (2 * each) as f64)
    })
}

/// Adds 1 to counters in turn; in mode `two` another process does the same, each half of the operations.
fn fetch_add(rig: &Rig, two: bool) {
    let plan = Plan { keys: 1000, size: 8 };
    let operations = if rig.options.quick { 20_000 } else { 100_000 };
    let floor = Floor::counters(plan);
    let beside = two.then(|| process("floor", &floor.address(), plan));
    let floor = Peer::new(floor, beside);
    let (ours, hashmap, lmdb) = (rig.ours(plan, two), rig.hashmap(plan, two), rig.lmdb(plan, two));
    ours.iter().for_each(|ours| zero(ours, plan));
    zero(&hashmap, plan);
    zero(&lmdb.0, plan);
    let redis = rig.redis(plan, false, two);
    let mut systems = vec![
        adds("floor", &floor, plan, operations, 1),
        adds("hashmap", &hashmap, plan, operations, 1),
        adds("lmdb", &lmdb.0, plan, operations, 10),
    ];
    systems.extend(redis.iter().map(|redis| adds("redis", redis, plan, operations, REDIS_SHARE / 10)));
    systems.extend(ours.iter().map(|ours| adds("tarragon", ours, plan, operations, 1)));
    rig.compare("fetch_add", mode(two), 8, operations, systems);
}

fn zero<S: Store>(peer: &Peer<S>, plan: Plan) {
    (0..plan.keys).for_each(|key| peer.store.borrow_mut().set(key, 0));
}

/// One system that adds. Each sees every counter grow; what both have added is found in the end.
fn adds<'a, S: Store>(
    name: &'static str,
    peer: &'a Peer<S>,
    plan: Plan,
    operations: usize,
    share: usize,
) -> System<'a> {
    let two = peer.beside.borrow().is_some();
    let sides = if two { 2 } else { 1 };
    let each = operations / share / sides;
    let keys = plan.keys as usize;
    let mut expected = vec![0u64; keys];
    System::new(name, sides, move || {
        let mut seen = expected.clone();
        let took = peer.shared_work(ADD, each, |store| {
            for i in 0..each {
                let old = store.fetch_add((i % keys) as u64);
                let before = std::mem::replace(&mut seen[i % keys], old + 1);
                assert!(old == before || (two && old > before), "an addition is lost");
            }
        });
        for (key, count) in expected.iter_mut().enumerate() {
            *count += (sides * (each / keys + usize::from(key < each % keys))) as u64;
        }
        for (key, count) in expected.iter_mut().enumerate().take(10) {
            assert_eq!(peer.store.borrow_mut().fetch_add(key as u64), *count, "an addition is lost");
            *count += 1;
        }
        took * share as u32
    })
}
