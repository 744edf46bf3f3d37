//! The leader of a job: starts the launcher, tells guards what to run, takes what ranks write, and decides when the job
//! is over.
//!
//! A rank: awaited (its guard has not come) → runs → ended. The job *ends* from the first failure on, or when the
//! leader is asked to (TERM): those that run are told to end, those that come later are sent away. It is over when the
//! launcher has ended and no guard is connected.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use super::VARIABLE;
use super::channel::{Channel, FromGuard, FromLeader, Start};
use super::devices::{Devices, Ids};
use super::listening::Listening;
use super::order::{Cpus, Order};
use super::outputs::{Outputs, Stream};
use super::table::{RankEnd, Table, Trouble};
use crate::serve::reap;
use crate::serve::setup;
use crate::serve::spawn::{Launch, Spawner};

/// Bytes of input sent at once.
const INPUT_BYTES: usize = 64 << 10;
/// How long the launcher may take when all its ranks have ended, before TERM.
const LAUNCHER_MAX: Duration = Duration::from_secs(30);
/// The same if ranks that it was to start have not come and are not wanted any more.
const UNWANTED_MAX: Duration = Duration::from_millis(500);
/// How long it may take after TERM, before KILL.
const LAUNCHER_GRACE: Duration = Duration::from_secs(5);
/// How long guards may take when they were told to end, beyond the grace.
const GUARDS_MAX: Duration = Duration::from_secs(15);
/// How often clocks are looked at while the job ends.
const PAUSE: Duration = Duration::from_millis(50);
/// With more ranks than this the limit of descriptors is raised, which the launcher inherits.
const FEW_RANKS: u32 = 256;

/// Runs the job in this folder. Returns the exit code: 0 if every rank and the launcher have succeeded.
pub(crate) fn run(folder: &Path) -> i32 {
    let Ok(order) = Order::read(folder) else { return 1 };
    let mut leader = match Leader::start(order, folder) {
        Ok(leader) => leader,
        Err(trouble) => {
            let table = Table { trouble: Some(trouble), ..Table::default() };
            // A table that is not there says that the leader has failed, too.
            let _ = table.write(folder);
            return 1;
        }
    };
    leader.serve();
    leader.finish();
    let is_written = leader.table.write(folder).is_ok();
    i32::from(!(is_written && leader.has_succeeded()))
}

/// A rank's stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Awaited,
    Runs,
    Ended,
}

/// A connection, and the rank at its other end once that has said so.
struct Peer {
    channel: Channel,
    rank: Option<u32>,
}

struct Leader {
    order: Order,
    listening: Listening,
    children: OwnedFd,
    launcher: Option<u32>,
    peers: Vec<Peer>,
    stages: Vec<Stage>,
    table: Table,
    outputs: Outputs,
    input: Option<File>,
    cpus: Vec<Cpus>,
    /// The GPUs that no rank has taken yet.
    devices: Vec<Devices>,
    host: String,
    env: Vec<(OsString, OsString)>,
    /// Since when the job ends.
    ends: Option<Instant>,
    /// Since when nothing is left for the launcher to do, and when it was asked to end.
    idle: Option<Instant>,
    asked: Option<Instant>,
}

impl Leader {
    fn start(order: Order, folder: &Path) -> Result<Leader, Trouble> {
        let listen = |error: io::Error| Trouble::Listen(error.to_string());
        let children = setup::become_parent(true).map_err(listen)?;
        let ranks = order.ranks();
        if ranks > FEW_RANKS {
            let limit = getrlimit(Resource::Nofile);
            // With fewer descriptors than ranks some connections fail, and say so.
            let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
        }
        let listening = Listening::new(&order.hosts).map_err(listen)?;
        let input = order.stdin.as_ref().map(File::open).transpose();
        let input = input.map_err(|error| Trouble::Launcher(format!("its input: {error}")))?;
        let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let word = listening.text(&order.rank_variable).map_err(listen)?;
        let launcher = launch(&order, &env, &word, folder).map_err(Trouble::Launcher)?;
        let of_rank = |rank| RankEnd {
            executable: order.executable_of(rank).unwrap_or(0) as u32,
            ..RankEnd::default()
        };
        Ok(Leader {
            table: Table { ranks: (0..ranks).map(of_rank).collect(), ..Table::default() },
            stages: vec![Stage::Awaited; ranks as usize],
            outputs: Outputs::new(folder.to_path_buf(), ranks),
            cpus: order.cpus.clone(),
            devices: order.devices.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            launcher: Some(launcher),
            peers: Vec::new(),
            order,
            listening,
            children,
            input,
            env,
            ends: None,
            idle: None,
            asked: None,
        })
    }

