//! What a task may use and how often it is tried: resources, timeout, retries, as a builder.

use super::builder::Task;
use crate::error::{Mistake, TaskError};
use crate::schedule::{Need, UNITS};
use std::time::Duration;

impl<T> Task<T> {
    /// How many cpus it (of a job each rank) holds while it runs: 1 for a process when not given. A function that says
    /// so (or has a timeout, memory or another resource) runs on a thread of its own that waits for these cpus; other
    /// functions run on the batch's workers.
    ///
    /// A process with more than one cpu, and each rank of a job, is bound to the cpus it holds, unless the batch was
    /// built without binding. Zero, or more than the batch has, is a mistake that compile reports.
    pub fn cpus(mut self, cpus: u32) -> Self {
        let name = self.task().name();
        self.attend(|extra| {
            extra.need.get_or_insert_default().cpus = cpus;
            if cpus == 0 {
                extra.mistakes.push(Mistake::BadAmount { name, resource: "cpus".into(), amount: "0".into() });
            }
        });
        self
    }

    /// How many GPUs it (of a job each rank) holds while it runs: a whole number of them, which nobody else holds
    /// meanwhile, or a part of one, more than 0 and less than 1 and to a ten-thousandth, which it shares with tasks
    /// that ask for parts, too: `gpus(2)`, `gpus(0.25)`. That parts keep to their share is up to them.
    ///
    /// A process, and each rank of a job, finds those it holds in `CUDA_VISIBLE_DEVICES`, unless it is given that
    /// variable by [`env`](Self::env); a function asks [`Context::gpus`](crate::Context::gpus). Tasks that do not ask
    /// for GPUs have that variable as this program has it.
    ///
    /// Any other number, or more than the batch has (see [`Builder::gpus`](crate::Builder::gpus)), is a mistake that
    /// compile reports.
    pub fn gpus(mut self, gpus: impl Into<f64>) -> Self {
        let (name, gpus) = (self.task().name(), gpus.into());
        let is_part = gpus > 0.0 && gpus < 1.0;
        let is_whole = gpus >= 1.0 && gpus.fract() == 0.0 && gpus <= f64::from(u32::MAX);
        self.attend(|extra| {
            let need = extra.need.get_or_insert_default();
            if is_part || is_whole {
                // Down, so that three of a third fit in one.
                need.gpus = ((gpus * UNITS) as u64).max(1);
            } else {
                extra.mistakes.push(Mistake::BadGpus { name, amount: gpus.to_string() });
            }
        });
        self
    }

    /// How much memory it may use, in bytes. Tasks that say so run together only while their sum fits in what the
    /// batch has; a process tree that uses more is killed, and its error says so
    /// ([`ErrorKind::OverMemory`](crate::ErrorKind)). Functions are trusted. Of a job it is what its ranks use on this
    /// machine, together.
    pub fn memory(mut self, bytes: u64) -> Self {
        let name = self.task().name();
        self.attend(|extra| {
            extra.need.get_or_insert_default().memory = bytes;
            if bytes == 0 {
                extra.mistakes.push(Mistake::BadAmount {
                    name,
                    resource: "memory".into(),
                    amount: "0".into(),
                });
            }
        });
        self
    }

    /// How much it holds of a resource that the batch was built with
    /// ([`Builder::resource`](crate::Builder::resource)), to a ten-thousandth.
    ///
    /// An unknown name, an amount that is no positive number, or more than the batch has is a mistake that compile
    /// reports.
    pub fn resource(mut self, resource: &str, amount: f64) -> Self {
        let name = self.task().name();
        let known = self.task().shared().resources.index(resource);
        let all = || self.task().shared().resources.names();
        let mistake = match known {
            None => Some(Mistake::UnknownResource { name, resource: resource.into(), known: all() }),
            Some(_) if !(amount > 0.0 && amount.is_finite()) => {
                Some(Mistake::BadAmount { name, resource: resource.into(), amount: amount.to_string() })
            }
            Some(_) => None,
        };
        self.attend(|extra| {
            if let (Some(index), None) = (known, &mistake) {
                let named = &mut extra.need.get_or_insert_default().named;
                named.retain(|(i, _)| *i != index);
                named.push((index, (amount * UNITS).ceil() as u64));
                named.sort_unstable();
            }
            extra.mistakes.extend(mistake);
        });
        self
    }

    /// How long one attempt may take. A process tree is ended then (TERM, after [`grace`](Self::grace) KILL); a
    /// function is asked through [`Context::cancelled`](crate::Context::cancelled), counts as failed at once, and a
    /// body that does not return keeps its thread, which is replaced, and its arguments.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let name = self.task().name();
        self.attend(|extra| {
            extra.limits.timeout = Some(timeout);
            if timeout.is_zero() {
                extra.mistakes.push(Mistake::BadAmount {
                    name,
                    resource: "timeout".into(),
                    amount: "0 s".into(),
                });
            }
        });
        self
    }

    /// How long a process tree has between TERM and KILL when it is ended; 2 s when not given.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.set(|extra| extra.limits.grace = Some(grace));
        self
    }

    /// How often it is tried again when it fails; 0 when not given. Each attempt sees its arguments unchanged (so they
    /// are copied into the body, not moved), and starts with empty output.
    pub fn retries(mut self, retries: u32) -> Self {
        self.set(|extra| extra.limits.retries = retries);
        self.task().keep_arguments();
        self
    }

    /// How long to wait before the first further attempt; twice as long before each one after it. None when not given.
    pub fn back_off(mut self, first: Duration) -> Self {
        self.set(|extra| extra.limits.back_off = first);
        self
    }

    /// Which failures are worth another attempt; all but cancellation when not given.
    pub fn retry_if(mut self, is_worth: fn(&TaskError) -> bool) -> Self {
        self.set(|extra| extra.limits.retry_if = Some(is_worth));
        self
    }

    /// How many ranks run the function at once, as a *gang*: each calls it with the same arguments, and the bodies find
    /// each other by [`Context::gang`](crate::Context::gang). The result is what member 0 returns, on the first of the
    /// ranks; if one body fails the task has failed, and the others are asked to return. What the task holds, a cpu if
    /// it does not say, it holds on each of its ranks.
    ///
    /// The ranks follow each other; [`at_rank`](Self::at_rank) says which is the first. Zero, more than there are, or a
    /// closure or process with more than one is a mistake that compile reports.
    pub fn ranks(mut self, ranks: u32) -> Self {
        let name = self.task().name();
        if ranks == 0 {
            let mistake = Mistake::BadAmount { name, resource: "ranks".into(), amount: "0".into() };
            self.set(|extra| extra.mistakes.push(mistake));
        } else if ranks > 1 {
            self.attend(|extra| {
                extra.gang = ranks;
                extra.need.get_or_insert_default();
            });
        }
        self
    }

    /// Sets what makes the engine attend to the task.
    fn attend(&mut self, change: impl FnOnce(&mut super::extra::Extra)) {
        self.set(change);
        self.task().attend();
    }
}

/// What a process holds when it does not say.
pub(crate) fn default_need() -> Need {
    Need::default()
}
