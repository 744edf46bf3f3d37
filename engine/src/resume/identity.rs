//! The identities of the tasks of a list; see the module's page.

use crate::gather::each_input;
use crate::journal::{Identity, IdentityHasher};
use crate::plan::Plan;
use crate::task::command::Variables;
use crate::task::record::Ref;
use crate::task::words::{Feed, Kind, Word};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// For each task of a list its identity, and whether something of it is not known: then it is no task of a journal.
pub(super) fn all(plan: &Plan, list: &[Ref], started: &mut HashMap<Identity, u32>) -> Vec<(Identity, bool)> {
    let gates = plan.gates.len() as u32;
    let mut all: Vec<(Identity, bool)> = Vec::with_capacity(list.len());
    for task in list {
        let (base, mut is_unknown) = of(plan, *task, |producer| match plan.position(producer) {
            Some(at) if at >= gates => Some(all[(at - gates) as usize].0),
            _ => producer.cohort().and_then(|c| c.identity(producer.index())),
        });
        is_unknown |= task.head().code.command.is_none() && task.head().code.describe.is_none();
        let n = started.entry(base).or_default();
        all.push((base.nth(*n), is_unknown));
        *n += 1;
    }
    all
}

fn of(plan: &Plan, task: Ref, producer: impl Fn(Ref) -> Option<Identity>) -> (Identity, bool) {
    let mut is_unknown = false;
    let mut hasher = IdentityHasher::new("task");
    hasher.text("name", task.name().as_bytes());
    match task.head().code.command {
        Some(_) => process(task, &mut hasher),
        None => {
            hasher.text("code", (task.head().code.name)().as_bytes());
            match task.describe() {
                Some(arguments) => _ = hasher.text("arguments", &arguments),
                None => is_unknown = true,
            }
        }
    }
    each_input(task, &mut |input| match producer(input.task) {
        Some(identity) => _ = hasher.identity("takes", identity),
        None => is_unknown = true,
    });
    for access in task.accesses() {
        let how = if access.writes() { "writes" } else { "reads" };
        match plan.shared.space.path_of(access.datum()) {
            Some(path) => hasher.text(how, path.as_os_str().as_bytes()),
            None => hasher.text(how, plan.shared.space.name_of(access.datum()).as_bytes()),
        };
    }
    // The body sees how many of them there are.
    if task.gang() > 1 {
        hasher.number("ranks", u64::from(task.gang()));
    }
    (hasher.finish(), is_unknown)
}

fn process(task: Ref, hasher: &mut IdentityHasher) {
    let command = task.command_of();
    executable(&command.program, &command.args, &command.env, command.cwd.as_deref(), hasher);
    match &command.stdin {
        Feed::Nothing => {}
        Feed::File(path) => _ = hasher.text("stdin", path.as_os_str().as_bytes()),
        Feed::Word(word) => self::word("stdin", word, hasher),
    }
    for code in &command.accept {
        hasher.number("accepts", u64::from(*code as u32));
    }
    if let Some(job) = &command.job {
        hasher.number("ranks", u64::from(job.ranks));
        for more in &job.more {
            hasher.number("more ranks", u64::from(more.ranks));
            executable(&more.program, &more.args, &more.env, more.cwd.as_deref(), hasher);
        }
    }
}

fn executable(
    program: &Path,
    args: &[Word],
    env: &Variables,
    cwd: Option<&Path>,
    hasher: &mut IdentityHasher,
) {
    hasher.text("program", program.as_os_str().as_bytes());
    args.iter().for_each(|word| self::word("argument", word, hasher));
    for (name, word) in env {
        hasher.text("variable", name.as_bytes());
        match word {
            Some(word) => self::word("value", word, hasher),
            None => _ = hasher.number("unset", 1),
        }
    }
    if let Some(cwd) = cwd {
        hasher.text("cwd", cwd.as_os_str().as_bytes());
    }
}

/// Text as it is; what another task gives follows with the tasks that are taken from, in the same order.
fn word(field: &str, word: &Word, hasher: &mut IdentityHasher) {
    match &word.0 {
        Kind::Text(text) => hasher.text(field, text.as_bytes()),
        Kind::Result(..) => hasher.number("result", 1),
        Kind::Output(_, stream) => hasher.number("output", stream.which() as u64),
    };
}
