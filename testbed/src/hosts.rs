//! Machines made of namespaces: each has its own name, network card, processes, `/dev/shm`, System V memory and
//! monotonic clock, so that nothing passes between them but what goes over the network. They share files and cores.
//!
//! Two bridges lie in a network namespace of their own (`hub`), and one machine more, `login`, starts programs on the
//! others by the first of them; the machine of the test gets no route and no interface. The second one's cables can be
//! cut while launchers stay in touch. All ends with the handle, or with the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cable::{self, Cable};
use crate::launch::{MPICH, lacks_mpirun, lacks_ucx, with_mpirun_settings};
use crate::{command, expect_programs, skip};

/// How long a machine may take to be there.
const START: Duration = Duration::from_secs(60);
/// The network by which programs are started (`eth0`), and the one between machines (`eth1`), without the last number.
const NETWORK: &str = "10.77.0";
const DATA_NETWORK: &str = "10.78.0";
/// By which UCX is to connect ranks: left alone it takes the card that the system happens to list first.
pub(crate) const DATA_CARD: (&str, &str) = ("UCX_NET_DEVICES", "eth1");
/// Seconds by which the monotonic clock of a machine is ahead of that of the one before.
const CLOCKS_APART_S: u64 = 100_000;
/// The last number of `login`, and of the first machine.
const LOGIN: u32 = 9;
const FIRST: u32 = 10;

/// Machines `h0`, `h1`, and so on.
pub struct Hosts {
    folder: tempfile::TempDir,
    hub: Child,
    login: Child,
    hosts: Vec<Host>,
}

struct Host {
    /// Its parent on the test's machine; kills it when it goes.
    outer: Child,
    /// Its first process.
    init: u32,
}

