//! MPI jobs with cpus of several ranks of the program that starts them: on one machine and on several.
//!
//! Each test starts this program once more in a role; that starts the ranks, or is one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tarragon_engine::{Batch, BatchDescriptor, Builder, Context, ErrorKind, Exit, Task, results, tasks};
use tarragon_testbed::{Hosts, Launch, Slurm, lacks_mpich, lacks_mpirun, role, say, wait_until};

/// A test in a role with each MPI that is there: the role is the launcher's name and a folder.
fn with_each_mpi(test: &'static str, play: impl FnOnce(Builder, &Path)) {
    if let Some(role) = role() {
        let (launcher, folder) = role.split_once(' ').expect("two words");
        // Output of jobs that fail stays: in the folder of the test.
        let builder = Batch::builder().spawn(3).assume_cpus(2).launcher(launcher).run_dir(folder);
        return play(builder, Path::new(folder));
    }
    for (launcher, lacks) in [("mpirun", lacks_mpirun as fn() -> bool), ("mpirun.mpich", lacks_mpich)] {
        let folder = tempfile::tempdir().expect("a folder");
        if !lacks() {
            let role = format!("{launcher} {}", folder.path().display());
            let launch = Launch::alone(test, &role).with_mpirun_environment();
            launch.env("TARRAGON_LOSS_LIMIT_MS", "1000").run().expect_success();
        }
    }
}

/// A job that says in a log when each of its ranks begins and ends.
fn logs(batch: &Batch, ranks: u32, cpus: u32, log: &Path) -> Task<Exit> {
    let script = format!("echo +{cpus} >> \"$0\"; sleep 0.3; echo -{cpus} >> \"$0\"");
    batch.job("sh", ranks).arg("-c").arg(script).arg(log).cpus(cpus)
}

/// The most that ever ran by a log.
fn most(log: &Path) -> i32 {
    let text = std::fs::read_to_string(log).expect("a log");
    let (mut now, mut most) = (0, 0);
    for line in text.lines() {
        now += line.parse::<i32>().expect("a number");
        most = most.max(now);
    }
    assert_eq!(now, 0, "{text}");
    most
}

/// The numbers of a job's ranks, as the launchers say.
fn numbers(job: &Task<Exit>) -> BTreeSet<String> {
    let own = |rank| job.rank_stdout(rank).get().expect("text").trim_end().to_string();
    (0..job.job_ranks().len() as u32).map(own).collect()
}

const NUMBER: &str = "echo \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK} of ${OMPI_COMM_WORLD_SIZE:-$PMI_SIZE}\"";

fn wanted(ranks: u32) -> BTreeSet<String> {
    (0..ranks).map(|rank| format!("{rank} of {ranks}")).collect()
}

fn holds(context: &Context) -> u32 {
    context.rank()
}

/// On each of three ranks a function that needs both of its cpus: they are free again.
fn all_cpus_are_free(batch: &Batch) {
    let all: Vec<_> = (0..3).map(|rank| batch.function(holds, ()).cpus(2).at_rank(rank)).collect();
    batch.compile(&all).expect("a list").run().expect("all succeed");
    assert_eq!(results(&all).expect("all are there"), [0, 1, 2]);
}

#[test]
fn a_job_has_cpus_of_several_ranks() {
    with_each_mpi("a_job_has_cpus_of_several_ranks", |builder, _| {
        let batch = builder.build().expect("a batch");
        let job = |ranks| batch.job("sh", ranks).args(["-c", NUMBER]);
        let (all, five, behind) = (job(6), job(5), job(4).at_rank(1));
        let two_each = job(3).cpus(2);
        let more = job(2).and("sh", 3).args(["-c", NUMBER]);
        let after = batch.process("cat").stdin(five.stdout());
        let compiled = batch.compile(tasks![all, five, behind, two_each, more, after]).expect("a list");
        for _ in 0..2 {
            compiled.run().expect("all succeed");
            for (job, ranks) in [(&all, 6), (&five, 5), (&behind, 4), (&two_each, 3), (&more, 5)] {
                assert_eq!(numbers(job), wanted(ranks));
            }
            assert_eq!(after.stdout().get().expect("text").lines().count(), 5);
        }
        all_cpus_are_free(&batch);
    });
}

/// Never more ranks of jobs than there are cpus, and wide ones have their turn among narrow ones and functions.
#[test]
fn wide_jobs_and_others_share_cpus() {
    with_each_mpi("wide_jobs_and_others_share_cpus", |builder, folder| {
        let (batch, log) = (builder.build().expect("a batch"), folder.join("log"));
        let narrow: Vec<_> = (0..8).map(|i| logs(&batch, 1 + i % 2, 1, &log)).collect();
        let wide: Vec<_> = [3, 4, 6, 5].map(|ranks| logs(&batch, ranks, 1, &log)).into();
        let thick: Vec<_> = [2, 3].map(|ranks| logs(&batch, ranks, 2, &log)).into();
        let functions: Vec<_> = (0..12).map(|i| batch.function(holds, ()).cpus(1 + i % 2)).collect();
        let again: Vec<_> = (0..6).map(|_| logs(&batch, 1, 2, &log)).collect();
        let list = tasks![narrow, wide, functions, thick, again];
        batch.compile(list).expect("a list").run().expect("all succeed");
        assert_eq!(most(&log), 6);
        all_cpus_are_free(&batch);
    });
}

