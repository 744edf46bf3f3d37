//! Bytes between the processes of a node: shared memory that no `kill -9` can hurt, rings, wake-ups, messages.
//!
//! Knows nothing of what the bytes mean. In reading order: `segment` maps memory by name and offsets; `member` says
//! who of its users is alive; `agent` is what one thread holds there, written down so that a survivor can settle it;
//! `lock` a lock whose dead owner is found; `heap` the allocator in a segment, `pin` a reader's hold on a block.

pub mod agent;
pub mod heap;
pub mod lock;
pub mod member;
pub mod pin;
pub mod segment;

mod error;
mod place;
mod sync;

pub use error::{HeapError, SegmentError};
pub use place::Place;
