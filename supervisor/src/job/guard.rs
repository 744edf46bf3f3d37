//! A guard: runs one rank of a job, and sees that nothing of it is left when it has ended, or is to.
//!
//! | state | what leads out of it |
//! |---|---|
//! | greets | the leader says what to run; or its connection ends: exits |
//! | runs | the program has ended, and nothing that it started is left: told |
//! | runs, and is to end (the leader says so or is gone) | TERM to all that descends from here, after the grace KILL |
//! | told | the leader has heard it: exits, with the program's code for the launcher |
//!
//! The program is in the group of its guard, so that what a launcher sends to the group reaches it as without a guard;
//! the guard itself outlives such signals. A guard that is killed by KILL alone leaves its program to the launcher.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::VARIABLE;
use super::channel::{Channel, FromGuard, FromLeader, Start};
use super::devices::VISIBLE;
use super::listening::Leader;
use crate::proc::{Process, Scan};
use crate::serve::reap::{self, Exit};
use crate::serve::setup;
use crate::serve::spawn::{Launch, Spawner};

/// How long what a program leaves may take between TERM and KILL, and all of it when the leader is gone.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(1);
/// How long processes are sent KILL before they count as unkillable.
const KILLING: Duration = Duration::from_secs(5);
/// The pause between looks at what is to end.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// While so many bytes wait to be sent no more output is read.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Bytes of output read at once.
const OUTPUT_BYTES: usize = 64 << 10;
/// How long a leader may take to hear of the end.
const HEARING_MAX: Duration = Duration::from_secs(60);
/// The exit code when there is no leader.
const NO_LEADER: i32 = 125;

/// Runs a rank, if the environment says for which leader. Returns the exit code.
pub(crate) fn run() -> Option<i32> {
    let text = std::env::var_os(VARIABLE)?;
    let Some(leader) = text.to_str().and_then(Leader::parse) else {
        return Some(complain(&format!("${VARIABLE} is damaged")));
    };
    let rank = std::env::var(&leader.rank_variable).ok().and_then(|rank| rank.parse().ok());
    let Some(rank) = rank else {
        return Some(complain(&format!(
            "the launcher has not told this rank's number: no ${}",
            leader.rank_variable
        )));
    };
    let ran = setup::become_parent(false).map_err(|error| error.to_string()).and_then(|children| {
        let socket = leader.connect().map_err(|why| format!("cannot reach the job's leader: {why}"))?;
        let channel = Channel::new(socket).map_err(|error| error.to_string())?;
        let mut guard = Guard::new(channel, children);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        guard.channel.send(&FromGuard::Hello { secret: leader.secret, rank, host });
        Ok(guard.serve())
    });
    Some(ran.unwrap_or_else(|why| complain(&format!("rank {rank}: {why}"))))
}

/// The launcher passes it on, and the job's error shows it.
fn complain(why: &str) -> i32 {
    let text = format!("tarragon: {why}\n");
    // There is nobody else to tell.
    let _ = rustix::io::write(io::stderr().as_fd(), text.as_bytes());
    NO_LEADER
}

struct Guard {
    channel: Channel,
    children: OwnedFd,
    /// The program, until it has ended.
    program: Option<u32>,
    exit: Option<Exit>,
    outputs: [Option<OwnedFd>; 2],
    input: Option<Input>,
    ending: Option<Ending>,
    accept: Vec<i32>,
    /// When the end was told, with the launcher's exit code.
    told: Option<(Instant, i32)>,
    /// The leader has heard all, or there is none.
    is_done: bool,
}

/// What the program reads.
struct Input {
    pipe: OwnedFd,
    bytes: VecDeque<u8>,
    is_all: bool,
}

/// How far the ending of what runs is.
struct Ending {
    kill_at: Instant,
    asked: bool,
}

impl Guard {
    fn new(channel: Channel, children: OwnedFd) -> Guard {
        Guard {
            channel,
            children,
            program: None,
            exit: None,
            outputs: [None, None],
            input: None,
            ending: None,
            accept: Vec::new(),
            told: None,
            is_done: false,
        }
    }

