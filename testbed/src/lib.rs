//! What tests run beside themselves: a program that is watched ([`Program`]); launchers that start the test's own
//! program as ranks ([`Launch`]), a real Slurm ([`Slurm`]), and machines with names, networks and memory of their own,
//! made of namespaces ([`Hosts`]), with cables as bad as wanted ([`Cable`]); tasks
//! that lose their rank ([`Blow`]).
//!
//! All of it is real but the machines' walls; all of it lies in temporary folders and ends with its handle, or with the
//! test's process. For tests alone: no library depends on it. What is missing on a machine is said by [`skip`].
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blow;
mod cable;
mod hosts;
mod launch;
mod program;
mod slurm;

pub use blow::{Blow, Fate};
pub use cable::Cable;
pub use hosts::Hosts;
pub use launch::{
    Ended, Launch, MARK, ROLE, arguments, die, host, lacks_mpich, lacks_mpirun, lacks_ucx, processor_time,
    role, say,
};
pub use program::{Program, wait_until};
pub use slurm::Slurm;

use std::process::{Command, Stdio};
use std::time::Duration;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Says by name that a test is not run.
///
/// # Panics
/// Where all that can be installed is there, which is where `CI` is `true`.
#[expect(clippy::print_stderr, reason = "a test that is not run says so")]
pub fn skip(name: &str, why: &str) {
    eprintln!("skipped: {name}: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has all of it");
}

/// A program, also one that only the system's own users have on their path.
fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// An error that names the first of these programs that is not installed.
fn expect_programs(programs: &[&str]) -> Result<(), String> {
    for program in programs {
        let found = command(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|error| format!("{program}: {error}"))?;
    }
    Ok(())
}
