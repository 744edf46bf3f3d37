//! What a program wants done when it ends by `exit` or by returning from `main`.

use crate::segment::system::at_exit;
use std::sync::{Mutex, Once, PoisonError};

/// What is to be done, and by which process: a forked child has its parent's hooks in its memory.
struct Hook {
    process: u32,
    call: Box<dyn FnOnce() + Send>,
}

static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());

/// Has `hook` called when the process exits by `exit` or by returning from `main`, not when a signal ends it; on a
/// thread of its own, since the main thread's own data are gone by then. The exit waits for it. What was registered
/// last is called first. A child that was forked does not call its parent's.
pub fn before_exit(hook: impl FnOnce() + Send + 'static) {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| at_exit(run));
    HOOKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Hook { process: std::process::id(), call: Box::new(hook) });
}

extern "C" fn run() {
    let hooks = std::mem::take(&mut *HOOKS.lock().unwrap_or_else(PoisonError::into_inner));
    let me = std::process::id();
    let (hooks, of_parent): (Vec<_>, Vec<_>) = hooks.into_iter().partition(|hook| hook.process == me);
    // What they hold is the parent's to drop.
    std::mem::forget(of_parent);
    if hooks.is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("tarragon-exit".to_owned());
    let running = thread.spawn(move || hooks.into_iter().rev().for_each(|hook| (hook.call)()));
    // Without a thread, or with a hook that panics, the process ends as if there were none.
    let _ = running.map(|thread| thread.join());
}
