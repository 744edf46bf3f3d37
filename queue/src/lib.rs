//! A FIFO that any process of a node can put to and get from, at the speed of shared memory; and ranks of other nodes
//! by messages, if it was made by [`create_on`](Builder::create_on).
//!
//! ```
//! use tarragon_queue::Queue;
//!
//! let queue = Queue::<String>::new()?;
//! queue.put("hello".to_owned())?;
//! // Another process attaches by what `queue.descriptor()` prints; here, a thread will do.
//! let same = queue.descriptor().attach::<String>()?;
//! assert_eq!(same.get()?, "hello");
//! # Ok::<(), tarragon_queue::Error>(())
//! ```
//!
//! # Signals
//! A queue goes with its last user: when that drops it, exits, or is ended by SIGHUP, SIGINT or SIGTERM. For the last
//! of these a program that makes or attaches to one takes the three signals, each if it has its default action then: it
//! still ends by that signal, after at most a second. A handler that the program installed before is left alone. One
//! that it installs later replaces ours: the signal is its matter then, and if it ends the program by other means than
//! an exit, the next program to start removes what is left, as it does after `kill -9`.
//!
//! In reading order: [`Queue`] is the handle, [`Builder`] makes one, [`Descriptor`] leads to one from another process;
//! [`Puts`] puts many, [`Loan`] and [`ItemRef`] write and read items in place, [`select`] waits for several queues.
//! Inside: `layout` is what lies in shared memory, `put` and `get` the two ways through it, `growth` its blocks,
//! `settle` what is done for a process that died, `tally` what that one had in its hands, `encoding` how items become
//! bytes; `far` is how ranks of other nodes use a queue.

mod builder;
mod descriptor;
mod error;
mod queue;

mod ahead;
mod loan;
mod parcel;
mod select;
mod taken;

mod bytes;
mod encoding;
mod get;
mod growth;
mod join;
mod layout;
mod put;
mod settle;
mod tally;

mod far;

mod probe;

pub use ahead::Puts;
pub use builder::Builder;
pub use descriptor::Descriptor;
pub use error::Error;
pub use loan::Loan;
pub use queue::Queue;
pub use select::{AnyQueue, select};
pub use taken::ItemRef;
