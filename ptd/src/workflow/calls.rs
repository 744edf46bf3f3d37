//! Blocks of steps → calls and gates, one after the other, in an order in which a sequential program would run them.

use super::erased::ErasedTask;
use super::grammar::{Block, Workflow};
use super::step::Step;
use crate::import::{CallError, Spec};
use crate::source::Source;
use crate::value::Value;
use std::ops::Range;
use std::sync::Arc;
use tarragon_engine::{Batch, DataId, Task};

/// What comes next of a workflow.
#[derive(Clone, Debug)]
pub enum Planned<'w> {
    /// A call of a template: a task.
    Call(Call<'w>),
    /// What stands between two elements of a sequence: a task that does nothing.
    Gate(Gate<'w>),
}

/// One row of one step: a task.
#[derive(Clone)]
pub struct Call<'w> {
    step: &'w Step,
    source: &'w Source,
    row: u64,
    number: u64,
    /// The gate that it stands behind.
    behind: Option<u64>,
    /// A gate stands behind it.
    is_marked: bool,
}

/// The end of an element of a sequence.
#[derive(Clone, Debug)]
pub struct Gate<'w> {
    source: &'w Source,
    number: u64,
    calls: Range<u64>,
    behind: Option<u64>,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "call {} of {}", self.number, self.step.name)
    }
}

/// The datum by which a call says that it has ended.
fn mark(batch: &Batch, source: &Source, call: u64) -> DataId {
    batch.keys(&format!("calls of {}", source.name())).at(call)
}

/// The datum by which a gate says that all before it have ended.
fn gate(batch: &Batch, source: &Source, gate: u64) -> DataId {
    batch.keys(&format!("gates of {}", source.name())).at(gate)
}

impl<'w> Call<'w> {
    /// Its number among all calls, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The row of its step, from 0.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// What the template of its step is called: its file.
    pub fn template(&self) -> &'w str {
        &self.step.name
    }

    /// The names that range, and their values in this row.
    pub fn values(&self) -> impl Iterator<Item = (&'w str, Value)> {
        self.step.names.iter().map(|name| &**name).zip(self.step.row(self.row))
    }

    /// The task as plain data, without its order in blocks.
    ///
    /// # Errors
    /// [`CallError`]: a value is not what its place needs, or a selector failed.
    pub fn spec(&self) -> Result<Spec, CallError> {
        self.step.spec(self.row)
    }

    /// The number of the gate that it stands behind, if it stands behind one.
    pub fn behind(&self) -> Option<u64> {
        self.behind
    }

    /// The task, not submitted, with its order in blocks. Tasks of one workflow are of one batch, and are submitted or
    /// compiled in the order of their calls.
    ///
    /// # Errors
    /// As [`spec`](Self::spec).
    pub fn task(&self, batch: &Batch) -> Result<Box<dyn ErasedTask>, CallError> {
        self.task_of(&self.spec()?, batch)
    }

    /// As [`task`](Self::task), of its spec, which may have been changed.
    ///
    /// # Errors
    /// As that.
    pub fn task_of(&self, spec: &Spec, batch: &Batch) -> Result<Box<dyn ErasedTask>, CallError> {
        let mut task = spec.any_task(batch)?;
        if let Some(number) = self.behind {
            task.read(gate(batch, self.source, number))?;
        }
        if self.is_marked {
            task.write(mark(batch, self.source, self.number))?;
        }
        Ok(task)
    }
}

impl Gate<'_> {
    /// Its number among all gates, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The numbers of the calls before it that it waits for.
    pub fn calls(&self) -> Range<u64> {
        self.calls.clone()
    }

    /// Its task, not submitted; to be submitted in its place among the calls.
    pub fn task(&self, batch: &Batch) -> Task<()> {
        let marks = batch.keys(&format!("calls of {}", self.source.name()));
        let mut task = batch.function(pass, ()).name(format!("gate {}", self.number));
        for call in self.calls.clone() {
            task = task.reads(marks.at(call));
        }
        if let Some(number) = self.behind {
            task = task.reads(gate(batch, self.source, number));
        }
        task.writes(gate(batch, self.source, self.number))
    }
}

