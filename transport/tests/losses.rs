//! Ranks that are lost while the others go on: killed, frozen, cut off or switched off. Through shared memory, through
//! the network, and on several machines.
//!
//! Ranks are copies of this program, or started by a launcher; every process has a watchdog. How long it takes until a
//! loss is known is printed, not asserted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "says what is skipped, and figures")]

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, getpid, kill_process};
use tarragon_testbed::{Hosts, Launch, PATIENCE, Slurm, role, say};
use tarragon_transport::{
    Bootstrap, CastOut, Change, FabricError, HandlerId, Launched, Loss, Losses, PeerState, Rank, Spawn, Why,
    World, WorldError,
};

/// How long a rank of these tests may give no sign of life.
const LIMIT: Duration = Duration::from_millis(1500);
/// When the sender is about to be lost.
const LAST_WORDS: HandlerId = HandlerId(1);
const HELLO: HandlerId = HandlerId(2);
/// What a rank sends that was lost and does not know it yet.
const STALE: HandlerId = HandlerId(3);
/// The sender has heard all that it is to hear of the receiver.
const HEARD: HandlerId = HandlerId(4);
/// How a rank ends that was cast out, as it must.
const CAST_OUT: i32 = 7;

fn losses() -> Losses {
    Losses::from_environment().limit(LIMIT).survived()
}

fn spawn(size: u32, test: &str) -> Spawn {
    let arguments = ["--exact", test, "--nocapture", "--test-threads", "1"];
    Spawn::new(size).args(arguments).join_timeout(PATIENCE)
}

fn join(spawn: Spawn) -> World {
    World::join_with(&Bootstrap::Spawn(spawn), losses()).unwrap()
}

/// A rank among others, some of which go.
struct Rig {
    world: World,
    changes: Arc<Mutex<Vec<Change>>>,
    hellos: Arc<AtomicU64>,
    hellos_expected: AtomicU64,
    heard: Arc<AtomicU64>,
    stale: Arc<AtomicU64>,
    /// When the last one said that it was about to go, in nanoseconds of the system's clock.
    last_words: Arc<AtomicU64>,
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

impl Rig {
    fn new(world: World) -> Rig {
        let rig = Rig {
            world,
            changes: Arc::default(),
            hellos: Arc::default(),
            hellos_expected: AtomicU64::new(0),
            heard: Arc::default(),
            stale: Arc::default(),
            last_words: Arc::default(),
        };
        let changes = Arc::clone(&rig.changes);
        rig.world.on_change(move |_, change| changes.lock().unwrap().push(change.clone()));
        let words = [(LAST_WORDS, &rig.last_words), (STALE, &rig.stale)];
        for (id, sum) in words.into_iter().chain([(HELLO, &rig.hellos), (HEARD, &rig.heard)]) {
            let sum = Arc::clone(sum);
            rig.world.on(id, move |_, message| {
                sum.fetch_add(message.tag, SeqCst);
            });
        }
        rig.world.barrier_timeout(PATIENCE).unwrap();
        // Nobody goes before all have passed.
        std::thread::sleep(LIMIT / 5);
        rig
    }

