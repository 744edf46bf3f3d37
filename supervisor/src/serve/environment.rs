//! Which environment a process gets: a block that many share, its own changes, and its mark. Pure.

use std::ffi::{CStr, CString};

use crate::proc::MARK;
use crate::wire::Change;

/// An environment block, taken apart once.
pub(super) struct Base {
    /// `name=value` each; the mark of an outer supervisor is not among them.
    entries: Vec<CString>,
    /// The marks of outer supervisors, each with a comma after it.
    outer_marks: String,
}

impl Base {
    pub(super) fn new(entries: Vec<&CStr>) -> Base {
        let is_mark = |entry: &&CStr| name_of(entry) == MARK.as_bytes();
        let (marks, others): (Vec<&CStr>, Vec<&CStr>) = entries.into_iter().partition(is_mark);
        let values = marks.iter().map(|entry| entry.to_string_lossy()[MARK.len() + 1..].to_owned() + ",");
        Base { entries: others.into_iter().map(CStr::to_owned).collect(), outer_marks: values.collect() }
    }
}

/// The entry that marks a process, and all it starts, as what the supervisor calls `id`.
pub(super) fn mark(base: Option<&Base>, supervisor: u32, id: u64) -> CString {
    let outer = base.map_or("", |base| &base.outer_marks);
    CString::new(format!("{MARK}={outer}{supervisor}:{id}")).expect("entries have no zero byte")
}

/// The entries that a process gets. Changes to the mark are not heard.
pub(super) fn build<'a>(base: Option<&'a Base>, changes: &[Change<'a>], mark: &'a CStr) -> Vec<&'a CStr> {
    let mut entries: Vec<&CStr> = Vec::with_capacity(changes.len() + 80);
    entries.extend(base.into_iter().flat_map(|base| &base.entries).map(CString::as_c_str));
    for change in changes {
        let (Change::Set(text) | Change::Remove(text)) = change;
        let name = name_of(text);
        entries.retain(|entry| name_of(entry) != name);
        if let Change::Set(entry) = change
            && name != MARK.as_bytes()
        {
            entries.push(entry);
        }
    }
    entries.push(mark);
    entries
}

/// The name in `name=value`; the whole, if there is no `=` after its first byte.
fn name_of<'a>(entry: &&'a CStr) -> &'a [u8] {
    let bytes = entry.to_bytes();
    let end =
        bytes.iter().skip(1).position(|byte| *byte == b'=').map_or(bytes.len(), |position| position + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::{Base, build, mark};
    use crate::wire::Change;

    #[test]
    fn changes_apply_in_order_and_the_mark_comes_last() {
        let base = Base::new(vec![c"A=1", c"B=2", c"AB=3"]);
        let mark = mark(Some(&base), 9, 7);
        let changes = [Change::Set(c"C=4"), Change::Remove(c"A"), Change::Set(c"B=5"), Change::Set(c"C=6")];
        let built = build(Some(&base), &changes, &mark);
        assert_eq!(built, [c"AB=3", c"B=5", c"C=6", c"TARRAGON_TASK_MARK=9:7"]);
    }

    #[test]
    fn the_mark_of_an_outer_supervisor_stays_and_a_forged_one_is_not_heard() {
        let base = Base::new(vec![c"TARRAGON_TASK_MARK=3:4", c"A=1"]);
        let mark = mark(Some(&base), 9, 7);
        let built = build(Some(&base), &[Change::Set(c"TARRAGON_TASK_MARK=1:1")], &mark);
        assert_eq!(built, [c"A=1", c"TARRAGON_TASK_MARK=3:4,9:7"]);
    }
}