    fn serve(&mut self) {
        while self.launcher.is_some() || self.peers.iter().any(|peer| peer.rank.is_some()) {
            self.sleep();
            if setup::drain(&self.children) {
                self.end();
            }
            while let Some((pid, exit)) = reap::next() {
                if self.launcher == Some(pid) {
                    self.launcher = None;
                    self.table.launcher = Some(exit.status.into_raw());
                    self.end();
                }
            }
            self.accept();
            for at in 0..self.peers.len() {
                self.hear(at);
            }
            self.peers.retain(|peer| !peer.channel.is_over());
            self.peers.iter_mut().for_each(|peer| peer.channel.flush());
            self.look_at_clocks();
        }
    }

    fn sleep(&self) {
        let mut descriptors = vec![
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.listening.listener, PollFlags::IN),
        ];
        let peers = self.peers.iter();
        descriptors.extend(peers.map(|peer| PollFd::new(&peer.channel, peer.channel.wanted())));
        let has_clock = self.ends.is_some() || self.idle.is_some();
        let limit = has_clock.then(|| Timespec::try_from(PAUSE).expect("it is short"));
        // Whatever it returns, the next round looks at all.
        let _ = poll(&mut descriptors, limit.as_ref());
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listening.listener.accept() {
            let channel = Channel::new(socket);
            self.peers.extend(channel.ok().map(|channel| Peer { channel, rank: None }));
        }
    }

    /// Takes in what a guard has sent.
    fn hear(&mut self, at: usize) {
        let messages = self.peers[at].channel.receive::<FromGuard>();
        let is_broken = messages.is_err();
        for message in messages.unwrap_or_default() {
            match (self.peers[at].rank, message) {
                (None, FromGuard::Hello { secret, rank, host }) if secret == self.listening.secret => {
                    self.greet(at, rank, host);
                }
                // Whoever that is, it is none of ours.
                (None, _) => self.peers[at].channel.break_off(),
                (Some(rank), message) => self.told(at, rank, message),
            }
        }
        if is_broken {
            self.peers[at].channel.break_off();
        }
        if let (true, Some(rank)) = (self.peers[at].channel.is_over(), self.peers[at].rank)
            && self.stages[rank as usize] == Stage::Runs
        {
            self.failed(rank, "the connection to it ended: it was killed, or its machine is gone".into());
        }
    }

    fn greet(&mut self, at: usize, rank: u32, host: String) {
        let is_awaited = self.stages.get(rank as usize) == Some(&Stage::Awaited);
        if !is_awaited || self.ends.is_some() {
            self.peers[at].channel.send(&FromLeader::Bye);
            return;
        }
        self.peers[at].rank = Some(rank);
        self.stages[rank as usize] = Stage::Runs;
        let cpus = self.cpus_for(&host);
        let devices = self.devices_for(&host);
        self.table.ranks[rank as usize].host = host;
        let executable = &self.order.executables[self.table.ranks[rank as usize].executable as usize];
        let start = Start {
            program: executable.program.clone(),
            args: executable.args.clone(),
            env: self.env.clone(),
            launcher_variables: self.order.launcher_variables.clone(),
            changes: executable.env.clone(),
            cwd: executable.cwd.clone(),
            has_input: rank == 0 && self.input.is_some(),
            cpus,
            devices,
            accept: self.order.accept.clone(),
        };
        self.peers[at].channel.send(&FromLeader::Start(Box::new(start)));
    }

    /// The next CPUs of a machine, and whether they are places.
    fn cpus_for(&mut self, host: &str) -> Option<(Vec<u32>, bool)> {
        let cpus = self.cpus.iter_mut().find(|cpus| is_on(&cpus.host, host, &self.host))?;
        let count = cpus.per_rank as usize;
        if count == 0 || cpus.ids.len() < count {
            return None;
        }
        Some((cpus.ids.drain(..count).collect(), cpus.are_places))
    }

    /// The next GPUs of a machine.
    fn devices_for(&mut self, host: &str) -> Option<Ids> {
        let devices = self.devices.iter_mut().find(|devices| is_on(&devices.host, host, &self.host))?;
        devices.ids.take(devices.per_rank as usize)
    }

    fn told(&mut self, at: usize, rank: u32, message: FromGuard) {
        let index = rank as usize;
        match message {
            FromGuard::Hello { .. } => {}
            FromGuard::Started => self.table.ranks[index].started = true,
            FromGuard::Out(bytes) => self.write(rank, Stream::Out, &bytes),
            FromGuard::Err(bytes) => self.write(rank, Stream::Err, &bytes),
            FromGuard::Hungry => {
                let mut bytes = vec![0; INPUT_BYTES];
                let read = self.input.as_mut().map_or(Ok(0), |input| input.read(&mut bytes));
                // What cannot be read ends there, as for a shell's reader.
                bytes.truncate(read.unwrap_or(0));
                self.peers[at].channel.send(&FromLeader::Input(bytes));
            }
            FromGuard::CouldNotStart(why) => {
                if self.ends.is_some() {
                    self.ended(rank);
                    self.table.ranks[index].why = Some(why);
                } else {
                    self.failed(rank, why);
                }
                self.peers[at].channel.send(&FromLeader::Bye);
            }
            FromGuard::Ended { status, max_rss_bytes, user, system } => {
                let was_ended = self.ends.is_some();
                let end = &mut self.table.ranks[index];
                (end.status, end.was_ended, end.max_rss_bytes) = (Some(status), was_ended, max_rss_bytes);
                (end.user, end.system) = (user, system);
                let is_well = end.code().is_some_and(|code| code == 0 || self.order.accept.contains(&code));
                self.ended(rank);
                if !is_well && !was_ended {
                    self.table.failed = Some(rank);
                    self.end();
                }
                self.peers[at].channel.send(&FromLeader::Bye);
            }
        }
    }

    fn write(&mut self, rank: u32, stream: Stream, bytes: &[u8]) {
        if let Err(error) = self.outputs.write(rank, stream, bytes) {
            self.cannot_write(&error);
        }
    }

    fn cannot_write(&mut self, error: &io::Error) {
        self.table.trouble.get_or_insert_with(|| Trouble::Output(error.to_string()));
        self.end();
    }

    /// A rank runs no more.
    fn ended(&mut self, rank: u32) {
        self.stages[rank as usize] = Stage::Ended;
        if let Err(error) = self.outputs.finish(rank) {
            self.cannot_write(&error);
        }
    }

    /// A rank has not run to its end.
    fn failed(&mut self, rank: u32, why: String) {
        let end = &mut self.table.ranks[rank as usize];
        (end.why, end.was_ended) = (Some(why), self.ends.is_some());
        self.ended(rank);
        if self.ends.is_none() {
            self.table.failed = Some(rank);
        }
        self.end();
    }

    /// The job is to end, from now on.
    fn end(&mut self) {
        if self.ends.is_some() {
            return;
        }
        self.ends = Some(Instant::now());
        let grace = self.order.grace;
        for peer in self.peers.iter_mut().filter(|peer| peer.rank.is_some()) {
            peer.channel.send(&FromLeader::End(grace));
        }
    }

    fn look_at_clocks(&mut self) {
        let now = Instant::now();
        let Some(launcher) = self.launcher else {
            // Its guards are left: they end what runs, and go.
            if self.ends.is_some_and(|since| now > since + self.order.grace + GUARDS_MAX) {
                self.peers.clear();
            }
            return;
        };
        let runs = self.stages.contains(&Stage::Runs);
        let awaits = self.stages.contains(&Stage::Awaited);
        if runs || awaits && self.ends.is_none() {
            self.idle = None;
            return;
        }
        let idle = *self.idle.get_or_insert(now);
        let patience = if awaits { UNWANTED_MAX } else { LAUNCHER_MAX };
        let Some(pid) = Pid::from_raw(launcher.cast_signed()) else { return };
        // It is our child, and was not reaped, so that the number is its own.
        match self.asked {
            None if now > idle + patience => {
                if !awaits {
                    self.table.trouble.get_or_insert(Trouble::Hangs);
                }
                let _ = kill_process(pid, Signal::TERM);
                self.asked = Some(now);
            }
            Some(asked) if now > asked + LAUNCHER_GRACE => {
                let _ = kill_process(pid, Signal::KILL);
            }
            _ => {}
        }
    }

    /// Says what became of ranks of which nothing was heard.
    fn finish(&mut self) {
        for (end, stage) in self.table.ranks.iter_mut().zip(&self.stages) {
            match stage {
                Stage::Awaited => end.why = Some("the launcher has not started it".into()),
                Stage::Runs => end.why = Some("it did not end when it was told to".into()),
                Stage::Ended => {}
            }
        }
    }

    fn has_succeeded(&self) -> bool {
        let is_well =
            |end: &RankEnd| end.code().is_some_and(|code| code == 0 || self.order.accept.contains(&code));
        let launcher = self.table.launcher.map(ExitStatus::from_raw);
        self.table.trouble.is_none()
            && self.table.ranks.iter().all(is_well)
            && launcher.is_some_and(|status| status.success())
    }
}

