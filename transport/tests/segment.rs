//! A segment's life: made, opened by other processes, left, swept; and files that are none. The heap is in `heap`,
//! deaths in the middle of something in `crash`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at what it did not expect, and talks to its parent"
)]

mod child;

use child::{Child, role};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use tarragon_transport::SegmentError;
use tarragon_transport::member::Settle;
use tarragon_transport::segment::{Segment, SegmentName, Spec};

const SPEC: Spec = Spec { kind: "test", layout: 3, control_bytes: 64 << 10, heap_bytes: 16 << 20 };

struct Nothing;

impl Settle for Nothing {
    fn settle(
        &self,
        _: &Segment,
        _: tarragon_transport::agent::AgentId,
        _: &tarragon_transport::agent::AgentRecord,
    ) {
    }
}

fn text(name: &SegmentName) -> String {
    format!("{}/{}", name.file, name.uid)
}

fn name(text: &str) -> SegmentName {
    let (file, uid) = text.trim().split_once('/').unwrap();
    SegmentName { file: file.to_owned(), uid: uid.parse().unwrap() }
}

fn open(name: &SegmentName) -> Result<Arc<Segment>, SegmentError> {
    Segment::open(name, SPEC.kind, SPEC.layout)
}

#[test]
fn the_last_to_leave_removes_the_file() {
    if let Some(text) = role("the_last_to_leave_removes_the_file") {
        let segment = open(&name(&text)).unwrap();
        child::say("attached");
        child::hear();
        drop(segment);
        return;
    }
    let segment = Segment::create(&SPEC).unwrap();
    let path = segment.path();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut other = Child::start("the_last_to_leave_removes_the_file", &text(segment.name()));
    assert_eq!(other.hear(), "attached");
    assert_eq!(segment.members(), 2);
    drop(segment);
    assert!(path.exists(), "removed while another process uses it");
    other.say("leave");
    assert!(other.wait().success());
    assert!(!path.exists(), "left behind by the last one");
}

#[test]
fn a_file_opened_twice_is_one_segment() {
    let segment = Segment::create(&SPEC).unwrap();
    let again = open(segment.name()).unwrap();
    assert!(Arc::ptr_eq(&segment, &again));
    assert_eq!(segment.members(), 1);
    assert!(Segment::open(segment.name(), "other", SPEC.layout).is_err());
}

#[test]
fn a_segment_in_a_static_is_removed_at_exit() {
    static KEPT: std::sync::Mutex<Option<Arc<Segment>>> = std::sync::Mutex::new(None);
    if role("a_segment_in_a_static_is_removed_at_exit").is_some() {
        let segment = Segment::create(&SPEC).unwrap();
        child::say(segment.path().to_str().unwrap());
        *KEPT.lock().unwrap() = Some(segment);
        child::hear();
        std::process::exit(0);
    }
    let mut other = Child::start("a_segment_in_a_static_is_removed_at_exit", "go");
    let path = PathBuf::from(other.hear());
    assert!(path.exists());
    other.say("exit");
    assert!(other.wait().success());
    assert!(!path.exists());
}

#[test]
fn leftovers_of_the_killed_are_swept_at_the_next_start() {
    match role("leftovers_of_the_killed_are_swept_at_the_next_start").as_deref() {
        None => {}
        Some("leave") => {
            let segment = Segment::create(&SPEC).unwrap();
            child::say(segment.path().to_str().unwrap());
            child::hear();
            return;
        }
        Some(_) => {
            drop(Segment::create(&SPEC).unwrap());
            return;
        }
    }
    let mine = Segment::create(&SPEC).unwrap();
    let test = "leftovers_of_the_killed_are_swept_at_the_next_start";
    let mut dead = Child::start(test, "leave");
    let left = PathBuf::from(dead.hear());
    dead.kill_running();
    assert!(left.exists());
    // Files of other programs, called a little like ours or exactly so.
    let folder = mine.path().parent().unwrap().to_owned();
    let pid = std::process::id();
    let others = [format!("tarragon-other-{pid}"), format!("tarragon-other-0-{pid}-1-1")];
    let others = others.map(|name| folder.join(name));
    others.iter().for_each(|path| std::fs::write(path, "not a segment").unwrap());
    assert!(Child::start(test, "sweep").wait().success());
    let kept = others.map(|path| std::fs::remove_file(path).is_ok());
    assert!(!left.exists(), "not swept");
    assert_eq!(kept, [true, true], "other programs' files were swept");
    assert!(mine.path().exists(), "swept while it is used");
}

