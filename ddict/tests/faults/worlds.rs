//! Wrong worlds: what is no dictionary, another's, another version's, gone, or too large is a clear error.
//!
//! Each case runs in a process of its own, with a folder of its own for segments.

use super::bed::Dict;
use super::contents::contents;
use super::process::{part_of, start};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tarragon_ddict::{DDict, Descriptor, Error};

/// Name of a copy, what is changed in it, and what the error must say.
type Case<'a> = (&'a str, &'a dyn Fn(&Path), &'a [&'a str]);

/// Runs this test once more as another process whose segments lie in a new folder; what it printed.
fn in_a_folder(test: &str, folder: &Path) -> String {
    start(test, "", Some(folder)).succeed(Duration::from_secs(60))
}

fn new_folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("faults-").tempdir_in("/dev/shm").unwrap()
}

/// A dictionary that is there, and its file.
fn made() -> (Dict, PathBuf) {
    let dict = Dict::builder().memory(1 << 20).create().unwrap();
    dict.put("key", b"value of the key".to_vec()).unwrap();
    let file = PathBuf::from(std::env::var_os("TARRAGON_SHM").unwrap()).join(dict.name());
    (dict, file)
}

/// Copies a file that stays sparse, and changes bytes of the copy; a descriptor that leads there.
fn changed(dict: &Dict, file: &Path, name: &str, change: impl FnOnce(&Path)) -> Descriptor {
    let copy = file.with_file_name(name);
    let copied = Command::new("cp").arg("--sparse=always").args([file, &copy]).status().unwrap();
    assert!(copied.success());
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();
    change(&copy);
    let (text, own) = (dict.descriptor().to_string(), dict.name().to_owned());
    text.replace(&own, name).parse().unwrap()
}

fn write_word(file: &Path, index: u64, word: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&word.to_ne_bytes(), index * 8).unwrap();
}

/// The error of an attach, as text; it must be one.
fn refusal(descriptor: &Descriptor) -> (Error, String) {
    let error = descriptor.attach::<String, Vec<u8>>().expect_err("it is refused");
    let text = error.to_string();
    (error, text)
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
}

#[test]
fn files_that_are_no_dictionary_of_ours() {
    const TEST: &str = "faults::worlds::files_that_are_no_dictionary_of_ours";
    if part_of(TEST).is_none() {
        in_a_folder(TEST, new_folder().path());
        return;
    }
    let (dict, file) = made();
    // The registry knows a dictionary of this process by its number: the copies have another one, and say so.
    let other = |word: u64, value: u64| {
        move |copy: &Path| {
            write_word(copy, word, value);
            write_word(copy, 7, 1);
        }
    };
    let lead = |name: &str, change: &dyn Fn(&Path)| {
        let descriptor = changed(&dict, &file, name, |copy| change(copy));
        let text = descriptor.to_string().replace(&format!("{:x}", dict.uid()), &other_uid(dict.uid()));
        text.parse::<Descriptor>().unwrap()
    };
    let cases: [Case<'_>; 7] = [
        ("tarragon-a", &other(0, 7), &["it does not begin like a segment"]),
        ("tarragon-b", &other(1, 7), &["has layout", "use one version of the program for both"]),
        ("tarragon-c", &other(2, 32 << 32 | 4096), &["has layout", "use one version"]),
        ("tarragon-d", &other(3, 99), &["has layout", "99"]),
        ("tarragon-e", &other(6, 12345), &["ddict 12345", "ddict "]),
        ("tarragon-f", &other(10, 1 << 30), &["its sizes do not fit"]),
        (
            "tarragon-g",
            &|copy| OpenOptions::new().write(true).open(copy).unwrap().set_len(5000).unwrap(),
            &["its sizes do not fit its 5000 bytes"],
        ),
    ];
    for (name, change, parts) in cases {
        let (error, text) = refusal(&lead(name, change));
        assert!(matches!(error, Error::Segment(_)), "{error:?}");
        assert_says(&text, parts);
        println!("{text}");
    }
    let (_, text) = refusal(&lead("tarragon-h", &|copy| std::fs::write(copy, b"short").unwrap()));
    assert_says(&text, &["it has 5 bytes only"]);
    let (_, text) = refusal(&lead("tarragon-i", &|copy| {
        std::fs::set_permissions(copy, PermissionsExt::from_mode(0o644)).unwrap();
    }));
    assert_says(&text, &["other users may open it"]);
    let (error, text) = refusal(&lead("tarragon-j", &|copy| std::fs::remove_file(copy).unwrap()));
    assert!(matches!(error, Error::Gone { .. }), "{text}");
    let foreign = lead("tarragon-k", &|copy| {
        if chown(copy, Some(12345), None).is_err() {
            println!("skipped: a file of another user needs the right to give files away");
            std::fs::remove_file(copy).unwrap();
        }
    });
    if file.with_file_name("tarragon-k").exists() {
        assert_says(&refusal(&foreign).1, &["belongs to user 12345", "runs as user"]);
    }
    assert_eq!(dict.get("key").unwrap().as_deref(), Some(&b"value of the key"[..]));
}

/// The number of a dictionary whose low word is 1.
fn other_uid(uid: u128) -> String {
    format!("{:x}", uid >> 64 << 64 | 1)
}

