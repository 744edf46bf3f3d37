//! Work stealing between ranks: a rank with nothing to do runs tasks of others, and nobody sees a difference but the
//! time.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tarragon_engine::{Batch, Builder, Compiled, Context, ErrorKind, Task, Workers, results, tasks};
use tarragon_testbed::{Hosts, Launch, die, role, say, wait_until};

fn builder(ranks: u32, threads: usize) -> Builder {
    Batch::builder().spawn(ranks).workers(Workers::Threads(threads))
}

fn batch(ranks: u32, threads: usize) -> Batch {
    builder(ranks, threads).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

fn stolen(compiled: &Compiled) -> u64 {
    compiled.traffic().expect("it is on several ranks").tasks_stolen
}

/// Takes its time, and says where.
fn work(context: &Context, ms: u64) -> u32 {
    std::thread::sleep(Duration::from_millis(ms));
    context.rank()
}

/// Those placed on rank 0 and the others of a list whose first half takes all the time.
fn lopsided(batch: &Batch, tasks: u64, ms: u64) -> Vec<Task<u32>> {
    (0..tasks).map(|i| batch.function(work, (if i < tasks / 2 { ms } else { 0 },))).collect()
}

#[test]
fn a_rank_with_nothing_to_do_runs_tasks_of_another() {
    if role().is_some() {
        for (ranks, threads) in [(2, 1), (2, 2), (3, 1)] {
            let batch = batch(ranks, threads);
            let list = lopsided(&batch, 60, 10);
            let compiled = batch.compile(&list).expect("a list");
            for _ in 0..2 {
                compiled.run().expect("no task fails");
                assert!(stolen(&compiled) >= 3, "{:?}", compiled.traffic());
                let slow: BTreeSet<u32> =
                    list[..20].iter().map(|task| task.result().get().expect("it ran")).collect();
                assert!(slow.len() >= 2, "all of the slow ones ran on {slow:?}");
            }
        }
        return;
    }
    alone("a_rank_with_nothing_to_do_runs_tasks_of_another", "home");
}

#[test]
fn guests_steal_from_guests_and_home_from_them() {
    if role().is_some() {
        let batch = batch(3, 1);
        // Of three blocks the one of rank 2 takes all the time.
        let list: Vec<_> = (0..90u64).map(|i| batch.function(work, (if i < 60 { 0 } else { 10 },))).collect();
        let compiled = batch.compile(&list).expect("a list");
        compiled.run().expect("no task fails");
        let slow: BTreeSet<u32> =
            list[60..].iter().map(|task| task.result().get().expect("it ran")).collect();
        assert_eq!(slow, (0..3).collect(), "{:?}", compiled.traffic());
        return;
    }
    alone("guests_steal_from_guests_and_home_from_them", "home");
}

#[test]
fn what_the_user_placed_stays_and_so_does_all_without_stealing() {
    if role().is_some() {
        let here = batch(2, 1);
        let list: Vec<_> = (0..40u64).map(|_| here.function(work, (5u64,)).at_rank(1)).collect();
        let compiled = here.compile(&list).expect("a list");
        compiled.run().expect("no task fails");
        assert_eq!(stolen(&compiled), 0);
        assert!(list.iter().all(|task| task.result().get().expect("it ran") == 1));

        let placed = builder(2, 1).work_stealing(false).build().expect("a batch");
        let list = lopsided(&placed, 40, 5);
        let compiled = placed.compile(&list).expect("a list");
        compiled.run().expect("no task fails");
        assert_eq!(stolen(&compiled), 0);
        assert!(list[..20].iter().all(|task| task.result().get().expect("it ran") == 0));
        return;
    }
    alone("what_the_user_placed_stays_and_so_does_all_without_stealing", "home");
}

fn talks(context: &Context, n: u64) -> Result<String, std::io::Error> {
    std::thread::sleep(Duration::from_millis(5));
    writeln!(context.out(), "{n} to out")?;
    writeln!(context.err(), "{n} to err")?;
    match n % 5 {
        3 => Err(std::io::Error::other(format!("{n} on rank {}", context.rank()))),
        4 => panic!("{n} panics"),
        _ => Ok(format!("{n}")),
    }
}

fn after(before: &str, more: Vec<String>) -> String {
    format!("{before}{}", more.concat())
}

/// Values, failures, panics, what was written, and what follows from it: as if nothing had been stolen.
#[test]
fn what_comes_back_is_what_would_have_been() {
    if role().is_some() {
        let batch = batch(2, 1);
        let sleep: Vec<_> = (0..60).map(|_| batch.function(work, (0u64,))).collect();
        let list: Vec<_> = (0..60u64).map(|n| batch.function(talks, (n,))).collect();
        // The other half of their level has ended before.
        let level: Vec<_> = list.iter().zip(&sleep).collect();
        let next: Vec<_> = list
            .windows(2)
            .map(|two| batch.function(after, (two[0].result(), vec![two[1].result()])))
            .collect();
        let _ = level;
        let compiled = batch.compile(tasks![list, sleep, next]).expect("a list");
        // By rank where tasks failed, over some runs: which are stolen is chance.
        let (mut ranks, mut run) = (BTreeSet::new(), 0);
        while run < 2 || run < 20 && ranks.len() < 2 {
            run += 1;
            compiled.run().expect_err("some fail");
            assert!(stolen(&compiled) > 0);
            for (n, task) in list.iter().enumerate() {
                let wrote = format!("{n} to out\n");
                match (n % 5, task.result().get()) {
                    (3, Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Failed);
                        assert!(
                            error.to_string().contains(&format!("{n} on rank {}", error.rank())),
                            "{error}"
                        );
                        assert_eq!(error.stdout(), Some(&wrote[..]));
                        assert_eq!(error.index(), n as u32);
                        ranks.insert(error.rank());
                    }
                    (4, Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Panicked);
                        assert!(error.to_string().contains(&format!("{n} panics")), "{error}");
                    }
                    (_, Ok(value)) => {
                        assert_eq!(value, n.to_string());
                        assert_eq!(task.stdout().get().expect("it has ended"), wrote);
                        assert_eq!(task.stderr().get().expect("it has ended"), format!("{n} to err\n"));
                    }
                    (_, other) => panic!("run {run}: task {n}: {other:?}"),
                }
            }
            for (n, task) in next.iter().enumerate() {
                match task.result().get() {
                    Ok(value) => assert_eq!(value, format!("{n}{}", n + 1)),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Skipped, "{error}"),
                }
            }
        }
        assert_eq!(ranks.len(), 2, "stolen ones fail as well");
        return;
    }
    alone("what_comes_back_is_what_would_have_been", "home");
}

