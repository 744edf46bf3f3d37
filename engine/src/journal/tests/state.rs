//! When a path counts as unchanged.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::SystemTime;

/// A state, and what should become of it.
fn check_change(with_hash: bool, make: impl FnOnce(&Path), change: impl FnOnce(&Path), unchanged: bool) {
    let folder = folder();
    let path = folder.path().join("it");
    make(&path);
    let state = FileState::look(&path, with_hash).unwrap();
    assert!(state.unchanged(&path).unwrap(), "nothing happened yet: {state:?}");
    change(&path);
    assert_eq!(state.unchanged(&path).unwrap(), unchanged, "{state:?}");
}

fn write(text: &'static str) -> impl Fn(&Path) {
    move |path| fs::write(path, text).unwrap()
}

/// Sets the modification time to one that nothing else in these tests has.
fn touch(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

fn rewrite_in_the_same_instant(path: &Path) {
    let time = path.metadata().unwrap().modified().unwrap();
    fs::write(path, "txet").unwrap();
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_file_says_what_it_is() {
    let folder = folder();
    let path = folder.path().join("it");
    assert_eq!(FileState::look(&path, true).unwrap(), FileState::MISSING);
    fs::write(&path, "text").unwrap();
    touch(&path);
    let state = FileState::look(&path, false).unwrap();
    let mtime_ns = 1_234_567_890_123_456_789;
    assert_eq!(state, FileState { kind: Kind::File, bytes: 4, mtime_ns, hash: None });
    let hash = Some(Hash::Content(hash_of_value(b"text")));
    assert_eq!(FileState::look(&path, true).unwrap(), FileState { hash, ..state });
    assert_eq!(FileState::look(&path.join("below"), false).unwrap(), FileState::MISSING);
    assert_eq!(FileState::look(Path::new("/dev/null"), true).unwrap().kind, Kind::Other);
}

#[test]
fn size_and_time_count_without_hash() {
    check_change(false, write("text"), |_| {}, true);
    check_change(false, write("text"), write("texts"), false);
    check_change(false, write("text"), touch, false);
    check_change(false, write("text"), |path| fs::remove_file(path).unwrap(), false);
    check_change(false, |_| {}, write(""), false);
    check_change(false, write("text"), rewrite_in_the_same_instant, true);
}

#[test]
fn contents_alone_count_with_hash() {
    check_change(true, write("text"), touch, true);
    check_change(true, write("text"), write("text"), true);
    check_change(true, write("text"), write("texts"), false);
    check_change(true, write("text"), rewrite_in_the_same_instant, false);
    check_change(true, write("text"), |path| fs::remove_file(path).unwrap(), false);
    check_change(true, |_| {}, |_| {}, true);
}

#[test]
fn contents_longer_than_the_buffer_are_hashed_to_the_end() {
    let folder = folder();
    let path = folder.path().join("it");
    let mut bytes = vec![1; 700_001];
    fs::write(&path, &bytes).unwrap();
    let state = FileState::look(&path, true).unwrap();
    assert_eq!((state.bytes, state.hash), (700_001, Some(Hash::Content(hash_of_value(&bytes)))));
    *bytes.last_mut().unwrap() = 2;
    fs::write(&path, &bytes).unwrap();
    assert!(!state.unchanged(&path).unwrap());
}

#[test]
fn a_link_is_what_it_leads_to() {
    let folder = folder();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    symlink("file", &link).unwrap();
    assert_eq!(FileState::look(&link, false).unwrap(), FileState::MISSING);
    fs::write(&file, "text").unwrap();
    assert_eq!(FileState::look(&link, false).unwrap(), FileState::look(&file, false).unwrap());
}

fn tree(path: &Path) {
    fs::create_dir_all(path.join("a/deep/empty")).unwrap();
    for name in ["a/one", "a/deep/two", "three"] {
        fs::write(path.join(name), "text").unwrap();
    }
    symlink("a", path.join("link")).unwrap();
}

#[test]
fn everything_in_a_directory_counts() {
    let hour = Duration::from_secs(3600);
    let age = move |path: &Path| {
        let file = File::options().append(true).open(path.join("a/deep/two")).unwrap();
        file.set_modified(SystemTime::now() - hour).unwrap();
    };
    for with_hash in [false, true] {
        check_change(with_hash, tree, |_| {}, true);
        check_change(with_hash, tree, |it| fs::write(it.join("a/deep/two"), "texts").unwrap(), false);
        check_change(with_hash, tree, |it| fs::write(it.join("a/deep/four"), "").unwrap(), false);
        check_change(with_hash, tree, |it| fs::remove_file(it.join("three")).unwrap(), false);
        check_change(with_hash, tree, |it| fs::rename(it.join("three"), it.join("3")).unwrap(), false);
        check_change(with_hash, tree, |it| fs::remove_dir(it.join("a/deep/empty")).unwrap(), false);
        let turn = |it: &Path| {
            fs::remove_file(it.join("link")).unwrap();
            symlink("b", it.join("link")).unwrap();
        };
        check_change(with_hash, tree, turn, false);
        check_change(with_hash, tree, |it| fs::remove_dir_all(it).unwrap(), false);
        check_change(with_hash, tree, age, with_hash);
        let come_and_go = |it: &Path| {
            fs::write(it.join("a/short"), "").unwrap();
            fs::remove_file(it.join("a/short")).unwrap();
        };
        check_change(with_hash, tree, come_and_go, true);
        let swap = |it: &Path| rewrite_in_the_same_instant(&it.join("a/one"));
        check_change(with_hash, tree, swap, !with_hash);
    }
}

#[test]
fn a_directory_has_the_bytes_of_its_files() {
    let folder = folder();
    tree(&folder.path().join("it"));
    for with_hash in [false, true] {
        let state = FileState::look(&folder.path().join("it"), with_hash).unwrap();
        assert_eq!((state.kind, state.bytes, state.mtime_ns), (Kind::Directory, 12, 0));
    }
}

#[test]
fn a_file_that_became_a_directory_has_changed() {
    let turn = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    check_change(false, write(""), turn, false);
    check_change(true, write(""), turn, false);
}

#[test]
fn the_journal_says_how_files_are_compared() {
    let folder = folder();
    let file: PathBuf = folder.path().join("file");
    fs::write(&file, "text").unwrap();
    for content_hash in [false, true] {
        let path = folder.path().join(format!("journal {content_hash}"));
        let journal = Journal::open(&path, Options { content_hash, ..NEW }).unwrap();
        assert_eq!(journal.look(&file).unwrap().hash.is_some(), content_hash);
    }
}
