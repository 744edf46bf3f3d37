//! How the executed program becomes the supervisor, or a job's leader or guard: a constructor that runs before `main`
//! looks at the program's name and first argument. What these do is left to `serve` and `job`, who executes them to
//! `client` and others.
#![expect(unsafe_code, reason = "a constructor is a function in a section of the executable")]

use std::ffi::{OsStr, OsString};

use crate::{job, serve};

/// The name (`argv[0]`) under which a program of ours is the supervisor.
pub(crate) const NAME: &str = "tarragon-supervisor";
/// The third argument when memory limits are to be kept by cgroups, where these are to be had.
pub(crate) const WITH_CGROUPS: &str = "cgroups";
/// The third argument when they are not.
pub(crate) const WITHOUT_CGROUPS: &str = "no-cgroups";

/// The dynamic loader calls what lies in this section, before `main`, in every program that this crate is part of.
///
/// The client names this static, so that the linker keeps the file that it is in.
#[used]
// SAFETY: the section holds pointers to functions, which are called with arguments that a C function may ignore.
#[unsafe(link_section = ".init_array")]
pub(crate) static CONSTRUCTOR: extern "C" fn() = become_other;

/// Returns at once in any program that was not executed as one of them, and never in one that was. The standard
/// library knows the arguments by now: its own constructor has a priority and so comes earlier.
extern "C" fn become_other() {
    let mut args = std::env::args_os();
    let (name, first) = (args.next(), args.next());
    let code = match (name.as_deref().and_then(OsStr::to_str), first) {
        (Some(NAME), socket) => {
            let (Some(socket), Some(engine), Some(cgroups)) =
                (number(socket), number(args.next()), args.next())
            else {
                return;
            };
            serve::run(socket, engine, cgroups == WITH_CGROUPS)
        }
        (Some(job::LEADER), Some(folder)) => job::lead(folder.as_ref()),
        (_, Some(first)) if first == job::GUARD => match job::guard() {
            Some(code) => code,
            None => return,
        },
        _ => return,
    };
    // SAFETY: takes a number, returns nowhere, and runs nothing of the program's.
    unsafe { libc::_exit(code) }
}

fn number(text: Option<OsString>) -> Option<u32> {
    text?.to_str()?.parse().ok()
}
