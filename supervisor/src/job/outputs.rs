//! What ranks write: each rank's bytes as they are in a file of its own, and all ranks' lines, with their rank before
//! them, in the leader's own output.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// A line longer than this is cut where lines of ranks are put together.
const LINE_BYTES_MAX: usize = 64 << 10;
/// With more ranks than this files are opened for each piece, since descriptors are few.
const OPEN_RANKS_MAX: u32 = 256;

/// Which stream of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Where output goes.
pub(super) struct Outputs {
    folder: PathBuf,
    keeps_open: bool,
    files: HashMap<(u32, Stream), File>,
    /// Beginnings of lines.
    lines: HashMap<(u32, Stream), Vec<u8>>,
}

impl Outputs {
    pub(super) fn new(folder: PathBuf, ranks: u32) -> Outputs {
        let keeps_open = ranks <= OPEN_RANKS_MAX;
        Outputs { folder, keeps_open, files: HashMap::new(), lines: HashMap::new() }
    }

    /// A rank has written these bytes.
    pub(super) fn write(&mut self, rank: u32, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let name = (rank, stream);
        if let Some(file) = self.files.get_mut(&name) {
            file.write_all(bytes)?;
        } else {
            let end = if stream == Stream::Out { "out" } else { "err" };
            let path = self.folder.join(format!("{rank}.{end}"));
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(bytes)?;
            if self.keeps_open {
                self.files.insert(name, file);
            }
        }
        let line = self.lines.entry(name).or_default();
        line.extend(bytes);
        let whole = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = if line.len() - whole > LINE_BYTES_MAX { line.len() } else { whole };
        if whole > 0 {
            let rest = line.split_off(whole);
            let lines = std::mem::replace(line, rest);
            put(rank, stream, &lines)?;
        }
        Ok(())
    }

    /// A rank writes no more.
    pub(super) fn finish(&mut self, rank: u32) -> io::Result<()> {
        for stream in [Stream::Out, Stream::Err] {
            self.files.remove(&(rank, stream));
            if let Some(line) = self.lines.remove(&(rank, stream)).filter(|line| !line.is_empty()) {
                put(rank, stream, &line)?;
            }
        }
        Ok(())
    }
}

/// Writes lines of a rank to the leader's own output, in one piece.
fn put(rank: u32, stream: Stream, lines: &[u8]) -> io::Result<()> {
    let text = prefixed(rank, lines);
    let (out, err) = (io::stdout(), io::stderr());
    write_all(if stream == Stream::Out { out.as_fd() } else { err.as_fd() }, &text)
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn prefixed(rank: u32, lines: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.len() + 16);
    for line in lines.strip_suffix(b"\n").unwrap_or(lines).split(|byte| *byte == b'\n') {
        text.extend(format!("{rank}: ").as_bytes());
        text.extend(line);
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::prefixed;

    #[test]
    fn each_line_bears_its_rank() {
        assert_eq!(prefixed(3, b"a\n\nb\n"), b"3: a\n3: \n3: b\n");
        assert_eq!(prefixed(3, b"no end"), b"3: no end\n");
        assert_eq!(prefixed(3, b"\n"), b"3: \n");
    }
}
