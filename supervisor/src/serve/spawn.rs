//! One `posix_spawn`: every child starts in a process group of its own (but a job's), with all signals at their
//! defaults and none blocked. What is opened, and which environment it gets, is left to `start`.
//!
//! `posix_spawn` rather than `fork`: the child borrows the memory until it executes, so that nothing is copied.
#![expect(unsafe_code, reason = "posix_spawn takes C pointers")]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to execute, with which descriptors.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) args: &'a [&'a CStr],
    pub(crate) env: &'a [&'a CStr],
    pub(crate) cwd: Option<BorrowedFd<'a>>,
    /// `None`: what the supervisor has, `/dev/null`.
    pub(crate) stdin: Option<BorrowedFd<'a>>,
    pub(crate) stdout: BorrowedFd<'a>,
    /// `None`: the same as `stdout`.
    pub(crate) stderr: Option<BorrowedFd<'a>>,
}

/// What all children have in common.
pub(crate) struct Spawner {
    attributes: libc::posix_spawnattr_t,
}

impl Spawner {
    /// Each child gets a process group of its own.
    pub(super) fn new() -> Spawner {
        Spawner::with(libc::POSIX_SPAWN_SETPGROUP)
    }

    /// Children are in the group of this process.
    pub(crate) fn in_our_group() -> Spawner {
        Spawner::with(0)
    }

    fn with(group: i32) -> Spawner {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises the attributes; it cannot fail where memory is not needed.
        unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) };
        // SAFETY: was initialised just above.
        let mut attributes = unsafe { attributes.assume_init() };
        let flags = group | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: the attributes are initialised, and the flags are known ones.
        unsafe { libc::posix_spawnattr_setflags(&raw mut attributes, flags as i16) };
        // SAFETY: the attributes are initialised; group 0 stands for one of its own.
        unsafe { libc::posix_spawnattr_setpgroup(&raw mut attributes, 0) };
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: initialises the set.
        unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
        // SAFETY: both are initialised, and the set is copied.
        unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes, signals.as_ptr()) };
        // SAFETY: initialises the set.
        unsafe { libc::sigfillset(signals.as_mut_ptr()) };
        // SAFETY: both are initialised, and the set is copied.
        unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes, signals.as_ptr()) };
        Spawner { attributes }
    }

    /// Starts a process; returns its pid, or the error number of whatever failed in it before it was executed.
    pub(crate) fn spawn(&self, launch: &Launch<'_>) -> Result<u32, i32> {
        let mut actions = Actions::new()?;
        if let Some(cwd) = launch.cwd {
            // SAFETY: the actions are initialised; the descriptor stays open until after the call below.
            let added =
                unsafe { libc::posix_spawn_file_actions_addfchdir_np(&raw mut actions.0, cwd.as_raw_fd()) };
            check(added)?;
        }
        let outputs = [(Some(launch.stdout), 1), (Some(launch.stderr.unwrap_or(launch.stdout)), 2)];
        for (descriptor, place) in [(launch.stdin, 0)].into_iter().chain(outputs) {
            let Some(descriptor) = descriptor else { continue };
            // SAFETY: the actions are initialised; the descriptor stays open until after the call below.
            let added = unsafe {
                libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, descriptor.as_raw_fd(), place)
            };
            check(added)?;
        }
        let (args, env) = (pointers(launch.args), pointers(launch.env));
        let mut pid = 0;
        // SAFETY: all strings end with a zero byte and both lists with a null pointer; strings, lists, actions and
        // attributes live until the call returns, and it writes to none of them.
        let spawned = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                launch.program.as_ptr(),
                &raw const actions.0,
                &raw const self.attributes,
                args.as_ptr(),
                env.as_ptr(),
            )
        };
        check(spawned)?;
        Ok(pid.cast_unsigned())
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: the attributes are initialised and not used again.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.attributes) };
    }
}

/// What a child does to its descriptors before it is executed.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> Result<Actions, i32> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises the actions.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: was initialised just above.
        Ok(Actions(unsafe { actions.assume_init() }))
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: the actions are initialised and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// The strings as C wants them, with a null pointer at the end.
fn pointers(strings: &[&CStr]) -> Vec<*mut c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
    pointers.chain([std::ptr::null_mut()]).collect()
}

fn check(error: i32) -> Result<(), i32> {
    if error == 0 { Ok(()) } else { Err(error) }
}
