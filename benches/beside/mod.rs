//! The second process of a bench: it sleeps until it is told what to do, does it, and says that it has. The bench
//! starts itself again for it, and it dies with whoever started it. What the orders mean is left to each bench.
#![expect(dead_code, reason = "each bench uses its part")]

pub(crate) mod leftovers;
pub(crate) mod page;

use page::Page;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, futex, sched_getaffinity, sched_setaffinity};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first argument of a process that stands beside the bench; the next is its parent's process id.
const ROLE: &str = "--beside";
/// The role that becomes another program.
const BECOME: &str = "become";
/// An order is done, or something is broken, within this time.
const ANSWER_SECONDS_MAX: u64 = 60;

// The words of the page of orders, two cache lines apart where two sides write.
const NUMBER: usize = 0;
const KIND: usize = 1;
const COUNT: usize = 2;
const STOP: usize = 3;
const BEGUN: usize = 16;
const ENDED: usize = 32;
const ANSWER: usize = 48;
const WORDS: usize = 64;

/// The order to go away.
const END: u64 = u64::MAX;

/// The role and arguments that this process was started with, if it stands beside a bench; it dies with its parent.
pub(crate) fn role() -> Option<Vec<String>> {
    let mut args = std::env::args().skip(1);
    if args.next()? != ROLE {
        return None;
    }
    set_parent_process_death_signal(Some(Signal::KILL)).expect("a signal");
    let parent = args.next().and_then(|id| id.parse().ok()).and_then(Pid::from_raw).expect("a process id");
    assert_eq!(getppid(), Some(parent), "the bench has gone");
    let rest: Vec<String> = args.collect();
    if rest[0] == BECOME {
        let error = Command::new(&rest[1]).args(&rest[2..]).exec();
        panic!("cannot become {}: {error}", rest[1]);
    }
    Some(rest)
}

/// A command that starts this program again in a role.
pub(crate) fn command(role: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(ROLE).arg(std::process::id().to_string()).args(role);
    command
}

/// A command that starts another program, which dies with this process.
pub(crate) fn program(words: &[&str]) -> Command {
    command(&[&[BECOME], words].concat())
}

