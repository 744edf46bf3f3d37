//! Errors of bodies that come from other ranks as what they were, not only as what they said.
//!
//! A body's error is a box of some type that the engine does not know, and nothing of the type says whether serde can
//! write it. So a batch is told of types that can ([`Builder::error`](crate::Builder::error)). Each is known by a
//! *row*, a function that gives how it is written and read, whose name holds in all processes of the executable.
//!
//! The rows are the process's, not a batch's: whoever makes a batch adds its own, a guest those that home's batch came
//! with (`Setup::errors`). They stay until the process ends; there are as many as types. An error of a type without a
//! row, or that does not let itself be written or read, is told of by its text and those of its sources, as is every
//! error beside what it is. Errors of the system (`std::io::Error` with its number) are always read again.

use crate::function::Data;
use crate::function::identity::{distance, row_at};
use parking_lot::RwLock;
use std::error::Error;
use std::io;

/// An error as a body's result keeps it.
pub(crate) type Boxed = Box<dyn Error + Send + Sync>;

/// How errors of a type are written and read.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// `None`: it is of another type, or cannot be written.
    write: fn(&(dyn Error + 'static)) -> Option<Vec<u8>>,
    read: fn(&[u8]) -> Option<Boxed>,
}

/// Gives a row.
pub(crate) type RowOf = fn() -> Row;

/// The row of a type.
pub(crate) fn row<E: Error + Data>() -> Row {
    Row {
        write: |error| postcard::to_allocvec(error.downcast_ref::<E>()?).ok(),
        read: |bytes| postcard::from_bytes::<E>(bytes).ok().map(|error| Box::new(error) as Boxed),
    }
}

/// The name of a row, for other processes of this executable.
pub(crate) fn name(row: RowOf) -> i64 {
    distance(row as *const ())
}

static ROWS: RwLock<Vec<(i64, Row)>> = RwLock::new(Vec::new());

/// Errors with these rows are told of as what they are from now on. A name that is not of this executable is left out.
pub(crate) fn learn(names: &[i64]) {
    for name in names {
        let is_known = |rows: &[(i64, Row)]| rows.iter().any(|(known, _)| known == name);
        if is_known(&ROWS.read()) {
            continue;
        }
        let Ok(row) = row_at(*name) else { continue };
        let mut rows = ROWS.write();
        if !is_known(&rows) {
            rows.push((*name, row()));
        }
    }
}

/// What an error is, for another rank.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Carried {
    /// What the row of this name has written.
    Own(i64, Vec<u8>),
    /// An error of the system.
    System(i32),
}

impl Carried {
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Carried> {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(Carried::System(number));
        }
        let rows = ROWS.read();
        rows.iter().find_map(|(name, row)| Some(Carried::Own(*name, (row.write)(error)?)))
    }

    /// The error again; `None` if this process cannot read it.
    pub(crate) fn error(&self) -> Option<Boxed> {
        match self {
            Carried::System(number) => Some(Box::new(io::Error::from_raw_os_error(*number))),
            Carried::Own(name, bytes) => {
                let row = ROWS.read().iter().find(|(known, _)| known == name).map(|(_, row)| *row)?;
                (row.read)(bytes)
            }
        }
    }
}
