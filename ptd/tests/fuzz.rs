//! Documents that were damaged at random: whatever is in them, reading ends soon, without a panic.
//!
//! Runs for `TARRAGON_FUZZ_SECONDS`, 2 without it; `TARRAGON_FUZZ_SEED` repeats a run. A document that breaks something
//! is shown.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tarragon_engine::Exit;
use tarragon_ptd::workflow::{Options, Planned, parse};
use tarragon_ptd::{Source, Template};

/// How long one document may take.
const DOCUMENT_TIME_MAX: Duration = Duration::from_secs(5);
/// Longer documents are cut.
const BYTES_MAX: usize = 1 << 14;

/// What documents are made from.
const SEEDS: &[&str] = &[
    include_str!("data/gpu_matmul_ptd.yml"),
    include_str!("data/dictionary_job_ptd.yml"),
    include_str!("../../docs/ptd.md"),
    "steps:\n  - {ptd: {args: [a], type: process, executables: [{target: e, args: [a]}]}, for: {a: 0..3}}\n",
    "mapreduce:\n  map: {ptd: {type: job, executables: [{target: e}]}}\n  reduce: {ptd: {type: process, \
     executables: [{target: {format: ['{}', 1]}}]}}\n",
    "a: &a [1, *a]\nb: {<<: *a}\n? [x]\n: y\n--- !!str\n'q': \"\\u0041\"\n|2-\n  text\n",
];

/// Words that are put in.
const WORDS: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    ":",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: ",
    "|",
    ">",
    "'",
    "\"",
    "#",
    "\t",
    "\r",
    "\u{feff}",
    "---\n",
    "...\n",
    "!!str ",
    "!x ",
    "%YAML 1.2\n",
    "null",
    "no",
    "1e999",
    "-0",
    "0x",
    "..",
    "0..9",
    "glob:",
    "@",
    "{literal: ",
    "{format: ['{",
    "{range: [",
    "{env: [",
    "import_args",
    "import_kwargs",
    "kwargs",
    "executables",
    "target",
    "type",
    "function",
    "timeout",
    "\u{0}",
    "\u{85}",
    "é",
    "\u{1F600}",
    "  ",
    "\n",
    ",",
];

/// Random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound.max(1)
    }
}

/// One of the seeds, or a block of YAML in it, damaged in a few places.
fn damaged(random: &mut Random) -> String {
    let seed = SEEDS[random.below(SEEDS.len())];
    let blocks: Vec<&str> = seed.split("```").filter_map(|part| part.strip_prefix("yaml\n")).collect();
    let seed = if blocks.is_empty() { seed } else { blocks[random.below(blocks.len())] };
    let mut bytes = seed.as_bytes().to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => drop(bytes.drain(at..(at + random.below(40)).min(bytes.len()))),
            1 => {
                let word = WORDS[random.below(WORDS.len())];
                let times = if random.below(20) == 0 { 500 } else { 1 };
                drop(bytes.splice(at..at, word.repeat(times).into_bytes()));
            }
            2 => {
                let other = SEEDS[random.below(SEEDS.len())].as_bytes();
                let from = random.below(other.len());
                let part = &other[from..(from + random.below(200)).min(other.len())];
                drop(bytes.splice(at..at, part.iter().copied()));
            }
            3 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            4 if at < bytes.len() => bytes.swap(at, 0),
            _ => {
                let end = (at + random.below(100)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Everything that is done with a document, as far as that comes.
fn read(text: &str) {
    if let Ok(template) = Template::of_text("fuzz.yml", text) {
        let mut import = template.import();
        for i in 0..3 {
            import = import.arg(i);
        }
        if let Ok(imported) = import.load::<Exit>() {
            let _ = imported.spec((1, "x")).map(|spec| spec.command());
        }
    } else if let Err(mistakes) = Template::of_text("fuzz.yml", text) {
        assert!(!mistakes.is_empty() && !mistakes.to_string().is_empty());
        for mistake in &mistakes {
            let Some(span) = mistake.span else { continue };
            assert!(text.get(span.bytes()).is_some(), "the place {span:?} is none");
        }
    }
    let source = Arc::new(Source::of_text("fuzz.yml", text));
    if let Ok(workflow) = parse(&source, &Options::new()) {
        for planned in workflow.calls().take(10) {
            if let Planned::Call(call) = planned {
                let _ = call.spec().map(|spec| spec.command());
            }
        }
    }
}

#[test]
fn damaged_documents_are_read_without_a_panic() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("TARRAGON_FUZZ_SECONDS").unwrap_or(2);
    let seed = number("TARRAGON_FUZZ_SEED").unwrap_or(0x9E37_79B9_7F4A_7C15);
    let mut random = Random(seed | 1);
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        let text = damaged(&mut random);
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&text)));
        assert!(outcome.is_ok(), "document {count} of seed {seed} breaks it:\n{text}");
        let taken = begun.elapsed();
        assert!(taken < DOCUMENT_TIME_MAX, "document {count} of seed {seed} took {taken:?}:\n{text}");
        count += 1;
    }
    assert!(count > 10, "only {count} documents were read");
}
