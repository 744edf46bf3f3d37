//! What a process must change in itself to be the supervisor: descriptors, signals, name, parenthood.
#![expect(unsafe_code, reason = "signals and descriptor ranges have no safe interface")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open, set_child_subreaper};
use rustix::stdio::{dup2_stdin, dup2_stdout};

use super::Place;

/// The signals that someone may send to all of a job, and those that a terminal sends: the supervisor outlives them,
/// because it is the one to end its trees. They get handlers that do nothing; were they ignored, children would
/// inherit that.
const OUTLIVED: &[i32] = &[
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGXCPU,
];

/// Makes this process one that runs others for a job: it outlives the signals that they get, and adopts what they
/// leave. Returns what is readable when a child has ended or, if `asked`, when it is asked to end by TERM or INT, which
/// [`drain`] then tells. Descriptors stay: they may be the launcher's.
pub(crate) fn become_parent(asked: bool) -> io::Result<OwnedFd> {
    outlive_signals()?;
    let signals = if asked { &[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT][..] } else { &[libc::SIGCHLD] };
    let children = watch(signals)?;
    set_child_subreaper(Pid::from_raw(1))?;
    Ok(children)
}

/// Makes this process the supervisor of the engine that executed it.
pub(super) fn become_supervisor(socket: u32, engine: u32) -> io::Result<Place> {
    let link = take_socket(socket)?;
    outlive_signals()?;
    let children = watch(&[libc::SIGCHLD])?;
    let engine = watch_engine(engine)?;
    set_child_subreaper(Pid::from_raw(1))?;
    rustix::thread::set_name(c"tarragon-superv")?;
    rustix::process::chdir("/")?;
    Ok(Place { link, children, engine })
}

/// Closes every descriptor but the socket and the error output, and opens `/dev/null` as the input that children get.
fn take_socket(socket: u32) -> io::Result<OwnedFd> {
    // SAFETY: the engine gave this descriptor as ours, and it stays open until it has been copied below.
    let given = unsafe { BorrowedFd::borrow_raw(socket.cast_signed()) };
    let link = rustix::io::fcntl_dupfd_cloexec(given, 3)?;
    let kept = std::os::fd::AsRawFd::as_raw_fd(&link).cast_unsigned();
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: nothing in this process uses a descriptor that it has inherited, except the copy of the socket.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    rustix::io::ioctl_fionbio(&link, true)?;
    Ok(link)
}

extern "C" fn do_nothing(_: i32) {}

fn outlive_signals() -> io::Result<()> {
    for signal in OUTLIVED {
        // SAFETY: all zero is a valid action: the default one, with no flags and an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = do_nothing as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the action is initialised and its handler touches nothing.
        let done = unsafe { libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) };
        check(done)?;
    }
    Ok(())
}

/// A descriptor that is readable when a child has ended, or another of these signals has come. They had to be blocked
/// for that; children start with an empty mask.
fn watch(signals: &[i32]) -> io::Result<OwnedFd> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the mask.
    unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    // SAFETY: was initialised just above.
    let mut mask = unsafe { mask.assume_init() };
    // The program may have been executed with any mask and with SIGCHLD ignored.
    for signal in signals {
        // SAFETY: the mask is initialised, and the number is a signal.
        unsafe { libc::sigaddset(&raw mut mask, *signal) };
    }
    // SAFETY: sets the default action, which touches nothing.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    // SAFETY: the mask is initialised, and the old one is not wanted.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) })?;
    // SAFETY: the mask is initialised, and no descriptor is replaced.
    let descriptor = unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(descriptor)?;
    // SAFETY: the system has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Empties the descriptor of [`watch`]; true if another signal than SIGCHLD has come.
pub(crate) fn drain(children: &OwnedFd) -> bool {
    const NOTE_BYTES: usize = size_of::<libc::signalfd_siginfo>();
    let mut notes = [0; NOTE_BYTES * 4];
    // None of them queues, so that there is at most one of each; an error means that there is none.
    let count = rustix::io::read(children.as_fd(), &mut notes).unwrap_or(0);
    // A note begins with the signal's number.
    let numbers = notes[..count].chunks_exact(NOTE_BYTES).filter_map(|note| note.first_chunk::<4>());
    let mut signals = numbers.map(|bytes| i32::from_ne_bytes(*bytes));
    signals.any(|signal| signal != libc::SIGCHLD)
}

/// A descriptor that is readable when the engine is gone. A parent that is not the engine means that it is gone by now.
fn watch_engine(engine: u32) -> io::Result<Option<OwnedFd>> {
    let is_parent =
        || getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().cast_unsigned()) == Some(engine);
    let gone = || io::Error::from(io::ErrorKind::NotConnected);
    let pid = Pid::from_raw(engine.cast_signed()).filter(|_| is_parent()).ok_or_else(gone)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Still the parent, so that the number has meant the engine all the while.
        Ok(descriptor) => is_parent().then_some(Some(descriptor)).ok_or_else(gone),
        Err(Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
