//! Ours, by what a user would call: a dictionary of numbers, or of bytes whose values are looked at in place.

use super::{Ends, Plan, Store};
use tarragon_ddict::{DDict, Descriptor};

/// The dictionary of a plan.
pub(crate) enum Tarragon {
    Numbers(DDict<u64, u64>),
    Values(DDict<u64, Vec<u8>>),
}

impl Tarragon {
    /// A dictionary with memory for all values, as much again for those that are written meanwhile, and its index.
    pub(crate) fn create(plan: Plan) -> Option<Self> {
        let bytes = plan.bytes() as u64 * 2 + plan.keys * 1024 + (512 << 20);
        let failed = "shared memory has room";
        Some(if plan.size == 8 {
            Self::Numbers(DDict::builder().memory(bytes).create().expect(failed))
        } else {
            Self::Values(DDict::builder().memory(bytes).create().expect(failed))
        })
    }

    pub(crate) fn attach(address: &str, plan: Plan) -> Self {
        let descriptor: Descriptor = address.parse().expect("a descriptor");
        if plan.size == 8 {
            Self::Numbers(descriptor.attach().expect("its owner lives"))
        } else {
            Self::Values(descriptor.attach().expect("its owner lives"))
        }
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Numbers(dict) => dict.descriptor().to_string(),
            Self::Values(dict) => dict.descriptor().to_string(),
        }
    }

    fn numbers(&self) -> &DDict<u64, u64> {
        match self {
            Self::Numbers(dict) => dict,
            Self::Values(_) => panic!("the plan has values of another size"),
        }
    }

    fn values(&self) -> &DDict<u64, Vec<u8>> {
        match self {
            Self::Values(dict) => dict,
            Self::Numbers(_) => panic!("the plan has numbers"),
        }
    }
}

impl Store for Tarragon {
    fn get(&mut self, key: u64) -> u64 {
        self.numbers().get(&key).expect("a read").expect("every key is there")
    }

    fn set(&mut self, key: u64, value: u64) {
        self.numbers().put(&key, value).expect("a write");
    }

    fn pinned(&mut self, key: u64) -> Ends {
        Ends::of(&self.values().get_ref(&key).expect("a read").expect("every key is there"))
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        self.values().put_slice(&key, value).expect("a write");
    }

    fn fetch_add(&mut self, key: u64) -> u64 {
        self.numbers().fetch_add(&key, 1).expect("a write")
    }

    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>) {
        let found = self.numbers().multi_get(keys).expect("a read");
        values.extend(found.into_iter().map(|value| value.expect("every key is there")));
    }
}
