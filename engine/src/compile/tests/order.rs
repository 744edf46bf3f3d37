//! In which order ready tasks start: the user's priority, then the longest cost to the end.

use super::*;
use expect_test::{Expect, expect};

/// Compares the order in which one worker would run `list`, and the roots and targets best first.
fn check(list: &str, wanted: &Expect) {
    let steps = parse(list);
    let csr = compiled(&steps, &mut Frontier::default());
    let name = |node: u32| match csr.task(node & !NEEDS) {
        JOIN => "join",
        task => steps[task as usize].name.as_str(),
    };
    let mut text = String::from("runs ");
    (0..csr.len() as u32).for_each(|node| text.push_str(&format!(" {}", name(node))));
    text.push_str("\nroots");
    (0..csr.roots().len()).for_each(|i| text.push_str(&format!(" {}", name(csr.roots().get(i)))));
    text.push('\n');
    for node in (0..csr.len() as u32).filter(|node| csr.targets(*node).len() > 1) {
        let targets: Vec<&str> = csr.targets(node).iter().map(|t| name(*t)).collect();
        let _ = writeln!(text, "{} → {}", name(node), targets.join(" "));
    }
    wanted.assert_eq(&text);
}

#[test]
fn without_hints_list_order_is_execution_order() {
    check(
        "a:\n b:\n c:\n d: takes b",
        &expect![[r#"
        runs  a b c d
        roots b a c
    "#]],
    );
}

#[test]
fn the_longest_way_to_the_end_goes_first() {
    check(
        "a: writes x\n b: reads x\n c: reads x, writes y\n d: reads y\n e: writes z\n f: reads z",
        &expect![[r#"
        runs  a b c d e f
        roots a e
        a → c b
    "#]],
    );
}

#[test]
fn costs_count() {
    check(
        "a: cost 2\n b: cost 5\n c: cost 0.5\n d: takes a, cost 4",
        &expect![[r#"
        runs  a b d c
        roots a b c
    "#]],
    );
}

#[test]
fn priority_beats_cost() {
    check(
        "a: cost 9\n b: priority 1\n c: priority -1, cost 100\n d:",
        &expect![[r#"
            runs  b a d c
            roots b a d c
        "#]],
    );
}

#[test]
fn equals_keep_list_order() {
    check(
        "a: priority 1\n b: priority 1\n c: priority 1",
        &expect![[r#"
        runs  a b c
        roots a b c
    "#]],
    );
}

#[test]
fn a_join_costs_nothing_and_goes_first() {
    check(
        "a: reads /d\n b: reads /d\n c: reads /d\n d: reads /d, priority 2\n e: writes /d/f\n f: writes /d/g",
        &expect![[r#"
            runs  d a b c join e f
            roots d a b c
            join → e f
        "#]],
    );
}