    /// Says when, to rank 0.
    fn say_last_words(&self) {
        self.world.send(Rank(0), LAST_WORDS, now_ns(), b"").unwrap();
        self.world.fabric().flush().unwrap();
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < PATIENCE, "rank {}: {what} has not come about", self.world.rank());
            self.world.wait(Duration::from_millis(50));
        }
    }

    /// Waits until so many losses are known to all; they are told in order, once.
    fn expect_losses(&self, count: u32) -> Vec<Loss> {
        let settled = || self.changes.lock().unwrap().contains(&Change::Settled(count));
        self.until("the loss", || self.world.losses().len() == count as usize);
        let (known, said) = (now_ns(), self.last_words.swap(0, SeqCst));
        if self.world.rank() == Rank(0) && said > 0 {
            eprintln!("figure: known after {} ms of {LIMIT:?}", known.saturating_sub(said) / 1_000_000);
        }
        self.until("that all know", settled);
        let losses = self.world.losses();
        let told = self.changes.lock().unwrap().clone();
        let told: Vec<Loss> = told
            .into_iter()
            .filter_map(|it| if let Change::Lost(loss) = it { Some(loss) } else { None })
            .collect();
        assert_eq!(told, losses);
        assert_eq!(losses.iter().map(|loss| loss.epoch).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
        for loss in &losses {
            assert_eq!(Some(&loss.host[..]), self.world.host(loss.rank));
            assert_eq!(self.world.peer(loss.rank), PeerState::Dead);
            let error = self.world.send(loss.rank, HELLO, 1, b"").unwrap_err();
            assert_eq!(error.to_string(), loss.to_string());
            assert!(matches!(error, FabricError::Lost(of) if *of == *loss));
        }
        losses
    }

    /// What all do together is an error and no endless wait; the others reach one another as before.
    fn expect_the_others(&self, survivors: &[u32]) {
        let met = self.world.barrier_timeout(PATIENCE);
        assert!(matches!(met, Err(WorldError::Fabric(FabricError::Lost(_)))), "{met:?}");
        let others = || survivors.iter().filter(|&&rank| rank != self.world.rank().0);
        let expected = others().count() as u64;
        let expected = self.hellos_expected.fetch_add(expected, SeqCst) + expected;
        others().for_each(|&rank| self.world.send(Rank(rank), HELLO, 1, b"").unwrap());
        self.until("a word of the others", || self.hellos.load(SeqCst) >= expected);
        assert_eq!(self.stale.load(SeqCst), 0, "a lost rank was heard");
    }

    /// Sends as if nothing had happened, until it hears what has.
    fn speak_until_cast_out(&self, to: Rank) -> CastOut {
        let begin = Instant::now();
        loop {
            match self.world.send(to, STALE, 1, b"still here?") {
                Err(FabricError::CastOut { rank, why }) => {
                    assert_eq!((rank, Some(why)), (self.world.rank(), self.world.cast_out()));
                    return why;
                }
                // The connection is broken, and that it is out for that is decided next.
                Ok(()) | Err(FabricError::PeerDead { .. } | FabricError::Unreachable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            assert!(begin.elapsed() < PATIENCE, "it is never cast out");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The end of a rank that was cast out: it can do nothing together with others any more, and leaves.
    fn end_cast_out(self) -> ! {
        let met = self.world.barrier_timeout(PATIENCE);
        assert!(matches!(met, Err(WorldError::Fabric(FabricError::CastOut { .. }))), "{met:?}");
        drop(self.world.leave());
        std::process::exit(CAST_OUT);
    }
}

fn signal_self(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

fn die() -> ! {
    signal_self(Signal::KILL);
    std::thread::sleep(PATIENCE);
    std::process::abort()
}

/// Leaves, and returns how each other rank has ended.
fn ends(world: &World) -> Vec<(u32, Option<i32>)> {
    use std::os::unix::process::ExitStatusExt;
    let ends = world.leave_timeout(PATIENCE).unwrap();
    ends.iter().map(|end| (end.rank.0, end.status.code().or(end.status.signal().map(|it| -it)))).collect()
}

/// Two are killed, one after the other.
fn killed(world: World) {
    let rig = Rig::new(world);
    if rig.world.rank() == Rank(3) {
        rig.say_last_words();
        die();
    }
    let losses = rig.expect_losses(1);
    assert_eq!(losses[0].rank, Rank(3));
    assert!(matches!(losses[0].why, Why::Ended | Why::Broken), "{}", losses[0]);
    rig.expect_the_others(&[0, 1, 2]);
    if rig.world.rank() == Rank(1) {
        rig.until("that it was heard", || rig.heard.load(SeqCst) == 2);
        rig.say_last_words();
        die();
    }
    rig.world.send(Rank(1), HEARD, 1, b"").unwrap();
    assert_eq!(rig.expect_losses(2)[1].rank, Rank(1));
    rig.expect_the_others(&[0, 2]);
    let ended = ends(&rig.world);
    if rig.world.rank() == Rank(0) {
        assert_eq!(ended, [(1, Some(-9)), (2, Some(0)), (3, Some(-9))]);
    }
}

#[test]
fn killed_ranks_of_a_node_are_lost_to_all() {
    killed(join(spawn(4, "killed_ranks_of_a_node_are_lost_to_all")));
}

/// Its locks in shared memory go only with its process.
#[test]
fn a_frozen_rank_of_a_node_is_lost_and_ended() {
    let rig = Rig::new(join(spawn(3, "a_frozen_rank_of_a_node_is_lost_and_ended")));
    if rig.world.rank() == Rank(1) {
        rig.say_last_words();
        signal_self(Signal::STOP);
        std::thread::sleep(PATIENCE);
        return;
    }
    let losses = rig.expect_losses(1);
    assert_eq!((losses[0].rank, losses[0].why), (Rank(1), Why::Silent));
    rig.expect_the_others(&[0, 2]);
    let ended = ends(&rig.world);
    if rig.world.rank() == Rank(0) {
        assert_eq!(ended, [(1, Some(-9)), (2, Some(0))]);
    }
}

/// A rank that computes, or sleeps, without a look at the world gives signs all the same.
#[test]
fn who_only_computes_is_not_lost() {
    let world = join(spawn(3, "who_only_computes_is_not_lost"));
    if world.rank().0 < 2 {
        std::thread::sleep(3 * LIMIT);
    }
    world.barrier_timeout(PATIENCE).unwrap();
    assert_eq!((world.losses(), world.cast_out()), (vec![], None));
    assert!(ends(&world).iter().all(|(_, code)| *code == Some(0)));
}

/// As by Ctrl-Z and `fg`: nobody was silent for the others.
#[test]
fn a_world_that_is_stopped_as_a_whole_goes_on() {
    let losses = Losses::from_environment().limit(LIMIT);
    let spawn = spawn(3, "a_world_that_is_stopped_as_a_whole_goes_on");
    let world = World::join_with(&Bootstrap::Spawn(spawn), losses).unwrap();
    world.barrier_timeout(PATIENCE).unwrap();
    if world.rank() == Rank(0) {
        let others = (1..3).map(|rank| world.pid(Rank(rank)).unwrap());
        let pids: Vec<String> = others.chain([std::process::id()]).map(|pid| pid.to_string()).collect();
        let (all, seconds) = (pids.join(" "), (3 * LIMIT).as_secs_f64());
        let script = format!("kill -STOP {all}; sleep {seconds}; kill -CONT {all}");
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        // Whoever is taken for lost is so by now.
        std::thread::sleep(2 * LIMIT);
    }
    world.barrier_timeout(PATIENCE).unwrap();
    assert_eq!((world.losses(), world.cast_out()), (vec![], None));
    assert!(ends(&world).iter().all(|(_, code)| *code == Some(0)));
}

#[test]
fn where_a_loss_ends_the_world_a_frozen_rank_is_a_dead_one() {
    let test = "where_a_loss_ends_the_world_a_frozen_rank_is_a_dead_one";
    let losses = Losses::from_environment().limit(LIMIT);
    let world = World::join_with(&Bootstrap::Spawn(spawn(3, test)), losses).unwrap();
    world.barrier_timeout(PATIENCE).unwrap();
    if world.rank() == Rank(2) {
        signal_self(Signal::STOP);
        std::thread::sleep(PATIENCE);
        return;
    }
    let met = world.barrier_timeout(PATIENCE);
    assert!(matches!(met, Err(WorldError::Fabric(FabricError::PeerDead { rank: Rank(2) }))), "{met:?}");
    if world.rank() == Rank(0) {
        kill_process(Pid::from_raw(world.pid(Rank(2)).unwrap() as i32).unwrap(), Signal::KILL).unwrap();
        assert_eq!(ends(&world), [(1, Some(0)), (2, Some(-9))]);
    }
}

// ── through the network, on one machine ──────────────────────────────────────────────────────────────────────────────

/// Says to a process of these tests that its environment is that of the test.
const READY: &str = "TARRAGON_TEST_NETWORK";

/// True in a process that is to be a rank. Otherwise starts one with UCX's settings, and checks that it ends well.
fn is_rank(test: &str) -> bool {
    if std::env::var_os(READY).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(READY, "1");
    let output = command.envs([("UCX_TLS", "tcp,self"), ("UCX_WARN_UNUSED_ENV_VARS", "n")]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("NoLibrary { file: \"libucp.so.0\"") {
        eprintln!("skipped: ucx: {test}: install libucx0");
        return false;
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    err.lines().filter(|line| line.starts_with("figure")).for_each(|line| eprintln!("{line}"));
    false
}

#[test]
fn killed_ranks_of_a_network_are_lost_to_all() {
    let test = "killed_ranks_of_a_network_are_lost_to_all";
    if is_rank(test) {
        killed(join(spawn(4, test).network()));
    }
}

/// It wakes up when the others have gone on without it, speaks as if nothing had happened, and is heard by nobody.
#[test]
fn a_frozen_rank_that_wakes_up_harms_nothing() {
    let test = "a_frozen_rank_that_wakes_up_harms_nothing";
    if !is_rank(test) {
        return;
    }
    let rig = Rig::new(join(spawn(3, test).network()));
    if rig.world.rank() == Rank(1) {
        rig.say_last_words();
        signal_self(Signal::STOP);
        // It takes a moment until all threads stand.
        std::thread::sleep(LIMIT / 10);
        rig.speak_until_cast_out(Rank(2));
        rig.end_cast_out();
    }
    let losses = rig.expect_losses(1);
    assert_eq!((losses[0].rank, losses[0].why), (Rank(1), Why::Silent));
    rig.expect_the_others(&[0, 2]);
    if rig.world.rank() == Rank(0) {
        let frozen = Pid::from_raw(rig.world.pid(Rank(1)).unwrap() as i32).unwrap();
        kill_process(frozen, Signal::CONT).unwrap();
        rig.until("the end of the frozen one", || {
            rig.world.fabric().check_peers();
            std::fs::read_to_string(format!("/proc/{}/stat", frozen.as_raw_nonzero()))
                .map_or(true, |stat| stat.contains(") Z"))
        });
    }
    // What it has said by now is refused, not late.
    rig.expect_the_others(&[0, 2]);
    let stale = rig.world.fabric().faults().stale;
    let ended = ends(&rig.world);
    if rig.world.rank() == Rank(0) {
        assert_eq!(ended, [(1, Some(CAST_OUT)), (2, Some(0))]);
    }
    eprintln!("figure: rank {} has refused {stale} messages", rig.world.rank());
}

// ── on several machines ──────────────────────────────────────────────────────────────────────────────────────────────

fn launched() -> World {
    World::join_with(&Bootstrap::Launched(Launched::new()), losses()).unwrap()
}

fn machines(count: u32) -> Option<(Hosts, Slurm)> {
    let hosts = Hosts::for_ranks(count)?;
    let slurm = Slurm::for_ranks(&hosts)?;
    Some((hosts, slurm))
}

fn srun(slurm: &Slurm, machines: u32) -> Command {
    let mut srun = slurm.srun(machines);
    srun.args(["--no-kill", "--kill-on-bad-exit=0"]);
    srun
}

/// Waits until the ranks have written a word so often.
fn wait_for(text: &dyn Fn() -> String, count: usize, word: &str) {
    let begin = Instant::now();
    while text().matches(word).count() < count {
        assert!(begin.elapsed() < PATIENCE / 2, "{count} times `{word}` has not come in:\n{}", text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What ranks have said of losses, sorted.
fn told(text: &[&str]) -> Vec<String> {
    let mut told: Vec<String> =
        text.iter().filter(|line| line.starts_with("rank")).map(|line| (*line).to_owned()).collect();
    told.sort();
    told
}

/// What a rank that stays says at its end.
fn say_losses(rig: &Rig, losses: &[Loss]) {
    let losses: Vec<String> = losses.iter().map(|it| format!("{} on {}", it.rank, it.host)).collect();
    say(&format!("rank {} goes on without {}", rig.world.rank(), losses.join(", ")));
    // The launcher may end the others as soon as one ends: all have said what they have to say.
    let here = |rank: &Rank| *rank != rig.world.rank() && rig.world.peer(*rank) == PeerState::Here;
    let others: Vec<Rank> = rig.world.ranks().filter(here).collect();
    others.iter().for_each(|&rank| rig.world.send(rank, HEARD, 1, b"").unwrap());
    rig.until("the end of the others", || rig.heard.load(SeqCst) >= others.len() as u64);
    drop(rig.world.leave());
}

#[test]
fn a_rank_that_is_killed_or_frozen_beside_others_is_lost_on_both_machines() {
    let test = "a_rank_that_is_killed_or_frozen_beside_others_is_lost_on_both_machines";
    if role().is_some() {
        let rig = Rig::new(launched());
        if rig.world.rank() == Rank(1) {
            die();
        }
        rig.expect_losses(1);
        if rig.world.rank() == Rank(3) {
            rig.say_last_words();
            // Rank 2 shares its memory, and ends it.
            signal_self(Signal::STOP);
            std::thread::sleep(PATIENCE);
        }
        let losses = rig.expect_losses(2);
        assert_eq!(losses[1].why, Why::Silent);
        rig.expect_the_others(&[0, 2]);
        return say_losses(&rig, &losses);
    }
    let Some((hosts, slurm)) = machines(2) else { return };
    let ended = Launch::far(srun(&slurm, 2), test, "rank").ranks(4).run();
    let expected = [0, 2].map(|rank| format!("rank {rank} goes on without 1 on h0, 3 on h1"));
    assert_eq!(told(&ended.said()), expected, "{}", ended.text);
    expect_nothing_left(&hosts, &[0, 1]);
}

#[test]
fn the_side_of_a_cut_without_rank_0_stops() {
    let test = "the_side_of_a_cut_without_rank_0_stops";
    if role().is_some() {
        let rig = Rig::new(launched());
        say("is here");
        if rig.world.rank() == Rank(2) {
            let begin = Instant::now();
            let why = rig.speak_until_cast_out(Rank(1));
            say(&format!("rank 2: {why}"));
            eprintln!("figure: cast out after {} ms since its start", begin.elapsed().as_millis());
            rig.end_cast_out();
        }
        let losses = rig.expect_losses(1);
        rig.stale.store(0, SeqCst);
        rig.expect_the_others(&[0, 1]);
        return say_losses(&rig, &losses);
    }
    let Some((hosts, slurm)) = machines(3) else { return };
    let ended = Launch::far(srun(&slurm, 3), test, "rank").ranks(3).run_beside(|text| {
        wait_for(text, 3, "is here");
        hosts.cut(2);
    });
    let told = told(&ended.said());
    assert_eq!(told.len(), 3, "{}", ended.text);
    assert_eq!(
        told[..2],
        [0, 1].map(|rank| format!("rank {rank} goes on without 2 on h2")),
        "{}",
        ended.text
    );
    assert!(told[2].starts_with("rank 2: nothing has come from rank 0"), "{}", ended.text);
    hosts.heal(2);
    expect_nothing_left(&hosts, &[0, 1, 2]);
}

/// Ranks 1 and 2 send to one another, until one is lost.
fn speak_until_apart() {
    let rig = Rig::new(launched());
    say("is here");
    let (begin, other) = (Instant::now(), Rank(3 - rig.world.rank().0));
    while rig.world.losses().is_empty() && rig.world.cast_out().is_none() {
        assert!(begin.elapsed() < PATIENCE / 2, "rank {} knows of nothing", rig.world.rank());
        if rig.world.rank() > Rank(0) {
            let _ = rig.world.send(other, LAST_WORDS, 0, b"");
        }
        // Each word that comes ends a wait.
        std::thread::sleep(Duration::from_millis(20));
        rig.world.wait(Duration::from_millis(50));
    }
    if let Some(why) = rig.world.cast_out() {
        say(&format!("rank 2: {why}"));
        assert_eq!((rig.world.rank(), rig.world.losses()), (Rank(2), vec![]));
        rig.end_cast_out();
    }
    let losses = rig.expect_losses(1);
    eprintln!("figure: rank {} hears that {}", rig.world.rank(), losses[0]);
    rig.expect_the_others(&[0, 1]);
    say_losses(&rig, &losses);
}

/// Has all lost that ranks 1 and 2 send to one another: the world stays one, without the second one.
fn cut_two_apart(test: &'static str, is_impatient: bool) {
    if role().is_some() {
        return speak_until_apart();
    }
    let Some((hosts, slurm)) = machines(3) else { return };
    if is_impatient {
        hosts.be_impatient();
    }
    let ended = Launch::far(srun(&slurm, 3), test, "rank").ranks(3).run_beside(|text| {
        wait_for(text, 3, "is here");
        hosts.lose(1, 2);
        hosts.lose(2, 1);
    });
    let told = told(&ended.said());
    assert_eq!(told.len(), 3, "{}", ended.text);
    let expected = [0, 1].map(|rank| format!("rank {rank} goes on without 2 on h2"));
    assert_eq!(told[..2], expected, "{}", ended.text);
    ended.text.lines().filter(|line| line.starts_with("figure")).for_each(|line| eprintln!("{line}"));
    expect_nothing_left(&hosts, &[0, 1, 2]);
}

/// Rank 0 reaches both, and they cannot reach one another.
#[test]
fn of_two_ranks_that_cannot_reach_one_another_one_is_lost() {
    let test = "of_two_ranks_that_cannot_reach_one_another_one_is_lost";
    cut_two_apart(test, true);
}

/// As above, with a kernel that sends again for a quarter of an hour what nobody acknowledges, as kernels do unless
/// they are told otherwise: UCX tells of no broken connection, and the ranks find out by asking.
#[test]
fn two_that_hear_nothing_of_one_another_find_out_by_asking() {
    let test = "two_that_hear_nothing_of_one_another_find_out_by_asking";
    cut_two_apart(test, false);
}

/// One that takes nothing, and runs no handler, is heard all the same.
#[test]
fn who_takes_nothing_for_long_answers_when_it_is_asked() {
    let test = "who_takes_nothing_for_long_answers_when_it_is_asked";
    if role().is_some() {
        let rig = Rig::new(launched());
        if rig.world.rank() == Rank(1) {
            rig.world.send(Rank(2), HELLO, 1, b"for later").unwrap();
        }
        if rig.world.rank() == Rank(2) {
            // Handlers run one at a time.
            rig.world.on(HEARD, |_, _| std::thread::sleep(4 * LIMIT));
            rig.world.send(Rank(2), HEARD, 1, b"").unwrap();
        }
        let begin = Instant::now();
        while begin.elapsed() < 4 * LIMIT {
            rig.world.wait(Duration::from_millis(50));
        }
        rig.world.barrier_timeout(PATIENCE).unwrap();
        assert_eq!((rig.world.losses(), rig.world.cast_out()), (vec![], None));
        say("nobody is lost");
        drop(rig.world.leave());
        return;
    }
    let Some((_hosts, slurm)) = machines(3) else { return };
    let ended = Launch::far(srun(&slurm, 3), test, "rank").ranks(3).run();
    assert_eq!(ended.said(), ["nobody is lost"; 3], "{}", ended.text);
}

#[test]
fn the_ranks_of_a_machine_that_is_switched_off_are_lost() {
    let test = "the_ranks_of_a_machine_that_is_switched_off_are_lost";
    if role().is_some() {
        let rig = Rig::new(launched());
        say("is here");
        if rig.world.rank() >= Rank(2) {
            return std::thread::sleep(PATIENCE);
        }
        let mut losses = rig.expect_losses(2);
        losses.sort_by_key(|loss| loss.rank);
        rig.expect_the_others(&[0, 1]);
        return say_losses(&rig, &losses);
    }
    let Some((mut hosts, slurm)) = machines(2) else { return };
    let ended = Launch::far(srun(&slurm, 2), test, "rank").ranks(4).run_beside(|text| {
        wait_for(text, 4, "is here");
        hosts.power_off(1);
    });
    let expected = [0, 1].map(|rank| format!("rank {rank} goes on without 2 on h1, 3 on h1"));
    assert_eq!(told(&ended.said()), expected, "{}", ended.text);
    expect_nothing_left(&hosts, &[0]);
}

fn expect_nothing_left(hosts: &Hosts, machines: &[u32]) {
    for &host in machines {
        assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "machine {host}");
    }
}
