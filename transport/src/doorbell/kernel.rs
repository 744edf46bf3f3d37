//! What a doorbell asks of the system: membarrier, futex, pauses. Under loom: their models.

#[cfg(loom)]
pub(super) use model::*;
#[cfg(not(loom))]
pub(super) use system::*;

#[cfg(not(loom))]
mod system {
    use crate::doorbell::{BELLS_MAX, Doorbell};
    use rustix::thread::futex;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    static REGISTERED: AtomicBool = AtomicBool::new(false);

    /// Whether heavy fences of other processes reach this one.
    #[inline(always)]
    pub(in crate::doorbell) fn registered() -> bool {
        REGISTERED.load(Ordering::Relaxed)
    }

    pub(in crate::doorbell) fn register() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| REGISTERED.store(crate::fence::prepare(), Ordering::SeqCst));
    }

    pub(in crate::doorbell) use crate::fence::all_processes;

    pub(in crate::doorbell) fn wake(bell: &Doorbell, count: u32) {
        // Refused only for addresses that are none; there is nobody to tell.
        let _ = futex::wake(&bell.sequence, futex::Flags::empty(), count);
    }

    /// Sleeps until a word differs from what was seen, is woken, or the nap is over.
    pub(in crate::doorbell) fn sleep(bells: &[&Doorbell], seen: &[u32; BELLS_MAX], nap: Duration) {
        match bells {
            [bell] => {
                let nap = timespec(nap);
                let _ = futex::wait(&bell.sequence, futex::Flags::empty(), seen[0], Some(&nap));
            }
            _ => sleep_on_several(bells, seen, nap),
        }
    }

    fn sleep_on_several(bells: &[&Doorbell], seen: &[u32; BELLS_MAX], nap: Duration) {
        let waiters: Vec<futex::Wait> =
            bells.iter().zip(seen).map(|(bell, &seen)| waiter(bell, seen)).collect();
        let clock = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(clock);
        let end = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + nap;
        let result = futex::waitv(&waiters, futex::WaitvFlags::empty(), Some(&timespec(end)), clock);
        if result == Err(rustix::io::Errno::NOSYS) || bells.is_empty() {
            // Kernels before 5.16: look every millisecond.
            std::thread::sleep(nap.min(Duration::from_millis(1)));
        }
    }

    fn waiter(bell: &Doorbell, seen: u32) -> futex::Wait {
        let mut waiter = futex::Wait::new();
        waiter.val = u64::from(seen);
        waiter.uaddr = futex::WaitPtr::new(bell.sequence.as_ptr().cast());
        waiter.flags = futex::WaitFlags::SIZE_U32;
        waiter
    }

    fn timespec(time: Duration) -> futex::Timespec {
        futex::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) as _ }
    }

    pub(in crate::doorbell) fn many_cores() -> bool {
        static MANY: OnceLock<bool> = OnceLock::new();
        *MANY.get_or_init(|| std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1))
    }

    pub(in crate::doorbell) fn pause() {
        std::hint::spin_loop();
    }

    pub(in crate::doorbell) fn pause_long() {
        std::thread::yield_now();
    }

    pub(in crate::doorbell) fn looks(count: u32) -> u32 {
        count
    }
}

#[cfg(loom)]
mod model {
    use crate::doorbell::{BELLS_MAX, Doorbell};
    use crate::sync::Ordering;
    use std::time::Duration;

    pub(in crate::doorbell) fn registered() -> bool {
        false
    }

    pub(in crate::doorbell) fn register() {}

    pub(in crate::doorbell) fn all_processes() -> bool {
        true
    }

    /// What the kernel keeps for a word: who sleeps on it.
    #[derive(Default)]
    pub(in crate::doorbell) struct Futex {
        gate: loom::sync::Mutex<()>,
        sleepers: loom::sync::Condvar,
    }

    pub(in crate::doorbell) fn wake(bell: &Doorbell, count: u32) {
        let _gate = bell.futex.gate.lock().expect("no model panics in it");
        if count == 1 { bell.futex.sleepers.notify_one() } else { bell.futex.sleepers.notify_all() }
    }

    /// Sleeps without end if it is not woken, which loom reports. One doorbell only.
    pub(in crate::doorbell) fn sleep(bells: &[&Doorbell], seen: &[u32; BELLS_MAX], _: Duration) {
        let gate = bells[0].futex.gate.lock().expect("no model panics in it");
        if bells[0].sequence.load(Ordering::SeqCst) == seen[0] {
            drop(bells[0].futex.sleepers.wait(gate));
        }
    }

    pub(in crate::doorbell) fn many_cores() -> bool {
        false
    }

    pub(in crate::doorbell) fn pause() {}

    pub(in crate::doorbell) fn pause_long() {}

    pub(in crate::doorbell) fn looks(_: u32) -> u32 {
        1
    }
}
