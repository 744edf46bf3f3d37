//! The cpus of this machine that batches of this program hold: one ledger, so that together they never hold more than
//! there are.

use crate::error::Error;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a batch may use.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) cpus: u32,
    pub(crate) memory: u64,
    /// GPUs, and which source says that there are no more.
    pub(crate) gpus: u32,
    pub(crate) gpus_why: String,
    /// Amounts of its named resources, in `schedule::UNITS`.
    pub(crate) named: Vec<u64>,
}

/// Cpus that single batches have for themselves.
static RESERVED: Mutex<u32> = Mutex::new(0);
static ACCOUNTS: AtomicU32 = AtomicU32::new(1);

/// Whose cpus a batch uses.
#[derive(Debug)]
pub(crate) enum Share {
    /// Those that no batch has for itself, together with others.
    Common { granted: u32 },
    /// So many for itself alone, out of the machine's (or assumed).
    Own { account: u32, cpus: u32, of_machine: bool },
}

impl Share {
    /// A share of what is left to all.
    pub(crate) fn common(granted: u32) -> Result<Self, Error> {
        if granted <= *RESERVED.lock() {
            return Err(Error::NotEnoughCpus { asked: 1, left: 0, granted });
        }
        Ok(Self::Common { granted })
    }

    /// `cpus` for one batch alone.
    pub(crate) fn reserve(cpus: u32, granted: u32) -> Result<Self, Error> {
        let mut reserved = RESERVED.lock();
        let left = granted.saturating_sub(*reserved);
        if cpus == 0 || cpus > left {
            return Err(Error::NotEnoughCpus { asked: cpus, left, granted });
        }
        *reserved += cpus;
        Ok(Self::Own { account: ACCOUNTS.fetch_add(1, Ordering::Relaxed), cpus, of_machine: true })
    }

    /// `cpus` that the user says are there.
    pub(crate) fn assume(cpus: u32) -> Self {
        Self::Own { account: ACCOUNTS.fetch_add(1, Ordering::Relaxed), cpus, of_machine: false }
    }

    /// The account at the desk, and its cpus at this moment.
    pub(crate) fn account(&self) -> (u32, u32) {
        match self {
            Self::Common { granted } => (0, granted.saturating_sub(*RESERVED.lock())),
            Self::Own { account, cpus, .. } => (*account, *cpus),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Self::Own { cpus, of_machine: true, .. } = self {
            *RESERVED.lock() -= *cpus;
        }
    }
}
