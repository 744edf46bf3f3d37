//! MPI jobs as tasks: under Open MPI's and MPICH's launchers and under `srun`, from the shell, from inside of a rank
//! and over several hosts; how they fail, how they are ended, and how they share cpus.
//!
//! Most tests start this program once more in a role, whose environment has what a launcher needs here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Builder, ErrorKind, Exit, Task, results, tasks};
use tarragon_testbed::{Hosts, Launch, Slurm, lacks_mpich, lacks_mpirun, role, say, skip, wait_until};

/// The kinds of MPI: name of the launcher and of the compiler.
const OPEN_MPI: (&str, &str) = ("mpirun", "mpicc");
const MPICH: (&str, &str) = ("mpirun.mpich", "mpicc.mpich");

/// Compiles the program of these tests in a folder; `None`, which is said, if there is no compiler.
fn ring(folder: &Path, compiler: &str) -> Option<PathBuf> {
    let program = folder.join("ring");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobs/ring.c");
    let compiled = Command::new(compiler).arg("-o").args([&program, &source]).output();
    match compiled {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => panic!("{compiler}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(why) => {
            skip("mpicc", &format!("{compiler}: {why}"));
            None
        }
    }
}

/// Runs `test` in a role with each MPI that is there; the role is the folder of its program and the launcher's name.
fn with_each_mpi(test: &'static str) {
    for ((launcher, compiler), lacks) in [(OPEN_MPI, lacks_mpirun as fn() -> bool), (MPICH, lacks_mpich)] {
        let folder = tempfile::tempdir().expect("a folder");
        if lacks() || ring(folder.path(), compiler).is_none() {
            continue;
        }
        let role = format!("{launcher} {}", folder.path().display());
        Launch::alone(test, &role).with_mpirun_environment().run().expect_success();
    }
}

/// What a role says: the launcher and the folder.
fn parts(role: &str) -> (&str, &Path) {
    let (launcher, folder) = role.split_once(' ').expect("two words");
    (launcher, Path::new(folder))
}

/// A batch whose output stays in the folder of the test, also when jobs fail.
fn batch((launcher, folder): (&str, &Path), cpus: u32) -> Builder {
    Batch::builder().alone().assume_cpus(cpus).launcher(launcher).run_dir(folder)
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_string).collect()
}

fn wanted(ranks: u32) -> BTreeSet<String> {
    let sum: u32 = (0..ranks).sum();
    (0..ranks).map(|rank| format!("{rank}: {rank} of {ranks}, sum {sum}")).collect()
}

#[test]
fn ranks_of_a_job_are_one_world() {
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let batch = batch((launcher, folder), 4).build().expect("a batch");
        let job = batch.job(folder.join("ring"), 4);
        let two = batch.job(folder.join("ring"), 2).arg("ok").and(folder.join("ring"), 1).arg("ok");
        let count = batch.process("wc").arg("-l").stdin(job.stdout());
        batch.compile(tasks![job, two, count]).expect("a list").run().expect("all succeed");
        assert_eq!(lines(&job.stdout().get().expect("text")), wanted(4));
        assert_eq!(lines(&two.stdout().get().expect("text")), wanted(3));
        assert_eq!(count.stdout().get().expect("text").trim(), "4");
        assert_eq!(job.rank_stdout(3).get().expect("text"), "3 of 4, sum 6\n");
        let ranks = job.job_ranks();
        assert_eq!(ranks.len(), 4);
        assert!(ranks.iter().all(|rank| rank.code == Some(0) && !rank.host.is_empty()), "{ranks:?}");
        assert!(job.result().get().expect("it succeeded").usage.max_rss_bytes > 1 << 20);
        return;
    }
    with_each_mpi("ranks_of_a_job_are_one_world");
}

#[test]
fn a_rank_that_fails_ends_the_job_and_is_named() {
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let batch = batch((launcher, folder), 9).build().expect("a batch");
        let exits = batch.job(folder.join("ring"), 3).args(["spin", "1"]);
        let crashes = batch.job(folder.join("ring"), 3).args(["crash", "2"]);
        let after = batch.process("true").arg(exits.stdout());
        batch.compile(tasks![exits, crashes, after]).expect("a list").run().expect_err("two fail");
        let error = exits.wait().expect_err("it fails");
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Exited, Some(3)), "{error}");
        let text = error.to_string();
        assert!(text.contains("rank 1 of 3 on ") && text.contains("exit code 3"), "{text}");
        assert_eq!(error.last_lines(), Some("no convergence"));
        let ranks = error.job_ranks();
        assert!(!ranks[1].was_ended && ranks[0].was_ended && ranks[2].was_ended, "{ranks:?}");
        assert_eq!(exits.job_ranks(), ranks);
        assert_eq!(after.wait().expect_err("skipped").kind(), ErrorKind::Skipped);
        let error = crashes.wait().expect_err("it fails");
        assert_eq!((error.kind(), error.signal()), (ErrorKind::Signalled, Some((9, false))), "{error}");
        assert!(error.last_lines().expect("its words").contains("about to crash"), "{error}");
        return;
    }
    with_each_mpi("a_rank_that_fails_ends_the_job_and_is_named");
}

