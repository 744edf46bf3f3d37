//! Random and exhaustive lists against the naive definition: every pair of conflicting accesses keeps list order, and
//! nothing else does; a failure skips those that need what failed.

use super::*;
use proptest::prelude::*;

fn covers(above: &str, below: &str) -> bool {
    let is_path = above.starts_with('/') && below.starts_with('/');
    above == below || (is_path && below.starts_with(above) && below[above.len()..].starts_with('/'))
}

fn conflict(a: &Step, b: &Step) -> bool {
    a.touches.iter().any(|x| {
        let meets = |y: &Touch| covers(&x.datum, &y.datum) || covers(&y.datum, &x.datum);
        b.touches.iter().any(|y| (x.writes || y.writes) && meets(y))
    })
}

/// Every pair that keeps list order.
fn order(steps: &[Step]) -> Vec<Vec<bool>> {
    let n = steps.len();
    let mut after = vec![vec![false; n]; n];
    for from in (0..n).rev() {
        for to in from + 1..n {
            if steps[to].takes.contains(&from) || conflict(&steps[from], &steps[to]) {
                let theirs = after[to].clone();
                after[from].iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
                after[from][to] = true;
            }
        }
    }
    after
}

/// What a read of `datum` by task `at` is made of: the latest task that wrote it or a directory above it, and every
/// task since then that wrote something below it.
fn sources(steps: &[Step], at: usize, datum: &str) -> Vec<usize> {
    let writes = |s: usize, test: &dyn Fn(&str) -> bool| {
        steps[s].touches.iter().any(|t| t.writes && test(t.datum.as_str()))
    };
    let whole = (0..at).rev().find(|s| writes(*s, &|written| covers(written, datum)));
    let since = whole.map_or(0, |w| w + 1);
    let parts = (since..at).filter(|s| writes(*s, &|written| covers(datum, written)));
    whole.into_iter().chain(parts).collect()
}

/// How each task ends when those in `failing` fail.
fn outcomes(steps: &[Step], failing: &[bool]) -> Vec<char> {
    let mut ends: Vec<char> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let reads = step.touches.iter().filter(|t| !t.writes);
        let mut needs: Vec<usize> = reads.flat_map(|t| sources(steps, at, &t.datum)).collect();
        needs.extend(&step.takes);
        ends.push(if needs.iter().any(|s| ends[*s] != '+') {
            's'
        } else if failing[at] {
            'f'
        } else {
            '+'
        });
    }
    ends
}

/// The same by the graph, as the serial run walks it.
fn outcomes_of(csr: &Arrays, failing: &[bool]) -> Vec<char> {
    let mut poisoned = vec![false; csr.len()];
    let mut ends = vec!['?'; failing.len()];
    for node in 0..csr.len() as u32 {
        let task = csr.task(node);
        let end = match (poisoned[node as usize], task) {
            (true, _) => 's',
            (false, JOIN) => '+',
            (false, task) => {
                if failing[task as usize] {
                    'f'
                } else {
                    '+'
                }
            }
        };
        if task != JOIN {
            ends[task as usize] = end;
        }
        if end != '+' {
            let needing = csr.targets(node).iter().filter(|t| *t & NEEDS != 0);
            needing.for_each(|t| poisoned[(t & !NEEDS) as usize] = true);
        }
    }
    ends
}

/// What every graph of `steps` must keep.
fn holds(steps: &[Step], failing: &[bool], frontier: &mut Frontier) {
    let csr = compiled(steps, frontier);
    let mut in_degree = vec![0u32; csr.len()];
    (0..csr.len() as u32)
        .flat_map(|node| csr.targets(node))
        .for_each(|t| in_degree[(t & !NEEDS) as usize] += 1);
    let roots: Vec<u32> = (0..csr.roots().len()).map(|i| csr.roots().get(i)).collect();
    for node in 0..csr.len() as u32 {
        assert_eq!(csr.in_degree(node), in_degree[node as usize], "sources of {node} in {steps:?}");
        assert_eq!(roots.contains(&node), in_degree[node as usize] == 0, "root {node} in {steps:?}");
    }
    let naive = order(steps);
    assert_eq!(closure(&csr, steps.len()), naive, "the order of {steps:?}");
    assert_eq!(outcomes_of(&csr, failing), outcomes(steps, failing), "failing {failing:?} in {steps:?}");
    let mut explained = vec![vec![false; steps.len()]; steps.len()];
    for (from, to, ..) in explain(&listing(steps, &Space::new(None))) {
        assert!(naive[from as usize][to as usize], "{from} → {to} is explained in {steps:?}");
        explained[from as usize][to as usize] = true;
    }
    for from in (0..steps.len()).rev() {
        for to in from + 1..steps.len() {
            if explained[from][to] {
                let theirs = explained[to].clone();
                explained[from].iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
            }
        }
    }
    assert_eq!(explained, naive, "what is explained of {steps:?}");
}

