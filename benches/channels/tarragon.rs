//! Ours, by what a user would call: a queue each way, of numbers, or of bytes that are written and read in place.

use super::{Hands, Side, Wide, ends, from_bytes, to_bytes};
use tarragon_queue::{Descriptor, Queue};

/// Between the two descriptors of an address.
const BETWEEN: char = '\n';

/// One of two sides of a channel of numbers.
pub(crate) struct Numbers {
    to: Queue<u64>,
    from: Queue<u64>,
}

impl Numbers {
    pub(crate) fn create(strict: bool) -> Option<Self> {
        let queue = || Queue::builder().strict(strict).create().expect("shared memory has room");
        Some(Self { to: queue(), from: queue() })
    }

    pub(crate) fn attach(address: &str) -> Self {
        let [from, to] = descriptors(address);
        Self { to: to.attach().expect("its owner lives"), from: from.attach().expect("its owner lives") }
    }

    pub(crate) fn address(&self) -> String {
        format!("{}{BETWEEN}{}", self.to.descriptor(), self.from.descriptor())
    }
}

fn descriptors(address: &str) -> [Descriptor; 2] {
    let (from, to) = address.split_once(BETWEEN).expect("two descriptors");
    [from, to].map(|it| it.parse().expect("a descriptor"))
}

impl Side<u64> for Numbers {
    fn send(&mut self, item: u64) {
        self.to.put(item).expect("the queue takes it");
    }

    fn receive(&mut self) -> u64 {
        self.from.get().expect("the queue lives")
    }
}

/// One of two sides of a channel of bytes: who made it sends, the other takes.
pub(crate) struct Bytes {
    queue: Queue<Vec<u8>>,
}

impl Bytes {
    pub(crate) fn create(strict: bool) -> Option<Self> {
        let queue = Queue::builder().strict(strict).create().expect("shared memory has room");
        Some(Self { queue })
    }

    pub(crate) fn attach(address: &str) -> Self {
        let descriptor: Descriptor = address.parse().expect("a descriptor");
        Self { queue: descriptor.attach().expect("its owner lives") }
    }

    pub(crate) fn address(&self) -> String {
        self.queue.descriptor().to_string()
    }
}

impl Side<Wide> for Bytes {
    fn send(&mut self, item: Wide) {
        let mut loan = self.queue.loan(64).expect("the queue takes it");
        loan.copy_from_slice(&to_bytes(&item));
        loan.send().expect("the queue takes it");
    }

    fn receive(&mut self) -> Wide {
        let item = self.queue.get_ref().expect("the queue lives");
        from_bytes(item.first_chunk().expect("64 bytes"))
    }
}

impl Hands for Bytes {
    fn hand(&mut self, bytes: &[u8], ready: impl FnOnce()) {
        let mut loan = self.queue.loan(bytes.len()).expect("the queue takes it");
        loan.copy_from_slice(bytes);
        ready();
        loan.send().expect("the queue takes it");
    }

    fn take(&mut self) -> (u64, u64) {
        ends(&self.queue.get_ref().expect("the queue lives"))
    }
}
