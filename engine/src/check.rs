//! Mistakes that can be known before anything runs: resources that will never be there, programs that cannot be run.

use crate::data::Access;
use crate::error::Mistake;
use crate::program::{self, BadProgram};
use crate::schedule::{HERE, HostId, JobNeed, Need, UNITS, fit, room_for_gpus};
use crate::shared::Shared;
use crate::task::Command;
use crate::task::record::Ref;
use crate::task::words::{Kind, Word};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A task that asks for more than the batch will ever have.
pub(crate) fn need(shared: &Shared, task: u32, record: Ref, need: &Need, mistakes: &mut Vec<Mistake>) {
    let totals = &shared.totals;
    let mut add = |resource: &str, asked: String, there: String| {
        let (name, resource) = (record.name(), resource.to_string());
        mistakes.push(Mistake::NeverEnough { task, name, resource, asked, there });
    };
    match need.job {
        None if need.cpus > totals.cpus => add("cpus", need.cpus.to_string(), totals.cpus.to_string()),
        Some(job) if !has_room(shared, job, need.cpus, 0) && !may_spread(shared, record, need) => {
            let each =
                if job.per_host > 0 { format!(", {} on each host", job.per_host) } else { String::new() };
            add("cpus", format!("{} ranks of {}{each}", job.ranks, need.cpus), room(shared, need.gpus > 0));
        }
        _ => {}
    }
    let gpus = need.gpus as f64 / UNITS;
    match need.job {
        // Of several ranks another one may have them; where it can run is looked at later.
        None if room_for_gpus(most_gpus(shared), need.gpus) == 0 => {
            add("gpus", gpus.to_string(), gpus_there(shared, most_gpus(shared)));
        }
        Some(job) if has_room(shared, job, need.cpus, 0) && !has_room(shared, job, need.cpus, need.gpus) => {
            let hosts = &shared.launching.hosts;
            let others = match hosts.others.len() {
                0 => String::new(),
                n => format!(", and {} on each of {n} other hosts", hosts.gpus_of_others),
            };
            let here = if hosts.is_here { totals.gpus } else { 0 };
            let there = format!("{}{others}", gpus_there(shared, here));
            add("gpus", format!("{} ranks of {gpus}", job.ranks), there);
        }
        _ => {}
    }
    if need.memory > totals.memory {
        add("memory", format!("{} bytes", need.memory), format!("{} bytes", totals.memory));
    }
    for (index, amount) in &need.named {
        let there = totals.named[*index as usize];
        if *amount > there {
            let shown = |n: u64| (n as f64 / UNITS).to_string();
            add(&shared.resources.names()[*index as usize], shown(*amount), shown(there));
        }
    }
}

/// The GPUs of the rank that has most of those where a list of the batch may run.
fn most_gpus(shared: &Shared) -> u32 {
    let ranks = shared.ranks.as_ref().filter(|ranks| ranks.is_home() && !shared.executor.is_serial());
    let elsewhere =
        ranks.map_or(0, |ranks| (0..ranks.size()).map(|rank| ranks.gpus_of(rank)).max().unwrap_or(0));
    shared.totals.gpus.max(elsewhere)
}

/// So many GPUs, who says so, and what to do.
pub(crate) fn gpus_there(shared: &Shared, gpus: u32) -> String {
    let why = &shared.totals.gpus_why;
    format!("{gpus} ({why}; `Builder::assume_gpus` has a batch believe that there are more)")
}

/// Whether a job's ranks fit when nothing else runs, on what this rank has if it is one of several.
pub(crate) fn has_room(shared: &Shared, job: JobNeed, cpus: u32, gpus: u64) -> bool {
    let hosts = &shared.launching.hosts;
    let with = |all: u32, devices: u32| all.min(room_for_gpus(devices, gpus).saturating_mul(cpus.max(1)));
    let here = hosts.is_here.then(|| (HERE, with(shared.totals.cpus, shared.totals.gpus)));
    let others = (1..).zip(&hosts.others);
    let others = others.map(|(number, (_, all))| (HostId(number), with(*all, hosts.gpus_of_others)));
    fit(job, cpus, here.into_iter().chain(others)).is_some()
}

/// Whether they fit on cpus of several ranks of this program, from the one on that the job is to be on.
fn may_spread(shared: &Shared, record: Ref, need: &Need) -> bool {
    let Some(ranks) = shared.ranks.as_ref().filter(|ranks| ranks.size() > 1) else { return false };
    let chosen = record.extra().and_then(|extra| extra.rank).filter(|_| ranks.is_home());
    !shared.executor.is_serial() && ranks.deal(shared, chosen.unwrap_or(ranks.rank()), need).is_some()
}