#[test]
fn the_dead_are_told_from_the_living_and_recovered_once() {
    if let Some(text) = role("the_dead_are_told_from_the_living_and_recovered_once") {
        let segment = open(&name(&text)).unwrap();
        let agent = segment.agent().unwrap();
        let held = segment.alloc(&agent, 1 << 20).unwrap();
        child::say(&agent.id.0.to_string());
        child::hear();
        segment.free(agent.record, held);
        return;
    }
    let segment = Segment::create(&SPEC).unwrap();
    let test = "the_dead_are_told_from_the_living_and_recovered_once";
    let mut other = Child::start(test, &text(segment.name()));
    let id = tarragon_transport::agent::AgentId(other.hear().parse().unwrap());
    assert!(!segment.is_dead(id) && !segment.is_dead(segment.agent().unwrap().id));
    assert_eq!(segment.recover(&Nothing), 0);
    assert_eq!(segment.usage().allocated, 1 << 20);
    other.kill();
    assert!(segment.is_dead(id));
    assert_eq!(segment.recover(&Nothing), 1);
    assert_eq!(segment.usage().allocated, 0, "what the dead held is free");
    assert_eq!((segment.recover(&Nothing), segment.members()), (0, 1));
    assert!(segment.is_dead(id), "nobody has it now");
}

#[test]
fn an_unlinked_or_ended_segment_is_gone() {
    let segment = Segment::create(&SPEC).unwrap();
    let name = segment.name().clone();
    segment.unlink();
    segment.unlink();
    assert!(matches!(open(&name), Err(SegmentError::Gone { .. })));
    drop(segment);
    assert!(matches!(open(&name), Err(SegmentError::Gone { .. })));
}

#[test]
fn a_name_of_an_earlier_file_is_gone() {
    let segment = Segment::create(&SPEC).unwrap();
    let name = SegmentName { uid: segment.name().uid ^ 1, ..segment.name().clone() };
    assert!(matches!(open(&name), Err(SegmentError::Gone { .. })));
}

/// A file that is removed when the test ends.
struct Planted(PathBuf);

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

/// A copy of a segment's beginning with `change` made to it, under a name of its own, kept from sweepers by a lock.
fn planted(tag: &str, change: impl FnOnce(&mut Vec<u8>), bytes: u64) -> (Planted, SegmentName) {
    let segment = Segment::create(&SPEC).unwrap();
    let mut head = vec![0; 8192];
    fs::File::open(segment.path()).unwrap().read_exact_at(&mut head, 0).unwrap();
    change(&mut head);
    let file = format!("planted-{tag}-{}", std::process::id());
    // Written under a name that sweepers do not know, and seen under a segment's name by a link.
    let path = segment.path().with_file_name(&file);
    fs::write(&path, &head).unwrap();
    let planted = Planted(path.with_file_name(format!("tarragon-{file}")));
    let opened = fs::OpenOptions::new().write(true).open(&path).unwrap();
    opened.set_len(if bytes == 0 { segment.bytes() } else { bytes }).unwrap();
    opened.write_all_at(&head[..head.len().min(opened.metadata().unwrap().len() as usize)], 0).unwrap();
    if bytes != 0 {
        opened.set_len(bytes).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&path, &planted.0).unwrap();
    let name = SegmentName { file: format!("tarragon-{file}"), uid: segment.name().uid };
    (planted, name)
}

