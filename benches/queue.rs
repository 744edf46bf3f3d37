//! What does an item of the queue cost, between two processes of a node?
//!
//! Numbers to beat. `round_trip` (8 B, touched on both sides, spinning): at most 1.3x `raw`, a ping-pong of one line
//! each way, and at most 1/2 of `iceoryx2`, publish-subscribe under the same rules. `throughput` (64 B, one to one):
//! at most 1/0.7 of the time of `raw`, a ring of one producer and one consumer. `wake` (the receiver sleeps; from
//! before the send to its first instruction): at most 1.1x `futex`. `handoff` of 64 MiB written in place: at most 1.5x
//! that of 64 B (`small`).
//!
//! Who is compared: `raw` and `futex`, in shared memory with nothing around them; `iceoryx2`, which spins as we do;
//! `crossbeam`, inside one process; `pipe` and `zeromq` (ipc, a pair of sockets), whose receivers sleep, as their
//! documents have it; `mp_queue`, `multiprocessing.Queue` of the Python on the path, measured by itself. The other
//! side is a process of its own for each, asleep while others are measured. Every item is read whole and its number
//! checked, inside the timed work of everyone; a system that is ten or a hundred times slower does fewer operations.
//! In `handoff` the item is written before the clock starts; it stops when the other side has read both ends and has
//! said so through one line.
//!
//! What was learned. Who has just written 64 MiB finds nothing in his caches, so that even `raw` takes twice as long
//! after it; `small` therefore writes as much elsewhere before each of its items of 64 B. Where a thread that wakes is
//! put is luck (3 µs on the same cpu, 30 on another, milliseconds behind a thread that spins), so in `wake` each side
//! stays on a cpu of its own.
//!
//! What a put and a get cost is mostly copies of results: what was stored by words and is loaded by two words at once
//! waits until the stores are done, 15 cycles each. With a flag as the only result of the common case, put and get of
//! a `u64` by one thread fell from 83 to 15 ns of its cpu time; with guards that carry small items by address, `loan`
//! and `get_ref` of 64 B from 94 to 56. Of these a quarter of the get was its compare-exchange, behind which the next
//! one could not begin: a consumer that is alone does without, 39 ns. What the lines that an item moves cost does not
//! show in lanes: items of 48 B, which lie in one line, take as long as those of 64 B, which take two. In a strict
//! queue the claim of a cell waited for the consumer's copies of its lines to go: fetched ahead, 64 B fell from 130 to
//! 40-70 ns. No gain: a consumer that waits after it has found nothing, or that keeps 16 items behind the producer; it
//! is behind anyhow. A loss of a third: a consumer that has the cells fetched that it will read.
//!
//! `handoff`, by the counter of cycles (2.1 GHz) between its steps, 64 MiB and `small`, in µs: until it is sent 3.5
//! and 1.6, until the consumer has it 6.4 and 3.2, both ends read 0.9 and 0.1, freed 3.5 and 0.2. Nothing is unmapped,
//! zeroed or faulted on; it is all lines and pages that 64 MiB of writes have driven out of every cache, half a
//! microsecond for a page nobody touched since, and code that is as cold: `small` goes the short way. Of the freeing
//! most was proportional to the size, 64 words of free bits in 8 pages: the run freed last is kept by one word now, and
//! freeing takes 1.0. What is left is the block's word and header, its slot and its intent, on both sides. No gain that
//! shows: to have those fetched before they are needed, 0.3 µs each at the ends and the freeing and nothing before.
//!
//! `wake`: a ring that wakes does two locked operations and one system call, a sleeper that wakes one locked operation
//! and no system call before it looks (the fence over all processes comes before the sleep). A floor that sleeps with a
//! limit of 250 ms, as ours does since who rings may be killed in it, takes back a quarter of the distance (1.35 and
//! 1.26 become 1.27 and 1.21, 401 rounds each, and as much in quick ones): the timer is set before the sleep and
//! taken back before the sleeper runs. It stays, or a killed process hangs others. The rest was not looked into.
//!
//! Where it stands (`--quick`, medians of five to eight runs on a machine with others beside, where `raw` itself takes
//! 18 ns in one run and 40 in the next; strict and lanes): `round_trip` 1.8 and 1.6 times `raw`, 0.25 and 0.24
//! `iceoryx2`; `throughput` 2.2 (1.3 to 4.2) and 1.4 (0.9 to 2.2) times `raw`, 0.5 and 0.35 `crossbeam`; `wake` 1.4
//! and 1.3 times `futex`; `handoff` of 64 MiB 2.2 and 2.4 times `small` (four runs), which includes the freeing of the
//! block. Within its number is `round_trip` against `iceoryx2`; at it, in every other run, `throughput` in lanes. Not
//! looked into: why the same program takes 28 ns per item in one run and 50 in the next.
//!
//! On another machine (EPYC, one `--quick` run, 2026-11-29, nothing beside): `round_trip` 3.6 and 2.7, `throughput` 4.2
//! and 3.2 times `raw` (98 and 15 ns there), `wake` 1.3, `handoff` 2.2 and 2.3. So what is called a ratio depends on
//! how far a line travels: where `raw` is quick the instructions around it show. There a ring of cells with all that
//! ours stores and loads for an item (place, head, tail, announcement, bell) took no longer than `raw`, if who looks
//! pauses between two looks; without a pause it took half as long again. So what was missing was ours alone: a get that
//! found nothing went out of line and looked there without a pause, an error was made and dropped for each item, a
//! strict queue divided and called, and a lane fetched cells for writing, which only a compare-exchange gains from. Put
//! and get of a `u64` by one thread fell from 42 to 30 ns, strict from 75 to 26, and (three runs, others at work
//! beside) `round_trip` to 2.5 and 1.9, `throughput` 4.3 and 3.1, `wake` 1.2, `handoff` 2.8 and 3.1.
#![expect(clippy::print_stderr, reason = "says what is skipped")]

