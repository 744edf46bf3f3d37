//! A block's bytes as slices: the only place where the queue reads and writes items in place.

#![expect(unsafe_code, reason = "makes slices of shared memory")]

use crate::error::Error;
use tarragon_transport::heap::Held;
use tarragon_transport::segment::Segment;

/// The first `len` bytes of a block that this thread was given and that is not published.
///
/// Nobody else reads or writes them: other processes of the same user are trusted to write only what is theirs.
pub(crate) fn writable<'b>(segment: &Segment, held: &'b mut Held, len: u64) -> Result<&'b mut [u8], Error> {
    let bytes = checked(segment, held, len)?;
    let place = segment.write(held.block.offset, bytes as u64);
    if place.is_null() {
        return Err(Error::Damaged);
    }
    // SAFETY: `write` says that all of it lies inside the mapping, which outlives `held` in every caller, since guards
    // keep the queue; the block is held by this thread alone, and its one `Held` is borrowed mutably meanwhile.
    Ok(unsafe { std::slice::from_raw_parts_mut(place, bytes) })
}

/// The first `len` bytes of a block that was taken from the queue and not yet freed.
pub(crate) fn readable<'b>(segment: &Segment, held: &'b Held, len: u64) -> Result<&'b [u8], Error> {
    let bytes = checked(segment, held, len)?;
    let place = segment.read(held.block.offset, bytes as u64);
    if place.is_null() {
        return Err(Error::Damaged);
    }
    // SAFETY: `read` says that all of it lies inside the mapping, which outlives `held` in every caller; a published
    // item is never written, and its block is freed by the owner of `held` alone.
    Ok(unsafe { std::slice::from_raw_parts(place, bytes) })
}

/// `len`, if the block is that long.
fn checked(segment: &Segment, held: &Held, len: u64) -> Result<usize, Error> {
    let room = segment.block_bytes(held.block.offset).ok_or(Error::Damaged)?;
    if len <= room { Ok(len as usize) } else { Err(Error::Damaged) }
}
