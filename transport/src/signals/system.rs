//! The calls of the system about signals, all of them allowed in a handler.

#![expect(unsafe_code, reason = "calls the C library")]

use libc::{c_int, sigset_t};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

/// A signal's handler in this process; `None` if it has none of its own: it has its default action or is ignored.
pub(super) fn handler(number: c_int) -> Option<usize> {
    action(number).map(|it| it.sa_sigaction).filter(|it| ![libc::SIG_DFL, libc::SIG_IGN].contains(it))
}

/// Installs a handler for a signal that has its default action; leaves others as they are.
///
/// System calls that it interrupts go on, and it is itself interrupted by another signal. It runs on the stack of the
/// thread: the alternate one that threads have for their overflow is of 8 KiB, too few for two frames of a processor
/// with wide registers.
pub(super) fn take(number: c_int, handler: extern "C" fn(c_int)) {
    if action(number).is_none_or(|it| it.sa_sigaction != libc::SIG_DFL) {
        return;
    }
    let flags = libc::SA_RESTART | libc::SA_NODEFER;
    set_action(number, handler as *const () as usize, flags);
}

/// Ends this process by the default action of a signal that ends processes.
pub(super) fn die_of(number: c_int) -> ! {
    set_action(number, libc::SIG_DFL, 0);
    let set = set_of(&[number]);
    // SAFETY: a set that was filled in, and nothing to be written.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
    // SAFETY: takes a number. It does not return, but in the first process of a container.
    unsafe { libc::raise(number) };
    // SAFETY: takes a number and returns nowhere.
    unsafe { libc::_exit(128 + number) }
}

/// While it lives, the signals that end programs do not interrupt this thread.
pub(crate) struct HeldBack {
    before: sigset_t,
    // A mask belongs to a thread.
    _not_send: PhantomData<*const ()>,
}

/// Holds back SIGHUP, SIGINT and SIGTERM from this thread: for the moments in which it has a lock that a handler takes.
pub(crate) fn hold_back() -> HeldBack {
    let set = set_of(&super::Ending::ALL.map(super::Ending::number));
    let mut before = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: one set that was filled in, and one to be written.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr()) };
    // SAFETY: written by the call, which fails for an unknown way to set a mask only.
    let before = unsafe { before.assume_init() };
    HeldBack { before, _not_send: PhantomData }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        // SAFETY: a set that was filled in, and nothing to be written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// The number of the last error of this thread's calls.
pub(super) fn errno() -> c_int {
    // SAFETY: the C library's place for it, one for each thread.
    unsafe { *libc::__errno_location() }
}

/// Sets that number.
pub(super) fn set_errno(number: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = number };
}

fn action(number: c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing to be read, and an action to be written.
    let failed = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: written by a call that did not fail.
    (failed == 0).then(|| unsafe { action.assume_init() })
}

fn set_action(number: c_int, handler: usize, flags: c_int) {
    // SAFETY: `sigaction` is a struct of integers and a pointer to a function that may be none: zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action.sa_mask = set_of(&[]);
    // SAFETY: an action that is filled in, with a handler of that kind or none; nothing to be written.
    unsafe { libc::sigaction(number, &raw const action, ptr::null_mut()) };
}

fn set_of(numbers: &[c_int]) -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a set to be written.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &number in numbers {
        // SAFETY: a set that was made empty.
        unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    }
    // SAFETY: written by the first call.
    unsafe { set.assume_init() }
}

// In this file, since a fork is no safe call.
#[cfg(all(test, not(loom)))]
mod tests {
    use crate::segment::{Segment, Spec};
    use libc::c_int;

    const SPEC: Spec = Spec { kind: "fork", layout: 1, control_bytes: 64, heap_bytes: 1 << 20 };

    /// The pid of a forked child that does this and no more.
    fn fork(act: impl FnOnce()) -> c_int {
        // SAFETY: of this process's locks the child takes those that a signal's end takes in its stead after a second.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "it cannot fork");
        if child == 0 {
            act();
            // SAFETY: takes a number and returns nowhere.
            unsafe { libc::_exit(0) }
        }
        child
    }

    fn status_of(child: c_int) -> c_int {
        let mut status = 0;
        // SAFETY: a child of this process, and a number to be written.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status
    }

    fn is_signalled(status: c_int) -> bool {
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM
    }

    #[test]
    fn a_forked_child_removes_nothing_of_its_parents() {
        let segment = Segment::create(&SPEC).expect("a segment");
        // SAFETY: takes a number.
        let status = status_of(fork(|| assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0)));
        assert!(is_signalled(status), "{status}");
        assert!(segment.path().exists(), "removed by a signal to the child");
        // SAFETY: takes a number; no other thread of the child is there.
        let status = status_of(fork(|| unsafe { libc::exit(5) }));
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 5, "{status}");
        assert!(segment.path().exists(), "removed at the child's exit");
    }

    #[test]
    fn a_forked_child_does_not_do_what_its_parent_wants_done_at_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (of_parent, of_child) = (folder.path().join("parent"), folder.path().join("child"));
        let write = |path: &std::path::Path| {
            let path = path.to_owned();
            move || drop(std::fs::write(path, ""))
        };
        crate::before_exit(write(&of_parent));
        let status = status_of(fork(|| {
            crate::before_exit(write(&of_child));
            // SAFETY: takes a number; no other thread of the child is there.
            unsafe { libc::exit(5) }
        }));
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 5, "{status}");
        assert!(!of_parent.exists() && of_child.exists());
    }

    /// A process of one thread: a signal interrupts the very thread that makes segments.
    #[test]
    fn a_signal_in_the_midst_of_making_a_segment_leaves_none() {
        for round in 0..200 {
            let child = fork(|| {
                loop {
                    drop(Segment::create(&SPEC));
                }
            });
            std::thread::sleep(std::time::Duration::from_micros(500 + 37 * round));
            // SAFETY: takes numbers; the child has not been waited for.
            unsafe { libc::kill(child, libc::SIGTERM) };
            assert!(is_signalled(status_of(child)));
            let folder = crate::segment::file::folder();
            let entries = std::fs::read_dir(&folder).expect("a folder");
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let of_child = format!("-{child}-");
            let left: Vec<_> = names.filter(|it| it.contains("fork") && it.contains(&of_child)).collect();
            left.iter().for_each(|it| std::fs::remove_file(folder.join(it)).expect("it is there"));
            assert!(left.is_empty(), "round {round}: {left:?}");
        }
    }
}