/// A job that is over its time, or cancelled, is gone on the whole: ranks that compute hear nothing of MPI.
#[test]
fn jobs_end_in_time_and_when_they_are_cancelled() {
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let batch = batch((launcher, folder), 4).build().expect("a batch");
        let marks = |name: &str| -> Vec<u32> {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.lines().map(|line| line.parse().expect("a pid")).collect()
        };
        let stubborn = "trap '' TERM; echo $$ >> \"$0\"; while :; do sleep 1; done";
        let grace = Duration::from_millis(300);
        let job = |name: &str| {
            let job = batch.job("sh", 2).args(["-c", stubborn]).arg(folder.join(name)).grace(grace);
            job.name(name)
        };
        let late = job("late").timeout(Duration::from_secs(2));
        let cancelled = job("cancelled");
        let compiled = batch.compile(tasks![late, cancelled]).expect("a list");
        compiled.start().expect("it starts");
        wait_until("ranks run", || marks("cancelled").len() == 2);
        cancelled.cancel();
        assert_eq!(cancelled.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
        assert_eq!(late.wait().expect_err("late").kind(), ErrorKind::OverTime);
        let is_alive = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
        };
        let pids = [marks("late"), marks("cancelled")].concat();
        assert_eq!(pids.len(), 4);
        wait_until("ranks are gone", || !pids.iter().any(is_alive));
        return;
    }
    with_each_mpi("jobs_end_in_time_and_when_they_are_cancelled");
}

/// Ranks of jobs never are more than there are cpus, jobs that fit run side by side, and a large one gets its turn.
#[test]
fn jobs_share_cpus() {
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let log = folder.join("log");
        let batch = batch((launcher, folder), 4).build().expect("a batch");
        let job = |ranks: u32, cpus: u32| {
            let script = format!("echo +{cpus} >> \"$0\"; sleep 0.3; echo -{cpus} >> \"$0\"");
            batch.job("sh", ranks).arg("-c").arg(script).arg(&log).cpus(cpus)
        };
        let small: Vec<_> = (0..6).map(|_| job(2, 1)).collect();
        let large = job(2, 2);
        let more: Vec<_> = (0..6).map(|_| job(1, 1)).collect();
        batch.compile(tasks![small, large, more]).expect("a list").run().expect("all succeed");
        let text = std::fs::read_to_string(&log).expect("a log");
        let (mut now, mut most) = (0i32, 0);
        for line in text.lines() {
            now += line.parse::<i32>().expect("a number");
            most = most.max(now);
            assert!(now <= 4, "{text}");
        }
        assert_eq!((now, most), (0, 4), "{text}");
        return;
    }
    with_each_mpi("jobs_share_cpus");
}

/// Each rank of jobs side by side has a cpu of its own, where there are enough.
#[test]
fn ranks_are_bound_to_cpus_of_their_own() {
    if let Some(role) = role() {
        let (launcher, _) = parts(&role);
        let batch = Batch::builder().alone().launcher(launcher).build().expect("a batch");
        let job = batch.job("sh", 2).args(["-c", "grep Cpus_allowed_list: /proc/self/status"]);
        match batch.compile(tasks![job]) {
            Ok(compiled) => compiled.run().expect("it runs"),
            Err(_) => return skip("cpus", "the machine has only one"),
        }
        let cpus: BTreeSet<String> = (0..2).map(|rank| job.rank_stdout(rank).get().expect("text")).collect();
        assert_eq!(cpus.len(), 2, "{cpus:?}");
        assert!(cpus.iter().all(|list| !list.contains(['-', ','])), "{cpus:?}");
        return;
    }
    with_each_mpi("ranks_are_bound_to_cpus_of_their_own");
}

