//! What is found at a journal's path, and what the error says about it.

use super::super::header::Header;
use super::*;
use expect_test::{Expect, expect};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Characters of a line of a message in these tests.
const LINE_CHARS: usize = 90;

/// The error's message, broken into lines; `DIR` stands for the folder of `tests`. The file must be as it was.
fn message(folder: &TempDir, path: &Path, options: Options) -> String {
    let before = fs::read(path).ok();
    let error = Journal::open(path, options).err().expect("an error").to_string();
    assert_eq!(fs::read(path).ok(), before, "an error leaves the file as it is");
    let mut lines = vec![String::new()];
    for word in error.replace(folder.path().to_str().unwrap(), "DIR").split(' ') {
        let line = lines.last_mut().expect("there is one");
        match line.len() + word.len() {
            0..LINE_CHARS if line.is_empty() => line.push_str(word),
            0..LINE_CHARS => *line = format!("{line} {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn check_message(folder: &TempDir, path: &Path, options: Options, expected: &Expect) {
    expected.assert_eq(&message(folder, path, options));
}

#[test]
fn what_is_appended_is_there_when_resumed() {
    let folder = folder();
    let path = folder.path().join("journal");
    write_journal(&path, 7);
    let journal = Journal::open(&path, RESUME).unwrap();
    assert_eq!(remembered(&journal, 10), (0..7).collect::<Vec<_>>());
    assert_eq!(journal.dropped_bytes(), 0);
    assert_eq!(journal.path(), path);
    journal.append(&entry(8)).unwrap();
    assert!(journal.past(entry(8).identity).is_none(), "the past is what earlier runs did");
    journal.close().unwrap();
    drop(journal);
    assert_eq!(remembered(&Journal::open(&path, RESUME).unwrap(), 10), [0, 1, 2, 3, 4, 5, 6, 8]);
}

#[test]
fn the_last_entry_counts_and_none_before_the_task_began_again() {
    let folder = folder();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, NEW).unwrap();
    let earlier = Entry { exit: 77, ..entry(0) };
    for each in [&earlier, &entry(0), &entry(1), &entry(2)] {
        journal.append(each).unwrap();
    }
    journal.begun(entry(1).identity).unwrap();
    journal.begun(entry(2).identity).unwrap();
    journal.append(&entry(2)).unwrap();
    journal.begun(entry(5).identity).unwrap();
    drop(journal);
    assert_eq!(remembered(&Journal::open(&path, RESUME).unwrap(), 10), [0, 2]);
}

#[test]
fn begun_is_in_the_file_when_it_returns() {
    let folder = folder();
    let path = folder.path().join("journal");
    let ends = write_journal(&path, 1);
    let journal = Journal::open(&path, RESUME).unwrap();
    journal.begun(entry(0).identity).unwrap();
    assert!(path.metadata().unwrap().len() > ends[1]);
}

#[test]
fn the_format_stays() {
    let folder = folder();
    let path = folder.path().join("journal");
    write_journal(&path, 1);
    let bytes = fs::read(&path).unwrap();
    let record = &bytes[64..bytes.len() - 8];
    let text: Vec<String> = record.chunks(32).map(|row| row.escape_ascii().to_string()).collect();
    expect![[r#"
        \x13\x01\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01)/a/folder
        /with/a/longer/name/input.000000
        \x01\x00\x80\x80\xd0\xe2\xc6\xbf\xce\x97/\x00\x01*/a/folder/with/a/l
        onger/name/result.000000\x01\x00\x80\x80\xd0\xe2\xc6\xbf
        \xce\x97/\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01e\x0b\"7\xc7c\xe5\xdbs\xc3
        \xe0\xd7n\x813*\x01\x04\x00\x00\x00\x00\x01\'/a/folder/with/a/l
        onger/name/out.000000\x01\x00\x80\x80\xd0\xe2\xc6\xbf\xce\x97/
        \x00\'/a/folder/with/a/longer/name/e
        rr.000000\x01\x00\x80\x80\xd0\xe2\xc6\xbf\xce\x97/\x00\x05\x00"#]].assert_eq(&text.join("\n"));
    let header = Header { format: 1, created_ms: 2, number: 3, engine: "0.1.0".to_owned() };
    let text: Vec<String> = header.encode().chunks(16).map(|row| row.escape_ascii().to_string()).collect();
    expect![[r#"
        \x89TRGJ\r\n\x1a\x04\x03\x02\x01\x01\x00\x00\x00
        \x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00
        0.1.0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00
        \x00\x00\x00\x00\x00\x00\x00\x00\xc7g\x16\x99\x1aa\xd8\x00"#]]
    .assert_eq(&text.join("\n"));
}

#[test]
fn resume_without_a_journal_and_an_empty_file_begin_one() {
    let folder = folder();
    for (name, options) in [("none", RESUME), ("new", NEW), ("empty", RESUME), ("empty too", NEW)] {
        let path = folder.path().join(name);
        if name.starts_with("empty") {
            File::create(&path).unwrap();
        }
        let journal = Journal::open(&path, options).unwrap();
        assert_eq!((journal.past_len(), journal.dropped_bytes()), (0, 0));
        journal.append(&entry(1)).unwrap();
        drop(journal);
        assert_eq!(remembered(&Journal::open(&path, RESUME).unwrap(), 3), [1]);
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 4, "no temporary file stays");
}

#[test]
fn a_new_journal_has_the_modes_of_any_new_file() {
    let folder = folder();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    File::create(folder.path().join("other")).unwrap();
    drop(Journal::open(&folder.path().join("journal"), NEW).unwrap());
    assert_eq!(mode(&folder.path().join("journal")), mode(&folder.path().join("other")));
}

#[test]
fn an_existing_journal_is_not_overwritten() {
    let folder = folder();
    let path = folder.path().join("journal");
    write_journal(&path, 1);
    check_message(
        &folder,
        &path,
        NEW,
        &expect!["the journal DIR/journal exists: resume from it, remove it, or choose another path"],
    );
    fs::write(&path, &fs::read(&path).unwrap()[..20]).unwrap();
    check_message(
        &folder,
        &path,
        NEW,
        &expect!["the journal DIR/journal exists: resume from it, remove it, or choose another path"],
    );
}

#[test]
fn other_files_are_named_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("journal");
    fs::write(&path, "#!/bin/sh\nrm -rf /tmp/x\n").unwrap();
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r##"
        DIR/journal is not a journal: it starts with "#!/bin/sh\nrm -rf"; it was left as it is,
        give another path"##]],
    );
    check_message(
        &folder,
        &path,
        NEW,
        &expect![[r##"
        DIR/journal is not a journal: it starts with "#!/bin/sh\nrm -rf"; it was left as it is,
        give another path"##]],
    );
    fs::write(&path, [0, 1, 2, 0xff]).unwrap();
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        DIR/journal is not a journal: it starts with the bytes 00 01 02 ff; it was left as it is,
        give another path"#]],
    );
    check_message(
        &folder,
        Path::new("/dev/null"),
        RESUME,
        &expect![[r#"
        the journal /dev/null is a device: give the path of a file that is a journal or not there
        yet"#]],
    );
    fs::create_dir(folder.path().join("directory")).unwrap();
    check_message(
        &folder,
        &folder.path().join("directory"),
        RESUME,
        &expect![[r#"
        the journal DIR/directory is a directory: give the path of a file that is a journal or not
        there yet"#]],
    );
    check_message(
        &folder,
        &folder.path().join("none/journal"),
        RESUME,
        &expect![[r#"
        cannot create the journal DIR/none/journal: there is no directory DIR/none; create it
        first"#]],
    );
    symlink("nowhere", folder.path().join("link")).unwrap();
    check_message(
        &folder,
        &folder.path().join("link"),
        RESUME,
        &expect![[r#"
        the journal DIR/link is a symbolic link that leads nowhere: give the path of a file that
        is a journal or not there yet"#]],
    );
}

#[test]
fn a_newer_format_says_who_wrote_it() {
    let folder = folder();
    let path = folder.path().join("journal");
    let header = Header { format: 7, created_ms: 0, number: 0, engine: "9.8.7-rc.1".to_owned() };
    fs::write(&path, [&header.encode()[..], b"what version 9 appends"].concat()).unwrap();
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        the journal DIR/journal was written by Tarragon 9.8.7-rc.1 in format 7, this one reads up
        to 1: resume with that version, or remove the journal and run everything"#]],
    );
}

#[test]
fn a_record_that_is_intact_but_unknown_is_not_cut_off() {
    use super::super::record::{checksum, hash_frame};
    let folder = folder();
    let path = folder.path().join("journal");
    let header = Header { engine: "0.1.7".to_owned(), ..Header::new(0, 5) };
    let frame = [&1_u32.to_le_bytes()[..], &[99]].concat();
    let sum = checksum(hash_frame(&frame, 5), 64);
    fs::write(&path, [&header.encode()[..], &frame, &sum].concat()).unwrap();
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        the record at byte 64 of the journal DIR/journal is intact but unknown here: resume with
        the build of Tarragon 0.1.7 that wrote it, or remove the journal and run everything"#]],
    );
}

#[test]
fn a_locked_journal_is_free_again_after_close() {
    let folder = folder();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, NEW).unwrap();
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        the journal DIR/journal is in use by another run: wait until that has ended, or give each
        run its own"#]],
    );
    check_message(
        &folder,
        &path,
        NEW,
        &expect![[r#"
        the journal DIR/journal is in use by another run: wait until that has ended, or give each
        run its own"#]],
    );
    journal.close().unwrap();
    let second = Journal::open(&path, RESUME).unwrap();
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        the journal DIR/journal is in use by another run: wait until that has ended, or give each
        run its own"#]],
    );
    // The first one's end must not take the second one's lock away.
    drop(journal);
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        the journal DIR/journal is in use by another run: wait until that has ended, or give each
        run its own"#]],
    );
    drop(second);
    Journal::open(&path, RESUME).unwrap();
}

#[test]
fn of_many_that_create_one_journal_one_succeeds() {
    let folder = folder();
    let path = folder.path().join("journal");
    let open = || Journal::open(&path, NEW);
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(all.iter().filter(|journal| journal.is_ok()).count(), 1);
    for error in all.into_iter().filter_map(Result::err) {
        assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    }
}

#[test]
fn a_journal_without_permission_is_an_error() {
    let folder = folder();
    let path = folder.path().join("journal");
    write_journal(&path, 1);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
        return say("skipped: read-only journal: this user may write to every file");
    }
    check_message(
        &folder,
        &path,
        RESUME,
        &expect![[r#"
        no permission to open the journal DIR/journal: a journal and its directory must be
        readable and writable by you"#]],
    );
}

#[test]
fn a_link_to_an_empty_file_stays_a_link() {
    let folder = folder();
    let (path, link) = (folder.path().join("file"), folder.path().join("link"));
    File::create(&path).unwrap();
    symlink("file", &link).unwrap();
    let journal = Journal::open(&link, NEW).unwrap();
    journal.append(&entry(0)).unwrap();
    journal.close().unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(remembered(&Journal::open(&path, RESUME).unwrap(), 3), [0]);
}

#[test]
fn a_journal_that_was_removed_or_replaced_says_so() {
    let folder = folder();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, NEW).unwrap();
    fs::remove_file(&path).unwrap();
    journal.append(&entry(0)).unwrap();
    assert!(matches!(journal.close(), Err(JournalError::Removed { .. })));
    let journal = Journal::open(&path, NEW).unwrap();
    fs::write(folder.path().join("other"), "").unwrap();
    fs::rename(folder.path().join("other"), &path).unwrap();
    assert!(matches!(journal.close(), Err(JournalError::Removed { .. })));
    assert!(matches!(journal.close(), Err(JournalError::Removed { .. })), "the answer stays");
}
