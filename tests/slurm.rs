//! The job scripts of `examples/slurm`, submitted to a real Slurm on two machines: as they are, cancelled, out of time,
//! sent back to the queue, and with nodes that are drained or lose their power.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tarragon_testbed::{Hosts, PATIENCE, Slurm, lacks_mpirun, skip, wait_until};

/// Machines, their Slurm, and a folder that all see.
struct Cluster {
    slurm: Slurm,
    hosts: Hosts,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Option<Cluster> {
        let hosts = Hosts::for_ranks(2)?;
        let slurm = Slurm::for_ranks(&hosts)?;
        Some(Cluster { slurm, hosts, folder: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Submits a script of the examples that runs an example; the job's number.
    fn submit(&self, script: &str, options: &[&str], program: &str, arguments: &[&str]) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sbatch = self.slurm.client("sbatch");
        sbatch.arg("--parsable").arg("-o").arg(self.path("output")).args(options);
        sbatch.arg(root.join("examples/slurm").join(script)).args(arguments);
        sbatch.env("PROGRAM", example(program)).env("OMPI_ALLOW_RUN_AS_ROOT", "1");
        sbatch.env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").current_dir(self.folder.path());
        said(&mut sbatch)
    }

    /// What has become of a job: its state, without reasons.
    fn state(&self, job: &str) -> String {
        let text = said(self.slurm.client("scontrol").args(["--oneliner", "show", "job", job]));
        let state = text.split_whitespace().find_map(|field| field.strip_prefix("JobState="));
        state.unwrap_or_default().to_owned()
    }

    fn wait(&self, job: &str) -> String {
        patiently("the job to end", || {
            !["PENDING", "CONFIGURING", "RUNNING", "COMPLETING"].contains(&&*self.state(job))
        });
        self.state(job)
    }

    fn scancel(&self, arguments: &[&str]) {
        said(self.slurm.client("scancel").args(arguments));
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// Runs a script to its end; what it wrote.
    fn run(&self, script: &str, program: &str, arguments: &[&str]) -> String {
        let _ = std::fs::remove_file(self.path("output"));
        let job = self.submit(script, &[], program, arguments);
        let state = self.wait(&job);
        let output = self.output();
        assert_eq!(state, "COMPLETED", "{output}\n{}", self.slurm.logs());
        output
    }

    /// No program of these runs on any machine.
    fn expect_gone(&self, program: &str) {
        for host in 0..self.hosts.count() {
            wait_until("all to be gone", || {
                let listed = self.hosts.command(host, "ps").args(["-eo", "args"]).output().unwrap();
                !String::from_utf8_lossy(&listed.stdout).contains(program)
            });
        }
    }
}

/// Looks, as long as anything may take on a busy machine.
fn patiently(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE + PATIENCE / 2, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a command says.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// An example beside this test, built if that was not done.
fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let profile = exe.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let release = profile.ends_with("release").then_some("--release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--example", name]).args(release).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        said(&mut cargo);
    }
    path
}

#[test]
fn a_program_runs_on_all_nodes() {
    let Some(cluster) = Cluster::start() else { return };
    let output = cluster.run("many_nodes.sh", "gang", &[]);
    assert!(output.contains("ranks 2 nodes 2 fabric"), "{output}");
    let output = cluster.run("mpirun.sh", "gang", &[]);
    assert!(output.contains("ranks 4 nodes 2 fabric"), "{output}");
    cluster.expect_gone("examples/gang");
}

#[test]
fn an_ensemble_of_mpi_jobs_is_on_all_nodes() {
    if lacks_mpirun() {
        return;
    }
    if Command::new("mpicc").arg("--version").output().is_err() {
        return skip("mpicc", "it is not installed (Debian: libopenmpi-dev)");
    }
    let Some(cluster) = Cluster::start() else { return };
    let output = cluster.run("ensemble.sh", "mpi_ensemble", &["--jobs", "6"]);
    assert!(output.contains("largest error: "), "{output}");
    assert!(output.contains("on h0") && output.contains("on h1"), "{output}");
    cluster.expect_gone("examples/mpi_ensemble");
}

/// All files of a campaign but its journal and what that points to.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    let files = named.filter(|(name, path)| path.is_file() && !name.starts_with("journal"));
    files.map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

/// Steps of the campaigns below: long enough to be in the midst of it.
const SIZE: [&str; 2] = ["40", "60"];

impl Cluster {
    /// Submits a campaign in a folder, and waits until it is in the midst of it.
    fn begin(&self, folder: &Path, options: &[&str]) -> String {
        let arguments = [&[folder.to_str().unwrap()], &SIZE[..]].concat();
        let before = std::fs::read_dir(folder).map_or(0, Iterator::count);
        let job = self.submit("requeue.sh", options, "resume", &arguments);
        patiently("the campaign to run", || {
            std::fs::read_dir(folder).map_or(0, Iterator::count) > before + 60
        });
        job
    }