/// A thread that stays on one cpu until this is dropped: where a thread that wakes is put is luck, and decides how
/// long it takes.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    /// Pins this thread to the cpu of a number among those it may use, if there are so many.
    pub(crate) fn to(number: usize) -> Self {
        let all = sched_getaffinity(None).expect("a set of cpus");
        let mut ours = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
        if let Some(cpu) = ours.nth(number) {
            let mut one = CpuSet::new();
            one.set(cpu);
            sched_setaffinity(None, &one).expect("a cpu of the set");
        }
        Self(all)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // As it was; a cpu that has gone since is no reason to fail.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Kills a child, also when the bench fails.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who stands beside the bench.
enum Who {
    Process(Killed),
    Thread(Option<JoinHandle<()>>),
}

/// The side that gives orders.
pub(crate) struct Beside {
    page: Page,
    who: Who,
}

impl Beside {
    /// Starts this program again in a role; the address of its orders is its last argument.
    pub(crate) fn process(role: &[&str]) -> Self {
        let page = Page::create(WORDS);
        let mut command = command(role);
        let child = command.arg(page.address()).stdin(Stdio::null()).spawn().expect("this program starts");
        Self::ready(page, Who::Process(Killed(child)))
    }

    /// Runs `serve` on a thread of this process, for what cannot leave it.
    pub(crate) fn thread(serve: impl FnOnce(Orders) + Send + 'static) -> Self {
        let page = Page::create(WORDS);
        let orders = Orders::open(&page.address());
        let thread = std::thread::spawn(move || serve(orders));
        Self::ready(page, Who::Thread(Some(thread)))
    }

    /// Waits until it asks for its first order.
    fn ready(page: Page, who: Who) -> Self {
        let mut beside = Self { page, who };
        beside.until(ANSWER, 0, true);
        beside.page.words()[ANSWER].store(0, Relaxed);
        beside
    }

    /// Gives an order, and returns when it has begun.
    pub(crate) fn order(&mut self, kind: u64, count: u64) {
        let (words, number) = (self.page.words(), self.page.futex(NUMBER));
        words[KIND].store(kind, Relaxed);
        words[COUNT].store(count, Relaxed);
        words[STOP].store(0, Relaxed);
        number.fetch_add(1, Release);
        futex::wake(number, futex::Flags::empty(), 1).expect("a futex");
        self.until(BEGUN, u64::from(number.load(Relaxed)) - 1, false);
    }

    /// Ends an order that goes on until it is stopped; returns what was answered.
    pub(crate) fn stop(&mut self) -> u64 {
        self.page.words()[STOP].store(1, Relaxed);
        self.wait()
    }

    /// Spins until the last order is done; returns what was answered.
    pub(crate) fn wait(&mut self) -> u64 {
        let last = u64::from(self.page.futex(NUMBER).load(Relaxed));
        self.until(ENDED, last - 1, false);
        self.page.words()[ANSWER].load(Relaxed)
    }

    /// Waits for a word to become more than `than`.
    fn until(&mut self, word: usize, than: u64, sleep: bool) {
        let started = Instant::now();
        let mut turns = 0u32;
        while self.page.words()[word].load(Acquire) <= than {
            turns = turns.wrapping_add(1);
            if sleep {
                std::thread::sleep(Duration::from_micros(200));
            } else {
                std::hint::spin_loop();
            }
            if sleep || turns.is_multiple_of(1 << 16) {
                assert!(started.elapsed().as_secs() < ANSWER_SECONDS_MAX, "no answer from beside the bench");
                assert!(!self.has_ended(), "who stands beside the bench has failed");
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.who {
            Who::Process(child) => child.0.try_wait().is_ok_and(|status| status.is_some()),
            Who::Thread(thread) => thread.as_ref().is_none_or(JoinHandle::is_finished),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.has_ended() || std::thread::panicking() {
            return;
        }
        self.order(END, 0);
        match &mut self.who {
            // It goes by itself, so that it can tidy up; a second is more than it needs.
            Who::Process(child) => {
                let started = Instant::now();
                while started.elapsed().as_secs() < 1 && matches!(child.0.try_wait(), Ok(None)) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Who::Thread(thread) => {
                let ended = thread.take().map(JoinHandle::join);
                assert!(ended.is_none_or(|it| it.is_ok()), "who stands beside the bench has failed");
            }
        }
    }
}

/// The side that takes orders.
pub(crate) struct Orders {
    page: Page,
    last: u32,
}

impl Orders {
    /// The orders at an address.
    pub(crate) fn open(address: &str) -> Self {
        Self { page: Page::open(address), last: 0 }
    }

    /// Says that the last order is done, with an answer, and sleeps until there is another: its kind and its count.
    pub(crate) fn next(&mut self, answer: u64) -> Option<(u64, u64)> {
        let (words, number) = (self.page.words(), self.page.futex(NUMBER));
        // The first call says that we are here.
        words[ANSWER].store(if self.last == 0 { 1 } else { answer }, Release);
        words[ENDED].store(u64::from(self.last), Release);
        while number.load(Acquire) == self.last {
            match futex::wait(number, futex::Flags::empty(), self.last, None) {
                Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => panic!("a futex fails: {error}"),
            }
        }
        self.last = number.load(Acquire);
        let (kind, count) = (words[KIND].load(Relaxed), words[COUNT].load(Relaxed));
        words[BEGUN].store(u64::from(self.last), Release);
        (kind != END).then_some((kind, count))
    }

    /// True once the order is to end.
    pub(crate) fn stopped(&self) -> bool {
        self.page.words()[STOP].load(Relaxed) != 0
    }
}
