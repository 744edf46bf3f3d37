//! From a process task to what the supervisor is asked for: resolves the program, writes arguments, opens the run
//! directory, binds cpus.

use super::job::Job;
use super::launch::{Dealt, FreeCpus, OnHost, changes, devices};
use super::office::Office;
use crate::error::{Cause, How, ProcessFailure};
use crate::events;
use crate::launch::Launching;
use crate::outputs::{Outputs, Which};
use crate::program;
use crate::ranks::Far;
use crate::schedule::{DeviceId, InstanceId, JobId, Need};
use crate::shared::Shared;
use crate::task::Usage;
use crate::task::output::Output as Kept;
use crate::task::words::{Feed, Kind, Word};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tarragon_supervisor::{Input, Output, Request, Spawn, Supervisor, Why};

/// From TERM to KILL, if a task does not say.
const GRACE: Duration = Duration::from_secs(2);
/// What the leader of a job gets beyond it.
const LEADER_GRACE: Duration = Duration::from_secs(3);

/// What became of a start.
pub(super) enum Started {
    /// The supervisor will tell.
    Sent,
    Failed(Cause),
}

/// What processes of one batch have in common.
pub(super) struct Place {
    outputs: Arc<Outputs>,
    /// The environment and the directory of this program when the batch was built.
    pub(super) env: Arc<Vec<(OsString, OsString)>>,
    pub(super) cwd: PathBuf,
    pub(super) launching: Arc<Launching>,
    binds: bool,
    /// Locked by the supervisor until no process of the batch writes any more.
    lock: Option<PathBuf>,
    /// The supervisor knows the environment and the lock.
    is_known: bool,
    /// Where programs were found.
    programs: HashMap<PathBuf, PathBuf>,
}

/// A process on its way to the supervisor.
struct Prepared {
    id: JobId,
    instance: InstanceId,
    hold: u32,
    stands: bool,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    cwd: PathBuf,
    stdin: Option<PathBuf>,
    stdout: PathBuf,
    stderr: PathBuf,
    timeout: Option<Duration>,
    grace: Duration,
    affinity: Option<Vec<u32>>,
    memory: Option<u64>,
}

/// What a process holds.
pub(super) struct Granted<'a> {
    /// What it may take over from another, or another from it.
    pub(super) hold: u32,
    pub(super) need: &'a Need,
    /// Of a job where its ranks are.
    pub(super) placed: &'a [OnHost<u32>],
    /// Of a job what other ranks hold for it.
    pub(super) far: &'a [Far],
    /// Its GPUs.
    pub(super) gpus: &'a [OnHost<Vec<DeviceId>>],
    /// It starts when another of its hold ends.
    pub(super) stands: bool,
}

/// When a process began, and on which lane.
#[derive(Clone, Copy, Default)]
pub(super) struct Began {
    pub(super) at_ns: u64,
    pub(super) lane: u32,
}

#[derive(Default)]
pub(super) struct Processes {
    pub(super) supervisor: Option<Arc<Supervisor>>,
    places: HashMap<InstanceId, Place>,
    to_send: Vec<Prepared>,
    kills: Vec<(JobId, Duration)>,
    pub(super) began: HashMap<JobId, Began>,
    free_cpus: FreeCpus,
    bound: HashMap<JobId, Vec<OnHost<Vec<u32>>>>,
}

impl Processes {
    pub(super) fn open(&mut self, id: InstanceId, shared: &Shared) {
        let place = Place {
            outputs: Arc::clone(&shared.outputs),
            env: Arc::clone(&shared.env),
            cwd: shared.cwd.clone(),
            launching: Arc::clone(&shared.launching),
            binds: shared.binds,
            lock: shared.lock.clone(),
            is_known: false,
            programs: HashMap::new(),
        };
        self.free_cpus.learn(None, shared.machine_cpus());
        for (host, cpus) in &shared.launching.hosts.others {
            self.free_cpus.learn(Some(host), 0..*cpus);
        }
        self.places.insert(id, place);
    }

    pub(super) fn close(&mut self, id: InstanceId) {
        if self.places.remove(&id).is_some_and(|place| place.is_known)
            && let Some(supervisor) = &self.supervisor
        {
            let _ = supervisor.send(&[Request::Forget { base: id.0 }]);
        }
    }

