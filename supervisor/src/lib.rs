//! A small process that spawns, watches and kills process trees, so that no tree outlives the program that wanted it.
//!
//! The program (below: the *engine*) keeps a [`Supervisor`], the client of a process of its own: a child subreaper
//! that starts processes, tells how they ended, and ends their trees when it is told to, when their time or memory is
//! up, and when the engine is gone, however it went. It knows no task: the engine gives each process a number.
//!
//! ```no_run
//! use std::ffi::OsString;
//! use std::path::Path;
//! use tarragon_supervisor::{Request, Spawn, Supervisor};
//!
//! let (supervisor, mut events) = Supervisor::start()?;
//! supervisor.environment(0, std::env::vars_os())?;
//! let args = [OsString::from("date")];
//! let date = Spawn::new(1, Path::new("/bin/date"), &args, Path::new("/tmp/date.out"));
//! supervisor.send(&[Request::Start(date)])?;
//! let mut seen = Vec::new();
//! while seen.len() < 2 && events.read(&mut seen)? {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod boot;
mod client;
mod error;
mod event;
pub mod job;
mod proc;
mod request;
mod serve;
mod wire;

pub use client::{Events, Options, Supervisor};
pub use error::StartError;
pub use event::{Ended, Event, Step};
pub use request::{Input, Output, Request, Spawn, Why};