fn long(n: u64, bytes: usize) -> Vec<u8> {
    vec![n as u8; bytes]
}

fn sum(all: Vec<Vec<u8>>) -> u64 {
    std::thread::sleep(Duration::from_millis(3));
    all.iter().flatten().map(|byte| u64::from(*byte)).sum()
}

/// Arguments that are results go as values, and are let go of as if they had been taken here.
#[test]
fn values_go_to_the_thief_and_back() {
    if role().is_some() {
        let batch = batch(2, 2);
        let values: Vec<_> = (0..40u64).map(|n| batch.function(long, (n % 7, 10_000usize))).collect();
        let some = |i: usize| vec![values[i].result(), values[(i * 7) % 40].result()];
        let sums: Vec<_> =
            (0..40).map(|i| batch.function(sum, (some(i),)).cost(if i < 20 { 1.0 } else { 50.0 })).collect();
        let compiled = batch.compile(tasks![values, sums]).expect("a list");
        for _ in 0..3 {
            compiled.run().expect("no task fails");
            for (i, task) in sums.iter().enumerate() {
                let wanted = 10_000 * ((i as u64 % 7) + ((i as u64 * 7) % 40) % 7);
                assert_eq!(task.result().get().expect("it ran"), wanted);
            }
        }
        assert!(stolen(&compiled) > 0, "{:?}", compiled.traffic());
        return;
    }
    alone("values_go_to_the_thief_and_back", "home");
}

