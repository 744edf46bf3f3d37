//! Memory of payloads on their way, used again and again: a fresh large one costs more to get, page by page, than to
//! send.
//!
//! A buffer belongs to whoever has it: the request that reads or writes it, or the message that waits for its turn. It
//! comes back when that is over, or is freed where nobody brings it back. The last ones that came go out first: their
//! lines may still be near.

use super::worker::Held;
use std::sync::Arc;

/// Buffers up to here are gotten and freed each time, larger ones come in sizes of powers of two.
const SMALL_BYTES: usize = 4096;
/// Bytes that are kept for use again, of one rank.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Sizes of buffers.
const CLASSES: usize = usize::BITS as usize;

/// Some bytes, of which the first `len` count.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// Those that count.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Those that count, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer { len: bytes.len(), bytes }
    }
}

/// Buffers that wait to be used again.
pub(super) struct Pool {
    /// By the power of two that is their size.
    free: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool { free: std::array::from_fn(|_| Vec::new()), bytes: 0 }
    }

    /// A buffer of `len` bytes, of any values.
    pub(super) fn take(&mut self, len: usize) -> Buffer {
        if len <= SMALL_BYTES {
            return Buffer { bytes: vec![0; len], len };
        }
        let size = len.next_power_of_two();
        let bytes = match self.free[size.trailing_zeros() as usize].pop() {
            Some(bytes) => {
                self.bytes -= size;
                bytes
            }
            None => vec![0; size],
        };
        Buffer { bytes, len }
    }

    /// A buffer with these bytes.
    pub(super) fn copy(&mut self, from: &[u8]) -> Buffer {
        if from.len() <= SMALL_BYTES {
            return Buffer::from(from.to_vec());
        }
        let mut buffer = self.take(from.len());
        buffer.bytes_mut().copy_from_slice(from);
        buffer
    }

    /// Takes a buffer back that nobody uses any more.
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        let size = buffer.bytes.len();
        if size > SMALL_BYTES && size.is_power_of_two() && self.bytes + size <= KEPT_BYTES_MAX {
            self.bytes += size;
            self.free[size.trailing_zeros() as usize].push(buffer.bytes);
        }
    }
}

/// A payload that is here, wherever.
pub(super) enum Load {
    /// In memory of this rank's own.
    Own(Buffer),
    /// In memory that the sender, which is this rank, shares.
    Shared(Arc<Vec<u8>>),
    /// In memory of the library.
    Held(Held),
}

impl Load {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Load::Own(buffer) => buffer.bytes(),
            Load::Shared(payload) => payload,
            Load::Held(held) => held.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_goes_out_again_and_not_too_much_is_kept() {
        let mut pool = Pool::new();
        let first = pool.take(SMALL_BYTES + 1);
        let place = first.bytes().as_ptr();
        pool.give_back(first);
        let second = pool.take(2 * SMALL_BYTES);
        assert_eq!((second.bytes().as_ptr(), second.bytes().len()), (place, 2 * SMALL_BYTES));
        assert_eq!(pool.bytes, 0);
        for _ in 0..3 {
            let large = Buffer::from(vec![0; KEPT_BYTES_MAX / 2]);
            pool.give_back(large);
        }
        assert_eq!(pool.bytes, KEPT_BYTES_MAX);
        pool.give_back(second);
        assert_eq!(pool.bytes, KEPT_BYTES_MAX);
        assert_eq!(pool.copy(&[7; 3 * SMALL_BYTES]).bytes(), [7; 3 * SMALL_BYTES]);
    }
}