#[test]
fn wide_jobs_end_in_time_and_are_cancelled_while_they_run_and_while_they_wait() {
    let test = "wide_jobs_end_in_time_and_are_cancelled_while_they_run_and_while_they_wait";
    with_each_mpi(test, |builder, folder| {
        let batch = builder.build().expect("a batch");
        let job = |ranks: u32, name: &str| {
            let script = "echo $$ >> \"$0\"; exec sleep 1000";
            batch.job("sh", ranks).args(["-c", script]).arg(folder.join(name)).name(name)
        };
        let pids = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.lines().map(str::to_string).collect::<Vec<_>>()
        };
        let late = job(6, "late").timeout(Duration::from_secs(2));
        batch.compile(tasks![late]).expect("a list").run().expect_err("it is late");
        assert_eq!(late.wait().expect_err("late").kind(), ErrorKind::OverTime);
        assert_eq!(pids("late").len(), 6);
        // The first has all cpus of ranks 1 and 2; the other those of rank 0, and waits for the first.
        let (runs, waits) = (job(4, "runs").at_rank(1), job(6, "waits"));
        let compiled = batch.compile(tasks![runs, waits]).expect("a list");
        compiled.start().expect("it starts");
        wait_until("ranks run", || pids("runs").len() == 4);
        wait_until("the other waits", || {
            waits.why_waiting().is_some_and(|why| why.contains("waits for those of ranks 1, 2"))
        });
        waits.cancel();
        assert_eq!(waits.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
        runs.cancel();
        assert_eq!(runs.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
        assert_eq!(pids("waits").len(), 0);
        let is_alive = |pid: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
        };
        let all = [pids("late"), pids("runs")].concat();
        wait_until("ranks are gone", || !all.iter().any(is_alive));
        all_cpus_are_free(&batch);
    });
}

#[test]
fn a_wide_job_that_fails_is_tried_again() {
    with_each_mpi("a_wide_job_that_fails_is_tried_again", |builder, folder| {
        let batch = builder.build().expect("a batch");
        // All ranks of the first attempt fail, also those that begin late.
        let script = "test -e \"$0\" && exit 0; sleep 1; touch \"$0\"; exit 3";
        let job = batch.job("sh", 5).args(["-c", script]).arg(folder.join("tried")).retries(2);
        let never = batch.job("sh", 5).args(["-c", "exit 4"]);
        batch.compile(tasks![job, never]).expect("a list").run().expect_err("one fails");
        assert_eq!(job.wait().map_err(|error| error.to_string()), Ok(()));
        let error = never.wait().expect_err("it fails").to_string();
        assert!(error.contains("of 5 on") && error.contains("exit code 4"), "{error}");
        all_cpus_are_free(&batch);
    });
}

#[test]
fn wide_jobs_that_never_fit_are_mistakes() {
    with_each_mpi("wide_jobs_that_never_fit_are_mistakes", |builder, _| {
        let batch = builder.build().expect("a batch");
        let mistake = |task| batch.compile(tasks![task]).expect_err("a mistake").to_string();
        let text = mistake(batch.job("sh", 7));
        assert!(text.contains("7 ranks of 1") && text.contains("2 of this rank, 4 of 2 others"), "{text}");
        // It would fit from rank 0 on, or on several machines.
        assert!(mistake(batch.job("sh", 3).at_rank(2)).contains("3 ranks of 1"));
        assert!(mistake(batch.job("sh", 4).ranks_per_node(2)).contains("2 on each host"));
        assert!(mistake(batch.job("sh", 2).cpus(3)).contains("2 ranks of 3"));
        all_cpus_are_free(&batch);
    });
}

/// A rank that holds cpus is lost: the job goes on, the next one is dealt out over the others, and what needs more
/// than they have fails and says why.
#[test]
fn cpus_of_a_lost_rank_are_gone() {
    with_each_mpi("cpus_of_a_lost_rank_are_gone", |builder, folder| {
        let batch = builder.survive_losses(true).build().expect("a batch");
        let own = batch.function(std::process::id, ()).at_rank(2);
        own.run().expect("it does not fail");
        let pid = own.result().get().expect("a number");
        let begun = folder.join("begun");
        let script = "echo $$ >> \"$0\"; while ! test -e \"$1\"; do sleep 0.05; done";
        let job = |ranks: u32| batch.job("sh", ranks).args(["-c", script]).arg(&begun).arg(folder.join("go"));
        let (first, second, third) = (job(6), job(4), job(6));
        let compiled = batch.compile(tasks![first, second, third]).expect("a list");
        compiled.start().expect("it starts");
        wait_until("six ranks run", || {
            std::fs::read_to_string(&begun).unwrap_or_default().lines().count() == 6
        });
        let world = batch.world().expect("several ranks");
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("it runs");
        assert!(killed.success());
        wait_until("the loss is known", || world.losses().len() == 1);
        std::fs::write(folder.join("go"), "").expect("written");
        assert_eq!(first.wait().map_err(|error| error.to_string()), Ok(()));
        assert_eq!(second.wait().map_err(|error| error.to_string()), Ok(()));
        let error = third.wait().expect_err("there are four cpus left");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        assert!(error.to_string().contains("no room for a job of 6 ranks"), "{error}");
    });
}

