//! Jobs: what ranks write, how they end, and that nothing of them is left. The launcher here is a shell that starts
//! each rank's guard, so that these run where there is no MPI; jobs under real launchers are tested in the engine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use support::{Rig, wait_gone};
use tarragon_supervisor::job::{Executable, Order, Table, Trouble};
use tarragon_supervisor::{Ended, Output, Request, Spawn, Why};

/// A rig with a job that a shell launches.
struct Job {
    rig: Rig,
    folder: PathBuf,
    order: Order,
}

/// Starts one guard for each rank, and ends as the first of them that fails.
const LAUNCHER: &str = r#"
ranks=$1; shift; code=0; pids=
i=0; while [ $i -lt $ranks ]; do FAKE_RANK=$i "$@" & pids="$pids $!"; i=$((i+1)); done
for pid in $pids; do wait $pid || code=$?; done; exit $code"#;

impl Job {
    fn new(ranks: u32, script: &str) -> Job {
        let rig = Rig::new();
        let folder = rig.path("job");
        let mut launcher: Vec<OsString> =
            ["/bin/sh", "-c", LAUNCHER, "launcher", &ranks.to_string()].map(OsString::from).to_vec();
        launcher.extend(Order::guard().unwrap());
        let order = Order {
            launcher,
            rank_variable: "FAKE_RANK".into(),
            launcher_variables: vec!["FAKE_".into()],
            executables: vec![shell(ranks, script)],
            grace: Duration::from_secs(1),
            ..Order::default()
        };
        Job { rig, folder, order }
    }

    fn start(&self) {
        self.order.write(&self.folder).unwrap();
        let (program, args) = Order::leader(&self.folder);
        let (out, err) = (self.rig.path("out.1"), self.rig.path("err.1"));
        let spawn = Spawn::new(1, &program, &args, &out);
        let spawn = Spawn { stderr: Output::File(&err), grace: Duration::from_secs(3), ..spawn };
        self.rig.supervisor.send(&[Request::Start(spawn)]).unwrap();
    }

    fn run(&mut self) -> (Ended, Table) {
        self.start();
        self.end()
    }

    fn end(&mut self) -> (Ended, Table) {
        let ended = self.rig.ended(1);
        (ended, Table::read(&self.folder).unwrap())
    }

    fn of_rank(&self, rank: u32, end: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{rank}.{end}"))).unwrap_or_default()
    }

    /// The pids in the output of these ranks, so many of each.
    fn pids(&self, ranks: &[u32], count: usize) -> Vec<u32> {
        ranks.iter().flat_map(|rank| self.rig.pids(&format!("job/{rank}.out"), count)).collect()
    }
}

