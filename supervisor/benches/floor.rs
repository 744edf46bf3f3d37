//! How much do processes cost through the supervisor?
//!
//! Number to beat: 10^4 times `/bin/true`, some in flight at a time, take at most 1/0.95 of a bare loop of
//! `posix_spawn` and `wait4` in one thread that gives each child two new files for its outputs.
//!
//! Both run in turn, several times; the ratio of each round is told, because the machine changes between rounds.
#![expect(unsafe_code, reason = "the bare loop calls posix_spawn and wait4 itself")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use tarragon_supervisor::{Event, Events, Output, Request, Spawn, Supervisor};

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (count, rounds) = if quick { (1000, 5) } else { (10_000, 5) };
    let folder = tempfile::Builder::new().prefix("tarragon-floor").tempdir().expect("a folder");
    let (supervisor, mut events) = Supervisor::start().expect("a supervisor");
    supervisor.environment(0, std::env::vars_os()).expect("an environment");
    for in_flight in [2, 8, 64] {
        let mut ratios = Vec::new();
        for round in 0..rounds {
            let names = Names { folder: folder.path().join(format!("{in_flight}-{round}")) };
            let (bare, ours) = in_turn(
                round % 2 == 0,
                || bare(&names, count, in_flight),
                || supervised(&supervisor, &mut events, &names, count, in_flight),
            );
            println!("w {in_flight:3}: bare {:6.1} µs, supervised {:6.1} µs", bare * 1e6, ours * 1e6);
            ratios.push(bare / ours);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "w {in_flight:3}: speed relative to the bare loop: {:.3} (median)",
            ratios[ratios.len() / 2]
        );
    }
}

/// Seconds per process of both, the first one first.
fn in_turn(bare_first: bool, bare: impl FnOnce() -> f64, ours: impl FnOnce() -> f64) -> (f64, f64) {
    if bare_first {
        let bare = bare();
        (bare, ours())
    } else {
        let ours = ours();
        (bare(), ours)
    }
}

/// A folder of output files that both kinds use in the same way: empty at the start, gone after.
struct Names {
    folder: PathBuf,
}

impl Names {
    fn paths(&self, id: usize) -> [PathBuf; 2] {
        [self.folder.join(format!("{id}.out")), self.folder.join(format!("{id}.err"))]
    }

    fn time(&self, count: usize, act: impl FnOnce()) -> f64 {
        std::fs::create_dir(&self.folder).expect("a folder");
        let start = Instant::now();
        act();
        let seconds = start.elapsed().as_secs_f64();
        std::fs::remove_dir_all(&self.folder).expect("the folder is ours");
        seconds / count as f64
    }
}

fn supervised(
    supervisor: &Supervisor,
    events: &mut Events,
    names: &Names,
    count: usize,
    in_flight: usize,
) -> f64 {
    // Enough stand that none runs out while we are not looking.
    let standing_max = 2 * in_flight + 16;
    names.time(count, || {
        let mut state = Flight { free: in_flight, standing: 0, ended: 0, waiting: (0..count).collect() };
        let mut seen = Vec::new();
        while state.ended < count {
            state.send(supervisor, names, standing_max);
            seen.clear();
            assert!(events.read(&mut seen).expect("events"), "the supervisor is gone");
            seen.iter().for_each(|event| state.note(event));
        }
    })
}

/// What an engine knows: slots that are free, requests that stand, and what is still to be sent.
struct Flight {
    free: usize,
    standing: usize,
    ended: usize,
    waiting: VecDeque<usize>,
}

impl Flight {
    /// Starts as many as there are free slots, and lets others stand; few at a time would cost a wake-up each.
    fn send(&mut self, supervisor: &Supervisor, names: &Names, standing_max: usize) {
        if self.free == 0 && self.standing > standing_max / 2 {
            return;
        }
        let starts = self.free;
        let count = (starts + standing_max - self.standing).min(self.waiting.len());
        let paths: Vec<_> = self.waiting.drain(..count).map(|id| (id, names.paths(id))).collect();
        let args = [OsString::from("true")];
        let spawns = paths.iter().map(|(id, [out, err])| Spawn {
            stderr: Output::File(err),
            ..Spawn::new(*id as u64, Path::new("/bin/true"), &args, out)
        });
        let request = |(place, spawn)| {
            if place < starts { Request::Start(spawn) } else { Request::Stand(spawn) }
        };
        let requests: Vec<Request<'_>> = spawns.enumerate().map(request).collect();
        self.free -= starts.min(count);
        self.standing += count.saturating_sub(starts);
        if count > 0 {
            supervisor.send(&requests).expect("the supervisor is there");
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Started { follows, .. } => self.standing -= usize::from(follows.is_some()),
            Event::Ended(it) => {
                assert!(it.status.success());
                self.ended += 1;
                self.free += usize::from(it.taken_over_by.is_none());
            }
            Event::Bounced { id } => {
                self.standing -= 1;
                self.waiting.push_front(*id as usize);
            }
            event => panic!("{event:?}"),
        }
    }
}

/// The floor: one thread that spawns, waits, and does nothing else.
fn bare(names: &Names, count: usize, in_flight: usize) -> f64 {
    let program = CString::new("/bin/true").expect("no zero byte");
    let argv = [c"true".as_ptr().cast_mut(), std::ptr::null_mut()];
    let vars = std::env::vars_os().map(|(name, value)| {
        let (name, value) = (name.into_encoded_bytes(), value.into_encoded_bytes());
        CString::new([name, value].join(&b'=')).expect("no zero byte")
    });
    let vars: Vec<CString> = vars.collect();
    let mut envp: Vec<*mut i8> = vars.iter().map(|entry| entry.as_ptr().cast_mut()).collect();
    envp.push(std::ptr::null_mut());
    names.time(count, || {
        let mut running = 0;
        for id in 0..count {
            if running == in_flight {
                wait();
                running -= 1;
            }
            let [out, err] = names.paths(id).map(|path| create(&path));
            spawn(&program, &argv, &envp, &out, &err);
            running += 1;
        }
        (0..running).for_each(|_| wait());
    })
}

fn create(path: &Path) -> OwnedFd {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).expect("a file")
}

fn spawn(program: &CString, argv: &[*mut i8], envp: &[*mut i8], out: &OwnedFd, err: &OwnedFd) {
    let mut actions = MaybeUninit::uninit();
    // SAFETY: initialises the actions.
    unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) };
    for (file, place) in [(out, 1), (err, 2)] {
        // SAFETY: the actions are initialised, and the files stay open until after the spawn.
        unsafe { libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), file.as_raw_fd(), place) };
    }
    let (mut pid, attributes) = (0, std::ptr::null());
    // SAFETY: strings end with a zero byte, lists with a null pointer, and all live until the call returns.
    let spawned = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            actions.as_ptr(),
            attributes,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    assert_eq!(spawned, 0);
    // SAFETY: the actions are initialised and not used again.
    unsafe { libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr()) };
}

/// Waits for one of the children of the bare loop: the supervisor is a child, too, but does not end.
fn wait() {
    let (mut status, mut used) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places live until the call returns.
    let pid = unsafe { libc::wait4(-1, &raw mut status, 0, used.as_mut_ptr()) };
    assert!(pid > 0 && status == 0, "a child of the bare loop failed");
}