/// What a gate does.
fn pass() {}

impl Workflow {
    /// How many tasks it has, gates not counted.
    pub fn len(&self) -> u64 {
        len(&self.root)
    }

    /// Whether it has no task.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its calls and gates, in order, each made when it is asked for.
    pub fn calls(&self) -> Calls<'_> {
        Calls {
            source: &self.source,
            open: vec![Open { block: &self.root, next: 0, first: 0, behind: None }],
            calls: 0,
            gates: 0,
            sequences: 0,
        }
    }
}

fn len(block: &Block) -> u64 {
    match block {
        Block::Step(step) => step.rows,
        Block::Sequence(blocks) | Block::Parallel(blocks) => {
            blocks.iter().map(len).fold(0, u64::saturating_add)
        }
    }
}

/// The calls and gates of a workflow.
pub struct Calls<'w> {
    source: &'w Arc<Source>,
    open: Vec<Open<'w>>,
    calls: u64,
    gates: u64,
    /// Elements of sequences that are open and have a gate at their end.
    sequences: usize,
}

/// A block that has not ended.
struct Open<'w> {
    block: &'w Block,
    /// Its next row or block.
    next: u64,
    /// The number of the first call of its element at hand.
    first: u64,
    /// The gate that its element at hand stands behind.
    behind: Option<u64>,
}

impl<'w> Iterator for Calls<'w> {
    type Item = Planned<'w>;

    fn next(&mut self) -> Option<Planned<'w>> {
        loop {
            let open = self.open.last_mut()?;
            match open.block {
                Block::Step(step) if open.next < step.rows => {
                    let (row, number, behind) = (open.next, self.calls, open.behind);
                    open.next += 1;
                    self.calls += 1;
                    let is_marked = self.sequences > 0;
                    return Some(Planned::Call(Call {
                        step,
                        source: self.source,
                        row,
                        number,
                        behind,
                        is_marked,
                    }));
                }
                Block::Step(_) => {
                    self.open.pop();
                }
                Block::Parallel(blocks) => match blocks.get(open.next as usize) {
                    Some(block) => {
                        open.next += 1;
                        let behind = open.behind;
                        self.open.push(Open { block, next: 0, first: self.calls, behind });
                    }
                    None => {
                        self.open.pop();
                    }
                },
                Block::Sequence(blocks) => {
                    if let Some(gate) = self.sequence(blocks) {
                        return Some(Planned::Gate(gate));
                    }
                }
            }
        }
    }
}

impl<'w> Calls<'w> {
    /// Goes on with the sequence at hand: to a gate, to its next element, or to its end.
    fn sequence(&mut self, blocks: &'w [Block]) -> Option<Gate<'w>> {
        let open = self.open.last_mut().expect("a sequence is at hand");
        // Elements and the gates between them take turns.
        let (element, is_gate) = ((open.next / 2) as usize, open.next % 2 == 1);
        open.next += 1;
        if is_gate && element + 1 < blocks.len() {
            let gate = Gate {
                source: self.source,
                number: self.gates,
                calls: open.first..self.calls,
                behind: open.behind,
            };
            (open.behind, open.first) = (Some(self.gates), self.calls);
            self.gates += 1;
            self.sequences -= 1;
            return Some(gate);
        }
        match blocks.get(element) {
            Some(block) if !is_gate => {
                open.first = self.calls;
                let behind = open.behind;
                if element + 1 < blocks.len() {
                    self.sequences += 1;
                }
                self.open.push(Open { block, next: 0, first: self.calls, behind });
            }
            _ => {
                self.open.pop();
            }
        }
        None
    }
}