const DATA: [&str; 20] = [
    "x",
    "y",
    "z",
    "d",
    "rows[0]",
    "rows[1]",
    "rows[5000]",
    "columns[0]",
    "/q",
    "/r/s",
    "/d",
    "/d/a",
    "/d/b",
    "/d/e",
    "/d/e/f",
    "/d/e/g",
    "/d/e/h/i",
    "/dd",
    "/d/e/h/j",
    "/d/c",
];

/// A task over the first `data` of [`DATA`], or the last.
fn step(data: usize, from_end: bool) -> impl Strategy<Value = Step> {
    let touch = (0..data, prop::bool::weighted(0.4)).prop_map(move |(i, writes)| {
        let i = if from_end { DATA.len() - 1 - i } else { i };
        Touch { datum: DATA[i].to_string(), writes }
    });
    let takes = prop::collection::vec(0usize..1000, 0..3);
    let weight = (prop::bool::weighted(0.2), -2i32..3, 1u8..9);
    (prop::collection::vec(touch, 0..4), prop::bool::weighted(0.2), takes, weight).prop_map(
        |(touches, takes_any, takes, (weighted, priority, cost))| Step {
            name: String::new(),
            touches,
            takes: if takes_any { takes } else { Vec::new() },
            priority: if weighted { priority } else { 0 },
            cost: if weighted { f32::from(cost) } else { 1.0 },
        },
    )
}

/// Lists of up to `tasks`, with the tasks that fail; some have no weights, so that nodes keep list order.
fn lists(tasks: usize) -> impl Strategy<Value = (Vec<Step>, Vec<bool>)> {
    (1usize..=DATA.len(), any::<bool>(), any::<bool>()).prop_flat_map(move |(data, from_end, weighted)| {
        let one = (step(data, from_end), prop::bool::weighted(0.08));
        prop::collection::vec(one, 0..=tasks).prop_map(move |list| {
            let (mut steps, failing): (Vec<Step>, Vec<bool>) = list.into_iter().unzip();
            for (at, step) in steps.iter_mut().enumerate() {
                step.takes.retain(|_| at > 0);
                step.takes.iter_mut().for_each(|from| *from %= at.max(1));
                if !weighted {
                    (step.priority, step.cost) = (0, 1.0);
                }
            }
            (steps, failing)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn short_random_lists_keep_exactly_the_naive_order((steps, failing) in lists(12)) {
        holds(&steps, &failing, &mut Frontier::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_random_lists_keep_exactly_the_naive_order(
        (one, failing_one) in lists(200), (two, failing_two) in lists(200)
    ) {
        let mut frontier = Frontier::default();
        holds(&one, &failing_one, &mut frontier);
        holds(&two, &failing_two, &mut frontier);
    }
}

/// Every list of up to four tasks over two data, each access none, read, write or both; the second task fails.
fn exhaustive(data: [&str; 2]) {
    let mut frontier = Frontier::default();
    let choices: Vec<Step> = (0..16)
        .map(|bits| {
            let touch = |bit: usize| Touch { datum: data[bit / 2].to_string(), writes: bit % 2 == 1 };
            let touches = (0..4).filter(|bit| bits >> bit & 1 == 1).map(touch).collect();
            Step { touches, cost: 1.0, ..Step::default() }
        })
        .collect();
    for tasks in 0..=4u32 {
        for code in 0..16usize.pow(tasks) {
            let steps: Vec<Step> = (0..tasks).map(|i| choices[code >> (4 * i) & 15].clone()).collect();
            let failing: Vec<bool> = (0..tasks).map(|i| i == 1).collect();
            holds(&steps, &failing, &mut frontier);
        }
    }
}

#[test]
fn every_list_of_four_tasks_over_two_names() {
    exhaustive(["x", "y"]);
}

#[test]
fn every_list_of_four_tasks_over_a_directory_and_a_file_in_it() {
    exhaustive(["/d", "/d/f"]);
}
