//! A run to look at: as a trace for Perfetto, as a table on a terminal, and as one HTML page.
//!
//! `fill` makes a [`record::RunRecord`] of a plan that has run, everything else is made from that, and [`Report`] is
//! what a user has of it. Nothing here reads a clock; only `shown` writes files.

mod figures;
pub(crate) mod fill;
mod graph;
mod html;
mod json;
mod layout;
mod plain;
mod record;
mod shown;
mod table;
mod timeline;
mod trace;

pub use shown::Report;

#[cfg(test)]
mod tests;
