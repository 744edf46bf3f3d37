//! Processes that run and end by themselves: status, files, environment, what could not start.

mod support;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use support::Rig;
use tarragon_supervisor::{Event, Input, Output, Request, Spawn, Step};

#[test]
fn the_exit_code_and_the_resources_are_told() {
    let mut rig = Rig::new();
    rig.start(7, "exit 41");
    let Event::Started { id: 7, pid, at_ns, follows: None } = rig.next() else { panic!("not started") };
    let ended = rig.ended(7);
    assert_eq!(ended.status.code(), Some(41));
    assert_eq!((ended.why, ended.leftovers, ended.taken_over_by), (None, 0, None));
    assert_eq!(ended.started_ns, at_ns);
    assert!(ended.ended_ns > at_ns);
    assert!(ended.max_rss_bytes > 100_000);
    assert!(!support::is_alive(pid));
}

#[test]
fn processor_time_is_told() {
    let mut rig = Rig::new();
    let ended = rig.run(1, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
    assert!(ended.user > Duration::from_millis(5), "{ended:?}");
}

#[test]
fn a_signal_is_told() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(1, "kill -USR1 $$").status.signal(), Some(10));
    let aborted = rig.run(2, "ulimit -c 0; kill -ABRT $$");
    assert_eq!((aborted.status.signal(), aborted.status.core_dumped()), (Some(6), false));
}

#[test]
fn a_core_dump_is_told() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mut rig = Rig::new();
    let folder = rig.folder.path().to_owned();
    rig.start_with(1, "ulimit -c unlimited || exit 3; kill -ABRT $$", |spawn| spawn.cwd = Some(&folder));
    let ended = rig.ended(1);
    if ended.status.code() == Some(3) || pattern.trim().is_empty() || pattern.starts_with(['|', '/']) {
        eprintln!("skipped: core dumps: they are not to be had here");
        return;
    }
    assert!(ended.status.core_dumped());
}

#[test]
fn children_start_with_default_signals_and_no_mask() {
    let mut rig = Rig::new();
    rig.run(1, "grep -E '^Sig(Blk|Ign)' /proc/self/status");
    let output = rig.read("out.1");
    let field = |line: &str| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
    // The C library ignores its own two signals, 32 and 33, in whatever it spawns.
    let fields: Vec<u64> = output.lines().map(|line| field(line) & !(0b11 << 31)).collect();
    assert_eq!(fields, [0, 0]);
}

#[test]
fn children_have_three_descriptors_and_a_group_of_their_own() {
    let mut rig = Rig::new();
    rig.start(1, "ls /proc/self/fd; echo $$; cut -d' ' -f5 /proc/self/stat");
    let pid = rig.started(1).to_string();
    rig.ended(1);
    // The fourth is the folder that `ls` reads.
    assert_eq!(rig.read("out.1").lines().collect::<Vec<_>>(), ["0", "1", "2", "3", &pid, &pid]);
}

fn could_not<'a>(rig: &mut Rig, change: impl FnOnce(&mut Spawn<'a>)) -> (Step, i32) {
    rig.start_with(1, "exit 0", change);
    match rig.next() {
        Event::CouldNotStart { id: 1, step, errno, follows: None } => (step, errno),
        event => panic!("{event:?}"),
    }
}

#[test]
fn what_could_not_start_says_which_step_and_why() {
    let mut rig = Rig::new();
    let text = rig.path("text");
    std::fs::write(&text, "exit 0\n").unwrap();
    let plain = Path::new("/etc/passwd");
    assert_eq!(
        could_not(&mut rig, |it| it.program = Path::new("/nowhere/at/all")),
        (Step::Program, libc::ENOENT)
    );
    assert_eq!(could_not(&mut rig, |it| it.program = plain), (Step::Program, libc::EACCES));
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(could_not(&mut rig, |it| it.program = &text), (Step::Program, libc::ENOEXEC));
    assert_eq!(could_not(&mut rig, |it| it.cwd = Some(Path::new("/nowhere"))), (Step::Cwd, libc::ENOENT));
    assert_eq!(could_not(&mut rig, |it| it.cwd = Some(plain)), (Step::Cwd, libc::ENOTDIR));
    let missing = Path::new("/nowhere/x");
    assert_eq!(could_not(&mut rig, |it| it.stdin = Input::File(missing)), (Step::Stdin, libc::ENOENT));
    assert_eq!(could_not(&mut rig, |it| it.stdout = missing), (Step::Stdout, libc::ENOENT));
    assert_eq!(could_not(&mut rig, |it| it.stderr = Output::File(missing)), (Step::Stderr, libc::ENOENT));
    assert_eq!(could_not(&mut rig, |it| it.affinity = Some(&[1023])), (Step::Affinity, libc::EINVAL));
    assert_eq!(could_not(&mut rig, |it| it.affinity = Some(&[u32::MAX])), (Step::Affinity, libc::EINVAL));
    // None of these has hurt it.
    assert!(rig.run(2, "exit 0").status.success());
}

#[test]
fn an_id_in_use_is_refused() {
    let mut rig = Rig::new();
    rig.start(1, "sleep 1000");
    rig.started(1);
    rig.start(1, "exit 0");
    assert_eq!(
        rig.next(),
        Event::CouldNotStart { id: 1, step: Step::Spawn, errno: libc::EEXIST, follows: None }
    );
    rig.kill(1, Duration::ZERO);
    rig.ended(1);
    assert!(rig.run(1, "exit 0").status.success());
}