    /// Goes round until all is told, and nothing runs. Returns the exit code.
    fn serve(&mut self) -> i32 {
        while !self.is_done {
            self.sleep();
            setup::drain(&self.children);
            while let Some((pid, exit)) = reap::next() {
                if self.program == Some(pid) {
                    (self.program, self.exit) = (None, Some(exit));
                    self.input = None;
                }
            }
            self.listen();
            self.feed();
            self.read_outputs();
            self.look();
            self.channel.flush();
        }
        self.told.map_or(NO_LEADER, |(_, code)| code)
    }

    fn sleep(&self) {
        let reads_output = self.channel.waiting() < WAITING_BYTES_MAX;
        let mut descriptors = vec![PollFd::new(&self.children, PollFlags::IN)];
        if !self.channel.is_over() {
            descriptors.push(PollFd::new(&self.channel, self.channel.wanted()));
        }
        if reads_output {
            descriptors.extend(self.outputs.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        }
        if let Some(input) = self.input.as_ref().filter(|input| !input.bytes.is_empty()) {
            descriptors.push(PollFd::new(&input.pipe, PollFlags::OUT));
        }
        let limit = match (&self.ending, self.told) {
            _ if self.exit.is_some() && self.told.is_none() => Some(LOOK_PAUSE),
            (Some(_), None) => Some(LOOK_PAUSE),
            (_, Some(_)) => Some(Duration::from_secs(1)),
            _ => None,
        };
        let limit = limit.map(|limit| Timespec::try_from(limit).expect("it is short"));
        // Whatever it returns, the next round looks at all.
        let _ = poll(&mut descriptors, limit.as_ref());
    }

    fn listen(&mut self) {
        if self.channel.is_over() {
            return;
        }
        // A broken leader is as good as none.
        let messages = self.channel.receive().unwrap_or_else(|_| vec![FromLeader::End(LEFTOVERS_GRACE)]);
        for message in messages {
            match message {
                FromLeader::Start(start) => self.start(&start),
                FromLeader::Input(bytes) => {
                    if let Some(input) = &mut self.input {
                        input.is_all |= bytes.is_empty();
                        input.bytes.extend(bytes);
                    }
                }
                FromLeader::End(grace) => self.end(grace),
                FromLeader::Bye => self.is_done = true,
            }
        }
        if self.channel.is_over() && !self.is_done {
            self.end(LEFTOVERS_GRACE);
            self.is_done = !self.runs();
        }
    }

    fn runs(&self) -> bool {
        self.program.is_some() || self.exit.is_some() && self.told.is_none()
    }

    fn end(&mut self, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.ending {
            Some(ending) => ending.kill_at = ending.kill_at.min(kill_at),
            None => self.ending = Some(Ending { kill_at, asked: false }),
        }
    }

    fn start(&mut self, start: &Start) {
        self.accept.clone_from(&start.accept);
        match self.try_start(start) {
            Ok(pid) => {
                self.program = Some(pid);
                self.channel.send(&FromGuard::Started);
            }
            Err(why) => {
                (self.outputs, self.input) = ([None, None], None);
                self.channel.send(&FromGuard::CouldNotStart(why));
                self.told = Some((Instant::now(), NO_LEADER));
            }
        }
    }

    fn try_start(&mut self, start: &Start) -> Result<u32, String> {
        let shown = |path: &OsStr| path.to_string_lossy().into_owned();
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let cwd = openat(CWD, start.cwd.as_os_str(), folder, Mode::empty());
        let cwd = cwd.map_err(|error| format!("its directory {}: {error}", shown(&start.cwd)))?;
        let text =
            |text: &OsString| CString::new(text.as_bytes()).map_err(|_| "a zero byte in a word".to_owned());
        let program = text(&start.program)?;
        let args = start.args.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let gpus = start.devices.as_ref().map(|devices| devices.visible(|name| std::env::var(name).ok()));
        let env = environment(start, gpus.transpose()?, std::env::vars_os());
        let env = env.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let pipe =
            || pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("a pipe for its output: {error}"));
        let (out, err) = (pipe()?, pipe()?);
        let input = if start.has_input { Some(pipe()?) } else { None };
        let null = openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let null = null.map_err(|error| format!("/dev/null: {error}"))?;
        if let Some((cpus, are_places)) = &start.cpus {
            // Where they are not to be had, the rank runs where the launcher wants.
            let _ = bind(cpus, *are_places);
        }
        let launch = Launch {
            program: &program,
            args: &args.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            env: &env.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            cwd: Some(cwd.as_fd()),
            stdin: Some(input.as_ref().map_or(null.as_fd(), |(read, _)| read.as_fd())),
            stdout: out.1.as_fd(),
            stderr: Some(err.1.as_fd()),
        };
        let spawned = Spawner::in_our_group().spawn(&launch);
        let pid = spawned.map_err(|errno| {
            format!("the program {}: {}", shown(&start.program), io::Error::from_raw_os_error(errno))
        })?;
        self.outputs = [Some(without_waiting(out.0)), Some(without_waiting(err.0))];
        self.input = input.map(|(_, pipe)| Input {
            pipe: without_waiting(pipe),
            bytes: VecDeque::new(),
            is_all: false,
        });
        if self.input.is_some() {
            self.channel.send(&FromGuard::Hungry);
        }
        Ok(pid)
    }

