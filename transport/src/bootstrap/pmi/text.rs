//! What goes over the wire: lines of words `name=value`, and bytes as hexadecimal digits in parts.

/// Digits that stand for the number of bytes, before the first part.
const COUNT_DIGITS: usize = 8;
/// The most bytes of one rank in one exchange.
pub(super) const BYTES_MAX: usize = 16 << 20;

/// The value of a name in a line; `None` if it is not there.
pub(super) fn value<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Bytes as texts of at most `room` digits each; at least one text. There must be room for the number and a byte.
pub(super) fn parts(bytes: &[u8], room: usize) -> Vec<String> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let all = format!("{:0COUNT_DIGITS$x}{digits}", bytes.len());
    all.as_bytes().chunks(room).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// How many digits follow the first part; `None` if it is none, or says more than [`BYTES_MAX`].
pub(super) fn digits_after(first: &str) -> Option<usize> {
    let bytes = usize::from_str_radix(first.get(..COUNT_DIGITS)?, 16).ok()?;
    if bytes > BYTES_MAX {
        return None;
    }
    (COUNT_DIGITS + 2 * bytes).checked_sub(first.len())
}

/// The bytes of all parts together; `None` if they are none.
pub(super) fn bytes_of(all: &str) -> Option<Vec<u8>> {
    let digits = all.get(COUNT_DIGITS..)?.as_bytes();
    let count = usize::from_str_radix(all.get(..COUNT_DIGITS)?, 16).ok()?;
    let one = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(one).collect();
    bytes.filter(|bytes| bytes.len() == count && digits.len() == 2 * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let line = "cmd=get_result rc=0 msg=success value=00=1 ";
        assert_eq!(value(line, "value"), Some("00=1"));
        assert_eq!((value(line, "rc"), value(line, "val"), value(line, "c")), (Some("0"), None, None));
    }

    #[test]
    fn parts_are_the_bytes_again_and_say_how_many_follow() {
        for (bytes, room) in [(vec![], 10), (vec![7], 10), ((0..=255).collect::<Vec<u8>>(), 100)] {
            let parts = parts(&bytes, room);
            assert!(parts.iter().all(|part| part.len() <= room));
            let after: usize = parts[1..].iter().map(String::len).sum();
            assert_eq!(digits_after(&parts[0]), Some(after));
            assert_eq!(bytes_of(&parts.concat()), Some(bytes));
        }
    }

    #[test]
    fn what_is_no_text_of_bytes_is_refused() {
        assert_eq!(digits_after("ffffffff00"), None, "too many");
        assert_eq!((digits_after("0000"), digits_after("0000000x")), (None, None));
        for text in ["", "0000000", "00000001", "0000000100ff", "00000001zz", "000000010", "00000001é"] {
            assert_eq!(bytes_of(text), None, "{text}");
        }
    }
}
