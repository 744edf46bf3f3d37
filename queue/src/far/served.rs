//! The queues that a rank serves: which porter a message is for. Handlers, which do not wait.

use super::ahead::Senders;
use super::desk::{self, Desk};
use super::handle::Kept;
use super::message::{
    ASK, Answer, Ask, Asked, HEARD, Heard, PUTS, Puts, RECALL, Recall, Refusal, TELL, Tell, Told, close, open,
};
use crate::descriptor::Descriptor;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::doorbell::{self, Doorbell};
use tarragon_transport::{Fabric, Message, Rank};

/// How long a rank that leaves waits for its porters to end.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The porters of a rank, by number of the queue's segment.
#[derive(Default)]
pub(super) struct Served {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    porters: HashMap<u128, Arc<Mailbox>>,
    /// The rank leaves: no porter begins any more.
    is_over: bool,
}

impl Served {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A porter has ended.
    pub(super) fn remove(&self, queue: u128, mailbox: &Arc<Mailbox>) {
        let mut table = self.lock();
        if table.porters.get(&queue).is_some_and(|it| Arc::ptr_eq(it, mailbox)) {
            table.porters.remove(&queue);
        }
    }
}

/// What a porter is to read.
pub(super) enum Letter {
    /// From whom, the request's tag, and an item.
    Asked(Rank, u64, Asked, Vec<u8>),
    Told(Rank, Told),
    /// From whom, the sender's number, and items of these lengths.
    Puts(Rank, u64, Vec<u64>, Vec<u8>),
    /// This rank leaves.
    End,
}

/// Where handlers put what is for a porter.
#[derive(Default)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    /// Of the thread.
    pub(super) bell: Doorbell,
    /// `None`: the porter has not begun yet, or has ended.
    desk: Mutex<Option<Desk>>,
}

#[derive(Default)]
struct Letters {
    unread: Vec<Letter>,
    /// Nobody reads any more.
    is_closed: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Option<Desk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if somebody is there, this thread maybe.
    pub(super) fn try_desk(&self) -> Option<MutexGuard<'_, Option<Desk>>> {
        match self.desk.try_lock() {
            Ok(desk) => Some(desk),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Gives a letter back if nobody would read it; else somebody is to be told of it.
    pub(super) fn post(&self, letter: Box<Letter>) -> Result<(), Box<Letter>> {
        let mut letters = self.lock();
        if letters.is_closed {
            return Err(letter);
        }
        letters.unread.push(*letter);
        Ok(())
    }

    pub(super) fn take(&self) -> Vec<Letter> {
        std::mem::take(&mut self.lock().unread)
    }

    pub(super) fn has_letters(&self) -> bool {
        !self.lock().unread.is_empty()
    }

    /// Lets nothing more in; false if there is something to read.
    pub(super) fn close_empty(&self) -> bool {
        let mut letters = self.lock();
        letters.is_closed |= letters.unread.is_empty();
        letters.is_closed
    }
}

/// Lets a rank serve queues, and have far handles.
pub(super) fn install(fabric: &Arc<Fabric>) {
    doorbell::prepare();
    let weak = Arc::downgrade(fabric);
    fabric.on(ASK, move |fabric, message| asked(fabric, &weak, message));
    fabric.on(TELL, |fabric, message| {
        if let Some((Tell { queue, what }, _)) = open(message.payload) {
            // A porter that has ended has nothing in hand.
            let _ = deliver(fabric, queue, Letter::Told(message.source, what));
        }
    });
    fabric.on(PUTS, |fabric, message| {
        let Some((Puts { queue, lens }, body)) = open::<Puts>(message.payload) else { return };
        let body = message.payload[..body].to_vec();
        if !deliver(fabric, queue, Letter::Puts(message.source, message.tag, lens, body)) {
            let refused = Heard { refusal: Some(Refusal::Leaves), ..Heard::default() };
            // Who sent them is gone if it cannot be told.
            let _ = fabric.send(message.source, HEARD, message.tag, &close(Vec::new(), &refused));
        }
    });
    fabric.on(HEARD, |fabric, message| {
        if let Some((heard, _)) = open::<Heard>(message.payload) {
            fabric.state::<Senders>().hear(fabric, message.tag, heard);
        }
    });
    fabric.on(RECALL, |fabric, message| {
        if let Some((Recall { queue }, _)) = open(message.payload) {
            fabric.state::<Kept>().give_back(fabric, queue, message.source);
        }
    });
}

/// Whether there is a porter that reads it.
fn deliver(fabric: &Fabric, queue: u128, letter: Letter) -> bool {
    let mailbox = fabric.state::<Served>().lock().porters.get(&queue).cloned();
    let is_posted = |mailbox: &Arc<Mailbox>| mailbox.post(Box::new(letter)).is_ok();
    let Some(mailbox) = mailbox.filter(is_posted) else { return false };
    desk::attend(&mailbox);
    true
}

fn asked(fabric: &Fabric, weak: &Weak<Fabric>, message: &Message<'_>) {
    let refuse = |refusal| {
        // Who asked is gone if it cannot be told.
        let _ = fabric.respond(message, &close(Vec::new(), &Answer::Refused(refusal)));
    };
    let Some((Ask { queue, what }, body)) = open::<Ask>(message.payload) else {
        return refuse(Refusal::AtHome { why: "a request that cannot be read".to_owned() });
    };
    let served = fabric.state::<Served>();
    let mut table = served.lock();
    if table.is_over {
        return refuse(Refusal::Leaves);
    }
    let descriptor = if let Asked::Attach { descriptor } = &what { Some(descriptor.clone()) } else { None };
    let item = message.payload[..body].to_vec();
    let mut letter = Box::new(Letter::Asked(message.source, message.tag, what, item));
    if let Some(mailbox) = table.porters.get(&queue).cloned() {
        match mailbox.post(letter) {
            Ok(()) => {
                drop(table);
                return desk::attend(&mailbox);
            }
            Err(back) => letter = back,
        }
    }
    let Some(descriptor) = descriptor.filter(|it| it.segment.uid == queue) else {
        return refuse(Refusal::Gone);
    };
    match begin(weak, descriptor, *letter) {
        Ok(mailbox) => drop(table.porters.insert(queue, mailbox)),
        Err(error) => refuse(Refusal::AtHome { why: format!("no thread could be had: {error}") }),
    }
}

/// Starts a porter, with its first letter.
fn begin(weak: &Weak<Fabric>, descriptor: Descriptor, letter: Letter) -> std::io::Result<Arc<Mailbox>> {
    let mailbox = Arc::new(Mailbox::default());
    mailbox.lock().unread.push(letter);
    let (weak, given) = (weak.clone(), Arc::clone(&mailbox));
    let run = move || desk::run(&weak, &descriptor, &given);
    std::thread::Builder::new().name("queue-porter".to_owned()).spawn(run)?;
    Ok(mailbox)
}

/// This rank leaves: all porters end, having returned what they have in hand.
pub(super) fn end(fabric: &Fabric) {
    let served = fabric.state::<Served>();
    {
        let mut table = served.lock();
        table.is_over = true;
        for mailbox in table.porters.values() {
            // One that has ended already has nothing in hand.
            let _ = mailbox.post(Box::new(Letter::End));
            mailbox.bell.ring();
        }
    }
    let deadline = Instant::now() + END_PATIENCE;
    while !served.lock().porters.is_empty() && Instant::now() < deadline {
        fabric.wait(Duration::from_millis(1));
    }
}
