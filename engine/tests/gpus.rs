//! GPUs: who holds which, what processes, ranks of jobs and functions see of them, and that no one is held twice. Those
//! of these tests are names alone, so nothing computes on them.
//!
//! Whoever holds some writes a line when it begins and one before it ends; the lines in their order show who held what
//! at the same time. Most tests start this program once more in a role, with the environment that names the GPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tarragon_engine::{Batch, BatchDescriptor, Builder, Context, Error, ErrorKind, Exit, Task, tasks};
use tarragon_testbed::{Hosts, Launch, Slurm, lacks_mpich, lacks_mpirun, role, say, wait_until};

const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Lines of all who hold GPUs: `+ AMOUNT NAMES` when one begins, `- AMOUNT NAMES` before it ends. Amounts are in
/// thousandths, of each of the names.
struct Log {
    path: PathBuf,
}

/// What a log says.
#[derive(Default)]
struct Seen {
    /// By name the most that was held of it at a time.
    most: BTreeMap<String, u32>,
    /// Most names that were held at a time.
    names: usize,
    /// Those who began.
    count: usize,
}

impl Log {
    fn new(folder: &Path) -> Log {
        Log { path: folder.join("log") }
    }

    /// A process that holds so many, and notes it.
    fn process(&self, batch: &Batch, gpus: f64) -> Task<Exit> {
        self.lasting(batch, gpus, "0.02")
    }

    fn lasting(&self, batch: &Batch, gpus: f64, seconds: &str) -> Task<Exit> {
        let script =
            format!("echo \"+ $0 ${VISIBLE}\" >> $1; sleep {seconds}; echo \"- $0 ${VISIBLE}\" >> $1");
        let process = batch.process("/bin/sh").args(["-c", &script]).arg(thousandths(gpus)).arg(&self.path);
        process.gpus(gpus)
    }

    fn read(&self) -> Seen {
        let (mut held, mut seen) = (BTreeMap::<String, u32>::new(), Seen::default());
        for line in fs::read_to_string(&self.path).expect("somebody wrote").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [sign, amount, names] = words[..] else { panic!("{line}") };
            let amount: u32 = amount.parse().expect("a number");
            for name in names.split(',') {
                let held = held.entry(name.to_string()).or_default();
                if sign == "+" {
                    *held += amount;
                    assert!(*held <= 1000, "{held} of {name} at {line}");
                    let most = seen.most.entry(name.to_string()).or_default();
                    *most = (*most).max(*held);
                } else {
                    *held -= amount;
                }
            }
            seen.names = seen.names.max(held.values().filter(|held| **held > 0).count());
            seen.count += usize::from(sign == "+");
        }
        seen
    }
}

fn thousandths(gpus: f64) -> u32 {
    (gpus.min(1.0) * 1000.0) as u32
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| name.to_string()).collect()
}

/// Begins and ends as a process of [`Log`].
fn note(ctx: &Context, path: PathBuf, gpus: f64) -> Vec<String> {
    let write = |sign: &str| {
        let mut file = fs::File::options().create(true).append(true).open(&path).expect("a log");
        let line = format!("{sign} {} {}\n", thousandths(gpus), ctx.gpus().join(","));
        file.write_all(line.as_bytes()).expect("it is written");
    };
    write("+");
    std::thread::sleep(Duration::from_millis(10));
    write("-");
    ctx.gpus().to_vec()
}

fn batch(cpus: u32, gpus: u32) -> Batch {
    Batch::builder().assume_cpus(cpus).assume_gpus(gpus).build().expect("a batch")
}

/// Runs `test` in a role with these GPUs.
fn with_gpus(test: &'static str, visible: &str) {
    Launch::alone(test, "home").env(VISIBLE, visible).with_mpirun_environment().run().expect_success();
}

