//! What the writer asks of a file, so that tests can put a failing one in its place; and how a batch of records is
//! written so that nothing half-written stays.

use super::record;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// A file as the writer needs it.
pub(super) trait Disk: Send {
    /// Writes some of `bytes` at `position`; returns how many.
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<usize>;
    /// Cuts the file off at `end`.
    fn cut(&mut self, end: u64) -> io::Result<()>;
    /// Returns when all that was written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, position)
    }

    fn cut(&mut self, end: u64) -> io::Result<()> {
        self.set_len(end)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes whole records to `position`: with one call, unless the system takes fewer bytes. Returns how many records and
/// bytes are in the file now, and what kept the rest from it.
///
/// Positions are given, not remembered by the file, so whoever tries again overwrites what a failed try left, even if
/// that could not be cut off.
pub(super) fn write_records(
    disk: &mut dyn Disk,
    records: &[u8],
    position: u64,
) -> (u64, usize, io::Result<()>) {
    let mut done = 0;
    let outcome = loop {
        if done == records.len() {
            break Ok(());
        }
        match disk.write_at(&records[done..], position + done as u64) {
            Ok(0) => break Err(ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let (count, bytes) = record::whole_records(records, done);
    if bytes < done {
        // If this fails, too, a reader finds the torn record by its checksum.
        let _ = disk.cut(position + bytes as u64);
    }
    (count, bytes, outcome)
}
