//! From a job task to what its leader is asked for: where its ranks are is decided, so words for the launcher, CPUs to
//! bind to, and what each rank runs can be written down.

use super::process::{Place, could_not_start, written};
use crate::error::Cause;
use crate::launch::{Asked, line};
use crate::ranks::Far;
use crate::schedule::{DeviceId, Need, UNITS};
use crate::shared::Shared;
use crate::task::Command;
use crate::task::command::Variables;
use crate::task::job::JobSpec;
use crate::task::words::Word;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_supervisor::job::{Cpus, Devices, Executable, Ids, Order};

/// A host by name, this machine without one, and the ranks or cpus there.
pub(super) type OnHost<T> = (Option<String>, T);

/// CPUs of hosts to which nobody is bound: of this machine by their numbers, of others by their places among those that
/// are granted there.
#[derive(Default)]
pub(super) struct FreeCpus(HashMap<Option<String>, BTreeSet<u32>>);

impl FreeCpus {
    /// A host has these, if it is not known yet.
    pub(super) fn learn(&mut self, host: Option<&str>, cpus: impl IntoIterator<Item = u32>) {
        self.0.entry(host.map(str::to_string)).or_insert_with(|| cpus.into_iter().collect());
    }

    /// Takes so many of each of these hosts; where too few are left none, and who runs there is not bound.
    pub(super) fn take(&mut self, wanted: &[OnHost<u32>]) -> Vec<OnHost<Vec<u32>>> {
        let mut taken = Vec::new();
        for (host, cpus) in wanted {
            let Some(free) = self.0.get_mut(host).filter(|free| free.len() >= *cpus as usize) else {
                continue;
            };
            let some: Vec<u32> = free.iter().take(*cpus as usize).copied().collect();
            free.retain(|cpu| !some.contains(cpu));
            taken.push((host.clone(), some));
        }
        taken
    }

    pub(super) fn give(&mut self, bound: Vec<OnHost<Vec<u32>>>) {
        for (host, cpus) in bound {
            self.0.entry(host).or_default().extend(cpus);
        }
    }
}

/// Where a job is, and what it is bound to.
pub(super) struct Dealt<'a> {
    pub(super) placed: &'a [OnHost<u32>],
    pub(super) bound: &'a [OnHost<Vec<u32>>],
    /// What other ranks of this program hold for it.
    pub(super) far: &'a [Far],
    pub(super) devices: Vec<Devices>,
    pub(super) need: &'a Need,
}

impl Dealt<'_> {
    /// Hosts in the order of ranks, each once.
    fn hosts(&self) -> Vec<OnHost<u32>> {
        let mut hosts = self.placed.to_vec();
        for far in self.far {
            match hosts.iter_mut().find(|(host, _)| *host == far.host) {
                Some((_, ranks)) => *ranks += far.ranks,
                None => hosts.push((far.host.clone(), far.ranks)),
            }
        }
        hosts
    }

    fn cpus(&self) -> Vec<Cpus> {
        let of = |host: &Option<String>, ids: &[u32], are_places| Cpus {
            host: host.clone().unwrap_or_default(),
            per_rank: self.need.cpus,
            ids: ids.to_vec(),
            are_places,
        };
        let mut all: Vec<Cpus> = self.bound.iter().map(|(host, ids)| of(host, ids, host.is_some())).collect();
        for far in self.far.iter().filter(|far| !far.cpus.is_empty()) {
            match all.iter_mut().find(|cpus| cpus.host == far.host.as_deref().unwrap_or_default()) {
                Some(cpus) => cpus.ids.extend(&far.cpus),
                None => all.push(of(&far.host, &far.cpus, false)),
            }
        }
        all
    }
}

/// The GPUs of a job's ranks.
pub(super) fn devices(shared: &Shared, gpus: &[OnHost<Vec<DeviceId>>], need: &Need) -> Vec<Devices> {
    let per_rank = ((need.gpus as f64 / UNITS) as u32).max(1);
    let of = |(host, ids): &OnHost<Vec<DeviceId>>| Devices {
        host: host.clone().unwrap_or_default(),
        per_rank,
        ids: match host {
            Some(_) => Ids::Places(ids.iter().map(|id| id.0).collect()),
            None => {
                let pair = |gpu: &crate::machine::Gpu| (gpu.name.clone(), gpu.mark.clone());
                Ids::Named(shared.gpus.of(ids).map(pair).collect())
            }
        },
    };
    gpus.iter().map(of).collect()
}

