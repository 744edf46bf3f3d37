//! The signals that end a program, SIGHUP, SIGINT and SIGTERM: who takes them, and what is done before it ends by one.
//!
//! A process takes them when it makes or opens its first segment, or when somebody begins to attend to them; each only
//! if it has its default action then. A handler that was there before, or that the signal is ignored (`nohup`), stays.
//! A handler that is installed later replaces ours, and if it calls ours in turn, ours does nothing: the signal is in
//! other hands. Segments then go when the process exits, or at the next start of a program.
//!
//! # What a signal does
//! 1. If somebody *attends* to SIGINT and SIGTERM, one of these becomes an item of [`Attendance::came`], and no more.
//! 2. Otherwise the process ends: it leaves its segments, the default action is restored, and the signal is raised
//!    again, so that whoever waits for the process sees it killed by that signal. As the first process of a container,
//!    which the default action does not end, it exits with 128 and the signal's number.
//! 3. A signal to a process that is ending already ends it at once, if that has done what it could without waiting for
//!    anybody, and began a tenth of a second ago: a terminal that closes and `timeout` send theirs twice in a row, and
//!    mean one.
//!
//! # In a handler
//! All of this runs in the handler, on whatever thread the kernel chose, in the middle of whatever that did. So there
//! is no thread that a program did not ask for; and no allocation, no lock that is waited for without a bound, and no
//! call that POSIX does not allow there. What is done before the end keeps to that too.
//!
//! A child that was forked and has not executed anything has its parent's handlers. It never tells the parent's
//! attendant; what it owns itself is for the hook to know.

mod system;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

pub(crate) use system::hold_back;

/// A signal that comes within this time after another, in milliseconds, is the same wish to end.
const AGAIN_MS: u64 = 100;
/// How long a thread that wants to end the process waits for another one that is at it.
const OTHER_ENDS_MAX: Duration = Duration::from_secs(2);

/// What is done before the process ends.
static BEFORE: OnceLock<fn()> = OnceLock::new();
/// When the process began to end, on the monotonic clock; 0 before.
static ENDS_SINCE_MS: AtomicU64 = AtomicU64::new(0);
/// Whether what is done before the end has been tried once, and at most waits for others now.
static IS_TRIED: AtomicBool = AtomicBool::new(false);
/// How many attend.
static ATTENDANTS: AtomicU32 = AtomicU32::new(0);
/// In which process they do.
static ATTENDED_PID: AtomicU32 = AtomicU32::new(0);
/// From the handler to who attends, a byte for a signal. Never closed: a handler may be about to write.
static PIPE: OnceLock<[UnixStream; 2]> = OnceLock::new();

/// A signal that ends a program, unless that does something about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ending {
    /// SIGHUP: the terminal is gone.
    Hangup,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: what `kill`, `timeout` and batch systems send.
    Terminate,
}

impl Ending {
    const ALL: [Self; 3] = [Self::Hangup, Self::Interrupt, Self::Terminate];

    fn number(self) -> libc::c_int {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
        }
    }

    fn of(number: libc::c_int) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }
}

/// Has `act` called before a signal ends this process, and takes the signals. The first one is kept.
///
/// `act` is called in a signal handler, ends within a bound, and calls [`all_is_tried`]; see the module's page.
pub(crate) fn before_end(act: fn()) {
    BEFORE.get_or_init(|| act);
    take();
}

/// Takes the signals that have their default action, once.
fn take() {
    static TAKEN: Once = Once::new();
    TAKEN.call_once(|| {
        for signal in Ending::ALL {
            system::take(signal.number(), on_signal);
        }
    });
}

/// Somebody attends to SIGINT and SIGTERM, until this is dropped. Those that nobody had read then end the process.
///
/// Several may be had at once; each signal is told to one of them. SIGHUP ends the process all the same.
#[derive(Debug)]
pub struct Attendance(());

/// Takes the signals, and attends to SIGINT and SIGTERM.
///
/// # Errors
/// What the system says if it has no descriptors left for the way here from the handler.
pub fn attend() -> io::Result<Attendance> {
    if PIPE.get().is_none() {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        PIPE.get_or_init(|| [read, write]);
    }
    ATTENDED_PID.store(std::process::id(), Ordering::SeqCst);
    ATTENDANTS.fetch_add(1, Ordering::SeqCst);
    take();
    Ok(Attendance(()))
}

impl Attendance {
    /// The signals that came since it was asked last, each once. Does not wait; poll the descriptor for that.
    pub fn came(&self) -> Vec<Ending> {
        let mut bytes = [0; 64];
        let read = PIPE.get().and_then(|[read, _]| rustix::io::read(read, &mut bytes).ok()).unwrap_or(0);
        let is_there = |signal: &Ending| bytes[..read].contains(&(signal.number() as u8));
        Ending::ALL.into_iter().filter(is_there).collect()
    }
}

impl AsFd for Attendance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        PIPE.get().expect("who attends made the pipe")[0].as_fd()
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        // A handler that has written, and then saw somebody attend, wrote before this.
        if ATTENDANTS.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(signal) = self.came().pop()
        {
            end(signal);
        }
    }
}

/// Ends this process as the signal would have if nobody had attended to it: see the module's page.
pub fn end(signal: Ending) -> ! {
    match begin_to_end() {
        Ok(()) => prepare(),
        // Which it does by ending the process.
        Err(_) => std::thread::sleep(OTHER_ENDS_MAX),
    }
    system::die_of(signal.number())
}

extern "C" fn on_signal(number: libc::c_int) {
    // What the signal interrupted may be about to read it.
    let errno = system::errno();
    if let Some(signal) = Ending::of(number)
        // A handler that was installed later may call this one.
        && system::handler(number) == Some(on_signal as *const () as usize)
        && !tell(signal)
    {
        match begin_to_end() {
            Ok(()) => {
                prepare();
                system::die_of(number);
            }
            Err(since_ms) if is_same_wish(since_ms) => {}
            Err(_) => system::die_of(number),
        }
    }
    system::set_errno(errno);
}

/// Tells who attends; false if nobody does, or cannot any more.
fn tell(signal: Ending) -> bool {
    let is_attended = || {
        ATTENDANTS.load(Ordering::SeqCst) > 0
            && ATTENDED_PID.load(Ordering::SeqCst) == std::process::id()
            && ENDS_SINCE_MS.load(Ordering::SeqCst) == 0
    };
    let Some([_, write]) = PIPE.get().filter(|_| signal != Ending::Hangup && is_attended()) else {
        return false;
    };
    // A pipe that is full has told enough.
    let _ = rustix::io::write(write, &[signal.number() as u8]);
    // Who attended may have gone meanwhile, without having seen it.
    is_attended()
}

/// Err: since when another call is at it.
fn begin_to_end() -> Result<(), u64> {
    let begun = ENDS_SINCE_MS.compare_exchange(0, now_ms(), Ordering::SeqCst, Ordering::SeqCst);
    begun.map(|_| ())
}

/// Whether a signal to a process that is ending since then changes nothing. A busy machine may stop it for longer than
/// a tenth of a second before it has tried anything.
fn is_same_wish(since_ms: u64) -> bool {
    !IS_TRIED.load(Ordering::SeqCst) || now_ms().saturating_sub(since_ms) < AGAIN_MS
}

/// Said by what is done before the end: all was tried once, and if it takes longer, then because of others.
pub(crate) fn all_is_tried() {
    IS_TRIED.store(true, Ordering::SeqCst);
}

fn prepare() {
    if let Some(act) = BEFORE.get() {
        act();
    }
}

/// Milliseconds of the monotonic clock, never 0.
fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000).max(1)
}