#[test]
fn a_job_is_tried_again_with_empty_output() {
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let batch = batch((launcher, folder), 2).build().expect("a batch");
        let script = "echo try; test $RANK_OF = 1 && exit 0; mkdir \"$0\" && exit 4; exit 0";
        let script = script.replace("$RANK_OF", "\"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\"");
        let job = batch.job("sh", 2).args(["-c", &script]).arg(folder.join("made")).retries(1);
        batch.compile(tasks![job]).expect("a list").run().expect("the second attempt succeeds");
        assert_eq!(lines(&job.stdout().get().expect("text")).len(), 2);
        assert_eq!(job.rank_stdout(0).get().expect("text"), "try\n");
        return;
    }
    with_each_mpi("a_job_is_tried_again_with_empty_output");
}

#[test]
fn a_job_that_is_done_is_not_run_again_when_its_batch_is_resumed() {
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let journal = folder.join("journal");
        for round in 0..2 {
            let batch = batch((launcher, folder), 2).journal(&journal).resume(true).build().expect("a batch");
            let out = folder.join("made");
            let job = batch.job("sh", 2).args(["-c", "echo x >> \"$0\"; echo done"]).arg(&out).writes(&out);
            batch.compile(tasks![job]).expect("a list").run().expect("it succeeds");
            assert_eq!(std::fs::read_to_string(&out).expect("it is there"), "x\nx\n", "round {round}");
            assert_eq!(lines(&job.stdout().get().expect("text")).len(), 2);
            assert_eq!(job.rank_stdout(1).get().expect("text"), "done\n");
            batch.join().expect("nothing failed");
        }
        return;
    }
    with_each_mpi("a_job_that_is_done_is_not_run_again_when_its_batch_is_resumed");
}

fn mistake(builder: Builder, make: impl Fn(&Batch) -> Task<Exit>) -> String {
    let batch = builder.alone().build().expect("a batch");
    batch.compile(tasks![make(&batch)]).expect_err("a mistake").to_string()
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = folder.path().join("orterun");
    std::fs::write(&launcher, "#!/bin/sh\nexit 1\n").expect("it can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&launcher, mode).expect("it is ours");
    let builder = || Batch::builder().assume_cpus(4).launcher(&launcher);

    let text = mistake(Batch::builder().launcher("no-such-mpirun"), |batch| batch.job("true", 1));
    assert!(text.contains("there is no program `no-such-mpirun` in PATH"), "{text}");
    let text = mistake(Batch::builder().launcher("true"), |batch| batch.job("true", 1));
    assert!(text.contains("is no launcher that is known here"), "{text}");
    let text = mistake(builder(), |batch| batch.job("/no/such/solver", 2));
    assert!(text.contains("/no/such/solver"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 2).and("/no/such/solver", 2));
    assert!(text.contains("/no/such/solver"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 5));
    assert!(text.contains("asks for 5 ranks of 1 of cpus") && text.contains("4 here"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 3).and("true", 2));
    assert!(text.contains("asks for 5 ranks"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 2).cpus(3));
    assert!(text.contains("2 ranks of 3"), "{text}");
    let text = mistake(builder().hosts([("localhost", 2), ("no.such.host.invalid", 2)]), |batch| {
        batch.job("true", 5)
    });
    assert!(text.contains("no.such.host.invalid"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 4).ranks_per_node(1));
    assert!(text.contains("1 on each host"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 0));
    assert!(text.contains("asks for 0 of ranks"), "{text}");
    let text = mistake(builder(), |batch| batch.job("true", 1).and("true", 0));
    assert!(text.contains("asks for 0 of ranks"), "{text}");
}

/// A launcher that cannot start what it is to start is a failure with its own words.
#[test]
fn a_launchers_own_words_are_in_the_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = folder.path().join("orterun");
    std::fs::write(&launcher, "#!/bin/sh\necho no room on h7 >&2\nexit 9\n").expect("it can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&launcher, mode).expect("it is ours");
    let launcher = launcher.to_str().expect("text");
    let batch = batch((launcher, folder.path()), 2).build().expect("a batch");
    let job = batch.job("true", 2);
    batch.compile(tasks![job]).expect("a list").run().expect_err("it fails");
    let error = job.wait().expect_err("it fails");
    assert_eq!(error.kind(), ErrorKind::CouldNotStart, "{error}");
    let text = error.to_string();
    assert!(text.contains("0 of 2 ranks") && text.contains("no room on h7"), "{text}");
}

/// Jobs from inside of the ranks of a job: what the launcher has set for this program does not reach theirs.
#[test]
fn ranks_start_jobs() {
    let test = "ranks_start_jobs";
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let batch = Batch::builder().assume_cpus(2).launcher(launcher).build().expect("a batch");
        let jobs: Vec<_> = (0..4).map(|rank| batch.job(folder.join("ring"), 2).at_rank(rank % 2)).collect();
        batch.compile(tasks![jobs]).expect("a list").run().expect("all succeed");
        for job in &jobs {
            assert_eq!(lines(&job.stdout().get().expect("text")), wanted(2));
        }
        assert_eq!(results(&jobs).expect("all are there").len(), 4);
        return say("all came");
    }
    for (outer, (launcher, compiler)) in
        [(Launch::new as fn(_, &_) -> Launch, OPEN_MPI), (Launch::mpich, MPICH)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let lacks = if launcher == OPEN_MPI.0 { lacks_mpirun() } else { lacks_mpich() };
        if lacks || ring(folder.path(), compiler).is_none() {
            continue;
        }
        let role = format!("{launcher} {}", folder.path().display());
        let ended = outer(test, &role).with_mpirun_environment().ranks(2).run();
        ended.expect_success();
        assert_eq!(ended.said(), ["all came"], "{}", ended.text);
    }
}

