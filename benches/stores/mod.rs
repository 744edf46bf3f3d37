//! The dictionaries that `ddict` compares, behind one trait, and what a second process does with any of them.
//!
//! Each is run as its documents suggest for data that may be lost with the machine. The trait is generic, not a table
//! of functions: a call through a pointer costs as much as what some of them do.

pub(crate) mod floor;
pub(crate) mod hashmap;
pub(crate) mod lmdb;
pub(crate) mod redis;
pub(crate) mod tarragon;

use crate::beside::Orders;

/// How many keys there are, from 0, and how many bytes a value has: 8, or a multiple of 8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) keys: u64,
    pub(crate) size: usize,
}

impl Plan {
    /// As an argument of a process.
    pub(crate) fn to_text(self) -> String {
        format!("{}:{}", self.keys, self.size)
    }

    /// From an argument of a process.
    pub(crate) fn from_text(text: &str) -> Self {
        let (keys, size) = text.split_once(':').expect("keys and a size");
        Self { keys: keys.parse().expect("a number"), size: size.parse().expect("a number") }
    }

    /// All bytes of all values.
    pub(crate) fn bytes(self) -> usize {
        self.keys as usize * self.size
    }
}

/// A dictionary from `u64` to `u64`, or to bytes where the plan says so, by one handle. A key that is missing and a
/// value that is not whole end the bench.
pub(crate) trait Store {
    /// Reads a value of 8 bytes.
    fn get(&mut self, key: u64) -> u64;
    /// Writes a value of 8 bytes.
    fn set(&mut self, key: u64, value: u64);
    /// Looks at a value in place, where the store can; nobody changes it meanwhile.
    fn pinned(&mut self, key: u64) -> Ends;
    /// Writes a value of the plan's size.
    fn put(&mut self, key: u64, value: &[u8]);
    /// Adds 1 to a value of 8 bytes, and returns what it was.
    fn fetch_add(&mut self, key: u64) -> u64;
    /// Reads values of 8 bytes, in order.
    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>);
}

/// The first and the last 8 bytes of a value.
pub(crate) struct Ends(pub(crate) u64, pub(crate) u64);

impl Ends {
    /// Of bytes in place.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let first = bytes.first_chunk().expect("8 bytes or more");
        let last = bytes.last_chunk().expect("8 bytes or more");
        Self(u64::from_ne_bytes(*first), u64::from_ne_bytes(*last))
    }
}

/// Bits of a stamp that are its key.
const KEY_BITS: u32 = 20;

/// A number that bears its key and tells one write from another; its highest bit is never set.
pub(crate) fn stamp(key: u64, count: u64) -> u64 {
    (count << KEY_BITS | key) & (u64::MAX >> 1)
}

/// Checks that a stamp bears its key.
pub(crate) fn check(value: u64, key: u64) {
    assert_eq!(value & ((1 << KEY_BITS) - 1), key, "the value of another key");
}

/// Checks that a value bears its key and is that of one write.
pub(crate) fn check_ends(ends: &Ends, key: u64) {
    check(ends.0, key);
    assert_eq!(ends.0, ends.1, "a torn value");
}

/// Numbers as if drawn by lot, the same ones each time.
pub(crate) struct Lot(pub(crate) u64);

impl Lot {
    /// The next number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((self.0 >> 32) * bound) >> 32
    }
}

/// Values to write: one buffer, whose ends bear the stamp of each write.
pub(crate) struct Writer {
    value: Vec<u8>,
    count: u64,
}

impl Writer {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { value: vec![0x5A; plan.size], count: 0 }
    }

    /// Writes a fresh value to a key.
    pub(crate) fn write(&mut self, store: &mut impl Store, key: u64) {
        self.count += 1;
        let stamp = stamp(key, self.count);
        if self.value.len() == 8 {
            return store.set(key, stamp);
        }
        *self.value.first_chunk_mut().expect("8 bytes or more") = stamp.to_ne_bytes();
        *self.value.last_chunk_mut().expect("8 bytes or more") = stamp.to_ne_bytes();
        store.put(key, &self.value);
    }
}

/// Two stores that are written to alike, so that readers of either are under the same writes.
pub(crate) struct Both<A, B>(pub(crate) A, pub(crate) B);

impl<A: Store, B: Store> Store for Both<A, B> {
    fn get(&mut self, key: u64) -> u64 {
        self.0.get(key)
    }

    fn set(&mut self, key: u64, value: u64) {
        self.0.set(key, value);
        self.1.set(key, value);
    }

    fn pinned(&mut self, key: u64) -> Ends {
        self.0.pinned(key)
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        self.0.put(key, value);
        self.1.put(key, value);
    }

    fn fetch_add(&mut self, key: u64) -> u64 {
        self.0.fetch_add(key)
    }

    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>) {
        self.0.multi_get(keys, values);
    }
}

/// Orders to a process beside the bench: write to keys drawn by lot until stopped.
pub(crate) const UPDATE: u64 = 1;
/// Write so many times to the second half of the keys, in turn.
pub(crate) const PUT: u64 = 2;
/// Add so many times to all keys, in turn.
pub(crate) const ADD: u64 = 3;

/// What a second process does with a store.
pub(crate) fn serve(store: &mut impl Store, plan: Plan, mut orders: Orders) {
    let mut writer = Writer::new(plan);
    let mut lot = Lot(7);
    let mut done = 0;
    while let Some((order, count)) = orders.next(done) {
        done = count;
        match order {
            UPDATE => {
                done = 0;
                while !orders.stopped() {
                    writer.write(store, lot.below(plan.keys));
                    done += 1;
                }
            }
            PUT => puts(store, &mut writer, plan.keys / 2..plan.keys, count),
            ADD => (0..count).for_each(|i| {
                store.fetch_add(i % plan.keys);
            }),
            other => panic!("no order {other}"),
        }
    }
}

/// Writes so many times to a range of keys, in turn, and reads some of it back.
pub(crate) fn puts(store: &mut impl Store, writer: &mut Writer, keys: std::ops::Range<u64>, count: u64) {
    let width = keys.end - keys.start;
    for i in 0..count {
        writer.write(store, keys.start + i % width);
    }
    let last = keys.start + (count - 1) % width;
    let found = if writer.value.len() == 8 { store.get(last) } else { store.pinned(last).1 };
    assert_eq!(found, stamp(last, writer.count), "the last write is not found");
}