/// A client of a program that is several ranks has jobs on all of them, too.
#[test]
fn a_client_has_jobs_on_several_ranks() {
    let test = "a_client_has_jobs_on_several_ranks";
    if let Some(text) = role().filter(|role| role.starts_with("tarragon-batch")) {
        let batch = text.parse::<BatchDescriptor>().expect("a descriptor").attach().expect("it is there");
        let job = |ranks| batch.job("sh", ranks).args(["-c", NUMBER]);
        let (wide, large) = (job(5), job(7));
        batch.compile(tasks![wide]).expect("a list").run().expect("it succeeds");
        let said: BTreeSet<String> = wide.stdout().get().expect("text").lines().map(str::to_string).collect();
        assert_eq!(said, (0..5).map(|rank| format!("{rank}: {rank} of 5")).collect());
        let text = batch.compile(tasks![large]).expect_err("a mistake").to_string();
        return assert!(text.contains("7 ranks of 1"), "{text}");
    }
    with_each_mpi(test, |builder, _| {
        let batch = builder.build().expect("a batch");
        let descriptor = batch.descriptor().expect("a descriptor").to_string();
        Launch::alone(test, &descriptor).run().expect_success();
        all_cpus_are_free(&batch);
    });
}

/// What is said of the hosts that ranks were on.
fn hosts_of(job: &Task<Exit>) -> BTreeSet<String> {
    job.job_ranks().into_iter().map(|rank| rank.host).collect()
}

/// A program with some ranks on each of several machines has jobs that are on all of them. `settings` are what its
/// launcher needs here, after the folder of the test.
fn jobs_on_machines(machines: u32, each: u32, role: &str) {
    let (folder, settings) = role.split_once('\n').expect("a folder");
    let batch = Batch::builder().assume_cpus(2).run_dir(folder).build().expect("a batch");
    let all = 2 * machines * each;
    let job = |ranks: u32, script: &str| {
        let job = batch.job("sh", ranks).args(["-c", script]);
        settings
            .lines()
            .filter_map(|line| line.split_once('='))
            .fold(job, |job, (name, value)| job.env(name, value))
    };
    let wide = job(all, "sleep 0.2");
    let apart = job(machines, "true").ranks_per_node(1);
    let narrow: Vec<_> = (0..machines).map(|host| job(2, "true").at_rank(host * each)).collect();
    let fails = job(all, "test $(hostname) = h0 || exit 3; sleep 100");
    batch.compile(tasks![wide, narrow, apart, fails]).expect("a list").run().expect_err("one fails");
    let all: BTreeSet<String> = (0..machines).map(|host| format!("h{host}")).collect();
    for job in [&wide, &apart] {
        assert_eq!(job.wait().map_err(|error| error.to_string()), Ok(()));
        assert_eq!(hosts_of(job), all, "{:?}", job.job_ranks());
    }
    for (host, job) in narrow.iter().enumerate() {
        assert_eq!(job.wait().map_err(|error| error.to_string()), Ok(()));
        assert_eq!(hosts_of(job), BTreeSet::from([format!("h{host}")]));
    }
    let error = fails.wait().expect_err("it fails").to_string();
    assert!(error.contains("on h1: exit code 3") || error.contains("on h2: exit code 3"), "{error}");
    say("all as it should be");
}

#[test]
fn jobs_span_the_machines_of_mpiruns_ranks() {
    let test = "jobs_span_the_machines_of_mpiruns_ranks";
    if let Some(role) = role() {
        return jobs_on_machines(2, 2, &role);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let settings = hosts.launcher_settings().into_iter().map(|(name, value)| format!("{name}={value}\n"));
    let role = format!("{}\n{}", folder.path().display(), settings.collect::<String>());
    let ended = Launch::far(hosts.mpirun(2), test, &role).with_mpirun_environment().ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["all as it should be"], "{}", ended.text);
}

#[test]
fn jobs_span_the_machines_of_sruns_ranks() {
    let test = "jobs_span_the_machines_of_sruns_ranks";
    if let Some(role) = role() {
        return jobs_on_machines(3, 1, &role);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(hosts) = Hosts::for_ranks(3) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    let mut srun = slurm.srun(3);
    srun.arg("--cpus-per-task=2");
    let ended = Launch::far(srun, test, &format!("{}\n", folder.path().display())).ranks(3).run();
    assert!(ended.status.success(), "{}\n{}", ended.text, slurm.logs());
    assert_eq!(ended.said(), ["all as it should be"], "{}", ended.text);
}
