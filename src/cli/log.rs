//! The log of commands that have ended: a line for each, with the columns of GNU parallel's `--joblog`.

use super::Refusal;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is told of a command.
pub(super) struct Ended<'a> {
    pub(super) number: u64,
    /// When it began, since 1970.
    pub(super) began: Duration,
    pub(super) took: Duration,
    /// Bytes it wrote to its standard output.
    pub(super) wrote: u64,
    pub(super) code: i32,
    pub(super) signal: i32,
    pub(super) command: &'a str,
}

/// The file; none: nothing is logged.
pub(super) struct Log(Option<(BufWriter<File>, PathBuf)>);

impl Log {
    /// Makes the file, or empties it.
    pub(super) fn create(path: Option<&Path>) -> Result<Self, Refusal> {
        let Some(path) = path else { return Ok(Self(None)) };
        let made = File::create(path).and_then(|file| {
            let mut file = BufWriter::new(file);
            writeln!(file, "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand")?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Self(Some((file, path.to_owned())))),
            Err(error) => Err(Refusal::Words(format!("the log {}: {error}", path.display()))),
        }
    }

    /// Adds a line. It is in the file when the next one is added, or at the end.
    pub(super) fn add(&mut self, ended: &Ended<'_>) -> Result<(), Refusal> {
        let Some((file, path)) = &mut self.0 else { return Ok(()) };
        let Ended { number, wrote, code, signal, .. } = ended;
        let (began, took) = (ended.began.as_secs_f64(), ended.took.as_secs_f64());
        // One line each.
        let command = ended.command.replace('\n', "\\n");
        let line = format!("{number}\t:\t{began:.3}\t{took:10.3}\t0\t{wrote}\t{code}\t{signal}\t{command}\n");
        let written = file.write_all(line.as_bytes()).and_then(|()| file.flush());
        written.map_err(|error| Refusal::around(format!("the log {}", path.display()), error))
    }
}