impl Hosts {
    /// Starts `count` of them; an error says what is missing on this machine.
    pub fn start(count: u32) -> Result<Hosts, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make them".to_owned());
        }
        expect_programs(&["ip", "nsenter", "setpriv", "unshare"])?;
        let folder = tempfile::tempdir().unwrap();
        let names = (0..count).map(|number| format!("{NETWORK}.{} h{number}\n", FIRST + number));
        let names = format!("127.0.0.1 localhost\n{NETWORK}.{LOGIN} login\n{}", names.collect::<String>());
        std::fs::write(folder.path().join("hosts"), names).unwrap();
        let hub = namespaces(folder.path(), "hub", &["-n"], "exec sleep infinity")?;
        let named = format!("mount --bind {}/hosts /etc/hosts", folder.path().display());
        let script = format!("hostname login && {named} && {{ READY; exec sleep infinity; }}");
        let login =
            namespaces(folder.path(), "login", &["-n", "-u", "-m", "--propagation", "private"], &script)?;
        let mut hosts = Hosts { folder, hub, login, hosts: Vec::new() };
        for bridge in ["br0", "br1"] {
            hosts
                .hub(&format!("ip link add {bridge} type bridge forward_delay 0 && ip link set {bridge} up"));
        }
        let login = hosts.login.id();
        hosts.plug("login", "br0", login, &format!("{NETWORK}.{LOGIN}"), "eth0");
        for number in 0..count {
            hosts.boot(number, &named)?;
        }
        hosts.write_agent();
        Ok(hosts)
    }

    /// `count` machines with all that the ranks of a launcher need there; says so where something is missing.
    pub fn for_ranks(count: u32) -> Option<Hosts> {
        if lacks_mpirun() || lacks_ucx() {
            return None;
        }
        Hosts::start(count).inspect_err(|why| skip("hosts", why)).ok()
    }

    fn boot(&mut self, number: u32, named: &str) -> Result<(), String> {
        let name = format!("h{number}");
        // It runs what other machines ask for; its first process takes in those that lose their parents.
        let calls = self.folder.path().join(format!("{name}.calls"));
        let calls = calls.display();
        let serve = format!("while :; do while read -r call; do sh $call & done < {calls}; done");
        let idle = format!("trap 'exit 0' TERM; {{ {serve}; }} & while :; do sleep 3600 & wait $!; done");
        // Libraries look there for cards, and daemons for control groups, which stay those of the test's machine.
        let groups = self.folder.path().join(format!("{name}.groups"));
        std::fs::create_dir(&groups).unwrap();
        let groups = groups.display();
        let cards = format!(
            "mount --rbind /sys/fs/cgroup {groups} && mount -t sysfs none /sys && mount --rbind {groups} /sys/fs/cgroup"
        );
        let memory = "mount -t tmpfs -o mode=1777 shm /dev/shm";
        let ready = format!("{cards} && {memory} && {named} && mkfifo {calls}");
        let script = format!("hostname {name} && {ready} && {{ READY; {idle}; }}");
        let ahead = (u64::from(number + 1) * CLOCKS_APART_S).to_string();
        let clock = ["-T", "--monotonic", &ahead];
        let flags = ["-n", "-u", "-i", "-p", "-m", "--propagation", "private", "-f", "--mount-proc"];
        let outer = namespaces(self.folder.path(), &name, &[&clock[..], &flags].concat(), &script)?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.id())).unwrap();
        let init = children.trim().parse().unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.pid")), children.trim()).unwrap();
        self.hosts.push(Host { outer, init });
        let number = FIRST + number;
        self.plug(&name, "br0", init, &format!("{NETWORK}.{number}"), "eth0");
        self.plug(&format!("{name}-data"), "br1", init, &format!("{DATA_NETWORK}.{number}"), "eth1");
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.hosts.len() as u32
    }

    /// A program on machine `host`.
    pub fn command(&self, host: u32, program: &str) -> Command {
        let mut command = enter(self.hosts[host as usize].init, &["-m", "-u", "-i", "-n", "-T", "-p"]);
        command.arg(program);
        command
    }

    /// A program on `login`.
    pub fn login(&self, program: &str) -> Command {
        let mut command = enter(self.login.id(), &["-m", "-u", "-n"]);
        command.arg(program);
        command
    }

    /// Open MPI's `mpirun`, on `login`, with `slots` ranks on each machine, which UCX connects by `eth1`.
    pub fn mpirun(&self, slots: u32) -> Command {
        let mut command = self.login("mpirun");
        with_mpirun_settings(&mut command);
        command.env(DATA_CARD.0, DATA_CARD.1);
        let hosts: Vec<String> = (0..self.count()).map(|number| format!("h{number}:{slots}")).collect();
        command.args(["--host", &hosts.join(","), "--mca", "plm", "rsh"]);
        let folder = self.folder.path().display();
        command.args(["--mca", "plm_rsh_agent", &format!("{folder}/agent")]);
        command.args(["--mca", "orte_tmpdir_base", &folder.to_string()]);
        command
    }

    /// MPICH's `mpirun`, as [`Hosts::mpirun`].
    pub fn mpich(&self, slots: u32) -> Command {
        let mut command = self.login(MPICH);
        command.env(DATA_CARD.0, DATA_CARD.1);
        let hosts: Vec<String> = (0..self.count()).map(|number| format!("h{number}:{slots}")).collect();
        command.args(["-hosts", &hosts.join(","), "-launcher", "rsh"]);
        command.args(["-launcher-exec", &format!("{}/agent", self.folder.path().display())]);
        command
    }

    /// Variables by which launchers that are started on `login` reach the machines.
    pub fn launcher_settings(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.path().display();
        let agent = format!("{folder}/agent");
        vec![
            ("OMPI_MCA_plm", "rsh".to_owned()),
            ("OMPI_MCA_plm_rsh_agent", agent.clone()),
            ("OMPI_MCA_orte_tmpdir_base", folder.to_string()),
            ("HYDRA_LAUNCHER", "rsh".to_owned()),
            ("HYDRA_LAUNCHER_EXEC", agent),
        ]
    }

    /// Cuts the cable of a machine's `eth1`, silently.
    pub fn cut(&self, host: u32) {
        self.hub(&format!("ip link set h{host}-data down"));
    }

    /// Mends it.
    pub fn heal(&self, host: u32) {
        self.hub(&format!("ip link set h{host}-data up"));
    }

    /// Has all that a machine sends to another one by `eth1` lost, as by a firewall that says nothing of it.
    pub fn lose(&self, host: u32, to: u32) {
        let address = format!("{DATA_NETWORK}.{}", FIRST + to);
        let nobody = ["lladdr", "02:00:00:00:00:01", "dev", "eth1", "nud", "permanent"];
        run(self.command(host, "ip").args(["neigh", "replace", &address]).args(nobody));
    }

    /// Has a machine refuse whatever it sends to another one by `eth1`, as a firewall does that says so.
    pub fn refuse(&self, host: u32, to: u32) {
        let address = format!("{DATA_NETWORK}.{}", FIRST + to);
        run(self.command(host, "ip").args(["route", "add", "unreachable", &address]));
    }

    /// Leaves a machine so many bytes of shared memory.
    pub fn limit_memory(&self, host: u32, bytes: u64) {
        let size = format!("remount,size={bytes}");
        run(self.command(host, "mount").args(["-o", &size, "/dev/shm"]));
    }

    /// A cable in place of all of `eth1`, which delays each frame and loses some, until the handle goes; then there is
    /// none. Frames are large, or a lossy connection would be too slow for tests.
    ///
    /// # Errors
    /// In words: what is missing on this machine.
    pub fn bad_cable(&self, delay: Duration, lost_of_1000: u64) -> Result<Cable, String> {
        let mut taps = Vec::new();
        for (host, number) in self.hosts.iter().zip(0..) {
            self.hub(&format!("ip link del h{number}-data"));
            taps.push(cable::tap(host.init, "eth1")?);
            let address = format!("{DATA_NETWORK}.{}", FIRST + number);
            let script = format!("ip addr add {address}/24 dev eth1 && ip link set eth1 mtu 9000 up");
            run(enter(host.init, &["-n"]).args(["sh", "-c", &script]));
        }
        Ok(Cable::between(taps, delay, lost_of_1000))
    }

    /// Lets all machines give a connection up soon that nobody answers on, rather than after a quarter of an hour.
    pub fn be_impatient(&self) {
        for host in 0..self.count() {
            for setting in ["net.ipv4.tcp_retries2=3", "net.ipv4.tcp_syn_retries=2"] {
                run(self.command(host, "sysctl").args(["-q", "-w", setting]));
            }
        }
    }

    /// Switches a machine off: all its processes are killed.
    pub fn power_off(&mut self, host: u32) {
        let outer = &mut self.hosts[host as usize].outer;
        outer.kill().unwrap();
        outer.wait().unwrap();
    }

    /// What lies in a machine's folder for shared memory.
    pub fn shared_memory(&self, host: u32) -> Vec<String> {
        let listed = self.command(host, "ls").arg("/dev/shm").output().unwrap();
        String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
    }

    /// Their names and addresses.
    pub(crate) fn sites(&self) -> Vec<(String, String)> {
        (0..self.count())
            .map(|number| (format!("h{number}"), format!("{NETWORK}.{}", FIRST + number)))
            .collect()
    }

    pub(crate) fn login_address(&self) -> String {
        format!("{NETWORK}.{LOGIN}")
    }

    /// Connects a card of a process's machine to a port of a bridge.
    fn plug(&self, port: &str, bridge: &str, pid: u32, address: &str, card: &str) {
        self.hub(&format!(
            "ip link add {port} type veth peer name {card} netns {pid} && ip link set {port} master {bridge} up"
        ));
        let script =
            format!("ip addr add {address}/24 dev {card} && ip link set {card} up && ip link set lo up");
        run(enter(pid, &["-n"]).args(["sh", "-c", &script]));
    }

    fn hub(&self, script: &str) {
        run(enter(self.hub.id(), &["-n"]).args(["sh", "-c", script]));
    }

    /// What `mpirun` calls in place of `ssh`: from `login` it enters the machine, from another one, which sees nothing
    /// of it, it asks it.
    fn write_agent(&self) {
        use std::os::unix::fs::PermissionsExt;
        let (path, folder) = (self.folder.path().join("agent"), self.folder.path().display());
        let enter =
            format!("exec nsenter -t \"$(cat {folder}/$host.pid)\" -m -u -i -n -T -p --wdns=\"$PWD\"");
        let ask = "printf '%s\\n' \"{ $*\" \"} > $call.out 2>&1; echo \\$? > $call.code; mv $call.code $call.done\"";
        let wait = "while ! test -e $call.done; do sleep 0.05; done; cat $call.out; exit $(cat $call.done)";
        let script = format!(
            "#!/bin/sh\nhost=$1\nshift\ntest \"$(hostname)\" = login && {enter} -- /bin/sh -c \"$*\"\n\
             call=$(mktemp {folder}/call.XXXXXX)\n{ask} > $call\necho $call > {folder}/$host.calls\n{wait}\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let outers = self.hosts.iter_mut().map(|host| &mut host.outer);
        for child in outers.chain([&mut self.login, &mut self.hub]) {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process in namespaces of its own that ends with this one; returns when its script has come to `READY`.
fn namespaces(folder: &Path, name: &str, flags: &[&str], script: &str) -> Result<Child, String> {
    let (ready, log) = (folder.join(format!("{name}.ready")), folder.join(format!("{name}.log")));
    let say = format!("touch {}", ready.display());
    let script =
        if script.contains("READY") { script.replace("READY", &say) } else { format!("{say}; {script}") };
    let mut made = command("setpriv");
    made.args(["--pdeathsig", "KILL", "unshare"]).args(flags);
    if flags.contains(&"-f") {
        made.arg("--kill-child=SIGKILL");
    }
    let file = std::fs::File::create(&log).unwrap();
    made.args(["--", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let mut child = made.spawn().map_err(|error| format!("setpriv: {error}"))?;
    let begin = Instant::now();
    while !ready.exists() {
        let is_over = child.try_wait().unwrap().is_some();
        if is_over || begin.elapsed() > START {
            let _ = child.kill();
            let _ = child.wait();
            let why = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("machine {name} does not start: {}", why.trim()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

/// A command in namespaces of another process, which is to be completed.
fn enter(pid: u32, flags: &[&str]) -> Command {
    let folder = std::env::current_dir().unwrap();
    let mut command = command("nsenter");
    command.args(["-t", &pid.to_string()]).args(flags);
    if flags.contains(&"-m") {
        command.arg(format!("--wdns={}", folder.display()));
    }
    command.arg("--").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
}
