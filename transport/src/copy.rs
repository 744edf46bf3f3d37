//! Bytes copied into and out of a segment. What they mean is left to the caller.
#![expect(unsafe_code, reason = "bytes of a mapping are reached by pointers")]

use crate::segment::Segment;

/// Copies `bytes` to `offset`; `None`, and nothing is copied, if they do not fit inside.
pub(crate) fn write(segment: &Segment, offset: u64, bytes: &[u8]) -> Option<()> {
    if bytes.is_empty() {
        return Some(());
    }
    let to = segment.write(offset, bytes.len() as u64);
    if to.is_null() {
        return None;
    }
    // SAFETY: `Segment::write` vouches that so many bytes are mapped there, writable, while the segment is borrowed;
    // no reference of this process leads to bytes that are still written.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    Some(())
}

/// Copies from `offset` into `bytes`; `None`, and nothing is copied, if they do not lie inside.
pub(crate) fn read(segment: &Segment, offset: u64, bytes: &mut [u8]) -> Option<()> {
    if bytes.is_empty() {
        return Some(());
    }
    let from = segment.read(offset, bytes.len() as u64);
    if from.is_null() {
        return None;
    }
    // SAFETY: `Segment::read` vouches that so many bytes are mapped there while the segment is borrowed. A peer that
    // writes meanwhile makes bytes of either time, and any byte is a `u8`.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    Some(())
}
