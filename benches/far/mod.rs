//! Two ranks on two machines, which do what the bench tells them through their launcher's pipes; and `ucx_perftest`
//! between the same machines.

use crate::beside::Killed;
use crate::measure::time;
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tarragon_testbed::Hosts;
use tarragon_transport::{HandlerId, PeerState, Rank, World};

/// The first word of an answer.
const ANSWER: &str = "##answer";
/// What ranks and `ucx_perftest` are told alike.
const UCX: [(&str, &str); 3] =
    [("UCX_TLS", "tcp,self"), ("UCX_NET_DEVICES", "eth1"), ("UCX_WARN_UNUSED_ENV_VARS", "n")];
/// Before the bytes of each message, in the order that has so many poured out.
pub(crate) const BANDWIDTH: &str = "bandwidth-";
/// The same of messages that are lent, and so copied.
pub(crate) const LENT: &str = "lent-";
/// Messages before the time is taken.
const WARM_UP: u64 = 100;
/// The address of the first machine on the network of `eth1`.
const FIRST: &str = "10.78.0.10";
/// How often a client looks for its server.
const TRIES_MAX: u32 = 500;

/// The launcher of the two ranks.
pub(crate) struct Ranks {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    mpirun: Killed,
}

impl Ranks {
    /// Starts this program as both, with this argument.
    pub(crate) fn start(hosts: &Hosts, argument: &str) -> Ranks {
        let mut mpirun = hosts.mpirun(1);
        mpirun.args(["-n", "2"]).arg(std::env::current_exe().expect("a path")).arg(argument).envs(UCX);
        mpirun.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut mpirun = mpirun.spawn().expect("mpirun starts");
        let orders = mpirun.stdin.take().expect("it is piped");
        let answers = BufReader::new(mpirun.stdout.take().expect("it is piped"));
        Ranks { orders, answers, mpirun: Killed(mpirun) }
    }

    /// Has them do something so often; the answer is a time in nanoseconds.
    pub(crate) fn order(&mut self, kind: &str, count: u64) -> u64 {
        self.figures(kind, count)[0]
    }

    /// As [`Ranks::order`], with several answers.
    pub(crate) fn figures(&mut self, kind: &str, count: u64) -> Vec<u64> {
        writeln!(self.orders, "{kind} {count}").expect("the ranks run");
        loop {
            let mut line = String::new();
            let bytes = self.answers.read_line(&mut line).expect("the ranks run");
            assert!(bytes > 0, "the ranks have ended");
            if let Some(answer) = line.trim().strip_prefix(ANSWER) {
                return answer.split_whitespace().map(|it| it.parse().expect("a number")).collect();
            }
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        // They leave; who does not within a second is killed with the machines.
        let _ = writeln!(self.orders, "end 0");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) && matches!(self.mpirun.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

const PING: HandlerId = HandlerId(1);
const PONG: HandlerId = HandlerId(2);
const BULK: HandlerId = HandlerId(3);
/// What the second rank is to do from now on.
const MODE: HandlerId = HandlerId(4);
const WAIT: u64 = 0;
const POLL: u64 = 1;
/// On all cores, and look at nothing.
const COMPUTE: u64 = 2;
const OVER: u64 = 3;
/// What this rank has used of the processors.
const USED: HandlerId = HandlerId(5);

/// What the first rank hears of the other.
#[derive(Default)]
struct Heard {
    /// The number of the last answer.
    last: AtomicU64,
    used: AtomicU64,
}

/// A rank's part.
pub(crate) fn serve() {
    let world = World::from_environment().expect("a world");
    let mode = Arc::new(AtomicU64::new(WAIT));
    if world.rank() == Rank(0) {
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        world.on(PONG, move |_, message| hears.last.store(message.tag, Ordering::Relaxed));
        let hears = Arc::clone(&heard);
        world.on(USED, move |_, message| {
            hears.used.store(message.tag, Ordering::Relaxed);
            hears.last.store(1, Ordering::Relaxed);
        });
        world.barrier().expect("both are there");
        lead(&world, &heard);
    } else {
        let heard = Arc::clone(&mode);
        world.on(MODE, move |_, message| heard.store(message.tag, Ordering::Relaxed));
        world.on(PING, |fabric, message| {
            fabric.send(message.source, PONG, message.tag, message.payload).expect("it is there");
        });
        world.on(BULK, |fabric, message| {
            // The last one is told of; the first word says how many come.
            let count = message.payload.first_chunk().map(|word| u64::from_ne_bytes(*word));
            if count == Some(message.tag) {
                fabric.send(message.source, PONG, message.tag, &[]).expect("it is there");
            }
        });
        world.on(USED, |fabric, message| {
            fabric.send(message.source, USED, used(), &[]).expect("it is there");
        });
        world.barrier().expect("both are there");
        while mode.load(Ordering::Relaxed) != OVER && world.peer(Rank(0)) == PeerState::Here {
            match mode.load(Ordering::Relaxed) {
                POLL => drop(world.progress()),
                COMPUTE => compute(&mode),
                _ => drop(world.wait(Duration::from_secs(10))),
            }
        }
    }
    world.leave().expect("all was sent");
}

/// Computes on all cores until the mode is another one.
fn compute(mode: &AtomicU64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let one = || while mode.load(Ordering::Relaxed) == COMPUTE {};
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(one))));
}

