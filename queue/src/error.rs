//! What can go wrong with a queue.

use tarragon_transport::{HeapError, SegmentError};

/// Why a queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It holds as many items as it may, and the time to wait for room is over.
    #[error("the queue is full: it holds {bound} items")]
    Full {
        /// The most it may hold.
        bound: u64,
    },
    /// Its memory is full, and the time to wait for some is over.
    #[error(
        "the queue's memory is full: {needed} bytes are needed, the whole is {capacity}; take items or give it more"
    )]
    Memory {
        /// Bytes needed, for the item or for cells; 0 if the queue's table of cells is full.
        needed: u64,
        /// The memory bound, in bytes.
        capacity: u64,
    },
    /// An item is larger than the queue's whole memory.
    #[error("an item of {needed} bytes does not fit into the queue's memory of {capacity} bytes")]
    TooLarge {
        /// Bytes of the item.
        needed: u64,
        /// The memory bound, in bytes.
        capacity: u64,
    },
    /// It has no item, and the time to wait for one is over.
    #[error("the queue is empty")]
    Empty,
    /// It was closed; what was put before has been taken.
    #[error("the queue is closed")]
    Closed,
    /// It was destroyed, with what was in it.
    #[error("the queue was destroyed")]
    Destroyed,
    /// It was made for items of another type.
    #[error("the queue {queue} holds items of another type than {wanted}")]
    Type {
        /// File name of its segment.
        queue: String,
        /// The type that was asked for.
        wanted: &'static str,
    },
    /// A text is no descriptor of a queue.
    #[error("`{text}` describes no queue")]
    Descriptor {
        /// The text.
        text: String,
    },
    /// An item could not be made bytes.
    #[error("an item could not be encoded: {0}")]
    Encode(postcard::Error),
    /// Bytes are no item.
    #[error("an item could not be decoded: {0}")]
    Decode(postcard::Error),
    /// `task_done` was called more often than items were put.
    #[error("task_done was called for more items than were put: {put}")]
    NotTaken {
        /// Items put ever.
        put: u64,
    },
    /// Items are not done, and the time to wait for them is over.
    #[error("{left} items are not done")]
    Unfinished {
        /// Items put, less those done.
        left: u64,
    },
    /// All items are over, but some were taken by processes that died before they called `task_done` for them. Told by
    /// each `join` that was waiting, and by one more at most: the next one tells of new ones alone.
    #[error("{items} items were taken by processes that ended before task_done")]
    Abandoned {
        /// Items, less those told before.
        items: u64,
    },
    /// A thread has too many items in its hands.
    #[error("a thread can hold {max} items in place at once")]
    Held {
        /// The most.
        max: usize,
    },
    /// What the memory says cannot be: it was damaged.
    #[error("the queue's memory is damaged")]
    Damaged,
    /// It lives on another machine, and this process is no rank of the world that it was made in.
    #[error(
        "the queue {queue} lives on another machine, {host}; only ranks of the world that it was made in reach it there"
    )]
    Elsewhere {
        /// File name of its segment there.
        queue: String,
        /// The machine.
        host: String,
    },
    /// The rank that serves the queue to other nodes cannot be reached: it died, or left the world. What was asked of
    /// it may have been done or not.
    #[error("the queue lives on {host} and is served by rank {rank} there: {source}")]
    Lost {
        /// The rank, on the node where the queue lives.
        rank: u32,
        /// Its machine.
        host: String,
        /// What happened to it.
        source: Box<tarragon_transport::FabricError>,
    },
    /// This rank has left the world by which it reached the queue.
    #[error("this rank has left the world by which it reached the queue on {host}")]
    Departed {
        /// The machine where the queue lives.
        host: String,
    },
    /// The rank that serves the queue could not do what it was asked.
    #[error("rank {rank} on {host}, which serves the queue: {why}")]
    AtHome {
        /// The rank, on the node where the queue lives.
        rank: u32,
        /// Its machine.
        host: String,
        /// What it says.
        why: String,
    },
    /// Items are on their way to another node and not in the queue yet, and the time to wait for them is over.
    #[error("{items} items are not in the queue yet")]
    OnTheirWay {
        /// How many.
        items: u64,
    },
    /// Of several items only the first ones were put.
    #[error("only the first {put} items were put: {source}")]
    Partly {
        /// Those that are in. If the queue is on another node and cannot be reached (`Lost`), more may be.
        put: u64,
        /// Why the next one is not.
        source: Box<Error>,
    },
    /// The shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl Error {
    /// Of an allocation of `needed` bytes.
    pub(crate) fn of_heap(error: HeapError) -> Self {
        match error {
            HeapError::Full { needed, capacity, .. } => Self::Memory { needed, capacity },
            HeapError::TooLarge { needed, capacity } => Self::TooLarge { needed, capacity },
            HeapError::Held { max } => Self::Held { max },
            HeapError::Segment(error) => Self::Segment(error),
        }
    }
}
