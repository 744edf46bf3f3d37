//! Fences between processes of which one side costs nothing.
//!
//! The frequent side keeps the compiler from turning its store and its load around; the rare side asks the kernel to
//! run a full fence on every core that runs a thread of a registered process (`membarrier`). A segment says whether its
//! users do so; who cannot does not attach to one that says so.
//!
//! *Source*: Dice, Huang, Yang, "Asymmetric Dekker Synchronization" (2001); membarrier(2).

use rustix::thread::{MembarrierCommand, membarrier};
use std::sync::OnceLock;

/// Registers this process, once; whether it can take part.
pub(crate) fn prepare() -> bool {
    static PREPARED: OnceLock<bool> = OnceLock::new();
    *PREPARED.get_or_init(|| {
        let is_registered = membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
        is_registered && all_processes()
    })
}

/// The rare side: 0.4-4 µs. Whether the kernel did it.
pub(crate) fn all_processes() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}
