//! Whether two processes run the same program: the same file, or files of equal bytes. Anything less, and places in
//! the program that one rank names would mean something else in another.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use xxhash_rust::xxh3::Xxh3;

/// What tells files apart without reading them: device, inode, bytes, time of the last change in nanoseconds.
pub(super) type Identity = [u64; 4];

/// The file that this process runs.
pub(super) fn own() -> std::io::Result<Identity> {
    Ok(identity(&File::open("/proc/self/exe")?.metadata()?))
}

/// The fingerprint of the file that this process runs.
pub(super) fn own_fingerprint() -> std::io::Result<u128> {
    fingerprint("/proc/self/exe")
}

/// Whether this process runs the same program as process `pid`, whose file is `theirs`. Reads both files only if they
/// are not one and the same.
pub(super) fn is_same(theirs: Identity, pid: u32) -> std::io::Result<bool> {
    if own()? == theirs {
        return Ok(true);
    }
    Ok(own_fingerprint()? == fingerprint(&format!("/proc/{pid}/exe"))?)
}

fn identity(metadata: &Metadata) -> Identity {
    let changed = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
    [metadata.dev(), metadata.ino(), metadata.len(), changed as u64]
}

/// Hash of a file's bytes (XXH3, 128 bits); about 10 ms for 50 MB.
fn fingerprint(path: &str) -> std::io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.digest128()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_itself_also_by_its_bytes() {
        let own = own().unwrap();
        assert!(is_same(own, u32::MAX).unwrap(), "one file needs no look at the process");
        assert!(is_same([0; 4], std::process::id()).unwrap(), "equal bytes in another place");
    }
}
