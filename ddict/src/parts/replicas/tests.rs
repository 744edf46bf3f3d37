//! The order of a home's writes, against nodes that answer when the test says so.

use super::super::copies::Span;
use super::super::message::{Home, Reply, WriteId, head};
use super::*;
use crate::store::Options;
use tarragon_transport::Rank;
use tarragon_transport::segment::SegmentName;

fn part(replicas: u32) -> Served {
    let options = Options {
        memory_bytes: 1 << 20,
        shards: 1,
        wait_for_keys: false,
        working_set: 1,
        timeout_ms: None,
        checksums: false,
        types: 1,
        seed: Some(5),
        replicas,
    };
    let part = Served::make(&options, 3, Rank(0)).expect("memory");
    let name = |uid| SegmentName { file: format!("s{uid}"), uid };
    let home = |node: u32| Home {
        rank: Rank(node),
        host: format!("h{node}"),
        segment: name(u128::from(node)),
        copies: name(0),
        replicas: (1..replicas).map(|i| name(u128::from(10 * node + i))).collect(),
    };
    let span = Span { homes: (0..3).map(home).collect(), here: 0 };
    assert!(part.span.set(span).is_ok());
    part
}

fn asked(number: u64, verb: Verb, key: &[u8], value: &[u8]) -> Asked {
    let write = Some(WriteId { number, waits_from: 1 });
    let question = Question { part: 0, key: key.len() as u32, write, verb };
    Asked { who: (Rank(7), 100 + number), question, rest: [key, value].concat() }
}

fn put(number: u64, value: &[u8]) -> Asked {
    let verb = Verb::Put { checkpoint: 0, when: When::Always, keep: Keep::Default };
    asked(number, verb, b"k", value)
}

/// A home with replicas on all other nodes that live.
struct Bed {
    part: Served,
    lives: Vec<bool>,
}

impl Bed {
    fn new() -> Bed {
        Bed { part: part(3), lives: vec![true; 3] }
    }

    fn writes(&self) -> &Writes {
        self.part.writes.as_ref().expect("it has replicas")
    }

