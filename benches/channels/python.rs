//! `multiprocessing.Queue` between two Python processes: a script that is told what to do, and measures itself.

use crate::beside::{Killed, program};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const SCRIPT: &str = include_str!("mp_queue.py");

/// The script.
pub(crate) struct Python {
    _process: Killed,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// Starts the script.
    ///
    /// # Errors
    ///
    /// Why it does not run.
    pub(crate) fn start() -> Result<Self, String> {
        Command::new("python3").arg("--version").output().map_err(|error| error.to_string())?;
        let mut command = program(&["python3", "-c", SCRIPT]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = Killed(child.map_err(|error| error.to_string())?);
        let orders = process.0.stdin.take().expect("it is a pipe");
        let answers = BufReader::new(process.0.stdout.take().expect("it is a pipe"));
        let mut python = Self { _process: process, orders, answers };
        python.order("echo", 1).map(|_| python).ok_or_else(|| "python3 does not run the script".to_owned())
    }

    /// What an order took; none if the script has ended.
    pub(crate) fn order(&mut self, order: &str, count: usize) -> Option<Duration> {
        writeln!(self.orders, "{order} {count}").ok()?;
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        line.trim().parse().ok().map(Duration::from_nanos)
    }
}
