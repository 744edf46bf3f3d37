//! Per datum, the last writer and the readers since: all that later tasks can depend on.

use super::hazard::{Dependences, Marks};

/// No vertex.
pub(crate) const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Row {
    /// The compile that wrote this row; rows of earlier ones count as empty, so nothing is cleared between them.
    epoch: u32,
    writer: u32,
    /// Head of the chain of readers in `links`.
    readers: u32,
}

#[derive(Clone, Copy)]
struct Link {
    reader: u32,
    next: u32,
}

/// The last writer and the readers since of every datum; kept by the batch so that its memory is reused.
#[derive(Default)]
pub(crate) struct Frontier {
    epoch: u32,
    rows: Vec<Row>,
    links: Vec<Link>,
    /// For `hazard`.
    pub(super) marks: Marks,
    /// The buffers of the latest result, for the next.
    pub(super) found: Dependences,
}

impl Frontier {
    /// Forgets everything: an explicit compile starts from an empty frontier.
    pub(super) fn reset(&mut self, data_len: usize) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.rows.clear();
            self.epoch = 1;
        }
        if self.rows.len() < data_len {
            self.rows.resize(data_len, Row { epoch: 0, writer: NOBODY, readers: NOBODY });
        }
        self.links.clear();
        self.marks.clear();
    }

    /// Takes buffers back.
    pub(super) fn keep(&mut self, found: Dependences) {
        self.found = found;
    }

    #[inline(always)]
    fn row(&mut self, datum: u32) -> &mut Row {
        let epoch = self.epoch;
        let row = &mut self.rows[datum as usize];
        if row.epoch != epoch {
            *row = Row { epoch, writer: NOBODY, readers: NOBODY };
        }
        row
    }

    /// `vertex` reads the datum; returns the last writer, or [`NOBODY`].
    #[inline(always)]
    pub(super) fn read_by(&mut self, datum: u32, vertex: u32) -> u32 {
        let link = self.links.len() as u32;
        let row = self.row(datum);
        let (writer, next) = (row.writer, std::mem::replace(&mut row.readers, link));
        self.links.push(Link { reader: vertex, next });
        writer
    }

    /// `vertex` writes the datum: calls `each` for every other reader since the last write. Returns the last writer
    /// if there is no such reader, else [`NOBODY`]: between the two, the readers keep the order.
    #[inline(always)]
    pub(super) fn written_by(
        &mut self,
        datum: u32,
        vertex: u32,
        mut each: impl FnMut(&mut Marks, u32),
    ) -> u32 {
        let row = self.row(datum);
        let (mut writer, mut link) = (row.writer, row.readers);
        row.writer = vertex;
        row.readers = NOBODY;
        while link != NOBODY {
            let l = self.links[link as usize];
            if l.reader != vertex {
                each(&mut self.marks, l.reader);
                writer = NOBODY;
            }
            link = l.next;
        }
        writer
    }
}