#[test]
fn a_destroyed_dictionary_is_gone() {
    let dict = Dict::builder().memory(1 << 20).create().unwrap();
    let (descriptor, name) = (dict.descriptor(), dict.name().to_owned());
    let clone = dict.clone();
    dict.destroy();
    for error in [
        clone.get("key").unwrap_err(),
        clone.put("key", vec![1]).unwrap_err(),
        clone.remove("key").unwrap_err(),
        descriptor.attach::<String, Vec<u8>>().unwrap_err(),
    ] {
        assert!(matches!(&error, Error::Gone { name: of } if *of == name), "{error:?}");
        assert_says(&error.to_string(), &[&name, "is gone", "destroyed"]);
    }
    drop((dict, clone));
    assert!(matches!(descriptor.attach::<String, Vec<u8>>(), Err(Error::Gone { .. })));
}

#[test]
fn other_types_are_refused() {
    let dict = Dict::builder().memory(1 << 20).create().unwrap();
    let error = dict.descriptor().attach::<u64, f64>().unwrap_err();
    assert!(matches!(error, Error::Types { .. }), "{error:?}");
    assert_says(&error.to_string(), &["String to", "u64 to f64", "attach it with the types"]);
    // A descriptor that lies: the segment knows better.
    let text = dict.descriptor().to_string();
    let numbers = DDict::<u64, f64>::builder().memory(1 << 20).create().unwrap();
    let own: Vec<&str> = text.split(':').collect();
    let other = numbers.descriptor().to_string();
    let other: Vec<&str> = other.split(':').collect();
    let lie = [&own[..4], &other[4..]].concat().join(":").parse::<Descriptor>().unwrap();
    let error = lie.attach::<u64, f64>().expect_err("the segment knows its types");
    assert!(matches!(error, Error::Types { .. }), "{error:?}");
}

#[test]
fn too_large_keys_and_values_are_refused() {
    let dict = Dict::builder().memory(1 << 20).create().unwrap();
    dict.put("key", vec![7; 100]).unwrap();
    let before = dict.stats().unwrap().used_bytes;
    let key = "k".repeat(1 << 30);
    for error in [dict.put(key.as_str(), vec![1]).unwrap_err(), dict.get(key.as_str()).unwrap_err()] {
        assert!(
            matches!(error, Error::KeyTooLong { bytes, max: 65_535 } if bytes >= 1 << 30),
            "{}",
            error.to_string().chars().take(200).collect::<String>()
        );
        assert!(error.to_string().len() < 200, "a message can be read");
    }
    drop(key);
    let error = dict.put("key", vec![1; 8 << 20]).unwrap_err();
    assert!(matches!(error, Error::Memory(_)), "{error:?}");
    assert_says(&error.to_string(), &["8388608 bytes are needed", "1048576"]);
    for len in [1 << 40, usize::MAX / 2, usize::MAX] {
        let error = dict.put_with("key", len, |_| panic!("there is no place")).unwrap_err();
        assert!(matches!(error, Error::Memory(_)), "{error:?}");
    }
    assert_eq!(dict.get("key").unwrap(), Some(vec![7; 100]), "nothing half-written");
    assert_eq!(dict.stats().unwrap().used_bytes, before);
    super::bed::assert_clean(&dict);
}

#[test]
fn full_shared_memory_is_an_error() {
    const TEST: &str = "faults::worlds::full_shared_memory_is_an_error";
    if part_of(TEST).is_some() {
        return fill_the_folder();
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "none"])
        .arg(folder.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("skipped: a small tmpfs needs the right to mount");
        return;
    }
    let player = start(TEST, "", Some(folder.path()));
    let (status, text) = player.end(Duration::from_secs(60));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(Command::new("umount").arg(folder.path()).status().unwrap().success());
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {text}");
    assert_eq!(left, 0, "files left");
}

/// With 4 MiB in the folder, and a dictionary that may grow to 64.
fn fill_the_folder() {
    let dict = Dict::builder().memory(64 << 20).create().unwrap();
    let mut keys: u64 = 0;
    let error = loop {
        let key = format!("key {keys}");
        match dict.put(key.as_str(), contents(&key, 0, 30_000)) {
            Ok(()) => keys += 1,
            Err(error) => break error,
        }
    };
    assert!(keys > 10, "only {keys} keys");
    assert_says(&error.to_string(), &["is full", "bytes are needed", "TARRAGON_SHM"]);
    for index in 0..keys {
        let key = format!("key {index}");
        assert_eq!(dict.get(key.as_str()).unwrap(), Some(contents(&key, 0, 30_000)), "{key}");
    }
    super::bed::assert_clean(&dict);
    let ballast = PathBuf::from(std::env::var_os("TARRAGON_SHM").unwrap()).join("ballast");
    // Nothing at all is left: no second dictionary, and no signal.
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap_err();
    let error = Dict::builder().memory(1 << 20).create().unwrap_err();
    assert_says(&error.to_string(), &["is full", "bytes are needed"]);
    std::fs::remove_file(&ballast).unwrap();
    for index in 0..keys {
        dict.remove(format!("key {index}").as_str()).unwrap();
    }
    dict.put("key", contents("key", 1, 30_000)).unwrap();
    println!("full after {keys} keys: {error}");
}
