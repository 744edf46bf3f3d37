//! The command line: what the words of a user mean, and which exit code tells how it went. Running is left to the
//! engine.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | all that was asked for succeeded |
//! | 1 | some command failed, or was not started because others had; all else is done |
//! | 2 | the words were wrong, or something that they name is not there; nothing ran |
//! | 3 | the engine could not go on: a full disk, no memory, no more processes |
//! | 130 | Ctrl-C or `kill`: what ran was ended, and no more was started |

mod each;
mod ends;
mod line;
mod log;
mod rows;
mod time;
mod workflow;

use clap::{CommandFactory, Parser, Subcommand};
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command of the command line came to no end of its own.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The user can mend it; nothing ran.
    #[error("{0}")]
    Words(String),
    /// What is around it failed.
    #[error("{what}: {source}")]
    Around {
        /// What was being done.
        what: String,
        /// What was said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody reads our output any more, and so nobody is told.
    #[error("nobody reads the output")]
    Unread,
}

impl Refusal {
    fn around(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Around { what: what.into(), source: source.into() }
    }

    /// What a write to standard output met with.
    fn unwritten(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unread
        } else {
            Self::around("standard output", error)
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Unread => 1,
            Self::Words(_) => 2,
            Self::Around { .. } => 3,
        }
    }
}

/// Runs command lines over parameters, and workflows of templates.
#[derive(Debug, Parser)]
#[command(name = "tarragon", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    all that was asked for succeeded
  1    some command failed, or was not started because others had
  2    the words were wrong, or something that they name is not there; nothing ran
  3    the engine could not go on: a full disk, no memory, no more processes
  130  Ctrl-C or `kill`: what ran was ended, and no more was started";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one command line for each of many parameters, in parallel
    Each(Box<each::Each>),
    /// Run a template or a workflow file, and what it depends on in the right order
    Run(Box<workflow::Run>),
    /// Tell every mistake of templates and workflow files, and run nothing
    Check(workflow::Check),
    /// Print what a shell needs to complete this program's words
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print this program's man page
    Man,
}

/// Does what the program's arguments say, and tells by its exit code how it went.
pub fn main() -> ExitCode {
    let words = match Words::try_parse() {
        Ok(words) => words,
        Err(error) => {
            // Help and version are no mistakes.
            let _closed = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match words.command {
        Command::Each(each) => each::run(&each),
        Command::Run(run) => workflow::run(&run),
        Command::Check(check) => workflow::check(&check),
        Command::Completions { shell } => print(|out| {
            let mut bytes = Vec::new();
            clap_complete::generate(shell, &mut Words::command(), "tarragon", &mut bytes);
            out.write_all(&bytes).map_err(Refusal::unwritten)
        }),
        Command::Man => print(|mut out| {
            clap_mangen::Man::new(Words::command()).render(&mut out).map_err(Refusal::unwritten)
        }),
    };
    match done {
        Ok(code) => code,
        Err(refusal) => {
            if !matches!(refusal, Refusal::Unread) {
                complain(&refusal.to_string());
            }
            ExitCode::from(refusal.code())
        }
    }
}

/// Prints what is written; that nobody reads it any more is no mistake of anybody's.
fn print(write: impl FnOnce(&mut dyn Write) -> Result<(), Refusal>) -> Result<ExitCode, Refusal> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    out.flush().map_err(Refusal::unwritten)?;
    Ok(ExitCode::SUCCESS)
}

/// Says something to the user. Without a standard error there is nobody to hear it.
fn complain(text: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "tarragon: {text}");
}