impl Place {
    /// Writes down what the leader of a job is to do; its program and arguments.
    pub(super) fn order(
        &mut self,
        command: &Command,
        spec: &JobSpec,
        dealt: Dealt<'_>,
        stdin: Option<PathBuf>,
        grace: Duration,
        folder: &Path,
    ) -> Result<(PathBuf, Vec<OsString>), Cause> {
        // What an earlier attempt has left.
        let _ = std::fs::remove_dir_all(folder);
        let guard = Order::guard().map_err(|e| could_not_start("this program again,", PathBuf::new(), e))?;
        let mut executables = vec![self.executable(
            spec.ranks,
            &command.program,
            &command.args,
            &command.env,
            command.cwd.as_deref(),
        )?];
        for more in &spec.more {
            let (program, cwd) = (&more.program, more.cwd.as_deref());
            executables.push(self.executable(more.ranks, program, &more.args, &more.env, cwd)?);
        }
        let hosts = &self.launching.hosts;
        let name = |host: &Option<String>| host.clone().unwrap_or_else(|| hosts.here.clone());
        let dealt_hosts = dealt.hosts();
        let placed: Vec<(String, u32)> =
            dealt_hosts.iter().map(|(host, ranks)| (name(host), *ranks)).collect();
        let launcher = self.launching.launcher(&self.env, &self.cwd);
        let launcher = launcher.map_err(|bad| Cause::Error(Box::new(bad.clone())))?;
        let counts: Vec<u32> = executables.iter().map(|executable| executable.ranks).collect();
        let line = line(
            launcher,
            &Asked {
                hosts: &placed,
                is_local: dealt_hosts.iter().all(|(host, _)| host.is_none()),
                executables: &counts,
                cpus: dealt.need.cpus.max(1),
                holds_gpus: !dealt.devices.is_empty(),
                gpus_of_node: hosts.gpus_of_node,
                more: &spec.launcher_args,
                guard: &guard,
                variable: Order::variable(),
                file: folder.join("hosts").into(),
                session: self.session(command, folder),
            },
        );
        // The launcher hears what the user sets for the ranks, its own settings among it.
        let mut launcher_env = executables[0].env.clone();
        launcher_env.extend(line.env);
        let order = Order {
            launcher: line.words,
            launcher_env,
            rank_variable: line.rank_variable.to_string(),
            launcher_variables: line.variables,
            executables,
            accept: command.accept.clone(),
            stdin: stdin.map(Into::into),
            grace,
            hosts: dealt_hosts.iter().filter_map(|(host, _)| host.clone()).collect(),
            cpus: dealt.cpus(),
            devices: dealt.devices,
        };
        let wrote = order.write(folder).and_then(|()| match &line.file {
            Some((path, text)) => std::fs::write(path, text),
            None => Ok(()),
        });
        wrote.map_err(|e| could_not_start("the job's folder", folder.to_path_buf(), e))?;
        Ok(Order::leader(folder))
    }

    /// Where the launcher may have a folder of its own, if the user has not said where; paths of its sockets may not be
    /// long.
    fn session(&self, command: &Command, folder: &Path) -> Option<OsString> {
        const PATH_BYTES_MAX: usize = 90;
        let names = self.env.iter().map(|(name, _)| name).chain(command.env.iter().map(|(name, _)| name));
        let is_chosen = names.into_iter().any(|name| name.to_string_lossy().contains("tmpdir_base"));
        let session = folder.join("session").into_os_string();
        (!is_chosen && session.len() <= PATH_BYTES_MAX).then_some(session)
    }

    fn executable(
        &mut self,
        ranks: u32,
        program: &Path,
        args: &[Word],
        env: &Variables,
        cwd: Option<&Path>,
    ) -> Result<Executable, Cause> {
        let mut words = vec![program.as_os_str().to_os_string()];
        for word in args {
            words.push(written(word)?);
        }
        Ok(Executable {
            ranks,
            program: self.program(program).into(),
            args: words,
            env: changes(env)?,
            cwd: cwd.map_or(self.cwd.clone(), |cwd| self.cwd.join(cwd)).into(),
        })
    }
}

pub(super) fn changes(env: &Variables) -> Result<Vec<(OsString, Option<OsString>)>, Cause> {
    let change =
        |(name, word): &(OsString, Option<Word>)| Ok((name.clone(), word.as_ref().map(written).transpose()?));
    env.iter().map(change).collect()
}
