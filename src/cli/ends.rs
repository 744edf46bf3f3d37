//! How a command ended, in words and exit codes of ours.

use tarragon_engine::{ErrorKind, TaskError};

/// What shells say of a program that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;

/// Whether it ended for what others did: it was cancelled, or passed over.
pub(super) fn is_of_others(error: &TaskError) -> bool {
    matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Skipped)
}

/// Why it failed, in a word or two: its output is there already.
pub(super) fn why(error: &TaskError) -> String {
    match (error.kind(), error.exit_code(), error.signal()) {
        (_, Some(code), _) => format!("exit code {code}"),
        (_, _, Some((signal, _))) => format!("signal {signal}"),
        (ErrorKind::OverTime, ..) => "it ran longer than its timeout".to_owned(),
        _ => error.to_string(),
    }
}
