//! Who takes what of whom: the arguments of tasks that other tasks give.
#![expect(unsafe_code, reason = "argument slots are reached through their record's code")]

use super::Gather;
use crate::cohort::Cohort;
use crate::compile::Taken;
use crate::error::Mistake;
use crate::outputs::Which;
use crate::task::input::Input;
use crate::task::record::Ref;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Gather<'_> {
    /// Writes who takes whose result; returns tasks that take one from outside, as `(index, producer)`.
    pub(super) fn find_inputs(&mut self) -> Vec<(u32, Ref)> {
        let mut externals = Vec::new();
        self.listing.input_ends.resize(self.gates.len(), 0);
        for i in self.gates.len()..self.places.len() {
            let task = self.slots.resolve(self.places[i]);
            self.inputs(i as u32, task, &mut externals);
            self.listing.input_ends.push(self.listing.inputs.len() as u32);
        }
        externals
    }

    fn inputs(&mut self, index: u32, task: Ref, externals: &mut Vec<(u32, Ref)>) {
        let (mut mistakes, mut inputs) = (Vec::new(), std::mem::take(&mut self.listing.inputs));
        let mut has_output = false;
        each_input(task, &mut |input| {
            has_output |= input.output().is_some();
            let producer = input.task;
            let (name, producer_name) = (|| task.name(), || producer.name());
            match self.position(producer) {
                Some(at) if at < index => inputs.push(at),
                Some(at) => mistakes.push(Mistake::LaterInput {
                    task: index,
                    name: name(),
                    producer: at,
                    producer_name: producer_name(),
                }),
                None if !Arc::ptr_eq(producer.shared(), self.shared) => {
                    mistakes.push(Mistake::ForeignInput {
                        task: index,
                        name: name(),
                        producer_name: producer_name(),
                    })
                }
                None if let Some(gate) = self.gate_of.get(&producer) => inputs.push(*gate),
                None if producer.cohort().is_some_and(Cohort::has_run) => externals.push((index, producer)),
                None => mistakes.push(Mistake::UnlistedInput {
                    task: index,
                    name: name(),
                    producer_name: producer_name(),
                }),
            }
        });
        self.listing.inputs = inputs;
        self.mistakes.append(&mut mistakes);
        if has_output {
            self.outputs(index, task);
        }
    }

    /// Notes what a task takes of others, some of which is what they have written.
    #[cold]
    fn outputs(&mut self, index: u32, task: Ref) {
        let mut all = BTreeMap::<u32, Taken>::new();
        each_input(task, &mut |input| match (self.position(input.task), input.output()) {
            (None, Some(which)) => {
                let is_gate = self.gate_of.contains_key(&input.task);
                self.heard.push((is_gate, input.task, which));
            }
            (None, None) => {}
            (Some(at), output) => {
                let taken = match output {
                    None => Taken::VALUE,
                    Some(Which::Out) => Taken::OUT,
                    Some(Which::Err) => Taken::ERR,
                };
                let before = all.entry(at).or_default();
                *before = before.and(taken);
            }
        });
        self.listing.outputs.extend(all.into_iter().map(|(producer, taken)| (index, producer, taken)));
    }
}

/// Shows each argument of a task that is another task's result.
pub(crate) fn each_input(task: Ref, see: &mut dyn FnMut(&mut Input)) {
    if let Some(inputs) = task.head().code.inputs {
        // SAFETY: the code is the record's own. The caller keeps the task's plan from running, or the task is not
        // in one yet, and one list is compiled at a time; so nobody else is at the slots.
        unsafe { inputs(task, see) };
    }
}
