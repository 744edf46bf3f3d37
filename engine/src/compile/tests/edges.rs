//! Which edges a list has and why, one feature at a time.

use super::*;
use expect_test::{Expect, expect};

/// Compares every reason for order in `list` with `wanted`; `implied` marks those that follow from others.
fn check(list: &str, wanted: &Expect) {
    let steps = parse(list);
    let space = Space::new(None);
    let listing = listing(&steps, &space);
    let edges = explain(&listing);
    let mut text = String::new();
    for (from, to, why, datum) in &edges {
        let why = match why {
            crate::Hazard::Argument => "argument".to_string(),
            hazard => format!("{} {}", format!("{hazard:?}").to_uppercase(), space.name_of(*datum)),
        };
        let (a, b) = (&steps[*from as usize].name, &steps[*to as usize].name);
        let implied = if is_implied(&edges, *from, *to) { ", implied" } else { "" };
        let _ = writeln!(text, "{a} → {b}  {why}{implied}");
    }
    wanted.assert_eq(&text);
    let after = closure(&compiled(&steps, &mut Frontier::default()), steps.len());
    for (from, to, ..) in &edges {
        assert!(after[*from as usize][*to as usize], "the graph keeps {from} before {to}");
    }
}

/// Whether another way leads from one task to the other.
fn is_implied(edges: &[(u32, u32, crate::Hazard, u32)], from: u32, to: u32) -> bool {
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(at) = reached.get(next).copied() {
        let on = edges.iter().filter(|(a, b, ..)| *a == at && (*a, *b) != (from, to)).map(|(_, b, ..)| *b);
        let new: Vec<u32> = on.filter(|b| !reached.contains(b)).collect();
        reached.extend(new);
        next += 1;
    }
    reached.contains(&to)
}

#[test]
fn a_reader_follows_the_writer() {
    check(
        "a: writes x\n b: reads x",
        &expect![[r#"
        a → b  RAW x
    "#]],
    );
}

#[test]
fn readers_have_no_order_among_themselves() {
    check("a: reads x\n b: reads x\n c: reads x", &expect![""]);
}

#[test]
fn write_after_read_keeps_readers_first() {
    check(
        "a: writes x\n b: reads x\n c: writes x",
        &expect![[r#"
        a → b  RAW x
        a → c  WAW x, implied
        b → c  WAR x
    "#]],
    );
}

#[test]
fn a_writer_waits_for_every_reader() {
    check(
        "a: reads x\n b: reads x\n c: writes x",
        &expect![[r#"
        a → c  WAR x
        b → c  WAR x
    "#]],
    );
}

#[test]
fn writers_keep_their_order() {
    check(
        "a: writes x\n b: writes x\n c: writes x",
        &expect![[r#"
        a → b  WAW x
        b → c  WAW x
    "#]],
    );
}

#[test]
fn reading_and_writing_is_both() {
    check(
        "a: writes x\n b: reads x, writes x\n c: reads x, writes x\n d: reads x",
        &expect![[r#"
        a → b  RAW x
        a → b  WAW x
        b → c  RAW x
        b → c  WAW x
        c → d  RAW x
    "#]],
    );
}

#[test]
fn a_task_never_waits_for_itself() {
    check("a: reads x, writes x, writes x, reads x\n b: reads /d, writes /d/f", &expect![""]);
}

#[test]
fn a_reader_after_two_writers_reads_the_later_one() {
    check(
        "a: writes x\n b: writes x\n c: reads x",
        &expect![[r#"
        a → b  WAW x
        b → c  RAW x
    "#]],
    );
}

#[test]
fn arguments_are_edges() {
    check(
        "a:\n b: takes a\n c: takes a, takes b, takes a",
        &expect![[r#"
        a → b  argument
        a → c  argument, implied
        b → c  argument
    "#]],
    );
}

#[test]
fn an_argument_and_a_hazard_are_two_reasons() {
    check(
        "a: writes x\n b: takes a, reads x",
        &expect![[r#"
        a → b  argument
        a → b  RAW x
    "#]],
    );
}

#[test]
fn names_keys_and_files_are_different_data() {
    check("a: writes x\n b: writes x[1]\n c: writes /x\n d: writes x[2]", &expect![""]);
}

#[test]
fn equal_keys_are_one_datum() {
    check(
        "a: writes rows[7]\n b: reads rows[7]\n c: reads rows[8]\n d: reads columns[7]",
        &expect![[r#"
        a → b  RAW rows[7]
    "#]],
    );
}

#[test]
fn a_directory_conflicts_with_the_files_below_it() {
    check(
        "a: writes /d/f\n b: reads /d\n c: writes /d/g\n d: writes /d",
        &expect![[r#"
        a → b  RAW /d
        b → c  WAR /d/g
        a → d  WAW /d, implied
        b → d  WAR /d, implied
        c → d  WAW /d
    "#]],
    );
}

#[test]
fn a_file_below_a_written_directory_waits_for_it() {
    check(
        "a: writes /d\n b: reads /d/f\n c: writes /d/f\n d: reads /d/g",
        &expect![[r#"
        a → b  RAW /d/f
        a → c  WAW /d/f, implied
        b → c  WAR /d/f
        a → d  RAW /d/g
    "#]],
    );
}

#[test]
fn files_of_one_directory_do_not_conflict() {
    check("a: writes /d/f\n b: writes /d/g\n c: reads /d/ff", &expect![""]);
}

#[test]
fn a_name_that_starts_alike_is_not_below() {
    check(
        "a: writes /d\n b: writes /dd/f\n c: reads /d/f",
        &expect![[r#"
        a → c  RAW /d/f
    "#]],
    );
}

#[test]
fn directories_nest() {
    check(
        "a: writes /d\n b: writes /d/e/f\n c: reads /d/e\n d: writes /d",
        &expect![[r#"
        a → b  WAW /d/e/f
        a → c  RAW /d/e, implied
        b → c  RAW /d/e
        a → d  WAW /d, implied
        b → d  WAW /d, implied
        c → d  WAR /d
    "#]],
    );
}

#[test]
fn the_root_directory_holds_every_file_and_nothing_else() {
    check(
        "a: writes /d/f\n b: writes x\n c: reads /\n d: writes x[1]\n e: writes /q",
        &expect![[r#"
        a → c  RAW /
        c → e  WAR /q
    "#]],
    );
}

#[test]
fn joins_are_not_tasks() {
    let list = "
        a: reads /d
        b: reads /d
        c: reads /d
        d: reads /d
        e: reads /d
        f: writes /d/f
        g: writes /d/g
    ";
    check(
        list,
        &expect![[r#"
        a → f  WAR /d/f
        b → f  WAR /d/f
        c → f  WAR /d/f
        d → f  WAR /d/f
        e → f  WAR /d/f
        a → g  WAR /d/g
        b → g  WAR /d/g
        c → g  WAR /d/g
        d → g  WAR /d/g
        e → g  WAR /d/g
    "#]],
    );
    let steps = parse(list);
    let csr = compiled(&steps, &mut Frontier::default());
    assert_eq!((csr.len(), csr.edges()), (8, 7), "five readers wait in one join, two writers wait for it");
}
