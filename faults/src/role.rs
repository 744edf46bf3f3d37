//! How a test binary runs itself once more, and how code knows that it is the copy.
//!
//! The copy is told by its environment which test it is, where the page of control words is, and the role's argument.
//! It dies with the thread that started it.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::child::Child;
use crate::control::Control;
use crate::error::Fault;
use crate::words::Words;

const TEST: &str = "TARRAGON_FAULTS_TEST";
const ARGUMENT: &str = "TARRAGON_FAULTS_ARGUMENT";
const PARENT: &str = "TARRAGON_FAULTS_PARENT";
const CONTROL: &str = "TARRAGON_FAULTS_CONTROL";

static OURS: OnceLock<Control> = OnceLock::new();

/// What a child process does: the code of one test, after it has asked [`playing`].
#[derive(Clone, Debug)]
pub struct Role {
    test: String,
    argument: String,
}

/// What a child knows of the role it plays. Made by [`playing`].
#[derive(Debug)]
pub struct Part {
    argument: String,
    control: &'static Control,
}

impl Role {
    /// The role that the test of this name plays. The full name, as the test binary lists it: `tests::kills` for a unit
    /// test in a module.
    pub fn new(test: &str) -> Self {
        Self { test: test.to_owned(), argument: String::new() }
    }

    /// Tells the child this: a descriptor, a path, a number.
    pub fn with_argument(mut self, argument: &str) -> Self {
        argument.clone_into(&mut self.argument);
        self
    }

    /// Name of the test.
    pub fn test(&self) -> &str {
        &self.test
    }

    /// Starts a child that plays the role; does not wait until it is ready. It dies when the guard is dropped, and when
    /// the calling thread ends. Takes 1-3 ms.
    ///
    /// # Errors
    ///
    /// [`Fault::System`].
    pub fn start(&self) -> Result<Child, Fault> {
        let control = Control::new(Words::create().map_err(|errno| Fault::system("memfd_create", errno))?);
        let program = env::current_exe().map_err(|errno| Fault::system("current_exe", errno))?;
        let process = Command::new(program)
            .args(["--exact", &self.test, "--nocapture", "--test-threads=1"])
            .env(TEST, &self.test)
            .env(ARGUMENT, &self.argument)
            .env(PARENT, std::process::id().to_string())
            .env(CONTROL, control.words().path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|errno| Fault::system("spawn", errno))?;
        Ok(Child::new(&self.test, process, control))
    }
}

/// The part to play, if this process was started to play the role of `test`; none in the process the user started.
///
/// # Panics
///
/// If the process that started this one is gone already.
pub fn playing(test: &str) -> Option<Part> {
    if env::var(TEST).ok()? != test {
        return None;
    }
    let argument = env::var(ARGUMENT).expect("whoever names the test names its argument");
    Some(Part { argument, control: OURS.get_or_init(join) })
}

/// Tells the process that steps through us that a phase begins, by its index in the operation's list. Outside a child,
/// nothing.
pub fn phase(index: u64) {
    if let Some(control) = OURS.get() {
        control.set_phase(index);
    }
}

impl Part {
    /// What [`Role::with_argument`] was given.
    pub fn argument(&self) -> &str {
        &self.argument
    }

    /// Says that the child is where it may be killed from. For [`Child::wait_ready`] and [`crate::random_kill`].
    pub fn ready(&self) {
        self.control.say_ready();
    }

    pub(crate) fn control(&self) -> &'static Control {
        self.control
    }
}

fn join() -> Control {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("SIGKILL is a signal");
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    assert_eq!(parent, env::var(PARENT).ok(), "the process that started this one is gone");
    let path = env::var_os(CONTROL).expect("whoever names the test names its control words");
    Control::new(Words::open(Path::new(&path)).expect("the process that started this one has the words"))
}