/// How many cpus jobs can have, and where; jobs with GPUs, if so said.
fn room(shared: &Shared, has_gpus: bool) -> String {
    let hosts = &shared.launching.hosts;
    let here = hosts.is_here.then(|| format!("{} here", shared.totals.cpus));
    let others = hosts.others.iter().map(|(name, cpus)| format!("{cpus} on {name}"));
    let all: Vec<String> = here.into_iter().chain(others).collect();
    match &shared.ranks {
        _ if all.is_empty() => "none for jobs".to_string(),
        Some(ranks) if ranks.size() > 1 && has_gpus => {
            format!("{} of this rank, with which jobs stay that ask for gpus", shared.totals.cpus)
        }
        Some(ranks) if ranks.size() > 1 => {
            let others = ranks.cpus_of_others(shared);
            format!("{} of this rank, {} of {} others", shared.totals.cpus, others, ranks.live().len() - 1)
        }
        _ => all.join(", "),
    }
}

/// Processes that could not start. Of submitted ones (`later`) an earlier submission may still make what is missing, so
/// only what will never be there counts.
pub(crate) fn processes(
    shared: &Shared,
    tasks: impl Iterator<Item = Ref> + Clone,
    later: bool,
    mistakes: &mut Vec<Mistake>,
) {
    let mut programs: HashMap<&Path, Option<BadProgram>> = HashMap::new();
    let mut missing: Vec<(Ref, PathBuf, String)> = Vec::new();
    let mut has_jobs = false;
    for task in tasks.clone().filter(|t| t.head().code.command.is_some()) {
        let command = task.command_of();
        if let Some(place) = nul(command) {
            mistakes.push(Mistake::Nul { name: task.name(), place });
            continue;
        }
        if command.job.is_some()
            && !std::mem::replace(&mut has_jobs, true)
            && let Err(bad) = shared.launching.check(&shared.env, &shared.cwd)
        {
            mistakes.push(Mistake::BadProgram { name: task.name(), what: bad.to_string() });
        }
        let more = command.job.iter().flat_map(|job| &job.more);
        let more = more.map(|executable| (&executable.program, &executable.cwd));
        for (name, cwd) in [(&command.program, &command.cwd)].into_iter().chain(more) {
            let find = || program::find(name, &shared.cwd, program::path_of(&shared.env)).err();
            let wrong = programs.entry(name).or_insert_with(find);
            if let Some(wrong) = wrong.as_ref().filter(|w| !later || matches!(w, BadProgram::NotInPath(_))) {
                missing.push((task, shared.cwd.join(name), wrong.to_string()));
            }
            if let Some(cwd) = cwd.as_ref().filter(|_| !later) {
                let cwd = shared.cwd.join(cwd);
                if !cwd.is_dir() {
                    let what = if cwd.exists() { "is no directory" } else { "is not there" };
                    let what = format!("its working directory {} {what}", cwd.display());
                    missing.push((task, cwd, what));
                }
            }
        }
    }
    if missing.is_empty() {
        return;
    }
    // What a task of the list makes need not be there yet.
    let made = written(shared, tasks);
    for (task, path, what) in missing {
        let mut buffer = Vec::new();
        let path = crate::data::path::normal(&path, &mut buffer).unwrap_or_default().to_vec();
        let is_made = |made: &PathBuf| Path::new(std::ffi::OsStr::from_bytes(&path)).starts_with(made);
        if !made.iter().any(is_made) {
            mistakes.push(Mistake::BadProgram { name: task.name(), what });
        }
    }
}

/// Files and directories that tasks of the list write.
fn written(shared: &Shared, tasks: impl Iterator<Item = Ref>) -> Vec<PathBuf> {
    let writes = tasks.flat_map(|t| t.accesses().iter().copied().filter(|a| a.writes()).map(Access::datum));
    writes.filter_map(|datum| shared.space.path_of(datum)).collect()
}

/// Where a process is given a NUL byte.
fn nul(command: &Command) -> Option<String> {
    let has = |bytes: &[u8]| bytes.contains(&0);
    let in_word = |word: &Word| matches!(&word.0, Kind::Text(text) if has(text.as_bytes()));
    if has(command.program.as_os_str().as_bytes()) {
        return Some("the name of its program".to_string());
    }
    if command.job.as_ref().is_some_and(|job| {
        job.words().any(in_word) || job.launcher_args.iter().any(|arg| has(arg.as_bytes()))
    }) {
        return Some("an argument of its job".to_string());
    }
    if let Some(i) = command.args.iter().position(in_word) {
        return Some(format!("argument {}", i + 1));
    }
    if let Some((name, _)) = command.env.iter().find(|(_, word)| word.as_ref().is_some_and(in_word)) {
        return Some(format!("the variable {}", name.to_string_lossy()));
    }
    let cwd = command.cwd.as_ref().is_some_and(|cwd| has(cwd.as_os_str().as_bytes()));
    cwd.then(|| "its working directory".to_string())
}
