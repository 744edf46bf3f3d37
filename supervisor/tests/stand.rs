//! Processes that stand: order, hand-over, what bounces and what is dropped.

mod support;

use std::path::Path;
use std::time::Duration;

use support::Rig;
use tarragon_supervisor::{Event, Request, Step};

/// A script that runs until a file of this name is there.
fn until(rig: &Rig, name: &str) -> String {
    format!("until [ -e {} ]; do sleep 0.02; done", rig.path(name).display())
}

#[test]
fn standing_processes_take_over_in_order() {
    let mut rig = Rig::new();
    rig.start(1, &until(&rig, "go"));
    rig.started(1);
    for id in [5, 3, 4] {
        rig.stand(id, "exit 0");
    }
    rig.settle();
    std::fs::write(rig.path("go"), "").unwrap();
    let mut previous = 1;
    for id in [5, 3, 4] {
        let ended = rig.ended(previous);
        assert_eq!(ended.taken_over_by, Some(id));
        match rig.next() {
            Event::Started { id: started, follows, at_ns, .. } => {
                assert_eq!((started, follows), (id, Some(previous)));
                assert!(at_ns >= ended.ended_ns);
            }
            event => panic!("{event:?}"),
        }
        previous = id;
    }
    assert_eq!(rig.ended(4).taken_over_by, None);
}

#[test]
fn with_nothing_running_it_bounces() {
    let mut rig = Rig::new();
    rig.stand(1, "exit 0");
    assert_eq!(rig.next(), Event::Bounced { id: 1 });
    rig.start_with(2, "sleep 1000", |spawn| spawn.hold = 9);
    rig.started(2);
    // Of another hold.
    rig.stand(3, "exit 0");
    assert_eq!(rig.next(), Event::Bounced { id: 3 });
    rig.kill(2, Duration::ZERO);
    rig.ended(2);
    let shell = rig.shell(4, "exit 0");
    let mut spawn = shell.spawn(4);
    spawn.hold = 9;
    rig.supervisor.send(&[Request::Stand(spawn)]).unwrap();
    assert_eq!(rig.next(), Event::Bounced { id: 4 });
}

#[test]
fn one_that_cannot_start_passes_the_slot_on() {
    let mut rig = Rig::new();
    rig.start(1, &until(&rig, "go"));
    rig.started(1);
    let shell = rig.shell(2, "exit 0");
    let mut bad = shell.spawn(2);
    bad.program = Path::new("/nowhere/at/all");
    rig.supervisor.send(&[Request::Stand(bad)]).unwrap();
    rig.stand(3, "exit 0");
    rig.settle();
    std::fs::write(rig.path("go"), "").unwrap();
    assert_eq!(rig.ended(1).taken_over_by, Some(3));
    assert_eq!(
        rig.next(),
        Event::CouldNotStart { id: 2, step: Step::Program, errno: libc::ENOENT, follows: Some(1) }
    );
    assert!(matches!(rig.next(), Event::Started { id: 3, follows: Some(1), .. }));
    rig.ended(3);
}

#[test]
fn a_standing_process_that_is_killed_is_dropped() {
    let mut rig = Rig::new();
    rig.start(1, &until(&rig, "go"));
    rig.started(1);
    rig.stand(2, "exit 0");
    rig.stand(3, "exit 0");
    rig.kill(2, Duration::from_secs(1));
    assert_eq!(rig.next(), Event::Dropped { id: 2 });
    rig.settle();
    std::fs::write(rig.path("go"), "").unwrap();
    assert_eq!(rig.ended(1).taken_over_by, Some(3));
    rig.ended(3);
}

#[test]
fn a_killed_process_is_taken_over_from_too() {
    let mut rig = Rig::new();
    rig.start(1, "sleep 1000");
    rig.started(1);
    rig.stand(2, "exit 0");
    rig.kill(1, Duration::from_secs(20));
    assert_eq!(rig.ended(1).taken_over_by, Some(2));
    assert!(rig.ended(2).status.success());
}

#[test]
fn cpus_are_taken_over() {
    let mut rig = Rig::new();
    let wait = until(&rig, "go");
    rig.start_with(1, &wait, |spawn| spawn.affinity = Some(&[0]));
    rig.started(1);
    for id in [2, 3] {
        rig.stand(id, "grep Cpus_allowed_list /proc/self/status");
    }
    rig.settle();
    std::fs::write(rig.path("go"), "").unwrap();
    rig.ended(3);
    for out in ["out.2", "out.3"] {
        assert_eq!(rig.read(out), "Cpus_allowed_list:\t0\n");
    }
}
