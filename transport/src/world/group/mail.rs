//! What has come for a member and was not received yet, and how much each may still send it.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{GroupError, MAIL_BYTES_MAX, Verb};

/// What a message counts for beside its bytes.
const MESSAGE_BYTES: u64 = 64;

/// What stands before the payload of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Head {
    Direct(u64),
    /// As `Direct`, beyond all credit.
    Posted(u64),
    Call {
        number: u64,
        round: u32,
        verb: Verb,
    },
    /// So much of what this one has sent there was received, ever.
    Received(Kind, u64),
    /// By whom first.
    Closed(u32),
    Left,
}

/// Messages that share a credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    Direct = 0,
    Call = 1,
}

impl Head {
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Head::Direct(_) => Some(Kind::Direct),
            Head::Call { .. } => Some(Kind::Call),
            _ => None,
        }
    }
}

/// What a message counts for.
pub(super) fn cost(bytes: &[u8]) -> u64 {
    bytes.len() as u64 + MESSAGE_BYTES
}

/// Where a message waits, with the member it is from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Slot {
    Direct(u64),
    Call { number: u64, round: u32 },
}

/// What has come: the call that it is of, if of any, whose credit it has, and its payload.
struct Came {
    verb: Option<Verb>,
    kind: Option<Kind>,
    bytes: Vec<u8>,
}

/// One kind of messages to and from another member, in bytes since the beginning.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Sent there, and of that known to be received.
    sent: u64,
    heard: u64,
    /// Received of what came from there, and of that told.
    received: u64,
    told: u64,
}

/// What has come for a member.
pub(super) struct Mail {
    messages: HashMap<(u32, Slot), VecDeque<Came>>,
    bytes: u64,
    accounts: Vec<[Account; 2]>,
    pub(super) closed_by: Option<u32>,
    left: Vec<u32>,
    /// This one has.
    has_left: bool,
}

/// What a member took, and what the one that it is from is to hear.
pub(super) type Taken = (Vec<u8>, Option<Head>);

impl Mail {
    pub(super) fn of(members: usize) -> Mail {
        let accounts = vec![[Account::default(); 2]; members];
        Mail { messages: HashMap::new(), bytes: 0, accounts, closed_by: None, left: vec![], has_left: false }
    }

    /// Payload that waits.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// In a handler.
    pub(super) fn arrive(&mut self, from: u32, head: Head, payload: &[u8]) {
        let (slot, verb) = match head {
            Head::Direct(tag) | Head::Posted(tag) => (Slot::Direct(tag), None),
            Head::Call { number, round, verb } => (Slot::Call { number, round }, Some(verb)),
            Head::Received(kind, bytes) => {
                if let Some(accounts) = self.accounts.get_mut(from as usize) {
                    let account = &mut accounts[kind as usize];
                    account.heard = account.heard.max(bytes).min(account.sent);
                }
                return;
            }
            Head::Closed(by) => {
                self.closed_by.get_or_insert(by);
                return;
            }
            Head::Left => return self.left.push(from),
        };
        if self.has_left && head.kind().is_some() {
            return;
        }
        self.bytes += payload.len() as u64;
        let came = Came { verb, kind: head.kind(), bytes: payload.to_vec() };
        self.messages.entry((from, slot)).or_default().push_back(came);
    }

    /// From now on only what is posted is received; false: so it was already.
    pub(super) fn leave(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.has_left, true);
        self.messages.retain(|_, all| {
            all.retain(|came| came.kind.is_none());
            !all.is_empty()
        });
        self.bytes = self.messages.values().flatten().map(|came| came.bytes.len() as u64).sum();
        is_first
    }

    /// Draws on the credit of a message to another member; false: there is none now.
    pub(super) fn draw(&mut self, to: u32, kind: Kind, bytes: &[u8]) -> Result<bool, GroupError> {
        // Who is no member is found by who asks.
        let Some(accounts) = self.accounts.get_mut(to as usize) else { return Ok(true) };
        let account = &mut accounts[kind as usize];
        if account.sent - account.heard >= MAIL_BYTES_MAX && !self.left.contains(&to) {
            return self.closed_by.map_or(Ok(false), |by| Err(GroupError::Closed { by }));
        }
        account.sent += cost(bytes);
        Ok(true)
    }

    /// What has come from a member, if anything has.
    pub(super) fn take(
        &mut self,
        from: u32,
        slot: Slot,
        verb: Option<Verb>,
        also_closed: bool,
    ) -> Result<Option<Taken>, GroupError> {
        if let Some(queue) = self.messages.get_mut(&(from, slot)) {
            let first = queue.pop_front();
            if queue.is_empty() {
                self.messages.remove(&(from, slot));
            }
            if let Some(came) = first {
                self.bytes -= came.bytes.len() as u64;
                let told = came.kind.and_then(|kind| self.count_received(from, kind, &came.bytes));
                return if came.verb == verb {
                    Ok(Some((came.bytes, told)))
                } else {
                    Err(GroupError::Order { member: from })
                };
            }
        }
        if let Slot::Call { number: mine, .. } = slot {
            let other = |(from, slot): &(u32, Slot), theirs: &VecDeque<Came>| {
                let is_this = matches!(slot, Slot::Call { number, .. } if *number == mine);
                (is_this && theirs.iter().any(|came| came.verb != verb)).then_some(*from)
            };
            if let Some(member) = self.messages.iter().find_map(|(key, theirs)| other(key, theirs)) {
                return Err(GroupError::Order { member });
            }
        }
        match self.closed_by {
            Some(by) if !also_closed => Err(GroupError::Closed { by }),
            _ if self.left.contains(&from) => Err(GroupError::Left { member: from }),
            _ => Ok(None),
        }
    }

    /// Word for the sender, once there is enough to tell.
    fn count_received(&mut self, from: u32, kind: Kind, bytes: &[u8]) -> Option<Head> {
        let account = &mut self.accounts.get_mut(from as usize)?[kind as usize];
        account.received += cost(bytes);
        let is_due = account.received - account.told >= MAIL_BYTES_MAX / 2;
        is_due.then(|| {
            account.told = account.received;
            Head::Received(kind, account.received)
        })
    }
}
