//! YAML text → a tree of nodes, each with its place. The only module that knows the YAML parser.
//!
//! The tree is made from the events of `granit-parser`, the parser below `serde-saphyr`: serde stops at the first
//! mistake and shows no places of keys, and here every mistake of a document is told with its place.
//!
//! # Bounds
//! A document has at most [`DOCUMENT_BYTES_MAX`] bytes, [`DEPTH_MAX`] levels and [`NODES_MAX`] nodes, those that
//! aliases stand for counted each time. What is beyond is refused with an error, and costs no more time or memory than
//! a document at the bound.
//!
//! # What is refused
//! Duplicate keys, keys that are no text, tags of a program's own, several documents in one file, and plain words that
//! YAML 1.1 and 1.2 read differently (`no`, `010`, `1:30`): programs disagree on what they mean.

mod node;
mod read;
mod scalar;
mod tree;

pub(crate) use node::{Kind, Node};
pub use read::read;
pub(crate) use scalar::{Scalar, resolve};
pub(crate) use tree::parse;

/// Bytes of a document at most.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Nested sequences and mappings at most.
pub const DEPTH_MAX: usize = 64;
/// Sequences, mappings and scalars at most.
pub const NODES_MAX: usize = 1 << 19;
