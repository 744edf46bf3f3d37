//! What a template needs of a dictionary: a name for each key, and something that tasks attach by.

use super::{Mismatch, Value};
use tarragon_transport::Place;

/// A dictionary under a template: whose keys tasks read and write, and what they get to attach to it.
///
/// This crate knows no dictionary; whoever ties one to templates implements this.
pub trait Dictionary: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// The datum that a key is.
    ///
    /// # Errors
    /// If the value cannot be a key of this dictionary.
    fn place(&self, key: &Value) -> Result<Place, Mismatch>;

    /// What a function that gets the dictionary as an argument gets: a descriptor to attach by.
    fn descriptor(&self) -> Value;

    /// The same as text, for programs.
    fn descriptor_text(&self) -> String;
}

impl Mismatch {
    /// Says why, in words.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