mod beside;
mod channels;
mod measure;

use beside::{Beside, Orders, Pinned};
use channels::crossbeam::Crossbeam;
use channels::iceoryx::{self, Iceoryx, Slices};
use channels::pipe::Pipe;
use channels::python::Python;
use channels::raw::{Blocks, Line, Ring};
use channels::tarragon::{Bytes, Numbers};
use channels::zeromq::ZeroMq;
use channels::{DRAIN, ECHO, Hands, Item, Side, TAKE, WAKE, Wide, now, serve, serve_hands};
use measure::{Figure, Options, System, compare, time};
use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn main() {
    if let Some(role) = beside::role() {
        return stand_beside(&role);
    }
    iceoryx::sweep();
    let rig = Rig::new(Options::parse());
    for mode in ["strict", "lanes"] {
        rig.case("round_trip", || round_trip(&rig, mode));
        rig.case("throughput", || throughput(&rig, mode));
        rig.case("wake", || wake(&rig, mode));
        rig.case("handoff", || handoff(&rig, mode));
    }
}

/// The other side: the kind of items, the channel's name and address, and the address of its orders.
fn stand_beside(role: &[String]) {
    let [kind, name, address, orders] = role else { panic!("a kind, a channel, its address and orders") };
    let orders = Orders::open(orders);
    match (kind.as_str(), name.as_str()) {
        ("number", "raw") => serve(&mut Line::attach(address, false), orders),
        ("number", "futex") => serve(&mut Line::attach(address, true), orders),
        ("number", "iceoryx2") => serve::<u64>(&mut Iceoryx::open(address, 1, false), orders),
        ("number", "iceoryx2_event") => serve::<u64>(&mut Iceoryx::open(address, 1, true), orders),
        ("number", "pipe") => serve::<u64>(&mut Pipe::attach(address), orders),
        ("number", "zeromq") => serve::<u64>(&mut ZeroMq::attach(address), orders),
        ("number", "tarragon") => serve(&mut Numbers::attach(address), orders),
        ("wide", "tarragon") => serve::<Wide>(&mut Bytes::attach(address), orders),
        ("wide", "raw") => serve::<Wide>(&mut Ring::attach(address), orders),
        ("wide", "iceoryx2") => serve::<Wide>(&mut Iceoryx::open(address, 1, false), orders),
        ("wide", "pipe") => serve::<Wide>(&mut Pipe::attach(address), orders),
        ("wide", "zeromq") => serve::<Wide>(&mut ZeroMq::attach(address), orders),
        (size, "raw") => serve_hands(&mut Blocks::attach(address, number(size)), orders),
        (_, "tarragon") => serve_hands(&mut Bytes::attach(address), orders),
        (size, "iceoryx2") => serve_hands(&mut Slices::open(address, 1, number(size)), orders),
        other => panic!("no channel {other:?}"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

impl Drop for Rig {
    fn drop(&mut self) {
        iceoryx::sweep();
    }
}

/// What all cases share.
struct Rig {
    options: Options,
    folder: TempDir,
    python: Option<RefCell<Python>>,
}

impl Rig {
    fn new(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("bench-queue-").tempdir().expect("a folder");
        let python = Python::start().inspect_err(|why| eprintln!("skipped: mp_queue: {why}")).ok();
        Self { options, folder, python: python.map(RefCell::new) }
    }

    fn case(&self, name: &str, run: impl FnOnce()) {
        if self.options.wants(name) {
            run();
        }
    }

    fn compare(&self, case: &str, mode: &str, n: usize, operations: usize, systems: Vec<System<'_>>) {
        let figure = Figure { bench: "queue", case, mode, n, unit: "ns/item", operations };
        compare(&self.options, figure, if self.options.quick { 7 } else { 31 }, systems);
    }

    /// An address of iceoryx2's that no other case uses.
    fn iceoryx(&self, case: &str) -> String {
        iceoryx::address(self.folder.path(), case)
    }

    fn zeromq<T: Item>(&self, kind: &str) -> Option<Peer<ZeroMq>> {
        let made = ZeroMq::create().inspect_err(|why| eprintln!("skipped: zeromq: {why}")).ok()?;
        let address = made.address();
        Some(Peer::new(made, process(kind, "zeromq", &address)))
    }

    /// What Python took, as if it had done all operations.
    fn python<'a>(&'a self, order: &'static str, operations: usize, share: usize) -> Option<System<'a>> {
        let python = self.python.as_ref()?;
        let run = move || {
            let took = python.borrow_mut().order(order, operations / share);
            took.expect("the script goes on") * share as u32
        };
        Some(System::new("mp_queue", 2, run))
    }
}

fn process(kind: &str, channel: &str, address: &str) -> Beside {
    Beside::process(&[kind, channel, address])
}

/// A channel: this side, and who has the other.
struct Peer<S> {
    side: S,
    beside: Beside,
}

impl<S> Peer<S> {
    fn new(side: S, beside: Beside) -> Self {
        Self { side, beside }
    }
}

fn crossbeam<T: Item>() -> Peer<Crossbeam<T>> {
    let (mine, mut other) = Crossbeam::pair();
    Peer::new(mine, Beside::thread(move |orders| serve(&mut other, orders)))
}

/// Ours, of numbers.
fn numbers(mode: &str) -> Option<Peer<Numbers>> {
    let ours = Numbers::create(mode == "strict")?;
    let address = ours.address();
    Some(Peer::new(ours, process("number", "tarragon", &address)))
}

/// Ours, of bytes in place.
fn bytes(mode: &str, kind: &str) -> Option<Peer<Bytes>> {
    let ours = Bytes::create(mode == "strict")?;
    let address = ours.address();
    Some(Peer::new(ours, process(kind, "tarragon", &address)))
}

// ── small items ─────────────────────────────────────────────────────────────────────────────────────────────────

/// One system that sends a number and waits for the next one: it does one of `share` operations.
fn echo<'a, S: Side<u64>>(
    name: &'static str,
    peer: &'a mut Peer<S>,
    operations: usize,
    share: usize,
) -> System<'a> {
    let count = (operations / share) as u64;
    System::new(name, 2, move || {
        peer.beside.order(ECHO, count);
        let took = time(|| {
            for number in 0..count {
                peer.side.send(number);
                assert_eq!(peer.side.receive(), number + 1, "the answer to another item");
            }
        });
        peer.beside.wait();
        took * share as u32
    })
}

/// There and back, 8 bytes, one at a time.
fn round_trip(rig: &Rig, mode: &str) {
    let operations = if rig.options.quick { 5_000 } else { 50_000 };
    let line = Line::create(false);
    let address = line.address();
    let mut raw = Peer::new(line, process("number", "raw", &address));
    let address = rig.iceoryx(&format!("{mode}-round-trip"));
    let mut iceoryx =
        Peer::new(Iceoryx::<u64>::open(&address, 0, false), process("number", "iceoryx2", &address));
    let mut crossbeam = crossbeam::<u64>();
    let mut pipe = pipe("number");
    let mut zeromq = rig.zeromq::<u64>("number");
    let mut ours = numbers(mode);
    let mut systems = vec![
        echo("raw", &mut raw, operations, 1),
        echo("iceoryx2", &mut iceoryx, operations, 1),
        echo("crossbeam", &mut crossbeam, operations, 1),
        echo("pipe", &mut pipe, operations, 50),
    ];
    systems.extend(zeromq.iter_mut().map(|zeromq| echo("zeromq", zeromq, operations, 50)));
    systems.extend(ours.iter_mut().map(|ours| echo("tarragon", ours, operations, 1)));
    systems.extend(rig.python("echo", operations, 50));
    rig.compare("round_trip", mode, 8, operations, systems);
}

fn pipe(kind: &str) -> Peer<Pipe> {
    let pipe = Pipe::create();
    let address = pipe.address();
    Peer::new(pipe, process(kind, "pipe", &address))
}

/// One system that sends and does not wait, until the other side has all.
fn stream<'a, T: Item, S: Side<T>>(
    name: &'static str,
    peer: &'a mut Peer<S>,
    operations: usize,
    share: usize,
) -> System<'a> {
    let count = (operations / share) as u64;
    System::new(name, 2, move || {
        peer.beside.order(DRAIN, count);
        let took = time(|| {
            (0..count).for_each(|number| peer.side.send(T::of(number)));
            peer.beside.wait();
        });
        took * share as u32
    })
}