/// Each in a process of its own, so that no sweep of another test comes between.
#[test]
fn files_that_are_no_segments_are_refused_by_what_is_wrong() {
    let test = "files_that_are_no_segments_are_refused_by_what_is_wrong";
    if role(test).is_none() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut other = Child::start_in(test, "go", Some(folder.path()));
        assert!(other.wait().success());
        return;
    }
    drop(Segment::create(&SPEC).unwrap());
    let refused = |tag: &str, change: fn(&mut Vec<u8>), bytes: u64| {
        let (_planted, name) = planted(tag, change, bytes);
        open(&name).unwrap_err()
    };
    let foreign = |error: SegmentError| {
        assert!(matches!(error, SegmentError::Foreign { .. }), "{error}");
    };
    let layout = |error: SegmentError| {
        assert!(matches!(error, SegmentError::Layout { .. }), "{error}");
    };
    foreign(refused("garbage", |head| head.fill(0xa5), 0));
    foreign(refused("zero", |head| head.fill(0), 0));
    foreign(refused("short", |_| {}, 100));
    foreign(refused("shorter", |_| {}, 4096));
    foreign(refused("longer", |_| {}, 1 << 40));
    foreign(refused("kind", |head| head[32] ^= 1, 0));
    foreign(refused("heap", |head| head[89] ^= 0x40, 0));
    foreign(refused("unready", |head| head[112] = 0, 0));
    layout(refused("order", |head| head[8..16].reverse(), 0));
    layout(refused("machine", |head| head[20] ^= 0x60, 0));
    layout(refused("version", |head| head[24] += 1, 0));
    layout(refused("user", |head| head[48] += 1, 0));
    let (planted, name) = planted("fine", |_| {}, 0);
    fs::set_permissions(&planted.0, fs::Permissions::from_mode(0o644)).unwrap();
    foreign(open(&name).unwrap_err());
    fs::set_permissions(&planted.0, fs::Permissions::from_mode(0o600)).unwrap();
    refuse_by_kind_and_owner(&planted, &name);
}

fn refuse_by_kind_and_owner(planted: &Planted, name: &SegmentName) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&planted.0, Some(12345), None).unwrap();
        assert!(matches!(open(name), Err(SegmentError::Owner { owner: 12345, user: 0, .. })));
        std::os::unix::fs::chown(&planted.0, Some(0), None).unwrap();
    } else {
        println!("skipped: owner: needs root");
    }
    drop(open(name).expect("the unchanged copy is a segment"));
    let link = Planted(planted.0.with_file_name("tarragon-link"));
    std::os::unix::fs::symlink(&planted.0, &link.0).unwrap();
    let link = SegmentName { file: "tarragon-link".to_owned(), uid: 1 };
    assert!(matches!(open(&link), Err(SegmentError::Foreign { .. })));
    let folder = Planted(planted.0.with_file_name("tarragon-folder"));
    fs::create_dir(&folder.0).unwrap();
    let folder = SegmentName { file: "tarragon-folder".to_owned(), uid: 1 };
    assert!(matches!(open(&folder), Err(SegmentError::Foreign { .. })));
    let outside = SegmentName { file: "../etc/passwd".to_owned(), uid: 1 };
    assert!(matches!(open(&outside), Err(SegmentError::Foreign { .. })));
}

/// A file system of 4 MiB, unmounted when the test ends.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn full_shared_memory_is_an_error_that_says_so() {
    let test = "full_shared_memory_is_an_error_that_says_so";
    if role(test).is_some() {
        let spec = Spec { control_bytes: 8 << 20, ..SPEC };
        let error = Segment::create(&spec).unwrap_err();
        assert!(
            matches!(error, SegmentError::Full { needed, free, .. } if needed >= 8 << 20 && free < 4 << 20)
        );
        let segment = Segment::create(&SPEC).unwrap();
        let agent = segment.agent().unwrap();
        let mut blocks = Vec::new();
        let error = loop {
            match segment.alloc(&agent, 100_000) {
                Ok(held) => {
                    let words =
                        segment.slice::<std::sync::atomic::AtomicU64>(held.block.offset, 12_500).unwrap();
                    words.iter().for_each(|it| it.store(1, std::sync::atomic::Ordering::Relaxed));
                    segment.forget(&agent, held);
                    blocks.push(held.block.offset);
                }
                Err(error) => break error,
            }
        };
        assert!(
            error.to_string().contains("TARRAGON_SHM") && error.to_string().contains("is full"),
            "{error}"
        );
        assert!(blocks.len() > 20, "{} blocks of 100 kB in 4 MiB", blocks.len());
        blocks.iter().for_each(|offset| segment.retire(&agent, *offset));
        segment.alloc(&agent, 1 << 20).expect("freed memory is used again");
        return;
    }
    let Some(small) = Small::new() else {
        println!("skipped: tmpfs: needs root");
        return;
    };
    assert!(Child::start_in(test, "go", Some(small.0.path())).wait().success());
    assert_eq!(fs::read_dir(small.0.path()).unwrap().count(), 0);
}

