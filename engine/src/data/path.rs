//! Which paths name one file: absolute, without `.`, `..`, doubled or trailing slashes. Lexical, as the user wrote
//! them: links are not followed, and nothing needs to exist.

use super::BadDatum;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The normal form of `path` as bytes, in `buffer` unless `path` already has it.
pub(crate) fn normal<'a>(path: &'a Path, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BadDatum> {
    let bytes = path.as_os_str().as_bytes();
    if is_normal(bytes) {
        return Ok(bytes);
    }
    if bytes.first() != Some(&b'/') {
        let here = std::env::current_dir()
            .map_err(|e| BadDatum::NoCurrentDirectory(path.to_path_buf(), e.to_string()))?;
        append(buffer, here.as_os_str().as_bytes());
    }
    append(buffer, bytes);
    if buffer.is_empty() {
        buffer.push(b'/');
    }
    Ok(buffer)
}

/// Adds the components of `bytes` to the normal path in `buffer` (which is empty for the root).
fn append(buffer: &mut Vec<u8>, bytes: &[u8]) {
    for part in bytes.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => buffer.truncate(buffer.iter().rposition(|b| *b == b'/').unwrap_or(0)),
            _ => {
                buffer.push(b'/');
                buffer.extend_from_slice(part);
            }
        }
    }
}

/// True for a path that [`append`] would leave as it is.
fn is_normal(bytes: &[u8]) -> bool {
    if bytes.first() != Some(&b'/') {
        return false;
    }
    if bytes.len() == 1 {
        return true;
    }
    let mut after_slash = true;
    for (i, b) in bytes.iter().enumerate().skip(1) {
        if after_slash {
            if *b == b'/' {
                return false;
            }
            let rest = &bytes[i..];
            if *b == b'.' && (rest.len() == 1 || rest[1] == b'/' || rest.starts_with(b"../") || rest == b"..")
            {
                return false;
            }
        }
        after_slash = *b == b'/';
    }
    !after_slash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, wanted: &str) {
        let mut buffer = Vec::new();
        let normal = normal(Path::new(path), &mut buffer).expect("a current directory");
        assert_eq!(String::from_utf8_lossy(normal), wanted, "from {path:?}");
    }

    #[test]
    fn one_file_has_one_normal_path() {
        for (path, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a/b/..", "/a"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c", "/a/.b/..c"),
            ("//a", "/a"),
        ] {
            check(path, wanted);
        }
    }

    #[test]
    fn a_relative_path_starts_at_the_current_directory() {
        let here = std::env::current_dir().expect("a current directory");
        check("x/../y", &format!("{}/y", here.display()));
        check(".", &here.display().to_string());
    }

    #[test]
    fn the_fast_test_agrees_with_the_slow_form() {
        let parts = ["a", ".", "..", "", "...", ".x", "b"];
        for i in 0..7usize.pow(3) {
            let text = format!("/{}/{}/{}", parts[i % 7], parts[i / 7 % 7], parts[i / 49]);
            let mut slow = Vec::new();
            append(&mut slow, text.as_bytes());
            if slow.is_empty() {
                slow.push(b'/');
            }
            assert_eq!(is_normal(text.as_bytes()), slow == text.as_bytes(), "{text}");
        }
    }
}