fn shell(ranks: u32, script: &str) -> Executable {
    Executable {
        ranks,
        program: "/bin/sh".into(),
        args: ["sh", "-c", script].map(OsString::from).to_vec(),
        env: Vec::new(),
        cwd: "/".into(),
    }
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn each_ranks_output_is_whole_and_lines_of_all_bear_their_rank() {
    let mut job = Job::new(3, r#"echo "here $FAKE_RANK"; printf 'no end' >&2; exit 0"#);
    let (ended, table) = job.run();
    assert!(ended.status.success(), "{table:?}");
    let mut lines: Vec<String> = job.rig.read("out.1").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["0: here 0", "1: here 1", "2: here 2"]);
    assert_eq!(job.rig.read("err.1").lines().count(), 3);
    for rank in 0..3 {
        assert_eq!(job.of_rank(rank, "out"), format!("here {rank}\n"));
        assert_eq!(job.of_rank(rank, "err"), "no end");
    }
    assert_eq!((table.failed, table.launcher, &table.trouble), (None, Some(0), &None));
    assert!(table.ranks.iter().all(|end| end.code() == Some(0) && !end.host.is_empty() && !end.was_ended));
}

#[test]
fn much_output_of_many_ranks_comes_whole() {
    let mut job = Job::new(4, "i=0; while [ $i -lt 20000 ]; do echo line $i of $FAKE_RANK; i=$((i+1)); done");
    let (ended, _) = job.run();
    assert!(ended.status.success());
    for rank in 0..4 {
        let wanted: String = (0..20000).map(|i| format!("line {i} of {rank}\n")).collect();
        assert!(job.of_rank(rank, "out") == wanted, "rank {rank}");
    }
    let merged = job.rig.read("out.1");
    assert_eq!(merged.lines().count(), 80000);
    assert!(merged.lines().all(|line| line.split(": line ").count() == 2), "lines are not torn");
}

#[test]
fn executables_have_their_own_arguments_environment_and_directory() {
    let mut job = Job::new(3, r#"echo "$0 $A $B $(pwd)""#);
    let folder = job.rig.folder.path().canonicalize().unwrap();
    let first = Executable {
        ranks: 1,
        env: vec![("A".into(), Some("one two".into()))],
        ..shell(1, r#"echo "$A|$B|$TARRAGON_JOB""#)
    };
    let second = Executable {
        env: vec![("B".into(), Some("$HOME".into()))],
        cwd: folder.clone().into(),
        ..shell(2, r#"echo "$A|$B|$(pwd)""#)
    };
    job.order.executables = vec![first, second];
    let (ended, table) = job.run();
    assert!(ended.status.success(), "{table:?}");
    assert_eq!(job.of_rank(0, "out"), "one two||\n");
    for rank in [1, 2] {
        assert_eq!(job.of_rank(rank, "out"), format!("|$HOME|{}\n", folder.display()));
        assert_eq!(table.ranks[rank as usize].executable, 1);
    }
}

#[test]
fn the_first_rank_that_fails_is_named_and_ends_the_others() {
    let script = "touch $FAKE_RANK; [ $FAKE_RANK = 1 ] || exec sleep 1000
        until [ -e 0 ] && [ -e 2 ]; do sleep 0.01; done; exit 7";
    let mut job = Job::new(3, script);
    job.order.executables[0].cwd = job.rig.folder.path().into();
    let (ended, table) = job.run();
    assert!(!ended.status.success());
    assert_eq!((table.failed, table.ranks[1].code(), table.ranks[1].was_ended), (Some(1), Some(7), false));
    for rank in [0, 2] {
        let end = &table.ranks[rank];
        assert!(end.was_ended, "{table:?}");
        assert!(end.signal() == Some(15) || end.why.is_some(), "{table:?}");
    }
}

#[test]
fn accepted_codes_are_no_failures() {
    let mut job = Job::new(2, "exit $((3 * FAKE_RANK))");
    job.order.accept = vec![3];
    let (ended, table) = job.run();
    assert!(ended.status.success(), "{table:?}");
    assert_eq!(table.ranks[1].code(), Some(3));
}

#[test]
fn rank_0_reads_the_input_and_others_none() {
    let mut job = Job::new(2, "cat");
    let text: String = (0..100_000).map(|i| format!("{i}\n")).collect();
    let input = job.rig.path("input");
    std::fs::write(&input, &text).unwrap();
    job.order.stdin = Some(input.into());
    let (ended, _) = job.run();
    assert!(ended.status.success());
    assert!(job.of_rank(0, "out") == text);
    assert_eq!(job.of_rank(1, "out"), "");
}

#[test]
fn what_cannot_start_says_why() {
    let mut job = Job::new(2, "sleep 1000");
    job.order.executables.push(Executable { program: "/no/such/program".into(), ..shell(1, "") });
    job.order.executables[0].ranks = 1;
    let (ended, table) = job.run();
    assert!(!ended.status.success());
    assert_eq!(table.failed, Some(1));
    let why = table.ranks[1].why.clone().unwrap();
    assert!(why.contains("/no/such/program") && why.contains("No such file"), "{why}");

    let mut job = Job::new(1, "true");
    job.order.executables[0].cwd = "/no/such/folder".into();
    let why = job.run().1.ranks[0].why.clone().unwrap();
    assert!(why.contains("its directory /no/such/folder"), "{why}");

    let mut job = Job::new(1, "true");
    job.order.launcher[0] = "/no/such/launcher".into();
    let trouble = job.run().1.trouble;
    assert!(
        matches!(&trouble, Some(Trouble::Launcher(why)) if why.contains("/no/such/launcher")),
        "{trouble:?}"
    );
}

#[test]
fn a_launcher_that_starts_nobody_is_an_end() {
    let mut job = Job::new(2, "true");
    job.order.launcher = ["/bin/sh", "-c", "echo no room >&2; exit 5"].map(OsString::from).to_vec();
    let (ended, table) = job.run();
    assert!(!ended.status.success());
    assert_eq!(table.failed, None);
    assert!(table.ranks.iter().all(|end| end.why.is_some()), "{table:?}");
    assert_eq!(job.rig.read("job/launcher"), "no room\n");
}

/// Processes that ignore TERM, and what they have started, are gone when the job has ended.
const STUBBORN: &str = "trap '' TERM; echo $$; sleep 1000 & echo $!; wait; sleep 1000";

#[test]
fn a_killed_job_leaves_nothing() {
    let mut job = Job::new(2, STUBBORN);
    job.start();
    let pids = job.pids(&[0, 1], 2);
    let kill = Request::Kill { id: 1, grace: Duration::from_secs(2), why: Why::Cancelled };
    job.rig.supervisor.send(&[kill]).unwrap();
    assert_eq!(job.rig.ended(1).why, Some(Why::Cancelled));
    wait_gone(&pids);
}

#[test]
fn ranks_end_when_their_leader_is_killed() {
    let mut job = Job::new(2, STUBBORN);
    // As on another machine, where nobody else sees to it: no mark, nobody's child, and of nobody while another runs.
    job.order.launcher_env = vec![("TARRAGON_TASK_MARK".into(), None)];
    let script = r#"shift; FAKE_RANK=0 setsid -f "$@"; FAKE_RANK=1 setsid -f "$@"; sleep 1000"#;
    job.order.launcher[2] = script.into();
    job.rig.start(2, "sleep 1000");
    job.rig.started(2);
    job.start();
    let pids = job.pids(&[0, 1], 2);
    let leader = job.rig.started(1);
    kill(leader);
    let ended = job.rig.ended(1);
    assert!(!ended.status.success());
    wait_gone(&pids);
}

#[test]
fn a_killed_guard_is_a_lost_rank() {
    let mut job = Job::new(2, "echo $PPID; sleep 1000");
    job.start();
    let guard = job.pids(&[0, 1], 1)[1];
    kill(guard);
    let (ended, table) = job.end();
    assert!(!ended.status.success());
    assert_eq!(table.failed, Some(1));
    assert!(table.ranks[1].why.as_ref().unwrap().contains("the connection to it ended"), "{table:?}");
    wait_gone(&[guard]);
}

#[test]
fn strangers_that_connect_are_sent_away() {
    let mut job = Job::new(1, "echo ready; sleep 1");
    job.start();
    job.rig.lines("job/0.out", 1);
    let port = listening_port(job.rig.started(1));
    let mut stranger = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut stranger, &[5, 0, 0, 0, 3, 1, 2, 3, 4]).unwrap();
    let mut answer = Vec::new();
    // Closed, or reset: either way nothing was said.
    let _ = std::io::Read::read_to_end(&mut stranger, &mut answer);
    assert!(answer.is_empty());
    assert!(job.end().0.status.success());
}

/// The port that a process listens on.
fn listening_port(pid: u32) -> u16 {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = line.filter(|fields| {
        fields.get(3) == Some(&"0A") && fields.get(9).is_some_and(|inode| sockets.iter().any(|s| s == inode))
    });
    let address = listening.next().unwrap()[1].to_owned();
    u16::from_str_radix(address.split(':').nth(1).unwrap(), 16).unwrap()
}
