//! Files that no template is: each gives one clear error, soon, and never a panic or a wait.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tarragon_ptd::workflow::{Options, load};
use tarragon_ptd::{Mistakes, Template};

/// How long one may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What is told of a file with these bytes, as a template and as a workflow.
fn told_of(bytes: &[u8]) -> Result<(), Mistakes> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("hostile.yml");
    std::fs::write(&path, bytes).expect("a file");
    told_of_path(&path)
}

fn told_of_path(path: &Path) -> Result<(), Mistakes> {
    let start = Instant::now();
    let template = Template::load(path).map(|_| ());
    let workflow = load(path, &Options::new()).map(|_| ());
    assert!(start.elapsed() < TIME_MAX, "it took {:?}", start.elapsed());
    if let (Err(template), Err(workflow)) = (&template, &workflow) {
        assert_eq!(template.to_string(), workflow.to_string());
    }
    template
}

/// One mistake, which says this, at this place.
#[track_caller]
fn one(bytes: impl AsRef<[u8]>, place: &str, what: &str) {
    let mistakes = told_of(bytes.as_ref()).expect_err("it is no template");
    let text = mistakes.to_string();
    assert_eq!(mistakes.len(), 1, "{text}");
    assert!(text.contains(what), "{text}");
    assert!(text.contains(&format!("hostile.yml:{place}")), "{text}");
}

const RIGHT: &str = "type: process\nexecutables:\n  - target: echo\n    args: [a, {literal: b}]\n";

#[test]
fn nesting_has_a_bound() {
    one("[".repeat(10 << 20), "1:65", "nested more than 64 levels deep");
    one("{a: ".repeat(1 << 20), "1:", "nested more than 64 levels deep");
    one("- ".repeat(5 << 20), "1:", "nested more than 64 levels deep");
    one("? ".repeat(1 << 20), "1:", "nested more than 64 levels deep");
    let stairs: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    one(stairs, "65:65", "nested more than 64 levels deep");
    let closed = format!("a: {}{}", "[".repeat(60), "]".repeat(60));
    assert!(!told_of(closed.as_bytes()).unwrap_err().to_string().contains("nested"));
}

#[test]
fn aliases_have_a_bound() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for i in 1..20 {
        let alias = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![alias; 10].join(", "));
    }
    one(bomb, "6:", "more than 524288 nodes");
    let mut tower = "a0: &a0 [x]\n".to_string();
    for i in 1..100 {
        tower += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
    }
    one(tower, "", "with aliases it is nested more than 64 levels deep");
    one("a: &a [*a]", "1:8", "inside of what it stands for");
    one("a: *b", "1:4", "no YAML");
    // What is below the bound is what it stands for.
    let fine = "type: process\nexecutables: [&e {target: echo, args: &a [x, *a2]}]".replace("*a2", "y");
    told_of(fine.as_bytes()).unwrap();
    let merged = "type: &k process\nexecutables: [{target: e, args: [*k]}]\ntimeout: &t {sec: 1}\n";
    told_of(merged.as_bytes()).unwrap();
}

#[test]
fn documents_have_a_bound() {
    one("a".repeat(17 << 20), "", "longer than 16 MiB");
    one("- a\n".repeat(1 << 20), "", "more than 524288 nodes");
    one("", "", "the document is empty");
    one("\n# nothing\n", "", "the document is empty");
    one(format!("{RIGHT}---\n{RIGHT}"), "5:1", "a second document");
    one("---\n---\n", "2:1", "a second document");
}

#[test]
fn other_encodings_and_line_ends_are_read_or_refused() {
    told_of(RIGHT.replace('\n', "\r\n").as_bytes()).unwrap();
    told_of(format!("\u{feff}{RIGHT}").as_bytes()).unwrap();
    let wide: Vec<u8> = format!("\u{feff}{RIGHT}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    one(wide, "1:1", "byte 0xff is no UTF-8");
    one(b"type: process\nname: caf\xe9\n", "2:10", "byte 0xe9 is no UTF-8");
    one("type: process\nname: a\0b\n", "2:", "no YAML");
    one("type: process\nname: \u{1}\n", "2:", "no YAML");
}

#[test]
fn tabs_are_told() {
    one("type: process\nexecutables:\n\t- target: echo\n", "3:", "indent with spaces, not with tabs");
    told_of(RIGHT.replace("type: ", "type:\t").as_bytes()).unwrap();
}

#[test]
fn words_with_two_meanings_are_told() {
    let with = |value: &str| format!("{RIGHT}name: {value}\n");
    one(with("no"), "5:7", "write false, or quote it: \"no\"");
    one(with("On"), "5:7", "write true");
    one(with("010"), "5:7", "quote it: \"010\"");
    one(with("1:30:00"), "5:7", "quote it: \"1:30:00\"");
    told_of(with("'no'").as_bytes()).unwrap();
}

#[test]
fn keys_are_text_and_each_is_there_once() {
    one(format!("{RIGHT}1: x\n"), "5:1", "quote it if it is a name");
    let mistakes = told_of(format!("{RIGHT}~: x\ntrue: y\n[a]: z\n").as_bytes()).unwrap_err().to_string();
    assert!(mistakes.contains("5:1: a key must be text, and this is nothing: `~`"), "{mistakes}");
    assert!(mistakes.contains("6:1: a key must be text, and this is a bool: `true`"), "{mistakes}");
    assert!(mistakes.contains("7:1: a key must be text, and this is a list: `[a]`"), "{mistakes}");
    one(
        format!("{RIGHT}name: x\nname: y\n"),
        "6:1",
        "this key is there twice: `name`; it is given in line 5, too",
    );
    one(format!("{RIGHT}timeout: {{sec: 1, sec: 2}}\n"), "5:19", "this key is there twice");
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    one("type: [process", "1:", "no YAML");
    one("type: 'process", "1:", "no YAML");
    one("type: process\n  name: x\n", "2:", "no YAML");
    one("type: process: x\n", "1:", "no YAML");
    one(format!("{RIGHT}name: !mine x\n"), "5:", "the tag `!mine` means nothing here");
    one("%YAML 3.0\n---\na: b\n", "1:", "no YAML");
}

#[test]
fn what_is_no_file_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let told = |path: &Path| {
        let mistakes = told_of_path(path).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        mistakes.to_string()
    };
    assert!(told(dir.path()).contains("it is a directory, not a file; give the path of a YAML file"));
    let fifo = dir.path().join("fifo.yml");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(told(&fifo).contains("it is a fifo, not a file"));
    assert!(told(Path::new("/dev/zero")).contains("it is a device, not a file"));
    assert!(told(&dir.path().join("missing.yml")).contains("the file cannot be opened"));
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.yml"));
    assert!(told(&odd).contains("cannot be opened"));
    let socket = dir.path().join("socket.yml");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(told(&socket).contains("socket.yml"));
}
