//! A Slurm: `munged`, `slurmctld` and a `slurmd` for each node, in a folder of their own, ended when the handle goes.
//! Its nodes share the test's machine, its name and its memory, on ports that were free; or each is a machine of
//! [`Hosts`]. They may have GPUs, which are devices by name alone: Slurm grants them, and nothing runs on them.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::hosts::DATA_CARD;
use crate::{Hosts, command, skip};

/// How long the daemons may take to be ready.
const START: Duration = Duration::from_secs(60);

/// The daemons, and the folder of their files.
pub struct Slurm {
    daemons: Vec<Child>,
    folder: tempfile::TempDir,
    nodes: Vec<Node>,
    /// The command that clients and the controller run behind, if it is not on the test's machine.
    login: Vec<OsString>,
    control: Control,
    /// GPUs of each node.
    gpus: u32,
}

struct Node {
    name: String,
    host: String,
    address: String,
    port: u16,
    /// What its daemon runs behind.
    before: Vec<OsString>,
}

/// Where the controller listens.
struct Control {
    host: String,
    address: String,
    port: u16,
}

/// On machines of their own all daemons have these ports.
const CONTROL_PORT: u16 = 6817;
const NODE_PORT: u16 = 6818;

impl Slurm {
    /// Starts it, with two nodes that share the test's machine; an error says what is missing on it.
    ///
    /// # Errors
    /// In words.
    pub fn start() -> Result<Slurm, String> {
        let host = crate::host();
        let host = host.split('.').next().unwrap();
        let listeners = [0; 3].map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let ports = listeners.map(|it| it.local_addr().unwrap().port());
        let node = |number: usize| Node {
            name: format!("n{number}"),
            host: host.to_owned(),
            address: "127.0.0.1".to_owned(),
            port: ports[1 + number],
            before: Vec::new(),
        };
        let control = Control { host: host.to_owned(), address: "127.0.0.1".to_owned(), port: ports[0] };
        Slurm::start_with(vec![node(0), node(1)], control, Vec::new(), 0)
    }

    /// Starts it with a node on each of the machines, and its controller and clients on `login`.
    ///
    /// # Errors
    /// In words.
    pub fn start_on(hosts: &Hosts) -> Result<Slurm, String> {
        Slurm::start_with_gpus(hosts, 0)
    }

    /// As [`start_on`](Slurm::start_on), with so many GPUs on each of the machines.
    ///
    /// # Errors
    /// In words.
    pub fn start_with_gpus(hosts: &Hosts, gpus: u32) -> Result<Slurm, String> {
        let node = |(number, (name, address)): (u32, (String, String))| {
            let before = words(&hosts.command(number, "env"));
            Node { host: name.clone(), name, address, port: NODE_PORT, before }
        };
        let nodes = (0..).zip(hosts.sites()).map(node).collect();
        let control =
            Control { host: "login".to_owned(), address: hosts.login_address(), port: CONTROL_PORT };
        Slurm::start_with(nodes, control, words(&hosts.login("env")), gpus)
    }