    /// The campaign goes on to its end, in which it has what an undisturbed one has.
    fn finish(&self, folder: &Path) {
        let output = self.run("requeue.sh", "resume", &[&[folder.to_str().unwrap()], &SIZE[..]].concat());
        expect_resumed(&output);
        self.expect_files(folder);
    }

    fn expect_files(&self, folder: &Path) {
        let quiet = tempfile::tempdir().unwrap();
        said(Command::new(example("resume")).arg("campaign").arg(quiet.path()).args(SIZE));
        assert!(files(folder) == files(quiet.path()), "the files differ");
    }
}

/// Of all that was to be done some was done before, and some was not.
fn expect_resumed(output: &str) {
    let line = output.lines().rev().find(|line| line.contains("tasks were done before")).unwrap_or_default();
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(numbers[..], [done, all] if 0 < done && done < all), "{output}");
}

#[test]
fn a_cancelled_campaign_goes_on_when_it_is_submitted_again() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = cluster.path("campaign");
    std::fs::create_dir(&folder).unwrap();
    let job = cluster.begin(&folder, &[]);
    cluster.scancel(&[&job]);
    assert_eq!(cluster.wait(&job), "CANCELLED");
    cluster.expect_gone("examples/resume");
    cluster.finish(&folder);
}

#[test]
fn a_campaign_that_is_out_of_time_goes_back_to_the_queue() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = cluster.path("campaign");
    std::fs::create_dir(&folder).unwrap();
    let job = cluster.begin(&folder, &[]);
    // As Slurm does half a minute before the limit, so the script says.
    cluster.scancel(&["--batch", "--signal=USR1", &job]);
    patiently("the job to be back in the queue", || cluster.state(&job) == "PENDING");
    cluster.expect_gone("examples/resume");
    // Slurm lets it wait for two minutes, in case its node is not well.
    wait_until("the job to be let go", || {
        let update = ["update", &format!("JobId={job}"), "StartTime=now"];
        cluster.slurm.client("scontrol").args(update).output().unwrap().status.success()
    });
    assert_eq!(cluster.wait(&job), "COMPLETED", "{}", cluster.output());
    let output = cluster.output();
    assert!(output.contains("out of time: back to the queue"), "{output}");
    expect_resumed(&output);
    cluster.expect_files(&folder);
}

