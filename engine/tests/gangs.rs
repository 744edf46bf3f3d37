//! Gangs: functions that several ranks run at once.
//!
//! Each test starts this program once more in a role; that starts the ranks. Every process has a watchdog.

use std::io::{Error, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tarragon_engine::{
    AnyTask, Batch, Builder, Context, ErrorKind, GangError, Mistake, Task, Workers, tasks,
};
use tarragon_testbed::{Hosts, Launch, die, role};

fn builder(ranks: u32, threads: usize) -> Builder {
    Batch::builder().spawn(ranks).workers(Workers::Threads(threads)).assume_cpus(threads as u32)
}

fn batch(ranks: u32) -> Batch {
    builder(ranks, 1).build().expect("a batch")
}

fn alone(test: &'static str, role: &str) {
    Launch::alone(test, role).run().expect_success();
}

/// All that members can do together; what each of them says of it.
fn together(ctx: &Context, word: &str, n: u64) -> Result<Vec<String>, GangError> {
    let gang = ctx.gang();
    let (me, size) = (gang.member(), gang.size());
    assert_eq!(gang.ranks()[me as usize], ctx.rank());
    writeln!(ctx.out(), "{word} of {me}").expect("it is written");
    let next = (me + 1) % size;
    gang.send(next, 1, &format!("{me} to {next}"))?;
    let told: String = gang.receive((me + size - 1) % size, 1)?;
    let mine = (u64::from(me)..n).step_by(size as usize).sum();
    let sum: u64 = gang.all_reduce(mine, |a, b| a + b)?;
    let root: String = gang.broadcast(size - 1, format!("{word} {me}"))?;
    gang.barrier()?;
    gang.all_gather(format!("{me} on {}: {told}, {sum}, {root}", ctx.rank()))
}

fn expected(word: &str, n: u64, first: u32, size: u32) -> Vec<String> {
    let say = |me: u32| {
        let before = (me + size - 1) % size;
        let (rank, sum) = (first + me, n * (n - 1) / 2);
        format!("{me} on {rank}: {before} to {me}, {sum}, {word} {}", size - 1)
    };
    (0..size).map(say).collect()
}

#[test]
fn members_work_together() {
    if role().is_some() {
        let batch = batch(4);
        let word = batch.function(|| "word".to_string(), ());
        let gang = |size| batch.try_function(together, (word.result(), 100u64)).ranks(size);
        let (alone, two, three, four) = (gang(1), gang(2).at_rank(1), gang(3), gang(4));
        let length = batch.function(|all: &Vec<String>| all.len(), (four.result(),));
        let compiled = batch.compile(tasks![word, alone, two, three, four, length]).expect("a list");
        for _ in 0..20 {
            compiled.run().expect("no task fails");
            assert_eq!(two.result().get().expect("it ran"), expected("word", 100, 1, 2));
            let three = three.result().get().expect("it ran");
            let first = if three[0].starts_with("0 on 0") { 0 } else { 1 };
            assert_eq!(three, expected("word", 100, first, 3));
            assert_eq!(four.result().get().expect("it ran"), expected("word", 100, 0, 4));
            assert_eq!(length.result().get().expect("it ran"), 4);
            let wrote = four.stdout().get().expect("it wrote");
            assert_eq!(wrote, "word of 0\nword of 1\nword of 2\nword of 3\n");
        }
        // One alone, and one of a list that is not spread.
        let single = gang_of(&batch, 4);
        single.run().expect("it does not fail");
        assert_eq!(single.result().get().expect("it ran"), expected("solo", 10, 0, 4));
        return;
    }
    alone("members_work_together", "home");
}

fn gang_of(batch: &Batch, size: u32) -> Task<Vec<String>> {
    batch.try_function(together, ("solo".to_string(), 10u64)).ranks(size)
}

/// Members send the first one more than it may have in its mail; it receives all, or returns and receives none.
fn sends_much(ctx: &Context, receives: bool) -> Result<u64, GangError> {
    const COUNT: u64 = 40;
    let (gang, piece) = (ctx.gang(), vec![7_u8; 512 << 10]);
    if gang.member() != 0 {
        (0..COUNT).try_for_each(|number| gang.send(0, 1, &(number, piece.clone())))?;
        return Ok(0);
    }
    let mut sum = 0;
    for from in (1..gang.size()).filter(|_| receives) {
        for number in 0..COUNT {
            let (came, bytes): (u64, Vec<u8>) = gang.receive(from, 1)?;
            assert!(came == number && bytes == piece, "{came} for {number} of {from}");
            sum += 1;
        }
    }
    Ok(sum)
}

#[test]
fn a_member_that_does_not_receive_holds_up_nobody_once_it_has_returned() {
    if role().is_some() {
        let batch = batch(3);
        for (receives, expected) in [(true, 80), (false, 0), (true, 80)] {
            let task = batch.try_function(sends_much, (receives,)).ranks(3);
            task.run().expect("it does not fail");
            assert_eq!(task.result().get().expect("it ran"), expected);
        }
        return;
    }
    alone("a_member_that_does_not_receive_holds_up_nobody_once_it_has_returned", "home");
}

/// From a body on a guest: the ranks behind it.
#[test]
fn a_body_may_have_a_gang_of_its_own() {
    fn outer(ctx: &Context) -> Vec<String> {
        let batch = ctx.batch().expect("it has a batch");
        let inner = gang_of(&batch, 2);
        inner.run().expect("it does not fail");
        let too_many = gang_of(&batch, 4).start().expect_err("there are two from here on");
        assert!(too_many.to_string().contains("from rank 2 on there are 2"), "{too_many}");
        inner.result().get().expect("it ran")
    }
    if role().is_some() {
        let batch = batch(4);
        let task = batch.function(outer, ()).at_rank(2);
        batch.compile(tasks![task]).expect("a list").run().expect("no task fails");
        assert_eq!(task.result().get().expect("it ran"), expected("solo", 10, 2, 2));
        return;
    }
    alone("a_body_may_have_a_gang_of_its_own", "home");
}

/// One member fails in one of three ways while the others wait for it.
fn fails(ctx: &Context, member: u32, how: u32) -> Result<u32, Error> {
    let gang = ctx.gang();
    write!(ctx.out(), "{}", gang.member())?;
    if gang.member() == member {
        match how {
            0 => return Err(Error::other(format!("{member} has no more"))),
            1 => panic!("{member} panics"),
            // It returns and lets the others wait.
            _ => return Ok(member),
        }
    }
    gang.barrier().map_err(Error::other)?;
    Ok(gang.member())
}

#[test]
fn one_that_fails_fails_the_task_and_nobody_waits_for_it() {
    if role().is_some() {
        let batch = batch(3);
        for member in 0..3 {
            for how in 0..3 {
                let task = batch.function(fails, (member, how)).ranks(3);
                let next = batch.function(|n: u32| n, (task.result(),));
                let compiled = batch.compile(tasks![task, next]).expect("a list");
                compiled.run().expect_err("it fails");
                let error = task.result().get().expect_err("it failed");
                let text = error.to_string();
                match how {
                    0 => assert!(text.contains(&format!("{member} has no more")), "{text}"),
                    1 => assert!(text.contains(&format!("{member} panics")), "{text}"),
                    _ => assert!(text.contains(&format!("member {member} has returned")), "{text}"),
                }
                let kind = if how == 1 { ErrorKind::Panicked } else { ErrorKind::Failed };
                assert_eq!(error.kind(), kind, "{text}");
                if how < 2 {
                    assert_eq!(error.rank(), member, "{text}");
                }
                assert_eq!(next.result().get().expect_err("skipped").kind(), ErrorKind::Skipped);
            }
        }
        return;
    }
    alone("one_that_fails_fails_the_task_and_nobody_waits_for_it", "home");
}

#[test]
fn attempts_are_gangs_of_their_own() {
    fn third(ctx: &Context, folder: PathBuf) -> Result<usize, Error> {
        let gang = ctx.gang();
        let path = folder.join(gang.member().to_string());
        let tries = std::fs::read(&path).unwrap_or_default().len() + 1;
        std::fs::write(&path, vec![b'x'; tries])?;
        let all = gang.all_gather(tries).map_err(Error::other)?;
        assert!(all.iter().all(|other| *other == tries), "{all:?}");
        // Another one each time.
        if tries <= 2 && gang.member() as usize == tries {
            return Err(Error::other("not yet"));
        }
        gang.barrier().map_err(Error::other)?;
        Ok(tries)
    }
    if role().is_some() {
        let batch = batch(3);
        let folder = tempfile::tempdir().expect("a folder");
        let task = batch.function(third, (folder.path().to_path_buf(),)).ranks(3).retries(2);
        batch.compile(tasks![task]).expect("a list").run().expect("it succeeds at last");
        assert_eq!(task.result().get().expect("it ran"), 3);
        return;
    }
    alone("attempts_are_gangs_of_their_own", "home");
}

/// Waits for what never comes, or until nobody wants it; says which.
fn waits(ctx: &Context, folder: PathBuf, asks: bool) -> Result<u32, Error> {
    let gang = ctx.gang();
    let say = |word: &str| std::fs::write(folder.join(format!("{word}{}", gang.member())), word);
    gang.barrier().map_err(Error::other)?;
    say("begun")?;
    if asks {
        while !ctx.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
    } else if let Err(error) = gang.receive::<u32>((gang.member() + 1) % gang.size(), 5) {
        assert!(matches!(error, GangError::Stopped { .. }), "{error}");
    }
    say("ended")?;
    Ok(1)
}

fn all_there(folder: &Path, word: &str, members: u32) -> bool {
    (0..members).all(|member| folder.join(format!("{word}{member}")).exists())
}

fn wait_for(folder: &Path, word: &str, members: u32) {
    let begin = std::time::Instant::now();
    while !all_there(folder, word, members) {
        let there: Vec<_> =
            std::fs::read_dir(folder).expect("it is there").flatten().map(|it| it.file_name()).collect();
        assert!(begin.elapsed() < Duration::from_secs(30), "{members} have not all {word}: {there:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn all_members_hear_that_it_is_over() {
    if role().is_some() {
        let batch = batch(3);
        for asks in [true, false] {
            // Late.
            let folder = tempfile::tempdir().expect("a folder");
            let late = batch.function(waits, (folder.path().to_path_buf(), asks)).ranks(3);
            let late = late.timeout(Duration::from_millis(300));
            let compiled = batch.compile(tasks![late]).expect("a list");
            compiled.run().expect_err("it is late");
            assert_eq!(late.result().get().expect_err("it is late").kind(), ErrorKind::OverTime);
            wait_for(folder.path(), "ended", 3);
            // Cancelled.
            let folder = tempfile::tempdir().expect("a folder");
            let task = batch.function(waits, (folder.path().to_path_buf(), asks)).ranks(2).at_rank(1);
            let compiled = batch.compile(tasks![task]).expect("a list");
            compiled.start().expect("it starts");
            wait_for(folder.path(), "begun", 2);
            compiled.cancel();
            let _ = compiled.wait();
            wait_for(folder.path(), "ended", 2);
        }
        return;
    }
    alone("all_members_hear_that_it_is_over", "home");
}

static AT_ONCE: AtomicU32 = AtomicU32::new(0);

/// Holds the only cpu of its rank.
fn alone_here(ctx: &Context, ms: u64) -> Result<u32, GangError> {
    assert_eq!(AT_ONCE.fetch_add(1, Ordering::SeqCst), 0, "two hold the cpu of rank {}", ctx.rank());
    let all = ctx.gang().all_reduce(1, |a: u32, b| a + b);
    std::thread::sleep(Duration::from_millis(ms));
    AT_ONCE.fetch_sub(1, Ordering::SeqCst);
    all
}

/// Many that want the same ranks, among other tasks that do.
#[test]
fn gangs_that_want_the_same_cpus_take_turns() {
    if role().is_some() {
        let batch = batch(4);
        let size = |i: u32| 1 + i * 7 % 4;
        let task = |i: u32| batch.try_function(alone_here, (u64::from(i % 3),)).ranks(size(i)).cpus(1);
        let mut list: Vec<_> = (0..60).map(task).collect();
        // From any rank on that has enough behind it.
        list.extend((0..60).map(|i| task(i).at_rank(i % (5 - size(i)))));
        let compiled = batch.compile(&list).expect("a list");
        for _ in 0..3 {
            compiled.run().expect("no task fails");
            for (i, task) in (0..).zip(&list) {
                assert_eq!(task.result().get().expect("it ran"), size(i % 60));
            }
        }
        return;
    }
    alone("gangs_that_want_the_same_cpus_take_turns", "home");
}

/// A journal tells a gang of two from one of three, and one that has run need not run again.
#[test]
fn a_journal_knows_how_many_there_were() {
    fn counts(ctx: &Context, folder: PathBuf) -> Result<u32, Error> {
        let gang = ctx.gang();
        std::fs::write(folder.join(format!("{} of {}", gang.member(), gang.size())), "")?;
        gang.all_reduce(1, |a: u32, b| a + b).map_err(Error::other)
    }
    if let Some(folder) = role() {
        let ran = PathBuf::from(&folder).join("ran");
        for (round, size, runs) in [(0, 2, true), (1, 2, false), (2, 3, true)] {
            let journal = Path::new(&folder).join("journal");
            let batch = builder(3, 1).journal(journal).resume(round > 0).build().expect("a batch");
            // What comes before the batch other ranks do as well.
            let _ = std::fs::remove_dir_all(&ran);
            std::fs::create_dir(&ran).expect("a folder");
            let task = batch.function(counts, (ran.clone(),)).ranks(size);
            // Of a journal some task must be in the list.
            let other = batch.function(|| 7u32, ());
            let compiled = batch.compile(tasks![other, task]).expect("a list");
            compiled.run().expect("no task fails");
            assert_eq!(compiled.reused(), [0, 2, 1][round]);
            assert_eq!(task.result().get().expect("it ran"), size);
            let members = std::fs::read_dir(&ran).expect("it is there").count();
            assert_eq!(members, if runs { size as usize } else { 0 }, "round {round}");
        }
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    alone("a_journal_knows_how_many_there_were", folder.path().to_str().expect("text"));
}

#[test]
fn what_cannot_be_a_gang_is_a_mistake() {
    let mistakes = |batch: &Batch, list: &[&dyn AnyTask]| {
        let error = batch.compile(list).expect_err("a mistake");
        let tarragon_engine::Error::Compile(error) = error else { panic!("{error}") };
        error.mistakes
    };
    let batch = Batch::new().expect("a batch");
    let (three, none) = (gang_of(&batch, 3), gang_of(&batch, 0));
    let found = mistakes(&batch, &[&three, &none]);
    assert!(matches!(found[..], [Mistake::BadAmount { .. }]), "{found:?}");
    let three = gang_of(&batch, 3);
    let found = mistakes(&batch, &[&three]);
    assert!(matches!(found[..], [Mistake::TooFewRanks { asked: 3, from: 0, there: 1, .. }]), "{found:?}");
    let captured = String::new();
    let closure = batch.closure(move || captured.len()).ranks(2);
    let process = batch.process("true").ranks(2);
    let found = mistakes(&batch, &[&closure, &process]);
    assert!(matches!(found[..], [Mistake::NoGang { .. }, Mistake::NoGang { .. }]), "{found:?}");
    let texts = found.iter().map(ToString::to_string).collect::<String>();
    assert!(texts.contains("a closure") && texts.contains("a process"), "{texts}");
    let serial = Batch::builder().workers(Workers::Serial).build().expect("a batch");
    assert!(matches!(
        mistakes(&serial, &[&gang_of(&serial, 2)])[..],
        [Mistake::TooFewRanks { there: 1, .. }]
    ));
    let one = gang_of(&serial, 1);
    serial.compile(tasks![one]).expect("a list").run().expect("no task fails");
    assert_eq!(one.result().get().expect("it ran"), expected("solo", 10, 0, 1));
}

fn dies(ctx: &Context, member: u32) -> Result<u32, GangError> {
    ctx.gang().barrier()?;
    if ctx.gang().member() == member {
        die();
    }
    ctx.gang().barrier()?;
    Ok(0)
}

/// A rank that dies ends the world, and is named.
#[test]
fn a_member_that_dies_is_named() {
    const ROLE: &str = "home";
    if role().is_some() {
        let batch = batch(3);
        let task = batch.try_function(dies, (1u32,)).ranks(3);
        let compiled = batch.compile(tasks![task]).expect("a list");
        compiled.run().expect_err("a member is dead");
        let error = task.result().get().expect_err("a member is dead");
        let text = error.to_string();
        assert!(text.contains("rank 1") || text.contains("member 1"), "{text}");
        return;
    }
    alone("a_member_that_dies_is_named", ROLE);
}

/// Its members on machines that share nothing.
#[test]
fn a_gang_spans_machines() {
    if role().is_some() {
        let batch = Batch::builder().workers(Workers::Threads(1)).build().expect("a batch");
        let all = gang_of(&batch, 4);
        let one = batch.try_function(together, ("pair".to_string(), 50u64)).ranks(2).at_rank(1);
        let compiled = batch.compile(tasks![all, one]).expect("a list");
        for _ in 0..5 {
            compiled.run().expect("no task fails");
            assert_eq!(all.result().get().expect("it ran"), expected("solo", 10, 0, 4));
            assert_eq!(one.result().get().expect("it ran"), expected("pair", 50, 1, 2));
        }
        return;
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    Launch::far(hosts.mpirun(2), "a_gang_spans_machines", "rank").ranks(4).run().expect_success();
}
