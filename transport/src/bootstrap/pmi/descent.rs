//! Whether a process above this one is a rank: a rank bears a name of its process's number, which is bound in no
//! folder and goes with the process.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// How many processes above this one are looked at.
const ANCESTORS_MAX: usize = 64;

/// Lets this process bear the name of a rank.
pub(super) fn claim() -> std::io::Result<UnixListener> {
    bind(std::process::id())
}

/// Whether some process above this one bears it.
pub(super) fn has_rank_above() -> bool {
    let mut pid = std::process::id();
    for _ in 0..ANCESTORS_MAX {
        match parent_of(pid) {
            Some(0 | 1) | None => return false,
            Some(parent) => pid = parent,
        }
        if bind(pid).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            return true;
        }
    }
    false
}

fn bind(pid: u32) -> std::io::Result<UnixListener> {
    SocketAddr::from_abstract_name(format!("tarragon-pmi-{pid}"))
        .and_then(|name| UnixListener::bind_addr(&name))
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, but is the last thing in brackets.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_child_is_this_process() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