    /// Gives the program what it is to read.
    fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        let before = input.bytes.len();
        while !input.bytes.is_empty() {
            match rustix::io::write(&input.pipe, input.bytes.as_slices().0) {
                Ok(count) => drop(input.bytes.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // It does not read any more.
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        if input.bytes.is_empty() {
            if input.is_all {
                self.input = None;
            } else if before > 0 {
                self.channel.send(&FromGuard::Hungry);
            }
        }
    }

    fn read_outputs(&mut self) {
        let mut buffer = [0; OUTPUT_BYTES];
        for which in 0..2 {
            while self.channel.waiting() < WAITING_BYTES_MAX {
                let Some(pipe) = &self.outputs[which] else { break };
                match rustix::io::read(pipe, &mut buffer) {
                    Ok(0) => self.outputs[which] = None,
                    Ok(count) => {
                        let bytes = buffer[..count].to_vec();
                        self.channel.send(&if which == 0 {
                            FromGuard::Out(bytes)
                        } else {
                            FromGuard::Err(bytes)
                        });
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => self.outputs[which] = None,
                }
            }
        }
    }

    /// Looks at what is left, if the program has ended or all is to.
    fn look(&mut self) {
        if let Some((at, _)) = self.told {
            self.is_done |= at.elapsed() > HEARING_MAX || self.channel.is_over();
            return;
        }
        if self.exit.is_none() && self.ending.is_none() {
            return;
        }
        if self.exit.is_some() && self.ending.is_none() {
            self.end(LEFTOVERS_GRACE);
        }
        let left = if reap::has_no_child() {
            Vec::new()
        } else {
            let scan = Scan::take();
            scan.closure(scan.children(std::process::id()))
        };
        let ending = self.ending.as_mut().expect("it was begun just now, or before");
        let now = Instant::now();
        if !left.is_empty() && now < ending.kill_at + KILLING {
            if now >= ending.kill_at || !ending.asked {
                let signal = if now >= ending.kill_at { Signal::KILL } else { Signal::TERM };
                left.iter().for_each(|process| tell(process, signal));
                ending.asked = true;
            }
            return;
        }
        if self.program.is_some() && now < ending.kill_at + KILLING {
            // It has ended since we looked, and the next round hears how.
            return;
        }
        if self.program.take().is_some() {
            self.exit = Some(Exit::unkillable());
        }
        // Nobody writes any more, so that what is in the pipes is all there will be.
        if self.channel.waiting() >= WAITING_BYTES_MAX && !self.channel.is_over() {
            return;
        }
        self.tell_end();
    }

    fn tell_end(&mut self) {
        let Some(exit) = self.exit else {
            self.channel.send(&FromGuard::CouldNotStart("it was to end before it began".into()));
            self.told = Some((Instant::now(), NO_LEADER));
            return;
        };
        if self.outputs.iter().any(Option::is_some) {
            self.read_outputs();
            if self.channel.waiting() >= WAITING_BYTES_MAX && !self.channel.is_over() {
                return;
            }
            self.outputs = [None, None];
        }
        use std::os::unix::process::ExitStatusExt;
        let Exit { status, max_rss_bytes, user, system } = exit;
        self.channel.send(&FromGuard::Ended { status: status.into_raw(), max_rss_bytes, user, system });
        let code = match status.code() {
            Some(code) if self.accept.contains(&code) => 0,
            Some(code) => code,
            None => 128 + status.signal().unwrap_or_default(),
        };
        self.told = Some((Instant::now(), code));
        self.is_done |= self.channel.is_over();
    }
}

/// One that was stopped goes on, to hear that it is to end.
fn tell(process: &Process, signal: Signal) {
    if process.signal(signal) && signal == Signal::TERM {
        process.signal(Signal::CONT);
    }
}

/// Makes this process, and so its child, run on these CPUs.
fn bind(cpus: &[u32], are_places: bool) -> Result<(), Errno> {
    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut set = CpuSet::new();
    for cpu in cpus.iter().map(|cpu| *cpu as usize) {
        let cpu = if are_places { allowed.get(cpu).copied() } else { Some(cpu) };
        set.set(cpu.filter(|cpu| *cpu < CpuSet::MAX_CPU).ok_or(Errno::INVAL)?);
    }
    sched_setaffinity(None, &set)
}

/// What the program gets: the leader's environment, of the launcher's variables those of this process, the GPUs that it
/// is shown, then changes.
fn environment(
    start: &Start,
    shown: Option<String>,
    ours: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<OsString> {
    let is_launchers = |name: &OsStr| {
        start.launcher_variables.iter().any(|begin| name.as_bytes().starts_with(begin.as_bytes()))
    };
    let of_leader = start.env.iter().filter(|(name, _)| !is_launchers(name)).cloned();
    let of_launcher = ours.filter(|(name, _)| is_launchers(name));
    let is_changed = |name: &OsStr| start.changes.iter().any(|(changed, _)| changed == name);
    let kept = of_leader.chain(of_launcher).filter(|(name, _)| !is_changed(name));
    let mut all: Vec<(OsString, OsString)> = kept.collect();
    if let Some(shown) = shown.filter(|_| !is_changed(OsStr::new(VISIBLE))) {
        all.retain(|(name, _)| name != VISIBLE);
        all.push((VISIBLE.into(), shown.into()));
    }
    for (name, value) in &start.changes {
        all.retain(|(other, _)| other != name);
        all.extend(value.clone().map(|value| (name.clone(), value)));
    }
    let joined = all
        .into_iter()
        .map(|(name, value)| OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat()));
    joined.collect()
}

fn without_waiting(pipe: OwnedFd) -> OwnedFd {
    // A descriptor that was just made has flags, and takes this one.
    if let Ok(flags) = fcntl_getfl(&pipe) {
        let _ = fcntl_setfl(&pipe, flags | OFlags::NONBLOCK);
    }
    pipe
}

#[cfg(test)]
mod tests {
    use super::environment;
    use crate::job::channel::Start;
    use std::ffi::OsString;

    #[test]
    fn a_rank_has_the_leaders_environment_with_its_own_launchers_variables_and_changes() {
        let pair = |(name, value): (&str, &str)| (OsString::from(name), OsString::from(value));
        let start = Start {
            program: OsString::new(),
            args: Vec::new(),
            env: [("A", "1"), ("B", "2"), ("PMI_RANK", "9"), ("C", "3")].map(pair).to_vec(),
            launcher_variables: vec!["PMI_".into(), "OMPI_".into()],
            changes: vec![
                ("B".into(), None),
                ("C".into(), Some("4".into())),
                ("OMPI_MCA_x".into(), Some("y".into())),
            ],
            cwd: OsString::new(),
            has_input: false,
            cpus: None,
            devices: None,
            accept: Vec::new(),
        };
        let ours = [("A", "remote"), ("PMI_RANK", "0"), ("HOME", "/root")].map(pair);
        let all = ["A=1", "PMI_RANK=0", "C=4", "OMPI_MCA_x=y"];
        assert_eq!(environment(&start, None, ours.clone().into_iter()), all);
        let with = environment(&start, Some("2,3".to_owned()), ours.into_iter());
        assert_eq!(with, [&all[..2], &["CUDA_VISIBLE_DEVICES=2,3"], &all[2..]].concat());
    }
}
