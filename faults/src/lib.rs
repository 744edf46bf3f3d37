//! `kill -9` at any instruction, for tests of what processes share: was anything torn, lost, leaked or blocked?
//!
//! A test binary starts itself once more as a child that plays a [`Role`], and kills it: at a random moment
//! ([`random_kill`], [`Nursery::kill_after`]), or after any number of instructions of one operation ([`survey`]). It
//! knows nothing of what is shared; that a survivor finds it whole is for the test's check to say. For tests alone: no
//! library depends on it.
//!
//! A test of a dictionary's `put`; what is `Dict` here is the code under test:
//!
//! ```no_run
//! use std::time::Duration;
//! use tarragon_faults::{Budget, Operation, Role, playing, survey};
//!
//! # struct Dict;
//! # impl Dict {
//! #     fn create() -> Self { Self }
//! #     fn attach(_: &str) -> Self { Self }
//! #     fn descriptor(&self) -> String { String::new() }
//! #     fn intent_of(&self, _pid: u32) -> usize { 0 }
//! #     fn put(&self, _: u64, _: u64) {}
//! #     fn get(&self, _: u64) -> u64 { 1 }
//! #     fn recover(&self) {}
//! # }
//! // #[test]
//! fn put_survives_a_kill_at_every_instruction() {
//!     const TEST: &str = "put_survives_a_kill_at_every_instruction";
//!     if let Some(part) = playing(TEST) {
//!         // The child: attach, then put. Never returns.
//!         part.serve(|descriptor| Dict::attach(descriptor), |dict| dict.put(7, 2));
//!     }
//!     let dict = Dict::create();
//!     dict.put(7, 1);
//!     let role = Role::new(TEST).with_argument(&dict.descriptor());
//!     // What the intent word in shared memory says. Or the child says it: `tarragon_faults::phase(1)`.
//!     let put = Operation::new("put", role, &["outside", "allocated", "published"]);
//!     let put = put.phase_of(|pid| dict.intent_of(pid));
//!     let budget = Budget::quick_or_long(300, 10_000).within(Duration::from_secs(20));
//!     let tally = survey(put, budget, |killed| {
//!         dict.recover();
//!         let value = dict.get(7);
//!         assert!(if killed.phase.is_none() { value == 2 } else { value == 1 || value == 2 });
//!         dict.put(7, 1);
//!     });
//!     match tally {
//!         Ok(tally) => println!("{tally}"),
//!         Err(fault) if fault.is_skip() => println!("{fault}"),
//!         Err(fault) => panic!("{fault}"),
//!     }
//! }
//! ```

mod role;
mod words;

mod child;
mod nursery;

mod step;
mod survey;
mod tally;

mod error;

mod control;
mod route;
mod sys;
mod traced;

pub use child::{Child, random_kill};
pub use error::Fault;
pub use nursery::Nursery;
pub use role::{Part, Role, phase, playing};
pub use step::{Killed, Operation, Span, Stepper, Trace};
pub use survey::{Budget, survey};
pub use tally::Tally;
pub use words::{WORDS, Words};
