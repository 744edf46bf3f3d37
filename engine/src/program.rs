//! Finds the program of a process task, and what is wrong with it: as `execvp` would, but with an answer that says why.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a program cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadProgram {
    #[error("there is no program `{0}` in PATH: give its full path, or mend PATH")]
    NotInPath(String),
    #[error("there is no program {0}: no such file")]
    Missing(String),
    #[error("{0} is a directory, not a program")]
    Directory(String),
    #[error("{0} is not executable: `chmod +x` it, or run it by its interpreter")]
    NotExecutable(String),
    #[error("{0} has the wrong format: neither a program for this machine nor a script that begins with #!")]
    WrongFormat(String),
    #[error("the program has no name")]
    Empty,
}

/// The value of `PATH` in an environment, or what the C library takes instead.
pub(crate) fn path_of(env: &[(OsString, OsString)]) -> OsString {
    let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    path.unwrap_or_else(|| "/bin:/usr/bin".into())
}

/// The absolute path of `program`: along `path` if it has no slash, else from `cwd`.
pub(crate) fn find(program: &Path, cwd: &Path, path: OsString) -> Result<PathBuf, BadProgram> {
    let name = program.as_os_str();
    if name.is_empty() {
        return Err(BadProgram::Empty);
    }
    if name.as_bytes().contains(&b'/') {
        let found = cwd.join(program);
        check(&found)?;
        return Ok(found);
    }
    let mut wrong = None;
    for directory in std::env::split_paths(&path) {
        let candidate = cwd.join(directory).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(BadProgram::Missing(_) | BadProgram::Directory(_)) => {}
            Err(other) => wrong = wrong.or(Some(other)),
        }
    }
    Err(wrong.unwrap_or_else(|| BadProgram::NotInPath(name.to_string_lossy().into_owned())))
}

fn check(file: &Path) -> Result<(), BadProgram> {
    let name = || file.display().to_string();
    let Ok(meta) = fs::metadata(file) else { return Err(BadProgram::Missing(name())) };
    if meta.is_dir() {
        return Err(BadProgram::Directory(name()));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(BadProgram::NotExecutable(name()));
    }
    // What cannot be read may still run.
    let mut head = [0u8; 4];
    let len = fs::File::open(file).and_then(|mut f| f.read(&mut head)).unwrap_or(4);
    let script = head.starts_with(b"#!");
    let binary = head == *b"\x7fELF";
    if len < 4 && !script || meta.is_file() && !script && !binary && is_text(&head) {
        return Err(BadProgram::WrongFormat(name()));
    }
    Ok(())
}

/// Formats that the kernel was taught (`binfmt_misc`) begin with bytes that are no text, as far as they matter here.
fn is_text(head: &[u8]) -> bool {
    head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}
