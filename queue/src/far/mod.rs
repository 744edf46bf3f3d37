//! Queues whose memory is on another node: what their handles ask, and who answers at home.
//!
//! # Who is who
//! The memory lies on one node, its *home*. One rank there *serves*: the one that made the queue. Ranks of the home's
//! node, the serving one among them, use the queue through shared memory and know nothing of all this. A rank of
//! another node has a *far* handle: a closed, empty queue in its own memory that stands in for the real one, so that
//! what is quick finds nothing to do, and a [`Far`] that is asked by all that is not quick.
//!
//! At the serving rank each queue that far handles have attached has a *porter*, which uses the queue for them as any
//! thread there would. It begins with the first of them and ends with the last. Handlers put *letters* into its mailbox
//! and do what need not be waited for; a thread of its own does the rest. See `desk` on who does what, and when.
//!
//! # A put
//! The item travels with the request. The porter puts it, at once or when there is room, and then responds: when a far
//! put returns `Ok` the item is in, once. A refused one is not. Nothing is sent twice. What one porter puts goes
//! through one chain (or the ring), so items of one far producer, whose puts come one after the other, stay in order.
//!
//! # Puts ahead, and credits
//! `put` promises that the item is in, so it waits for a response. A *sender* ([`Puts`](crate::Puts)) promises that of
//! all its items when it is *flushed*, and so sends them one way, many on their way at once:
//! 1. It keeps items together in a message while another one of its is on its way, up to 16 KiB; the first one, and one
//!    that is alone, leaves at once. What it *hears* makes it send the next ones, without a thread or a clock.
//! 2. The porter keeps what has come in the order of each sender (an *inflow*), and puts as much as there is room for.
//!    It tells the sender how many of its items are in, counted from the first: those, no other ones, and none twice.
//! 3. *Credits* are bytes that a sender may have sent beyond what is in: 64 KiB at first, then what the porter says,
//!    its share of 16 MiB, from 64 KiB to 1 MiB. A larger item travels alone. A sender without credit waits, and its
//!    caller with it once 64 KiB are kept there. So a porter's memory has a bound, by the number of senders.
//!
//! Credits are for the porter's memory and not for places in the queue: none of these is reserved. So a bound is never
//! passed, nobody is kept out by a sender that does nothing, nothing is to be revoked, and the end of the queue waits
//! for nobody: what is not in when it is closed is refused, and the sender hears how many are. From the first refused
//! item on nothing of that sender gets in. While there is not room for all, senders are first in turn.
//!
//! A sender that dies leaves in the queue a beginning of what it sent. One whose serving rank dies knows of what it has
//! heard; more may be in.
//!
//! # A get, and in whose hands an item is
//! 1. The porter announces itself as if it put (`Entered`, see `layout`), and takes an item; it is in the porter's
//!    *hand* from then on, with a number, and nobody can find the queue drained and closed.
//! 2. The response brings the item. The far side makes it what the caller wants, and if that worked tells `Came`,
//!    before the caller has it. If it did not (no memory), it tells `Back`.
//! 3. With `Came` the item leaves the hand: the far rank has taken it. With `Back`, or when the rank is found dead or
//!    gone before, it is *returned*: to the far get that waits longest, else to the end of the queue, also of a closed
//!    one, which cannot have been sealed. It counts as put twice, so the porter calls it done once.
//!
//! So no item is lost between the two. A rank that dies in the moment in which `Came` has not left it yet may have
//! looked at an item that another one is given again. Order holds but for what was returned, which comes later.
//!
//! # Several items at once
//! By default a response brings one item. A far handle that may `fetch_ahead`, and is asked for item after item, each
//! sooner than a round trip would take, asks for more and more at once; the response brings small ones, a share of what
//! is there, up to 64 and 16 KiB, and the handle keeps those it was not asked for. All are in the porter's hand until
//! each has been given to a caller and `Came` was told of it. While the queue is empty or closed the porter *recalls*
//! what ranks keep, so that others get it, and they tell `Back` of it. Since it comes later than in its order then, a
//! handle does this only when it is told to.
//!
//! # Who dies
//! | what ends | what follows |
//! |---|---|
//! | a far rank | items in hand for it are returned; those it took and has not called done count as abandoned |
//! | a far rank, in good order | items in hand are returned; those not called done are waited for, as of any process |
//! | the serving rank | far handles say `Lost`; for those at home its items in hand are lost with it, as taken |
//! | the serving rank, in good order | all who wait are refused, what is in hand is returned, far handles say `Lost` |
//!
//! In a world that survives losses, dead is who rank 0 has declared lost. A rank that was frozen, and is given up, may
//! find the response with an item when it wakes up: it cannot tell `Came` any more, and its caller gets an error.
//! Another one has the item.
//!
//! An abandoned item is called done by the porter after it was counted in `abandoned`, so that a death between the two
//! makes `join` tell one too many and never wait for ever.
//!
//! Timeouts are kept by the porter, which always responds in the end; the way there and back comes on top.

mod ahead;
mod create;
mod desk;
mod handle;
mod inflow;
mod message;
mod porter;
mod served;
mod waiting;

pub(crate) use ahead::Sender;
pub(crate) use handle::{Far, attach};