    /// Prepares a process; [`send`](Self::send) has it started.
    pub(super) fn start(
        &mut self,
        id: JobId,
        job: &mut Job,
        granted: &Granted<'_>,
        office: &Office,
    ) -> Started {
        let Granted { need, placed, stands, .. } = *granted;
        if let Err(error) = self.supervised(office) {
            let program = job.task.command_of().program.clone();
            return Started::Failed(could_not_start("a supervisor for", program, error));
        }
        let place = self.places.get_mut(&job.instance).expect("the batch of a job is open");
        // A process with one cpu may be anywhere, and one that stands takes over what another is bound to.
        let wanted: Vec<OnHost<u32>> = match need.job {
            _ if !place.binds || stands => Vec::new(),
            None if need.cpus > 1 => vec![(None, need.cpus)],
            None => Vec::new(),
            Some(_) => placed.iter().map(|(host, ranks)| (host.clone(), ranks * need.cpus)).collect(),
        };
        let bound = self.free_cpus.take(&wanted);
        let prepared = place.prepare(id, job, granted, &bound);
        self.bound.insert(id, bound);
        match prepared {
            Ok(prepared) => {
                self.to_send.push(prepared);
                Started::Sent
            }
            Err(cause) => Started::Failed(cause),
        }
    }

    /// Starts the supervisor when there is none.
    fn supervised(&mut self, office: &Office) -> io::Result<()> {
        if self.supervisor.is_none() {
            let (supervisor, events) = Supervisor::start().map_err(io::Error::other)?;
            events::supervisor_started();
            self.supervisor = Some(Arc::new(supervisor));
            self.places.values_mut().for_each(|place| place.is_known = false);
            *office.listen_to.lock() = Some(events);
            office.ring();
        }
        Ok(())
    }

    /// Cpus for what a body has others run, until its job is released.
    pub(super) fn bind_body(&mut self, id: JobId, instance: InstanceId, cpus: u32) -> Vec<u32> {
        let binds = self.places.get(&instance).is_some_and(|place| place.binds);
        let bound = if binds { self.free_cpus.take(&[(None, cpus)]) } else { Vec::new() };
        let ids = bound.first().map_or_else(Vec::new, |(_, ids)| ids.clone());
        self.bound.insert(id, bound);
        ids
    }

    /// The cpus that `id` was bound to are free, or another's.
    pub(super) fn unbind(&mut self, id: JobId, heir: Option<JobId>) {
        let Some(bound) = self.bound.remove(&id) else { return };
        match heir {
            Some(heir) => drop(self.bound.insert(heir, bound)),
            None => self.free_cpus.give(bound),
        }
    }

    pub(super) fn began(&mut self, id: JobId, at_ns: u64, lane: u32) {
        self.began.insert(id, Began { at_ns, lane });
    }

    /// Ends the tree of a process.
    pub(super) fn kill(&mut self, id: JobId, job: &Job) {
        let mut grace = job.task.extra().and_then(|e| e.limits.grace).unwrap_or(GRACE);
        if job.is_mpi() {
            grace += LEADER_GRACE;
        }
        self.kills.push((id, grace));
    }

    /// Tells the supervisor all that was decided, in one write.
    pub(super) fn send(&mut self, _office: &Office) {
        if self.to_send.is_empty() && self.kills.is_empty() {
            return;
        }
        let prepared = std::mem::take(&mut self.to_send);
        let kills = std::mem::take(&mut self.kills);
        let Some(supervisor) = &self.supervisor else { return };
        for prepared in &prepared {
            let place = self.places.get_mut(&prepared.instance).expect("the batch of a job is open");
            if !place.is_known {
                place.is_known = true;
                // If the supervisor is gone its events end, and those under way are told so.
                let _ = supervisor.environment(prepared.instance.0, place.env.iter().cloned());
                if let Some(path) = &place.lock {
                    let _ = supervisor.send(&[Request::Lock { path }]);
                }
            }
        }
        let starts = prepared.iter().map(Prepared::request);
        let kills =
            kills.iter().map(|(id, grace)| Request::Kill { id: id.0, grace: *grace, why: Why::Cancelled });
        let requests: Vec<Request<'_>> = starts.chain(kills).collect();
        let _ = supervisor.send(&requests);
    }

    /// The supervisor is gone: its trees go, too.
    pub(super) fn lost(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.kill_all_known();
        }
    }
}

impl Prepared {
    fn request(&self) -> Request<'_> {
        let spawn = Spawn {
            id: self.id.0,
            hold: self.hold,
            program: &self.program,
            args: &self.args,
            base: self.instance.0,
            env: &self.env,
            cwd: Some(&self.cwd),
            stdin: self.stdin.as_deref().map_or(Input::Null, Input::File),
            stdout: &self.stdout,
            stderr: Output::File(&self.stderr),
            timeout: self.timeout,
            grace: self.grace,
            affinity: self.affinity.as_deref(),
            memory_bytes: self.memory,
        };
        if self.stands { Request::Stand(spawn) } else { Request::Start(spawn) }
    }
}