/// Questions, each by itself, a moment after the one before: the median, the 99th of a hundred, and the longest.
fn ask(world: &World, heard: &Heard, count: u64) -> Vec<Duration> {
    let one = |number: u64| {
        std::thread::sleep(Duration::from_micros(100 * (number % 20)));
        time(|| {
            heard.last.store(0, Ordering::Relaxed);
            world.send(Rank(1), PING, number, &number.to_ne_bytes()).expect("it is there");
            while heard.last.load(Ordering::Relaxed) != number {
                world.wait(Duration::from_secs(1));
            }
        })
    };
    let mut took: Vec<Duration> = (1..=count).map(one).collect();
    took.sort_unstable();
    let last = took.len() - 1;
    vec![took[last / 2], took[last * 99 / 100], took[last]]
}

/// What this process has used of the processors, in nanoseconds.
fn used() -> u64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Takes orders.
fn lead(world: &World, heard: &Heard) {
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let (kind, count) = line.split_once(' ').expect("an order and a number");
        let count: u64 = count.trim().parse().expect("a number");
        let mode = |mode: u64| world.send(Rank(1), MODE, mode, &[]).expect("it is there");
        let took = match kind {
            "message" => {
                mode(POLL);
                // The first ones wake who sleeps.
                exchange(world, heard, 100);
                let took = time(|| exchange(world, heard, count));
                mode(WAIT);
                vec![took]
            }
            _ if kind.starts_with(BANDWIDTH) || kind.starts_with(LENT) => {
                let (way, bytes) = kind.split_once('-').expect("a number of bytes");
                let (is_lent, bytes) = (LENT.starts_with(way), bytes.parse().expect("a number of bytes"));
                mode(POLL);
                // As many as a round of `ucx_perftest` has before it counts.
                pour(world, heard, is_lent, bytes, WARM_UP.min(count));
                let took = time(|| pour(world, heard, is_lent, bytes, count));
                mode(WAIT);
                vec![took]
            }
            "idle" => vec![idle(world, heard, Duration::from_millis(count))],
            "asleep" => ask(world, heard, count),
            "busy" => {
                mode(COMPUTE);
                let took = ask(world, heard, count);
                mode(WAIT);
                took
            }
            _ => return mode(OVER),
        };
        // The polling ends, also where nobody has looked since.
        world.fabric().flush().expect("it is there");
        let took: Vec<String> = took.iter().map(|it| it.as_nanos().to_string()).collect();
        println!("{ANSWER} {}", took.join(" "));
    }
}

fn exchange(world: &World, heard: &Heard, count: u64) {
    for number in 1..=count {
        heard.last.store(0, Ordering::Relaxed);
        world.send(Rank(1), PING, number, &number.to_ne_bytes()).expect("it is there");
        while heard.last.load(Ordering::Relaxed) != number {
            world.progress();
        }
    }
}

fn pour(world: &World, heard: &Heard, is_lent: bool, bytes: usize, count: u64) {
    let mut payload = vec![7_u8; bytes];
    payload[..8].copy_from_slice(&count.to_ne_bytes());
    let payload = Arc::new(payload);
    heard.last.store(0, Ordering::Relaxed);
    for number in 1..=count {
        let sent = match is_lent {
            true => world.send(Rank(1), BULK, number, &payload),
            false => world.send_shared(Rank(1), BULK, number, &payload),
        };
        sent.expect("it is there");
    }
    while heard.last.load(Ordering::Relaxed) != count {
        world.progress();
    }
}

fn idle(world: &World, heard: &Heard, wait: Duration) -> Duration {
    let both = || {
        heard.last.store(0, Ordering::Relaxed);
        world.send(Rank(1), USED, 0, &[]).expect("it is there");
        while heard.last.load(Ordering::Relaxed) == 0 {
            world.wait(Duration::from_millis(200));
        }
        used() + heard.used.load(Ordering::Relaxed)
    };
    let (before, begin) = (both(), Instant::now());
    while let Some(left) = wait.checked_sub(begin.elapsed()) {
        world.wait(left.min(Duration::from_secs(10)));
    }
    Duration::from_nanos(both() - before)
}

/// Whether there is `ucx_perftest`.
pub(crate) fn has_perftest() -> bool {
    let found = Command::new("ucx_perftest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok()
}

/// What `ucx_perftest` says that `count` messages of so many bytes take, one way each.
pub(crate) fn perftest(hosts: &Hosts, test: &str, bytes: usize, count: u64) -> Duration {
    let quiet = |mut command: Command| {
        command.envs(UCX).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let _server = Killed(quiet(hosts.command(0, "ucx_perftest")).spawn().expect("it starts"));
    for _ in 0..TRIES_MAX {
        let (bytes, n, count) = (bytes.to_string(), count, count.to_string());
        let mut client = quiet(hosts.command(1, "ucx_perftest"));
        client.args([
            FIRST,
            "-t",
            test,
            "-s",
            &bytes,
            "-n",
            &count,
            "-w",
            &WARM_UP.min(n).to_string(),
            "-f",
            "-v",
        ]);
        let output = client.output().expect("it starts");
        if output.status.success() {
            let one = figure_of(&String::from_utf8_lossy(&output.stdout));
            return one.mul_f64(count.parse().expect("a number"));
        }
        // The server does not listen yet.
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("ucx_perftest reaches no server");
}

/// The time of one message: the average over all, in microseconds, which is the fourth of the last line's columns.
fn figure_of(text: &str) -> Duration {
    let line = text.lines().rev().find(|line| line.contains(',')).expect("a line of figures");
    let microseconds: f64 = line.split(',').nth(3).and_then(|it| it.trim().parse().ok()).expect("a number");
    Duration::from_secs_f64(microseconds / 1e6)
}