/// Whether what is for the machine of this name, or for the leader's if it has none, is for this host.
fn is_on(name: &str, host: &str, leaders: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    short(if name.is_empty() { leaders } else { name }) == short(host)
}

/// Starts the launcher; returns its pid, or why there is none.
fn launch(order: &Order, env: &[(OsString, OsString)], word: &str, folder: &Path) -> Result<u32, String> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| "a zero byte in a word".to_owned());
    let words = order.launcher.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;
    let program = words.first().ok_or("no launcher was named")?;
    let is_changed = |name: &OsStr| order.launcher_env.iter().any(|(changed, _)| changed == name);
    let entry = |name: &OsStr, value: &OsStr| {
        text(&OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat()))
    };
    let kept = env.iter().filter(|(name, _)| !is_changed(name)).map(|(name, value)| entry(name, value));
    let set = order.launcher_env.iter().filter_map(|(name, value)| Some(entry(name, value.as_ref()?)));
    let word = [entry(VARIABLE.as_ref(), word.as_ref())];
    let entries = kept.chain(set).chain(word).collect::<Result<Vec<_>, _>>()?;
    let open = |path: PathBuf, flags: OFlags| {
        let file = openat(CWD, &path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o666));
        file.map_err(|error| format!("{}: {error}", path.display()))
    };
    let written = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    let output = open(folder.join("launcher"), written)?;
    let null = open("/dev/null".into(), OFlags::RDONLY)?;
    let launch = Launch {
        program,
        args: &words.iter().map(CString::as_c_str).collect::<Vec<_>>(),
        env: &entries.iter().map(CString::as_c_str).collect::<Vec<_>>(),
        cwd: None,
        stdin: Some(null.as_fd()),
        stdout: output.as_fd(),
        stderr: None,
    };
    Spawner::in_our_group()
        .spawn(&launch)
        .map_err(|errno| format!("{}: {}", program.to_string_lossy(), io::Error::from_raw_os_error(errno)))
}