impl Place {
    fn prepare(
        &mut self,
        id: JobId,
        job: &mut Job,
        granted: &Granted<'_>,
        bound: &[OnHost<Vec<u32>>],
    ) -> Result<Prepared, Cause> {
        let Granted { hold, need, stands, placed, far, gpus } = *granted;
        let command = job.task.command_of();
        let number = self.number(job)?;
        let limits = job.task.extra().map(|e| e.limits.clone()).unwrap_or_default();
        let grace = limits.grace.unwrap_or(GRACE);
        let stdin = self.stdin(&command.stdin, number)?;
        let cwd = command.cwd.as_ref().map_or(self.cwd.clone(), |cwd| self.cwd.join(cwd));
        let (program, args, env, stdin, grace, cwd) = match &command.job {
            None => {
                let mut args = vec![command.program.clone().into_os_string()];
                for word in &command.args {
                    args.push(written(word)?);
                }
                let mut env = visible(job.task.shared(), gpus);
                env.extend(changes(&command.env)?);
                (self.program(&command.program), args, env, stdin, grace, cwd)
            }
            Some(spec) => {
                let folder = self.outputs.job(number);
                let devices = devices(job.task.shared(), gpus, need);
                let dealt = Dealt { placed, bound, far, devices, need };
                let (program, args) = self.order(command, spec, dealt, stdin, grace, &folder)?;
                // Ranks are ended by their leader, which is to outlive them.
                (program, args, Vec::new(), None, grace + LEADER_GRACE, self.cwd.clone())
            }
        };
        let affinity = match (&command.job, bound) {
            (None, [(_, cpus)]) => Some(cpus.clone()),
            _ => None,
        };
        Ok(Prepared {
            id,
            instance: job.instance,
            hold,
            stands,
            program,
            args,
            env,
            cwd,
            stdin,
            stdout: self.outputs.file(number, Which::Out),
            stderr: self.outputs.file(number, Which::Err),
            timeout: limits.timeout,
            grace,
            affinity,
            memory: (need.memory > 0).then_some(need.memory),
        })
    }

    /// The number of the job's output files: the same for each attempt.
    fn number(&self, job: &mut Job) -> Result<u64, Cause> {
        if let Some(number) = job.output {
            return Ok(number);
        }
        let number = self.outputs.number();
        let number = number.map_err(|e| could_not_start("the run directory", self.outputs.place(), e))?;
        for (which, file) in [Which::Out, Which::Err].into_iter().zip(&job.task.command_of().files) {
            let Some(file) = file else { continue };
            // What the task writes there goes through a link to the user's file, and is read through it.
            let file = self.cwd.join(file);
            let link = || {
                std::fs::File::create(&file)?;
                std::os::unix::fs::symlink(&file, self.outputs.file(number, which))
            };
            link().map_err(|error| could_not_start("its output file", file.clone(), error))?;
        }
        job.output = Some(number);
        if let Some(cohort) = job.task.cohort() {
            cohort.keep_output(job.task.index(), Kept::files(&self.outputs, number));
        }
        Ok(number)
    }

    pub(super) fn program(&mut self, program: &Path) -> PathBuf {
        if let Some(found) = self.programs.get(program) {
            return found.clone();
        }
        match program::find(program, &self.cwd, program::path_of(&self.env)) {
            Ok(found) => {
                self.programs.insert(program.to_path_buf(), found.clone());
                found
            }
            // The supervisor's attempt says what is wrong with it.
            Err(_) => self.cwd.join(program),
        }
    }

    fn stdin(&self, feed: &Feed, number: u64) -> Result<Option<PathBuf>, Cause> {
        let text = match feed {
            Feed::Nothing => return Ok(None),
            Feed::File(path) => return Ok(Some(self.cwd.join(path))),
            Feed::Word(Word(Kind::Output(input, stream))) => {
                if let Some(path) = stream.path() {
                    return Ok(Some(path));
                }
                input.text(stream)?.into()
            }
            Feed::Word(word) => word.write()?.into_owned(),
        };
        let path = self.outputs.input(number);
        match std::fs::write(&path, text.as_encoded_bytes()) {
            Ok(()) => Ok(Some(path)),
            Err(error) => Err(could_not_start("its input file", path, error)),
        }
    }
}

/// The variable that names the GPUs of a process, if it holds some.
fn visible(shared: &Shared, gpus: &[OnHost<Vec<DeviceId>>]) -> Vec<(OsString, Option<OsString>)> {
    let name = |ids| shared.gpus.of(ids).map(|gpu| &*gpu.name).collect::<Vec<_>>().join(",").into();
    gpus.iter().map(|(_, ids)| (tarragon_supervisor::job::VISIBLE.into(), Some(name(ids)))).collect()
}

/// The process did not come to be, for want of this file or directory.
pub(super) fn could_not_start(what: &'static str, path: PathBuf, error: io::Error) -> Cause {
    let how = How::CouldNotStart { what: what.into(), path, error };
    Cause::Process(Box::new(ProcessFailure { how, tail: String::new(), usage: Usage::default() }))
}

pub(super) fn written(word: &Word) -> Result<OsString, Cause> {
    let text = word.write()?.into_owned();
    if text.as_encoded_bytes().contains(&0) {
        return Err(Cause::Error("an argument has a NUL byte, and processes cannot be given one".into()));
    }
    Ok(text)
}