/// What is said of the hosts that ranks were on.
fn hosts_of(job: &Task<Exit>) -> BTreeSet<String> {
    job.job_ranks().into_iter().map(|rank| rank.host).collect()
}

/// A program on a login machine runs jobs on others.
#[test]
fn a_job_spans_hosts() {
    let test = "a_job_spans_hosts";
    if let Some(role) = role() {
        let (launcher, folder) = parts(&role);
        let builder = batch((launcher, folder), 1).hosts([("h0", 2), ("h1", 2)]);
        let batch = builder.build().expect("a batch");
        // Programs of MPICH 4.0 hang here in `MPI_Init` one time in ten, also without us; so they are none of MPI.
        let is_mpich = launcher == MPICH.0;
        let says = "echo \"$PMI_RANK of $PMI_SIZE, sum 6, on $(hostname)\"; test $PMI_RANK = $1 && exit 3";
        let job = |ranks: u32, command: &str, chosen: &str| match is_mpich {
            true => batch.job("sh", ranks).args(["-c", &format!("{says}; {command}"), "sh", chosen]),
            false => batch.job(folder.join("ring"), ranks).args([command, chosen]),
        };
        let (where_is, spin) = if is_mpich { ("exit 0", "sleep 1000") } else { ("where", "spin") };
        let wide = job(4, where_is, "9");
        let apart = job(2, where_is, "9").ranks_per_node(1);
        let fails = job(4, spin, "3");
        let missing =
            batch.job("sh", 4).args(["-c", "test $(hostname) = h0 || exec /no/such/thing; sleep 100"]);
        let late = batch.job("sh", 4).args(["-c", "sleep 1000"]).timeout(Duration::from_secs(3));
        let began = Instant::now();
        batch
            .compile(tasks![wide, apart, fails, missing, late])
            .expect("a list")
            .run()
            .expect_err("some fail");
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!(wide.wait().map_err(|error| error.to_string()), Ok(()));
        assert_eq!(wide.stdout().get().expect("text").lines().count(), 4);
        assert_eq!(hosts_of(&wide), BTreeSet::from(["h0".to_string(), "h1".to_string()]));
        assert!(wide.rank_stdout(0).get().expect("text").starts_with("0 of 4, sum 6, on h"));
        assert_eq!(hosts_of(&apart).len(), 2, "{:?}", apart.job_ranks());
        let error = fails.wait().expect_err("it fails").to_string();
        assert!(error.contains("rank 3 of 4 on h") && error.contains("exit code 3"), "{error}");
        let error = missing.wait().expect_err("it fails").to_string();
        assert!(error.contains("on h1: exit code 127"), "{error}");
        assert_eq!(late.wait().expect_err("it is late").kind(), ErrorKind::OverTime);
        return say("all as it should be");
    }
    for ((launcher, compiler), is_mpich) in [(OPEN_MPI, false), (MPICH, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        if is_mpich && lacks_mpich() || ring(folder.path(), compiler).is_none() {
            continue;
        }
        let Some(hosts) = Hosts::for_ranks(2) else { return };
        let role = format!("{launcher} {}", folder.path().display());
        let mut program = hosts.login(std::env::current_exe().expect("this program").to_str().expect("text"));
        program.args(tarragon_testbed::arguments(test)).envs(hosts.launcher_settings());
        let ended = Launch::far(program, test, &role).with_mpirun_environment().run();
        ended.expect_success();
        assert_eq!(ended.said(), ["all as it should be"], "{}", ended.text);
        // Nothing runs on the hosts any more.
        for host in 0..2 {
            wait_until("ranks are gone", || {
                let listed = hosts.command(host, "ps").args(["-eo", "args"]).output().expect("it runs");
                !String::from_utf8_lossy(&listed.stdout).contains("sleep 1000")
            });
        }
    }
}

/// In an allocation of Slurm jobs run by `srun` on all its nodes, from a batch script and from a step of it.
#[test]
fn jobs_run_in_an_allocation_of_slurm() {
    let test = "jobs_run_in_an_allocation_of_slurm";
    if let Some(role) = role() {
        let (_, folder) = parts(&role);
        let batch = Batch::builder().alone().assume_cpus(4).run_dir(folder).build().expect("a batch");
        let ring = folder.join("ring");
        let wide = batch.job(&ring, 8).arg("where");
        let small: Vec<_> = (0..4).map(|_| batch.job(&ring, 2).arg("where")).collect();
        let fails = batch.job(&ring, 4).args(["spin", "3"]).ranks_per_node(2);
        let two = batch.job(&ring, 1).arg("ok").and(&ring, 2).arg("ok");
        let list = tasks![wide, small, fails, two];
        batch.compile(list).expect("a list").run().expect_err("one fails");
        assert_eq!(wide.wait().map_err(|error| error.to_string()), Ok(()));
        assert_eq!(hosts_of(&wide), BTreeSet::from(["h0".to_string(), "h1".to_string()]));
        assert_eq!(lines(&two.stdout().get().expect("text")), wanted(3));
        for job in &small {
            assert_eq!(job.wait().map_err(|error| error.to_string()), Ok(()));
            assert_eq!(hosts_of(job).len(), 1, "{:?}", job.job_ranks());
        }
        let error = fails.wait().expect_err("it fails").to_string();
        assert!(error.contains("rank 3 of 4 on h1: exit code 3"), "{error}");
        let text = batch.compile(tasks![batch.job(&ring, 9)]).expect_err("a mistake").to_string();
        assert!(text.contains("4 here, 4 on h"), "{text}");
        return say("all as it should be");
    }
    let folder = tempfile::tempdir().expect("a folder");
    if ring(folder.path(), OPEN_MPI.1).is_none() {
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    let role = format!("srun {}", folder.path().display());
    let program = std::env::current_exe().expect("this program");
    let words = tarragon_testbed::arguments(test).join(" ");
    // As a batch script, and as one step of an allocation.
    let script = folder.path().join("script");
    std::fs::write(&script, format!("#!/bin/sh\nexec {} {words}\n", program.display())).expect("written");
    let mut sbatch = slurm.client("sbatch");
    let output = folder.path().join("output");
    sbatch.args(["--wait", "--nodes=2", "--ntasks-per-node=4"]).arg("-o").arg(&output).arg(&script);
    let ended =
        Launch::far(sbatch, test, &role).with_mpirun_environment().env("SLURM_MPI_TYPE", "pmix").run();
    let text = std::fs::read_to_string(&output).unwrap_or_default();
    assert!(ended.status.success(), "{}\n{text}\n{}", ended.text, slurm.logs());
    assert!(text.contains("all as it should be"), "{text}");
}

/// Jobs that wait for cpus go to a rank that has some, and come back with all that their ranks wrote.
#[test]
fn jobs_are_stolen_with_all_they_wrote() {
    if let Some(role) = role() {
        let (launcher, _) = parts(&role);
        let batch = Batch::builder().spawn(2).assume_cpus(2).launcher(launcher).build().expect("a batch");
        // The first half, which one rank has, takes all the time.
        let script = |i| format!("echo out; echo err >&2; sleep {}", if i < 8 { "0.5" } else { "0" });
        let jobs: Vec<_> = (0..16).map(|i| batch.job("sh", 1).arg("-c").arg(script(i))).collect();
        let compiled = batch.compile(&jobs).expect("a list");
        compiled.run().expect("all succeed");
        let stolen = compiled.traffic().expect("several ranks").tasks_stolen;
        assert!(stolen > 0, "the other rank did nothing");
        for job in &jobs {
            assert_eq!(lines(&job.stdout().get().expect("text")).len(), 1);
            assert_eq!(job.rank_stdout(0).get().expect("text"), "out\n");
            assert_eq!(job.rank_stderr(0).get().expect("text"), "err\n");
            assert_eq!(job.job_ranks().len(), 1);
        }
        return;
    }
    with_each_mpi("jobs_are_stolen_with_all_they_wrote");
}