#[test]
fn attaching_and_leaving_ten_thousand_times_leaves_nothing() {
    let test = "attaching_and_leaving_ten_thousand_times_leaves_nothing";
    if let Some(text) = role(test) {
        let name = name(&text);
        for round in 0..5000 {
            let segment = open(&name).unwrap();
            let agent = segment.agent().unwrap();
            let held = segment.alloc(&agent, 64 << (round % 12)).unwrap();
            segment.forget(&agent, held);
            let _pin = agent.pin(held.block.offset);
            segment.retire(&agent, held.block.offset);
        }
        let mappings = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!mappings.contains("tarragon-"), "a mapping is left");
        let links =
            fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|it| fs::read_link(it.path()).ok());
        assert_eq!(links.filter(|it| it.to_string_lossy().contains("tarragon-")).count(), 0);
        return;
    }
    let segment = Segment::create(&SPEC).unwrap();
    let run = || {
        let mut children: Vec<Child> = (0..2).map(|_| Child::start(test, &text(segment.name()))).collect();
        assert!(children.iter_mut().all(|child| child.wait().success()));
    };
    run();
    assert_eq!((segment.members(), segment.usage().allocated, segment.recover(&Nothing)), (1, 0, 0));
    // Two agents at a time have two spans of each class, about 5 MiB; spans that nobody finds again would be GiB.
    assert!(segment.usage().committed <= SPEC.heap_bytes / 2, "{:?}", segment.usage());
    assert!(segment.agent().unwrap().id.0 <= 3, "agents' records are not used again");
}

#[test]
fn threads_have_agents_of_their_own_and_leave_them_to_others() {
    let segment = Segment::create(&SPEC).unwrap();
    for _ in 0..4 {
        let ids = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let all_have_one = std::sync::Barrier::new(50);
        let threads = (0..50).map(|_| {
            let (segment, ids, all_have_one) = (&segment, &ids, &all_have_one);
            move || {
                let agent = segment.agent().unwrap();
                assert_eq!(agent.id, segment.agent().unwrap().id);
                assert!(ids.lock().unwrap().insert(agent.id.0), "two threads with one agent");
                let held = segment.alloc(&agent, 100).unwrap();
                all_have_one.wait();
                segment.free(agent.record, held);
            }
        });
        std::thread::scope(|scope| threads.for_each(|thread| drop(scope.spawn(thread))));
        // Threads that end a little later may still have theirs.
        assert!(ids.into_inner().unwrap().last().is_some_and(|id| *id <= 100));
    }
    assert_eq!(segment.usage().allocated, 0);
}

#[test]
fn pins_outlive_the_thread_that_made_them() {
    let segment = Segment::create(&SPEC).unwrap();
    let agent = segment.agent().unwrap();
    let held = segment.alloc(&agent, 64).unwrap();
    segment.forget(&agent, held);
    let offset = held.block.offset;
    let pin = std::thread::scope(|scope| {
        scope.spawn(|| segment.agent().unwrap().pin(offset).unwrap()).join().unwrap()
    });
    // The next threads may get the same agent, and must not lose the pin.
    for _ in 0..10 {
        std::thread::scope(|scope| {
            scope.spawn(|| drop(segment.agent().unwrap().pin(4096).unwrap())).join().unwrap();
        });
    }
    segment.retire(&agent, offset);
    segment.reclaim(&agent);
    assert!(segment.block_bytes(offset).is_some(), "freed while pinned");
    drop(pin);
    segment.reclaim(&agent);
    assert!(segment.block_bytes(offset).is_none());
}
