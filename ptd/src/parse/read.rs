//! A file → its text, whatever is under its name: never waits for a fifo, never reads more than a document may have.

use super::DOCUMENT_BYTES_MAX;
use crate::mistake::Mistake;
use crate::source::{Source, Span};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The document in a file.
///
/// # Errors
/// A mistake about the whole file if there is none, it is no regular file, it cannot be read, or it is too long; with
/// the place of the first byte that is no UTF-8.
pub fn read(path: &Path) -> Result<Arc<Source>, Mistake> {
    let refused = |what: String| Mistake::of(&Arc::new(Source::of_file(path, String::new())), what);
    // A fifo nobody writes to would keep an open for reading waiting.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty())
        .map_err(|error| refused(format!("the file cannot be opened: {}", std::io::Error::from(error))))?;
    let status = fstat(&file);
    let status = status
        .map_err(|error| refused(format!("it cannot be looked at: {}", std::io::Error::from(error))))?;
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a fifo"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(kind) = kind {
        return Err(refused(format!("it is {kind}, not a file")).mend("give the path of a YAML file"));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(format!("it cannot be read: {error}")))?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let what = format!("the file is longer than {} MiB", DOCUMENT_BYTES_MAX >> 20);
        return Err(refused(what).mend("put long lists into a file of their own: `for: {f: \"@list.txt\"}`"));
    }
    let text = String::from_utf8(bytes).map_err(|error| not_text(path, &error))?;
    Ok(Arc::new(Source::of_file(path, text)))
}

/// About the first byte that is no UTF-8.
fn not_text(path: &Path, error: &std::string::FromUtf8Error) -> Mistake {
    let valid = error.utf8_error().valid_up_to();
    let bytes = error.as_bytes();
    let before = String::from_utf8_lossy(&bytes[..valid]).into_owned();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let place = Span {
        line: before.matches('\n').count() as u32 + 1,
        column: line.chars().count() as u32 + 1,
        start: valid as u32,
        end: valid as u32,
    };
    let byte = bytes[valid];
    let source = Arc::new(Source::of_file(path, before));
    Mistake::at(&source, place, format!("byte 0x{byte:02x} is no UTF-8")).mend("save the file as UTF-8")
}