/// 64 bytes one way, one producer, one consumer.
fn throughput(rig: &Rig, mode: &str) {
    let operations = if rig.options.quick { 100_000 } else { 1_000_000 };
    let ring = Ring::<Wide>::create();
    let address = ring.address();
    let mut raw = Peer::new(ring, process("wide", "raw", &address));
    let address = rig.iceoryx(&format!("{mode}-throughput"));
    let mut iceoryx =
        Peer::new(Iceoryx::<Wide>::open(&address, 0, false), process("wide", "iceoryx2", &address));
    let mut crossbeam = crossbeam::<Wide>();
    let mut pipe = pipe("wide");
    let mut zeromq = rig.zeromq::<Wide>("wide");
    let mut ours = bytes(mode, "wide");
    let mut systems = vec![
        stream::<Wide, _>("raw", &mut raw, operations, 1),
        stream::<Wide, _>("iceoryx2", &mut iceoryx, operations, 10),
        stream::<Wide, _>("crossbeam", &mut crossbeam, operations, 1),
        stream::<Wide, _>("pipe", &mut pipe, operations, 10),
    ];
    systems.extend(zeromq.iter_mut().map(|zeromq| stream::<Wide, _>("zeromq", zeromq, operations, 10)));
    systems.extend(ours.iter_mut().map(|ours| stream::<Wide, _>("tarragon", ours, operations, 1)));
    systems.extend(rig.python("drain", operations, 100));
    rig.compare("throughput", mode, 64, operations, systems);
}