    fn start_with(
        nodes: Vec<Node>,
        control: Control,
        login: Vec<OsString>,
        gpus: u32,
    ) -> Result<Slurm, String> {
        crate::expect_programs(&["munged", "slurmctld", "slurmd", "srun"])?;
        let folder = tempfile::tempdir().unwrap();
        let mut slurm = Slurm { daemons: Vec::new(), folder, nodes, login, control, gpus };
        slurm.make_gpus()?;
        slurm.authenticate();
        let file = slurm.path("slurm.conf");
        std::fs::write(&file, slurm.configuration()).unwrap();
        let before = slurm.login.clone();
        slurm.daemon(&before, "slurmctld", &["-D", "-f", &file]);
        for number in 0..slurm.nodes.len() {
            let (name, before) = (slurm.nodes[number].name.clone(), slurm.nodes[number].before.clone());
            std::fs::create_dir_all(slurm.path(&format!("tmp-{name}"))).unwrap();
            slurm.daemon(&before, "slurmd", &["-D", "-N", &name, "-f", &file]);
        }
        let count = slurm.nodes.len().to_string();
        slurm.wait_for("idle nodes", || {
            let output = slurm.client("sinfo").args(["-h", "-t", "idle", "-o", "%D"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim() == count
        });
        Ok(slurm)
    }

    /// A Slurm for ranks on these machines; says so where something is missing.
    pub fn for_ranks(hosts: &Hosts) -> Option<Slurm> {
        Slurm::start_on(hosts).inspect_err(|why| skip("slurm", why)).ok()
    }

    /// The same with so many GPUs on each machine.
    pub fn for_ranks_with_gpus(hosts: &Hosts, gpus: u32) -> Option<Slurm> {
        Slurm::start_with_gpus(hosts, gpus).inspect_err(|why| skip("slurm", why)).ok()
    }

    /// `srun` of ranks on so many machines, which goes on when one of them is lost. UCX connects those of [`Hosts`] by
    /// `eth1`.
    pub fn srun(&self, nodes: u32) -> Command {
        let mut srun = self.client("srun");
        if !self.login.is_empty() {
            srun.env(DATA_CARD.0, DATA_CARD.1);
        }
        srun.args([&format!("--nodes={nodes}"), "--overcommit", "--mpi=pmix", "--kill-on-bad-exit=0"]);
        srun
    }

    /// A client of it: `srun`, `sinfo`.
    pub fn client(&self, program: &str) -> Command {
        let mut command = behind(&self.login, program);
        command.env("SLURM_CONF", self.path("slurm.conf")).stdin(Stdio::null());
        command
    }

    /// Devices with the numbers that NVIDIA's have, and what tells Slurm of them: it takes no other kind of file.
    fn make_gpus(&self) -> Result<(), String> {
        if self.gpus == 0 {
            return Ok(());
        }
        std::fs::create_dir(self.path("dev")).unwrap();
        for number in 0..self.gpus {
            let (path, device) = (self.path(&format!("dev/nvidia{number}")), makedev(195, number));
            let made = mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device);
            made.map_err(|why| format!("a device for a GPU cannot be made: {why}"))?;
        }
        let files = format!("Name=gpu File={}[0-{}]\n", self.path("dev/nvidia"), self.gpus - 1);
        std::fs::write(self.path("gres.conf"), files).unwrap();
        Ok(())
    }

    /// `munged` with a key of this Slurm's own.
    fn authenticate(&mut self) {
        let key = self.path("munge.key");
        std::fs::write(&key, [7; 64]).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).unwrap();
        let options = [
            format!("--key-file={key}"),
            format!("--socket={}", self.path("munge.socket")),
            format!("--seed-file={}", self.path("munge.seed")),
            format!("--pid-file={}", self.path("munge.pid")),
            format!("--log-file={}", self.path("munge.log")),
        ];
        // The folder is this user's alone, which the daemon calls inaccessible unless it is forced.
        let arguments = ["--foreground", "--force"].into_iter().chain(options.iter().map(String::as_str));
        self.daemon(&[], "munged", &arguments.collect::<Vec<_>>());
        let socket = self.path("munge.socket");
        self.wait_for("the socket of munged", || Path::new(&socket).exists());
    }

    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let user = rustix::process::geteuid().as_raw();
        let Control { host, address, port: control } = &self.control;
        let (types, gres) = match self.gpus {
            0 => ("", String::new()),
            gpus => ("GresTypes=gpu\n", format!(" Gres=gpu:{gpus}")),
        };
        let node = |node: &Node| {
            let Node { name, host, address, port, .. } = node;
            format!(
                "NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} CPUs=4 CoresPerSocket=4 \
                 RealMemory=1000{gres} State=UNKNOWN\n"
            )
        };
        let nodes: String = self.nodes.iter().map(node).collect();
        format!(
            "ClusterName=tarragon
SlurmctldHost={host}({address})
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={control}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
# Of each node its own: the files of PMIx bear the names of jobs alone.
TmpFS={folder}/tmp-%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillOnBadExit=0
SlurmdTimeout=10
MessageTimeout=5
TCPTimeout=2
KillWait=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
{types}{nodes}PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"
        )
    }

    fn daemon(&mut self, before: &[OsString], program: &str, arguments: &[&str]) {
        let log = self.path(&format!("{program}-{}.log", self.daemons.len()));
        let log = std::fs::File::create(log).unwrap();
        let mut command = behind(before, program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push(command.spawn().unwrap());
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn wait_for(&self, what: &str, found: impl Fn() -> bool) {
        let begin = Instant::now();
        while !found() {
            assert!(begin.elapsed() < START, "{what}: not there in time\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the daemons have said.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|file| file.extension().is_some_and(|end| end == "log"));
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Those that others need end last.
        for daemon in self.daemons.iter_mut().rev() {
            let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(5) && !matches!(daemon.try_wait(), Ok(Some(_))) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The words of a command.
fn words(command: &Command) -> Vec<OsString> {
    std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_owned).collect()
}

/// A program behind another command.
fn behind(before: &[OsString], program: &str) -> Command {
    let mut made = command(program);
    if let [first, rest @ ..] = before {
        let path =
            made.get_envs().find_map(|(name, value)| value.filter(|_| name == "PATH").map(OsStr::to_owned));
        made = Command::new(first);
        made.args(rest).arg(program).envs(path.map(|path| ("PATH", path)));
    }
    made
}
