//! What the examples' command lines share: `--help`, messages on the standard error, exit codes.
//!
//! A program ends with 0 when what it computed is right, 1 when it is wrong or something failed, 2 when it was called
//! wrongly.
#![expect(clippy::print_stderr, reason = "errors are for people")]

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// What an example's body returns.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Prints `help` if asked to; else parses the options and calls `body` with them.
pub(crate) fn run<O>(
    help: &str,
    options: impl FnOnce(lexopt::Parser) -> Result<O, lexopt::Error>,
    body: impl FnOnce(O) -> Outcome,
) -> ExitCode {
    if std::env::args_os().skip(1).any(|arg| arg == "--help" || arg == "-h") {
        // Whoever reads only the start of it closes the pipe, and that is no failure.
        let _ = writeln!(std::io::stdout(), "{}", help.trim());
        return ExitCode::SUCCESS;
    }
    let options = match options(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\n\n{}", help.trim());
            return ExitCode::from(2);
        }
    };
    match body(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