/// How long the other side gets to fall asleep.
const ASLEEP: Duration = Duration::from_millis(2);

/// One system whose receiver sleeps when the item is sent, on a cpu of its own.
fn woken<'a, S: Side<u64>>(name: &'static str, peer: &'a mut Peer<S>) -> System<'a> {
    System::new(name, 2, move || {
        let _pinned = Pinned::to(0);
        peer.beside.order(WAKE, 1);
        std::thread::sleep(ASLEEP);
        peer.side.send(now());
        Duration::from_nanos(peer.beside.wait())
    })
}

/// One item to a receiver that sleeps.
fn wake(rig: &Rig, mode: &str) {
    let line = Line::create(true);
    let address = line.address();
    let mut futex = Peer::new(line, process("number", "futex", &address));
    let address = rig.iceoryx(&format!("{mode}-wake"));
    let side = Iceoryx::<u64>::open(&address, 0, true);
    let mut iceoryx = Peer::new(side, process("number", "iceoryx2_event", &address));
    let mut crossbeam = crossbeam::<u64>();
    let mut pipe = pipe("number");
    let mut zeromq = rig.zeromq::<u64>("number");
    let mut ours = numbers(mode);
    let mut systems = vec![
        woken("futex", &mut futex),
        woken("iceoryx2", &mut iceoryx),
        woken("crossbeam", &mut crossbeam),
        woken("pipe", &mut pipe),
    ];
    systems.extend(zeromq.iter_mut().map(|zeromq| woken("zeromq", zeromq)));
    systems.extend(ours.iter_mut().map(|ours| woken("tarragon", ours)));
    systems.extend(rig.python("wake", 1, 1));
    let figure = Figure { bench: "queue", case: "wake", mode, n: 8, unit: "ns/item", operations: 1 };
    compare(&rig.options, figure, if rig.options.quick { 41 } else { 401 }, systems);
}

