//! Names functions across processes of one executable: by their distance from a fixed place in the program.
//!
//! Address-space randomisation moves a program as a whole, so the distance between two of its functions is the same in
//! every process that runs it. Whether two processes run the same program is decided by a fingerprint of the
//! executable's bytes, which is compared before a distance is ever used.

use std::sync::{Mutex, PoisonError};

/// The fixed place. A static is there once; of a function each part of the program may have a copy.
static ANCHOR: u8 = 0;

fn anchor() -> i64 {
    (&raw const ANCHOR).addr() as i64
}

/// The distance of a function from the fixed place, in bytes.
pub fn distance(function: *const ()) -> i64 {
    function.addr() as i64 - anchor()
}

/// The address of the function at a distance; `None` if there is no code. The caller knows that the distance is one of
/// this very executable.
pub fn address(distance: i64) -> Option<usize> {
    let address = anchor().wrapping_add(distance) as usize;
    is_code(address).then_some(address)
}

/// Whether the kernel lists the address as executable: keeps a damaged message from jumping anywhere.
fn is_code(address: usize) -> bool {
    /// Where it lay the last time: names of one program are near each other.
    static LAST: Mutex<(usize, usize)> = Mutex::new((0, 0));
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if (last.0..last.1).contains(&address) {
        return true;
    }
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
    let range = maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let ((start, end), rights) = (fields.next()?.split_once('-')?, fields.next()?);
        let (start, end) = (parse(start), parse(end));
        (rights.contains('x') && (start..end).contains(&address)).then_some((start, end))
    });
    *last = range.unwrap_or(*last);
    range.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_names_and_data_has_none() {
        let function = functions_have_names_and_data_has_none as fn() as *const ();
        assert_eq!(address(distance(function)), Some(function.addr()));
        assert_eq!(address(0), None, "the fixed place is data");
        assert_eq!(address(i64::MAX), None);
    }
}
