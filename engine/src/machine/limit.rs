//! A limit and the source that sets it; which of several limits holds.

/// An amount, in the unit of what it limits, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) amount: u64,
    pub(super) why: String,
}

/// The limits one source sets: on CPUs, and on bytes of memory.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) cpus: Vec<Limit>,
    pub(super) memory: Vec<Limit>,
}

impl Limit {
    pub(super) fn new(amount: u64, why: impl Into<String>) -> Self {
        Self { amount, why: why.into() }
    }
}

/// The limit that holds: the least, the first of equals. Zero of anything is a broken source, not a limit.
pub(super) fn least(limits: Vec<Limit>) -> Option<Limit> {
    limits.into_iter().filter(|limit| limit.amount > 0).min_by_key(|limit| limit.amount)
}