#[test]
fn whole_ones_have_one_holder_and_parts_share_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::new(folder.path());
    let batch = batch(8, 3);
    let list: Vec<_> = (0..60).map(|i| log.process(&batch, [1.0, 0.25, 2.0, 0.5, 0.25][i % 5])).collect();
    let calls: Vec<_> = (0..60)
        .map(|i| {
            let gpus = [0.5, 1.0, 0.3][i % 3];
            batch.function(note, (log.path.clone(), gpus)).gpus(gpus)
        })
        .collect();
    batch.compile(tasks![list, calls]).expect("a list").run().expect("all succeed");
    let seen = log.read();
    assert_eq!((seen.count, seen.names), (120, 3));
    assert_eq!(seen.most.into_keys().collect::<BTreeSet<_>>(), names(&["0", "1", "2"]));
    for (i, call) in calls.iter().enumerate() {
        let held = call.result().get().expect("it succeeded");
        assert_eq!(held.len(), 1, "call {i} holds {held:?}");
    }
}

/// Parts go to one device as long as they fit there, so that others stay whole.
#[test]
fn parts_fill_one_before_the_next() {
    fn held(ctx: &Context) -> Vec<String> {
        ctx.gpus().to_vec()
    }
    let batch = batch(8, 2);
    let (all, whole) = (batch.function(held, ()).gpus(2), batch.function(held, ()).gpus(1.0));
    let none = batch.function(held, ()).cpus(1);
    batch.compile(tasks![all, whole, none]).expect("a list").run().expect("all succeed");
    assert_eq!(all.result().get().expect("it succeeded"), ["0", "1"]);
    assert_eq!(whole.result().get().expect("it succeeded").len(), 1);
    assert!(none.result().get().expect("it succeeded").is_empty());

    // Four quarters wait for each other; beside them is room for a whole one, and not for two.
    let folder = tempfile::tempdir().expect("a folder");
    let waits = format!("echo ${VISIBLE} > $0; until test $(ls | wc -l) = 5; do sleep 0.01; done; cat $0");
    let wait = |name: &str, gpus: f64| {
        batch
            .process("sh")
            .args(["-c", &waits, name])
            .cwd(folder.path())
            .gpus(gpus)
            .timeout(Duration::from_secs(60))
    };
    let quarters: Vec<_> = (0..4).map(|i| wait(&format!("quarter{i}"), 0.25)).collect();
    let whole = wait("whole", 1.0);
    batch.compile(tasks![quarters, whole]).expect("a list").run().expect("they are side by side");
    let text = |task: &Task<Exit>| task.stdout().get().expect("text").trim().to_string();
    let shared: BTreeSet<String> = quarters.iter().map(text).collect();
    assert_eq!(shared.len(), 1, "{shared:?}");
    assert!(!shared.contains(&text(&whole)));
}