#[test]
fn a_pipe_nobody_reads_does_not_stop_the_supervisor() {
    let mut rig = Rig::new();
    let pipe = rig.path("pipe");
    assert!(rig.run(1, &format!("mkfifo {}", pipe.display())).status.success());
    assert_eq!(could_not(&mut rig, |it| it.stdout = &pipe), (Step::Stdout, libc::ENXIO));
}

#[test]
fn the_environment_is_the_base_with_changes() {
    let mut rig = Rig::new();
    let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    let base = [pair("PATH", "/bin:/usr/bin"), pair("A", "1"), pair("B", "2"), pair("AB", "3")];
    rig.supervisor.environment(5, base).unwrap();
    let changes = [
        (OsString::from("A"), None),
        (OsString::from("B"), Some(OsString::from("two=2"))),
        (OsString::from("C"), Some(OsString::new())),
    ];
    rig.start_with(1, "env | sort", |spawn| {
        spawn.base = 5;
        spawn.env = &changes;
    });
    rig.ended(1);
    let mark = format!("TARRAGON_TASK_MARK={}:1", rig.supervisor.pid());
    let output = rig.read("out.1");
    let lines: Vec<&str> =
        output.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect();
    assert_eq!(lines, ["AB=3", "B=two=2", "C=", "PATH=/bin:/usr/bin", &mark]);

    rig.supervisor.environment(5, [pair("A", "new")]).unwrap();
    rig.start_with(2, "echo $A$B", |spawn| spawn.base = 5);
    rig.ended(2);
    assert_eq!(rig.read("out.2"), "new\n");
    rig.supervisor.send(&[Request::Forget { base: 5 }]).unwrap();
    rig.start_with(3, "echo $A", |spawn| spawn.base = 5);
    rig.ended(3);
    assert_eq!(rig.read("out.3"), "\n");
}

#[test]
fn what_the_system_cannot_take_is_refused_before_it_is_sent() {
    let mut rig = Rig::new();
    let args = [OsString::from("a\0b")];
    let out = rig.path("out");
    let bad = Spawn::new(1, Path::new("/bin/true"), &args, &out);
    let error = rig.supervisor.send(&[Request::Start(bad)]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let named = [(OsString::from("A=B"), None)];
    let good = [OsString::from("true")];
    let bad = Spawn { env: &named, ..Spawn::new(1, Path::new("/bin/true"), &good, &out) };
    let fine = Spawn::new(2, Path::new("/bin/true"), &good, &out);
    assert!(rig.supervisor.send(&[Request::Start(fine), Request::Start(bad)]).is_err());
    // Not even the first of the two was sent.
    rig.start(3, "exit 0");
    assert_eq!(rig.next().id(), 3);
}

#[test]
fn files_are_read_emptied_and_appended_to() {
    let mut rig = Rig::new();
    std::fs::write(rig.path("in"), "from a file\n").unwrap();
    std::fs::write(rig.path("result"), "old and much longer than what comes\n").unwrap();
    let folder = rig.folder.path().to_owned();
    // Paths that are relative start at the working directory.
    rig.start_with(1, "cat; pwd; echo to the other >&2; cat nothing", |spawn| {
        spawn.cwd = Some(&folder);
        spawn.stdin = Input::File(Path::new("in"));
        spawn.stdout = Path::new("result");
        spawn.stderr = Output::File(Path::new("errors"));
    });
    assert_eq!(rig.ended(1).status.code(), Some(1));
    assert_eq!(rig.read("result"), format!("from a file\n{}\n", folder.display()));
    assert!(rig.read("errors").starts_with("to the other\n"));

    rig.start(2, "echo one; echo two >&2; echo three; cat; pwd");
    rig.ended(2);
    assert_eq!(rig.read("out.2"), "one\ntwo\nthree\n/\n");
}

#[test]
fn a_child_that_closes_its_output_is_waited_for() {
    let mut rig = Rig::new();
    let go = rig.path("go");
    rig.start(1, &format!("exec >&- 2>&-; until [ -e {} ]; do sleep 0.02; done; exit 5", go.display()));
    rig.started(1);
    std::fs::write(&go, "").unwrap();
    assert_eq!(rig.ended(1).status.code(), Some(5));
}

#[test]
fn cpus_are_given() {
    let mut rig = Rig::new();
    rig.start_with(1, "grep Cpus_allowed_list /proc/self/status", |spawn| spawn.affinity = Some(&[0]));
    rig.ended(1);
    assert_eq!(rig.read("out.1"), "Cpus_allowed_list:\t0\n");
    rig.run(2, "grep Cpus_allowed_list /proc/self/status");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    assert_eq!(rig.read("out.2").trim_end(), own);
}

#[test]
fn many_threads_may_send() {
    const THREADS: u64 = 8;
    const EACH: u64 = 40;
    let mut rig = Rig::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let rig = &rig;
            scope.spawn(move || (0..EACH).for_each(|i| rig.start(thread * EACH + i, &format!("exit {i}"))));
        }
    });
    let mut codes = vec![None; (THREADS * EACH) as usize];
    while codes.iter().any(Option::is_none) {
        if let Event::Ended(ended) = rig.next() {
            assert_eq!(codes[ended.id as usize].replace(ended.status.code()), None);
        }
    }
    for (id, code) in codes.into_iter().enumerate() {
        assert_eq!(code, Some(Some((id as u64 % EACH) as i32)));
    }
}

#[test]
fn the_supervisor_has_its_name_and_few_descriptors() {
    let rig = Rig::new();
    let pid = rig.supervisor.pid();
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "tarragon-superv\n");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    // Input, output, error output, socket, children, engine, and what `/dev/null` was opened as.
    let count = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(count <= 7, "{count} descriptors");
}