/// Slurm's own end at the limit: TERM to all processes, and soon after that KILL.
#[test]
fn a_campaign_that_reaches_its_limit_goes_on_later() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = cluster.path("campaign");
    std::fs::create_dir(&folder).unwrap();
    // Its steps sleep for so long this time that a minute, which is Slurm's smallest limit, is not enough.
    let slow = cluster.path("slow");
    std::fs::create_dir(&slow).unwrap();
    std::fs::write(slow.join("sleep"), "#!/bin/sh\nexec /bin/sleep 0.2\n").unwrap();
    std::fs::set_permissions(slow.join("sleep"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let path = format!("PATH={}:{}", slow.display(), std::env::var("PATH").unwrap());
    let export = format!("--export=ALL,{path}");
    let job = cluster.begin(&folder, &["--time=1", "--signal=B:CONT@1", &export]);
    assert_eq!(cluster.wait(&job), "TIMEOUT", "{}", cluster.output());
    cluster.expect_gone("examples/resume");
    cluster.finish(&folder);
}

impl Cluster {
    /// Where the script of a job runs.
    fn batch_host(&self, job: &str) -> String {
        let text = said(self.slurm.client("scontrol").args(["--oneliner", "show", "job", job]));
        let host = text.split_whitespace().find_map(|field| field.strip_prefix("BatchHost="));
        host.unwrap_or_default().to_owned()
    }

    /// Slurm lets a job that has lost a node wait for two minutes, in case others are not well either: not so here.
    fn let_go(&self, job: &str, changes: &[&str]) {
        patiently("the job to be back in the queue", || self.state(job) == "PENDING");
        wait_until("the job to be let go", || {
            let update = ["update", &format!("JobId={job}"), "StartTime=now"];
            self.slurm.client("scontrol").args(update).args(changes).output().unwrap().status.success()
        });
    }
}

/// Who drains a node lets what runs there go on, and keeps others away: a campaign comes to its end, and the next one
/// is on the other node.
#[test]
fn a_campaign_on_a_drained_node_comes_to_its_end() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = cluster.path("campaign");
    std::fs::create_dir(&folder).unwrap();
    let job = cluster.begin(&folder, &[]);
    let node = cluster.batch_host(&job);
    let drain = ["update", &format!("NodeName={node}"), "State=DRAIN", "Reason=test"];
    said(cluster.slurm.client("scontrol").args(drain));
    assert_eq!(cluster.wait(&job), "COMPLETED", "{}", cluster.output());
    cluster.expect_files(&folder);
    let other = cluster.path("other");
    std::fs::create_dir(&other).unwrap();
    let job = cluster.begin(&other, &[]);
    assert_ne!(cluster.batch_host(&job), node);
    cluster.scancel(&[&job]);
    assert_eq!(cluster.wait(&job), "CANCELLED");
}

/// The node that a campaign runs on loses its power: Slurm sends the job back to the queue, and it goes on elsewhere.
#[test]
fn a_campaign_whose_node_loses_its_power_goes_on_elsewhere() {
    let Some(mut cluster) = Cluster::start() else { return };
    let folder = cluster.path("campaign");
    std::fs::create_dir(&folder).unwrap();
    let job = cluster.begin(&folder, &[]);
    let node = cluster.batch_host(&job);
    cluster.hosts.power_off(if node == "h0" { 0 } else { 1 });
    cluster.let_go(&job, &[]);
    assert_eq!(cluster.wait(&job), "COMPLETED", "{}\n{}", cluster.output(), cluster.slurm.logs());
    assert_ne!(cluster.batch_host(&job), node);
    expect_resumed(&cluster.output());
    cluster.expect_files(&folder);
}

/// A script has several nodes, one of which loses its power: the job goes back to the queue, and goes on with what is
/// left if it may.
#[test]
fn a_campaign_that_loses_one_of_its_nodes_goes_on_with_fewer() {
    let Some(mut cluster) = Cluster::start() else { return };
    let folder = cluster.path("campaign");
    std::fs::create_dir(&folder).unwrap();
    let job = cluster.begin(&folder, &["--nodes=2"]);
    let node = cluster.batch_host(&job);
    cluster.hosts.power_off(if node == "h0" { 1 } else { 0 });
    cluster.let_go(&job, &["NumNodes=1"]);
    assert_eq!(cluster.wait(&job), "COMPLETED", "{}\n{}", cluster.output(), cluster.slurm.logs());
    expect_resumed(&cluster.output());
    cluster.expect_files(&folder);
}
