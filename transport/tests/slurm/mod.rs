//! A Slurm of two nodes on this machine: `munged`, `slurmctld` and a `slurmd` for each node, in a folder of their own,
//! on ports that were free, ended when the handle goes. The nodes share the machine, its name and its memory.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the daemons may take to be ready.
const START: Duration = Duration::from_secs(60);

/// The daemons, and the folder of their files.
pub(crate) struct Slurm {
    daemons: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Slurm {
    /// Starts it; an error says what is missing on this machine.
    pub(crate) fn start() -> Result<Slurm, String> {
        for program in ["munged", "slurmctld", "slurmd", "srun"] {
            let found =
                command(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.map_err(|error| format!("{program}: {error}"))?;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut slurm = Slurm { daemons: Vec::new(), folder };
        slurm.authenticate();
        let file = slurm.path("slurm.conf");
        std::fs::write(&file, slurm.configuration()).unwrap();
        slurm.daemon("slurmctld", &["-D", "-f", &file]);
        for node in ["n0", "n1"] {
            std::fs::create_dir_all(slurm.path(&format!("tmp-{node}"))).unwrap();
            slurm.daemon("slurmd", &["-D", "-N", node, "-f", &file]);
        }
        slurm.wait_for("two idle nodes", || {
            let output = slurm.client("sinfo").args(["-h", "-t", "idle", "-o", "%D"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim() == "2"
        });
        Ok(slurm)
    }

    /// A client of it: `srun`, `sinfo`.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = command(program);
        command.env("SLURM_CONF", self.path("slurm.conf")).stdin(Stdio::null());
        command
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
        self.daemon("munged", &arguments.collect::<Vec<_>>());
        let socket = self.path("munge.socket");
        self.wait_for("the socket of munged", || Path::new(&socket).exists());
    }

    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let user = std::fs::metadata(self.folder.path()).map(|it| std::os::unix::fs::MetadataExt::uid(&it));
        let user = user.unwrap();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host = host.split('.').next().unwrap();
        let listeners = [0; 3].map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let ports = listeners.map(|it| it.local_addr().unwrap().port());
        let node = |name: &str, port: u16| {
            format!(
                "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 CoresPerSocket=4 \
                 RealMemory=1000 State=UNKNOWN"
            )
        };
        let nodes = [node("n0", ports[1]), node("n1", ports[2])].join("\n");
        let control = ports[0];
        format!(
            "ClusterName=tarragon
SlurmctldHost={host}(127.0.0.1)
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
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"
        )
    }

    fn daemon(&mut self, program: &str, arguments: &[&str]) {
        let log = self.path(&format!("{program}-{}.log", self.daemons.len()));
        let log = std::fs::File::create(log).unwrap();
        let mut command = command(program);
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
    pub(crate) fn logs(&self) -> String {
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

/// A program, also one that only the system's own users have on their path.
fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
