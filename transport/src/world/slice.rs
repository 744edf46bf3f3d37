//! Threads that work little and are to run soon after they wake, also where others compute on every core.
//!
//! The kernel gives a core to whoever's time is due first, and a thread is due the sooner the shorter the *slice* that
//! it asks for; its share of the core stays the same. Kernels before 6.12 know no slices of single threads and take the
//! call for nothing. It needs no privilege.
//!
//! *Source*: sched_setattr(2); Linux, Documentation/scheduler/sched-eevdf.rst.
#![expect(unsafe_code, reason = "a system call that no library wraps")]

/// The shortest slice that the kernel grants, in nanoseconds.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr`, as far as the first version of it goes.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Asks for the shortest slice, for this thread. Whether the kernel took the call.
pub(super) fn shorten() -> bool {
    let mut attributes = Attributes::default();
    let (place, size) = (&raw mut attributes, size_of::<Attributes>());
    // SAFETY: writes at most so many bytes to where they are; 0 is this thread.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, place, size, 0) } != 0 {
        return false;
    }
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return false;
    }
    attributes.runtime_ns = SLICE_NS;
    // SAFETY: reads a struct of the size that stands in it; 0 is this thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_policy_and_priority() {
        let thread = std::thread::spawn(|| {
            let nice = rustix::process::nice(3).unwrap();
            // A kernel may refuse; then nothing changes either.
            shorten();
            (nice, rustix::process::getpriority_process(None).unwrap())
        });
        let (asked, has) = thread.join().unwrap();
        assert_eq!(asked, has);
    }
}