// ── items in place ──────────────────────────────────────────────────────────────────────────────────────────────

/// Items of one round; few, since each is written whole.
const HANDOFFS: u32 = 8;

/// One system that hands over items that it has written in place, after so many bytes were written elsewhere.
fn hand<'a, S: Hands>(
    name: &'static str,
    peer: &'a mut Peer<S>,
    size: usize,
    elsewhere: usize,
) -> System<'a> {
    let mut other = vec![0; elsewhere];
    let mut value = vec![0x5A; size];
    let mut count = 0u64;
    System::new(name, 2, move || {
        let mut took = Duration::ZERO;
        for _ in 0..HANDOFFS {
            count += 1;
            other.fill(count as u8);
            black_box(&other);
            *value.first_chunk_mut().expect("8 bytes or more") = count.to_ne_bytes();
            *value.last_chunk_mut().expect("8 bytes or more") = count.to_ne_bytes();
            let mut started = Instant::now();
            peer.side.hand(&value, || {
                // Whoever takes it is awake and looks for it.
                peer.beside.order(TAKE, 1);
                started = Instant::now();
            });
            assert_eq!(peer.beside.wait(), count, "another item");
            took += started.elapsed();
        }
        took
    })
}

/// Items written in place, of which the other side touches both ends.
fn handoff(rig: &Rig, mode: &str) {
    for size in [64, 64 * MIB] {
        let kind = size.to_string();
        let blocks = Blocks::create(size);
        let address = blocks.address();
        let mut raw = Peer::new(blocks, process(&kind, "raw", &address));
        let address = rig.iceoryx(&format!("{mode}-handoff-{size}"));
        let side = Slices::open(&address, 0, size);
        let mut iceoryx = Peer::new(side, process(&kind, "iceoryx2", &address));
        let (mut ours, mut small) = (bytes(mode, &kind), bytes(mode, &kind));
        let mut systems = vec![hand("raw", &mut raw, size, 0), hand("iceoryx2", &mut iceoryx, size, 0)];
        systems.extend(ours.iter_mut().map(|ours| hand("tarragon", ours, size, 0)));
        if size > 64 {
            systems.extend(small.iter_mut().map(|ours| hand("small", ours, 64, size)));
        }
        rig.compare("handoff", mode, size, HANDOFFS as usize, systems);
    }
}
