//! What a kill is done to: a dictionary with a target key and others that nobody may change, and how it is looked at.

use super::contents::{contents, number_in};
use std::path::Path;
use std::time::{Duration, Instant};
use tarragon_ddict::{DDict, Descriptor};

pub(crate) type Dict = DDict<String, Vec<u8>>;

/// No survivor may be held up longer.
pub(crate) const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// What a key has: a number and a length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) number: u64,
    pub(crate) len: usize,
}

/// A dictionary, and what is in it.
pub(crate) struct Bed {
    pub(crate) dict: Dict,
    pub(crate) target: String,
    pub(crate) others: Vec<(String, State)>,
}

pub(crate) const fn state(number: u64, len: usize) -> State {
    State { number, len }
}

pub(crate) fn put(dict: &Dict, key: &str, state: State) {
    dict.put(key, contents(key, state.number, state.len)).unwrap();
}

/// What a key has now; panics if that is torn.
pub(crate) fn state_of(dict: &Dict, key: &str) -> Option<State> {
    let bytes = dict.get_verified(key).unwrap()?;
    let number = number_in(key, &bytes);
    Some(state(number.unwrap_or_else(|| panic!("{key} is torn: {} bytes", bytes.len())), bytes.len()))
}

/// The `index`th of the other keys, of all sorts: short and long, in the index and in blocks.
pub(crate) fn other(index: usize) -> (String, State) {
    let tail = if index.is_multiple_of(5) { "/a key that does not fit into an entry" } else { "" };
    (format!("o/{index}{tail}"), state(0, [16, 40, 300, 5000][index % 4]))
}

impl Bed {
    pub(crate) fn with_others(dict: Dict, target: &str, count: usize) -> Self {
        let others: Vec<_> = (0..count).map(other).collect();
        for (key, state) in &others {
            put(&dict, key, *state);
        }
        Self { dict, target: target.to_owned(), others }
    }

    /// Makes the target have this.
    pub(crate) fn set(&self, wanted: Option<State>) {
        match wanted {
            Some(state) => put(&self.dict, &self.target, state),
            None => {
                self.dict.remove(self.target.as_str()).unwrap();
            }
        }
    }

    /// What the target has.
    pub(crate) fn target_state(&self) -> Option<State> {
        state_of(&self.dict, &self.target)
    }

    /// Panics unless all that nobody touched is as it was, and nothing leaks. `keys`: how many there must be.
    pub(crate) fn check_others(&self, keys: u64) {
        for (key, state) in &self.others {
            assert_eq!(state_of(&self.dict, key), Some(*state), "{key} was committed");
        }
        self.check_whole(keys);
    }

    /// Panics if something leaks or dangles, or is held by the dead.
    pub(crate) fn check_whole(&self, keys: u64) {
        assert_eq!(self.dict.len().unwrap(), keys, "len");
        assert_clean(&self.dict);
        assert_eq!(self.dict.participants(), (1, 1), "members and agents");
    }

    /// Tells children where the dictionary is.
    pub(crate) fn publish(&self, file: &Path) {
        std::fs::write(file, format!("{}\n{}", self.dict.descriptor(), self.target)).unwrap();
    }
}

/// What `Bed::publish` told.
pub(crate) fn published(file: &str) -> (Descriptor, String) {
    let text = std::fs::read_to_string(file).unwrap();
    let (descriptor, target) = text.split_once('\n').unwrap();
    (descriptor.parse().unwrap(), target.to_owned())
}

/// Panics if blocks are leaked or dangle.
pub(crate) fn assert_clean<K, V>(dict: &DDict<K, V>) {
    let audit = dict.audit().unwrap();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

/// Calls `act`, which must not take longer than a survivor may be held up.
pub(crate) fn promptly<R>(act: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = act();
    let took = began.elapsed();
    assert!(took <= BLOCKED_MAX, "a survivor was held up for {took:?}");
    result
}
