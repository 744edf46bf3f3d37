//! The spawn floor: what one thread pays that calls `posix_spawn` and `wait4`, and does nothing else. Each child gets
//! two new files for its outputs. (`std::process::Command` in the same loop takes the same cpu time within 2 %.)
#![expect(unsafe_code, reason = "calls posix_spawn and wait4 themselves")]

use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program with arguments, and this process's environment, as `posix_spawn` takes them.
pub(crate) struct Program {
    strings: Vec<CString>,
    vars: Vec<CString>,
}

impl Program {
    pub(crate) fn new(path: &Path) -> Self {
        let no_nul = "the system's strings have no zero byte";
        let vars = std::env::vars_os().map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='));
        Self {
            strings: vec![CString::new(path.as_os_str().as_bytes()).expect(no_nul)],
            vars: vars.map(|var| CString::new(var).expect(no_nul)).collect(),
        }
    }

    /// Starts one child; returns its process id.
    pub(crate) fn spawn(&self, outputs: &[PathBuf; 2]) -> i32 {
        let [argv, envp] = [&self.strings, &self.vars].map(|strings| {
            let ends = std::iter::once(std::ptr::null_mut());
            strings.iter().map(|s| s.as_ptr().cast_mut()).chain(ends).collect::<Vec<_>>()
        });
        let files = [create(&outputs[0]), create(&outputs[1])];
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises the actions.
        unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) };
        for (file, place) in files.iter().zip(1..) {
            // SAFETY: the actions are initialised, and the files stay open until after the spawn.
            unsafe { libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), file.as_raw_fd(), place) };
        }
        let (mut pid, path) = (0, self.strings[0].as_ptr());
        let attributes = std::ptr::null();
        // SAFETY: strings end with a zero byte, lists with a null pointer, and all live until the call returns.
        let error = unsafe {
            libc::posix_spawn(&raw mut pid, path, actions.as_ptr(), attributes, argv.as_ptr(), envp.as_ptr())
        };
        assert_eq!(error, 0, "the floor cannot spawn");
        // SAFETY: the actions are initialised and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr()) };
        pid
    }
}

fn create(path: &Path) -> OwnedFd {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).expect("a file")
}

/// Waits for one of the children in `running`, which has to succeed. Another child that ends meanwhile (the supervisor
/// of a batch that is gone) is none of them.
pub(crate) fn wait_one(running: &mut Vec<i32>) {
    loop {
        let (mut status, mut used) = (0, MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: both places live until the call returns.
        let pid = unsafe { libc::wait4(-1, &raw mut status, 0, used.as_mut_ptr()) };
        if let Some(place) = running.iter().position(|child| *child == pid) {
            assert_eq!(status, 0, "a child of the floor failed");
            running.swap_remove(place);
            return;
        }
        assert!(pid > 0, "the floor has no child to wait for");
    }
}

/// Cpu time, of code and kernel, that this process and all children it has waited for have used, and theirs.
pub(crate) fn cpu_time() -> Duration {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().map(used_by).sum()
}

fn used_by(who: i32) -> Duration {
    let mut used = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place is ours and lives until the call returns.
    unsafe { libc::getrusage(who, used.as_mut_ptr()) };
    // SAFETY: written by the call, and all zero would be valid.
    let used = unsafe { used.assume_init() };
    [used.ru_utime, used.ru_stime]
        .into_iter()
        .map(|t| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000))
        .sum()
}

/// Two new files for a child, below `folder`, at most `PER_FOLDER` children's in one.
pub(crate) struct Names {
    folder: PathBuf,
}

/// Children whose files share a folder; more in one make every new file slower.
const PER_FOLDER: usize = 500;

impl Names {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The files' names; makes their folder when it is the first in it.
    pub(crate) fn of(&self, child: usize) -> [PathBuf; 2] {
        let folder = self.folder.join((child / PER_FOLDER).to_string());
        if child.is_multiple_of(PER_FOLDER) {
            std::fs::create_dir_all(&folder).expect("a folder");
        }
        ["out", "err"].map(|end| folder.join(format!("{child}.{end}")))
    }
}

/// Runs `count` children, `width` at a time.
pub(crate) fn run(program: &Path, count: usize, width: usize, names: &Names) {
    let (program, mut running) = (Program::new(program), Vec::with_capacity(width));
    for child in 0..count {
        if running.len() == width {
            wait_one(&mut running);
        }
        running.push(program.spawn(&names.of(child)));
    }
    while !running.is_empty() {
        wait_one(&mut running);
    }
}