    fn with<R>(&self, act: impl FnOnce(&Writes, &Around<'_>) -> R) -> R {
        let is_live = |node: u32| self.lives[node as usize];
        act(self.writes(), &Around { part: &self.part, is_live: &is_live })
    }

    fn begin(&self, asked: Asked) -> Vec<String> {
        shown(self.with(|writes, around| writes.begin(around, asked)))
    }

    fn done(&self, version: u64, node: u32) -> Vec<String> {
        shown(self.with(|writes, around| writes.done(around, version, node, None)))
    }

    fn failed(&self, version: u64, node: u32) -> Vec<String> {
        shown(self.with(|writes, around| writes.done(around, version, node, Some(Fault::Checksum))))
    }

    fn look(&self) -> Vec<String> {
        shown(self.with(|writes, around| writes.look(around)))
    }

    fn value(&self) -> Option<Vec<u8>> {
        self.part.store.get(b"k", 0, <[u8]>::to_vec).expect("it is there")
    }
}

fn shown(deeds: Vec<Deed>) -> Vec<String> {
    let show = |deed| match deed {
        Deed::Respond(who, bytes) => {
            let (answer, rest) = head::<Result<Reply, Fault>>(&bytes).expect("an answer");
            format!("{}: {answer:?} {}", who.1, String::from_utf8_lossy(rest)).trim().to_owned()
        }
        Deed::Replicate(node, version, bytes) => {
            let (write, rest) = head::<WriteHead>(&bytes).expect("a write");
            assert_eq!((write.node, write.version), (node, version));
            let back = if write.takes_back { " back" } else { "" };
            let rest = String::from_utf8_lossy(rest);
            format!("to {node} {version} of {}{back}: {:?} {rest}", write.part, write.change)
        }
        Deed::Copy(..) => "a copy".to_owned(),
        Deed::Order(asked) => format!("{} is slow", asked.who.1),
    };
    deeds.into_iter().map(show).collect()
}

#[test]
fn a_write_is_seen_when_all_have_it() {
    let bed = Bed::new();
    // Node 1 has the first of its replicas for this part, node 2 the second.
    let sent = bed.begin(put(1, b"v"));
    assert_eq!(sent, ["to 1 1 of 11: Put(Default) kv", "to 2 1 of 22: Put(Default) kv"]);
    assert_eq!((bed.value(), bed.done(1, 2).len(), bed.value()), (None, 0, None));
    // An answer that comes twice is one.
    assert_eq!((bed.done(1, 2).len(), bed.value()), (0, None));
    assert_eq!(bed.done(1, 1), ["101: Ok(Is(true))"]);
    assert_eq!(bed.value().as_deref(), Some(&b"v"[..]));
    assert!(bed.done(1, 1).is_empty() && !bed.writes().is_under_way());
}

#[test]
fn writes_of_a_key_come_one_after_the_other() {
    let bed = Bed::new();
    bed.begin(put(1, b"1"));
    let exchange = Verb::Exchange { checkpoint: 0, expected: Some(1), new: true };
    assert!(bed.begin(asked(2, exchange, b"k", b"12")).is_empty());
    assert!(bed.begin(asked(3, Verb::Remove { checkpoint: 0 }, b"k", b"")).is_empty());
    // Another key does not wait.
    let verb = Verb::Put { checkpoint: 0, when: When::Absent, keep: Keep::Default };
    assert_eq!(bed.begin(asked(4, verb, b"o", b"4")).len(), 2);
    bed.done(1, 1);
    // The next is looked at now, by what the first one left.
    let next = bed.done(1, 2);
    assert_eq!(next[0], "101: Ok(Is(true))");
    assert_eq!(next[1..], ["to 1 3 of 11: Put(Default) k2", "to 2 3 of 22: Put(Default) k2"]);
    bed.done(3, 1);
    let next = bed.done(3, 2);
    assert_eq!(next, ["102: Ok(Is(true))", "to 1 4 of 11: Pop k", "to 2 4 of 22: Pop k"]);
    assert_eq!(bed.value().as_deref(), Some(&b"2"[..]));
    bed.done(4, 1);
    assert_eq!(bed.done(4, 2), ["103: Ok(Value(Default)) 2"]);
    assert_eq!(bed.value(), None);
}

#[test]
fn what_one_cannot_do_all_take_back() {
    let bed = Bed::new();
    bed.begin(put(1, b"old"));
    bed.done(1, 1);
    bed.done(1, 2);
    bed.begin(put(2, b"new"));
    assert!(bed.failed(2, 1).is_empty());
    assert_eq!(bed.done(2, 2), ["to 2 3 of 22 back: Put(Persistent) kold"]);
    assert_eq!(bed.done(3, 2), ["102: Err(Checksum)"]);
    assert_eq!(bed.value().as_deref(), Some(&b"old"[..]));
    // Who cannot even do that is no replica any more.
    bed.begin(put(3, b"new"));
    bed.failed(4, 1);
    bed.done(4, 2);
    assert_eq!(bed.failed(5, 2), ["103: Err(Checksum)"]);
    assert_eq!(bed.begin(put(4, b"next")), ["to 1 6 of 11: Put(Default) knext"]);
}

#[test]
fn nobody_waits_for_the_dead() {
    let mut bed = Bed::new();
    bed.begin(put(1, b"1"));
    bed.done(1, 1);
    assert!(bed.look().is_empty());
    bed.lives[2] = false;
    assert_eq!(bed.look(), ["101: Ok(Is(true))"]);
    bed.lives[1] = false;
    // Nobody else is left.
    assert_eq!(bed.begin(put(2, b"2")), ["102: Ok(Is(true))"]);
    assert_eq!(bed.value().as_deref(), Some(&b"2"[..]));
}

#[test]
fn what_is_asked_for_again_is_answered_again() {
    let bed = Bed::new();
    let add = || {
        let exchange = Verb::Exchange { checkpoint: 0, expected: None, new: true };
        asked(1, exchange, b"k", b"1")
    };
    bed.begin(add());
    bed.done(1, 1);
    assert_eq!(bed.done(1, 2), ["101: Ok(Is(true))"]);
    // Done twice it would find another value than it expects.
    assert_eq!(bed.begin(add()), ["101: Ok(Is(true))"]);
    let other = asked(2, Verb::Exchange { checkpoint: 0, expected: None, new: true }, b"k", b"1");
    assert_eq!(bed.begin(other), ["102: Ok(Value(Default)) 1"]);
}

#[test]
fn what_concerns_all_keys_waits_for_what_is_under_way() {
    let bed = Bed::new();
    bed.begin(put(1, b"1"));
    assert!(bed.begin(put(2, b"2")).is_empty());
    bed.writes().close();
    assert!(bed.begin(asked(3, Verb::Remove { checkpoint: 0 }, b"o", b"")).is_empty());
    assert!(!bed.writes().is_drained_within(Duration::ZERO));
    bed.done(1, 1);
    assert_eq!(bed.done(1, 2), ["101: Ok(Is(true))"]);
    assert!(bed.writes().is_drained_within(Duration::ZERO));
    let begun = shown(bed.with(|writes, around| writes.reopen(around)));
    let wanted = ["to 1 2 of 11: Put(Default) k2", "to 2 2 of 22: Put(Default) k2", "103: Ok(Nothing)"];
    assert_eq!(begun, wanted);
}
