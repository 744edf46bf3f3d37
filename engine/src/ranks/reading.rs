//! At home: what a task on another rank has written, when somebody reads it.

use super::elsewhere::Elsewhere;
use super::message::{self, Kind, Read};
use crate::task::output::Portion;
use crate::task::record::Ref;
use std::io;

/// Of which part output was asked for, and what came.
pub(super) type Reading = (usize, Option<io::Result<Vec<u8>>>);

impl Elsewhere {
    /// What a task elsewhere has written so far; waits for the answer of its rank. `None` if it runs here.
    pub(crate) fn read(&self, task: Ref, portion: Portion) -> Option<io::Result<Vec<u8>>> {
        let (part, place) = self.place_of(task)?;
        let (ticket, read) = {
            let mut now = self.now.lock();
            now.tickets += 1;
            (now.tickets, Read { task: place, portion })
        };
        let is_gone = self.now.lock().gone.contains(&part) || self.ranks.is_lost(self.away[part].rank());
        let gone = is_gone.then(|| Err(io::Error::other("its rank is lost")));
        self.reading.lock().insert(ticket, (part, gone));
        if !is_gone {
            self.tell(part, Kind::Read, &message::bytes(&(ticket, read)));
        }
        let came = || {
            let is_lost = self.ranks.lost.get().is_some();
            is_lost || self.reading.lock().get(&ticket).is_some_and(|(_, came)| came.is_some())
        };
        let shared = task.shared();
        shared.executor.wait(shared, task, None, &came);
        let read = self.reading.lock().remove(&ticket).and_then(|(_, came)| came);
        Some(read.unwrap_or_else(|| Err(io::Error::other("its rank is lost"))))
    }

    pub(super) fn written(&self, bytes: &[u8]) {
        let Some(((ticket, error), bytes)) = message::head::<(u64, String)>(bytes) else { return };
        if let Some((_, place)) = self.reading.lock().get_mut(&ticket) {
            let read = if error.is_empty() { Ok(bytes.to_vec()) } else { Err(io::Error::other(error)) };
            *place = Some(read);
        }
        // The task may run on, so it is only who waits that is told, not who goes on after it.
        if let Some(shared) = self.shared.upgrade() {
            shared.awaited.look_again();
        }
    }

    /// Who reads output of a part whose holder is lost is told so.
    pub(super) fn reads_fail(&self, part: usize) {
        for (of, came) in self.reading.lock().values_mut() {
            if *of == part && came.is_none() {
                *came = Some(Err(io::Error::other("its rank is lost")));
            }
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.awaited.look_again();
        }
    }
}
