//! A run to look at: as a trace for Perfetto, as a table on a terminal, and as one HTML page.
//!
//! All of it is made from a [`record::RunRecord`], which whoever ran the tasks fills. Nothing here reads a clock or
//! opens a file; what is written goes where the caller says.

mod figures;
mod graph;
pub(crate) mod html;
mod json;
mod layout;
mod plain;
pub(crate) mod record;
pub(crate) mod table;
mod timeline;
pub(crate) mod trace;

#[cfg(test)]
mod tests;
