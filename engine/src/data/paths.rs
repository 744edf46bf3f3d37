//! The paths of a batch as a tree: each is kept once, and knows the directory it lies in.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::os::unix::ffi::OsStrExt;

const ROOT_PARENT: u32 = u32::MAX;

/// One path, declared or a directory above a declared one.
struct Row {
    start: usize,
    len: u32,
    parent: u32,
    /// Its datum; 0 while no task declared it.
    id: u32,
    /// A path below it was declared.
    has_below: bool,
}

/// Every path declared in a batch, and the directories above them.
#[derive(Default)]
pub(crate) struct Paths {
    text: Vec<u8>,
    rows: Vec<Row>,
    table: HashTable<u32>,
    hasher: RandomState,
    /// Row of the directory of the path declared last: neighbours share it.
    directory: Option<u32>,
    /// Datum and row, by rising datum.
    declared: Vec<(u32, u32)>,
    /// Some declared path lies below another.
    nested: bool,
}

impl Paths {
    /// The datum of a normal path; `fresh` gives a number when it is new.
    pub(crate) fn declare(&mut self, path: &[u8], fresh: impl FnOnce() -> u32) -> u32 {
        let row = self.row(path) as usize;
        if self.rows[row].id == 0 {
            self.rows[row].id = fresh();
            self.declared.push((self.rows[row].id, row as u32));
            self.nested |= self.rows[row].has_below;
            let mut above = self.rows[row].parent;
            while above != ROOT_PARENT {
                let r = &mut self.rows[above as usize];
                r.has_below = true;
                self.nested |= r.id != 0;
                above = r.parent;
            }
        }
        self.rows[row].id
    }

    fn row(&mut self, path: &[u8]) -> u32 {
        if let Some(row) = self.find(path) {
            return row;
        }
        let mut parent = ROOT_PARENT;
        if path.len() > 1 {
            let cut = path.iter().rposition(|b| *b == b'/').expect("a normal path starts with a slash");
            let directory = &path[..cut.max(1)];
            parent = match self.directory {
                Some(row) if self.bytes(row) == directory => row,
                _ => self.directory(directory),
            };
            self.directory = Some(parent);
        }
        self.add(path, parent)
    }

    /// The row of a directory, with all above it.
    fn directory(&mut self, path: &[u8]) -> u32 {
        let mut parent = match self.find(b"/") {
            Some(root) => root,
            None => self.add(b"/", ROOT_PARENT),
        };
        let ends = (1..=path.len()).filter(|end| *end > 1 && (*end == path.len() || path[*end] == b'/'));
        for end in ends {
            parent = match self.find(&path[..end]) {
                Some(row) => row,
                None => self.add(&path[..end], parent),
            };
        }
        parent
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(path);
        self.table.find(hash, |row| self.bytes(*row) == path).copied()
    }

    fn add(&mut self, path: &[u8], parent: u32) -> u32 {
        let row = u32::try_from(self.rows.len()).expect("fewer than 2^32 paths");
        let len = u32::try_from(path.len()).expect("a path shorter than 4 GiB");
        self.rows.push(Row { start: self.text.len(), len, parent, id: 0, has_below: false });
        self.text.extend_from_slice(path);
        let Self { text, rows, table, hasher, .. } = self;
        let bytes = |row: &u32| {
            let r = &rows[*row as usize];
            &text[r.start..r.start + r.len as usize]
        };
        table.insert_unique(hasher.hash_one(path), row, |row| hasher.hash_one(bytes(row)));
        row
    }

    fn bytes(&self, row: u32) -> &[u8] {
        let r = &self.rows[row as usize];
        &self.text[r.start..r.start + r.len as usize]
    }

    /// For each datum below `len` the nearest declared directory above it; `None` when there is none anywhere.
    pub(crate) fn parents(&self, len: usize) -> Option<Vec<u32>> {
        if !self.nested {
            return None;
        }
        let mut parents = vec![0; len];
        for (id, row) in &self.declared {
            let mut above = self.rows[*row as usize].parent;
            while above != ROOT_PARENT && self.rows[above as usize].id == 0 {
                above = self.rows[above as usize].parent;
            }
            if above != ROOT_PARENT {
                parents[*id as usize] = self.rows[above as usize].id;
            }
        }
        Some(parents)
    }

    pub(crate) fn path_of(&self, id: u32) -> Option<&OsStr> {
        let at = self.declared.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(OsStr::from_bytes(self.bytes(self.declared[at].1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(paths: &mut Paths, list: &[&str]) -> Vec<u32> {
        let mut next = paths.declared.len() as u32;
        list.iter()
            .map(|p| {
                paths.declare(p.as_bytes(), || {
                    next += 1;
                    next
                })
            })
            .collect()
    }

    #[test]
    fn equal_paths_are_one_datum() {
        let mut paths = Paths::default();
        assert_eq!(declare(&mut paths, &["/a/b", "/a/c", "/a/b"]), [1, 2, 1]);
        assert_eq!(paths.parents(3), None, "no declared path lies below another");
        assert_eq!(paths.path_of(2), Some(OsStr::new("/a/c")));
    }

    #[test]
    fn the_nearest_declared_directory_is_the_parent() {
        let mut paths = Paths::default();
        let ids = declare(&mut paths, &["/a/b/c/d", "/a", "/a/b/c", "/z", "/ab"]);
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        assert_eq!(paths.parents(6), Some(vec![0, 3, 0, 2, 0, 0]));
    }

    #[test]
    fn the_root_holds_everything() {
        let mut paths = Paths::default();
        declare(&mut paths, &["/x", "/"]);
        assert_eq!(paths.parents(3), Some(vec![0, 2, 0]));
    }

    #[test]
    fn a_path_of_many_parts_needs_no_deep_stack() {
        let mut paths = Paths::default();
        let deep = "/d".repeat(10_000);
        declare(&mut paths, &[&deep, "/d"]);
        assert_eq!(paths.parents(3), Some(vec![0, 2, 0]));
    }
}
