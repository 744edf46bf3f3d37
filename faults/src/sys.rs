//! The system calls that no safe library has: fork, ptrace, and waiting for what is traced.

#![expect(unsafe_code, reason = "calls into libc")]

use std::fmt;
use std::io;
#[cfg(target_arch = "x86_64")]
use std::mem::offset_of;
use std::ptr::null_mut;

/// Why a traced process does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It raised a trap, or made its one step.
    Trap,
    /// This signal is about to reach it.
    Signal(i32),
    /// Something about tracing itself; it can go on.
    Notice,
    /// It is no more.
    End(End),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Makes a copy of this process with the calling thread alone. Returns the copy's pid; 0 in the copy.
pub(crate) fn fork() -> io::Result<u32> {
    // SAFETY: takes no pointer; who calls has one thread, or calls nothing in the copy that another may have locked.
    let pid = unsafe { libc::fork() };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// Ends this process at once, without what a normal exit would run.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: takes no pointer, does not return.
    unsafe { libc::_exit(status) }
}

/// Sends this process a SIGALRM in so many seconds.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: takes no pointer.
    unsafe { libc::alarm(seconds) };
}

/// Whether children of this process need nobody who waits for them.
pub(crate) fn ignore_children(ignore: bool) {
    let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: installs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, action) };
}

/// Stops this process for whoever traces it; kills it if nobody does.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn trap() {
    // SAFETY: the instruction changes no register and no memory.
    unsafe { std::arch::asm!("int3") };
}

/// Stops this process for whoever traces it; kills it if nobody does.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn trap() {
    // SAFETY: takes no pointer.
    unsafe { libc::raise(libc::SIGTRAP) };
}

/// The address of the instruction that a stopped process executes next.
#[cfg(target_arch = "x86_64")]
pub(crate) fn place(pid: u32) -> u64 {
    let offset = offset_of!(libc::user, regs) + offset_of!(libc::user_regs_struct, rip);
    // SAFETY: both pointer arguments are numbers for this request.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, id(pid), offset, null_mut::<()>()) };
    word as u64
}

/// Stops the process before each execution of the instruction at `place`, by its first debug register.
#[cfg(target_arch = "x86_64")]
pub(crate) fn break_at(pid: u32, place: u64) -> io::Result<()> {
    set_debug_register(pid, 0, place)?;
    // The first register is on, for this process, for execution.
    set_debug_register(pid, 7, 1)
}

/// No longer stops the process anywhere.
#[cfg(target_arch = "x86_64")]
pub(crate) fn break_nowhere(pid: u32) -> io::Result<()> {
    set_debug_register(pid, 7, 0)
}

#[cfg(target_arch = "x86_64")]
fn set_debug_register(pid: u32, index: usize, value: u64) -> io::Result<()> {
    let offset = offset_of!(libc::user, u_debugreg) + index * size_of::<libc::c_ulonglong>();
    // SAFETY: both pointer arguments are numbers for this request.
    checked(unsafe { libc::ptrace(libc::PTRACE_POKEUSER, id(pid), offset, value as usize) })
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn place(_: u32) -> u64 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn break_at(_: u32, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn break_nowhere(_: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Traces the process; it runs on, and dies with this thread.
pub(crate) fn seize(pid: u32) -> io::Result<()> {
    let options = libc::PTRACE_O_EXITKILL;
    // SAFETY: both pointer arguments are numbers for this request.
    let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, id(pid), null_mut::<()>(), options as usize) };
    checked(done)
}

/// Lets a stopped process make one step, with this signal if not 0.
pub(crate) fn step(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: both pointer arguments are numbers for this request.
    let done = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, id(pid), null_mut::<()>(), signal as usize) };
    checked(done)
}

/// Lets a stopped process run, with this signal if not 0.
pub(crate) fn run(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: both pointer arguments are numbers for this request.
    let done = unsafe { libc::ptrace(libc::PTRACE_CONT, id(pid), null_mut::<()>(), signal as usize) };
    checked(done)
}

/// Sends SIGKILL to a process that this thread traces, so the pid is its own until [`wait`] told its end.
pub(crate) fn kill(pid: u32) -> io::Result<()> {
    // SAFETY: takes no pointer.
    checked(unsafe { libc::kill(id(pid), libc::SIGKILL) }.into())
}

/// Waits until a process that this thread traces stops or ends.
pub(crate) fn wait(pid: u32) -> io::Result<Stop> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        let found = unsafe { libc::waitpid(id(pid), &raw mut status, libc::__WALL) };
        if found >= 0 {
            return Ok(stop_of(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn stop_of(status: i32) -> Stop {
    if libc::WIFEXITED(status) {
        Stop::End(End::Exit(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Stop::End(End::Signal(libc::WTERMSIG(status)))
    } else if status >> 16 != 0 {
        Stop::Notice
    } else if libc::WSTOPSIG(status) == libc::SIGTRAP {
        Stop::Trap
    } else {
        Stop::Signal(libc::WSTOPSIG(status))
    }
}

fn id(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).expect("the kernel's pids are positive and fit")
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