/// However a holder ends, the next one finds all of them free.
#[test]
fn gpus_come_back_however_a_task_ends() {
    fn fails_once(ctx: &Context, mark: PathBuf) -> Result<usize, std::io::Error> {
        fs::File::options().write(true).create(true).truncate(false).open(&mark)?;
        let text = fs::read_to_string(&mark)?;
        fs::write(&mark, format!("{text}x"))?;
        if text.is_empty() { Err(std::io::Error::other("once")) } else { Ok(ctx.gpus().len()) }
    }
    fn late(ctx: &Context) {
        while !ctx.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    fn panics() {
        panic!("on purpose");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let batch =
        Batch::builder().assume_cpus(4).assume_gpus(2).run_dir(folder.path()).build().expect("a batch");
    let sh = |script: &str| batch.process("sh").args(["-c", script]).gpus(2);
    let again =
        sh(&format!("test -e {0}/mark || {{ touch {0}/mark; exit 1; }}", folder.path().display())).retries(1);
    let fails = sh("exit 3");
    let slow = sh("sleep 100").timeout(Duration::from_millis(50));
    let missing = batch.process("sh").arg("-c").arg("true").stdin(folder.path().join("no")).gpus(2);
    let body = batch.function(fails_once, (folder.path().join("body"),)).gpus(2).retries(1);
    let late = batch.function(late, ()).gpus(2).timeout(Duration::from_millis(50));
    let panics = batch.function(panics, ()).gpus(2);
    let list = tasks![again, fails, slow, missing, body, late, panics];
    batch.compile(list).expect("a list").run().expect_err("some fail");
    assert_eq!(again.wait().map_err(|error| error.to_string()), Ok(()));
    assert_eq!(body.result().get().map_err(|error| error.to_string()), Ok(2));
    for (task, kind) in
        [(&fails, ErrorKind::Exited), (&slow, ErrorKind::OverTime), (&missing, ErrorKind::CouldNotStart)]
    {
        assert_eq!(task.wait().expect_err("it fails").kind(), kind);
    }
    assert_eq!(late.wait().expect_err("it is late").kind(), ErrorKind::OverTime);
    assert_eq!(panics.wait().expect_err("it panics").kind(), ErrorKind::Panicked);

    // One that runs and one that waits for it are cancelled.
    let (runs, waits) = (sh("echo in; sleep 100"), sh("true"));
    batch.compile(tasks![runs, waits]).expect("a list").start().expect("it starts");
    wait_until("it runs", || runs.stdout().so_far().is_ok_and(|text| text == "in\n"));
    let why = waits.why_waiting().expect("it waits");
    assert!(why.contains("2 gpus (0 free)"), "{why}");
    waits.cancel();
    runs.cancel();
    assert_eq!(runs.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert_eq!(waits.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
    let last = sh(&format!("echo ${VISIBLE}"));
    batch.compile(tasks![last]).expect("a list").run().expect("all are free");
    assert_eq!(last.stdout().get().expect("text"), "0,1\n");
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let batch = batch(4, 2);
    let told = |task: Task<Exit>| batch.compile(tasks![task]).expect_err("a mistake").to_string();
    let task = || batch.process("true").name("train");
    for wrong in [1.5, 0.0, -1.0, -0.5, f64::NAN, f64::INFINITY, 1e12] {
        let text = told(task().gpus(wrong));
        assert!(
            text.contains("task `train` asks for ") && text.contains(" gpus: give a whole number from 1"),
            "{text}"
        );
        assert!(text.contains(&wrong.to_string()), "{text}");
    }
    let text = told(task().gpus(3));
    assert!(text.contains("`train` asks for 3 of gpus, but the batch has 2 ("), "{text}");
    assert!(text.contains("Builder::assume_gpus"), "{text}");
    let none = Batch::builder().gpus(0).build().expect("a batch");
    let text = none.compile(tasks![none.process("true").gpus(0.5)]).expect_err("a mistake").to_string();
    assert!(text.contains("asks for 0.5 of gpus, but the batch has 0 ("), "{text}");
    assert!(task().gpus(2).why_waiting().is_some());
    batch.compile(tasks![task().gpus(2), task().gpus(0.0001)]).expect("a list").run().expect("they fit");
}

/// What is visible to this program is what its batches have; who asks for none sees what the program sees.
#[test]
fn a_program_has_the_gpus_that_are_visible_to_it() {
    if role().is_some() {
        let all = Batch::builder().build().expect("a batch");
        let show = |batch: &Batch| batch.process("sh").args(["-c", &format!("echo ${VISIBLE}")]);
        let (three, none) = (show(&all).gpus(3), show(&all));
        let own = show(&all).gpus(1).env(VISIBLE, "mine");
        all.compile(tasks![three, none, own]).expect("a list").run().expect("all succeed");
        let text = |task: &Task<Exit>| task.stdout().get().expect("text").trim().to_string();
        assert_eq!(text(&three), "5,GPU-8932,7");
        assert_eq!(text(&none), "5,GPU-8932,7,x,1");
        assert_eq!(text(&own), "mine");
        let text = all.compile(tasks![show(&all).gpus(4)]).expect_err("a mistake").to_string();
        assert!(text.contains("has 3 (CUDA_VISIBLE_DEVICES=5,GPU-8932,7,x,1;"), "{text}");
        return;
    }
    with_gpus("a_program_has_the_gpus_that_are_visible_to_it", "5,GPU-8932,7,x,1");
}

#[test]
fn batches_of_a_program_never_hold_one_twice() {
    if role().is_some() {
        let builder = || Batch::builder().assume_cpus(8);
        let two = builder().gpus(2).build().expect("a batch");
        let error = builder().gpus(3).build().err().expect("two are left");
        assert!(matches!(error, Error::NotEnoughGpus { asked: 3, left: 2, granted: 4, .. }), "{error}");
        assert!(error.to_string().contains("CUDA_VISIBLE_DEVICES=0,1,2,3"), "{error}");
        let (one, other) = (builder().build().expect("a batch"), builder().build().expect("a batch"));
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::new(folder.path());
        let list = |batch: &Batch| -> Vec<_> {
            (0..30).map(|i| log.process(batch, [1.0, 0.5, 2.0][i % 3])).collect()
        };
        let lists = [&two, &one, &other].map(|batch| batch.compile(list(batch)).expect("a list"));
        lists.iter().for_each(|list| list.start().expect("it starts"));
        lists.iter().for_each(|list| list.wait().expect("all succeed"));
        let seen = log.read();
        assert_eq!((seen.count, seen.most.len()), (90, 4));
        assert!(one.compile(tasks![one.process("true").gpus(3)]).is_err(), "two are another batch's");
        drop((lists, two));
        assert!(builder().gpus(4).build().is_ok(), "it has gone");
        return;
    }
    with_gpus("batches_of_a_program_never_hold_one_twice", "0,1,2,3");
}

/// Clients of other processes ask for those of the batch that they use.
#[test]
fn clients_ask_for_the_gpus_of_the_batch() {
    let primary = batch(4, 2);
    let descriptor = primary.descriptor().expect("a descriptor").to_string();
    let client = descriptor.parse::<BatchDescriptor>().expect("it is one").attach().expect("it is there");
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::new(folder.path());
    let list: Vec<_> = (0..20).map(|i| log.process(&client, [1.0, 0.5][i % 2])).collect();
    client.compile(&list).expect("a list").run().expect("all succeed");
    assert_eq!(log.read().names, 2);
    let text = client.compile(tasks![client.process("true").gpus(3)]).expect_err("a mistake").to_string();
    assert!(text.contains("asks for 3 of gpus, but the batch has 2 ("), "{text}");
}

/// Ranks of a node that see the same ones have some each; those without run what needs none.
#[test]
fn ranks_of_a_node_share_its_gpus() {
    fn here(ctx: &Context) -> (u32, Vec<String>) {
        (ctx.rank(), ctx.gpus().to_vec())
    }
    if role().is_some() {
        let batch = Batch::builder().spawn(3).assume_cpus(4).work_stealing(false).build().expect("a batch");
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::new(folder.path());
        let list: Vec<_> = (0..40).map(|i| log.process(&batch, [1.0, 0.5][i % 2])).collect();
        let calls: Vec<_> = (0..20).map(|_| batch.function(here, ()).gpus(1)).collect();
        batch.compile(tasks![list, calls]).expect("a list").run().expect("all succeed");
        let seen = log.read();
        assert_eq!((seen.count, seen.names), (40, 2), "both ranks run some at a time");
        let mut held: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for call in &calls {
            let (rank, gpus) = call.result().get().expect("it succeeded");
            held.entry(rank).or_default().extend(gpus);
        }
        assert_eq!(held, BTreeMap::from([(0, names(&["0"])), (1, names(&["1"]))]));
        let at = |rank| batch.function(here, ()).gpus(1).at_rank(rank).name("placed");
        let text = batch.compile(tasks![at(2)]).expect_err("it has none").to_string();
        assert!(text.contains("`placed` asks for 1 of gpus") && text.contains("on rank 2"), "{text}");
        let gang = batch.function(here, ()).gpus(1).ranks(3).name("gang");
        let text = batch.compile(tasks![gang]).expect_err("one has none").to_string();
        assert!(text.contains("`gang` asks for 1 of gpus") && text.contains("members of a gang"), "{text}");
        let text =
            batch.compile(tasks![batch.process("true").gpus(2)]).expect_err("no rank has two").to_string();
        assert!(text.contains("asks for 2 of gpus, but the batch has 1 ("), "{text}");
        let placed = at(1);
        batch.compile(tasks![placed]).expect("a list").run().expect("it succeeds");
        assert_eq!(placed.result().get().expect("a value"), (1, vec!["1".to_string()]));
        return;
    }
    with_gpus("ranks_of_a_node_share_its_gpus", "0,1");
}

/// A gang holds some on each of its ranks, and a rank with free ones takes what waits for some elsewhere.
#[test]
fn gangs_hold_gpus_on_each_rank_and_free_ones_are_used() {
    fn gather(ctx: &Context) -> Vec<Vec<String>> {
        ctx.gang().all_gather(ctx.gpus().to_vec()).expect("all are there")
    }
    if role().is_some() {
        let batch = Batch::builder().spawn(2).assume_cpus(4).build().expect("a batch");
        let gang = batch.function(gather, ()).gpus(1).ranks(2);
        batch.compile(tasks![gang]).expect("a list").run().expect("it succeeds");
        let held = gang.result().get().expect("a value");
        assert_eq!(held.iter().flatten().cloned().collect::<BTreeSet<_>>().len(), 2, "{held:?}");
        // The first half, which one rank has, takes all the time; the other one helps, with its own.
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::new(folder.path());
        let list: Vec<_> =
            (0..40).map(|i| log.lasting(&batch, 1.0, if i < 20 { "0.2" } else { "0" })).collect();
        let compiled = batch.compile(&list).expect("a list");
        compiled.run().expect("all succeed");
        let stolen = compiled.traffic().expect("several ranks").tasks_stolen;
        assert!(stolen > 0, "the other rank did nothing");
        let seen = log.read();
        assert_eq!((seen.count, seen.names), (40, 4));
        return;
    }
    with_gpus("gangs_hold_gpus_on_each_rank_and_free_ones_are_used", "0,1,2,3");
}

/// What held GPUs on a rank that is lost holds some on another that has some.
#[test]
fn what_a_lost_rank_held_runs_where_there_are_gpus() {
    fn strike(ctx: &Context, mark: PathBuf) -> Vec<String> {
        if ctx.rank() == 1 && fs::File::create_new(mark).is_ok() {
            tarragon_testbed::die();
        }
        ctx.gpus().to_vec()
    }
    if role().is_some() {
        let builder = Batch::builder().spawn(4).assume_cpus(2).survive_losses(true).work_stealing(false);
        let batch = builder.build().expect("a batch");
        let folder = tempfile::tempdir().expect("a folder");
        let mark = folder.path().join("struck");
        let calls: Vec<_> = (0..30).map(|_| batch.function(strike, (mark.clone(),)).gpus(1)).collect();
        batch.compile(&calls).expect("a list").run().expect("all succeed");
        assert!(mark.exists(), "nobody was struck");
        let held: Vec<_> = calls.iter().map(|call| call.result().get().expect("a value")).collect();
        assert!(held.iter().all(|gpus| gpus.len() == 1), "{held:?}");
        let text =
            batch.compile(tasks![batch.process("true").gpus(2)]).expect_err("no rank has two").to_string();
        assert!(text.contains("asks for 2 of gpus"), "{text}");
        return say("all as it should be");
    }
    let launch =
        Launch::alone("what_a_lost_rank_held_runs_where_there_are_gpus", "home").env(VISIBLE, "0,1,2");
    let ended = launch.env("TARRAGON_LOSS_LIMIT_MS", "1000").run();
    ended.expect_success();
    assert_eq!(ended.said(), ["all as it should be"]);
}

fn with_launcher(launcher: &str) -> Builder {
    Batch::builder().alone().assume_cpus(8).launcher(launcher)
}

/// What each rank of a job sees.
fn of_ranks(job: &Task<Exit>, ranks: u32) -> Vec<String> {
    (0..ranks).map(|rank| job.rank_stdout(rank).get().expect("text").trim().to_string()).collect()
}

#[test]
fn each_rank_of_a_job_has_its_own() {
    if let Some(launcher) = role() {
        // Where the output of the one that fails stays.
        let folder = tempfile::tempdir().expect("a folder");
        let batch = with_launcher(&launcher).run_dir(folder.path()).build().expect("a batch");
        let job = |ranks: u32| batch.job("sh", ranks).args(["-c", &format!("echo ${VISIBLE}")]);
        let (one, two, half) = (job(4).gpus(1), job(2).gpus(2), job(4).gpus(0.5));
        let (none, own) = (job(2), job(2).gpus(1).env(VISIBLE, "mine"));
        let more = job(1).gpus(1).and("sh", 2).args(["-c", &format!("echo ${VISIBLE}")]);
        batch.compile(tasks![one, two, half, none, own, more]).expect("a list").run().expect("all succeed");
        assert_eq!(of_ranks(&one, 4).into_iter().collect::<BTreeSet<_>>(), names(&["4", "5", "6", "7"]));
        let pairs = of_ranks(&two, 2).join(",");
        assert_eq!(pairs.split(',').map(str::to_string).collect::<BTreeSet<_>>().len(), 4, "{pairs}");
        let halves = of_ranks(&half, 4);
        let shared: BTreeSet<String> = halves.iter().cloned().collect();
        assert!(
            shared.iter().all(|name| halves.iter().filter(|other| *other == name).count() == 2),
            "{halves:?}"
        );
        assert_eq!(of_ranks(&none, 2), ["4,5,6,7"; 2]);
        assert_eq!(of_ranks(&own, 2), ["mine"; 2]);
        assert_eq!(of_ranks(&more, 3).into_iter().collect::<BTreeSet<_>>().len(), 3);
        let text = batch.compile(tasks![job(5).gpus(1)]).expect_err("a mistake").to_string();
        assert!(text.contains("asks for 5 ranks of 1 of gpus, but the batch has 4 ("), "{text}");

        // Jobs and processes side by side, with a failing one amid them.
        let log = Log::new(folder.path());
        let script = format!(
            "echo \"+ 1000 ${VISIBLE}\" >> $0; sleep 0.05; echo \"- 1000 ${VISIBLE}\" >> $0; exit $1"
        );
        let jobs: Vec<_> = (0..6)
            .map(|i| batch.job("sh", 2).args(["-c", &script]).arg(&log.path).arg(u32::from(i == 2)).gpus(1))
            .collect();
        let processes: Vec<_> = (0..12).map(|_| log.process(&batch, 0.5)).collect();
        batch.compile(tasks![jobs, processes]).expect("a list").run().expect_err("one fails");
        drop(jobs[2].wait().expect_err("it fails"));
        let seen = fs::read_to_string(&log.path).expect("a log").lines().count();
        assert!(seen >= 46, "{seen}");
        let all = job(4).gpus(1);
        batch.compile(tasks![all]).expect("a list").run().expect("all are free");
        return say("all as it should be");
    }
    for (launcher, lacks) in [("mpirun", lacks_mpirun as fn() -> bool), ("mpirun.mpich", lacks_mpich)] {
        if !lacks() {
            let launch = Launch::alone("each_rank_of_a_job_has_its_own", launcher).env(VISIBLE, "4,5,6,7");
            let ended = launch.with_mpirun_environment().run();
            ended.expect_success();
            assert_eq!(ended.said(), ["all as it should be"]);
        }
    }
}

/// What one of the roles below says when it is through.
const WELL: &str = "all as it should be";

/// In an allocation that has two GPUs on each of two nodes.
fn in_an_allocation(folder: &Path) {
    let builder = Batch::builder().alone().assume_cpus(4).run_dir(folder).keep_output(true);
    let batch = builder.build().expect("a batch");
    let log = Log::new(folder);
    let list: Vec<_> = (0..12).map(|i| log.process(&batch, [1.0, 0.5, 2.0][i % 3])).collect();
    let show = format!("echo $(hostname) ${VISIBLE}");
    let job = |ranks: u32| batch.job("sh", ranks).args(["-c", &show]);
    // Beside each other: a name here is a node and its number there.
    let small = format!(
        "h=$(hostname); echo \"+ 1000 $h.${VISIBLE}\" >> $0; sleep 0.2; echo \"- 1000 $h.${VISIBLE}\" >> $0"
    );
    let jobs: Vec<_> =
        (0..8).map(|_| batch.job("sh", 1).args(["-c", &small]).arg(folder.join("jobs")).gpus(1)).collect();
    let (wide, half, two) = (job(4).gpus(1), job(8).gpus(0.5), job(2).gpus(2));
    let mpi = job(2).gpus(1).ranks_per_node(1);
    batch.compile(tasks![list, jobs, wide, half, two, mpi]).expect("a list").run().expect("all succeed");
    assert_eq!(log.read().most.into_keys().collect::<BTreeSet<_>>(), names(&["0", "1"]));
    let seen = Log { path: folder.join("jobs") }.read();
    assert!((seen.count, seen.most.len()) == (8, 4) && seen.names > 1, "{:?}", seen.most);
    let all = names(&["h0 0", "h0 1", "h1 0", "h1 1"]);
    assert_eq!(of_ranks(&wide, 4).into_iter().collect::<BTreeSet<_>>(), all);
    let halves = of_ranks(&half, 8);
    assert!(all.iter().all(|name| halves.iter().filter(|other| *other == name).count() == 2), "{halves:?}");
    assert_eq!(of_ranks(&two, 2).into_iter().collect::<BTreeSet<_>>(), names(&["h0 0,1", "h1 0,1"]));
    let text = batch.compile(tasks![job(5).gpus(1)]).expect_err("a mistake").to_string();
    assert!(
        text.contains("asks for 5 ranks of 1 of gpus, but the batch has 2 (CUDA_VISIBLE_DEVICES=0,1;"),
        "{text}"
    );
    assert!(text.contains("and 2 on each of 1 other host"), "{text}");
}

/// In an allocation that asked for three GPUs in all: two are here, and those are what jobs have.
fn in_an_uneven_allocation(folder: &Path) {
    let builder = Batch::builder().alone().assume_cpus(4).run_dir(folder).keep_output(true);
    let batch = builder.build().expect("a batch");
    let job =
        |ranks: u32| batch.job("sh", ranks).args(["-c", &format!("echo $(hostname) ${VISIBLE}")]).gpus(1);
    let (two, one) = (job(2), job(1));
    batch.compile(tasks![two, one]).expect("a list").run().expect("all succeed");
    assert_eq!(of_ranks(&two, 2).into_iter().collect::<BTreeSet<_>>(), names(&["h0 0", "h0 1"]));
    let text = batch.compile(tasks![job(3)]).expect_err("a mistake").to_string();
    assert!(text.contains("and 0 on each of 1 other host"), "{text}");
}

/// As one of four ranks on two nodes with two GPUs each.
fn as_ranks() {
    fn held(ctx: &Context) -> Vec<(u32, String, Vec<String>)> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim().to_string();
        ctx.gang().all_gather((ctx.rank(), host, ctx.gpus().to_vec())).expect("all are there")
    }
    let batch = Batch::builder().build().expect("a batch");
    let gang = batch.function(held, ()).gpus(1).ranks(4);
    batch.compile(tasks![gang]).expect("a list").run().expect("it succeeds");
    let held = gang.result().get().expect("a value");
    let seen =
        held.iter().map(|(_, host, gpus)| format!("{host} {}", gpus.join(","))).collect::<BTreeSet<_>>();
    assert_eq!(seen, names(&["h0 0", "h0 1", "h1 0", "h1 1"]), "{held:?}");
}

#[test]
fn gpus_that_slurm_grants_are_seen_by_processes_jobs_and_ranks() {
    let test = "gpus_that_slurm_grants_are_seen_by_processes_jobs_and_ranks";
    if let Some(role) = role() {
        let (what, folder) = role.split_once(' ').expect("two words");
        match what {
            "even" => in_an_allocation(Path::new(folder)),
            "uneven" => in_an_uneven_allocation(Path::new(folder)),
            "ranks" => as_ranks(),
            "one" => {
                let batch = Batch::builder().alone().build().expect("a batch");
                let one = batch.process("sh").args(["-c", &format!("echo ${VISIBLE}")]).gpus(1);
                batch.compile(tasks![one]).expect("a list").run().expect("it succeeds");
                assert_eq!(one.stdout().get().expect("text"), "0\n");
                let text = batch.compile(tasks![batch.process("true").gpus(2)]).expect_err("one is granted");
                assert!(text.to_string().contains("but the batch has 1 ("), "{text}");
            }
            _ => {
                let batch = Batch::builder().alone().build().expect("a batch");
                let text = batch.compile(tasks![batch.process("true").gpus(1)]).expect_err("none is granted");
                assert!(text.to_string().contains("Slurm has granted none to this job"), "{text}");
            }
        }
        return say(WELL);
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let Some(slurm) = Slurm::for_ranks_with_gpus(&hosts, 2) else { return };
    let program = std::env::current_exe().expect("this program");
    let words = tarragon_testbed::arguments(test).join(" ");
    for (what, options) in [
        ("even", &["--gres=gpu:2", "--nodes=2", "--ntasks-per-node=4"][..]),
        (
            "even",
            &["--gpus-per-task=1", "--nodes=2", "--ntasks=4", "--ntasks-per-node=2", "--cpus-per-task=2"],
        ),
        ("uneven", &["--gpus=3", "--nodes=2", "--ntasks-per-node=4"]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (script, output) = (folder.path().join("script"), folder.path().join("output"));
        fs::write(&script, format!("#!/bin/sh\nexec {} {words}\n", program.display())).expect("written");
        let mut sbatch = slurm.client("sbatch");
        sbatch.arg("--wait").args(options).arg("-o").arg(&output).arg(&script);
        let role = format!("{what} {}", folder.path().display());
        let ended = Launch::far(sbatch, test, &role).run();
        let text = fs::read_to_string(&output).unwrap_or_default();
        assert!(ended.status.success(), "{options:?}: {}\n{text}\n{}", ended.text, slurm.logs());
        assert!(text.contains(WELL), "{text}");
    }
    for (what, nodes, ranks, option) in
        [("ranks", 2, 4, "--gres=gpu:2"), ("one", 1, 1, "--gpus-per-task=1"), ("none", 1, 1, "--gres=none")]
    {
        let launch = Launch::far(slurm.srun(nodes), test, &format!("{what} -")).option(option);
        let ended = launch.ranks(ranks).run();
        assert!(ended.status.success(), "{what}: {}\n{}", ended.text, slurm.logs());
        assert_eq!(ended.said(), [WELL], "{}", ended.text);
    }
}
