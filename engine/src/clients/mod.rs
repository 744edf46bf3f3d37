//! Clients of a batch in other processes of its node: a separate program attaches by the batch's descriptor, and gets
//! a [`Batch`](crate::Batch) with the same verbs, whose tasks run where the descriptor comes from.
//!
//! # Shape
//! The *primary* is the process that built the batch. Whoever asks it for a descriptor has it *listen*: one thread, at
//! a socket in the kernel's abstract namespace (no file, so nothing stays behind), under a name nobody can guess. A
//! *client* attaches: it makes a batch whose tasks are records like any other, and which compiles lists like any other,
//! so that mistakes, graphs and handles are what they are everywhere; but its executor is a [`Connection`]. A list that
//! starts is *offered*: written as bytes with all its tasks, in list order, and sent. At the primary the connection's
//! *session* makes tasks of these bytes, compiles them, and starts them as a client of its own: first come, first
//! served on the same resources, in program order for each `Batch` value of the client, on whichever rank of the
//! primary's world they are placed. It tells how each task ended as soon as it has, with its value if the client still
//! has a handle of it; for the client that is the end of the task, and the last such news the end of the run.
//!
//! | message | from → to | says |
//! |---|---|---|
//! | preface, `Hello` | client → session | version of this crate; the secret, which executable |
//! | preface, `Greeting` | session → client | version; what the batch has, or why the client may not attach |
//! | `List` | client → session | the tasks of a list that starts, with what they take of earlier ones |
//! | `Accepted`, `Refused` | session → client | the list runs, or what is wrong with it |
//! | `Ended` | session → client | a task has ended: well, with or without value and output, or not |
//! | `Read`, `Written` | → session, ← | what a task has written so far |
//! | `Cancel` | client → session | cancels a list, or one task of it |
//! | `Forget` | client → session | what is submitted later depends on nothing before (`fence`) |
//! | `Drop` | client → session | nobody has a handle of the list's tasks any more |
//! | `Close` | client → session | all `Batch` values of the client are closed |
//! | `Bye` | session → client | the batch is joined or dropped; nothing more will come |
//!
//! # Names
//! - A list has a number, which the client gives; a task is named by that and its place in the list.
//! - Data are named once in each connection: files by their path, which the client has made absolute, so that they are
//!   the same data as the primary's; keys and names by their text; keys of dictionaries by number and bytes.
//! - Code is named by its distance from an anchor (`transport::code`), which means the same in processes that run the
//!   same executable: fingerprints are compared when a client attaches. Of any other executable of the same version of
//!   this crate processes are taken, and nothing else: their code is everywhere.
//!
//! # Who may write what
//! - The client's records: whoever owns the task before it starts; then the one thread that receives.
//! - `order` at the client is held from the beginning of a run until its list is sent, so that a list never comes
//!   before one whose results it takes. `out` is held while one message is written, and no other lock is taken inside.
//! - At the session one thread reads, unpacks and starts; another writes what workers tell it by a queue, so a client
//!   that does not read keeps no worker. The queue holds one entry for each pending task and for each question.
//!
//! # Who may die
//! - A client: its socket ends. It counts as closed; what it had started still runs, as when a client closes, and what
//!   it had queued and not started is gone with it. Values that only it wanted are dropped.
//! - The primary: the socket ends. Each pending task of the client fails with
//!   [`Cause::BatchLost`](crate::Cause), whoever waits is told at once, and every later start is an error.
//! - Nobody, but the primary has joined or dropped the batch: it says `Bye`, when all has ended that was started.
//!
//! Both ends are of one user, which each asks the kernel about the other, and trust each other as ranks do; still, a
//! message that makes no sense ends the connection and nothing else.

mod client;
mod descriptor;
mod error;
mod message;
mod names;
mod primary;

pub(crate) use client::{Connection, Sent};
pub use descriptor::BatchDescriptor;
pub use error::AttachError;
pub(crate) use names::{DataName, NameLog};
pub(crate) use primary::Listener;