fn patient(context: &Context, begun: PathBuf) -> bool {
    let mark = begun.join(context.rank().to_string());
    std::fs::write(mark, "").expect("it can be written");
    while !context.cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn what_was_stolen_is_cancelled_with_the_rest() {
    if role().is_some() {
        let batch = batch(2, 1);
        let folder = tempfile::tempdir().expect("a folder");
        let slow: Vec<_> = (0..4).map(|_| batch.function(patient, (folder.path().to_path_buf(),))).collect();
        let fast: Vec<_> = (0..4).map(|_| batch.function(work, (0u64,))).collect();
        let compiled = batch.compile(tasks![slow, fast]).expect("a list");
        compiled.start().expect("it starts");
        wait_until("both ranks are inside a patient body", || {
            (0..2).all(|rank| folder.path().join(rank.to_string()).exists())
        });
        compiled.cancel();
        compiled.wait().expect_err("some were cancelled");
        assert_eq!(compiled.progress().ended(), 8);
        return;
    }
    alone("what_was_stolen_is_cancelled_with_the_rest", "home");
}

fn die_elsewhere(context: &Context, ms: u64) -> u32 {
    std::thread::sleep(Duration::from_millis(ms));
    if context.rank() == 1 && ms > 0 {
        die();
    }
    context.rank()
}

/// A thief that dies takes nothing with it that nobody knows of: the list ends with an error that names it.
#[test]
fn a_thief_that_dies_is_named() {
    if role().is_some() {
        let batch = batch(2, 1);
        let list: Vec<_> =
            (0..20u64).map(|i| batch.function(die_elsewhere, (if i < 10 { 10u64 } else { 0 },))).collect();
        let compiled = batch.compile(&list).expect("a list");
        let error = compiled.run().expect_err("a rank dies");
        assert!(error.to_string().contains("rank 1 on "), "{error}");
        assert_eq!(compiled.progress().ended(), 20, "{:?}", compiled.progress());
        say("the program goes on");
        return;
    }
    let ended = Launch::alone("a_thief_that_dies_is_named", "home").run();
    ended.expect_success();
    assert_eq!(ended.said(), ["the program goes on"], "{}", ended.text);
}

/// A report says where a stolen task ran.
#[test]
fn a_report_shows_who_ran_what() {
    if role().is_some() {
        let batch = builder(2, 1).timing(true).build().expect("a batch");
        let list = lopsided(&batch, 40, 10);
        let compiled = batch.compile(&list).expect("a list");
        compiled.run().expect("no task fails");
        let ran: BTreeSet<u32> = list[..20].iter().map(|task| task.result().get().expect("it ran")).collect();
        assert_eq!(ran.len(), 2);
        let at_1 = list.iter().filter(|task| task.result().get().expect("it ran") == 1).count();
        let table = compiled.report().expect("it is measured").to_string();
        let mut rows = table.lines().skip_while(|line| !line.starts_with("rank ")).skip(1);
        let row = rows.find(|row| row.trim_start().starts_with("1 ")).expect("the row of rank 1");
        assert_eq!(row.split_whitespace().nth(1), Some(&at_1.to_string()[..]), "{table}");
        return;
    }
    alone("a_report_shows_who_ran_what", "home");
}

/// Tasks that are shorter than their way stay, but for some that are tried.
#[test]
fn short_tasks_are_not_worth_their_way() {
    if role().is_some() {
        let batch = batch(2, 1);
        let list: Vec<_> = (0..400_000u64).map(|n| batch.function(|n: u64| n + 1, (n,))).collect();
        let costs =
            list.into_iter().enumerate().map(|(i, task)| task.cost(if i < 200_000 { 1.0 } else { 1e6 }));
        let list: Vec<_> = costs.collect();
        let compiled = batch.compile(&list).expect("a list");
        compiled.run().expect("no task fails");
        assert!(stolen(&compiled) < 20_000, "{:?}", compiled.traffic());
        return;
    }
    alone("short_tasks_are_not_worth_their_way", "home");
}

/// Processes go to a rank with a free cpu: what they write, use and how they end come back.
#[test]
fn processes_are_stolen_with_their_output() {
    if let Some(folder) = role() {
        // Where some fail the output stays.
        let batch = builder(2, 1).assume_cpus(1).timing(true).run_dir(folder).build().expect("a batch");
        let script = "sleep 0.02; yes $0 | head -c 2500000; echo $0 $PPID >&2; exit $(($0 % 4))";
        let slow: Vec<_> = (0..24)
            .map(|i| batch.process("sh").args(["-c", script, &i.to_string()]).accept_exit(1).accept_exit(2))
            .collect();
        let fast: Vec<_> = (0..24).map(|_| batch.process("true")).collect();
        let compiled = batch.compile(tasks![slow, fast]).expect("a list");
        for _ in 0..2 {
            compiled.run().expect_err("some fail");
            assert!(stolen(&compiled) > 0, "{:?}", compiled.traffic());
            let mut parents = BTreeSet::new();
            for (i, task) in slow.iter().enumerate() {
                let (out, err) =
                    (task.stdout().so_far().expect("output"), task.stderr().so_far().expect("output"));
                assert_eq!(out.len(), 2_500_000);
                assert!(out.starts_with(&format!("{i}\n{i}\n")));
                parents.insert(err.split_whitespace().nth(1).expect("a parent").to_string());
                match task.result().get() {
                    Ok(exit) => assert_eq!(exit.code, i as i32 % 4),
                    Err(error) => {
                        assert_eq!(i % 4, 3, "{error}");
                        assert!(error.to_string().contains("exit code 3"), "{error}");
                        assert!(error.to_string().contains(&format!("{i} ")), "its last words: {error}");
                    }
                }
            }
            // Each rank's own supervisor.
            assert_eq!(parents.len(), 2, "{parents:?}");
        }
        return;
    }
    let (test, folder) = ("processes_are_stolen_with_their_output", tempfile::tempdir().expect("a folder"));
    alone(test, folder.path().to_str().expect("text"));
}

fn holds_a_cpu(context: &Context, ms: u64) -> u32 {
    work(context, ms)
}

fn late(context: &Context, n: u32) -> u32 {
    while n == 0 && !context.cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    n
}

/// Functions that hold cpus, their limits and their retries go along.
#[test]
fn limits_go_with_what_is_stolen() {
    fn third(path: PathBuf) -> Result<usize, std::io::Error> {
        let mut tries = std::fs::read_to_string(&path).unwrap_or_default();
        tries.push('x');
        std::fs::write(&path, &tries)?;
        std::thread::sleep(Duration::from_millis(5));
        if tries.len() < 3 { Err(std::io::Error::other("not yet")) } else { Ok(tries.len()) }
    }
    if role().is_some() {
        let batch = builder(2, 1).assume_cpus(1).build().expect("a batch");
        let folder = tempfile::tempdir().expect("a folder");
        let slow: Vec<_> = (0..10).map(|_| batch.function(holds_a_cpu, (10u64,)).cpus(1)).collect();
        let late = batch.function(late, (0u32,)).timeout(Duration::from_millis(50));
        let tries: Vec<_> = (0..10)
            .map(|i| batch.function(third, (folder.path().join(i.to_string()),)).retries(5).cpus(1))
            .collect();
        let fast: Vec<_> = (0..21).map(|_| batch.function(holds_a_cpu, (0u64,)).cpus(1)).collect();
        let compiled = batch.compile(tasks![slow, late, tries, fast]).expect("a list");
        compiled.run().expect_err("one is late");
        assert!(stolen(&compiled) > 0, "{:?}", compiled.traffic());
        let ranks: BTreeSet<u32> = slow.iter().map(|task| task.result().get().expect("it ran")).collect();
        assert_eq!(ranks.len(), 2);
        assert_eq!(late.result().get().expect_err("it was late").kind(), ErrorKind::OverTime);
        assert!(tries.iter().all(|task| task.result().get().expect("at last") == 3));
        return;
    }
    alone("limits_go_with_what_is_stolen", "home");
}

/// What cannot be stolen keeps its place in the list: a body that waits for what those before it do has them before it.
#[test]
fn what_stays_keeps_its_order() {
    static STEPS: AtomicU64 = AtomicU64::new(0);
    fn step(_: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(1));
        STEPS.fetch_add(1, Ordering::Relaxed)
    }
    fn wait_for_steps(steps: u64) -> u64 {
        while STEPS.load(Ordering::Relaxed) < steps {
            std::thread::sleep(Duration::from_millis(1));
        }
        steps
    }
    if role().is_some() {
        let batch = batch(2, 1);
        let mut list: Vec<_> = (0..60u64).map(|n| batch.function(step, (n,)).at_rank(0)).collect();
        list.push(batch.function(wait_for_steps, (60u64,)).at_rank(0));
        list.push(batch.function(step, (0u64,)).at_rank(1));
        batch.compile(&list).expect("a list").run().expect("the last one has them all before it");
        return;
    }
    alone("what_stays_keeps_its_order", "home");
}

/// On machines that share nothing.
#[test]
fn a_machine_helps_another() {
    if role().is_some() {
        let batch = Batch::builder().workers(Workers::Threads(1)).build().expect("a batch");
        let list = lopsided(&batch, 60, 20);
        let compiled = batch.compile(&list).expect("a list");
        compiled.run().expect("no task fails");
        let slow = results(&list).expect("all ran");
        assert!(slow[..30].contains(&1), "{slow:?}");
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    Launch::far(hosts.mpirun(1), "a_machine_helps_another", "rank").ranks(2).run().expect_success();
}
